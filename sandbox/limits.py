"""A sentence that lists the parts of a repository that the sandbox does not simulate."""

from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.charts import is_chart
from sandbox.known_charts import known_chart
from sandbox.objects import Object
from sandbox.rendering import UNUSUAL, documents

_SHOWN = 6
_PODS = ("StatefulSet", "DaemonSet", "LeaderWorkerSet", "RayService", "RayCluster")
_OPERATORS = ("Model", "InferencePool", "NIMService", "Workspace", "DynamoGraphDeployment")
"""Kinds of operators that start model servers: KubeAI and Ollama, llm-d, NVIDIA NIM and Dynamo, KAITO."""


def unsimulated(files: Mapping[str, str]) -> str:
    """Return the sentence; empty if everything is simulated."""
    parts = list(dict.fromkeys(_parts(files)))
    if not parts:
        return ""
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"The sandbox does not simulate {', '.join(parts[:_SHOWN])}{more}: the objects that they would create do not exist here."


def _parts(files: Mapping[str, str]) -> Iterator[str]:
    for path, text in sorted(files.items()):
        if not path.endswith((".yaml", ".yml")) or "kind:" not in text or "{{" in text.partition("kind:")[0]:
            continue
        try:
            for manifest in documents(text):
                yield from _part(manifest, files)
        except UNUSUAL:
            continue


def _part(manifest: Object, files: Mapping[str, str]) -> Iterator[str]:
    kind, name, spec = manifest.get("kind"), (manifest.get("metadata") or {}).get("name"), manifest.get("spec") or {}
    if kind in _PODS or (
        kind in _OPERATORS and isinstance(spec, dict) and "kustomize" not in str(manifest["apiVersion"])
    ):
        yield f"{kind} {name}"
    elif kind == "HelmRelease" and known_chart(str(name), spec.get("values") or {}) is None:
        chart = str(((spec.get("chart") or {}).get("spec") or {}).get("chart") or "")
        yield from _chart(chart or str((spec.get("chartRef") or {}).get("name") or ""), files)
    elif kind == "Application":
        sources: list[Any] = [spec.get("source") or {}, *(spec.get("sources") or ())]
        for source in sources:
            helm = source.get("helm") or {}
            values = helm.get("valuesObject") or {}
            if source.get("chart") and known_chart(str(name), values) is None and "proxy_config" not in str(helm):
                yield from _chart(str(source["chart"]), files)
    elif kind == "Kustomization" and "kustomize.config" in str(manifest.get("apiVersion")):
        remote = [str(base) for base in manifest.get("resources") or () if "://" in str(base)]
        yield from (f"the remote base {base}" for base in remote)
        yield from (f"the chart {chart.get('name')}" for chart in manifest.get("helmCharts") or ())
    elif kind == "InferenceService" and "serving.kserve.io" not in str(manifest.get("apiVersion")):
        yield f"{kind} {name} of {manifest.get('apiVersion')}"


def _chart(name: str, files: Mapping[str, str]) -> Iterator[str]:
    if name and not is_chart(name.removeprefix("./"), files) and "litellm" not in name:
        yield f"the chart {name}"
