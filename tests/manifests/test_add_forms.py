"""`add` on each sample platform: a copy that starts nothing, or instructions for the changes by hand."""

import re
from pathlib import Path

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import check, read_endpoints
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ManifestError
from tests.manifests.test_platforms import GGUF, PLATFORMS, facts, open_platform


def platform(name: str) -> Platform:
    return Platform(*open_platform(name))


ADDED = [
    ("config-map", "vllm", facts("Qwen/Qwen3-4B"), {
        "apps/litellm/litellm.yaml", "apps/scribe/config.yaml", "apps/scribe/deployment.yaml", "apps/scribe/service.yaml",
        "argocd/scribe.yaml",
    }),
    ("flat-files", "mistral", facts("Qwen/Qwen3-4B"), {"apps/scribe.yaml"}),
    ("flat-files", "qwen3", facts("Qwen/Qwen3-4B"), {"apps/scribe.yaml"}),
    ("helm-release", "vllm", facts("Qwen/Qwen3-4B"), {
        "clusters/main/scribe.yaml", "kubernetes/apps/scribe/helmrelease.yaml", "kubernetes/apps/scribe/kustomization.yaml",
    }),
    ("kserve-llm", "phi4", facts("Qwen/Qwen3-4B"), {
        "argocd/gateway.yaml", "argocd/scribe.yaml", "models/scribe/cache.yaml", "models/scribe/llminferenceservice.yaml",
    }),
    ("llama-cpp", "vllm", facts("Qwen/Qwen3-4B"), {
        "apps/ai/litellm/configmap.yaml", "apps/ai/scribe/deployment.yaml", "apps/ai/scribe/kustomization.yaml",
        "apps/ai/scribe/namespace.yaml", "apps/ai/scribe/pvc.yaml", "apps/ai/scribe/service.yaml",
    }),
    ("model-directories", "qwen-coder", facts("Qwen/Qwen3-4B"), {
        "models/scribe/deployment.yaml", "models/scribe/namespace.yaml", "models/scribe/pvc.yaml",
        "models/scribe/service.yaml",
    }),
    ("overlays", "llama", facts("unsloth/Qwen3-4B-GGUF", **GGUF), {
        "base/scribe/kustomization.yaml", "base/scribe/llama.yaml", "overlays/lab/kustomization.yaml",
    }),
    ("kserve-flux", "phi", facts("Qwen/Qwen3-4B"), {"models/scribe.yaml", "models/kustomization.yaml"}),
    ("one-application", "chat", facts("unsloth/Qwen3-4B-GGUF", **GGUF), {
        "argocd/gateway.yaml", "serving/scribe/deployment.yaml", "serving/scribe/nginx.yaml", "serving/scribe/service.yaml",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "like", "model", "files"), ADDED)
def test_a_copy_has_no_findings_and_can_be_removed(sample: str, like: str, model: ModelFacts, files: set[str]) -> None:
    """The copy has all objects of its template under its own name, nothing starts, and `remove` is the inverse."""
    before = platform(sample)
    change = plan_add(before, AddRequest(name="scribe", facts=model, like=like), Machine())
    assert set(change.changes.files) == files
    after = before.with_changes(change.changes)
    endpoints = {endpoint.name: endpoint for endpoint in read_endpoints(after)}
    assert model.hf_id.partition("/")[2].removesuffix("-GGUF") in endpoints["scribe"].hf_id
    assert endpoints["scribe"].namespace in (endpoints[like].namespace, "scribe")
    assert check(after, advice=True) == ()
    own_files = {path for path in files if "scribe" in path}
    new_files = [text or "" for path, text in change.changes.files.items() if "scribe" in path]
    assert not any(re.search(rf"(?<![\w-]){like}(?![\w-])", text) for text in new_files if sample == "flat-files")
    assert not any(word in text for text in new_files for word in ("nodePort", "coder", '"chat"', "- chat"))
    assert not any(
        "replicas: 1" in text or "minReplicas: 1" in text for text in new_files if sample != "one-application"
    )
    other_model = facts("Qwen/Qwen3-1.7B-GGUF", **GGUF) if "GGUF" in model.hf_id else facts("Qwen/Qwen3-1.7B")
    swap = plan_swap(after, SwapRequest(name="scribe", facts=other_model), Machine()).changes
    assert set(swap.files) <= files
    removed_lines = [
        line for line in swap.diff(after).splitlines() if line.startswith("-") and not line.startswith("---")
    ]
    assert removed_lines
    assert all(
        "qwen3-4b" in line.lower() or line == "-  name: scribe" for line in removed_lines
    )  # the cache has the model's name
    assert {
        path for path in plan_remove(after.with_changes(swap), "scribe").changes.files if "scribe" in path
    } == own_files
    undone = plan_remove(after, "scribe").changes.files
    assert {path: text for path, text in undone.items() if text != before.read(path)} == {}
    assert set(undone) == files


@pytest.mark.parametrize(
    ("sample", "like", "instructions"),
    [
        ("app-files", "coder-vllm", "copy the part of apps/coder.yaml:7 about coder-vllm"),
        (
            "helm-release",
            "llama-cpp-chat",
            "copy the part of kubernetes/apps/llama-cpp/helmrelease.yaml:13 about llama-cpp-chat",
        ),
        ("overlays", "vllm", "its model is also named in overlays/lab/vllm-config.yaml"),
        ("own-chart", "coder", "add scribe to platform.endpoints"),
    ],
)
def test_an_endpoint_that_is_not_copied_gets_instructions(sample: str, like: str, instructions: str) -> None:
    """The message names the file to add, the text to write, and the list of aliases if there is one."""
    with pytest.raises(ManifestError, match="To add scribe by hand: ") as error:
        plan_add(platform(sample), AddRequest(name="scribe", facts=facts("Qwen/Qwen3-4B"), like=like), Machine())
    assert instructions in str(error.value)
    if sample in ("app-files", "own-chart"):
        assert "add an entry to model_list in" in str(error.value)


def test_every_sample_is_covered() -> None:
    """Each sample is tested for a copy or for instructions, or has no endpoint to copy."""
    covered = {"app-files", "own-chart"}
    directories = {path.name for path in Path(PLATFORMS).iterdir() if path.is_dir()}
    assert directories == covered | {addition[0] for addition in ADDED} | {"ollama"}
    assert platform("ollama").endpoints() == ()


def test_a_program_named_like_the_endpoint_is_not_renamed() -> None:
    """If an endpoint is named vllm, its copy still runs `vllm serve`."""
    text = """apiVersion: apps/v1
kind: Deployment
metadata: {name: vllm, namespace: llm}
spec:
  replicas: 1
  selector: {matchLabels: {app: vllm}}
  template:
    metadata: {labels: {app: vllm}}
    spec:
      containers:
        - name: vllm
          image: vllm/vllm-openai:v0.11.0
          command:
            - vllm
            - serve
            - Qwen/Qwen2.5-3B-Instruct
            - --max-model-len=8192
          resources: {limits: {nvidia.com/gpu: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: vllm, namespace: llm}
spec: {selector: {app: vllm}, ports: [{port: 8000}]}
"""
    before = platform("flat-files").with_changes({"apps/vllm.yaml": text})
    change = plan_add(before, AddRequest(name="scribe", facts=facts("Qwen/Qwen3-4B"), like="vllm"), Machine())
    manifest = change.changes.files["apps/scribe.yaml"] or ""
    assert "- vllm\n            - serve\n            - Qwen/Qwen3-4B\n" in manifest
    assert "image: vllm/vllm-openai:v0.11.0" in manifest
    assert "metadata: {name: scribe, namespace: llm}" in manifest
    assert "replicas: 0" in manifest
