"""The workloads of a repository that use a GPU, of every kind: a model may share the GPU with them when it starts."""

import posixpath
from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node

from manifests.accelerators import gpus
from manifests.deployers import deployment
from manifests.edit import entries, find, items, value
from manifests.kustomize import leads_to, rendering
from manifests.objects import Located, mappings, of_kind
from manifests.pieces import labels
from manifests.snapshot import Snapshot
from manifests.sources import charts, helm

_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


def others(platform: Snapshot) -> Iterator[tuple[str, str, str]]:
    """File, namespace and name of every workload that git keeps on a GPU: one with replicas, of its manifest or of a
    chart. The namespace is empty if the repository does not define it.
    """
    more = platform.layout.gpu_resources
    for kind in _WORKLOADS:
        for each in of_kind(platform, kind):
            name, pod = value(each.node, "metadata", "name"), find(each.node, "spec", "template", "spec")
            uses = bool(items(find(pod, "resourceClaims"))) or any(
                _uses_gpu(one, more) for one in items(find(pod, "containers"))
            )
            if value(each.node, "spec", "replicas") != "0" and uses:
                yield each.document.path, namespace_of(platform, each, name), name
    for each in of_kind(platform, "HelmRelease"):
        values = find(each.node, "spec", "values")
        release = value(each.node, "spec", "releaseName") or value(each.node, "metadata", "name")
        for controller in _controllers(values, release):
            name, node = controller
            if value(node, "replicas") != "0" and any(_uses_gpu(one, more) for one in mappings(node)):
                namespace = charts.namespace("HelmRelease", each) or namespace_of(platform, each, release)
                yield each.document.path, namespace, name


def _controllers(values: Node | None, release: str) -> Iterator[tuple[str, Node]]:
    """The workloads of a chart: those of the generic chart by their names, otherwise one with the release's name."""
    if not isinstance(values, MappingNode):
        return
    found = [entry for entry in entries(find(values, "controllers")) if value(entry[1], "enabled") != "false"]
    for key, node in found:
        yield helm.object_name(release, str(key.value)) if len(found) > 1 else release, node
    if not found:
        yield release, values


def _uses_gpu(container: Node, more: tuple[str, ...]) -> bool:
    claims = items(find(container, "resources", "claims"))
    return bool(claims or gpus(labels(find(container, "resources", "limits")), more))


def namespace_of(platform: Snapshot, located: Located, name: str) -> str:
    """The namespace of an object: its own, that of the kustomizations that include it, or that of its deployer."""
    path = located.document.path
    folder = posixpath.dirname(path)
    _, found = deployment(platform, name, folder or path, None)
    paths = found.paths if found is not None else ()
    deployed = next((each for each in paths if leads_to(platform, each, folder)), folder)
    given = rendering(platform, folder, deployed).namespace
    own = value(located.node, "metadata", "namespace")
    return given or own or (found.namespace if found is not None else "")
