"""Swaps: the diff is the one that a maintainer would write."""

import pytest
from ruamel.yaml import YAML

from manifests.contract import Layout, check, read_endpoint
from manifests.edit import Document
from manifests.platform import Platform
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Files, ManifestError, Overlay
from manifests.volumes import without_shrinking
from tests.manifests.layout_variants import styled
from tests.manifests.models import CODER_3B, CODER_3B_AWQ, CODER_7B_AWQ, CODER_14B_AWQ, CODER_32B_AWQ

TO_3B_AWQ = """\
--- a/clusters/ai-dev/catalog/coding-assistant/coder-chat.yaml
+++ b/clusters/ai-dev/catalog/coding-assistant/coder-chat.yaml
-# Chat on the GPU (Qwen2.5-Coder-7B-Instruct, AWQ). No automated sync: a person decides when the GPU costs money.
+# Chat on the GPU (Qwen2.5-Coder-3B-Instruct, AWQ). No automated sync: a person decides when the GPU costs money.
--- a/docs/public/reference/model-catalog.md
+++ b/docs/public/reference/model-catalog.md
-| `coder-chat` | Qwen/Qwen2.5-Coder-7B-Instruct-AWQ | vLLM | 1 × L4 | 16384 | $0.0000005 / $0.0000015 | first token < 2 s | passed |
+| `coder-chat` | Qwen/Qwen2.5-Coder-3B-Instruct-AWQ | vLLM | 1 × L4 | 16384 | $0.0000005 / $0.0000015 | first token < 2 s | not run |
--- a/platform/litellm/values.yaml
+++ b/platform/litellm/values.yaml
-    - model_name: coder-chat                             # chat in the IDE, Qwen2.5-Coder-7B-Instruct (AWQ)
+    - model_name: coder-chat                             # chat in the IDE, Qwen2.5-Coder-3B-Instruct (AWQ)
-        model: openai/qwen2.5-coder-7b-instruct          # the name that the engine answers to
+        model: openai/qwen2.5-coder-3b-instruct          # the name that the engine answers to
--- a/serving/coder-chat/deployment.yaml
+++ b/serving/coder-chat/deployment.yaml
-# Chat for the IDEs: Qwen2.5-Coder-7B-Instruct in its AWQ form, which leaves the L4 room for a long context.
+# Chat for the IDEs: Qwen2.5-Coder-3B-Instruct in its AWQ form, which leaves the L4 room for a long context.
-              model = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"
+              model = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
-            - --model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ
-            - --served-model-name=qwen2.5-coder-7b-instruct
+            - --model=Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
+            - --served-model-name=qwen2.5-coder-3b-instruct
-            failureThreshold: 90               # 15 min: the 7B loads slowly from a network disk
+            failureThreshold: 90               # 15 min: the 3B loads slowly from a network disk
--- a/serving/coder-chat/pvc.yaml
+++ b/serving/coder-chat/pvc.yaml
-# Hugging Face cache of coder-chat (5.6 GB of 7B AWQ weights, and room for their successor).
+# Hugging Face cache of coder-chat (2.7 GB of 3B AWQ weights, and room for their successor).
"""


def changed_lines(diff: str) -> list[str]:
    """Return the lines of a diff without its context."""
    return [line for line in diff.splitlines() if line.startswith(("-", "+"))]


