"""The places around the five pieces: groups, the key portal, the catalog's notes, arguments that belong to one model."""

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
def given(platform: Files) -> Changed:
    return Changed({path: platform.read(path) or "" for path in platform.files("")})


def test_a_group_that_is_off_is_switched_on_in_the_same_change(
    given: Changed, layout: Layout, machine: Machine
) -> None:
    """Only its flag; the generated list is left to its generator, and the reviewer is warned about other Applications."""
    off = given(CONFIG, "embeddings: true", "embeddings: false")
    off = off(
        GROUPS,
        'name: embeddings, layer: serving, enabled: "true"',
        'name: embeddings, layer: serving, enabled: "false"',
    )
    change = plan_add(Platform(off.tree, layout), AddRequest(name="vectors", facts=BGE_SMALL), machine)
    assert "embeddings: true # text embeddings" in (change.changes.files[CONFIG] or "")
    assert GROUPS not in change.changes.files
    (told,) = [each for each in change.warnings if "turns it on" in each]
    assert GROUPS in told
    assert "create embeddings" in told


def test_a_group_that_was_never_generated_is_switched_off_again(
    given: Changed, layout: Layout, machine: Machine
) -> None:
    """Add and remove restore the original tree, even with other members in the group: nothing of it exists yet."""
    values = given.files[VALUES]
    start = values.index("    - model_name: embeddings")
    end = values.index("    - model_name: claude-haiku")
    resting = given(VALUES, values[start:end], "")(CONFIG, "embeddings: true", "embeddings: false")
    resting = resting(
        GROUPS,
        'name: embeddings, layer: serving, enabled: "true"',
        'name: embeddings, layer: serving, enabled: "false"',
    )
    wanted = AddRequest(name="mini", facts=CODER_3B_AWQ, group="embeddings")
    tree = Overlay(resting.tree, plan_add(Platform(resting.tree, layout), wanted, machine).changes)
    back = plan_remove(Platform(tree, layout), "mini")
    assert any("was never on in" in each and "embeddings do not change" in each for each in back.warnings)
    gone = Overlay(tree, back.changes)
    assert {path: gone.read(path) for path in gone.files("")} == resting.files

    # Once generated, the others exist with their volumes: disabling the group would delete them.
    ran = (tree.read(GROUPS) or "").replace(
        'name: embeddings, layer: serving, enabled: "false"', 'name: embeddings, layer: serving, enabled: "true"'
    )
    live = Overlay(tree, ChangeSet(files={GROUPS: ran}))
    assert CONFIG not in plan_remove(Platform(live, layout), "mini").changes.files


def test_an_unknown_group_is_refused(given: Changed, layout: Layout, machine: Machine) -> None:
    """Argo CD would never create an Application in it."""
    with pytest.raises(ManifestError, match=r"There is no group 'chat'.*embeddings, coding-assistant"):
        plan_add(Platform(given.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ, group="chat"), machine)


def test_a_group_loses_its_flag_with_its_last_application(given: Changed, layout: Layout) -> None:
    """Argo CD fails on a missing directory."""
    change = plan_remove(Platform(given.tree, layout), "embeddings")
    assert "embeddings: false # text embeddings" in (change.changes.files[CONFIG] or "")
    assert any("last Application of the group embeddings" in each for each in change.warnings)
    assert CONFIG not in plan_remove(Platform(given.tree, layout), "coder-fim").changes.files


