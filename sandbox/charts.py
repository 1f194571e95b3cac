"""Charts in the repository, rendered by Helm's own library if it is installed.

The library has wheels only for Linux on x86-64. Without it, only `{{ .Values.… }}`, `.Release.Name`, `with` and `if`
are supported in templates.
"""

import importlib
import importlib.util
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sandbox.objects import Object, copied, merge_patch
from sandbox.rendering import RenderError, documents, load

_HELM = "helm_python"


def is_chart(path: str, files: Mapping[str, str]) -> bool:
    return f"{path}/Chart.yaml" in files


def own_chart(path: str, files: Mapping[str, str], values: Object, release: str, namespace: str) -> list[Object]:
    """Return the objects of a chart, without Helm's hooks; `values` override the chart's own values."""
    sources = tuple(sorted((name, text) for name, text in files.items() if name.startswith(f"{path}/")))
    values_json = json.dumps(values, sort_keys=True, default=str)
    render = _by_helm if importlib.util.find_spec(_HELM) else _by_hand
    manifests = [copied(manifest) for manifest in render(path, sources, values_json, release, namespace)]
    return [
        manifest
        for manifest in manifests
        if "helm.sh/hook" not in (manifest.get("metadata") or {}).get("annotations", {})
    ]


@lru_cache(maxsize=64)
def _by_helm(
    path: str, files: tuple[tuple[str, str], ...], values: str, release: str, namespace: str
) -> tuple[Object, ...]:
    helm = importlib.import_module(_HELM)  # slow to import, and only needed for charts
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files:
            entry = tarfile.TarInfo(f"chart{name.removeprefix(path)}")
            entry.size = len(data := text.encode())
            archive.addfile(entry, io.BytesIO(data))
    try:
        with helm.Chart.load_archive(packed.getvalue()) as chart:
            rendered: dict[str, str] = chart.render(json.loads(values), name=release, namespace=namespace)
    except helm.HelmError as error:
        raise RenderError(f"helm template {path} failed: {error}") from error
    return tuple(
        manifest for name, text in sorted(rendered.items()) if not name.endswith(".txt") for manifest in documents(text)
    )


@lru_cache(maxsize=64)
def _by_hand(
    path: str, files: tuple[tuple[str, str], ...], values: str, release: str, _namespace: str
) -> tuple[Object, ...]:
    merged: Object = load(dict(files).get(f"{path}/values.yaml", "")) or {}
    merged = copied(merged)
    merge_patch(merged, json.loads(values))
    manifests: list[Object] = []
    for name, template in files:
        if name.startswith(f"{path}/templates/") and name.endswith((".yaml", ".yml")):
            manifests += documents(_substitute(template, {"Values": merged, "Release": {"Name": release}}))
    return tuple(manifests)


_BLOCK = re.compile(r"\n?[ \t]*\{\{-? *(?:with|if) \.([\w.]+) *-?\}\}(.*?)\n?[ \t]*\{\{-? *end *-?\}\}", re.DOTALL)
_VALUE = re.compile(r"\{\{-? *(\.[\w.]*)(?: *\| *(quote|toYaml))? *-?\}\}")


def _substitute(template: str, scope: Object) -> str:
    def block(match: re.Match[str]) -> str:
        subject = _at(scope, match[1])
        return _VALUE.sub(_writer({**scope, "": subject}), match[2]) if subject else ""

    return _VALUE.sub(_writer(scope), _BLOCK.sub(block, template))


def _writer(scope: Object) -> Callable[[re.Match[str]], str]:
    def write(match: re.Match[str]) -> str:
        content = _at(scope, match[1][1:])
        return json.dumps(str(content)) if match[2] == "quote" else str("" if content is None else content)

    return write


def _at(scope: Any, path: str) -> Any:
    for part in path.split(".") if path else [""]:
        scope = scope.get(part) if isinstance(scope, dict) else None
    return scope
