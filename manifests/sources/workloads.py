"""Deployments, StatefulSets and other objects with a pod template: the first container that serves a model."""

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node

from manifests.arguments import Command, read
from manifests.edit import find, items, scalar, value
from manifests.objects import Located, mappings
from manifests.sources.candidate import Candidate
from manifests.sources.configmaps import surroundings
from manifests.sources.site import Site
from manifests.sources.source import EndpointSource
from manifests.tree import Tree

KINDS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Rollout", "LeaderWorkerSet"})


def candidates(tree: Tree, kind: str, located: Located) -> Iterator[Candidate]:
    spec = find(located.node, "spec", "template", "spec") or _pod_below(located.node)
    found = serving(tree, located, spec)
    if found is None:
        return
    container, command, configs = found
    replicas = scalar(located.node, "spec", "replicas")
    yield Candidate(
        kind=kind,
        name=value(located.node, "metadata", "name"),
        workload=located,
        subject=located.node,
        container=container,
        command=command,
        pod=spec,
        configs=configs,
        replicas=Site.whole(located.document, replicas) if replicas is not None else None,
    )


def serving(tree: Tree, located: Located, pod: Node | None) -> tuple[MappingNode, Command, tuple[Located, ...]] | None:
    """The first container of a pod that names a model, its command, and the ConfigMaps that it reads; otherwise one that may be a server."""
    second = None
    for container in items(find(pod, "containers")):
        if not isinstance(container, MappingNode):
            continue
        around = surroundings(tree, located.document, pod, container)
        command = read(container, located.document, around.variables, around.files)
        if command is not None and command.model is not None:
            return container, command, around.configs
        if command is not None and second is None:
            second = container, command, around.configs
    return second


def _pod_below(node: Node) -> Node | None:
    return next((mapping for mapping in mappings(node) if items(find(mapping, "containers"))), None)


SOURCE = EndpointSource("workloads", KINDS, candidates)
