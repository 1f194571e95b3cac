"""Patterns of public repositories, each in a few lines: they have no findings, and a swap changes only text about the model."""

import textwrap

from manifests.contract import check, read_endpoint
from manifests.fitting import fitted_layout
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.sizing import Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Files
from tests.manifests.test_platforms import GGUF, facts


def platform(**files: str) -> Platform:
    """A repository; `apps__vllm` is the file apps/vllm.yaml."""
    tree = Files({f"{path.replace('__', '/')}.yaml": textwrap.dedent(text) for path, text in files.items()})
    return Platform(tree, fitted_layout(Platform(tree, Layout())))


def swapped(before: Platform, name: str, model: ModelFacts) -> tuple[list[str], tuple[str, ...]]:
    """The removed and the added lines without their indentation, and the warnings."""
    change = plan_swap(before, SwapRequest(name=name, facts=model), Machine())
    diff = change.changes.diff(before).splitlines()
    lines = [line for line in diff if line[:1] in "+-" and not line.startswith(("--- ", "+++ "))]
    return [line[0] + (line[1:] if line[1:2] == "#" else line[1:].strip()) for line in lines], change.warnings


def rules(repository: Platform) -> list[str]:
    return [finding.rule for finding in check(repository, advice=True)]


DEPLOYMENT = """\
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: vllm, namespace: vllm}
    spec:
      selector: {matchLabels: {app: vllm}}
      template:
        metadata: {labels: {app: vllm}}
        spec:
          tolerations:
            - {key: gpu, value: amd, effect: NoSchedule}
          containers:
            - name: vllm
              image: vllm/vllm-openai-rocm:v0.11.0
              args:
                - --model=google/gemma-3-27b-it
              resources: {limits: {amd.com/gpu: "1", memory: 64Gi}}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: vllm, namespace: vllm}
    spec: {selector: {app: vllm}, ports: [{port: 8000}]}
"""


def test_a_toleration_of_a_custom_taint_has_no_finding() -> None:
    """Taints may have custom names, and nodes of another vendor do not have NVIDIA's taint."""
    assert rules(platform(apps__vllm=DEPLOYMENT)) == []
    assert rules(platform(apps__vllm=DEPLOYMENT.replace("amd.com/gpu", "nvidia.com/gpu"))) == []
    misspelt = DEPLOYMENT.replace("amd.com/gpu", "nvidia.com/gpu").replace("key: gpu", "key: nvidia.com/gpus")
    assert rules(platform(apps__vllm=misspelt)) == ["toleration"]


def test_tolerations_of_the_device_plugin_are_not_a_convention() -> None:
    plain = DEPLOYMENT.replace("amd.com/gpu", "nvidia.com/gpu")
    plugin = """\
        kind: HelmRelease
        spec:
          chart: {spec: {chart: nvidia-device-plugin}}
          values:
            tolerations:
              - key: nvidia.com/gpu
                operator: Exists
    """
    assert rules(platform(apps__vllm=plain, apps__plugin=plugin)) == []
    speech = plugin.replace("nvidia-device-plugin", "whisper")
    assert rules(platform(apps__vllm=plain, apps__plugin=speech)) == ["toleration"]


OLLAMA = """\
    apiVersion: helm.toolkit.fluxcd.io/v2
    kind: HelmRelease
    metadata: {name: ollama, namespace: vllm}
    spec: {chart: {spec: {chart: ollama}}}
"""
CLOUD = """\
    model_list:
      - model_name: local
        litellm_params: {model: ollama/gemma, api_base: "http://ollama.vllm.svc:11434"}
      - model_name: sonnet
        litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: os.environ/ANTHROPIC_API_KEY}
"""


def test_a_gateway_for_other_models_needs_no_alias_for_this_one() -> None:
    """LiteLLM serves a cloud and Ollama; clients call vLLM directly."""
    before = platform(apps__vllm=DEPLOYMENT, apps__ollama=OLLAMA, litellm=CLOUD)
    assert rules(before) == []
    lines, warnings = swapped(before, "vllm", facts("Qwen/Qwen3-4B"))
    assert lines == ["-- --model=google/gemma-3-27b-it", "+- --model=Qwen/Qwen3-4B"]
    named = DEPLOYMENT.replace("3-27b-it\n", "3-27b-it\n                - --served-model-name=gemma-3-27b-it\n")
    before = platform(apps__vllm=named, apps__ollama=OLLAMA, litellm=CLOUD)
    lines, warnings = swapped(before, "vllm", facts("Qwen/Qwen3-4B"))
    assert lines == ["-- --model=google/gemma-3-27b-it", "+- --model=Qwen/Qwen3-4B"]
    assert any("No alias here leads to gemma-3-27b-it" in warning for warning in warnings)


