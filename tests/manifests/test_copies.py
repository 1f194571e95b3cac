"""Copies by `add` in the layouts of public repositories; `remove` undoes each copy to the byte."""

import textwrap

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import check, read_endpoint
from manifests.fitting import fitted_layout
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine
from manifests.tree import ChangeSet, Files, ManifestError, Overlay
from tests.manifests.test_platforms import facts
from tests.manifests.test_platforms import open_platform as platform_of

MODEL = facts("Qwen/Qwen3-4B")


def open_platform(files: dict[str, str]) -> Platform:
    tree = Files({path: textwrap.dedent(text) for path, text in files.items()})
    return Platform(tree, fitted_layout(Platform(tree, Layout())))


def problems(platform: Platform) -> list[tuple[str, str, str]]:
    """Return the findings without their lines, because a copy above a finding changes its line."""
    return [(finding.rule, finding.path, finding.message) for finding in check(platform, advice=True)]


def copied(before: Platform, like: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the files and the warnings of a copy; assert that it has no new findings, and that `remove` restores the original files."""
    change = plan_add(before, AddRequest(name="scribe", facts=MODEL, like=like), Machine())
    after = before.with_changes(change.changes)
    assert problems(after) == problems(before)
    assert read_endpoint(after, "scribe").hf_id == MODEL.hf_id
    back = plan_remove(after, "scribe").changes.files
    assert {path: text for path, text in back.items() if text != before.read(path)} == {}
    assert set(back) == set(change.changes.files)
    return {path: text or "" for path, text in change.changes.files.items()}, change.warnings


WORKLOAD = """\
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: coder
      namespace: NAMESPACE
      annotations:
        stoker.dev/lease: '{"holder": "U1"}'
        team: ide
    spec:
      selector: {matchLabels: {app: coder}}
      template:
        metadata: {labels: {app: coder}}
        spec:
          containers:
            - name: vllm
              image: vllm/vllm-openai:v0.11.0
              command: ["/bin/sh", "-c"]
              args:
                - |
                  vllm serve Qwen/Qwen2.5-3B-Instruct \\
                    --served-model-name qwen2.5-3b-instruct chat \\
                    --max-model-len 8192
              env:
                - name: HF_TOKEN
                  valueFrom: {secretKeyRef: {name: hf-token, key: token}}
              resources: {limits: {nvidia.com/gpu: 1}}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: coder-svc, namespace: NAMESPACE}
    spec:
      type: NodePort
      clusterIP: 10.0.0.7
      selector: {app: coder}
      ports:
        - nodePort: 30800
          port: 8000
"""
SHARED, ALONE = WORKLOAD.replace("NAMESPACE", "llm"), WORKLOAD.replace("NAMESPACE", "coder")


def test_a_copied_directory_of_an_application_set_needs_no_other_file() -> None:
    """The second served name, the lease, the port of the node and the address belong to the template and are not copied."""
    generated = """\
        apiVersion: argoproj.io/v1alpha1
        kind: ApplicationSet
        metadata: {name: models, namespace: argocd}
        spec:
          generators:
            - git: {directories: [{path: "models/*"}, {path: models/old, exclude: true}]}
          template:
            metadata: {name: "{{path.basename}}"}
            spec: {source: {path: "{{path}}"}, syncPolicy: {automated: {selfHeal: true}}}
    """
    namespace = "    apiVersion: v1\n    kind: Namespace\n    metadata: {name: coder}\n    ---\n"
    before = open_platform({"argocd/models.yaml": generated, "models/coder/all.yaml": namespace + ALONE})
    files, warnings = copied(before, "coder")
    assert set(files) == {"models/scribe/all.yaml"}
    copy = files["models/scribe/all.yaml"]
    assert "--served-model-name qwen3-4b \\\n" in copy
    assert "  replicas: 0\n" in copy
    assert "annotations:\n    team: ide\n" in copy
    assert "  type: NodePort\n  selector: {app: scribe}\n  ports:\n    - port: 8000\n" in copy
    assert copy.count("namespace: scribe") == 2
    assert not [word for word in ("coder", "chat", "stoker.dev", "30800", "10.0.0.7") if word in copy]
    assert "Create in the namespace scribe the Secrets that the copy reads: hf-token." in warnings


def test_a_directory_that_an_application_set_excludes_is_refused() -> None:
    generated = """\
        apiVersion: argoproj.io/v1alpha1
        kind: ApplicationSet
        metadata: {name: models, namespace: argocd}
        spec:
          generators:
            - git: {directories: [{path: "models/*"}, {path: models/scribe, exclude: true}]}
    """
    before = open_platform({"argocd/models.yaml": generated, "models/coder/all.yaml": ALONE})
    with pytest.raises(ManifestError, match="no Application deploys it"):
        copied(before, "coder")


def test_an_item_in_the_list_of_an_application_set_is_copied() -> None:
    generated = """\
        apiVersion: argoproj.io/v1alpha1
        kind: ApplicationSet
        metadata: {name: models, namespace: argocd}
        spec:
          generators:
            - list:
                elements:
                  - name: coder
                    path: models/coder
                  # of another team
                  - name: whisper
                    path: models/whisper
    """
    before = open_platform({"argocd/models.yaml": generated, "models/coder/all.yaml": SHARED})
    files, _ = copied(before, "coder")
    assert set(files) == {"argocd/models.yaml", "models/scribe/all.yaml"}
    assert (
        "          - name: coder\n            path: models/coder\n"
        "          - name: scribe\n            path: models/scribe\n          # of another team\n"
    ) in files["argocd/models.yaml"]


RELEASE = """\
    apiVersion: helm.toolkit.fluxcd.io/v2
    kind: HelmRelease
    metadata:
      name: &app vllm
    spec:
      chartRef: {kind: OCIRepository, name: vllm}
      values:
        controllers:
          vllm:
            strategy: Recreate
            containers:
              app:
                image: {repository: vllm/vllm-openai, tag: v0.11.0}
                args:
                  - --model=Qwen/Qwen2.5-3B-Instruct
                  - --max-model-len=8192
                env:
                  HF_TOKEN: {valueFrom: {secretKeyRef: {name: vllm-secret, key: token}}}
                resources: {limits: {nvidia.com/gpu: 1}}
        service:
          app:
            controller: vllm
            ports: {http: {port: 8000}}
        route:
          app: {hostnames: ["vllm-api.${DOMAIN}"]}
        persistence:
          cache: {existingClaim: vllm, globalMounts: [{path: /root/.cache/huggingface}]}