def test_the_key_portal_changes_only_on_request(given: Changed, layout: Layout, machine: Machine) -> None:
    """The list of models in the key portal changes only on request: the alias is added next to the template's, and removed again."""
    silent = plan_add(Platform(given.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert PORTAL not in silent.changes.files
    added = plan_add(Platform(given.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ, portal=True), machine)
    assert "    - coder-chat\n    - mini\n    - coder-fim\n" in (added.changes.files[PORTAL] or "")
    tree = Overlay(given.tree, added.changes)
    kept = plan_remove(Platform(tree, layout), "mini")
    assert any("still offers mini" in each and "portal=yes" in each for each in kept.warnings)
    gone = Overlay(tree, plan_remove(Platform(tree, layout), "mini", portal=True).changes)
    assert {path: gone.read(path) for path in gone.files("")} == given.files


def test_a_list_on_one_line_is_edited(given: Changed, layout: Layout, machine: Machine) -> None:
    """The portal's models between brackets."""
    flow = given(
        PORTAL,
        "models:\n    - coder-chat\n    - coder-fim\n    - embeddings\n",
        "models: [coder-chat, coder-fim, embeddings]\n",
    )
    added = plan_add(Platform(flow.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ, portal=True), machine)
    assert "models: [coder-chat, mini, coder-fim, embeddings]" in (added.changes.files[PORTAL] or "")
    tree = Overlay(flow.tree, added.changes)
    gone = Overlay(tree, plan_remove(Platform(tree, layout), "mini", portal=True).changes)
    assert gone.read(PORTAL) == flow.files[PORTAL]


def test_a_service_with_another_name_is_copied_with_its_address(
    given: Changed, layout: Layout, machine: Machine
) -> None:
    """LiteLLM uses the Service, which need not be named like the endpoint."""
    service = "serving/coder-chat/service.yaml"
    other = given(service, "  name: coder-chat\n  namespace", "  name: coder-chat-http\n  namespace")
    other = other(VALUES, "http://coder-chat.serving", "http://coder-chat-http.serving")
    assert check(Platform(other.tree, layout)) == ()
    added = plan_add(Platform(other.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert "http://mini-http.serving.svc" in (added.changes.files[VALUES] or "")
    assert check(Platform(Overlay(other.tree, added.changes), layout)) == ()


def test_an_empty_value_is_not_renamed(given: Changed, layout: Layout, machine: Machine) -> None:
    """A template without a volume has no claim to rename: the empty value stays."""
    bare = given(
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
    made = change.changes.files["serving/mini/deployment.yaml"] or ""
    assert '            - name: EXTRA\n              value: ""\n' in made
    assert "      nodeSelector:\n" in made


def test_a_key_without_a_value_gets_one(given: Changed, layout: Layout, machine: Machine) -> None:
    """The refusal names the same line as the check."""
    lost = given(VALUES, "input_cost_per_token: 0.0000005\n", "input_cost_per_token:\n")
    (finding,) = [each for each in check(Platform(lost.tree, layout)) if each.rule == "cost-not-a-number"]
    assert lost.files[VALUES].splitlines()[finding.line - 1].strip() == "input_cost_per_token:"
    wanted = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ, price_in="0.0000007")
    change = plan_swap(Platform(lost.tree, layout), wanted, machine)
    assert "        input_cost_per_token: 0.0000007\n" in (change.changes.files[VALUES] or "")
    assert "| $0.0000007 / $0.0000015 |" in (change.changes.files[CATALOG] or "")


def test_an_anchor_and_its_aliases_are_changed_once(given: Changed, layout: Layout, machine: Machine) -> None:
    """The name is written once, and the anchor stays."""
    text = given.files[CHAT].replace("  name: coder-chat\n", "  name: &name coder-chat\n", 1)
    text = text.replace("app.kubernetes.io/name: coder-chat", "app.kubernetes.io/name: *name")
    named = Changed(given.files | {CHAT: text})
    assert check(Platform(named.tree, layout)) == ()
    change = plan_add(Platform(named.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert (change.changes.files["serving/mini/deployment.yaml"] or "").count("mini\n") == 1
    assert "  name: &name mini\n" in (change.changes.files["serving/mini/deployment.yaml"] or "")
    assert check(Platform(Overlay(named.tree, change.changes), layout)) == ()


def test_a_name_that_yaml_reads_as_a_boolean_is_quoted(given: Changed, layout: Layout, machine: Machine) -> None:
    """Without quotes, Kubernetes would get a boolean."""
    change = plan_add(Platform(given.tree, layout), AddRequest(name="on", facts=CODER_3B_AWQ), machine)
    assert '  name: "on"\n' in (change.changes.files["serving/on/service.yaml"] or "")
    assert check(Platform(Overlay(given.tree, change.changes), layout)) == ()


def test_a_change_that_breaks_the_contract_is_refused(given: Changed, layout: Layout, machine: Machine) -> None:
    """The plan is checked like anything else; earlier faults are reported and stay."""
    with pytest.raises(ManifestError, match=r"by hand: serving/mini/deployment\.yaml:\d+: --quantization=awq_marlin"):
        plan_add(
            Platform(given.tree, layout),
            AddRequest(name="mini", facts=CODER_3B, context=2048, quantization="awq_marlin"),
            machine,
        )
    wrong = given(CHAT, "  replicas: 0", "  replicas: 1")
    change = plan_swap(Platform(wrong.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert any(each.startswith(f"{CHAT}:") and "zero replicas" in each for each in change.warnings)
    assert "  replicas: 1" in (change.changes.files[CHAT] or "")


NOTES = """
- `coder-chat` is Qwen2.5-Coder-7B-Instruct in 4 bits (AWQ). It keeps answers short.
- `coder-fim` is a base model.
"""


def test_notes_in_the_catalog_are_updated(given: Changed, layout: Layout, machine: Machine) -> None:
    """The note about the endpoint changes; the other one does not."""
    noted = Changed(given.files | {CATALOG: given.files[CATALOG] + NOTES})
    change = plan_swap(Platform(noted.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B), machine)
    text = change.changes.files[CATALOG] or ""
    assert "- `coder-chat` is Qwen2.5-Coder-3B-Instruct, unquantized. It keeps answers short.\n- `coder-fim` is" in text
    gone = plan_remove(Platform(noted.tree, layout), "coder-chat").changes.files[CATALOG] or ""
    assert "coder-chat" not in gone
    assert gone.endswith("\n- `coder-fim` is a base model.\n")


def test_other_items_of_a_list_keep_their_blank_lines(given: Changed, layout: Layout) -> None:
    """A paragraph is removed with a blank line, and a section with its code; a list that continues keeps its blank lines."""
    section = "\n## coder-chat\n\nFor the IDE.\n\n```\ncurl x\n\n# y\n```\n\n## coder-fim\n\nFor the editor.\n"
    noted = Changed(given.files | {CATALOG: given.files[CATALOG] + NOTES + section})
    gone = plan_remove(Platform(noted.tree, layout), "coder-chat").changes.files[CATALOG] or ""
    assert gone.endswith("`#gpu-ops`.\n\n- `coder-fim` is a base model.\n\n## coder-fim\n\nFor the editor.\n")


@pytest.mark.parametrize("mark", ["\r", "\f", "\u2028"])
def test_a_different_line_ending_does_not_shift_lines(
    given: Changed, layout: Layout, machine: Machine, mark: str
) -> None:
    """One line of a document has another line ending: the rows below it are still found at their lines."""
    odd = given(CATALOG, "# Model catalog\n", f"# Model catalog{mark}\n")
    change = plan_swap(Platform(odd.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    before, after = odd.files[CATALOG].split("\n"), (change.changes.files[CATALOG] or "").split("\n")
    assert [line for line in before if line not in after] == [
        line for line in before if line.startswith("| `coder-chat`")
    ]
    assert check(Platform(Overlay(odd.tree, change.changes), layout)) == ()


def test_the_catalog_keeps_its_wording_and_units(given: Changed, layout: Layout, machine: Machine) -> None:
    """Prices per million tokens, contexts in k, a model by its short name with the format in brackets."""
    row = next(line for line in given.files[CATALOG].splitlines() if line.startswith("| `coder-chat`"))
    other = (
        "| `coder-chat` | Qwen2.5-Coder-7B-Instruct (AWQ) | vLLM | 1× L4 | 16k | $0.5 / $1.5 per MTok | fast | passed |"
    )
    own = given(CATALOG, row, other)
    wanted = SwapRequest(name="coder-chat", facts=CODER_3B, price_in="0.0000002", price_out="0.0000006", context=8192)
    text = plan_swap(Platform(own.tree, layout), wanted, machine).changes.files[CATALOG] or ""
    assert "| Qwen2.5-Coder-3B-Instruct | vLLM | 1× L4 | 8k | $0.2 / $0.6 per MTok | fast | not run |" in text


def test_a_pinned_revision_is_removed_with_its_model(given: Changed, layout: Layout, machine: Machine) -> None:
    """The commit does not exist in another model's repository."""
    served = "            - --served-model-name=qwen2.5-coder-7b-instruct\n"
    pinned = given(CHAT, served, f"{served}            - --revision=abc123\n")
    change = plan_swap(Platform(pinned.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert "--revision" not in (change.changes.files[CHAT] or "")
    assert any("--revision=abc123 belonged to" in each for each in change.warnings)
    scripted = given(CHAT, "snapshot_download(model)", 'snapshot_download(model, revision="abc123")')
    with pytest.raises(ManifestError, match="pins a revision"):
        plan_swap(Platform(scripted.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)


def test_the_parser_changes_with_the_model_family(given: Changed, layout: Layout, machine: Machine) -> None:
    """A parser supports one family's tool calls; within the family the chosen parser stays."""
    served = "            - --served-model-name=qwen2.5-coder-7b-instruct\n"
    tools = "            - --enable-auto-tool-choice\n            - --tool-call-parser=hermes\n"
    able = given(CHAT, served, served + tools)
    change = plan_swap(Platform(able.tree, layout), SwapRequest(name="coder-chat", facts=LLAMA_8B), machine)
    assert tools.replace("hermes", "llama3_json") in (change.changes.files[CHAT] or "")
    unknown = LLAMA_8B.model_copy(update={"hf_id": "acme/Unheard-8B-Instruct-AWQ", "model_type": "unheard"})
    change = plan_swap(Platform(able.tree, layout), SwapRequest(name="coder-chat", facts=unknown), machine)
    assert "--tool-call-parser" not in (change.changes.files[CHAT] or "")
    assert "--enable-auto-tool-choice" not in (change.changes.files[CHAT] or "")
    assert any("--tool-call-parser=hermes was chosen for Qwen/Qwen2.5-Coder-7B" in each for each in change.warnings)
    same = plan_swap(Platform(able.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert tools in (same.changes.files[CHAT] or "")
    assert not any("--tool-call-parser" in each for each in same.warnings)


def test_remote_code_runs_only_on_request(given: Changed, layout: Layout, machine: Machine) -> None:
    """The refusal names the required argument; another model does not inherit it."""
    tree = given(CHAT, "replicas: 0", "replicas: 0").tree
    facts = CODER_3B.model_copy(update={"hf_id": "acme/Own-3B-Chat", "model_type": "own", "remote_code": True})
    with pytest.raises(ManifestError, match="arg=--trust-remote-code"):
        plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=facts), machine)
    wanted = SwapRequest(name="coder-chat", facts=facts, args=("--trust-remote-code",))
    change = plan_swap(Platform(tree, layout), wanted, machine)
    assert "            - --trust-remote-code\n" in (change.changes.files[CHAT] or "")
    back = plan_swap(
        Platform(Overlay(tree, change.changes), layout), SwapRequest(name="coder-chat", facts=CODER_7B_AWQ), machine
    )
    assert "--trust-remote-code" not in (back.changes.files[CHAT] or "")


def test_a_served_name_that_people_chose_stays(given: Changed, layout: Layout, machine: Machine) -> None:
    """It does not mention the model, so it is still correct, and no caller is affected."""
    own = given(CHAT, "--served-model-name=qwen2.5-coder-7b-instruct", "--served-model-name=chat")
    own = own("platform/litellm/values.yaml", "openai/qwen2.5-coder-7b-instruct ", "openai/chat ")
    assert check(Platform(own.tree, layout)) == ()
    change = plan_swap(Platform(own.tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert change.endpoint is not None
    assert change.endpoint.served_name == "chat"
    assert not any("LiteLLM syncs automatically" in each for each in change.warnings)


def test_a_new_embedding_model_needs_a_new_index(given: Changed, layout: Layout, machine: Machine) -> None:
    """A CPU model syncs automatically: its users must be notified before the merge."""
    change = plan_swap(Platform(given.tree, layout), SwapRequest(name="embeddings", facts=NOMIC), machine)
    assert any("cannot be compared" in each and "768 dimensions" in each for each in change.warnings)
    assert "| nomic-ai/nomic-embed-text-v1.5 | TEI | none | 8192 |" in (change.changes.files[CATALOG] or "")
    assert check(Platform(Overlay(given.tree, change.changes), layout)) == ()


def test_a_name_that_is_an_ordinary_word_is_not_changed_in_prose(
    given: Changed, layout: Layout, machine: Machine
) -> None:
    """A copy of `embeddings` keeps the image's name, the URL and the sentence."""
    header = "# Embeddings for code search and RAG: Text Embeddings Inference with bge-base-en-v1.5, on the CPU.\n"
    path = "serving/embeddings/deployment.yaml"
    said = given(path, header, header + "# Serves /v1/embeddings (model_list: embeddings).\n")
    change = plan_add(Platform(said.tree, layout), AddRequest(name="vectors-small", facts=BGE_SMALL), machine)
    text = change.changes.files["serving/vectors-small/deployment.yaml"] or ""
    assert text.startswith(
        "# Embeddings for code search and RAG: Text Embeddings Inference with bge-small-en-v1.5, on the CPU.\n"
        "# Serves /v1/embeddings (model_list: vectors-small).\n"
    )
    assert "huggingface/text-embeddings-inference:cpu" in text


GROUP = "clusters/ai-dev/catalog/coding-assistant"


@pytest.mark.parametrize(
    ("pattern", "there", "made"),
    [
        (r"catalog/([\w-]+)/([\w-]+)\.yaml", r"catalog/\1/\2/application.yaml", f"{GROUP}/mini/application.yaml"),
        (r"catalog/([\w-]+)/([\w-]+)\.yaml", r"catalog/\1/app-\2.yml", f"{GROUP}/app-mini.yml"),
        (r"catalog/([\w-]+)/coder-chat\.yaml", r"catalog/\1/first.yaml", f"{GROUP}/mini.yaml"),
    ],
)
def test_an_applications_file_is_named_like_the_templates(
    given: Changed, layout: Layout, machine: Machine, pattern: str, there: str, made: str
) -> None:
    """In its own directory, with a prefix, or without any sign of the group: the group is still found."""
    moved = Changed({re.sub(pattern, there, path): text for path, text in given.files.items()})
    moved = Changed({path: text.replace("path: serving/", "path: ./serving/") for path, text in moved.files.items()})
    assert check(Platform(moved.tree, layout)) == ()
    change = plan_add(Platform(moved.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert change.endpoint is not None
    assert (change.endpoint.application_file, change.endpoint.group) == (made, "coding-assistant")
    tree = Overlay(moved.tree, change.changes)
    assert check(Platform(tree, layout)) == ()
    gone = Overlay(tree, plan_remove(Platform(tree, layout), "mini").changes)
    assert {path: gone.read(path) for path in gone.files("")} == moved.files


def test_an_application_in_a_shared_file_is_not_changed(given: Changed, layout: Layout, machine: Machine) -> None:
    """Deleting the file would delete the other endpoint, and its volume with it."""
    chat, fim = f"{GROUP}/coder-chat.yaml", f"{GROUP}/coder-fim.yaml"
    both = {path: text for path, text in given.files.items() if path not in (chat, fim)}
    tree = Files(both | {f"{GROUP}/all.yaml": f"{given.files[chat]}---\n{given.files[fim]}"})
    assert check(Platform(tree, layout)) == ()
    with pytest.raises(ManifestError, match=r"all\.yaml contains more than the Application of coder-fim"):
        plan_remove(Platform(tree, layout), "coder-fim")
    with pytest.raises(ManifestError, match=r"all\.yaml contains more than its Application"):
        plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)


def test_two_applications_never_get_one_name(given: Changed, layout: Layout, machine: Machine) -> None:
    """The second one would replace the first one in the cluster."""
    path = f"{GROUP}/coder-chat.yaml"
    prefixed = given(path, "metadata:\n  name: coder-chat\n", "metadata:\n  name: llm-coder-chat\n")
    change = plan_add(Platform(prefixed.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert change.endpoint is not None
    assert change.endpoint.application == "llm-mini"
    other = given(path, "metadata:\n  name: coder-chat\n", "metadata:\n  name: chat\n")
    with pytest.raises(ManifestError, match="its Application is named chat"):
        plan_add(Platform(other.tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)


def test_an_object_that_is_not_the_models_own_is_not_copied(given: Changed, layout: Layout, machine: Machine) -> None:
    """Two Applications would manage the same object; one with the model's name is renamed with it."""
    shared = "kind: Secret\nmetadata:\n  name: vllm-api-key\n"
    tree = Files(given.files | {"serving/coder-chat/secret.yaml": shared})
    with pytest.raises(ManifestError, match="contains the Secret vllm-api-key, which is not the model's own"):
        plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    own = Files(
        given.files | {"serving/coder-chat/config.yaml": "kind: ConfigMap\nmetadata:\n  name: coder-chat-env\n"}
    )
    change = plan_add(Platform(own, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert change.changes.files["serving/mini/config.yaml"] == "kind: ConfigMap\nmetadata:\n  name: mini-env\n"


def test_an_endpoint_is_not_removed_while_a_file_uses_its_address(given: Changed, layout: Layout) -> None:
    """The files are listed; a comment is not a call."""
    caller = "url: http://coder-chat.serving.svc:8000/v1\n"
    with pytest.raises(ManifestError, match=r"its address coder-chat\.serving \(apps/ide\.yaml:1\)"):
        plan_remove(Platform(Files(given.files | {"apps/ide.yaml": caller}), layout), "coder-chat")
    plan_remove(Platform(Files(given.files | {"apps/ide.yaml": f"# {caller}"}), layout), "coder-chat")


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
    given: Changed, layout: Layout, hf_id: str, kind: str
) -> None:
    """Names of families that mark their chat models."""
    bare = given(CHAT, "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", hf_id)
    assert read_endpoint(Platform(bare.tree, layout), "coder-chat").kind == kind
