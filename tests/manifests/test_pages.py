"""Documents besides the catalog: pages that name a model, grouped rows, cells with a platform's own wording."""

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import Layout, check
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Files, ManifestError, Overlay, Tree
from tests.manifests.models import CODER_3B_AWQ, CODER_3B_BASE, CODER_14B_AWQ

CATALOG = "docs/public/reference/model-catalog.md"
GUIDE = "docs/public/guides/staged-bring-up.md"
PAGE = "docs/public/guides/coding-stack.md"
CHAT = "serving/coder-chat/deployment.yaml"

STACK = """\
# The coding stack

Two models share one GPU.

| Model | Served name | For | Download |
| --- | --- | --- | --- |
| Qwen2.5-Coder-7B-Instruct-AWQ | `qwen2.5-coder-7b-instruct` | chat | 5.6 GB |
| Qwen2.5-Coder-1.5B | `qwen2.5-coder-1.5b` | completion | 3.1 GB |

- `coder-chat` serves Qwen2.5-Coder-7B-Instruct (AWQ) as `qwen2.5-coder-7b-instruct`; its first start downloads about 5.6 GB.
- Ask the engine directly with:

```
curl $URL -d '{"model": "qwen2.5-coder-7b-instruct"}'
```
"""


def contents(tree: Tree) -> dict[str, str]:
    return {path: text for path in tree.files("") if (text := tree.read(path)) is not None}


def replaced(tree: Tree, path: str, old: str, new: str) -> Files:
    files = contents(tree)
    assert old in files[path], old
    return Files(files | {path: files[path].replace(old, new, 1)})


def test_a_page_that_names_the_model_is_updated_by_a_swap(platform: Files, layout: Layout, machine: Machine) -> None:
    """Names, served name and download size change; text about other models stays."""
    tree = Files(contents(platform) | {PAGE: STACK})
    change = plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_14B_AWQ), machine)
    expected = STACK.replace("7B", "14B").replace("7b", "14b").replace("5.6 GB", "10 GB")
    assert (Overlay(tree, change.changes).read(PAGE) or "").splitlines() == expected.splitlines()
    assert not [warning for warning in change.warnings if PAGE in warning]


@pytest.mark.parametrize(
    "cell", ["`coder-chat`, `coder-fim`", "coder-chat / coder-fim", "`coder-chat` and `coder-fim`"]
)
def test_a_row_of_several_applications_is_edited(platform: Files, layout: Layout, machine: Machine, cell: str) -> None:
    """The row is added next to its template's, and removed again completely."""
    guide = f"# Bring-up\n\n| Wave | Application | Needs |\n| --- | --- | --- |\n| 4 | {cell} | 1 GPU |\n| 5 | `n8n` | – |\n"
    tree = Files(contents(platform) | {GUIDE: guide})
    assert check(Platform(tree, layout)) == ()
    after = Overlay(
        tree, plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine).changes
    )
    assert check(Platform(after, layout)) == ()
    row = (after.read(GUIDE) or "").splitlines()[4]
    assert "mini" in row.split("|")[2]
    assert (row.split("|")[1], row.split("|")[3]) == (" 4 ", " 1 GPU ")
    assert contents(Overlay(after, plan_remove(Platform(after, layout), "mini").changes)) == contents(tree)
    swapped = plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine).changes
    assert GUIDE not in swapped.files


def test_cells_keep_their_format(platform: Files, layout: Layout, machine: Machine) -> None:
    tree = replaced(platform, CATALOG, "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "Qwen2.5-Coder-7B-Instruct (AWQ 4-bit)")
    tree = replaced(tree, CATALOG, "Qwen/Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-1.5B (base)")
    tree = replaced(tree, CATALOG, "| 512 |", "| n/a (embeddings) |")
    assert check(Platform(tree, layout)) == ()
    chat = plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_14B_AWQ), machine).changes
    assert "| Qwen2.5-Coder-14B-Instruct (AWQ 4-bit) |" in (chat.files[CATALOG] or "")
    fim = plan_swap(Platform(tree, layout), SwapRequest(name="coder-fim", facts=CODER_3B_BASE), machine).changes
    assert "| Qwen2.5-Coder-3B (base) |" in (fim.files[CATALOG] or "")
    mini = plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine).changes
    assert "| Qwen2.5-Coder-3B-Instruct (AWQ 4-bit) |" in (mini.files[CATALOG] or "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# 7B and the graphs are slow to load", "# 14B and the graphs are slow to load"),
        ("# a 7B in fp16 would be ~15GB, too much", "# a 14B in fp16 would be ~30GB, too much"),
        ("# the 7B weights (~6GB)", "# the 14B weights (~10GB)"),
        ("# not the 0.5B, which loads in seconds", "# not the 0.5B, which loads in seconds"),
    ],
)
def test_a_size_in_a_comment_is_rewritten(
    platform: Files, layout: Layout, machine: Machine, old: str, new: str
) -> None:
    tree = replaced(platform, CHAT, "  replicas: 0\n", f"  replicas: 0 {old}\n")
    change = plan_swap(
        Platform(tree, layout),
        SwapRequest(name="coder-chat", facts=CODER_14B_AWQ, old_weight_bytes=5_571_000_000),
        machine,
    )
    assert f"  replicas: 0 {new}\n" in (Overlay(tree, change.changes).read(CHAT) or "")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("apps/ide.yaml", "env:\n  - name: CHAT_MODEL\n    value: coder-chat\n"),
        ("apps/continue/config.yaml", "models:\n  - name: Chat\n    model: coder-chat\n"),
        ("apps/webui/values.yaml", "config:\n  models:\n    - coder-chat\n"),
        ("apps/tabby.toml", '[model]\nmodel_name = "coder-chat"\n'),
        ("apps/agent.json", '{"model": "coder-chat"}\n'),
        ("scripts/eval.sh", "run --model coder-chat\n"),
    ],
)
def test_an_endpoint_is_not_removed_while_a_client_calls_its_alias(
    platform: Files, layout: Layout, path: str, text: str
) -> None:
    """The refusal names the file and its line; a document is only listed."""
    tree = Files(contents(platform) | {path: text})
    line = next(number for number, content in enumerate(text.splitlines(), 1) if "coder-chat" in content)
    with pytest.raises(ManifestError, match=rf"its alias coder-chat \({path}:{line}\)"):
        plan_remove(Platform(tree, layout), "coder-chat")
    page = Files(contents(platform) | {PAGE: "Set `model: coder-chat`, at http://coder-chat.serving.svc:8000.\n"})
    assert any(f"{PAGE}:1" in warning for warning in plan_remove(Platform(page, layout), "coder-chat").warnings)
