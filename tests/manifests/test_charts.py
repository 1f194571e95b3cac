"""Charts: the repository's own, vLLM's, generic charts, and charts of engines that are listed and not changed."""

import pytest

from manifests.contract import Layout, check, read_endpoints
from manifests.edit import Document
from manifests.fitting import fitted_layout
from manifests.platform import Platform
from manifests.replicas import with_replicas
from manifests.sizing import Machine, ModelFacts
from manifests.sources.templates import Place, Release, render
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Files, ManifestError

FACTS = ModelFacts(
    hf_id="Qwen/Qwen3-4B-AWQ", revision="0" * 40, kind="chat", weight_bytes=2_600_000_000, layers=36, kv_heads=8,
    head_size=128, max_context=40960, quantization="awq",
)  # fmt: skip


def application(name: str, path: str, helm: str = "") -> str:
    return f"""apiVersion: argoproj.io/v1alpha1
kind: Application
metadata:
  name: {name}
  namespace: argocd
spec:
  source:
    repoURL: https://git.example.com/platform.git
    targetRevision: main
    path: {path}
{helm}  destination: {{server: https://kubernetes.default.svc, namespace: llm}}
  syncPolicy:
    automated: {{prune: true, selfHeal: true}}
"""


TEMPLATE = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "model.fullname" . }}
  labels:
    {{- include "model.labels" . | nindent 4 }}
