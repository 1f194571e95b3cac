"""Models of operators (KubeAI, the Ollama operator, LLMKube), and StatefulSets, as people write them."""

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import check, read_endpoint, read_endpoints
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.replicas import replicas_in_git, scaled_by, switched_by_hand, with_replicas
from manifests.sizing import Machine
from manifests.survey import survey
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Files, ManifestError
from tests.manifests.test_platforms import facts

KUBEAI = """\
apiVersion: kubeai.org/v1
kind: Model
metadata:
  name: qwen3-4b  # what clients ask for
  namespace: kubeai
spec:
  features: [TextGeneration]
  url: hf://Qwen/Qwen3-4B
  engine: VLLM
  args:
    - --max-model-len=8192
  resourceProfile: nvidia-gpu-l4:1
  minReplicas: 1
  maxReplicas: 3
"""
OLLAMA = """\
apiVersion: ollama.ayaka.io/v1
kind: Model
metadata: {name: phi}
spec:
  image: phi
"""
LLMKUBE = """\
apiVersion: inference.llmkube.dev/v1alpha1
kind: Model
metadata: {name: qwen-file}
spec: {source: 'https://huggingface.co/Qwen/Qwen3-4B-GGUF/resolve/main/Qwen3-4B-Q4_K_M.gguf', format: gguf}
---
apiVersion: inference.llmkube.dev/v1alpha1
kind: InferenceService
metadata: {name: qwen}
spec: {modelRef: qwen-file, replicas: 1, resources: {gpu: 1}}
"""
STATEFUL = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: chat, namespace: llm}
spec:
  replicas: 0
  template:
    spec:
      containers:
        - name: engine
          image: vllm/vllm-openai:v0.11.0
          args: [--model=Qwen/Qwen3-4B, --served-model-name=chat]
          resources: {limits: {nvidia.com/gpu: 1}}
"""


def platform(**files: str) -> Platform:
    return Platform(Files({f"models/{name}.yaml": text for name, text in files.items()}), Layout())


def test_a_kubeai_model_is_listed_checked_and_swapped() -> None:
    """Clients use the object's name, so it does not change, although it contains the name of the old model."""
    tree = platform(qwen=KUBEAI)
    endpoint = read_endpoint(tree, "qwen3-4b")
    assert (endpoint.hf_id, endpoint.served_names, endpoint.context) == ("Qwen/Qwen3-4B", ("qwen3-4b",), 8192)
    assert (endpoint.engine, endpoint.gpus, endpoint.namespace) == ("vLLM", 1, "kubeai")
    assert check(tree) == ()
    change = plan_swap(tree, SwapRequest(name="qwen3-4b", facts=facts("Qwen/Qwen3-1.7B")), Machine())
    diff = ChangeSet(files=change.changes.files).diff(tree).splitlines()
    assert [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-  url: hf://Qwen/Qwen3-4B",
        "+  url: hf://Qwen/Qwen3-1.7B",
    ]


def test_kubeai_starts_and_stops_its_models_itself() -> None:
    """KubeAI creates pods without a Deployment, on demand."""
    tree = platform(qwen=KUBEAI)
    assert scaled_by(tree, "qwen3-4b") == "KubeAI (models/qwen.yaml:13)"
    assert survey(tree).starts["qwen3-4b"] == "by KubeAI (models/qwen.yaml:13), not by Stoker"


@pytest.mark.parametrize(("profile", "gpus"), [("cpu:4", 0), ("cpu-avx2:1", 0), ("nvidia-gpu-h100:2", 2), ("l4", 1)])
def test_a_kubeai_model_has_the_gpus_of_its_profile(profile: str, gpus: int) -> None:
    tree = platform(qwen=KUBEAI.replace("nvidia-gpu-l4:1", profile))
    assert read_endpoint(tree, "qwen3-4b").gpus == gpus


def test_a_kubeai_model_is_copied() -> None:
    """The copy is next to its template, even if the directory has no other file."""
    files = {"qwen3-4b": KUBEAI.replace("  # what clients ask for", "")}
    request = AddRequest(name="scribe", facts=facts("Qwen/Qwen3-1.7B"), like="qwen3-4b")
    new_files = plan_add(platform(**files), request, Machine()).changes.files
    assert set(new_files) == {"models/scribe.yaml"}
    text = new_files["models/scribe.yaml"] or ""
    assert "name: scribe\n" in text
    assert "url: hf://Qwen/Qwen3-1.7B\n" in text


@pytest.mark.parametrize(
    ("text", "name", "engine"),
    [
        (KUBEAI.replace("VLLM", "OLlama").replace("hf://Qwen/Qwen3-4B", "ollama://qwen3:4b"), "qwen3-4b", "Ollama"),
        (KUBEAI.replace("VLLM", "FasterWhisper"), "qwen3-4b", "KubeAI's FasterWhisper"),
        (OLLAMA, "phi", "Ollama"),
        (LLMKUBE, "qwen", "LLMKube's llama.cpp"),
    ],
)
def test_other_engines_of_operators_are_listed_and_not_changed(text: str, name: str, engine: str) -> None:
    tree = platform(model=text)
    assert [(workload.name, workload.reason) for workload in tree.unknown()] == [
        (name, f"its engine is {engine}, which Stoker does not change")
    ]
    assert read_endpoints(tree) == ()
    with pytest.raises(ManifestError, match="outside the contract: its engine is"):
        plan_swap(tree, SwapRequest(name=name, facts=facts("Qwen/Qwen3-1.7B")), Machine())


