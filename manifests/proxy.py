"""LiteLLM's namespace, its Deployment, and the Secret of its master key, if the repository contains them."""

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
    """LiteLLM in the cluster; an empty string means unknown."""

    namespace: str
    deployment: str = ""
    secret: str = ""
    field: str = ""


def proxy(platform: Snapshot) -> Proxy | None:
    """LiteLLM in the repository; None if there is no LiteLLM, or more than one."""
    proxies = list(dict.fromkeys((*_workloads(platform), *_releases(platform))))
    return proxies[0] if len(proxies) == 1 else None


def _workloads(platform: Snapshot) -> Iterator[Proxy]:
    for located in of_kind(platform, "Deployment"):
        for container in items(find(located.node, "spec", "template", "spec", "containers")):
            if "litellm" in value(container, "image").lower():
                secret, field = _secret(container)
                name = value(located.node, "metadata", "name")
                yield Proxy(namespace_of(platform, located, name), name, secret, field)


def _releases(platform: Snapshot) -> Iterator[Proxy]:
    for kind in ("HelmRelease", "Application"):
        for located in of_kind(platform, kind):
            charts_of_release = (
                [value(source, "chart") for source in charts.sources(located)] if kind == "Application" else []
            )
            charts_of_release.append(value(located.node, "spec", "chart", "spec", "chart"))
            values = list(mappings(find(located.node, "spec")))
            images = [value(mapping, "image", "repository") for mapping in values]
            if not any("litellm" in text.lower() for text in (*charts_of_release, *images)):
                continue
            secret = next(
                (_chart_secret(mapping) for mapping in values if find(mapping, "masterkeySecretName") is not None),
                ("", ""),
            )
            secret = (
                secret if secret[0] else next((mapping for mapping in map(_secret, values) if mapping[0]), ("", ""))
            )
            name = value(located.node, "metadata", "name")
            namespace = charts.namespace(kind, located) or namespace_of(platform, located, name)
            yield Proxy(namespace, "", *secret)


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
