"""The workloads of a repository that use a GPU, of every kind. A model that starts may share the GPU with them."""

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


def workloads_on_gpu(platform: Snapshot) -> Iterator[tuple[str, str, str]]:
    """The file, namespace and name of every workload that git keeps on a GPU, from a manifest or from a chart.

    A workload with zero replicas is left out. The namespace is "" if the repository does not define it.
    """
    gpu_resources = platform.layout.gpu_resources
    for kind in _WORKLOADS:
        for located in of_kind(platform, kind):
            name, pod = value(located.node, "metadata", "name"), find(located.node, "spec", "template", "spec")
            uses = bool(items(find(pod, "resourceClaims"))) or any(
                _uses_gpu(container, gpu_resources) for container in items(find(pod, "containers"))
            )
            if value(located.node, "spec", "replicas") != "0" and uses:
                yield located.document.path, namespace_of(platform, located, name), name
    for located in of_kind(platform, "HelmRelease"):
        values = find(located.node, "spec", "values")
        release = value(located.node, "spec", "releaseName") or value(located.node, "metadata", "name")
        for controller in _controllers(values, release):
            name, node = controller
            if value(node, "replicas") != "0" and any(
                _uses_gpu(container, gpu_resources) for container in mappings(node)
            ):
                namespace = charts.namespace("HelmRelease", located) or namespace_of(platform, located, release)
                yield located.document.path, namespace, name


def _controllers(values: Node | None, release: str) -> Iterator[tuple[str, Node]]:
    """The names and nodes of a chart's workloads: the controllers of the generic chart, otherwise one with the release's name."""
    if not isinstance(values, MappingNode):
        return
    controllers = [entry for entry in entries(find(values, "controllers")) if value(entry[1], "enabled") != "false"]
    for key, node in controllers:
        yield helm.object_name(release, str(key.value)) if len(controllers) > 1 else release, node
    if not controllers:
        yield release, values


def _uses_gpu(container: Node, gpu_resources: tuple[str, ...]) -> bool:
    claims = items(find(container, "resources", "claims"))
    return bool(claims or gpus(labels(find(container, "resources", "limits")), gpu_resources))


def namespace_of(platform: Snapshot, located: Located, name: str) -> str:
    """The namespace of an object, from the object, from the kustomizations that include it, or from its deployer."""
    path = located.document.path
    folder = posixpath.dirname(path)
    _, deployed_by = deployment(platform, name, folder or path, None)
    paths = deployed_by.paths if deployed_by is not None else ()
    deployed = next((path for path in paths if leads_to(platform, path, folder)), folder)
    kustomize_namespace = rendering(platform, folder, deployed).namespace
    own_namespace = value(located.node, "metadata", "namespace")
    return kustomize_namespace or own_namespace or (deployed_by.namespace if deployed_by is not None else "")
