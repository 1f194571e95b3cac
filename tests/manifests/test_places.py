"""Places outside the endpoint's own files: groups, the key portal, the catalog's notes, and arguments of one model."""

import re
from dataclasses import dataclass

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import Layout, check, read_endpoint
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Files, ManifestError, Overlay
from tests.manifests.models import (
    BGE_SMALL,
    CODER_3B,
    CODER_3B_AWQ,
    CODER_7B_AWQ,
    LLAMA_8B,
    NOMIC,
)

CONFIG = "environments/ai-dev/config.yaml"
GROUPS = "clusters/ai-dev/groups.generated.yaml"
PORTAL = "platform/key-portal/values.yaml"
VALUES = "platform/litellm/values.yaml"
CATALOG = "docs/public/reference/model-catalog.md"
CHAT = "serving/coder-chat/deployment.yaml"


@dataclass(frozen=True)
class Changed:
    """The sample platform with some texts replaced."""

    files: dict[str, str]

    def __call__(self, path: str, old: str, new: str) -> "Changed":
        assert old in self.files[path]
        return Changed(self.files | {path: self.files[path].replace(old, new)})

    @property
    def tree(self) -> Files:
        return Files(self.files)


@pytest.fixture
def sample(platform: Files) -> Changed:
    return Changed({path: platform.read(path) or "" for path in platform.files("")})


def test_a_group_that_is_off_is_switched_on_in_the_same_change(
    sample: Changed, layout: Layout, machine: Machine
) -> None:
    """Only its flag changes. The generated list is left to its generator, and the reviewer is warned about other Applications."""
    off = sample(CONFIG, "embeddings: true", "embeddings: false")
    off = off(
        GROUPS,
        'name: embeddings, layer: serving, enabled: "true"',
        'name: embeddings, layer: serving, enabled: "false"',
    )
    change = plan_add(Platform(off.tree, layout), AddRequest(name="vectors", facts=BGE_SMALL), machine)
    assert "embeddings: true # text embeddings" in (change.changes.files[CONFIG] or "")
    assert GROUPS not in change.changes.files
    (notice,) = [warning for warning in change.warnings if "turns it on" in warning]
    assert GROUPS in notice
    assert "create embeddings" in notice


def test_a_group_that_was_never_generated_is_switched_off_again(
    sample: Changed, layout: Layout, machine: Machine
) -> None:
    """Add and remove restore the original tree, even if the group has other members: none of them exists yet."""
    values = sample.files[VALUES]
    start = values.index("    - model_name: embeddings")
    end = values.index("    - model_name: claude-haiku")
    disabled = sample(VALUES, values[start:end], "")(CONFIG, "embeddings: true", "embeddings: false")
    disabled = disabled(
        GROUPS,
        'name: embeddings, layer: serving, enabled: "true"',
        'name: embeddings, layer: serving, enabled: "false"',
    )
    request = AddRequest(name="mini", facts=CODER_3B_AWQ, group="embeddings")
    tree = Overlay(disabled.tree, plan_add(Platform(disabled.tree, layout), request, machine).changes)
    back = plan_remove(Platform(tree, layout), "mini")
    assert any("was never on in" in warning and "embeddings do not change" in warning for warning in back.warnings)
    restored = Overlay(tree, back.changes)
    assert {path: restored.read(path) for path in restored.files("")} == disabled.files

    # After the list was generated, the others exist with their volumes: disabling the group would delete them.
    ran = (tree.read(GROUPS) or "").replace(
        'name: embeddings, layer: serving, enabled: "false"', 'name: embeddings, layer: serving, enabled: "true"'
    )
    live = Overlay(tree, ChangeSet(files={GROUPS: ran}))
    assert CONFIG not in plan_remove(Platform(live, layout), "mini").changes.files


def test_an_unknown_group_is_refused(sample: Changed, layout: Layout, machine: Machine) -> None:
    """Argo CD would never create an Application in it."""
    with pytest.raises(ManifestError, match=r"There is no group 'chat'.*embeddings, coding-assistant"):
        plan_add(Platform(sample.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ, group="chat"), machine)


