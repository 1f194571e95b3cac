"""Which files an endpoint owns: the files that the contract names, and no other file in its directory.

These are its Deployment, its Service, its claims, its kustomization, objects with its name, and the files from which
its kustomization generates ConfigMaps.
"""

import posixpath
import re

from manifests.deployers.argocd import source_paths
from manifests.edit import find, items, scalars, value
from manifests.kustomize import FILES, leads_to
from manifests.pieces import Pieces, objects
from manifests.platform import Platform
from manifests.tree import Tree

# Kinds that run something or store data: an additional object of these kinds is not owned, even if it has the
# endpoint's name.
_OF_THEIR_OWN = frozenset(
    {
        "Application",
        "ApplicationSet",
        "CronJob",
        "DaemonSet",
        "Deployment",
        "HelmRelease",
        "Job",
        "Namespace",
        "Pod",
        "PersistentVolumeClaim",
        "Secret",
        "StatefulSet",
    }
)


def foreign(tree: Tree, pieces: Pieces) -> tuple[str, ...]:
    """The files in the endpoint's directory that it does not own."""
    return tuple(path for path in pieces.files if not _is_own(tree, pieces, path))


def is_deployed_apart(platform: Platform, pieces: Pieces) -> bool:
    """Whether Argo CD deploys another directory, whose kustomization includes the endpoint's."""
    paths = source_paths(pieces.application) if pieces.application else ()
    return any(leads_to(platform, path, pieces.home) for path in paths)


def _is_own(tree: Tree, pieces: Pieces, path: str) -> bool:
    if posixpath.basename(path) in FILES and posixpath.dirname(path) == _home(pieces):
        return True
    if path in _generated_from(tree, pieces):
        return True
    found = objects(tree, path)
    return bool(found) and all(
        _is_own_object(pieces, kind, value(each.node, "metadata", "name")) for kind, each in found
    )


def _is_own_object(pieces: Pieces, kind: str, name: str) -> bool:
    if kind == "Deployment":
        return name == value(pieces.deployment.node, "metadata", "name")
    if kind == "PersistentVolumeClaim":
        claims = {value(each.node, "metadata", "name") for each in pieces.claims}
        return name in claims and (
            pieces.pvc is None or name == value(pieces.pvc.node, "metadata", "name") or _has_name(pieces, name)
        )
    if kind == "Service":
        return pieces.service is not None and (
            name == value(pieces.service.node, "metadata", "name") or _has_name(pieces, name)
        )
    return kind not in _OF_THEIR_OWN and _has_name(pieces, name)


def _has_name(pieces: Pieces, name: str) -> bool:
    return re.search(rf"(^|-){re.escape(pieces.name)}(-|$)", name) is not None


def _home(pieces: Pieces) -> str:
    return posixpath.commonpath([posixpath.dirname(path) for path in pieces.files])


def _generated_from(tree: Tree, pieces: Pieces) -> set[str]:
    """The files of the kustomization's own generators."""
    found = set()
    for path in pieces.files:
        for kind, each in objects(tree, path):
            if kind == "Kustomization":
                for generator in items(find(each.node, "configMapGenerator")):
                    named = [find(generator, key) for key in ("files", "envs")]
                    for node in scalars(each for each in named if each is not None):
                        file = str(node.value).rpartition("=")[2]
                        found.add(posixpath.normpath(posixpath.join(posixpath.dirname(path), file)))
    return found
