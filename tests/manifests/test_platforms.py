"""Every sample platform is listed, has no findings, and changes only in the relevant lines."""

import re
from pathlib import Path

import pytest

from manifests.contract import Layout, check, read_endpoints
from manifests.fitting import fitted_layout
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine, ModelFacts
from manifests.sources.field_map import FieldMap
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Checkout, Files, ManifestError, Overlay, Tree

PLATFORMS = Path(__file__).parents[2] / "sandbox" / "platforms"
CHART = {
    "coder": FieldMap(
        model="values/coder.yaml:model.id",
        served_name="values/coder.yaml:model.servedName",
        context="values/coder.yaml:model.maxModelLen",
        quantization="values/coder.yaml:model.quantization",
        workload="llm/coder",
        application="coder",
    ),
    "chat": FieldMap(
        model="values/chat.yaml:model.id",
        served_name="values/chat.yaml:model.servedName",
        workload="llm/chat",
        application="chat",
    ),
}
"""The settings in the sample's `.stoker.yaml`."""


def open_platform(name: str) -> tuple[Tree, Layout]:
    """A sample as a separate tree, with the layout from its configuration or its files."""
    root = PLATFORMS / name
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}
    tree = Files(texts)
    layout = Layout(namespace="llm", endpoints=CHART) if name == "own-chart" else Layout()
    return tree, fitted_layout(Platform(tree, layout))


def facts(hf_id: str, **more: object) -> ModelFacts:
    method = next((method_name for method_name in ("awq", "gptq") if method_name in hf_id.lower()), None)
    facts = ModelFacts(
        hf_id=hf_id,
        revision="0" * 40,
        kind="chat",
        weight_bytes=5_600_000_000,
        layers=28,
        kv_heads=4,
        head_size=128,
        max_context=32768,
        quantization=method,
    )
    return facts.model_copy(update=more)


GGUF = {"unservable": "it holds GGUF files for llama.cpp only", "gguf": {
    "Qwen3-4B-Q4_K_M.gguf": 2_500_000_000, "Qwen3-4B-Q8_0.gguf": 4_300_000_000, "mmproj-F16.gguf": 900_000_000,
}}  # fmt: skip