def test_a_swap_changes_only_the_lines_that_name_the_model(platform: Files, layout: Layout, machine: Machine) -> None:
    """Comments are updated, and statements that are wrong for the new model are removed."""
    change = plan_swap(Platform(platform, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    assert changed_lines(change.changes.diff(platform)) == changed_lines(TO_3B_AWQ)
    assert change.title == "feat(serving): swap coder-chat to Qwen2.5-Coder-3B-Instruct-AWQ"
    assert check(Platform(Overlay(platform, change.changes), layout)) == ()


def test_a_swap_and_its_reverse_restore_the_fields(platform: Files, layout: Layout, machine: Machine) -> None:
    """A swap and its opposite restore the endpoint."""
    before = read_endpoint(Platform(platform, layout), "coder-chat")
    swap = plan_swap(Platform(platform, layout), SwapRequest(name="coder-chat", facts=CODER_3B), machine)
    middle = Overlay(platform, swap.changes)
    back = plan_swap(Platform(middle, layout), SwapRequest(name="coder-chat", facts=CODER_7B_AWQ), machine)
    after = Overlay(middle, back.changes)
    assert read_endpoint(Platform(after, layout), "coder-chat") == before
    assert check(Platform(after, layout)) == ()


def test_the_quantization_is_removed_with_its_comment(platform: Files, layout: Layout, machine: Machine) -> None:
    """An unquantized model with a stale --quantization fails at boot."""
    change = plan_swap(Platform(platform, layout), SwapRequest(name="coder-chat", facts=CODER_3B), machine)
    text = change.changes.files["serving/coder-chat/deployment.yaml"] or ""
    assert "quantization" not in text
    assert "AWQ" not in text
    assert "4-bit" not in text
    assert text.startswith("# Chat for the IDEs: Qwen2.5-Coder-3B-Instruct, unquantized.\n")
    assert change.endpoint is not None
    assert change.endpoint.quantization is None


def test_a_new_quantization_is_aligned_with_its_neighbours(platform: Files, layout: Layout, machine: Machine) -> None:
    """The argument is added in its usual place: after the served name, with a comment in the column of the others."""
    facts = CODER_3B_AWQ.model_copy(update={"hf_id": "Qwen/Qwen2.5-Coder-3B-AWQ"})
    change = plan_swap(
        Platform(platform, layout), SwapRequest(name="coder-fim", facts=facts, kind="completion"), machine
    )
    lines = (change.changes.files["serving/coder-fim/deployment.yaml"] or "").splitlines()
    at = next(index for index, line in enumerate(lines) if "--quantization" in line)
    assert "--served-model-name=qwen2.5-coder-3b" in lines[at - 1]
    assert lines[at] == "            - --quantization=awq_marlin          # the format of the weights (AWQ)"


def test_the_volume_grows_if_both_models_do_not_fit(platform: Files, layout: Layout, machine: Machine) -> None:
    """The old weights stay in the cache with the new ones."""
    facts = CODER_14B_AWQ.model_copy(update={"kind": "completion"})
    change = plan_swap(
        Platform(platform, layout), SwapRequest(name="coder-fim", facts=facts, kind="completion"), machine
    )
    assert "+      storage: 15Gi\n" in change.changes.diff(platform)
    assert any("grows from 10Gi to 15Gi" in warning for warning in change.warnings)


def test_a_revert_of_a_swap_does_not_shrink_the_volume(platform: Files, layout: Layout, machine: Machine) -> None:
    """Kubernetes would refuse a smaller claim, and the whole sync would fail. The model is reverted, and the volume stays."""
    facts = CODER_14B_AWQ.model_copy(update={"kind": "completion"})
    change = plan_swap(
        Platform(platform, layout), SwapRequest(name="coder-fim", facts=facts, kind="completion"), machine
    )
    swapped = Overlay(platform, change.changes)
    back = ChangeSet(files={path: platform.read(path) for path in change.changes.files})
    unshrunk, notes = without_shrinking(swapped, back)
    assert notes == ("The volume coder-fim-model-cache stays at 15Gi: Kubernetes cannot make it smaller.",)
    reverted = Overlay(swapped, unshrunk)
    pvc = "serving/coder-fim/pvc.yaml"
    assert reverted.read(pvc) == (platform.read(pvc) or "").replace("storage: 10Gi", "storage: 15Gi")
    assert all(reverted.read(path) == platform.read(path) for path in back.files if path != pvc)
    assert without_shrinking(platform, change.changes) == (change.changes, ())


@pytest.mark.parametrize("argument", ["--x=a:", '--x={"a":1}', "--x='", "--x=a\\b", "--x={{y}}", "--x=#", "--x=é"])
@pytest.mark.parametrize("style", ["as it is", "flow arguments"])
def test_an_argument_is_written_as_it_was_given(
    platform: Files, layout: Layout, machine: Machine, argument: str, style: str
) -> None:
    """Values are quoted if YAML would read them as another type."""
    tree = Files(styled({path: platform.read(path) or "" for path in platform.files("")}, style))
    request = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ, args=(argument,))
    manifest = plan_swap(Platform(tree, layout), request, machine).changes.files["serving/coder-chat/deployment.yaml"]
    loaded = YAML(typ="safe").load(manifest)
    assert loaded["spec"]["template"]["spec"]["containers"][0]["args"][-1] == argument


def test_arguments_are_kept_as_people_wrote_them(platform: Files, layout: Layout, machine: Machine) -> None:
    """vLLM reads underscores as dashes, and 16K equals the context that the swap keeps."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    path = "serving/coder-chat/deployment.yaml"
    files[path] = (
        files[path].replace("--max-model-len=16384", "--max_model_len=16K").replace("--served-m", "--served_m")
    )
    tree = Files(files)
    assert check(Platform(tree, layout)) == ()
    assert read_endpoint(Platform(tree, layout), "coder-chat").context == 16384
    changed = plan_swap(
        Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine
    ).changes.files[path]
    assert "            - --max_model_len=16K  " in (changed or "")
    assert "            - --served_model-name=qwen2.5-coder-3b-instruct\n" in (changed or "")


def test_prices_are_written_in_decimal_form(platform: Files, layout: Layout, machine: Machine) -> None:
    """Older YAML parsers read 5e-07 as a string, so the cost would not be a number."""
    request = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ, price_in="3e-7", price_out="0.0000009")
    values = plan_swap(Platform(platform, layout), request, machine).changes.files["platform/litellm/values.yaml"] or ""
    assert "input_cost_per_token: 0.0000003\n" in values
    assert "output_cost_per_token: 0.0000009\n" in values


def test_extra_arguments_are_set_or_appended(platform: Files, layout: Layout, machine: Machine) -> None:
    """The option `arg=` may be repeated."""
    request = SwapRequest(
        name="coder-chat", facts=CODER_3B_AWQ, args=("--enable-auto-tool-choice", "--tool-call-parser=hermes")
    )
    text = (
        plan_swap(Platform(platform, layout), request, machine).changes.files["serving/coder-chat/deployment.yaml"]
        or ""
    )
    assert (
        "a 16k context\n            - --enable-auto-tool-choice\n            - --tool-call-parser=hermes\n"
        "          ports:" in text
    )


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (SwapRequest(name="coder-chat", facts=CODER_32B_AWQ), "does not fit"),
        (SwapRequest(name="coder-chat", facts=CODER_3B.model_copy(update={"weight_bytes": 0})), r"weights=5\.6GB"),
        (SwapRequest(name="nobody", facts=CODER_3B), "There is no endpoint 'nobody'"),
        (SwapRequest(name="coder-chat", facts=CODER_7B_AWQ), "already serves"),
        (SwapRequest(name="coder-chat", facts=CODER_3B, storage="5Gi"), "cannot shrink"),
        (SwapRequest(name="coder-chat", facts=CODER_3B, storage="many"), "not a volume size"),
        (
            SwapRequest(name="coder-chat", facts=CODER_3B, args=("--model=x/y",)),
            "cannot be given as an argument: use the model id",
        ),
        (SwapRequest(name="coder-chat", facts=CODER_3B, args=("; rm -rf /",)), "is not an argument"),
        (SwapRequest(name="coder-chat", facts=CODER_3B, args=("--x=\x00",)), "is not an argument"),
        (SwapRequest(name="coder-chat", facts=CODER_3B, args=("--api-key=s3cret",)), "--api-key takes a secret, which"),
        (SwapRequest(name="coder-chat", facts=CODER_3B, price_in="0.5"), r"\$0.5 per token is \$500000 for a million"),
        (SwapRequest(name="coder-chat", facts=CODER_3B, quantization="awq # x"), "is not a quantization"),
        (SwapRequest(name="coder-chat", facts=CODER_3B, price_in="free"), "is not a price"),
        (
            SwapRequest(name="coder-chat", facts=CODER_3B.model_copy(update={"kind": "completion"})),
            "does not chat, and tenants of coder-chat use it for chat",
        ),
    ],
)
def test_an_impossible_swap_is_refused_with_the_reason(
    platform: Files, layout: Layout, machine: Machine, request_: SwapRequest, reason: str
) -> None:
    """No pull request is opened, and one sentence contains the reason."""
    with pytest.raises(ManifestError, match=reason):
        plan_swap(Platform(platform, layout), request_, machine)


@pytest.mark.parametrize("hf_id", ["Qwen", "a/b/c", "Qwen/x; rm -rf /", 'Qwen/x"\nimport os', "../etc", "a/../b"])
def test_an_invalid_model_id_is_refused(platform: Files, layout: Layout, machine: Machine, hf_id: str) -> None:
    """The id is written into a script and into YAML."""
    facts = CODER_3B.model_copy(update={"hf_id": hf_id})
    with pytest.raises(ManifestError, match="not a model on Hugging Face"):
        plan_swap(Platform(platform, layout), SwapRequest(name="coder-chat", facts=facts), machine)


def test_an_endpoint_that_a_route_names_is_refused_with_the_route(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """It is not sufficient to change the endpoint's own files, unless the served name is kept."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    files["routing/coder.yaml"] = "match: qwen2.5-coder-7b-instruct\n"
    tree = Files(files)
    with pytest.raises(ManifestError, match=r"routing/coder\.yaml"):
        plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    request = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ, served_name="qwen2.5-coder-7b-instruct")
    assert "routing/coder.yaml" not in plan_swap(Platform(tree, layout), request, machine).changes.files


