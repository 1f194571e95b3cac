"""LiteLLM's namespace, its Deployment, and the Secret of its master key, as far as the repository contains them."""

from collections.abc import Iterator
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node

from manifests.edit import find, items, value
from manifests.gpu_workloads import namespace_of
from manifests.objects import mappings, of_kind
from manifests.snapshot import Snapshot
from manifests.sources import charts

_KEYS = ("LITELLM_MASTER_KEY", "PROXY_MASTER_KEY")


class Proxy(NamedTuple):
    """LiteLLM in the cluster; empty strings are unknown."""

    namespace: str
    deployment: str = ""
    secret: str = ""
    field: str = ""


def proxy(platform: Snapshot) -> Proxy | None:
    """The one LiteLLM of the repository; None if there is none, or more than one."""
    found = list(dict.fromkeys((*_workloads(platform), *_releases(platform))))
    return found[0] if len(found) == 1 else None


def _workloads(platform: Snapshot) -> Iterator[Proxy]:
    for each in of_kind(platform, "Deployment"):
        for container in items(find(each.node, "spec", "template", "spec", "containers")):
            if "litellm" in value(container, "image").lower():
                secret, field = _secret(container)
                name = value(each.node, "metadata", "name")
                yield Proxy(namespace_of(platform, each, name), name, secret, field)


def _releases(platform: Snapshot) -> Iterator[Proxy]:
    for kind in ("HelmRelease", "Application"):
        for each in of_kind(platform, kind):
            named = [value(source, "chart") for source in charts.sources(each)] if kind == "Application" else []
            named.append(value(each.node, "spec", "chart", "spec", "chart"))
            values = list(mappings(find(each.node, "spec")))
            images = [value(one, "image", "repository") for one in values]
            if not any("litellm" in text.lower() for text in (*named, *images)):
                continue
            found = next(
                (_chart_secret(one) for one in values if find(one, "masterkeySecretName") is not None), ("", "")
            )
            found = found if found[0] else next((one for one in map(_secret, values) if one[0]), ("", ""))
            name = value(each.node, "metadata", "name")
            namespace = charts.namespace(kind, each) or namespace_of(platform, each, name)
            yield Proxy(namespace, "", *found)


def _chart_secret(values: MappingNode) -> tuple[str, str]:
    return value(values, "masterkeySecretName"), value(values, "masterkeySecretKey") or "masterkey"


def _secret(container: Node) -> tuple[str, str]:
    """The Secret and its key from which a container reads the master key."""
    for item in items(find(container, "env")):
        reference = find(item, "valueFrom", "secretKeyRef")
        if value(item, "name") in _KEYS and reference is not None:
            return value(reference, "name"), value(reference, "key")
    for key in _KEYS:
        reference = find(container, "env", key, "valueFrom", "secretKeyRef")
        if reference is not None:
            return value(reference, "name"), value(reference, "key")
    return "", ""
