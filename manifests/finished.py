"""Check that a change has reached every place, by reading the planned values back from the new files."""

import re

from manifests.model_names import is_path, model_of
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.retarget import Target
from manifests.tree import ManifestError


def refuse_unfinished(before: Platform, after: Platform, pieces: Pieces, target: Target) -> None:
    """Raise ManifestError if the endpoint would not be as requested, or if another endpoint would change with it."""
    now = after.locate(pieces.name)
    found = ", ".join(_places(pieces))
    if (
        now is None
        or now.model.value != target.model
        or target.served_name not in (*now.served_names, target.served_name if not now.served_names else "")
    ):
        raise ManifestError(
            f"The model of {pieces.name} is named in places that could not all be found, so nothing is changed. "
            f"Found: {found}. Change it by hand."
        )
    left = _left_over(now, pieces, target)
    if left:
        raise ManifestError(
            f"{pieces.model.value} is also named at {', '.join(left)}, in a way that cannot be changed here. "
            f"Found: {found}. Change it by hand."
        )
    if pieces.home == after.layout.home(pieces.name) and not pieces.candidate.configs:
        return  # its directory is its own
    was = {each.name: each for each in before.endpoints()}
    for endpoint in after.endpoints():
        other = was.get(endpoint.name)
        if other is not None and endpoint.name != pieces.name and _said(other) != _said(endpoint):
            raise ManifestError(
                f"{endpoint.name} reads the same value as {pieces.name}, so both would change ({found}): change them by hand."
            )


def _said(pieces: Pieces) -> tuple[object, ...]:
    return model_of(pieces), pieces.served_names, [(flag.name, flag.values) for flag in pieces.flags]


def _places(pieces: Pieces) -> list[str]:
    flags = [flag for flag in (pieces.model, pieces.served) if flag is not None]
    sites = [site for flag in flags for site in flag.sites if site is not None]
    return list(dict.fromkeys(f"{site.path}:{site.line}" for site in sites))


def _left_over(now: Pieces, pieces: Pieces, target: Target) -> list[str]:
    """The places that still name the old model by its whole id, its path or its file."""
    if pieces.fields is not None or pieces.model.value == target.model:
        return []
    names = {*target.renames, *(rename.rpartition("/")[2] for rename in target.renames if is_path(rename))}
    names -= {part for each in target.renames.values() for part in (each, each.rpartition("/")[2])} | {""}
    whole = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in names if len(name) > 4) or r"(?!)")
    served = {id(site.node) for flag in (now.served,) if flag for site in flag.sites if site is not None}
    return sorted(
        {
            f"{located.document.path}:{node.start_mark.line + 1}"
            for located, node in now.texts()
            if id(node) not in served and whole.search(_without(str(node.value), now.served_names))
        }
    )


def _without(text: str, names: tuple[str, ...]) -> str:
    """A text without the served names that stay, which may be the old model's."""
    return re.sub("|".join(map(re.escape, names)), "", text) if names else text
