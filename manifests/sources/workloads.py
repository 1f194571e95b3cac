"""Deployments, StatefulSets and other objects with a pod template: their first container that serves a model."""

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
    server = server_in(tree, located, spec)
    if server is None:
        return
    container, command, configs = server
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


def server_in(
    tree: Tree, located: Located, pod: Node | None
) -> tuple[MappingNode, Command, tuple[Located, ...]] | None:
    """The first container of a pod that names a model, with its command and ConfigMaps; otherwise a possible server."""
    possible_server = None
    for container in items(find(pod, "containers")):
        if not isinstance(container, MappingNode):
            continue
        context = surroundings(tree, located.document, pod, container)
        command = read(container, located.document, context.variables, context.files)
        if command is not None and command.model is not None:
            return container, command, context.configs
        if command is not None and possible_server is None:
            possible_server = container, command, context.configs
    return possible_server


def _pod_below(node: Node) -> Node | None:
    return next((mapping for mapping in mappings(node) if items(find(mapping, "containers"))), None)


SOURCE = EndpointSource("workloads", KINDS, candidates)
