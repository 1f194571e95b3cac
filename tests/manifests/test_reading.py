"""Reading an endpoint from a branch: the differences that its card must show, and the refusals."""

from collections.abc import Callable

import pytest

from bot.platform.change_planning import plan_change
from bot.settings.config import Config
from manifests.arguments import MODEL_FLAGS
from manifests.deployed import Bound, changed_items, deployed_content
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.reading import Reading, read_change
from manifests.risks import DANGEROUS, danger_of, refuse_argument
from manifests.sizing import ModelFacts
from manifests.strays import EXECUTABLE, LINK, REGULAR, SUBMODULE, Touch
from manifests.tree import ChangeSet, Files, ManifestError, Overlay, Tree
from tests.manifests.models import CODER_3B_AWQ, CODER_7B_AWQ, CODER_14B_AWQ

DEPLOYMENT, VALUES = "serving/coder-chat/deployment.yaml", "platform/litellm/values.yaml"
CATALOG, ELSEWHERE = (
    "clusters/ai-dev/catalog/coding-assistant/coder-chat.yaml",
    "clusters/ai-dev/catalog/coding-assistant/evil.yaml",
)
APPLICATION = """kind: Application
metadata:
  name: coder-chat
spec:
  source:
    path: serving/coder-chat
"""
OTHER = APPLICATION.replace("name: coder-chat", "name: evil")
Edit = Callable[[str], str | None]


def swapped(
    tree: Tree,
    *options: tuple[str, str],
    edits: dict[str, Edit] | None = None,
    touches: dict[str, Touch] | None = None,
    facts: ModelFacts = CODER_14B_AWQ,
) -> Reading:
    """Return the rows of coder-chat's card after the bot swaps it and somebody edits files on its branch."""
    config = Config()
    change = plan_change(tree, config, "swap", "coder-chat", options, facts)
    after = Overlay(tree, change.changes)
    pushed = {path: edit(after.read(path) or "") for path, edit in (edits or {}).items()}
    overlaid = Overlay(after, ChangeSet(files=pushed))
    return read_change(
        Platform(tree, config.platform),
        Platform(overlaid, config.platform),
        "coder-chat",
        template="coder-chat",
        removes=False,
        touched={
            path: Touch(
                REGULAR if tree.read(path) is not None else "",
                REGULAR if overlaid.read(path) is not None else "",
                foreign=path in pushed,
            )
            for path in (*change.changes.files, *pushed)
        }
        | (touches or {}),
        planned=change.changes.files.keys(),
    )