"""
HOME_OPS = {
    "kubernetes/apps/ai/kustomization.yaml": """\
        kind: Kustomization
        resources:
          - ./namespace.yaml
          - ./vllm/ks.yaml # the GPU
          - ./whisper/ks.yaml
    """,
    "kubernetes/apps/ai/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: ai}\n",
    "kubernetes/apps/ai/whisper/ks.yaml": """\
        apiVersion: kustomize.toolkit.fluxcd.io/v1
        kind: Kustomization
        metadata: {name: whisper, namespace: ai}
        spec: {path: ./kubernetes/apps/ai/whisper/app, targetNamespace: ai}
    """,
    "kubernetes/apps/ai/vllm/ks.yaml": """\
        apiVersion: kustomize.toolkit.fluxcd.io/v1
        kind: Kustomization
        metadata: {name: vllm, namespace: ai}
        spec: {path: ./kubernetes/apps/ai/vllm/app, targetNamespace: ai}
    """,
    "kubernetes/apps/ai/vllm/app/kustomization.yaml": "kind: Kustomization\nresources:\n  - ./helmrelease.yaml\n",
    "kubernetes/apps/ai/vllm/app/helmrelease.yaml": RELEASE,
}


def test_a_release_is_copied_with_its_kustomization_and_its_line() -> None:
    """Keys in the values stay, because they refer to each other; the copy shares a volume and a Secret that other objects define."""
    before = open_platform(HOME_OPS)
    files, warnings = copied(before, "vllm")
    app = "kubernetes/apps/ai/scribe/app"
    assert set(files) == {
        "kubernetes/apps/ai/kustomization.yaml", "kubernetes/apps/ai/scribe/ks.yaml", f"{app}/kustomization.yaml",
        f"{app}/helmrelease.yaml",
    }  # fmt: skip
    listing = files["kubernetes/apps/ai/kustomization.yaml"]
    assert "  - ./vllm/ks.yaml # the GPU\n  - ./scribe/ks.yaml\n  - ./whisper/ks.yaml\n" in listing
    assert "metadata: {name: scribe, namespace: ai}" in files["kubernetes/apps/ai/scribe/ks.yaml"]
    assert "path: ./kubernetes/apps/ai/scribe/app," in files["kubernetes/apps/ai/scribe/ks.yaml"]
    release = files[f"{app}/helmrelease.yaml"]
    assert "      vllm:\n        replicas: 0\n        strategy" in release
    assert "  name: &app scribe\n" in release
    assert "controller: vllm" in release
    assert "{kind: OCIRepository, name: vllm}" in release
    assert "name: vllm-secret" in release
    assert '["scribe-api.${DOMAIN}"]' in release
    assert "existingClaim: vllm" in release
    assert "The copy mounts volumes that its files do not create: vllm." in warnings


def test_a_component_creates_the_volume_of_the_copy() -> None:
    """The Kustomization's variables create a claim that is named after the app."""
    files = dict(HOME_OPS)
    files["kubernetes/apps/ai/vllm/ks.yaml"] = files["kubernetes/apps/ai/vllm/ks.yaml"].replace(
        "targetNamespace: ai}",
        "targetNamespace: ai, components: [../../../components/volsync], postBuild: {substitute: {APP: vllm}}}",
    )
    new_files, _ = copied(open_platform(files), "vllm")
    assert "{substitute: {APP: scribe}}" in new_files["kubernetes/apps/ai/scribe/ks.yaml"]
    assert "existingClaim: scribe" in new_files["kubernetes/apps/ai/scribe/app/helmrelease.yaml"]


