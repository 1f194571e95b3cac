"""A template whose name is an ordinary word: the copy changes only the template's names, and no other occurrence of the word."""

import pytest

from tests.manifests.test_copies import copied, open_platform

POD = """\
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: llm, namespace: llm}
    spec:
      selector: {matchLabels: {app: llm}}
      template:
        metadata: {labels: {app: llm}}
        spec:
          serviceAccountName: llm
          priorityClassName: llm
          nodeSelector: {pool: llm}
          tolerations: [{key: dedicated, value: llm, effect: NoSchedule}]
          containers:
            - name: llm
              image: vllm/vllm-openai:v0.11.0
              args: [--model=Qwen/Qwen2.5-3B-Instruct]
              env:
                - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: llm, key: llm}}}
                - {name: MODE, valueFrom: {configMapKeyRef: {name: llm, key: mode}}}
              ports: [{name: llm, containerPort: 8000}]
              resources: {limits: {nvidia.com/gpu: 1}}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: llm, namespace: llm}
    spec: {selector: {app: llm}, ports: [{name: llm, port: 8000, targetPort: llm}]}
    ---
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: llm, namespace: llm}
    data: {mode: fast}
"""
APPLICATION = """\
    apiVersion: argoproj.io/v1alpha1
    kind: Application
    metadata: {name: llm, namespace: argocd}
    spec:
      project: llm
      source: {repoURL: https://git.example/x.git, path: models/llm, targetRevision: main}
      destination: {namespace: llm}
"""
NEIGHBOUR = APPLICATION.replace("{name: llm,", "{name: gateway,").replace("models/llm", "models/gateway")


def test_the_names_of_uncopied_objects_stay() -> None:
    """Nodes, classes, a project, a Secret and an account are not copied; the ConfigMap is."""
    files, _ = copied(open_platform({"argocd/llm.yaml": APPLICATION, "models/llm/all.yaml": POD}), "llm")
    copy = files["models/scribe/all.yaml"]
    for unchanged in (
        "serviceAccountName: llm", "priorityClassName: llm", "nodeSelector: {pool: llm}", "value: llm, effect",
        "secretKeyRef: {name: llm, key: llm}", "ports: [{name: llm, containerPort", "ports: [{name: llm, port: 8000, targetPort: llm}]",
    ):  # fmt: skip
        assert unchanged in copy
    assert "configMapKeyRef: {name: scribe, key: mode}" in copy
    assert copy.count("metadata: {name: scribe, namespace: scribe}") == 3
    assert "project: llm" in files["argocd/scribe.yaml"]


def test_a_namespace_with_other_endpoints_is_kept() -> None:
    sources = {"argocd/llm.yaml": APPLICATION, "argocd/gateway.yaml": NEIGHBOUR, "models/llm/all.yaml": POD}
    files, _ = copied(open_platform(sources), "llm")
    assert "destination: {namespace: llm}" in files["argocd/scribe.yaml"]
    assert files["models/scribe/all.yaml"].count("metadata: {name: scribe, namespace: llm}") == 3


def test_a_branch_and_kserves_container_keep_their_names() -> None:
    service = """\
        apiVersion: serving.kserve.io/v1alpha1
        kind: LLMInferenceService
        metadata: {name: main, namespace: llm}
        spec:
          replicas: 0
          model: {uri: hf://Qwen/Qwen2.5-3B-Instruct, name: qwen}
          template: {containers: [{name: main, resources: {limits: {nvidia.com/gpu: 1}}}]}
    """
    application = APPLICATION.replace("name: llm", "name: main").replace("models/llm", "models/main")
    files, _ = copied(open_platform({"argocd/main.yaml": application, "models/main/service.yaml": service}), "main")
    assert "containers: [{name: main," in files["models/scribe/service.yaml"]
    assert "targetRevision: main" in files["argocd/scribe.yaml"]


@pytest.mark.parametrize("head", ["apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n", ""])
def test_a_copy_gets_its_own_generated_config_map(head: str) -> None:
    listing = f"{head}resources: [all.yaml]\nconfigMapGenerator: [{{name: llm, literals: [mode=fast]}}]\n"
    pod = POD.rpartition("    ---\n")[0]
    sources = {"argocd/llm.yaml": APPLICATION, "models/llm/all.yaml": pod, "models/llm/kustomization.yaml": listing}
    files, _ = copied(open_platform(sources), "llm")
    assert "configMapKeyRef: {name: scribe, key: mode}" in files["models/scribe/all.yaml"]
    assert "configMapGenerator: [{name: scribe," in files["models/scribe/kustomization.yaml"]
