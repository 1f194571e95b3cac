"""Check that a change is complete, by reading the planned values from the new files."""

import re

from manifests.model_names import is_path, model_of
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.retarget import Target
from manifests.tree import ManifestError


def refuse_unfinished(before: Platform, after: Platform, pieces: Pieces, target: Target) -> None:
    """Raise ManifestError if the endpoint would not be as requested, or if another endpoint would change with it."""
    changed = after.locate(pieces.name)
    places = ", ".join(_places(pieces))
    if (
        changed is None
        or changed.model.value != target.model
        or target.served_name not in (*changed.served_names, target.served_name if not changed.served_names else "")
    ):
        raise ManifestError(
            f"The model of {pieces.name} is also named in places that were not found, so nothing is changed. "
            f"Found: {places}. Change it by hand."
        )
    remaining = _remaining_mentions(changed, pieces, target)
    if remaining:
        raise ManifestError(
            f"{pieces.model.value} is also named at {', '.join(remaining)}, in a form that Stoker cannot change. "
            f"Found: {places}. Change it by hand."
        )
    if pieces.home == after.layout.home(pieces.name) and not pieces.candidate.configs:
        return  # no other endpoint uses its directory
    endpoints_before = {endpoint.name: endpoint for endpoint in before.endpoints()}
    for endpoint in after.endpoints():
        before_change = endpoints_before.get(endpoint.name)
        if (
            before_change is not None
            and endpoint.name != pieces.name
            and _model_settings(before_change) != _model_settings(endpoint)
        ):
            raise ManifestError(
                f"{endpoint.name} reads the same value as {pieces.name}, so both would change ({places}): change them by hand."
            )


def _model_settings(pieces: Pieces) -> tuple[object, ...]:
    return model_of(pieces), pieces.served_names, [(flag.name, flag.values) for flag in pieces.flags]


def _places(pieces: Pieces) -> list[str]:
    flags = [flag for flag in (pieces.model, pieces.served) if flag is not None]
    sites = [site for flag in flags for site in flag.sites if site is not None]
    return list(dict.fromkeys(f"{site.path}:{site.line}" for site in sites))


def _remaining_mentions(changed: Pieces, pieces: Pieces, target: Target) -> list[str]:
    """The places that still contain the old model's id, path or file name."""
    if pieces.fields is not None or pieces.model.value == target.model:
        return []
    names = {*target.renames, *(rename.rpartition("/")[2] for rename in target.renames if is_path(rename))}
    names -= {part for new_name in target.renames.values() for part in (new_name, new_name.rpartition("/")[2])} | {""}
    pattern = re.compile(
        "|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in names if len(name) > 4) or r"(?!)"
    )
    served = {id(site.node) for flag in (changed.served,) if flag for site in flag.sites if site is not None}
    return sorted(
        {
            f"{located.document.path}:{node.start_mark.line + 1}"
            for located, node in changed.texts()
            if id(node) not in served and pattern.search(_without_names(str(node.value), changed.served_names))
        }
    )


def _without_names(text: str, names: tuple[str, ...]) -> str:
    """The text without the remaining served names, which may contain the old model's name."""
    return re.sub("|".join(map(re.escape, names)), "", text) if names else text