def test_a_model_of_another_operator_is_not_an_endpoint() -> None:
    assert platform(model=KUBEAI.replace("kubeai.org/v1", "example.org/v1")).names() == ()


def test_a_stateful_set_is_swapped_and_started_by_hand() -> None:
    """Stoker has no right to scale a StatefulSet, and leases are written on Deployments."""
    tree = platform(chat=STATEFUL)
    change = plan_swap(tree, SwapRequest(name="chat", facts=facts("Qwen/Qwen3-1.7B")), Machine())
    assert "--model=Qwen/Qwen3-1.7B" in (change.changes.files["models/chat.yaml"] or "")
    assert switched_by_hand(tree, "chat") == "a StatefulSet (models/chat.yaml:1)"
    assert survey(tree).starts["chat"] == (
        "by hand: it is a StatefulSet (models/chat.yaml:1), and Stoker starts and stops Deployments"
    )


def test_a_copy_of_the_only_file_stays_in_its_directory() -> None:
    """The kustomization of the directory lists the copy, and the directory is not copied to the root."""
    deployed = STATEFUL.replace("StatefulSet", "Deployment")
    files = {"models/chat.yaml": deployed, "models/kustomization.yaml": "resources:\n  - chat.yaml\n"}
    tree = Platform(Files(files), Layout())
    request = AddRequest(name="scribe", facts=facts("Qwen/Qwen3-1.7B"), like="chat")
    new_files = plan_add(tree, request, Machine()).changes.files
    assert set(new_files) == {"models/scribe.yaml", "models/kustomization.yaml"}
    assert new_files["models/kustomization.yaml"] == "resources:\n  - chat.yaml\n  - scribe.yaml\n"


def test_files_beside_a_manifest_belong_to_the_endpoint() -> None:
    """A directory with one workload and its Service is one endpoint."""
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: chat}\nspec: {ports: [{port: 8000}]}\n"
    tree = platform(chat=STATEFUL.replace("StatefulSet", "Deployment"), service=service)
    assert tree.require("chat").home == "models"


TWO = """\
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: llm, namespace: ai}
spec:
  chartRef: {kind: OCIRepository, name: app-template}
  values:
    controllers:
      chat:
        replicas: 0
        containers:
          app:
            image: {repository: vllm/vllm-openai, tag: v0.11.0}
            args: [--model=Qwen/Qwen3-4B, --served-model-name=chat]
            resources: {limits: {nvidia.com/gpu: 1}}
      code:
        replicas: 0
        containers:
          app:
            image: {repository: vllm/vllm-openai, tag: v0.11.0}
            args: [--model=Qwen/Qwen3-8B, --served-model-name=code]
            resources: {limits: {nvidia.com/gpu: 1}}
          small:
            image: {repository: ghcr.io/ggml-org/llama.cpp, tag: server}
            args: [--model, /models/small.gguf, --port, "8081"]
"""


def changed_lines(tree: Platform, changes: ChangeSet) -> list[str]:
    diff = changes.diff(tree).splitlines()
    return [line.strip("+- ") for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize(("name", "line", "model"), [("llm-chat", 11, "Qwen3-4B"), ("llm-code", 18, "Qwen3-8B")])
def test_each_controller_of_a_release_is_an_endpoint(name: str, line: int, model: str) -> None:
    """A swap and a start change the lines of one controller; people write a new controller by hand."""
    tree = platform(llm=TWO)
    assert {endpoint.name: endpoint.workload for endpoint in read_endpoints(tree)} == {
        "llm-chat": "llm-chat",
        "llm-code": "llm-code",
    }
    change = plan_swap(tree, SwapRequest(name=name, facts=facts("Qwen/Qwen3-1.7B")), Machine())
    served = name.removeprefix("llm-")
    assert changed_lines(tree, change.changes) == [
        f"args: [--model=Qwen/{model_name}, --served-model-name={served}]" for model_name in (model, "Qwen3-1.7B")
    ]
    started = with_replicas(tree, name, 1)
    after = tree.with_changes(started)
    assert changed_lines(tree, started) == ["replicas: 0", "replicas: 1"]
    assert {workload: replicas_in_git(after, workload) for workload in ("llm-chat", "llm-code")}[name] == 1
    with pytest.raises(ManifestError, match=f"copy the part of models/llm.yaml:{line - 2} about {name}"):
        plan_add(tree, AddRequest(name="scribe", facts=facts("Qwen/Qwen3-1.7B"), like=name), Machine())


def test_a_second_engine_in_a_pod_is_listed_as_unknown() -> None:
    """The second engine starts and stops with the first one."""
    tree = platform(llm=TWO)
    assert [(workload.name, workload.home, workload.reason) for workload in tree.unknown()] == [
        ("llm-code/small", "models/llm.yaml", "small is a second engine in the pod of llm-code")
    ]