spec:
  replicas: {{ .Values.replicaCount }}
  template:
    metadata:
      labels:
        {{- include "model.labels" . | nindent 8 }}
    spec:
      {{- with .Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .Chart.Name }}
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          args:
            - "--model"
            - {{ .Values.model.name | quote }}
            - --served-model-name={{ .Values.model.alias | default .Values.model.name }}
            {{- if .Values.model.context }}
            - --max-model-len={{ .Values.model.context }}
            {{- end }}
            - --enable-prefix-caching
            {{- range .Values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          resources:
            {{- toYaml .Values.resources | nindent 12 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "model.fullname" . }}-http
spec:
  ports: [{port: 8000}]
"""

VALUES = """replicaCount: 1
image: {repository: vllm/vllm-openai, tag: v0.11.0}
nodeSelector: {}
model:
  name: ""
  alias: ""
extraArgs: []
resources:
  limits: {nvidia.com/gpu: 1, memory: 24Gi}
"""

OWN_CHART = {
    "apps/coder.yaml": application("coder", "charts/model", "    helm: {valueFiles: [values.yaml, ../../values/coder.yaml]}\n"),
    "apps/chat.yaml": application(
        "chat", "charts/model",
        "    helm:\n      parameters:\n        - {name: model.name, value: Qwen/Qwen2.5-3B-Instruct}\n",
    ),
    "charts/model/Chart.yaml": "apiVersion: v2\nname: model\nversion: 0.1.0\n",
    "charts/model/values.yaml": VALUES,
    "charts/model/templates/deployment.yaml": TEMPLATE,
    "values/coder.yaml": """model:
  name: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ   # the best that fits
  alias: coder
  context: 16384
extraArgs:
  - --gpu-memory-utilization=0.85
""",
}  # fmt: skip


def open_platform(files: dict[str, str]) -> Platform:
    platform = Platform(Files(files), Layout())
    return platform.with_layout(fitted_layout(platform))


def listed(files: dict[str, str]) -> dict[str, tuple[str, str, int | None, int, str]]:
    endpoints = read_endpoints(open_platform(files))
    return {
        endpoint.name: (
            endpoint.hf_id,
            endpoint.served_name,
            endpoint.context,
            endpoint.gpus,
            f"{endpoint.namespace}/{endpoint.workload}",
        )
        for endpoint in endpoints
    }


def test_a_chart_in_the_repository_needs_no_field_map() -> None:
    """The templates refer to the values of a file, of `helm.parameters`, and the chart's defaults."""
    assert listed(OWN_CHART) == {
        "chat": ("Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-3B-Instruct", None, 1, "llm/chat-model"),
        "coder": ("Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "coder", 16384, 1, "llm/coder-model"),
    }
    platform = open_platform(OWN_CHART)
    assert check(platform, advice=True) == ()
    in_template = TEMPLATE.replace("{{- toYaml .Values.resources | nindent 12 }}", "limits: {nvidia.com/gpu: 2}")
    files = {**OWN_CHART, "charts/model/templates/deployment.yaml": in_template}
    files["charts/model/values.yaml"] = VALUES.partition("resources:")[0]
    assert [reading[3] for reading in listed(files).values()] == [2, 2]


def test_a_swap_in_a_chart_changes_values_and_no_template() -> None:
    """Only the model's line changes; the format and the length of the old model stay valid for the new one."""
    platform = open_platform(OWN_CHART)
    change = plan_swap(platform, SwapRequest(name="coder", facts=FACTS), Machine())
    lines = [
        line
        for line in change.changes.diff(platform).splitlines()
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert set(change.changes.files) == {"values/coder.yaml"}
    assert lines[0] == "-  name: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ   # the best that fits"
    assert lines[1].startswith("+  name: Qwen/Qwen3-4B-AWQ")
    assert len(lines) == 2
    after = platform.with_changes(change.changes)
    assert listed({path: after.read(path) or "" for path in OWN_CHART})["coder"][0] == "Qwen/Qwen3-4B-AWQ"


def test_a_model_in_the_parameters_of_an_application_is_changed_there() -> None:
    """The chart's default is empty, so the Application's parameter is used."""
    platform = open_platform(OWN_CHART)
    change = plan_swap(platform, SwapRequest(name="chat", facts=FACTS), Machine())
    assert "value: Qwen/Qwen3-4B-AWQ}" in (change.changes.files["apps/chat.yaml"] or "")
    assert set(change.changes.files) == {"apps/chat.yaml"}


def release(chart: str, values: str) -> dict[str, str]:
    indented = "".join(f"    {line}\n" for line in values.splitlines())
    return {
        "apps/vllm/release.yaml": (
            "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: vllm, namespace: llm}\nspec:\n"
            f"  chart:\n    spec:\n      chart: {chart}\n      sourceRef: {{kind: HelmRepository, name: charts}}\n"
            f"  values:\n{indented}"
        ),
    }


STACK = """servingEngineSpec:
  runtimeClassName: nvidia
  modelSpec:
    - name: small
      repository: vllm/vllm-openai
      tag: v0.10.0
      modelURL: Qwen/Qwen2.5-3B-Instruct
      replicaCount: 1
      requestGPU: 1
      vllmConfig:
        maxModelLen: 8192
        extraArgs: ["--gpu-memory-utilization", "0.8"]
"""


def test_vllms_own_chart_is_read_and_changed() -> None:
    """Each item of `modelSpec` is a model with its own Deployment, even if the list is below the key of an outer chart."""
    assert listed(release("vllm-stack", STACK)) == {
        "small": ("Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-3B-Instruct", 8192, 1, "llm/vllm-small-deployment-vllm")
    }
    platform = open_platform(release("vllm-stack", STACK))
    change = plan_swap(platform, SwapRequest(name="small", facts=FACTS), Machine())
    assert "modelURL: Qwen/Qwen3-4B-AWQ\n" in (change.changes.files["apps/vllm/release.yaml"] or "")
    outer = {
        "apps/vllm.yaml": application("prod", "charts/outer", "    helm:\n      releaseName: vllm\n      valueFiles: [../../values/vllm.yaml]\n"),
        "charts/outer/Chart.yaml": "apiVersion: v2\nname: outer\nversion: 0.1.0\ndependencies: [{name: vllm-stack, version: 0.1.7}]\n",
        "values/vllm.yaml": "vllm-stack:\n" + "".join(f"  {line}\n" for line in STACK.splitlines()),
    }  # fmt: skip
    assert listed(outer)["small"][4] == "llm/vllm-small-deployment-vllm"


GENERIC = """controllers:
  server:
    initContainers:
      pull: {image: {repository: IMAGE, tag: "1"}, command: [/bin/sh, -c, "ollama pull nomic-embed-text"]}
    containers:
      app:
        image: {repository: IMAGE, tag: "1"}
        ARGS
        resources: {limits: {nvidia.com/gpu: 1}}
"""


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (release("app-template", GENERIC.replace("IMAGE", "docker.io/ollama/ollama").replace("ARGS", "env: {TZ: UTC}")), "Ollama"),
        (release("ollama", "ollama: {gpu: {enabled: true}}\n"), "Ollama"),
        ({
            "apps/vllm.yaml": application("vllm", "charts/ollama"),
            "charts/ollama/Chart.yaml": "apiVersion: v2\nname: mine\nversion: 1.0.0\ndependencies: [{name: ollama, version: 1.2.0}]\n",
        }, "Ollama"),
    ],
)  # fmt: skip
def test_an_unsupported_engine_is_listed(files: dict[str, str], reason: str) -> None:
    """The engine is listed with the reason, whether it is an image, a chart, or part of a chart."""
    platform = open_platform(files)
    (workload,) = platform.unknown()
    assert (workload.name, reason in workload.reason) == ("vllm", True)
    assert listed(files) == {}


def test_two_engines_in_one_pod_are_one_endpoint() -> None:
    """The first container that names a model is used, and the Deployment is named after the release."""
    two = """controllers:
  vllm:
    containers:
      one: {image: {repository: ghcr.io/ggml-org/llama.cpp, tag: server}, args: [--model, /models/one-Q4_K_M.gguf]}
      two: {image: {repository: ghcr.io/ggml-org/llama.cpp, tag: server}, args: [--model, /models/two-Q4_K_M.gguf]}
"""
    endpoints = listed(release("app-template", two))
    assert {name: reading[4] for name, reading in endpoints.items()} == {"vllm": "llm/vllm"}
    assert endpoints["vllm"][0] == "/models/one-Q4_K_M.gguf"
    first = listed(release("app-template", two.replace("[--model, /models/one-Q4_K_M.gguf]", "[--port, 8081]")))
    assert first["vllm"][0] == "/models/two-Q4_K_M.gguf"


def test_a_device_claim_and_an_unknown_device_plugin_count_as_gpus() -> None:
    """The layout infers the resource name of the device plugin."""
    for resources in ("{claims: [{name: gpu}]}", "{limits: {squat.ai/dri: 1}}"):
        values = GENERIC.replace("IMAGE", "vllm/vllm-openai").replace("ARGS", "args: [--model, Qwen/Qwen3-4B]")
        files = release("app-template", values.replace("{limits: {nvidia.com/gpu: 1}}", resources))
        assert listed(files)["vllm"][3] == 1, resources


def test_a_template_renders_everything_that_determines_the_model() -> None:
    """Templates may use conditions, loops over a mapping, variables, defaults, and parts of the values as YAML."""
    document = Document(
        "values.yaml", "a: {b: one, off: false}\nmodels: {x: {id: m1}, y: {id: m2}}\nargs: [--p, '1']\n"
    )
    manifest = render(
        "{{- $top := .Values.a }}\n"
        "{{- range $name, $model := .Values.models }}\n- {{ $name }}: {{ $model.id }}\n{{- end }}\n"
        "{{- if and .Values.a.b (not .Values.a.off) }}\nyes: {{ $top.b | upper | quote }}\n{{- else }}\nno: 1\n{{- end }}\n"
        'missing: {{ .Values.none | default "d" }}\nname: {{ printf "%s-%s" .Release.Name .Values.a.b }}\n'
        "args:\n  {{- toYaml .Values.args | nindent 2 }}\n",
        Release("r", "n", "c", (Place(document, document.roots[0]),)),
    )
    text = "\n".join(line.partition(" #HELM")[0] for line in manifest.plain.splitlines() if line.strip())
    assert text == '- x: m1\n- y: m2\nyes: one\nmissing: d\nname: r-one\nargs:\n  - "--p"\n  - "1"'


ISVC = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: NAME, namespace: llm}
spec:
  predictor:
    minReplicas: 0
    containers:
      - name: engine
        image: IMAGE
        ARGS
        ports: [{containerPort: 8080}]
        resources: {limits: {nvidia.com/gpu: 1}}
"""


def test_a_container_of_an_inference_service_is_served_by_its_path() -> None:
    """KServe's vLLM uses the model's path as its served name. An alias of a server that Stoker does not change is valid."""
    coder = ISVC.replace("NAME", "coder").replace("IMAGE", "vllm/vllm-openai:v0.9.0")
    files = {
        "models/coder.yaml": coder.replace("ARGS", "args: [--model=/models/Qwen/Qwen2.5-Coder-7B-Instruct]"),
        "models/ears.yaml": ISVC.replace("NAME", "ears").replace("IMAGE", "example/ears:1").replace("ARGS", "env: []"),
        "litellm/config.yaml": """model_list:
  - model_name: coder
    litellm_params:
      model: openai//models/Qwen/Qwen2.5-Coder-7B-Instruct
      api_base: http://coder-predictor.llm.svc.cluster.local/v1
  - model_name: ears
    litellm_params: {model: whisper-1, api_base: "http://ears-predictor.llm.svc.cluster.local/v1"}
""",
    }
    platform = open_platform(files)
    assert check(platform, advice=True) == ()
    assert [workload.name for workload in platform.unknown()] == ["ears"]
    change = plan_swap(platform, SwapRequest(name="coder", facts=FACTS), Machine())
    assert "model: openai//models/Qwen/Qwen3-4B-AWQ\n" in (change.changes.files["litellm/config.yaml"] or "")


def test_an_image_with_weights_is_not_changed() -> None:
    """Another model in KServe's modelcar needs another image, and the name of that image is unknown."""
    isvc = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: coder, namespace: llm}\nspec:\n  predictor:\n    model:\n      modelFormat: {name: vLLM}\n      storageUri: oci://registry.example.com/models/qwen-coder-7b:1.0\n      resources: {limits: {nvidia.com/gpu: 1}}\n"  # fmt: skip
    platform = open_platform({"models/coder/isvc.yaml": isvc})
    assert [endpoint.hf_id for endpoint in read_endpoints(platform)] == [
        "oci://registry.example.com/models/qwen-coder-7b:1.0"
    ]
    with pytest.raises(ManifestError, match="contains its weights"):
        plan_swap(platform, SwapRequest(name="coder", facts=FACTS), Machine())