def test_a_pod_with_a_second_engine_is_not_copied() -> None:
    second = """\
              small:
                image: {repository: ghcr.io/ggml-org/llama.cpp, tag: server}
                args: [--model, /models/small.gguf, --port, "8081"]
"""
    files = HOME_OPS | {
        "kubernetes/apps/ai/vllm/app/helmrelease.yaml": RELEASE.replace(
            "        service:\n", f"{second}        service:\n", 1
        )
    }
    with pytest.raises(ManifestError, match="its pod also runs another engine"):
        copied(open_platform(files), "vllm")
    with pytest.raises(ManifestError, match="another engine, which would be removed, too"):
        plan_remove(open_platform(files), "vllm")


def test_a_file_that_a_kustomization_lists_under_another_name_is_not_removed() -> None:
    """An overlay may refer to the file, so removing the line in the kustomization is not sufficient."""
    listing = "kind: Kustomization\nresources:\n  - deployment.yaml\n"
    before = open_platform(
        {"apps/x/deployment.yaml": SHARED, "apps/x/kustomization.yaml": listing, "apps/x/y/other.yaml": ALONE}
    )
    name = next(
        endpoint_name
        for endpoint_name in before.names()
        if before.require(endpoint_name).home == "apps/x/deployment.yaml"
    )
    with pytest.raises(ManifestError, match=r"apps/x/kustomization\.yaml:3 lists apps/x/deployment\.yaml"):
        plan_remove(before, name)


def test_a_file_with_its_companions_and_their_lines_is_copied() -> None:
    service = """\
        # Model: Qwen/Qwen2.5-3B-Instruct
        apiVersion: serving.kserve.io/v1beta1
        kind: InferenceService
        metadata: {name: coder, namespace: ai}
        spec:
          predictor:
            minReplicas: 1
            containers:
              - name: vllm
                image: vllm/vllm-openai:v0.11.0
                args: [--model=/models/Qwen/Qwen2.5-3B-Instruct, --max-model-len=8192]
                resources: {limits: {nvidia.com/gpu: 1}}
    """
    policy = """\
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: coder, namespace: ai}
        spec: {podSelector: {matchLabels: {serving.kserve.io/inferenceservice: coder}}}
    """
    listing = """\
        kind: Kustomization
        resources:
          - ./coder-inferenceservice.yaml  # the first
          - ./coder-networkpolicy.yaml
        patches:
          - target: {kind: Deployment, name: kserve-controller-manager}
            patch: |-
              - op: remove
                path: /spec/paused
    """
    lists = """\
        model_list:
          - model_name: coder
            litellm_params: {model: openai//models/Qwen/Qwen2.5-3B-Instruct, api_base: "http://coder-predictor.ai.svc/v1"}
    """
    files = {
        "apps/kserve/coder-inferenceservice.yaml": service,
        "apps/kserve/coder-networkpolicy.yaml": policy,
        "apps/kserve/fim.yaml": service.replace("coder", "fim"),
        "apps/kserve/kustomization.yaml": listing,
        "apps/litellm.yaml": lists,
    }
    before = open_platform(files)
    change = plan_add(before, AddRequest(name="scribe", facts=MODEL, like="coder"), Machine())
    after = before.with_changes(change.changes)
    new_files = change.changes.files
    assert set(new_files) == {path.replace("coder", "scribe") for path in files} - {"apps/kserve/fim.yaml"}
    assert "inferenceservice: scribe" in (new_files["apps/kserve/scribe-networkpolicy.yaml"] or "")
    assert "minReplicas: 0" in (new_files["apps/kserve/scribe-inferenceservice.yaml"] or "")
    assert '{model: openai//models/Qwen/Qwen3-4B, api_base: "http://scribe-predictor.ai.svc/v1"}' in (
        new_files["apps/litellm.yaml"] or ""
    )
    assert check(after, advice=True) == check(before, advice=True)
    assert {
        path: text for path, text in plan_remove(after, "scribe").changes.files.items() if text != before.read(path)
    } == {}