def test_benchmark_reports_are_not_routes(platform: Files, layout: Layout, machine: Machine) -> None:
    """Benchmark reports may name the old model; a benchmark's settings may not."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    files["benchmarks/coder-chat/2026-11-20-0a1b2c.md"] = "Measured: qwen2.5-coder-7b-instruct\n"
    request = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ)
    assert plan_swap(Platform(Files(files), layout), request, machine).changes.files
    files["benchmarks/coder-chat/load.yaml"] = "model: qwen2.5-coder-7b-instruct\n"
    with pytest.raises(ManifestError, match=r"benchmarks/coder-chat/load\.yaml"):
        plan_swap(Platform(Files(files), layout), request, machine)


def test_the_comment_above_an_entry_changes_if_it_names_the_model(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """The adjacent line about the whole group stays."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    entry = "    - model_name: coder-chat"
    files[layout.litellm_values] = files[layout.litellm_values].replace(
        entry, f"    # Qwen2.5-Coder-7B-Instruct is for chat.\n{entry}"
    )
    change = plan_swap(Platform(Files(files), layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    values = change.changes.files[layout.litellm_values] or ""
    assert f"one of them answers at a time.\n    # Qwen2.5-Coder-3B-Instruct is for chat.\n{entry}" in values


def test_a_hash_in_a_script_is_not_a_comment() -> None:
    """A # inside a literal block or a quoted string is not a comment."""
    document = Document("x.yaml", 'a: |\n  # code 7B\nb: "x # y"\nc: 1 # why\n')
    assert [comment.text for comment in document.comments()] == ["# why"]
