"""Charts of the repository that create a KServe service, and the template parts that they share."""

import pytest

from manifests.change import Change
from manifests.contract import check, read_endpoints
from manifests.replicas import scaled_by
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ManifestError
from tests.manifests.test_charts import FACTS, application, listed, open_platform

SERVICE = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {{ .Values.model.name }}
spec:
  predictor:
    model:
      modelFormat: {name: huggingface}
      runtime: {{ include "model.fullname" . }}-vllm
      args:
        - --task={{ .Values.model.task }}
      resources:
        limits:
          {{- toYaml .Values.resources.limits | nindent 10 }}
          {{- include "model.cards" . | nindent 10 }}
"""
RUNTIME = """apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: {{ include "model.fullname" . }}-vllm
spec:
  containers:
    - name: kserve-container
      image: {{ include "model.image" . }}
      args:
        - --model=$(MODEL_ID)
        - --served-model-name={{ .Values.model.name }}
        {{- range .Values.vllm.args }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: MODEL_ID
          value: {{ .Values.model.id | quote }}
"""
PARTS = """{{/* What the templates share */}}
{{- define "model.image" -}}
{{- .Values.vllm.image -}}
{{- end }}
{{- define "model.cards" -}}
{{- if .Values.gpu.enabled }}
{{ .Values.gpu.resource }}: {{ .Values.gpu.count }}
{{- end }}
{{- end }}
"""
SERVED = {
    "apps/chat.yaml": application("chat", "charts/model", "    helm: {valueFiles: [values-gpu.yaml]}\n"),
    "charts/model/Chart.yaml": "apiVersion: v2\nname: model\nversion: 0.1.0\n",
    "charts/model/templates/_parts.tpl": PARTS,
    "charts/model/templates/service.yaml": SERVICE,
    "charts/model/templates/runtime.yaml": RUNTIME,
    "charts/model/values.yaml": """model: {name: none, id: none, task: generate}
resources: {limits: {cpu: "2", memory: 8Gi}}
gpu: {enabled: false, count: 1, resource: nvidia.com/gpu}
vllm: {image: vllm/vllm-openai:v0.11.0, args: []}
""",
    "charts/model/values-gpu.yaml": """model:
  name: chat
  # These fit as well:
  #   - Qwen/Qwen2.5-3B-Instruct (fp16, ~6 GB)
  #   - example/small-1B (~2 GB)
  id: Qwen/Qwen2.5-3B-Instruct
gpu: {enabled: true}
vllm:
  args:
    - --max-model-len=4096
    - --enforce-eager  # saves ~500MB on a small card
""",
}
UNDER_KNATIVE = {"kserve.yaml": "kserve: {controller: {}}\n    deploymentMode: Serverless\n"}


def changed_lines(before: dict[str, str], change: Change) -> list[str]:
    diff = change.changes.diff(open_platform(before)).splitlines()
    return [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_a_chart_that_creates_a_kserve_service_is_read() -> None:
    """The arguments come from its own runtime; the GPU, the image and the names come from parts of the chart."""
    expected = ("Qwen/Qwen2.5-3B-Instruct", "chat", 4096, 1, "llm/chat-predictor")
    assert listed(SERVED) == {"chat": expected}
    assert check(open_platform(SERVED), advice=True) == ()
    assert scaled_by(open_platform(SERVED), "chat") == ""
    assert scaled_by(open_platform(SERVED | UNDER_KNATIVE), "chat") == "KServe's autoscaler (kserve.yaml:2)"


@pytest.mark.parametrize(
    ("uri", "key"), [("hf://{{ .Values.model.id }}", "id: "), ("{{ .Values.model.uri }}", "uri: hf://")]
)
def test_kserve_may_choose_the_engine_of_a_chart(uri: str, key: str) -> None:
    """Without a runtime in the chart, the format names the engine."""
    service = SERVICE.replace('runtime: {{ include "model.fullname" . }}-vllm', f'storageUri: "{uri}"')
    values = SERVED["charts/model/values-gpu.yaml"].replace(
        "  name: chat\n", "  name: chat\n  uri: hf://Qwen/Qwen2.5-3B-Instruct\n"
    )
    files = {**SERVED, "charts/model/templates/service.yaml": service, "charts/model/values-gpu.yaml": values}
    del files["charts/model/templates/runtime.yaml"]
    assert listed(files)["chat"][0] == "Qwen/Qwen2.5-3B-Instruct"
    swap = plan_swap(open_platform(files), SwapRequest(name="chat", facts=FACTS), Machine())
    assert f"+  {key}Qwen/Qwen3-4B-AWQ" in changed_lines(files, swap)


def test_a_swap_in_such_a_chart_keeps_the_service_name_and_lists_of_models() -> None:
    swap = plan_swap(open_platform(SERVED), SwapRequest(name="chat", facts=FACTS), Machine())
    assert changed_lines(SERVED, swap) == [
        "-  id: Qwen/Qwen2.5-3B-Instruct",
        "+  id: Qwen/Qwen3-4B-AWQ",
    ]
    with pytest.raises(ManifestError, match="composes the served name chat"):
        plan_swap(open_platform(SERVED), SwapRequest(name="chat", facts=FACTS, served_name="coder"), Machine())


def test_a_limit_of_all_releases_of_a_chart_is_not_raised_for_one() -> None:
    large = FACTS.model_copy(update={"weight_bytes": 16_000_000_000, "quantization": "none"})
    with pytest.raises(ManifestError, match=r"write them for this release in charts/model/values-gpu\.yaml") as refused:
        plan_swap(open_platform(SERVED), SwapRequest(name="chat", facts=large), Machine())
    assert "charts/model/values.yaml sets the limits of every release" in str(refused.value)


def test_an_unreadable_service_in_a_chart_is_reported() -> None:
    values = SERVED["charts/model/values-gpu.yaml"].replace("  id: Qwen/Qwen2.5-3B-Instruct\n", "")
    template = RUNTIME.replace(
        "{{ .Values.model.id | quote }}", '{{ (lookup "v1" "ConfigMap" "llm" "model").data.id }}'
    )
    files = {**SERVED, "charts/model/values-gpu.yaml": values, "charts/model/templates/runtime.yaml": template}
    platform = open_platform(files)
    assert read_endpoints(platform) == ()
    assert [workload.reason for workload in platform.unknown()] == [
        "its engine is in the templates of charts/model, which Stoker does not change"
    ]
