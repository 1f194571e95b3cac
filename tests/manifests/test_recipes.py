"""Every engine and every form fulfils the same contract: recognised, read, and changed only in its own values.

A new engine or form adds one example here; see "Add an engine" in docs/platforms.md.
"""

import re

import pytest

from manifests.contract import Layout, check, read_endpoint, read_endpoints
from manifests.engines import engine_named, engines
from manifests.platform import Platform
from manifests.sizing import Machine, ModelFacts
from manifests.sources.forms import sources
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Files, ManifestError, Overlay

OLD, NEW = "someone/Old-3B", "someone/New-3B"

ENGINES = {
    "vLLM": ("vllm/vllm-openai:v0.11.0", f"[{OLD}, --served-model-name=chat, --max-model-len=4096]"),
    "SGLang": (
        "lmsysorg/sglang:v0.5.3",
        f"[--model-path={OLD}, --served-model-name=chat, --context-length=4096]",
    ),
    "llama.cpp": ("ghcr.io/ggml-org/llama.cpp:server", f"[-hf, '{OLD}:Q4_K_M', --alias, chat, -c, '4096']"),
    "TEI": ("ghcr.io/huggingface/text-embeddings-inference:1.8", f"[--model-id={OLD}]"),
    "KServe Hugging Face": (
        "kserve/huggingfaceserver:v0.15.0",
        f"[--model_id={OLD}, --model_name=chat, --max-model-len=4096]",
    ),
    "Text Generation Inference": ("ghcr.io/huggingface/text-generation-inference:3", f"[--model-id={OLD}]"),
    "Ollama": ("ollama/ollama:0.12", "[serve]"),
    "TensorRT-LLM": ("nvcr.io/nvidia/tensorrt-llm/release:1.0", f"[trtllm-serve, {OLD}]"),
    "LMDeploy": ("openmmlab/lmdeploy:v0.9", f"[--model={OLD}]"),
    "Infinity": ("michaelf34/infinity:0.0.77", f"[v2, --model-id={OLD}]"),
    "LocalAI": ("localai/localai:v3.5.0", f"[--model={OLD}]"),
    "Aphrodite": ("alpindale/aphrodite-openai:v0.6", f"[--model={OLD}]"),
}
"""A container that runs each engine: its image and its arguments."""

VALUES = f"""\
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {{name: model}}
spec:
  values:
    controllers:
      model:
        containers:
          app:
            image: {{repository: vllm/vllm-openai, tag: v0.11.0}}
            args: [{OLD}, --served-model-name=chat, --max-model-len=4096]
"""
FORM_EXAMPLES = {
    "workloads": f"""\
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: model}}
spec:
  template:
    spec:
      containers:
        - name: engine
          image: vllm/vllm-openai:v0.11.0
          command: [sh, -c, "exec vllm serve {OLD} --served-model-name chat --max-model-len 4096"]
""",
    "kserve": f"""\
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {{name: model}}
spec:
  model: {{uri: "hf://{OLD}", name: chat}}
  template:
    containers:
      - name: main
        image: vllm/vllm-openai:v0.11.0
        args: [--max-model-len=4096]
""",
    "helm": VALUES,
    "operators": f"""\
apiVersion: kubeai.org/v1
kind: Model
metadata: {{name: model}}
spec:
  features: [TextGeneration]
  engine: VLLM
  url: hf://{OLD}
  args: [--max-model-len=4096]
  resourceProfile: nvidia-gpu-l4:1
  minReplicas: 0
""",
}
"""An object of each form that serves the same model under the same name."""


def deployment(image: str, arguments: str) -> Files:
    text = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: model\nspec:\n  replicas: 0\n  template:\n"
        f"    spec:\n      containers:\n        - name: engine  # the engine\n          image: {image}\n          args: {arguments}\n"
    )
    return Files({"apps/model.yaml": text})


def facts(engine: str) -> ModelFacts:
    files = {"New-3B-Q4_K_M.gguf": 2_000_000_000} if engine == "llama.cpp" else {}
    kind = "embeddings" if engine == "TEI" else "chat"
    return ModelFacts(
        hf_id=NEW, revision="" if engine == "TEI" else "0" * 40, kind=kind, weight_bytes=2_000_000_000, layers=28, kv_heads=4, head_size=128,
        max_context=32768, gguf=files,
    )  # fmt: skip


def differences(tree: Files, layout: Layout, engine: str) -> list[tuple[str, str]]:
    """Return the words that a swap changes, old and new; it changes no other line."""
    change = plan_swap(Platform(tree, layout), SwapRequest(name="model", facts=facts(engine)), Machine())
    after = Overlay(tree, change.changes)
    old, new = (re.findall(r"[^\s,\"'\[\]]+", version.read("apps/model.yaml") or "") for version in (tree, after))
    assert len(old) == len(new)
    assert check(Platform(after, layout)) == check(Platform(tree, layout))
    return [(was, now) for was, now in zip(old, new, strict=True) if was != now]


@pytest.mark.parametrize("engine", [engine.name for engine in engines()])
def test_an_engine_is_recognised_read_and_changed_in_its_own_values(engine: str) -> None:
    """An engine that Stoker does not change is listed as unknown, and a change is refused with its name."""
    assert engine in ENGINES, f"add a container that runs {engine} to ENGINES"
    tree, layout = deployment(*ENGINES[engine]), Layout()
    named_engine = engine_named(engine)
    assert named_engine is not None
    if not named_engine.changes:
        assert [(workload.name, engine in workload.reason) for workload in Platform(tree, layout).unknown()] == [
            ("model", True)
        ]
        assert read_endpoints(Platform(tree, layout)) == ()
        with pytest.raises(ManifestError, match=f"its engine is {engine}"):
            plan_swap(Platform(tree, layout), SwapRequest(name="model", facts=facts(engine)), Machine())
        return
    endpoint = read_endpoint(Platform(tree, layout), "model")
    assert (endpoint.engine, endpoint.hf_id) == (engine, OLD)
    assert endpoint.served_names == (("chat",) if named_engine.served else ())
    assert endpoint.context == (4096 if named_engine.context else None)
    changed = differences(tree, layout, engine)
    assert [(was.replace(OLD, ""), now.replace(NEW, "")) for was, now in changed] == [
        (changed[0][0].replace(OLD, ""),) * 2
    ]


@pytest.mark.parametrize("form", [form.name for form in sources()])
def test_a_form_is_read_and_changed_in_its_own_values(form: str) -> None:
    assert form in FORM_EXAMPLES, f"add an object of the form {form} to FORM_EXAMPLES"
    tree, layout = Files({"apps/model.yaml": FORM_EXAMPLES[form]}), Layout()
    endpoint = read_endpoint(Platform(tree, layout), "model")
    served = "model" if form == "operators" else "chat"  # KubeAI names it after its object
    assert (endpoint.hf_id, endpoint.served_names, endpoint.context) == (OLD, (served,), 4096)
    ((was, now),) = differences(tree, layout, "vLLM")
    assert now == was.replace(OLD, NEW)