@pytest.mark.parametrize(
    ("platform", "listed", "left"),
    [
        ("model-directories", {"qwen-coder": ("vLLM", "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "qwen-coder")}, {"speech"}),
        (
            "llama-cpp",
            {
                "llama-cpp": ("llama.cpp", "Qwen/Qwen3-8B-GGUF", "llama-cpp"),
                "vllm": ("vLLM", "/models/Qwen2.5-14B-Instruct-AWQ", "vllm"),
            },
            set(),
        ),
        ("one-application", {"chat": ("llama.cpp", "Qwen/Qwen3-4B-GGUF", "models")}, {"voice"}),
        ("config-map", {"vllm": ("vLLM", "Qwen/Qwen2.5-7B-Instruct-AWQ", "ai")}, {"ollama"}),
        (
            "flat-files",
            {
                "granite": ("vLLM", "ibm-granite/granite-3.3-2b-instruct", "llm"),
                "mistral": ("SGLang", "mistralai/Mistral-7B-Instruct-v0.3", "llm"),
                "qwen3": ("vLLM", "Qwen/Qwen3-8B-AWQ", "llm"),
            },
            set(),
        ),
        (
            "overlays",
            {"llama": ("llama.cpp", "unsloth/Qwen3-4B-GGUF", "ai"), "vllm": ("vLLM", "Qwen/Qwen2.5-7B-Instruct-AWQ", "ai")},
            set(),
        ),
        ("kserve-llm", {"phi4": ("vLLM", "microsoft/Phi-4-mini-instruct", "phi4")}, set()),
        (
            "helm-release",
            {
                "llama-cpp-chat": ("llama.cpp", "unsloth/gemma-3-12b-it-GGUF", "ai"),
                "llama-cpp-embed": ("llama.cpp", "nomic-ai/nomic-embed-text-v1.5-GGUF", "ai"),
                "vllm": ("vLLM", "Qwen/Qwen3-4B", "ai"),
            },
            set(),
        ),
        ("app-files", {"coder-vllm": ("vLLM", "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "coder")}, set()),
        (
            "own-chart",
            {"chat": ("vLLM", "Qwen/Qwen2.5-3B-Instruct", "llm"), "coder": ("vLLM", "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "llm")},
            set(),
        ),
        (
            "kserve-flux",
            {
                "phi": ("KServe Hugging Face", "microsoft/Phi-4-mini-instruct", "kserve"),
                "qwen": ("KServe Hugging Face", "Qwen/Qwen2.5-3B-Instruct", "kserve"),
            },
            set(),
        ),
        ("ollama", {}, {"ollama"}),
    ],
)  # fmt: skip
def test_a_platform_is_listed_and_has_no_findings(
    platform: str, listed: dict[str, tuple[str, str, str]], left: set[str]
) -> None:
    """Engine, model and namespace come from the manifests; endpoints that Stoker does not change are listed as unknown."""
    tree, layout = open_platform(platform)
    endpoints = {
        endpoint.name: (endpoint.engine, endpoint.hf_id, endpoint.namespace)
        for endpoint in read_endpoints(Platform(tree, layout))
    }
    assert endpoints == listed
    assert {workload.name for workload in Platform(tree, layout).unknown()} == left
    assert check(Platform(tree, layout), advice=True) == ()


@pytest.mark.parametrize(
    ("platform", "name", "new", "changed"),
    [
        (
            "model-directories", "qwen-coder", facts("Qwen/Qwen3-8B-AWQ"),
            ['-"--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"', '+"--model=Qwen/Qwen3-8B-AWQ"'],
        ),
        (
            "llama-cpp", "vllm", facts("Qwen/Qwen2.5-7B-Instruct-AWQ"),
            ["-/models/Qwen2.5-14B-Instruct-AWQ", "+/models/Qwen2.5-7B-Instruct-AWQ"],
        ),
        (
            "llama-cpp", "llama-cpp", facts("unsloth/Qwen3-4B-GGUF", **GGUF),
            [
                "-model: openai/qwen3-8b", "+model: openai/qwen3-4b",
                "-test -f /models/Qwen3-8B-Q4_K_M.gguf || hf download Qwen/Qwen3-8B-GGUF Qwen3-8B-Q4_K_M.gguf --local-dir /models",
                "+test -f /models/Qwen3-4B-Q4_K_M.gguf || hf download unsloth/Qwen3-4B-GGUF Qwen3-4B-Q4_K_M.gguf --local-dir /models",
                "-/models/Qwen3-8B-Q4_K_M.gguf", "+/models/Qwen3-4B-Q4_K_M.gguf",
                "-qwen3-8b", "+qwen3-4b",
            ],
        ),
        (
            "config-map", "vllm", facts("Qwen/Qwen3-8B-AWQ"),
            [
                '-model: "hosted_vllm/qwen2.5-7b-instruct"', '+model: "hosted_vllm/qwen3-8b"',
                '-MODEL_ID: "Qwen/Qwen2.5-7B-Instruct-AWQ"', '-MODEL_PATH: "/data/Qwen2.5-7B-Instruct-AWQ"',
                '-SERVED_NAME: "qwen2.5-7b-instruct"',
                '+MODEL_ID: "Qwen/Qwen3-8B-AWQ"', '+MODEL_PATH: "/data/Qwen3-8B-AWQ"', '+SERVED_NAME: "qwen3-8b"',
            ],
        ),
        (
            "flat-files", "qwen3", facts("Qwen/Qwen2.5-7B-Instruct-AWQ"),
            ["-Qwen/Qwen3-8B-AWQ", "+Qwen/Qwen2.5-7B-Instruct-AWQ"],
        ),
        (
            "flat-files", "mistral", facts("Qwen/Qwen2.5-7B-Instruct-AWQ"),
            ["---model-path=mistralai/Mistral-7B-Instruct-v0.3", "+--model-path=Qwen/Qwen2.5-7B-Instruct-AWQ"],
        ),
        (
            "flat-files", "granite", facts("Qwen/Qwen2.5-3B-Instruct"),
            ["-uri: hf://ibm-granite/granite-3.3-2b-instruct", "+uri: hf://Qwen/Qwen2.5-3B-Instruct"],
        ),
        (
            "overlays", "vllm", facts("Qwen/Qwen3-8B-AWQ"),
            ["-model: Qwen/Qwen2.5-7B-Instruct-AWQ", "+model: Qwen/Qwen3-8B-AWQ"],
        ),
        (
            "overlays", "llama", facts("unsloth/Qwen3-4B-Thinking-GGUF", **GGUF),
            ["--hf unsloth/Qwen3-4B-GGUF:Q4_K_M \\", "+-hf unsloth/Qwen3-4B-Thinking-GGUF:Q4_K_M \\"],
        ),
        (
            "kserve-llm", "phi4", facts("Qwen/Qwen2.5-3B-Instruct", weight_bytes=12_000_000_000, staged_bytes=12_000_000_000),
            [
                "-name: phi4", "+name: qwen2-5-3b-instruct",
                "-sourceModelUri: hf://microsoft/Phi-4-mini-instruct", "-modelSize: 10Gi",
                "+sourceModelUri: hf://Qwen/Qwen2.5-3B-Instruct", "+modelSize: 13Gi",
                "-uri: hf://microsoft/Phi-4-mini-instruct", "-name: microsoft/Phi-4-mini-instruct",
                "+uri: hf://Qwen/Qwen2.5-3B-Instruct", "+name: Qwen/Qwen2.5-3B-Instruct",
            ],
        ),
        (
            "helm-release", "llama-cpp-chat", facts("unsloth/Qwen3-4B-GGUF", **GGUF),
            ["-unsloth/gemma-3-12b-it-GGUF:Q4_K_M", "+unsloth/Qwen3-4B-GGUF:Q4_K_M"],
        ),
        ("helm-release", "vllm", facts("Qwen/Qwen3-1.7B"), ["-Qwen/Qwen3-4B", "+Qwen/Qwen3-1.7B"]),
        (
            "app-files", "coder-vllm", facts("Qwen/Qwen3-8B-AWQ"),
            [
                "-value: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "+value: Qwen/Qwen3-8B-AWQ",
                "-value: qwen2.5-coder-7b-instruct", "+value: qwen3-8b",
                "-model: openai/qwen2.5-coder-7b-instruct", "+model: openai/qwen3-8b",
            ],
        ),
        (
            "own-chart", "coder", facts("Qwen/Qwen3-8B-AWQ"),
            [
                "-model: hosted_vllm/qwen2.5-coder-7b-instruct", "+model: hosted_vllm/qwen3-8b",
                "-id: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "-servedName: qwen2.5-coder-7b-instruct",
                "+id: Qwen/Qwen3-8B-AWQ", "+servedName: qwen3-8b",
            ],
        ),
        (
            "kserve-flux", "qwen", facts("Qwen/Qwen3-1.7B"),
            ["---model_id=Qwen/Qwen2.5-3B-Instruct", "+--model_id=Qwen/Qwen3-1.7B"],
        ),
        (
            "kserve-flux", "phi", facts("Qwen/Qwen3-1.7B"),
            ["-storageUri: hf://microsoft/Phi-4-mini-instruct", "+storageUri: hf://Qwen/Qwen3-1.7B"],
        ),
    ],
)  # fmt: skip
def test_a_swap_changes_only_the_relevant_lines(platform: str, name: str, new: ModelFacts, changed: list[str]) -> None:
    """The test compares the whole patch without its indentation. The changed platform has no findings either."""
    tree, layout = open_platform(platform)
    change = plan_swap(Platform(tree, layout), SwapRequest(name=name, facts=new), Machine())
    assert lines(change.changes.diff(tree)) == sorted(changed)
    assert check(Platform(Overlay(tree, change.changes), layout)) == ()


def lines(diff: str) -> list[str]:
    """The removed and the added lines of a patch, without indentation and list marks, sorted."""
    changed_lines = [line for line in diff.splitlines() if line[:1] in "+-" and not line.startswith(("--- ", "+++ "))]
    return sorted(re.sub(r"^([+-])\s*(- )?", r"\1", changed_line) for changed_line in changed_lines)


@pytest.mark.parametrize(
    ("platform", "path", "old", "new", "name", "message"),
    [
        # The model is composed of two variables.
        (
            "config-map", "apps/vllm/deployment.yaml", "            - $(MODEL_PATH)\n",
            "            - /data/$(SERVED_NAME)-AWQ\n", "vllm", "several variables",
        ),
        # A subPath names the old weights, so the new ones would not be found.
        (
            "llama-cpp", "apps/ai/vllm/deployment.yaml", "              mountPath: /models\n      volumes",
            "              mountPath: /models/Qwen2.5-14B-Instruct-AWQ\n              subPath: weights/Qwen2.5-14B-Instruct-AWQ\n      volumes",
            "vllm", "apps/ai/vllm/deployment.yaml",
        ),
        # Two endpoints read one ConfigMap.
        (
            "config-map", "apps/other/deployment.yaml", "", "", "vllm", "both would change",
        ),
    ],
)  # fmt: skip
def test_a_change_that_cannot_find_every_place_is_refused(
    platform: str, path: str, old: str, new: str, name: str, message: str
) -> None:
    """The refusal names the places that it found, and nothing is changed."""
    tree, layout = open_platform(platform)
    if old:
        text = tree.read(path) or ""
        assert old in text
        files = {path: text.replace(old, new)}
    else:
        copy = (tree.read("apps/vllm/deployment.yaml") or "").replace("name: vllm\n", "name: other\n")
        files = {path: copy}
    broken = Overlay(tree, ChangeSet(files=dict(files)))
    with pytest.raises(ManifestError) as refused:
        plan_swap(Platform(broken, layout), SwapRequest(name=name, facts=facts("Qwen/Qwen3-8B-AWQ")), Machine())
    assert message in str(refused.value)


def test_llama_cpp_gets_the_largest_file_that_fits_if_the_format_is_missing() -> None:
    tree, layout = open_platform("overlays")
    files = {"X-Q2_K.gguf": 3_000_000_000, "X-Q8_0.gguf": 12_000_000_000, "X-BF16.gguf": 40_000_000_000}
    new = facts("someone/X-GGUF", gguf=files)
    change = plan_swap(Platform(tree, layout), SwapRequest(name="llama", facts=new), Machine())
    assert "-hf someone/X-GGUF:Q8_0" in change.changes.diff(tree)
    with pytest.raises(ManifestError, match="it has BF16, Q2_K, Q8_0"):
        plan_swap(Platform(tree, layout), SwapRequest(name="llama", facts=new, quantization="q4_k_m"), Machine())


def test_llama_cpp_refuses_a_repository_without_gguf_files() -> None:
    tree, layout = open_platform("overlays")
    with pytest.raises(ManifestError, match="has no GGUF files"):
        plan_swap(Platform(tree, layout), SwapRequest(name="llama", facts=facts("Qwen/Qwen3-8B")), Machine())


def test_a_requested_served_name_is_changed_without_a_gateway() -> None:
    """The two names stay different, because the name that people chose is kept."""
    tree, layout = open_platform("model-directories")
    request = SwapRequest(name="qwen-coder", facts=facts("Qwen/Qwen3-8B-AWQ"), served_name="qwen3-8b")
    diff = plan_swap(Platform(tree, layout), request, Machine()).changes.diff(tree)
    assert '-            - "qwen2.5-coder-7b-instruct"\n+            - "qwen3-8b"\n             - "coder"\n' in diff


def test_a_platform_is_read_from_disk_as_well() -> None:
    """People run the commands in a checkout."""
    platform = Platform(Checkout(PLATFORMS / "flat-files"), Layout())
    endpoints = read_endpoints(platform.with_layout(fitted_layout(platform)))
    assert [endpoint.name for endpoint in endpoints] == ["granite", "mistral", "qwen3"]


PARAMETERS = """\
      parameters:
        - name: proxy_config.model_list[0].model_name
          value: coder
        - name: proxy_config.model_list[0].litellm_params.model
          value: hosted_vllm/qwen2.5-coder-7b-instruct
        - name: proxy_config.model_list[0].litellm_params.api_base
          value: http://coder.llm.svc.cluster.local:8000/v1
        - name: proxy_config.model_list[1].model_name
          value: chat
        - name: proxy_config.model_list[1].litellm_params.model
          value: "hosted_vllm/qwen2.5-3b-instruct"
        - name: proxy_config.model_list[1].litellm_params.api_base
          value: http://chat.llm.svc.cluster.local:8000/v1
"""


def test_a_list_of_models_in_helm_parameters_is_read_and_changed() -> None:
    """The values are changed in place. A price would need an additional parameter, so it is refused by name."""
    tree, layout = open_platform("own-chart")
    path = "apps/litellm.yaml"
    before, _, remainder = (tree.read(path) or "").partition("      values: |\n")
    spread = before + PARAMETERS + remainder[remainder.index("  destination:") :]
    tree = Overlay(tree, ChangeSet(files={path: spread}))
    assert {endpoint.name: endpoint.alias for endpoint in read_endpoints(Platform(tree, layout))} == {
        "coder": "coder",
        "chat": "chat",
    }
    request = SwapRequest(name="chat", facts=facts("Qwen/Qwen3-8B-AWQ"))
    diff = plan_swap(Platform(tree, layout), request, Machine()).changes.diff(tree)
    assert '-          value: "hosted_vllm/qwen2.5-3b-instruct"\n+          value: "hosted_vllm/qwen3-8b"\n' in diff
    assert diff.count("apps/litellm.yaml") == 2
    priced = request.model_copy(update={"price_in": "0.0000005", "price_out": "0.0000005"})
    with pytest.raises(ManifestError, match=r"apps/litellm.yaml has no input price for chat: add it by hand"):
        plan_swap(Platform(tree, layout), priced, Machine())


def test_an_endpoint_in_helm_parameters_is_not_removed() -> None:
    """The parameters of the other entries would have to be numbered again."""
    tree, layout = open_platform("one-application")
    path = "argocd/gateway.yaml"
    before, _, remainder = (tree.read(path) or "").partition("      valuesObject:\n")
    spread = (
        before
        + PARAMETERS.replace("http://chat.llm", "http://chat.models")
        + remainder[remainder.index("  destination:") :]
    )
    tree = Overlay(tree, ChangeSet(files={path: spread}))
    assert read_endpoints(Platform(tree, layout))[0].alias == "chat"
    with pytest.raises(ManifestError, match=r"The entry chat \(argocd/gateway.yaml:\d+\) is in `helm.parameters`"):
        plan_remove(Platform(tree, layout), "chat")
