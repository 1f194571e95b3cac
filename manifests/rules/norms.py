"""The conventions of a platform: a rule applies only if the platform follows it.

The other endpoints and the repository define the conventions. A rule that nothing in the repository follows does not apply.
"""

from collections.abc import Sequence
from itertools import chain

from ruamel.yaml.nodes import Node

from manifests.deployers.argocd import source_paths
from manifests.edit import find, items, value
from manifests.objects import of_kind
from manifests.pieces import Located, Pieces, environment, objects
from manifests.platform import Platform
from manifests.tree import Tree


def is_gated(pieces: Pieces, siblings: Sequence[Pieces]) -> bool:
    """Return whether GPU models are started outside of git here: they have their own Application, which ignores `replicas`.

    Of three signs (no automated sync, ignored differences, respected when it syncs) two are enough: one may be forgotten.
    """
    return any(each.gpu and _signs(each) >= 2 for each in (pieces, *siblings))


def owns_application(pieces: Pieces) -> bool:
    """Return whether an Application was made for this endpoint alone."""
    app = pieces.application
    if app is None:
        return False
    return pieces.home in source_paths(app) or value(app.node, "metadata", "name") == pieces.name


def names_applications(siblings: Sequence[Pieces], platform: Platform) -> bool:
    """Return whether an Application is named like its endpoint here."""
    layout = platform.layout
    has_catalog = bool(platform.files(layout.path(layout.catalog_dir)))
    others = [sibling for sibling in siblings if owns_application(sibling)]
    named = [other for other in others if value(_node(other), "metadata", "name") == other.name]
    return bool(named) if others else has_catalog


def has_applications(siblings: Sequence[Pieces], platform: Platform) -> bool:
    """Return whether each endpoint has an Application here."""
    layout = platform.layout
    others = any(owns_application(sibling) for sibling in siblings)
    return others or (bool(platform.files(layout.path(layout.catalog_dir))) and bool(platform.applications()))


def has_aliases(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> bool:
    """Return whether LiteLLM serves the models of its namespace: another model there has an alias, or an alias has no Service."""
    if any(sibling.entries and sibling.namespace == pieces.namespace for sibling in siblings):
        return True
    there = (entry.host for found in platform.model_lists() for entry in found.entries)
    return any(host[1:2] == [pieces.namespace] and not is_made_elsewhere(platform, host[0]) for host in there)


def pins_images(pieces: Pieces, siblings: Sequence[Pieces]) -> bool:
    """Return whether images of engines are pinned by their digest here."""
    return any(
        "@sha256:" in written
        for each in (pieces, *siblings)
        for image in images(each)
        for written in (image, each.rendering.image(image))
    )


def runs_offline(pieces: Pieces, siblings: Sequence[Pieces]) -> bool:
    """Return whether weights are staged, so that the engine needs no access to Hugging Face."""
    variables = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    staged = any(pieces.model.value in str(node.value) for node in pieces.staging)
    told = any(variables & environment(each.container).keys() for each in (pieces, *siblings))
    return told or (
        staged and not environment(pieces.container).keys() & {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} and bool(siblings)
    )


def images(pieces: Pieces) -> list[str]:
    containers = chain(items(find(pieces.pod, "initContainers")), items(find(pieces.pod, "containers")))
    return [value(container, "image") for container in containers]


def _signs(pieces: Pieces) -> int:
    if not owns_application(pieces):
        return 0
    node = _node(pieces)
    pointers = {
        value(item)
        for ignored in items(find(node, "spec", "ignoreDifferences"))
        for key in ("jsonPointers", "jqPathExpressions")
        for item in items(find(ignored, key))
    }
    options = {value(each) for each in items(find(node, "spec", "syncPolicy", "syncOptions"))}
    return (
        (find(node, "spec", "syncPolicy", "automated") is None)
        + bool(pointers)
        + ("RespectIgnoreDifferences=true" in options)
    )


def _node(pieces: Pieces) -> Node | None:
    return pieces.application.node if pieces.application else None


def is_made_elsewhere(tree: Tree, name: str) -> bool:
    """Return whether something outside the serving directory has the name, like a gateway in the same namespace."""
    if any(
        kind in ("Service", "Gateway", "InferenceService") and value(located.node, "metadata", "name") == name
        for path in tree.grep(name)
        for kind, located in objects(tree, path)
    ):
        return True
    charts = [value(each.node, "metadata", "name") for each in of_kind(tree, "HelmRelease")]
    charts += [value(each.node, "metadata", "name") for each in of_kind(tree, "Application") if _is_chart(each)]
    charts += [
        value(each.node, "metadata", "name")
        for kind in ("InferenceService", "LLMInferenceService")
        for each in of_kind(tree, kind)
    ]
    return any(name == chart or name.startswith(f"{chart}-") for chart in charts)


def _is_chart(application: Located) -> bool:
    """Return whether an external chart creates the objects that it deploys, including Services."""
    sources = (find(application.node, "spec", "source"), *items(find(application.node, "spec", "sources")))
    return any(value(source, "chart") for source in sources)
