"""The number of an endpoint's replicas in git, and its place: a switch by commit changes nothing else."""

import hashlib
import posixpath
from collections.abc import Iterator

from manifests.edit import line, scalars, value
from manifests.kustomize import leads_to
from manifests.objects import of_kind
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.scalers import scalers
from manifests.sources.site import Site, refuse_shared
from manifests.sources.workloads import KINDS
from manifests.tree import ChangeSet, ManifestError, Tree, within


def written(platform: Platform, name: str) -> int | None:
    """The replicas in git; None if git does not set them, or if there is no such endpoint."""
    pieces = platform.locate(name)
    return of(pieces) if pieces else None


def of(pieces: Pieces) -> int | None:
    """The replicas of a workload that is already located."""
    place = _place(pieces)
    return int(place.value) if place and place.value.isdecimal() else None


def with_replicas(platform: Platform, name: str, replicas: int) -> ChangeSet:
    """The change of that one number; empty if git already has it.

    Raises ManifestError if there is not exactly one place that sets it.
    """
    pieces = platform.require(name)
    place = _place(pieces)
    if place is None:
        raise ManifestError(
            f"{pieces.deployment.document.path} has no replicas for {name}: write `replicas: 0` below its spec, so that"
            " Stoker can start and stop it by a commit."
        )
    others = [
        endpoint.name for endpoint in platform.endpoints() if endpoint.name != name and _is_at(_place(endpoint), place)
    ]
    if others:
        raise ManifestError(
            f"{place.path}:{place.line} sets the replicas of {name} and of {', '.join(others)}: write them for each "
            "release on its own, so that Stoker can start one without the other."
        )
    if sum(scalar is place.origin.node for scalar in scalars(place.origin.document.roots)) > 1:
        raise ManifestError(
            f"{place.path}:{place.line} sets the replicas of {name} with an anchor that another value uses as well: write "
            "the number itself there."
        )
    others = list(_selected_too(platform, pieces))
    if others:
        raise ManifestError(
            f"{place.path}:{place.line} sets the replicas of {name} and of {', '.join(others)}: name {name} in it, so that "
            "Stoker can start one without the other."
        )
    refuse_shared(name, pieces.files, [place])
    if place.value == str(replicas):
        return ChangeSet(files={})
    return ChangeSet(files={place.path: place.origin.document.apply([place.write(str(replicas))]).text})


def scaled_by(platform: Platform, name: str) -> str:
    """The other system that starts and stops the endpoint, with its place in the repository; empty if there is no other system."""
    pieces = platform.locate(name)
    if pieces is None:
        return ""
    return next((f"{scaler.name} ({place})" for scaler in scalers() if (place := scaler.place(platform, pieces))), "")


def switched_by_hand(platform: Platform, name: str) -> str:
    """Return the kind of the endpoint's workload and its place, if Stoker cannot start and stop it; otherwise empty."""
    pieces = platform.locate(name)
    if pieces is None or pieces.form == "Deployment" or pieces.form not in KINDS:
        return ""
    return f"a {pieces.form} ({pieces.deployment.document.path}:{line(pieces.deployment.node)})"


def at_rest(platform: Platform, name: str) -> dict[str, str]:
    """git's id that the file with the replicas would have at zero: a switch by commit changes nothing else in it.

    Empty if the endpoint is at rest, or if git does not set its replicas.
    """
    try:
        if written(platform, name) != 1:
            return {}
        changes = with_replicas(platform, name, 0).files
    except ManifestError:
        return {}
    return {path: blob(text) for path, text in changes.items() if text is not None}


def blob(text: str) -> str:
    """git's id of a file with this text."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _selected_too(tree: Tree, pieces: Pieces) -> Iterator[str]:
    """The other workloads below the same kustomization whose replicas it sets with the endpoint's."""
    count, own = pieces.rendering.count(pieces.deployment.node), pieces.deployment
    folder = posixpath.dirname(count.place.path) if count is not None else ""
    for kind in ("Deployment", "StatefulSet") if count is not None else ():
        for each in of_kind(tree, kind):
            path = posixpath.dirname(each.document.path)
            is_below = within(path, folder) or leads_to(tree, folder, path)
            is_own = (each.document.path, each.node.start_mark.index) == (own.document.path, own.node.start_mark.index)
            if count is not None and is_below and not is_own and count.selects(each.node):
                yield f"{kind} {value(each.node, 'metadata', 'name')}"


def _is_at(one: Site | None, other: Site) -> bool:
    """Return whether two numbers are at the same place of the same file."""
    return one is not None and (one.path, one.line) == (other.path, other.line)


def _place(pieces: Pieces) -> Site | None:
    """The place of the effective number: a kustomization's `replicas` or patch, which take precedence, the workload's own, or
    the field map's.
    """
    if (override := pieces.rendering.count(pieces.deployment.node)) is not None:
        return Site.whole(override.document, override.node)
    return pieces.candidate.replicas
