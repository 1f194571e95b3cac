"""A model that is named by its path on a volume (`OWNER/NAME`), and arguments in `command`."""

import pytest

from manifests.contract import Layout, read_endpoints
from manifests.fitting import fitted_layout
from manifests.platform import Platform
from manifests.reading import other_differences
from manifests.sizing import Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Files

FACTS = ModelFacts(
    hf_id="Qwen/Qwen3-4B", revision="0" * 40, kind="chat", weight_bytes=8_000_000_000, layers=36, kv_heads=8,
    head_size=128, max_context=40960,
)  # fmt: skip
GGUF = FACTS.model_copy(
    update={
        "hf_id": "bartowski/Qwen3-4B-GGUF",
        "unservable": "it holds GGUF files for llama.cpp only",
        "gguf": {"Qwen3-4B-Q4_K_M.gguf": 2_500_000_000},
    }
)


def workload(image: str, command: str) -> str:
    return f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: coder, namespace: llm}}
spec:
  replicas: 0
  template:
    metadata: {{labels: {{app: coder}}}}
    spec:
      containers:
        - name: engine
          image: {image}
          {command}
          resources: {{limits: {{nvidia.com/gpu: 1}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: coder, namespace: llm}}
spec: {{selector: {{app: coder}}, ports: [{{port: 8000}}]}}
"""


def open_platform(text: str) -> Platform:
    platform = Platform(Files({"apps/coder/coder.yaml": text}), Layout())
    return platform.with_layout(fitted_layout(platform))


@pytest.mark.parametrize(
    ("image", "path", "hf_id", "facts", "after"),
    [
        ("vllm/vllm-openai", "/models/Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", FACTS, "/models/Qwen/Qwen3-4B"),
        ("vllm/vllm-openai", "/models/Qwen2.5-7B-Instruct", "/models/Qwen2.5-7B-Instruct", FACTS, "/models/Qwen3-4B"),
        (
            "ghcr.io/ggml-org/llama.cpp:server", "/models/unsloth/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf", "unsloth/Qwen3-8B-GGUF",
            GGUF, "/models/bartowski/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf",
        ),
        (
            "ghcr.io/ggml-org/llama.cpp:server", "/models/Qwen3-8B-Q4_K_M.gguf", "/models/Qwen3-8B-Q4_K_M.gguf",
            GGUF, "/models/Qwen3-4B-Q4_K_M.gguf",
        ),
    ],
)  # fmt: skip
def test_a_model_on_a_shared_volume_is_recognised_by_its_directories(
    image: str, path: str, hf_id: str, facts: ModelFacts, after: str
) -> None:
    """The new model has its own directory, and a warning asks people to put it there."""
    platform = open_platform(workload(image, f"args: [--model, {path}, --load-format=auto]"))
    assert [endpoint.hf_id for endpoint in read_endpoints(platform)] == [hf_id]
    change = plan_swap(platform, SwapRequest(name="coder", facts=facts), Machine())
    text = change.changes.files["apps/coder/coder.yaml"] or ""
    assert f"--model, {after}" in text
    assert "--load-format=auto" in text
    assert any(f"at {after} before the endpoint starts" in warning for warning in change.warnings)


def test_an_argument_in_the_command_is_shown_once() -> None:
    """The rows of a plan show changed arguments, not moved positions."""
    command = (
        "command: [vllm, serve, Qwen/Qwen2.5-7B-Instruct, --trust-remote-code, --max-model-len=65536, --dtype=auto]"
    )
    platform = open_platform(workload("vllm/vllm-openai", command))
    change = plan_swap(platform, SwapRequest(name="coder", facts=FACTS), Machine())
    after = platform.with_changes(change.changes)
    rows, warnings = other_differences(platform, after, platform.require("coder"), after.require("coder"))
    assert [name for name, _ in rows if "command" in name] == []
    assert not any("command" in warning for warning in warnings)
