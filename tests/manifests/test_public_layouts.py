"""More patterns of public repositories: shared objects, places of weights, and scalers of models."""

import pytest

from manifests.platform import Platform
from manifests.survey import survey
from tests.manifests.test_platforms import facts
from tests.manifests.test_public_forms import DEPLOYMENT, platform, rules, swapped

FETCHED = """\
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: served, namespace: llm}
    data:
      MODEL_ID: Qwen/Qwen2.5-3B-Instruct-GPTQ-Int4
      MODEL_PATH: /weights/model
      NAME: qwen2.5-3b-instruct
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: vllm, namespace: llm}
    spec:
      selector: {matchLabels: {app: vllm}}
      template:
        metadata: {labels: {app: vllm}}
        spec:
          initContainers:
            - name: fetch
              image: python:3.12-slim
              command: [sh, -c]
              args:
                - >-
                  pip install huggingface_hub && python -c 'import os; from huggingface_hub import snapshot_download;
                  snapshot_download(os.environ["MODEL_ID"], local_dir=os.environ["MODEL_PATH"])'
              envFrom: [{configMapRef: {name: served}}]
          containers:
            - name: vllm
              image: vllm/vllm-openai:v0.11.0
              args: [$(MODEL_PATH), --served-model-name, $(NAME), --quantization, gptq, --max-model-len, "2048"]
              envFrom: [{configMapRef: {name: served}}]
              resources: {limits: {nvidia.com/gpu: 1, memory: 24Gi}}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: vllm, namespace: llm}
    spec: {selector: {app: vllm}, ports: [{port: 8000}]}
"""


def test_the_model_is_the_one_downloaded_to_the_engines_path() -> None:
    before = platform(apps__vllm=FETCHED)
    assert before.require("vllm").model.value == "/weights/model"
    assert rules(before) == []  # the id contains gptq, but the path does not
    lines, _ = swapped(before, "vllm", facts("Qwen/Qwen3-4B-AWQ"))
    assert lines == [
        "-MODEL_ID: Qwen/Qwen2.5-3B-Instruct-GPTQ-Int4",
        "-MODEL_PATH: /weights/model",
        "+MODEL_ID: Qwen/Qwen3-4B-AWQ",
        "+MODEL_PATH: /weights/Qwen3-4B-AWQ",
        '-args: [$(MODEL_PATH), --served-model-name, $(NAME), --quantization, gptq, --max-model-len, "2048"]',
        '+args: [$(MODEL_PATH), --served-model-name, $(NAME), --quantization, awq_marlin, --max-model-len, "2048"]',
    ]


@pytest.mark.parametrize(
    ("model", "method", "expected"),
    [
        ("/models/coder", "awq", []),  # a directory may have any name
        ("acme/Coder-7B-AWQ", "compressed-tensors", []),
        ("acme/Coder-7B-AWQ", "gptq", ["quantization"]),
        ("acme/Coder-7B", "awq", ["quantization"]),
    ],
)
def test_the_format_is_read_from_a_models_name_and_not_from_a_path(
    model: str, method: str, expected: list[str]
) -> None:
    served = f"--model={model}\n                - --quantization={method}"
    assert rules(platform(apps__vllm=DEPLOYMENT.replace("--model=google/gemma-3-27b-it", served))) == expected


APPLICATION = """\
    apiVersion: argoproj.io/v1alpha1
    kind: Application
    metadata: {name: NAME, namespace: argocd}
    spec:
      source: {repoURL: https://example.com/cluster.git, targetRevision: master, path: PATH}
      destination: {server: https://kubernetes.default.svc, namespace: vllm}
"""


def test_the_branch_is_read_from_the_applications() -> None:
    root = APPLICATION.replace("NAME", "root").replace("PATH", "argocd")
    vllm = APPLICATION.replace("NAME", "vllm").replace("PATH", "apps")
    before = platform(apps__vllm=DEPLOYMENT, argocd__vllm=vllm, root=root)
    assert before.layout.branch == "master"
    assert rules(before) == []
    for branch in ("main", "HEAD"):  # then the Application with the other branch is wrong
        mixed = platform(apps__vllm=DEPLOYMENT, argocd__vllm=vllm, root=root.replace("master", branch))
        assert mixed.layout.branch == "main"
        assert "application-revision" in rules(mixed)


