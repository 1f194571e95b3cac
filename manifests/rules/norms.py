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
    """Return whether this platform starts GPU models outside of git: each has an Application that ignores `replicas`.

    Two of three signs (no automated sync, `ignoreDifferences`, `RespectIgnoreDifferences`) are enough, so that the
    third sign can be reported as missing.
    """
    return any(endpoint.gpu and _signs(endpoint) >= 2 for endpoint in (pieces, *siblings))


def owns_application(pieces: Pieces) -> bool:
    """Return whether an Application deploys only this endpoint."""
    app = pieces.application
    if app is None:
        return False
    return pieces.home in source_paths(app) or value(app.node, "metadata", "name") == pieces.name


def names_applications(siblings: Sequence[Pieces], platform: Platform) -> bool:
    """Return whether Applications are named like their endpoints on this platform."""
    layout = platform.layout
    has_catalog = bool(platform.files(layout.path(layout.catalog_dir)))
    owners = [sibling for sibling in siblings if owns_application(sibling)]
    named = [owner for owner in owners if value(_node(owner), "metadata", "name") == owner.name]
    return bool(named) if owners else has_catalog


def has_applications(siblings: Sequence[Pieces], platform: Platform) -> bool:
    """Return whether each endpoint has an Application on this platform."""
    layout = platform.layout
    others_have_one = any(owns_application(sibling) for sibling in siblings)
    return others_have_one or (bool(platform.files(layout.path(layout.catalog_dir))) and bool(platform.applications()))


def has_aliases(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> bool:
    """Return whether this namespace's models have aliases: another model there has one, or an alias there has no Service."""
    if any(sibling.entries and sibling.namespace == pieces.namespace for sibling in siblings):
        return True
    hosts = (entry.host for model_list in platform.model_lists() for entry in model_list.entries)
    return any(host[1:2] == [pieces.namespace] and not is_made_elsewhere(platform, host[0]) for host in hosts)


def pins_images(pieces: Pieces, siblings: Sequence[Pieces]) -> bool:
    """Return whether this platform pins the images of engines by digest."""
    return any(
        "@sha256:" in reference
        for endpoint in (pieces, *siblings)
        for image in images(endpoint)
        for reference in (image, endpoint.rendering.image(image))
    )


def runs_offline(pieces: Pieces, siblings: Sequence[Pieces]) -> bool:
    """Return whether weights are staged, so that the engine needs no access to Hugging Face."""
    variables = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    staged = any(pieces.model.value in str(node.value) for node in pieces.staging)
    configured = any(variables & environment(endpoint.container).keys() for endpoint in (pieces, *siblings))
    return configured or (
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
    options = {value(option) for option in items(find(node, "spec", "syncPolicy", "syncOptions"))}
    return (
        (find(node, "spec", "syncPolicy", "automated") is None)
        + bool(pointers)
        + ("RespectIgnoreDifferences=true" in options)
    )


def _node(pieces: Pieces) -> Node | None:
    return pieces.application.node if pieces.application else None


def is_made_elsewhere(tree: Tree, name: str) -> bool:
    """Return whether another part of the repository, such as a gateway's chart, creates a Service of this name."""
    if any(
        kind in ("Service", "Gateway", "InferenceService") and value(located.node, "metadata", "name") == name
        for path in tree.grep(name)
        for kind, located in objects(tree, path)
    ):
        return True
    charts = [value(located.node, "metadata", "name") for located in of_kind(tree, "HelmRelease")]
    charts += [
        value(located.node, "metadata", "name") for located in of_kind(tree, "Application") if _is_chart(located)
    ]
    charts += [
        value(located.node, "metadata", "name")
        for kind in ("InferenceService", "LLMInferenceService")
        for located in of_kind(tree, kind)
    ]
    return any(name == chart or name.startswith(f"{chart}-") for chart in charts)


def _is_chart(application: Located) -> bool:
    """Return whether an external chart creates the objects that it deploys, including Services."""
    sources = (find(application.node, "spec", "source"), *items(find(application.node, "spec", "sources")))
    return any(value(source, "chart") for source in sources)
