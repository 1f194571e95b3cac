"""Render the sources of an Application: directories, charts in git, and external charts."""

import hashlib
import json
import posixpath
import re
from itertools import pairwise
from typing import Any

from sandbox.charts import is_chart, own_chart
from sandbox.known_charts import known_chart
from sandbox.objects import BY_KIND, Object, copied, merge_patch
from sandbox.rendering import directory, known, load


def sources_of(app: Object) -> list[Object]:
    spec = app["spec"]
    return list(spec.get("sources") or [spec["source"]])


def render(app: Object, files: dict[str, str]) -> list[Object]:
    """Return the manifests that the Application's sources render to."""
    manifests: list[Object] = []
    for source in sources_of(app):
        path = posixpath.normpath(source.get("path", ".")).strip("/")
        if is_chart(path, files):
            helm = source.get("helm") or {}
            release = helm.get("releaseName") or app["metadata"]["name"]
            namespace = app["spec"]["destination"].get("namespace", "default")
            manifests += own_chart(path, files, _values(source, helm, files), release, namespace)
        elif "path" in source:
            recurse = bool((source.get("directory") or {}).get("recurse"))
            manifests += directory("" if path == "." else path, files, recurse=recurse)
        elif (helm := source.get("helm")) and source.get("chart"):
            manifests += _chart(app, source, helm, files)
    name, namespace = app["metadata"]["name"], app["spec"]["destination"].get("namespace", "default")
    rendered = [manifest for manifest in manifests if known(manifest)]
    for manifest in rendered:
        if BY_KIND[manifest["kind"]].namespaced:
            manifest["metadata"].setdefault("namespace", namespace)
        manifest["metadata"].setdefault("annotations", {})["argocd.argoproj.io/tracking-id"] = name
    return rendered


def values_path(source: Object, named: str) -> str:
    """Return the repository's path of a values file, which the source names below a `ref` or relative to the chart."""
    if named.startswith("$"):
        return named.partition("/")[2]
    return posixpath.normpath(posixpath.join(source.get("path", ""), named))


def _chart(app: Object, source: Object, helm: Object, files: dict[str, str]) -> list[Object]:
    """Render an external chart: a known chart, or LiteLLM's if it has that name, or its values have a `proxy_config`.

    The proxy's config becomes a ConfigMap, and the proxy's Deployment restarts when the config changes.
    """
    values = _values(source, helm, files)
    if (objects := known_chart(helm.get("releaseName") or app["metadata"]["name"], values)) is not None:
        return objects
    release = helm.get("releaseName") or source["chart"]
    proxy = _proxy_config(values)
    if not proxy and "litellm" not in str(source.get("chart")):
        return []
    config = json.dumps(proxy, indent=1)
    labels = {"app.kubernetes.io/name": release}
    template = {
        "metadata": {
            "labels": labels,
            "annotations": {"checksum/config": hashlib.sha256(config.encode()).hexdigest()},
        },
        "spec": {"containers": [{"name": release, "image": f"{source['chart']}:{source.get('targetRevision', '')}"}]},
    }
    spec = {"replicas": values.get("replicaCount", 1), "selector": {"matchLabels": labels}, "template": template}
    return [
        {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": f"{release}-config"},
            "data": {"config": config},
        },
        {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": release, "labels": labels}, "spec": spec},
    ]


def _values(source: Object, helm: Object, files: dict[str, str]) -> Object:
    """Return the values of a chart. Later sources override earlier ones: files, `values`, `valuesObject`, `parameters`."""
    values: Object = {}
    for file in helm.get("valueFiles") or ():
        merge_patch(values, copied(load(files.get(values_path(source, file), "")) or {}))
    merge_patch(values, copied(load(helm.get("values") or "") or {}))
    merge_patch(values, copied(helm.get("valuesObject") or {}))
    for parameter in helm.get("parameters") or ():
        _set(values, re.findall(r"[^.\[\]]+", parameter["name"]), parameter.get("value"))
    return values


def _set(values: Any, path: list[str], value: Any) -> None:
    """Like `helm --set`: a number in the path is an index of a list."""
    for step, following in pairwise([*path, ""]):
        fresh: Any = value if not following else [] if following.isdecimal() else {}
        if isinstance(values, list):
            index = int(step)
            values.extend([None] * (index + 1 - len(values)))
            values[index] = fresh if not following or values[index] is None else values[index]
            values = values[index]
        else:
            values[step] = fresh if not following or not isinstance(values.get(step), dict | list) else values[step]
            values = values[step]


def _proxy_config(values: Any) -> Object:
    """Return LiteLLM's configuration from any depth of a chart's values; {} if there is none."""
    if not isinstance(values, dict):
        return {}
    if isinstance(values.get("proxy_config"), dict):
        return dict(values["proxy_config"])
    return next((config for child in values.values() if (config := _proxy_config(child))), {})
