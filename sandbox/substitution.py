"""Flux's `postBuild`, which replaces variables in the rendered manifests (fluxcd.io/flux/components/kustomize).

The forms are `${VAR}`, `${VAR:-default}` and `${VAR:=default}`; `$${VAR}` becomes `${VAR}`. A variable without a value
becomes empty. The values of a Secret are not in git, so its variables are not replaced.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from sandbox.objects import Object
from sandbox.rendering import RenderError, documents

_VARIABLE = re.compile(r"\$?\$\{([A-Za-z_]\w*)(?::?[-=]((?:[^${}]|\$\{[^{}]*\})*))?\}")
_DISABLED = "kustomize.toolkit.fluxcd.io/substitute"


def substituted(kustomization: Object, manifests: list[Object], files: Mapping[str, str]) -> list[Object]:
    """Return the manifests with the values of a Kustomization's variables."""
    post = kustomization["spec"].get("postBuild")
    if not post:
        return manifests
    values: dict[str, str] = {}
    from_secrets = False
    for source in post.get("substituteFrom") or ():
        if source.get("kind") == "ConfigMap":
            values |= _config_map(str(source.get("name")), files)
        else:
            from_secrets = True
    values |= {key: str(value) for key, value in (post.get("substitute") or {}).items()}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(child) for key, child in value.items()}
        if isinstance(value, list):
            return [filled(child) for child in value]
        return _parse_value(_substitute(value, values, from_secrets), value) if isinstance(value, str) else value

    return [manifest if _is_disabled(manifest) else filled(manifest) for manifest in manifests]


def _substitute(text: str, values: Mapping[str, str], keep: bool) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if match[0].startswith("$$"):
            return match[0][1:]
        if name in values:
            return values[name]
        return _substitute(default, values, keep) if default is not None else match[0] if keep else ""

    return _VARIABLE.sub(value, text)


def _parse_value(text: str, template: str) -> Any:
    """Parse a value that replaced a whole scalar, so that `replicas: ${REPLICAS}` becomes a number."""
    if text == template or not re.fullmatch(r"-?\d+|true|false", text):
        return text
    return json.loads(text) if _VARIABLE.fullmatch(template) else text


def _is_disabled(manifest: Object) -> bool:
    meta = manifest.get("metadata") or {}
    return "disabled" in ((meta.get(key) or {}).get(_DISABLED) for key in ("labels", "annotations"))


def _config_map(name: str, files: Mapping[str, str]) -> dict[str, str]:
    for path, text in files.items():
        if path.endswith((".yaml", ".yml")) and "ConfigMap" in text and name in text:
            try:
                manifests = documents(text)
            except RenderError:
                continue
            for manifest in manifests:
                if manifest.get("kind") == "ConfigMap" and (manifest.get("metadata") or {}).get("name") == name:
                    return {key: str(value) for key, value in (manifest.get("data") or {}).items()}
    return {}
