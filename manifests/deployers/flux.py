"""Flux: find the Kustomization that reconciles a directory. Source: fluxcd.io/flux/components/kustomize/kustomizations."""

import posixpath

from ruamel.yaml.nodes import Node

from manifests import patches
from manifests.deployers.deployer import Deployment
from manifests.edit import find, items, value
from manifests.kustomize import Opaque, leads_to, read
from manifests.memory import remembered
from manifests.objects import of_kind
from manifests.snapshot import Snapshot
from manifests.sources.field_map import FieldMap
from manifests.tree import Tree, within

NAME = "Flux"
_GROUP = "kustomize.toolkit.fluxcd.io/"


@remembered
def reconcilers(tree: Tree) -> tuple[Deployment, ...]:
    """Every Kustomization of Flux in the repository."""
    return tuple(
        Deployment(
            NAME,
            value(kustomization.node, "metadata", "name"),
            kustomization,
            (posixpath.normpath(value(kustomization.node, "spec", "path").lstrip("/") or "."),),
            value(kustomization.node, "spec", "targetNamespace"),
        )
        for kustomization in of_kind(tree, "Kustomization")
        if value(kustomization.node, "apiVersion").startswith(_GROUP)
    )


def namespace_of(tree: Tree, path: str, node: Node, followed: tuple[str, ...] = ()) -> str:
    """The namespace of a Kustomization of Flux in the cluster; "" if nothing sets it.

    In order of precedence: `targetNamespace` of the Kustomization that applies it, the `namespace` of the outermost
    kustomization that includes its file, its own namespace, the namespace of the Kustomization that applies it.
    `followed` are the names of the Kustomizations that the search has already visited.
    """
    name = value(node, "metadata", "name")
    other_reconcilers = [reconciler for reconciler in reconcilers(tree) if reconciler.name not in (name, *followed)]
    parent = max(
        (candidate for candidate in other_reconcilers if candidate.paths == (".",) or within(path, candidate.paths[0])),
        key=lambda candidate: len(candidate.paths[0]),
        default=None,
    )
    target = parent.namespace if parent else ""
    namespace = (
        target
        or _kustomize_namespace(tree, path, parent.paths[0] if parent else ".")
        or value(node, "metadata", "namespace")
    )
    if namespace or parent is None:
        return namespace
    return namespace_of(tree, parent.located.document.path, parent.located.node, (name, *followed))


def _kustomize_namespace(tree: Tree, path: str, top: str) -> str:
    """The `namespace` of the outermost kustomization that includes a file, up to the directory that Flux applies."""
    namespace, listing, folder = "", "", posixpath.dirname(path)
    while True:
        kustomization = read(tree, folder)
        resources = items(find(kustomization.roots[0], "resources")) if kustomization is not None else ()
        if any(posixpath.normpath(posixpath.join(folder, value(resource))) == path for resource in resources):
            listing = folder
        if kustomization is not None and listing and (listing == folder or leads_to(tree, folder, listing)):
            namespace = value(kustomization.roots[0], "namespace") or namespace
        if folder in ("", top):
            return namespace
        folder = posixpath.dirname(folder)


class Flux:
    """Finds the Kustomization with the longest path above the endpoint, otherwise a Kustomization that refers to the endpoint."""

    name = NAME

    def deployment(self, platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Deployment | None:
        if fields is not None:  # the field map names the application
            return None
        all_reconcilers = reconcilers(platform)
        folder = posixpath.dirname(home) if platform.read(home) is not None else home
        above_endpoint = [
            reconciler
            for reconciler in all_reconcilers
            if reconciler.paths == (".",) or within(home, reconciler.paths[0])
        ]
        referring = [reconciler for reconciler in all_reconcilers if leads_to(platform, reconciler.paths[0], folder)]
        exact = [reconciler for reconciler in above_endpoint if reconciler.paths != (".",)]
        return max(exact or referring or above_endpoint, key=lambda reconciler: len(reconciler.paths[0]), default=None)

    def patches(self, tree: Tree, deployment: Deployment, subject: patches.Subject) -> tuple[Opaque, ...]:
        return patches.flux_patches(tree, deployment.located.document.path, deployment.name, subject)


DEPLOYER = Flux()
