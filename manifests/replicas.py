"""The number of an endpoint's replicas in git, and the place of this number. Switching by commit changes only this number."""

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


def replicas_in_git(platform: Platform, name: str) -> int | None:
    """The replicas in git; None if git does not set them, or if there is no such endpoint."""
    pieces = platform.locate(name)
    return count_of(pieces) if pieces else None


def count_of(pieces: Pieces) -> int | None:
    """The replicas of a workload that is already located."""
    place = _place(pieces)
    return int(place.value) if place and place.value.isdecimal() else None


def with_replicas(platform: Platform, name: str, replicas: int) -> ChangeSet:
    """The change that sets this number; empty if git already has it.

    Raises ManifestError if the number does not have exactly one place, or if another endpoint shares that place.
    """
    pieces = platform.require(name)
    place = _place(pieces)
    if place is None:
        raise ManifestError(
            f"{pieces.deployment.document.path} has no replicas for {name}: write `replicas: 0` below its spec, so that"
            " Stoker can start and stop it with a commit."
        )
    other_names = [
        endpoint.name for endpoint in platform.endpoints() if endpoint.name != name and _is_at(_place(endpoint), place)
    ]
    if other_names:
        raise ManifestError(
            f"{place.path}:{place.line} sets the replicas of {name} and of {', '.join(other_names)}: write them separately for each "
            "release, so that Stoker can start one without the other."
        )
    if sum(scalar is place.origin.node for scalar in scalars(place.origin.document.roots)) > 1:
        raise ManifestError(
            f"{place.path}:{place.line} sets the replicas of {name} with an anchor that another value also uses: write "
            "the number there."
        )
    other_names = list(_other_selected_workloads(platform, pieces))
    if other_names:
        raise ManifestError(
            f"{place.path}:{place.line} sets the replicas of {name} and of {', '.join(other_names)}: limit it to {name}, so that "
            "Stoker can start one without the other."
        )
    refuse_shared(name, pieces.files, [place])
    if place.value == str(replicas):
        return ChangeSet(files={})
    return ChangeSet(files={place.path: place.origin.document.apply([place.write(str(replicas))]).text})


def scaled_by(platform: Platform, name: str) -> str:
    """The autoscaler that starts and stops the endpoint, with its place in the repository; "" if there is none."""
    pieces = platform.locate(name)
    if pieces is None:
        return ""
    return next((f"{scaler.name} ({place})" for scaler in scalers() if (place := scaler.place(platform, pieces))), "")


def switched_by_hand(platform: Platform, name: str) -> str:
    """The kind and the place of the endpoint's workload if Stoker cannot start and stop it; otherwise ""."""
    pieces = platform.locate(name)
    if pieces is None or pieces.form == "Deployment" or pieces.form not in KINDS:
        return ""
    return f"a {pieces.form} ({pieces.deployment.document.path}:{line(pieces.deployment.node)})"


def blobs_at_zero(platform: Platform, name: str) -> dict[str, str]:
    """The path of the file with the replicas, and git's id of this file with zero replicas.

    Empty if the endpoint has no replicas, or if git does not set their number.
    """
    try:
        if replicas_in_git(platform, name) != 1:
            return {}
        changes = with_replicas(platform, name, 0).files
    except ManifestError:
        return {}
    return {path: blob(text) for path, text in changes.items() if text is not None}


def blob(text: str) -> str:
    """git's id of a file with this text."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _other_selected_workloads(tree: Tree, pieces: Pieces) -> Iterator[str]:
    """The other workloads whose replicas the same kustomization sets."""
    count, workload = pieces.rendering.count(pieces.deployment.node), pieces.deployment
    folder = posixpath.dirname(count.place.path) if count is not None else ""
    for kind in ("Deployment", "StatefulSet") if count is not None else ():
        for located in of_kind(tree, kind):
            path = posixpath.dirname(located.document.path)
            is_below = within(path, folder) or leads_to(tree, folder, path)
            is_own = (located.document.path, located.node.start_mark.index) == (
                workload.document.path,
                workload.node.start_mark.index,
            )
            if count is not None and is_below and not is_own and count.selects(located.node):
                yield f"{kind} {value(located.node, 'metadata', 'name')}"


def _is_at(site: Site | None, other_site: Site) -> bool:
    """Return whether two numbers are at the same place."""
    return site is not None and (site.path, site.line) == (other_site.path, other_site.line)


def _place(pieces: Pieces) -> Site | None:
    """The place of the effective number; None if git does not set it.

    A kustomization's `replicas` or patch takes precedence over the number in the workload or at the field map's place.
    """
    if (override := pieces.rendering.count(pieces.deployment.node)) is not None:
        return Site.whole(override.document, override.node)
    return pieces.candidate.replicas
