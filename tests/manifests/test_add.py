"""Adding an endpoint: everything that the contract requires, and nothing else."""

import re
from collections.abc import Callable

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import Layout, check, read_endpoint
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Cache, Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Files, ManifestError, Overlay
from tests.manifests.models import CODER_1_5B, CODER_3B, CODER_3B_AWQ, CODER_32B_AWQ

MINI = AddRequest(name="coder-mini", facts=CODER_3B_AWQ)

AROUND = """\
--- a/docs/public/guides/staged-bring-up.md
+++ b/docs/public/guides/staged-bring-up.md
@@ -5,6 +5,7 @@
 | Application | Group | What it needs | Check |
 | --- | --- | --- | --- |
 | `coder-chat` | coding-assistant | 1 GPU | `/v1/models` lists the served name |
+| `coder-mini` | coding-assistant | 1 GPU | `/v1/models` lists the served name |
 | `coder-fim` | coding-assistant | 1 GPU | `/v1/models` lists the served name |
 
 There is one GPU: bring one of them up, and the other one down.
--- a/docs/public/reference/model-catalog.md
+++ b/docs/public/reference/model-catalog.md
@@ -5,6 +5,7 @@
 | Tenant alias | Model | Backend | GPU | Context | Cost (in / out per token) | SLO target | Eval status |
 | --- | --- | --- | --- | --- | --- | --- | --- |
 | `coder-chat` | Qwen/Qwen2.5-Coder-7B-Instruct-AWQ | vLLM | 1 × L4 | 16384 | $0.0000005 / $0.0000015 | first token < 2 s | passed |
+| `coder-mini` | Qwen/Qwen2.5-Coder-3B-Instruct-AWQ | vLLM | 1 × L4 | 16384 | $0.0000005 / $0.0000015 | first token < 2 s | not run |
 | `coder-fim` | Qwen/Qwen2.5-Coder-1.5B | vLLM | 1 × L4 | 8192 | $0.0000002 / $0.0000004 | first token < 0.5 s | passed |
 | `embeddings` | BAAI/bge-base-en-v1.5 | TEI | none | 512 | $0.0000001 / – | 100 ms per text | passed |
 | `claude-haiku` | Claude Haiku 4.5 | external | none | 200000 | $0.000001 / $0.000005 | the provider's | not run |
--- a/platform/litellm/values.yaml
+++ b/platform/litellm/values.yaml
@@ -23,6 +23,13 @@
         api_key: os.environ/UPSTREAM_API_KEY
         input_cost_per_token: 0.0000002
         output_cost_per_token: 0.0000004
+    - model_name: coder-mini                             # chat in the IDE, Qwen2.5-Coder-3B-Instruct (AWQ)
+      litellm_params:
+        model: openai/qwen2.5-coder-3b-instruct
+        api_base: http://coder-mini.serving.svc.cluster.local:8000/v1
+        api_key: os.environ/UPSTREAM_API_KEY
+        input_cost_per_token: 0.0000005
+        output_cost_per_token: 0.0000015
     - model_name: embeddings                             # vectors for code search and RAG
       litellm_params:
         model: openai/bge-base-en-v1.5
--- a/scripts/wait-profile.sh
+++ b/scripts/wait-profile.sh
@@ -3,7 +3,7 @@
 set -euo pipefail
 
 # Synced by a person, so waiting for them would never end.
-manual_apps="coder-chat coder-fim"
+manual_apps="coder-chat coder-mini coder-fim"
 
 deadline=$((SECONDS + ${TIMEOUT:-1800}))
 
"""  # noqa: W293

NEW_FILES = {
    "clusters/ai-dev/catalog/coding-assistant/coder-mini.yaml",
    "serving/coder-mini/deployment.yaml",
    "serving/coder-mini/kustomization.yaml",
    "serving/coder-mini/pvc.yaml",
    "serving/coder-mini/service.yaml",
}


def test_lists_and_documents_get_lines_for_the_new_endpoint(platform: Files, layout: Layout, machine: Machine) -> None:
    """LiteLLM's entry is placed among similar entries, and the next comment stays with the entry that it describes."""
    change = plan_add(Platform(platform, layout), MINI, machine)
    diff = change.changes.diff(platform)
    assert "".join(part for part in _by_file(diff) if not part.startswith("--- /dev/null")) == AROUND
    assert {path for path in change.changes.files if platform.read(path) is None} == NEW_FILES
    assert change.title == "feat(serving): add coder-mini (Qwen2.5-Coder-3B-Instruct-AWQ)"