TWO = """\
    apiVersion: helm.toolkit.fluxcd.io/v2
    kind: HelmRelease
    metadata: {name: models, namespace: ai}
    spec:
      chartRef: {kind: OCIRepository, name: app-template}
      values:
        controllers:
          # Qwen3-8B GPTQ needs more memory while it loads (9.4 GiB of weights), so a GGUF is served.
          # Qwen3-8B leaves 2 GiB for the other one.
          chat:
            containers:
              app:
                image: {repository: ghcr.io/ggml-org/llama.cpp, tag: server-cuda}
                args:
                  - -hf
                  - unsloth/Qwen3-8B-GGUF:Q4_K_M
                  - --alias
                  - chat
                resources: {limits: {nvidia.com/gpu: 1}}
          # This one shares the card with Qwen3-8B.
          embed:
            containers:
              app:
                image: {repository: vllm/vllm-openai, tag: v0.14.0}
                command:
                  - vllm
                  - serve
                  - Qwen/Qwen3-Embedding-0.6B
                  - --runner=pooling
                  - --convert=embed
                  - --served-model-name=embed
                resources: {limits: {nvidia.com/gpu: 1}}
        service:
          chat: {controller: chat, ports: {http: {port: 8080}}}
          embed: {controller: embed, ports: {http: {port: 8000}}}
"""


def test_an_embedding_model_keeps_its_pooling_arguments() -> None:
    before = platform(apps__models=TWO)
    lines, _ = swapped(before, "models-embed", facts("BAAI/bge-m3", kind="embeddings", hidden_size=1024))
    assert lines == ["-- Qwen/Qwen3-Embedding-0.6B", "+- BAAI/bge-m3"]


def test_comments_about_another_endpoint_in_the_file_stay() -> None:
    """A comment about an unused format of the same model stays too."""
    before = platform(apps__models=TWO.replace("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-8B"))
    lines, _ = swapped(before, "models-embed", facts("BAAI/bge-m3", kind="embeddings", hidden_size=1024))
    assert lines == [
        "-# This one shares the card with Qwen3-8B.",
        "+# This one shares the card with bge-m3.",
        "-- Qwen/Qwen3-8B",
        "+- BAAI/bge-m3",
    ]
    gguf = {"unservable": "it holds GGUF files for llama.cpp only", "gguf": {"Qwen3-4B-Q4_K_M.gguf": 2_500_000_000}}
    lines, _ = swapped(platform(apps__models=TWO), "models-chat", facts("Qwen/Qwen3-4B-GGUF", **gguf))
    assert lines == [
        "-# Qwen3-8B leaves 2 GiB for the other one.",
        "+# Qwen3-4B leaves 2 GiB for the other one.",
        "-- unsloth/Qwen3-8B-GGUF:Q4_K_M",
        "+- Qwen/Qwen3-4B-GGUF:Q4_K_M",
    ]


CACHED = (
    DEPLOYMENT.replace("amd.com/gpu", "nvidia.com/gpu").replace(
        "              resources:",
        "              volumeMounts: [{name: cache, mountPath: /root/.cache}]\n              resources:",
    )
    + """\
    ---
    apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: cache, namespace: vllm}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 200Gi}}}
"""
).replace(
    "          containers:",
    "          volumes: [{name: cache, persistentVolumeClaim: {claimName: cache}}]\n          containers:",
)


def test_models_that_never_run_together_may_share_volume_and_service() -> None:
    """Only one of them runs at a time. A separate claim that nothing mounts shows that the name is a mistake."""
    parked = CACHED.partition("    ---\n")[0].replace("{name: vllm, namespace", "{name: speech, namespace")
    parked = parked.replace("{app: vllm}", "{app: vllm, model: speech}")
    assert rules(platform(apps__vllm=CACHED, apps__speech=parked)) == []
    alone = parked.replace("app: vllm,", "app: speech,")
    assert rules(platform(apps__vllm=CACHED, apps__speech=alone)) == ["service-missing"]
    speech = CACHED.rpartition("    ---\n")[2].replace("name: cache", "name: speech")
    assert "claim-shared" in rules(platform(apps__vllm=CACHED, apps__speech=f"{parked}    ---\n{speech}"))