def test_an_alias_for_a_model_that_is_not_served_is_not_changed() -> None:
    """There is an alias for each model that may be swapped in, and only the alias of the current model changes."""
    lists = """\
        model_list:
          - model_name: small
            litellm_params: {model: hosted_vllm/Qwen/Qwen3-0.6B, api_base: "http://vllm.vllm.svc:8000/v1"}
          - model_name: large
            litellm_params: {model: hosted_vllm/google/gemma-3-27b-it, api_base: "http://vllm.vllm.svc:8000/v1"}
    """
    before = platform(apps__vllm=DEPLOYMENT, litellm=lists)
    assert rules(before) == []
    lines, _ = swapped(before, "vllm", facts("Qwen/Qwen3-4B"))
    assert [line for line in lines if "hosted_vllm" in line] == [
        '-litellm_params: {model: hosted_vllm/google/gemma-3-27b-it, api_base: "http://vllm.vllm.svc:8000/v1"}',
        '+litellm_params: {model: hosted_vllm/Qwen/Qwen3-4B, api_base: "http://vllm.vllm.svc:8000/v1"}',
    ]


CACHED = """\
    apiVersion: helm.toolkit.fluxcd.io/v2
    kind: HelmRelease
    metadata: {name: llama-cpp, namespace: ai}
    spec:
      chartRef: {kind: OCIRepository, name: app-template}
      values:
        controllers:
          llama-cpp:
            initContainers:
              download:
                image: {repository: ghcr.io/astral-sh/uv, tag: alpine}
                command:
                  - /bin/sh
                  - -ec
                  - |
                    download-model unsloth/gemma-3-4b-it-GGUF:UD-Q3_K_XL
                    download-model unsloth/Qwen3-8B-GGUF:Q4_K_M
            containers:
              app:
                image: {repository: ghcr.io/ggml-org/llama.cpp, tag: server-cuda}
                args:
                  - --model
                  - /models/models--unsloth--gemma-3-4b-it-GGUF/model.gguf
                  - --mmproj
                  - /models/models--unsloth--gemma-3-4b-it-GGUF/mmproj.gguf
                  - --alias
                  - gemma
                resources: {limits: {nvidia.com/gpu: 1}}
              second:
                image: {repository: ghcr.io/ggml-org/llama.cpp, tag: server-cuda}
                args:
                  - --model
                  - /models/models--unsloth--Qwen3-8B-GGUF/model.gguf
                  - --port=8081
"""


def test_a_file_in_the_hub_cache_changes_with_its_download() -> None:
    """The directory has the name of the model, and the file does not; another engine has a file of the same name."""
    before = platform(apps__llama=CACHED)
    assert read_endpoint(before, "llama-cpp").hf_id == "unsloth/gemma-3-4b-it-GGUF"
    lines, warnings = swapped(before, "llama-cpp", facts("Qwen/Qwen3-4B-GGUF", **GGUF))
    assert lines == [
        "-download-model unsloth/gemma-3-4b-it-GGUF:UD-Q3_K_XL",
        "+download-model Qwen/Qwen3-4B-GGUF:Q4_K_M",
        "-- /models/models--unsloth--gemma-3-4b-it-GGUF/model.gguf",
        "-- --mmproj",
        "-- /models/models--unsloth--gemma-3-4b-it-GGUF/mmproj.gguf",
        "+- /models/models--Qwen--Qwen3-4B-GGUF/model.gguf",
    ]
    assert [warning for warning in warnings if "--mmproj" in warning and "is removed" in warning]
    assert not [warning for warning in warnings if "Nothing in the repository puts weights" in warning]


def test_a_snapshot_in_the_hub_cache_changes_with_the_revision() -> None:
    path = f"/cache/hub/models--google--gemma-3-27b-it/snapshots/{'a' * 40}"
    before = platform(apps__vllm=DEPLOYMENT.replace("google/gemma-3-27b-it", path))
    lines, _ = swapped(before, "vllm", facts("Qwen/Qwen3-4B"))
    assert lines[-1] == f"+- --model=/cache/hub/models--Qwen--Qwen3-4B/snapshots/{'0' * 40}"


def test_labelled_lines_of_a_comment_are_corrected_separately() -> None:
    """A header of labels is not a paragraph, and an example of a call keeps its line."""
    header = """\
    # Serving: gemma-3-27b-it (text only)
    # Model: google/gemma-3-27b-it, the gemma-3-27b-it model
    # GPU: any
    #     curl -d '{"model": "google/gemma-3-27b-it"}'
"""
    before = platform(apps__vllm=header + DEPLOYMENT)
    lines, _ = swapped(before, "vllm", facts("Qwen/Qwen3-4B", weight_bytes=8_000_000_000))
    comments = [line for line in lines if line[1:].startswith("#")]
    assert comments == [
        "-# Serving: gemma-3-27b-it (text only)",
        "-# Model: google/gemma-3-27b-it, the gemma-3-27b-it model",
        "+# Serving: Qwen3-4B",
        "+# Model: Qwen/Qwen3-4B, the Qwen3-4B model",
        '-#     curl -d \'{"model": "google/gemma-3-27b-it"}\'',
        '+#     curl -d \'{"model": "Qwen/Qwen3-4B"}\'',
    ]
