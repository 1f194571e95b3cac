"""The sandbox renders a repository's charts like Helm, with an Application's values."""

from typing import Any

import pytest

from sandbox.application_sources import render
from sandbox.rendering import RenderError

pytest.importorskip("helm_python", reason="Helm's library has wheels for Linux on x86-64 alone")

HELPERS = '{{- define "llm.name" -}}{{ .Release.Name }}-{{ .Values.engine | default "vllm" }}{{- end -}}'
TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "llm.name" . }}
  namespace: {{ .Release.Namespace }}
spec:
  replicas: {{ required "replicas are missing" .Values.replicas }}
  template:
    spec:
      containers:
        - name: engine
          args:
            {{- range .Values.args }}
            - {{ . | quote }}
            {{- end }}
"""
HOOK = 'kind: Service\napiVersion: v1\nmetadata:\n  name: test\n  annotations: {"helm.sh/hook": test}\n'


def rendered(**helm: Any) -> list[dict[str, Any]]:
    files = {
        "charts/llm/Chart.yaml": "apiVersion: v2\nname: llm\nversion: 0.1.0\n",
        "charts/llm/values.yaml": "replicas: 0\nargs: []\n",
        "charts/llm/templates/_helpers.tpl": HELPERS,
        "charts/llm/templates/deployment.yaml": TEMPLATE,
        "charts/llm/templates/test.yaml": HOOK,
        "values/coder.yaml": "args: [--model=a/b]\n",
    }
    source = {"path": "charts/llm", "helm": {"valueFiles": ["../../values/coder.yaml"], **helm}}
    return render(
        {"metadata": {"name": "coder"}, "spec": {"source": source, "destination": {"namespace": "llm"}}}, files
    )


def test_a_chart_gets_every_kind_of_values() -> None:
    (deployment,) = rendered(values="engine: sglang\n", parameters=[{"name": "args[1]", "value": "--port=1"}])
    assert (deployment["metadata"]["name"], deployment["metadata"]["namespace"]) == ("coder-sglang", "llm")
    assert deployment["spec"]["replicas"] == 0
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"] == ["--model=a/b", "--port=1"]


def test_a_refusal_by_helm_fails_the_sync() -> None:
    with pytest.raises(RenderError, match=r"helm template charts/llm failed: .*replicas are missing"):
        rendered(parameters=[{"name": "replicas", "value": ""}])