def test_a_draft_model_is_removed_with_its_target_model() -> None:
    def serving(config: str) -> Platform:
        draft = f"--model=google/gemma-3-27b-it\n                - --speculative-config={config}"
        return platform(apps__vllm=DEPLOYMENT.replace("--model=google/gemma-3-27b-it", draft))

    drafts = '{"method":"eagle3","model":"acme/gemma-3-27b-eagle3"}'
    lines, warnings = swapped(serving(drafts), "vllm", facts("Qwen/Qwen3-4B"))
    assert f"-- --speculative-config={drafts}" in lines
    assert any("--speculative-config" in warning and "is removed" in warning for warning in warnings)
    lines, _ = swapped(serving('{"method":"ngram","num_speculative_tokens":4}'), "vllm", facts("Qwen/Qwen3-4B"))
    assert lines == ["-- --model=google/gemma-3-27b-it", "+- --model=Qwen/Qwen3-4B"]


OF_A_VOLUME = """\
    apiVersion: serving.kserve.io/v1alpha1
    kind: LLMInferenceService
    metadata: {name: chat, namespace: llm}
    spec:
      replicas: 0
      model: {uri: "pvc://models", name: chat}
      template:
        containers:
          - name: main
            image: vllm/vllm-openai:v0.28.0
            command: [python3, -m, vllm.entrypoints.openai.api_server]
            args:
              - --model=/mnt/models/Qwen3-8B
              - --max-model-len=16384
            resources: {limits: {nvidia.com/gpu: "1", memory: 24Gi}}
            volumeMounts: [{name: compiled, mountPath: /root/.cache/vllm}]
        volumes: [{name: compiled, persistentVolumeClaim: {claimName: compiled}}]
"""
CLAIMS = """\
    apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: NAME, namespace: llm}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: SIZE}}}
"""


def test_a_kserve_service_serves_one_directory_of_a_volume() -> None:
    """The other volume is a cache, so it does not grow with the weights."""
    claims = [
        CLAIMS.replace("NAME", name).replace("SIZE", size) for name, size in (("models", "200Gi"), ("compiled", "1Gi"))
    ]
    before = platform(kserve__chat=OF_A_VOLUME, kserve__claims="    ---\n".join(claims))
    assert rules(before) == []
    lines, warnings = swapped(before, "chat", facts("Qwen/Qwen3-4B"))
    assert lines == ["-- --model=/mnt/models/Qwen3-8B", "+- --model=/mnt/models/Qwen3-4B"]
    assert any("put the weights of Qwen/Qwen3-4B at /mnt/models/Qwen3-4B" in warning for warning in warnings)


def test_another_engine_of_an_llm_inference_service_is_unknown() -> None:
    """This is true even if one of its arguments has the name of an argument of TEI."""
    unknown_engine = OF_A_VOLUME.replace("vllm/vllm-openai:v0.28.0", "ghcr.io/acme/fast:1.0")
    unknown_engine = unknown_engine.replace("[python3, -m, vllm.entrypoints.openai.api_server]", "[fast-serve]")
    unknown_engine = unknown_engine.replace("--model=/mnt/models/Qwen3-8B", "--model-id=chat")
    repository = platform(kserve__chat=unknown_engine)
    assert [(workload.name, workload.reason) for workload in repository.unknown()] == [
        ("chat", "its engine is the image ghcr.io/acme/fast:1.0, which Stoker does not change")
    ]
    assert not repository.endpoints()


SERVICE = """\
    apiVersion: serving.kserve.io/v1beta1
    kind: InferenceService
    metadata: {name: chat, namespace: llm}
    spec:
      predictor:
        minReplicas: 0
        containers:
          - name: vllm
            image: vllm/vllm-openai:v0.11.0
            args: [--model=Qwen/Qwen3-8B]
            resources: {limits: {nvidia.com/gpu: 1}}
"""
GENERATED = """\
    kind: Kustomization
    configMapGenerator:
      - name: inferenceservice-config
        behavior: merge
        literals:
          - deploy={"defaultDeploymentMode":"MODE"}
"""
VALUES = """\
    kserve:
      controller:
        deploymentMode: MODE
"""


@pytest.mark.parametrize("config", [GENERATED, VALUES])
def test_knative_scales_a_service_if_kserve_is_configured_for_it(config: str) -> None:
    def starts(mode: str, service: str = SERVICE) -> str:
        return survey(platform(kserve__chat=service, kserve__config=config.replace("MODE", mode))).starts["chat"]

    assert "not by Stoker" in starts("Serverless")
    assert "not by Stoker" in starts("Knative")
    assert "through the API" in starts("RawDeployment")
    own_service = SERVICE.replace(
        "namespace: llm}", 'namespace: llm, annotations: {serving.kserve.io/deploymentMode: "RawDeployment"}}'
    )
    assert "through the API" in starts("Serverless", own_service)
