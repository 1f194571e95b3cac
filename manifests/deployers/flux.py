"""Flux: which Kustomization reconciles a directory. Source: fluxcd.io/flux/components/kustomize/kustomizations."""

import posixpath

from manifests import patches
from manifests.deployers.deployer import Deployment
from manifests.edit import value
from manifests.kustomize import Opaque, leads_to
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


class Flux:
    """Kustomizations: the one with the longest path above the endpoint, otherwise one that leads to it."""

    name = NAME

    def deployment(self, platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Deployment | None:
        if fields is not None:  # the map names what deploys it
            return None
        found = reconcilers(platform)
        folder = posixpath.dirname(home) if platform.read(home) is not None else home
        above = [each for each in found if each.paths == (".",) or within(home, each.paths[0])]
        leading = [each for each in found if leads_to(platform, each.paths[0], folder)]
        exact = [each for each in above if each.paths != (".",)]
        return max(exact or leading or above, key=lambda each: len(each.paths[0]), default=None)

    def patches(self, tree: Tree, deployment: Deployment, subject: patches.Subject) -> tuple[Opaque, ...]:
        return patches.of_flux(tree, deployment.located.document.path, deployment.name, subject)


DEPLOYER = Flux()
