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
            value(each.node, "metadata", "name"),
            each,
            (posixpath.normpath(value(each.node, "spec", "path").lstrip("/") or "."),),
            value(each.node, "spec", "targetNamespace"),
        )
        for each in of_kind(tree, "Kustomization")
        if value(each.node, "apiVersion").startswith(_GROUP)
    )


def namespace_of(tree: Tree, path: str, node: Node, below: tuple[str, ...] = ()) -> str:
    """Return the namespace of a Kustomization of Flux in the cluster, as Flux and kustomize determine it; "" if nothing sets it.

    `targetNamespace` of the Kustomization that applies it comes first, then the outermost kustomization that includes its
    file, then its own, then the namespace of the one that applies it. `below` are those that were followed already.
    """
    name = value(node, "metadata", "name")
    others = [reconciler for reconciler in reconcilers(tree) if reconciler.name not in (name, *below)]
    parent = max(
        (other for other in others if other.paths == (".",) or within(path, other.paths[0])),
        key=lambda each: len(each.paths[0]),
        default=None,
    )
    target = parent.namespace if parent else ""
    said = target or _given(tree, path, parent.paths[0] if parent else ".") or value(node, "metadata", "namespace")
    if said or parent is None:
        return said
    return namespace_of(tree, parent.located.document.path, parent.located.node, (name, *below))


def _given(tree: Tree, path: str, top: str) -> str:
    """Return the `namespace` of the outermost kustomization that includes a file, up to the directory that Flux applies."""
    given, listing, folder = "", "", posixpath.dirname(path)
    while True:
        found = read(tree, folder)
        listed = items(find(found.roots[0], "resources")) if found is not None else ()
        if any(posixpath.normpath(posixpath.join(folder, value(each))) == path for each in listed):
            listing = folder
        if found is not None and listing and (listing == folder or leads_to(tree, folder, listing)):
            given = value(found.roots[0], "namespace") or given
        if folder in ("", top):
            return given
        folder = posixpath.dirname(folder)


class Flux:
    """Kustomizations: the one with the longest path above the endpoint, otherwise one that leads to it."""

    name = NAME

    def deployment(self, platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Deployment | None:
        if fields is not None:  # the map names the application
            return None
        found = reconcilers(platform)
        folder = posixpath.dirname(home) if platform.read(home) is not None else home
        above = [each for each in found if each.paths == (".",) or within(home, each.paths[0])]
        leading = [each for each in found if leads_to(platform, each.paths[0], folder)]
        exact = [each for each in above if each.paths != (".",)]
        return max(exact or leading or above, key=lambda each: len(each.paths[0]), default=None)

    def patches(self, tree: Tree, deployment: Deployment, subject: patches.Subject) -> tuple[Opaque, ...]:
        return patches.flux_patches(tree, deployment.located.document.path, deployment.name, subject)


DEPLOYER = Flux()
