"""One sentence that lists the parts of a repository that the sandbox does not simulate."""

from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.charts import is_chart
from sandbox.known_charts import known_chart
from sandbox.objects import Object
from sandbox.rendering import UNUSUAL, documents

_SHOWN = 6
_PODS = ("StatefulSet", "DaemonSet", "LeaderWorkerSet", "RayService", "RayCluster")
_OPERATORS = ("Model", "InferencePool", "NIMService", "Workspace", "DynamoGraphDeployment")
"""Kinds of operators that start model servers: KubeAI and Ollama, llm-d, NVIDIA's NIM and Dynamo, KAITO."""


def unsimulated(files: Mapping[str, str]) -> str:
    """The sentence; empty if everything is simulated."""
    found = list(dict.fromkeys(_parts(files)))
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"The sandbox does not simulate {', '.join(found[:_SHOWN])}{more}: what they would start does not exist here."
    )


def _parts(files: Mapping[str, str]) -> Iterator[str]:
    for path, text in sorted(files.items()):
        if not path.endswith((".yaml", ".yml")) or "kind:" not in text or "{{" in text.partition("kind:")[0]:
            continue
        try:
            for each in documents(text):
                yield from _part(each, files)
        except UNUSUAL:
            continue


def _part(each: Object, files: Mapping[str, str]) -> Iterator[str]:
    kind, name, spec = each.get("kind"), (each.get("metadata") or {}).get("name"), each.get("spec") or {}
    if kind in _PODS or (kind in _OPERATORS and isinstance(spec, dict) and "kustomize" not in str(each["apiVersion"])):
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
    elif kind == "Kustomization" and "kustomize.config" in str(each.get("apiVersion")):
        remote = [str(one) for one in each.get("resources") or () if "://" in str(one)]
        yield from (f"the remote base {one}" for one in remote)
        yield from (f"the chart {one.get('name')}" for one in each.get("helmCharts") or ())
    elif kind == "InferenceService" and "serving.kserve.io" not in str(each.get("apiVersion")):
        yield f"{kind} {name} of {each.get('apiVersion')}"


def _chart(name: str, files: Mapping[str, str]) -> Iterator[str]:
    if name and not is_chart(name.removeprefix("./"), files) and "litellm" not in name:
        yield f"the chart {name}"