def test_a_copy_differs_from_its_template_only_where_the_models_differ(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """Only fields and comments about the model change; the rest equals the template, byte for byte."""
    change = plan_add(Platform(platform, layout), MINI, machine)
    old = (platform.read("serving/coder-chat/deployment.yaml") or "").splitlines()
    new = (change.changes.files["serving/coder-mini/deployment.yaml"] or "").splitlines()
    assert len(old) == len(new)
    assert [after for before, after in zip(old, new, strict=True) if before != after] == [
        "# Chat for the IDEs: Qwen2.5-Coder-3B-Instruct in its AWQ form, which leaves the L4 room for a long context.",
        "  name: coder-mini",
        "    app.kubernetes.io/name: coder-mini",
        "      app.kubernetes.io/name: coder-mini",
        "        app.kubernetes.io/name: coder-mini",
        '              model = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"',
        "            - --model=Qwen/Qwen2.5-Coder-3B-Instruct-AWQ",
        "            - --served-model-name=qwen2.5-coder-3b-instruct",
        "            failureThreshold: 90               # 15 min: the 3B loads slowly from a network disk",
        "            claimName: coder-mini-model-cache",
    ]


def test_a_new_endpoint_follows_the_contract(platform: Files, layout: Layout, machine: Machine) -> None:
    """The bot's check has no findings in the bot's own changes."""
    change = plan_add(Platform(platform, layout), MINI, machine)
    tree = Overlay(platform, change.changes)
    assert check(Platform(tree, layout)) == ()
    endpoint = read_endpoint(Platform(tree, layout), "coder-mini")
    assert endpoint == change.endpoint
    assert (endpoint.alias, endpoint.context, endpoint.manual_sync) == ("coder-mini", 16384, True)


def test_a_copy_does_not_mention_the_old_model(platform: Files, layout: Layout, machine: Machine) -> None:
    """A comment with another model's name, size or quantization would be wrong."""
    change = plan_add(Platform(platform, layout), AddRequest(name="coder-mini", facts=CODER_3B), machine)
    for path in NEW_FILES:
        text = change.changes.files[path] or ""
        for stale in ("7B", "7b-", "AWQ", "awq", "coder-chat", "16k", "5.6"):
            assert stale not in text, (path, stale)


def test_remove_is_the_inverse_of_add(platform: Files, layout: Layout, machine: Machine) -> None:
    """Removing the endpoint restores every byte."""
    added = Overlay(platform, plan_add(Platform(platform, layout), MINI, machine).changes)
    change = plan_remove(Platform(added, layout), "coder-mini")
    back = Overlay(added, change.changes)
    assert back.files("") == platform.files("")
    assert all(back.read(path) == platform.read(path) for path in platform.files(""))
    assert any("volume coder-mini-model-cache (10Gi) with the weights" in warning for warning in change.warnings)


def test_options_take_precedence_over_derived_values(platform: Files, layout: Layout, machine: Machine) -> None:
    """Every option is written to its place in the files."""
    request = AddRequest(
        name="coder-mini",
        facts=CODER_3B_AWQ,
        served_name="mini",
        context=4096,
        quantization="none",
        gpu_utilization=0.5,
        storage="30Gi",
        price_in="0.0000001",
        price_out="2e-7",
        args=("--seed=7",),
    )
    change = plan_add(Platform(platform, layout), request, machine)
    endpoint = change.endpoint
    assert endpoint is not None
    assert (endpoint.served_name, endpoint.context, endpoint.quantization) == ("mini", 4096, None)
    assert (endpoint.gpu_utilization, endpoint.pvc_size) == (0.5, "30Gi")
    assert (endpoint.price_in, endpoint.price_out) == ("0.0000001", "0.0000002")
    assert "            - --seed=7\n" in (change.changes.files["serving/coder-mini/deployment.yaml"] or "")
    assert "$0.0000001 / $0.0000002" in (change.changes.files[layout.model_catalog] or "")


def test_a_base_model_is_copied_from_a_completion_endpoint(platform: Files, layout: Layout, machine: Machine) -> None:
    """A base model has no chat template, so it cannot answer a chat."""
    facts = CODER_1_5B.model_copy(update={"hf_id": "Qwen/Qwen2.5-Coder-0.5B", "weight_bytes": 988_000_000})
    change = plan_add(Platform(platform, layout), AddRequest(name="tiny-fim", facts=facts), machine)
    tree = Overlay(platform, change.changes)
    assert read_endpoint(Platform(tree, layout), "tiny-fim").kind == "gpu-completion"
    assert check(Platform(tree, layout)) == ()


def test_a_copy_of_another_kind_has_no_comments_about_the_templates_kind(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """A base model copied from a chat endpoint has no comment about chat; in the reverse case there is none about completions."""
    base = AddRequest(name="coder-base", facts=CODER_1_5B, like="coder-chat")
    files = plan_add(Platform(platform, layout), base, machine).changes.files
    new_files = [text for path, text in files.items() if "coder-base" in path and text]
    entry = (
        (files["platform/litellm/values.yaml"] or "").partition("model_name: coder-base")[2].partition("model_name")[0]
    )
    assert not [
        line for text in (*new_files, entry) for line in text.splitlines() if re.search(r"#.*\bchat\b", line, re.I)
    ]
    chat = AddRequest(name="coder-talk", facts=CODER_3B_AWQ, like="coder-fim")
    files = plan_add(Platform(platform, layout), chat, machine).changes.files
    entry = (
        (files["platform/litellm/values.yaml"] or "").partition("model_name: coder-talk")[2].partition("model_name")[0]
    )
    assert "# (Qwen2.5-Coder-3B-Instruct, AWQ)\n" in entry
    assert "complet" not in entry
    assert "base model" not in entry


def test_an_embedding_model_has_other_fields(platform: Files, layout: Layout, machine: Machine) -> None:
    """It has port 80, no served name and automated syncs, so it is in no list of manual applications."""
    facts = ModelFacts(
        hf_id="BAAI/bge-small-en-v1.5",
        weight_bytes=133_000_000,
        max_context=512,
        kind="embeddings",
        model_type="bert",
        pipeline_tag="feature-extraction",
    )
    change = plan_add(Platform(platform, layout), AddRequest(name="vectors", facts=facts), machine)
    tree = Overlay(platform, change.changes)
    assert check(Platform(tree, layout)) == ()
    endpoint = read_endpoint(Platform(tree, layout), "vectors")
    assert (endpoint.kind, endpoint.service_port, endpoint.manual_sync) == ("cpu-embeddings", 80, False)
    assert layout.wait_script not in change.changes.files
    deployment = change.changes.files["serving/vectors/deployment.yaml"] or ""
    assert "text-embeddings-inference" in deployment
    assert "bge-base" not in deployment


def test_a_platform_without_docs_and_scripts_gets_only_the_manifests(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """`add` does not invent parts that a platform does not have."""
    lean = Files(
        {
            path: platform.read(path) or ""
            for path in platform.files("")
            if not path.startswith(("docs/", "scripts/", "environments/"))
        }
    )
    change = plan_add(Platform(lean, layout), MINI, machine)
    assert set(change.changes.files) == NEW_FILES | {layout.litellm_values}
    assert check(Platform(Overlay(lean, change.changes), layout)) == ()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (AddRequest(name="Coder_Mini", facts=CODER_3B_AWQ), "DNS label"),
        (AddRequest(name="-mini", facts=CODER_3B_AWQ), "DNS label"),
        (AddRequest(name="coder-fim", facts=CODER_3B_AWQ), "is taken: serving/coder-fim exists"),
        (AddRequest(name="claude-haiku", facts=CODER_3B_AWQ), "alias claude-haiku is taken"),
        (AddRequest(name="litellm", facts=CODER_3B_AWQ), "taken by the Application"),
        (AddRequest(name="mini", facts=CODER_3B_AWQ, like="nobody"), "Endpoints to copy from: coder-chat"),
        (AddRequest(name="mini", facts=CODER_3B_AWQ, group="../x"), "is not a group"),
        (AddRequest(name="mini", facts=CODER_32B_AWQ), "does not fit"),
        (AddRequest(name="mini", facts=CODER_3B_AWQ, context=65536), "at most 32768"),
        (AddRequest(name="mini", facts=CODER_3B_AWQ, served_name="a b"), "is not a served name"),
    ],
)
def test_an_impossible_addition_is_refused_with_the_reason(
    platform: Files, layout: Layout, machine: Machine, request_: AddRequest, reason: str
) -> None:
    """No pull request is opened, and one sentence contains the reason and the fix."""
    with pytest.raises(ManifestError, match=reason):
        plan_add(Platform(platform, layout), request_, machine)


def test_another_layout_needs_only_configuration(platform: Files, machine: Machine) -> None:
    """The directories, the namespace and the label key are different; the contract is the same."""
    moved = {
        path.replace("serving/", "models/", 1).replace("ai-dev", "prod"): (platform.read(path) or "")
        .replace("path: serving/", "path: models/")
        .replace("clusters/ai-dev/", "clusters/prod/")
        .replace("namespace: serving", "namespace: inference")
        .replace(".serving.svc", ".inference.svc")
        .replace("app.kubernetes.io/name", "app")
        for path in platform.files("")
    }
    tree = Files(moved)
    layout = Layout(environment="prod", serving_dir="models", namespace="inference")
    assert check(Platform(tree, layout)) == ()
    change = plan_add(Platform(tree, layout), MINI, machine)
    after = Overlay(tree, change.changes)
    assert check(Platform(after, layout)) == ()
    assert read_endpoint(Platform(after, layout), "coder-mini").application_file == (
        "clusters/prod/catalog/coding-assistant/coder-mini.yaml"
    )


def _flow(text: str) -> str:
    """Write the arguments as a list on one line."""
    return re.sub(
        r"          args:\n(?:            - --.*\n)+",
        '          args: ["--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "--served-model-name=qwen2.5-coder-7b-instruct", '
        '"--quantization=awq_marlin", "--max-model-len=16384"]\n',
        text,
    )


def _split(text: str) -> str:
    """Write flags and their values as separate items, with the values in quotes."""
    return re.sub(r"            - (--[\w-]+)=(\S+)", r'            - \1\n            - "\2"', text)


def _windows(text: str) -> str:
    return text.replace("\n", "\r\n")


def _no_last_newline(text: str) -> str:
    return text.rstrip("\n")


def _words_in_lines(text: str) -> str:
    return text.replace('"coder-chat coder-fim"', '"\n  coder-chat\n  coder-fim\n"')


@pytest.mark.parametrize("style", [_flow, _split, _windows, _no_last_newline, _words_in_lines])
def test_the_style_of_the_files_is_kept(
    platform: Files, layout: Layout, machine: Machine, style: Callable[[str], str]
) -> None:
    """In every style, adding and removing an endpoint restores every byte, and a swap keeps the contract."""
    changed = {
        path: style(text) if style is not _flow or "coder-chat/deployment" in path else text
        for path in platform.files("")
        if (text := platform.read(path)) is not None
    }
    tree = Files(changed)
    assert check(Platform(tree, layout)) == ()
    added = Overlay(
        tree, plan_add(Platform(tree, layout), AddRequest(name="coder-mini", facts=CODER_3B), machine).changes
    )
    assert check(Platform(added, layout)) == ()
    back = Overlay(added, plan_remove(Platform(added, layout), "coder-mini").changes)
    assert {path: back.read(path) for path in back.files("")} == changed
    swapped = plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B), machine)
    assert check(Platform(Overlay(tree, swapped.changes), layout)) == ()
    if style is _windows:
        assert all(text.count("\n") == text.count("\r\n") for text in swapped.changes.files.values() if text)