def test_a_group_loses_its_flag_with_its_last_application(sample: Changed, layout: Layout) -> None:
    """Argo CD fails on a missing directory."""
    change = plan_remove(Platform(sample.tree, layout), "embeddings")
    assert "embeddings: false # text embeddings" in (change.changes.files[CONFIG] or "")
    assert any("last Application of the group embeddings" in warning for warning in change.warnings)
    assert CONFIG not in plan_remove(Platform(sample.tree, layout), "coder-fim").changes.files


def test_the_key_portal_changes_only_on_request(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The list of models in the key portal changes only on request: the alias is added next to the template's, and removed again."""
    silent = plan_add(Platform(sample.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert PORTAL not in silent.changes.files
    added = plan_add(Platform(sample.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ, portal=True), machine)
    assert "    - coder-chat\n    - mini\n    - coder-fim\n" in (added.changes.files[PORTAL] or "")
    tree = Overlay(sample.tree, added.changes)
    without_portal = plan_remove(Platform(tree, layout), "mini")
    assert any("still offers mini" in warning and "portal=yes" in warning for warning in without_portal.warnings)
    restored = Overlay(tree, plan_remove(Platform(tree, layout), "mini", portal=True).changes)
    assert {path: restored.read(path) for path in restored.files("")} == sample.files


def test_a_list_on_one_line_is_edited(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The models of the portal can be written in brackets."""
    flow = sample(
        PORTAL,
        "models:\n    - coder-chat\n    - coder-fim\n    - embeddings\n",
        "models: [coder-chat, coder-fim, embeddings]\n",
    )
    added = plan_add(Platform(flow.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ, portal=True), machine)
    assert "models: [coder-chat, mini, coder-fim, embeddings]" in (added.changes.files[PORTAL] or "")
    tree = Overlay(flow.tree, added.changes)
    restored = Overlay(tree, plan_remove(Platform(tree, layout), "mini", portal=True).changes)
    assert restored.read(PORTAL) == flow.files[PORTAL]


def test_a_service_with_another_name_is_copied_with_its_address(
    sample: Changed, layout: Layout, machine: Machine
) -> None:
    """LiteLLM uses the Service, and the Service may have another name than the endpoint."""
    service = "serving/coder-chat/service.yaml"
    renamed = sample(service, "  name: coder-chat\n  namespace", "  name: coder-chat-http\n  namespace")
    renamed = renamed(VALUES, "http://coder-chat.serving", "http://coder-chat-http.serving")
    assert check(Platform(renamed.tree, layout)) == ()
    added = plan_add(Platform(renamed.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert "http://mini-http.serving.svc" in (added.changes.files[VALUES] or "")
    assert check(Platform(Overlay(renamed.tree, added.changes), layout)) == ()


def test_an_empty_value_is_not_renamed(sample: Changed, layout: Layout, machine: Machine) -> None:
    """A template without a volume has no claim to rename: the empty value stays."""
    bare = sample(
        CHAT,
        "          persistentVolumeClaim:\n            claimName: coder-chat-model-cache",
        "          emptyDir: {}",
    )
    bare = bare(
        CHAT,
        "value: /models\n            # The engine",
        'value: /models\n            - name: EXTRA\n              value: ""\n            # The engine',
    )
    bare = bare(CHAT, "    spec:\n      automount", "    spec:\n      nodeSelector:\n      automount")
    bare = Changed({path: text for path, text in bare.files.items() if path != "serving/coder-chat/pvc.yaml"})
    change = plan_add(Platform(bare.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    manifest = change.changes.files["serving/mini/deployment.yaml"] or ""
    assert '            - name: EXTRA\n              value: ""\n' in manifest
    assert "      nodeSelector:\n" in manifest


def test_a_key_without_a_value_gets_one(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The check reports the line of the key, and a swap with a price writes the value there."""
    without_price = sample(VALUES, "input_cost_per_token: 0.0000005\n", "input_cost_per_token:\n")
    (finding,) = [
        finding for finding in check(Platform(without_price.tree, layout)) if finding.rule == "cost-not-a-number"
    ]
    assert without_price.files[VALUES].splitlines()[finding.line - 1].strip() == "input_cost_per_token:"
    request = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ, price_in="0.0000007")
    change = plan_swap(Platform(without_price.tree, layout), request, machine)
    assert "        input_cost_per_token: 0.0000007\n" in (change.changes.files[VALUES] or "")
    assert "| $0.0000007 / $0.0000015 |" in (change.changes.files[CATALOG] or "")


def test_an_anchor_and_its_aliases_are_changed_once(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The name is written once, and the anchor stays."""
    text = sample.files[CHAT].replace("  name: coder-chat\n", "  name: &name coder-chat\n", 1)
    text = text.replace("app.kubernetes.io/name: coder-chat", "app.kubernetes.io/name: *name")
    named = Changed(sample.files | {CHAT: text})
    assert check(Platform(named.tree, layout)) == ()
    change = plan_add(Platform(named.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert (change.changes.files["serving/mini/deployment.yaml"] or "").count("mini\n") == 1
    assert "  name: &name mini\n" in (change.changes.files["serving/mini/deployment.yaml"] or "")
    assert check(Platform(Overlay(named.tree, change.changes), layout)) == ()


def test_a_name_that_yaml_reads_as_a_boolean_is_quoted(sample: Changed, layout: Layout, machine: Machine) -> None:
    """Without quotes, Kubernetes would get a boolean."""
    change = plan_add(Platform(sample.tree, layout), AddRequest(name="on", facts=CODER_3B_AWQ), machine)
    assert '  name: "on"\n' in (change.changes.files["serving/on/service.yaml"] or "")
    assert check(Platform(Overlay(sample.tree, change.changes), layout)) == ()


def test_a_change_that_breaks_the_contract_is_refused(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The planned files are checked too; earlier faults are reported and stay."""
    with pytest.raises(ManifestError, match=r"by hand: serving/mini/deployment\.yaml:\d+: --quantization=awq_marlin"):
        plan_add(
            Platform(sample.tree, layout),
            AddRequest(name="mini", facts=CODER_3B, context=2048, quantization="awq_marlin"),
            machine,
        )
    wrong = sample(CHAT, "  replicas: 0", "  replicas: 1")
    change = plan_swap(Platform(wrong.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert any(warning.startswith(f"{CHAT}:") and "zero replicas" in warning for warning in change.warnings)
    assert "  replicas: 1" in (change.changes.files[CHAT] or "")


NOTES = """
- `coder-chat` is Qwen2.5-Coder-7B-Instruct in 4 bits (AWQ). It keeps answers short.
- `coder-fim` is a base model.
"""


def test_notes_in_the_catalog_are_updated(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The note about the endpoint changes; the other one does not."""
    with_notes = Changed(sample.files | {CATALOG: sample.files[CATALOG] + NOTES})
    change = plan_swap(Platform(with_notes.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B), machine)
    text = change.changes.files[CATALOG] or ""
    assert "- `coder-chat` is Qwen2.5-Coder-3B-Instruct, unquantized. It keeps answers short.\n- `coder-fim` is" in text
    catalog = plan_remove(Platform(with_notes.tree, layout), "coder-chat").changes.files[CATALOG] or ""
    assert "coder-chat" not in catalog
    assert catalog.endswith("\n- `coder-fim` is a base model.\n")


def test_other_items_of_a_list_keep_their_blank_lines(sample: Changed, layout: Layout) -> None:
    """A paragraph is removed with a blank line, and a section with its code; a list that continues keeps its blank lines."""
    section = "\n## coder-chat\n\nFor the IDE.\n\n```\ncurl x\n\n# y\n```\n\n## coder-fim\n\nFor the editor.\n"
    with_notes = Changed(sample.files | {CATALOG: sample.files[CATALOG] + NOTES + section})
    catalog = plan_remove(Platform(with_notes.tree, layout), "coder-chat").changes.files[CATALOG] or ""
    assert catalog.endswith("`#gpu-ops`.\n\n- `coder-fim` is a base model.\n\n## coder-fim\n\nFor the editor.\n")


@pytest.mark.parametrize("mark", ["\r", "\f", "\u2028"])
def test_a_different_line_ending_does_not_shift_lines(
    sample: Changed, layout: Layout, machine: Machine, mark: str
) -> None:
    """If one line of a document has another line ending, the rows below it are still found at their lines."""
    changed = sample(CATALOG, "# Model catalog\n", f"# Model catalog{mark}\n")
    change = plan_swap(Platform(changed.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    before, after = changed.files[CATALOG].split("\n"), (change.changes.files[CATALOG] or "").split("\n")
    assert [line for line in before if line not in after] == [
        line for line in before if line.startswith("| `coder-chat`")
    ]
    assert check(Platform(Overlay(changed.tree, change.changes), layout)) == ()


def test_the_catalog_keeps_its_wording_and_units(sample: Changed, layout: Layout, machine: Machine) -> None:
    """Prices stay per million tokens, contexts in k, and a model has its short name with the format in brackets."""
    row = next(line for line in sample.files[CATALOG].splitlines() if line.startswith("| `coder-chat`"))
    new_row = (
        "| `coder-chat` | Qwen2.5-Coder-7B-Instruct (AWQ) | vLLM | 1× L4 | 16k | $0.5 / $1.5 per MTok | fast | passed |"
    )
    reworded = sample(CATALOG, row, new_row)
    request = SwapRequest(name="coder-chat", facts=CODER_3B, price_in="0.0000002", price_out="0.0000006", context=8192)
    text = plan_swap(Platform(reworded.tree, layout), request, machine).changes.files[CATALOG] or ""
    assert "| Qwen2.5-Coder-3B-Instruct | vLLM | 1× L4 | 8k | $0.2 / $0.6 per MTok | fast | not run |" in text


def test_a_pinned_revision_is_removed_with_its_model(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The commit does not exist in another model's repository."""
    served = "            - --served-model-name=qwen2.5-coder-7b-instruct\n"
    pinned = sample(CHAT, served, f"{served}            - --revision=abc123\n")
    change = plan_swap(Platform(pinned.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert "--revision" not in (change.changes.files[CHAT] or "")
    assert any("--revision=abc123 belonged to" in warning for warning in change.warnings)
    scripted = sample(CHAT, "snapshot_download(model)", 'snapshot_download(model, revision="abc123")')
    with pytest.raises(ManifestError, match="pins a revision"):
        plan_swap(Platform(scripted.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)


def test_the_parser_changes_with_the_model_family(sample: Changed, layout: Layout, machine: Machine) -> None:
    """A parser supports one family's tool calls; within the family the chosen parser stays."""
    served = "            - --served-model-name=qwen2.5-coder-7b-instruct\n"
    tools = "            - --enable-auto-tool-choice\n            - --tool-call-parser=hermes\n"
    with_tools = sample(CHAT, served, served + tools)
    change = plan_swap(Platform(with_tools.tree, layout), SwapRequest(name="coder-chat", facts=LLAMA_8B), machine)
    assert tools.replace("hermes", "llama3_json") in (change.changes.files[CHAT] or "")
    unknown = LLAMA_8B.model_copy(update={"hf_id": "acme/Unheard-8B-Instruct-AWQ", "model_type": "unheard"})
    change = plan_swap(Platform(with_tools.tree, layout), SwapRequest(name="coder-chat", facts=unknown), machine)
    assert "--tool-call-parser" not in (change.changes.files[CHAT] or "")
    assert "--enable-auto-tool-choice" not in (change.changes.files[CHAT] or "")
    assert any(
        "--tool-call-parser=hermes was chosen for Qwen/Qwen2.5-Coder-7B" in warning for warning in change.warnings
    )
    same = plan_swap(Platform(with_tools.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert tools in (same.changes.files[CHAT] or "")
    assert not any("--tool-call-parser" in warning for warning in same.warnings)


def test_remote_code_runs_only_on_request(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The refusal names the required argument; another model does not inherit it."""
    tree = sample(CHAT, "replicas: 0", "replicas: 0").tree
    facts = CODER_3B.model_copy(update={"hf_id": "acme/Own-3B-Chat", "model_type": "own", "remote_code": True})
    with pytest.raises(ManifestError, match="arg=--trust-remote-code"):
        plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=facts), machine)
    request = SwapRequest(name="coder-chat", facts=facts, args=("--trust-remote-code",))
    change = plan_swap(Platform(tree, layout), request, machine)
    assert "            - --trust-remote-code\n" in (change.changes.files[CHAT] or "")
    back = plan_swap(
        Platform(Overlay(tree, change.changes), layout), SwapRequest(name="coder-chat", facts=CODER_7B_AWQ), machine
    )
    assert "--trust-remote-code" not in (back.changes.files[CHAT] or "")


def test_a_served_name_that_people_chose_stays(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The name does not mention the model, so it is still correct, and no caller is affected."""
    renamed = sample(CHAT, "--served-model-name=qwen2.5-coder-7b-instruct", "--served-model-name=chat")
    renamed = renamed("platform/litellm/values.yaml", "openai/qwen2.5-coder-7b-instruct ", "openai/chat ")
    assert check(Platform(renamed.tree, layout)) == ()
    change = plan_swap(Platform(renamed.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert change.endpoint is not None
    assert change.endpoint.served_name == "chat"
    assert not any("LiteLLM syncs automatically" in warning for warning in change.warnings)


def test_a_new_embedding_model_needs_a_new_index(sample: Changed, layout: Layout, machine: Machine) -> None:
    """A CPU model syncs automatically: its users must be notified before the merge."""
    change = plan_swap(Platform(sample.tree, layout), SwapRequest(name="embeddings", facts=NOMIC), machine)
    assert any("cannot be compared" in warning and "768 dimensions" in warning for warning in change.warnings)
    assert "| nomic-ai/nomic-embed-text-v1.5 | TEI | none | 8192 |" in (change.changes.files[CATALOG] or "")
    assert check(Platform(Overlay(sample.tree, change.changes), layout)) == ()


def test_a_name_that_is_an_ordinary_word_is_not_changed_in_prose(
    sample: Changed, layout: Layout, machine: Machine
) -> None:
    """A copy of `embeddings` keeps the image's name, the URL and the sentence."""
    header = "# Embeddings for code search and RAG: Text Embeddings Inference with bge-base-en-v1.5, on the CPU.\n"
    path = "serving/embeddings/deployment.yaml"
    with_comment = sample(path, header, header + "# Serves /v1/embeddings (model_list: embeddings).\n")
    change = plan_add(Platform(with_comment.tree, layout), AddRequest(name="vectors-small", facts=BGE_SMALL), machine)
    text = change.changes.files["serving/vectors-small/deployment.yaml"] or ""
    assert text.startswith(
        "# Embeddings for code search and RAG: Text Embeddings Inference with bge-small-en-v1.5, on the CPU.\n"
        "# Serves /v1/embeddings (model_list: vectors-small).\n"
    )
    assert "huggingface/text-embeddings-inference:cpu" in text


GROUP = "clusters/ai-dev/catalog/coding-assistant"


@pytest.mark.parametrize(
    ("pattern", "new_path", "created_path"),
    [
        (r"catalog/([\w-]+)/([\w-]+)\.yaml", r"catalog/\1/\2/application.yaml", f"{GROUP}/mini/application.yaml"),
        (r"catalog/([\w-]+)/([\w-]+)\.yaml", r"catalog/\1/app-\2.yml", f"{GROUP}/app-mini.yml"),
        (r"catalog/([\w-]+)/coder-chat\.yaml", r"catalog/\1/first.yaml", f"{GROUP}/mini.yaml"),
    ],
)
def test_an_applications_file_is_named_like_the_templates(
    sample: Changed, layout: Layout, machine: Machine, pattern: str, new_path: str, created_path: str
) -> None:
    """The group is found even if the file is in its own directory, has a prefix, or does not name the group."""
    moved = Changed({re.sub(pattern, new_path, path): text for path, text in sample.files.items()})
    moved = Changed({path: text.replace("path: serving/", "path: ./serving/") for path, text in moved.files.items()})
    assert check(Platform(moved.tree, layout)) == ()
    change = plan_add(Platform(moved.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert change.endpoint is not None
    assert (change.endpoint.application_file, change.endpoint.group) == (created_path, "coding-assistant")
    tree = Overlay(moved.tree, change.changes)
    assert check(Platform(tree, layout)) == ()
    restored = Overlay(tree, plan_remove(Platform(tree, layout), "mini").changes)
    assert {path: restored.read(path) for path in restored.files("")} == moved.files


def test_an_application_in_a_shared_file_is_not_changed(sample: Changed, layout: Layout, machine: Machine) -> None:
    """Deleting the file would delete the other endpoint, and its volume with it."""
    chat, fim = f"{GROUP}/coder-chat.yaml", f"{GROUP}/coder-fim.yaml"
    remaining = {path: text for path, text in sample.files.items() if path not in (chat, fim)}
    tree = Files(remaining | {f"{GROUP}/all.yaml": f"{sample.files[chat]}---\n{sample.files[fim]}"})
    assert check(Platform(tree, layout)) == ()
    with pytest.raises(ManifestError, match=r"all\.yaml contains more than the Application of coder-fim"):
        plan_remove(Platform(tree, layout), "coder-fim")
    with pytest.raises(ManifestError, match=r"all\.yaml contains more than its Application"):
        plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)


def test_two_applications_never_get_one_name(sample: Changed, layout: Layout, machine: Machine) -> None:
    """The second one would replace the first one in the cluster."""
    path = f"{GROUP}/coder-chat.yaml"
    prefixed = sample(path, "metadata:\n  name: coder-chat\n", "metadata:\n  name: llm-coder-chat\n")
    change = plan_add(Platform(prefixed.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert change.endpoint is not None
    assert change.endpoint.application == "llm-mini"
    renamed = sample(path, "metadata:\n  name: coder-chat\n", "metadata:\n  name: chat\n")
    with pytest.raises(ManifestError, match="its Application is named chat"):
        plan_add(Platform(renamed.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)


def test_an_object_that_is_not_the_models_own_is_not_copied(sample: Changed, layout: Layout, machine: Machine) -> None:
    """Two Applications would manage the same object. An object with the model's name is copied under the new name."""
    shared = "kind: Secret\nmetadata:\n  name: vllm-api-key\n"
    tree = Files(sample.files | {"serving/coder-chat/secret.yaml": shared})
    with pytest.raises(ManifestError, match="contains the Secret vllm-api-key, which is not the model's own"):
        plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    with_config = Files(
        sample.files | {"serving/coder-chat/config.yaml": "kind: ConfigMap\nmetadata:\n  name: coder-chat-env\n"}
    )
    change = plan_add(Platform(with_config, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert change.changes.files["serving/mini/config.yaml"] == "kind: ConfigMap\nmetadata:\n  name: mini-env\n"


def test_an_endpoint_is_not_removed_while_a_file_uses_its_address(sample: Changed, layout: Layout) -> None:
    """The files are listed; a comment is not a call."""
    caller = "url: http://coder-chat.serving.svc:8000/v1\n"
    with pytest.raises(ManifestError, match=r"its address coder-chat\.serving \(apps/ide\.yaml:1\)"):
        plan_remove(Platform(Files(sample.files | {"apps/ide.yaml": caller}), layout), "coder-chat")
    plan_remove(Platform(Files(sample.files | {"apps/ide.yaml": f"# {caller}"}), layout), "coder-chat")


@pytest.mark.parametrize(
    ("hf_id", "kind"),
    [
        ("Qwen/Qwen2.5-Coder-1.5B", "gpu-completion"),
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct", "gpu-chat"),
        ("Qwen/Qwen3-8B", "gpu-chat"),
        ("deepseek-ai/deepseek-coder-6.7b-base", "gpu-completion"),
    ],
)
def test_a_base_model_is_recognised_by_its_name_as_the_last_resort(
    sample: Changed, layout: Layout, hf_id: str, kind: str
) -> None:
    """Some families mark only their chat models in the name."""
    bare = sample(CHAT, "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", hf_id)
    assert read_endpoint(Platform(bare.tree, layout), "coder-chat").kind == kind
