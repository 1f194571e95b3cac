"""The files that an endpoint owns. Other files in its directory are foreign.

Its own files contain its Deployment, Service, claims and kustomization, objects with its name, and the files from which
its kustomization generates ConfigMaps.
"""

import posixpath

from manifests.bundle import Bundle
from manifests.deployers.argocd import source_paths
from manifests.edit import find, items, scalars, value
from manifests.kustomize import FILES, leads_to
from manifests.objects import Located, objects
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.sources.forms import candidates
from manifests.tree import Tree, within

# Kinds that run something or store data. An additional object of these kinds is foreign, even if it has the
# endpoint's name.
_INDEPENDENT_KINDS = frozenset(
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


def foreign_files(tree: Tree, pieces: Pieces, bundle: Bundle) -> tuple[str, ...]:
    """The files in the endpoint's directory that it does not own."""
    serving = [candidate for path in bundle.files for candidate in candidates(tree, path)]
    if len(serving) > 1 and pieces.form == "HelmRelease":  # one release serves several models
        return (pieces.deployment.document.path,)
    return tuple(path for path in bundle.files if not _is_own(tree, pieces, bundle, path))


def is_deployed_apart(platform: Platform, pieces: Pieces) -> bool:
    """Return whether Argo CD deploys another directory, whose kustomization includes the endpoint's directory."""
    paths = source_paths(pieces.application) if pieces.application else ()
    return any(leads_to(platform, path, pieces.home) for path in paths)


def _is_own(tree: Tree, pieces: Pieces, bundle: Bundle, path: str) -> bool:
    if posixpath.basename(path) in FILES and within(posixpath.dirname(path), bundle.home):
        return True
    if path in _generator_files(tree, pieces) or path in pieces.candidate.files:
        return True
    declared = objects(tree, path)
    return bool(declared) and all(_is_own_object(pieces, bundle, kind, located) for kind, located in declared)


def _is_own_object(pieces: Pieces, bundle: Bundle, kind: str, located: Located) -> bool:
    name = value(located.node, "metadata", "name")
    has_name = bool(bundle.name(name, "x"))
    if kind == "Deployment" or (kind == pieces.form and pieces.candidate.application is None):
        return name == value(pieces.deployment.node, "metadata", "name")
    if kind == "PersistentVolumeClaim":
        claims = {value(claim.node, "metadata", "name") for claim in pieces.claims}
        return name in claims and (pieces.pvc is None or name == value(pieces.pvc.node, "metadata", "name") or has_name)
    if kind == "Service":
        is_own_service = pieces.service is not None and name == value(pieces.service.node, "metadata", "name")
        return is_own_service or (has_name and (pieces.service is not None or not pieces.is_plain))
    if kind in ("Application", "Kustomization"):
        if pieces.candidate.application is not None and has_name:
            return True
        paths = source_paths(located) or (value(located.node, "spec", "path").lstrip("./"),)
        return all(within(path, bundle.home) for path in paths)
    if kind == "LocalModelCache" and pieces.model.value in value(located.node, "spec", "sourceModelUri"):
        return True  # KServe's cache, which has the model's name
    if kind == "Namespace":
        return has_name and name == pieces.namespace
    return kind not in _INDEPENDENT_KINDS and has_name


def _generator_files(tree: Tree, pieces: Pieces) -> set[str]:
    """The files that the generators of the endpoint's kustomizations read."""
    files = set()
    for path in pieces.files:
        for kind, located in objects(tree, path):
            if kind == "Kustomization":
                for generator in items(find(located.node, "configMapGenerator")):
                    file_lists = [find(generator, key) for key in ("files", "envs")]
                    for node in scalars(file_list for file_list in file_lists if file_list is not None):
                        file = str(node.value).rpartition("=")[2]
                        files.add(posixpath.normpath(posixpath.join(posixpath.dirname(path), file)))
    return files