def test_an_application_with_a_file_of_values_is_copied() -> None:
    template = """\
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          name: {{ .Release.Name }}
        spec:
          replicas: {{ .Values.replicas }}
          template:
            spec:
              containers:
                - name: vllm
                  image: vllm/vllm-openai:v0.11.0
                  args:
                    - --model={{ .Values.model }}
                  resources: {limits: {nvidia.com/gpu: 1}}
    """
    application = """\
        apiVersion: argoproj.io/v1alpha1
        kind: Application
        metadata: {name: coder, namespace: argocd}
        spec:
          source:
            path: charts/llm
            helm: {valueFiles: [../../values/coder.yaml]}
          destination: {namespace: llm}
          syncPolicy: {automated: {selfHeal: true}}
    """
    chart = {
        "charts/llm/Chart.yaml": "apiVersion: v2\nname: llm\nversion: 0.1.0\n",
        "charts/llm/values.yaml": "replicas: 1\n",
        "charts/llm/templates/deployment.yaml": template,
        "apps/coder.yaml": application,
    }
    before = open_platform(chart | {"values/coder.yaml": "model: Qwen/Qwen2.5-3B-Instruct\nreplicas: 1\n"})
    files, _ = copied(before, "coder")
    assert set(files) == {"apps/scribe.yaml", "values/scribe.yaml"}
    assert "valueFiles: [../../values/scribe.yaml]" in files["apps/scribe.yaml"]
    assert files["values/scribe.yaml"] == "model: Qwen/Qwen3-4B\nreplicas: 0\n"
    before = open_platform(chart | {"values/coder.yaml": "model: Qwen/Qwen2.5-3B-Instruct\n"})
    with pytest.raises(ManifestError, match="so the copy would start immediately"):
        copied(before, "coder")


def test_a_copy_in_vllms_chart_is_another_item_of_its_list() -> None:
    release = """\
        apiVersion: helm.toolkit.fluxcd.io/v2
        kind: HelmRelease
        metadata: {name: vllm, namespace: ai}
        spec:
          chart: {spec: {chart: vllm-stack}}
          values:
            servingEngineSpec:
              modelSpec:
                # the only one so far
                - name: coder
                  modelURL: Qwen/Qwen2.5-3B-Instruct # 3B
                  replicaCount: 1
                  requestGPU: 1

                  vllmConfig:
                    maxModelLen: 8192
                    extraArgs: ["--max-num-seqs", "32"]
            routerSpec: {replicaCount: 1}
    """
    kustomization = """\
        apiVersion: kustomize.toolkit.fluxcd.io/v1
        kind: Kustomization
        metadata: {name: apps, namespace: flux-system}
        spec: {path: ./apps}
    """
    before = open_platform({"apps/vllm/helmrelease.yaml": release, "clusters/apps.yaml": kustomization})
    files, _ = copied(before, "coder")
    assert (
        files["apps/vllm/helmrelease.yaml"].partition('["--max-num-seqs", "32"]\n')[2]
        == textwrap.indent(
            textwrap.dedent("""\
            - name: scribe
              modelURL: Qwen/Qwen3-4B # 4B
              replicaCount: 0
              requestGPU: 1

              vllmConfig:
                maxModelLen: 8192
                extraArgs: ["--max-num-seqs", "32"]
        """),
            " " * 8,
            lambda line: bool(line.strip()),
        )
        + "    routerSpec: {replicaCount: 1}\n"
    )
    with pytest.raises(ManifestError, match="is the only item of its list"):
        plan_remove(before, "coder")


@pytest.mark.parametrize("head", ["apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n", ""])
def test_a_kustomization_lists_a_copy_also_without_its_kind(head: str) -> None:
    """kustomize needs neither `kind` nor `apiVersion`; a remaining line would break everything in its list."""
    tree, layout = platform_of("kserve-flux")
    path, text = "models/kustomization.yaml", f"{head}resources:\n  - ./qwen.yaml\n  - phi.yaml\n"
    before = Platform(Overlay(tree, ChangeSet(files={path: text})), layout)
    files, _ = copied(before, "qwen")
    assert files[path] == f"{head}resources:\n  - ./qwen.yaml\n  - ./scribe.yaml\n  - phi.yaml\n"
    removed = plan_remove(before, "phi").changes.files
    assert removed == {path: f"{head}resources:\n  - ./qwen.yaml\n", "models/phi.yaml": None}