def _by_file(diff: str) -> list[str]:
    parts: list[str] = []
    for line in diff.splitlines(keepends=True):
        if line.startswith("--- "):
            parts.append("")
        parts[-1] += line
    return parts


RANKER = ModelFacts(
    hf_id="Qwen/Qwen3-Reranker-0.6B",
    revision="0" * 40,
    kind="reranker",
    weight_bytes=1_191_586_416,
    layers=28,
    kv_heads=8,
    head_size=128,
    max_context=40960,
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
)


def test_a_reranker_is_copied_from_a_chat_model_with_another_runner(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """The copy uses the reranker's own context, LiteLLM ranks through hosted_vllm, and no new file mentions chat."""
    change = plan_add(Platform(platform, layout), AddRequest(name="ranker", facts=RANKER), machine)
    tree = Overlay(platform, change.changes)
    endpoint = read_endpoint(Platform(tree, layout), "ranker")
    assert (endpoint.kind, endpoint.context) == ("gpu-reranker", None)
    text = change.changes.files["serving/ranker/deployment.yaml"] or ""
    assert "            - --runner=pooling\n" in text
    assert "Qwen3ForSequenceClassification" in text
    assert "--max-model-len" not in text
    new_files = [part for path, part in change.changes.files.items() if "ranker" in path]
    assert not any("chat" in (part or "").lower().replace("coder-chat", "") for part in new_files)
    assert "      model_info:\n        mode: rerank\n" in (change.changes.files[layout.litellm_values] or "")
    assert "model: hosted_vllm/qwen3-reranker-0.6b" in (change.changes.files[layout.litellm_values] or "")
    assert "| `ranker` | Qwen/Qwen3-Reranker-0.6B | vLLM | 1 × L4 | 40960 |" in change.changes.diff(platform)
    assert check(Platform(tree, layout)) == ()


SMALL_RANKER = RANKER.model_copy(
    update={
        "hf_id": "BAAI/bge-reranker-base",
        "weight_bytes": 1_112_205_008,
        "max_context": 512,
        "model_type": "xlm-roberta",
        "architecture": "XLMRobertaForSequenceClassification",
        "cache": Cache(),
    }
)


def test_a_small_reranker_is_copied_from_the_embeddings_on_the_cpu(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """TEI has no `/v1` for ranking, so LiteLLM calls it as `huggingface`. No comment mentions embeddings."""
    request = AddRequest(name="ranker", like="embeddings", facts=SMALL_RANKER)
    change = plan_add(Platform(platform, layout), request, machine)
    tree = Overlay(platform, change.changes)
    endpoint = read_endpoint(Platform(tree, layout), "ranker")
    assert (endpoint.kind, endpoint.manual_sync) == ("cpu-reranker", False)
    assert any("does not count the cost of rankings" in warning for warning in change.warnings)
    values = tree.read(layout.litellm_values) or ""
    assert "model: huggingface/bge-reranker-base\n        api_base: http://ranker.serving.svc.cluster.local\n" in values
    new_files = [part or "" for path, part in change.changes.files.items() if "/ranker" in path]
    assert not any(re.search(r"(?i)vector|embed", re.sub(r"text-embeddings-inference", "", part)) for part in new_files)
    assert check(Platform(tree, layout)) == ()
    wrong = values.replace("//ranker.serving.svc.cluster.local\n", "//ranker.serving.svc.cluster.local/v1\n")
    findings = check(Platform(Overlay(tree, ChangeSet(files={layout.litellm_values: wrong})), layout))
    assert [finding.rule for finding in findings] == ["api-base-path"]
    # The next reranker is copied from it.
    second = AddRequest(name="second", facts=SMALL_RANKER)
    assert "ghcr.io/huggingface/text-embeddings-inference" in (
        plan_add(Platform(tree, layout), second, machine).changes.files["serving/second/deployment.yaml"] or ""
    )
    back = Overlay(tree, plan_remove(Platform(tree, layout), "ranker").changes)
    assert {path: back.read(path) for path in back.files("")} == {
        path: platform.read(path) for path in platform.files("")
    }


def test_a_reranker_that_tei_does_not_serve_is_refused_on_the_cpu(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """This reranker is a model that generates text, which Text Embeddings Inference does not serve."""
    request = AddRequest(name="ranker", like="embeddings", facts=RANKER)
    with pytest.raises(ManifestError, match="TEI on embeddings does not serve Qwen"):
        plan_add(Platform(platform, layout), request, machine)


def test_an_embedding_model_whose_context_does_not_fit_needs_a_shorter_one(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """Stoker does not shorten the context itself, because the engine would then refuse or truncate long texts."""
    facts = RANKER.model_copy(
        update={"hf_id": "Qwen/Qwen3-Embedding-8B", "kind": "embeddings", "weight_bytes": 15_134_600_000, "layers": 36}
    )
    with pytest.raises(ManifestError, match="its own context of 40960 tokens"):
        plan_add(Platform(platform, layout), AddRequest(name="embedder", facts=facts), machine)
    change = plan_add(Platform(platform, layout), AddRequest(name="embedder", facts=facts, context=8192), machine)
    endpoint = read_endpoint(Platform(Overlay(platform, change.changes), layout), "embedder")
    assert (endpoint.kind, endpoint.context) == ("gpu-embeddings", 8192)