def replacing(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


def test_the_bots_own_change_has_no_duplicate_rows(platform: Files) -> None:
    """Fields in the contract's rows get no additional row, and nothing is refused."""
    reading = swapped(platform)
    assert dict(reading.rows)["Model"] == "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"
    further = [label for label, value in reading.rows if "until now" in value]
    assert further in ([], ["containers[vllm].resources.limits.memory"])
    assert (reading.warnings, reading.problems) == ((), ())


@pytest.mark.parametrize("facts", [CODER_3B_AWQ, CODER_7B_AWQ])
def test_a_new_endpoint_shows_its_differences_from_the_template(platform: Files, facts: ModelFacts) -> None:
    """The endpoint's own names are not differences. An argument is a difference, and a warning if it runs external code."""
    options = (("arg", "--trust-remote-code"), ("arg", "--allowed-local-media-path=/"), ("arg", "--max-num-seqs=7"))
    plain = plan_change(platform, Config(), "add", "coder-mini", (), facts)
    assert [row for row in plain.summary if "in the template" in row[1]] == []
    change = plan_change(platform, Config(), "add", "coder-mini", options, facts)
    rows = dict(change.summary)
    assert rows["Argument --trust-remote-code"] == "on, in the template not given"
    assert rows["Argument --allowed-local-media-path"] == "/, in the template not given"
    assert rows["Argument --max-num-seqs"].startswith("7, in the template ")
    assert [warning.partition(":")[0] for warning in change.warnings[:2]] == [
        "--trust-remote-code",
        "--allowed-local-media-path=/",
    ]


def test_pushed_changes_are_on_the_card(platform: Files) -> None:
    """Another model, another image, a variable and more rights for the pod are rows, and dangerous changes are warnings."""
    image = platform.read(DEPLOYMENT).split("image: ")[1].split("\n")[0]  # type: ignore[union-attr]
    reading = swapped(
        platform,
        edits={
            DEPLOYMENT: lambda text: text.replace(image, "evil/vllm:1").replace(
                "          args:\n", "          securityContext:\n            privileged: true\n          args:\n", 1
            )
        },
    )
    rows = dict(reading.rows)
    assert any(value.startswith("evil/vllm:1, until now ") for value in rows.values())
    assert any("privileged = true" in warning for warning in reading.warnings)


@pytest.mark.parametrize(
    ("path", "edit", "problem"),
    [
        ("README.md", lambda _: "x\n", "README.md:1: this file has nothing to do with coder-chat."),
        ("serving/coder-fim/pvc.yaml", lambda text: text + "# x\n", "serving/coder-fim/pvc.yaml:"),
        (VALUES, replacing("http://coder-fim.", "http://elsewhere."), "this changes the entry of coder-fim"),
        (VALUES, lambda text: text + "extra: 1\n", "this changes more of the gateway than the entry of coder-chat"),
        (DEPLOYMENT, replacing("replicas: 0", "replicas: 1"), f"{DEPLOYMENT}:"),
        (DEPLOYMENT, lambda _: "kind: [\n", f"{DEPLOYMENT}:"),
        (DEPLOYMENT, lambda _: "kind: ConfigMap\n", f"{DEPLOYMENT}:1: no Deployment here names a model"),
        ("serving/coder-chat/evil.yaml", lambda _: "kind: ConfigMap\n", "serving/coder-chat/evil.yaml:1: the change"),
        ("serving/coder-chat/evil.bin", lambda _: None, "serving/coder-chat/evil.bin:1: the change"),
        ("serving/coder-chat/deep/evil.yaml", lambda _: "kind: [\n", "serving/coder-chat/deep/evil.yaml:1: the change"),
        ("serving/coder-new/evil.yaml", lambda _: "kind: x\n", "serving/coder-new/evil.yaml:1: this file has nothing"),
        (".github/workflows/x.yml", lambda _: "on: push\n", ".github/workflows/x.yml:1: this file has nothing"),
        ("infra/main.tf", lambda _: "x\n", "infra/main.tf:1: this file has nothing to do with coder-chat."),
        (ELSEWHERE, lambda _: APPLICATION, f"{ELSEWHERE}:1: this file has nothing to do with coder-chat."),
        ("README.md", lambda _: None, "README.md:1: this file has nothing to do with coder-chat, and deletes it."),
        ("serving/coder-chat/pvc.yaml", lambda _: None, "serving/coder-chat/pvc.yaml:1: this file is deleted"),
        (DEPLOYMENT, lambda _: None, f"{DEPLOYMENT}:1: this file is deleted, and the change of coder-chat needs it."),
        (DEPLOYMENT, lambda text: text + "# x\n" * 2**19, f"{DEPLOYMENT}:1: this file is larger than 1 MiB"),
        (CATALOG, lambda text: f"{text}\n---\n{OTHER}", "this changes Application evil, which has nothing to do with"),
    ],
)
def test_unrelated_changes_are_refused_with_their_line(platform: Files, path: str, edit: Edit, problem: str) -> None:
    """These are unrelated files and entries, and content that breaks the contract."""
    problems = swapped(platform, edits={path: edit}).problems
    assert any(problem in finding for finding in problems), problems


@pytest.mark.parametrize(
    ("path", "touch", "problem"),
    [
        (DEPLOYMENT, Touch(REGULAR, EXECUTABLE), f"{DEPLOYMENT}:1: this is an executable file now."),
        (DEPLOYMENT, Touch(EXECUTABLE, REGULAR), f"{DEPLOYMENT}:1: its mode changes from 100755 to 100644."),
        (DEPLOYMENT, Touch(REGULAR, LINK), f"{DEPLOYMENT}:1: this is a symbolic link now."),
        (
            "serving/coder-chat/vendored",
            Touch("", SUBMODULE),
            "serving/coder-chat/vendored:1: this is a submodule now, ",
        ),
        ("passwd", Touch("", LINK), "passwd:1: this is a symbolic link now, and this file has nothing to do with"),
        ("serving/coder-chat/pvc.yaml.bin", Touch("", REGULAR), "serving/coder-chat/pvc.yaml.bin:1: the change of"),
    ],
)
def test_a_file_of_another_form_is_refused(platform: Files, path: str, touch: Touch, problem: str) -> None:
    """A mode, a symbolic link or a submodule cannot be shown in a row."""
    problems = swapped(platform, touches={path: touch}).problems
    assert any(finding.startswith(problem) for finding in problems), problems


def test_a_binary_file_is_refused(platform: Files) -> None:
    """It is refused even if it replaces a file that the endpoint needs."""

    class Binary(Files):
        def read(self, path: str) -> str | None:
            return None if path == pvc else super().read(path)

    pvc = "serving/coder-chat/pvc.yaml"
    after = Binary({path: platform.read(path) or "" for path in platform.files("")})
    report = read_change(
        Platform(platform, Config().platform), Platform(after, Config().platform), "coder-chat", template="coder-chat", removes=False,
        touched={pvc: Touch(REGULAR, REGULAR)}, planned=(),
    ).problems  # fmt: skip
    assert f"{pvc}:1: this file is not text." in report


def test_only_the_deployed_content_of_the_endpoint_is_bound(platform: Files, layout: Layout) -> None:
    """The endpoint's files, entry and Application are bound; other endpoints and comments in the gateway's values are not."""
    files = {path: text for path in platform.files("") if (text := platform.read(path)) is not None}

    def bound(files: dict[str, str]) -> Bound:
        # The text of a file is used instead of its id in git.
        return deployed_content(Platform(Files(files), layout), "coder-chat", content=files.__getitem__, gateway=True)

    def after(path: str, edit: Callable[[str], str]) -> tuple[str, ...]:
        return changed_items(bound(files), bound(files | {path: edit(files[path])}))

    application = next(path for path in files if path.endswith("/coder-chat.yaml"))
    assert after(DEPLOYMENT, lambda text: text + "# x\n") == (DEPLOYMENT,)
    assert after(VALUES, replacing("http://coder-chat.", "http://evil.")) == ("the gateway's entry",)
    assert after(application, replacing("path: serving/coder-chat", "path: serving/coder-fim"))[-1] == (
        "the Application in git"
    )
    assert after(VALUES, replacing("http://coder-fim.", "http://evil.")) == ()
    assert after(VALUES, lambda text: "# a comment\n" + text) == ()
    assert after("serving/coder-fim/deployment.yaml", lambda text: text + "# x\n") == ()


@pytest.mark.parametrize(
    "argument",
    [
        "--max-num-seqs=$(VLLM_API_KEY)",
        "--x=$$$(KEY)",
        "--served-model=x",
        "--served_model_name=x",
        "--mod=x",
        "--model x",
        "-q=awq",
        "--max-model=5",
        "--gpu_mem=0.1",
        "--api-k=secret",
        "--api-key=a b",
        "--config=/etc/args.yaml",
        "-tp=2",
        "--port=1",
    ],
)
def test_arguments_of_the_contract_and_secrets_are_refused(argument: str) -> None:
    """The argument may be abbreviated, contain underscores, or be written as two words. The message does not repeat a secret."""
    with pytest.raises(ManifestError) as refused:
        refuse_argument(argument)
    assert "secret=" not in str(refused.value)
    assert "a b" not in str(refused.value)


@pytest.mark.parametrize("argument", ["--enable-auto-tool-choice", "--max-num-seqs=7", "--x=$$(NAME)", "--x=$5"])
def test_other_arguments_are_accepted(argument: str) -> None:
    """`$$(` is Kubernetes' escape for the characters `$(`."""
    refuse_argument(argument)


def test_dangerous_arguments_are_recognised_in_every_spelling() -> None:
    """They may have underscores, be abbreviated, or be part of a group. Common arguments are not dangerous."""
    for name in ("--trust_remote_code", "--trust-remote", "--ssl-keyfile", "--override-generation-config"):
        assert danger_of(name), name
    for name in ("--enable-auto-tool-choice", "--max-num-seqs", "--tool-call-parser", *MODEL_FLAGS):
        assert not danger_of(name), name
    assert all(name.startswith("--") for name in DANGEROUS)


PATTERNED = CODER_14B_AWQ.model_copy(
    update={"allow_patterns": ("*.json", "model*.safetensors"), "repo_bytes": 60 * 10**9, "staged_bytes": 10 * 10**9}
)


@pytest.mark.parametrize(
    ("code", "dangerous"),
    [
        ('["*.json", "model*.safetensors"]', False),
        ('["*.json", __import__("os").getcwd()]', True),
        ('["*.json"]; evil = "x"', True),
    ],
)
def test_the_files_that_a_script_downloads_are_shown_without_a_warning(
    platform: Files, code: str, dangerous: bool
) -> None:
    """A list of texts is not code; any other expression is."""
    edits: dict[str, Edit] = {DEPLOYMENT: replacing('["*.json", "model*.safetensors"]', code)}
    read = swapped(platform, edits=edits if dangerous else None, facts=PATTERNED)
    assert any("what it runs" in warning for warning in read.warnings) == dangerous
    assert (("Files to download", "*.json, model*.safetensors, until now not given") in read.rows) == (not dangerous)


def test_an_argument_with_a_dangerous_prefix_is_not_dangerous() -> None:
    """argparse prefers the exact name; a shorter one is an abbreviation."""
    assert danger_of("--reasoning-parser") == ""
    assert "may be read as --reasoning-parser-plugin" in danger_of("--reasoning-parser-pl")