def test_a_gguf_file_for_vllm_needs_memory_for_its_own_size() -> None:
    """A quantized file is smaller than its number of parameters suggests, and a mapped file needs less memory than its size."""
    workload = """apiVersion: apps/v1
kind: Deployment
metadata: {name: vllm, namespace: llm}
spec:
  template:
    metadata: {labels: {app: vllm}}
    spec:
      containers:
        - name: vllm
          image: vllm/vllm-openai:v0.11.0
          args: [--model, /models/Qwen3.6-35B-A3B-Q4_K_M.gguf, --served-model-name, big]
          resources: {limits: {nvidia.com/gpu: 1, memory: 6Gi}}
---
apiVersion: v1
kind: Service
metadata: {name: vllm, namespace: llm}
spec: {selector: {app: vllm}, ports: [{port: 8000}]}
"""
    platform = open_platform({"apps/vllm/vllm.yaml": workload})
    assert check(platform, advice=True) == ()


def test_releases_with_shared_replicas_are_not_started_with_a_commit() -> None:
    """A change of the chart's default would start both models; a swap would change both."""
    shared = {path: text for path, text in OWN_CHART.items() if path != "values/coder.yaml"}
    shared |= {
        app_path: application(app_path[5:-5], "charts/model") for app_path in ("apps/coder.yaml", "apps/chat.yaml")
    }
    shared["charts/model/values.yaml"] = VALUES.replace('name: ""', "name: Qwen/Qwen3-8B")
    platform = open_platform(shared)
    with pytest.raises(ManifestError, match="sets the replicas of coder and of chat"):
        with_replicas(platform, "coder", 0)
    with pytest.raises(ManifestError, match="chat reads the same value as coder"):
        plan_swap(platform, SwapRequest(name="coder", facts=FACTS), Machine())
    alone = open_platform({path: text for path, text in shared.items() if path != "apps/chat.yaml"})
    assert set(with_replicas(alone, "coder", 0).files) == {"charts/model/values.yaml"}
