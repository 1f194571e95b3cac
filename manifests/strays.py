"""Changes on a branch that the change of an endpoint does not need: each is refused, with its path and line.

The card can show the endpoint's YAML files, its Application and its gateway entries.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from manifests.deployed import documents, entries_by_alias, gateway_without_entries, leaves
from manifests.edit import line, value
from manifests.layout import Layout
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.tree import Tree, within

REGULAR, EXECUTABLE, LINK, SUBMODULE = "100644", "100755", "120000", "160000"
"""git's modes of tree entries that are not directories (git-scm.com/docs/git-fast-import, filemodify)."""
_FORMS = {EXECUTABLE: "an executable file", LINK: "a symbolic link", SUBMODULE: "a submodule"}
_LARGE = 2**20
"""Maximum characters of a file that is read: an object in Kubernetes has at most 1.5 MiB (etcd.io/docs, limits)."""


class Touch(NamedTuple):
    """A branch's change of a file: git's mode before and after (empty if it does not exist)."""

    before: str
    after: str
    foreign: bool = True
    """True if somebody other than the bot made the change."""


def is_large(tree: Tree, path: str) -> bool:
    """Return whether a file is larger than any file of an endpoint."""
    return len(tree.read(path) or "") > _LARGE


def strange_files(
    before: Platform, after: Platform, name: str, touched: Mapping[str, Touch], planned: Collection[str],
    was: Pieces | None,
) -> list[str]:  # fmt: skip
    """Changed files that do not belong to the endpoint, or that the card cannot show."""
    shown = _shown(before, after, name, planned, was)
    return [
        f"{path}:{at}: {why}."
        for path, touch in sorted(touched.items())
        if (touch.foreign or path not in planned)
        for at, why in [
            _strange(before, after, _home(after.layout, name, was), name, path, touch, path in shown, path in planned)
        ]
        if why
    ]


def _shown(before: Platform, after: Platform, name: str, planned: Collection[str], was: Pieces | None) -> set[str]:
    """The files of which every field is in the card's rows, or is compared with its previous value."""
    layout = after.layout
    files = {path for path in planned if within(path, _home(layout, name, was))}
    files |= {path for path in planned if not is_large(after, path) and _applications(after, path)}
    if was is not None and was.name == name:
        files |= {*was.files, *_application_file(was)}
    readable = {path for path in files if path.endswith((".yaml", ".yml"))}
    return readable | {layout.litellm_values, *gateway_without_entries(before)}


def _home(layout: Layout, name: str, was: Pieces | None) -> str:
    """The directory of the endpoint's manifests; a new endpoint gets its own."""
    return was.home if was is not None and was.name == name else layout.home(name)


def _applications(tree: Tree, path: str) -> list[str]:
    return [what for what in documents(tree, path) if what.startswith("Application ")]


def _application_file(pieces: Pieces | None) -> tuple[str, ...]:
    return (pieces.application.document.path,) if pieces and pieces.application else ()


def _strange(
    before: Tree, after: Tree, home: str, name: str, path: str, touch: Touch, shown: bool, planned: bool
) -> tuple[int, str]:  # fmt: skip
    """The line and the reason why a file is refused; the reason is empty for an accepted file."""
    other = f"this file has nothing to do with {name}"
    if within(path, home):
        other = f"the change of {name} does not need this file"
    if not touch.after:
        return 1, f"this file is deleted, and the change of {name} needs it" if shown else f"{other}, and deletes it"
    if touch.after != REGULAR and touch.after != touch.before:
        return 1, f"this is {_FORMS.get(touch.after, 'no regular file')} now" + ("" if shown else f", and {other}")
    if touch.before not in ("", touch.after):
        return 1, f"its mode changes from {touch.before} to {touch.after}"
    if not shown and not planned:
        return _first_difference(before, after, path), other
    if is_large(after, path):
        return 1, f"this file is larger than {_LARGE // 2**20} MiB, so it is not read"
    if after.read(path) is None:
        return 1, "this file is not text"
    if not shown:
        return _first_difference(before, after, path), "somebody changed what Stoker wrote here, and no row shows it"
    return 1, ""


def strange_content(
    before: Platform, after: Platform, name: str, touched: Mapping[str, Touch], now: Pieces | None,
    was: Pieces | None,
) -> list[str]:  # fmt: skip
    """Changes in the endpoint's and the gateway's files that concern something else."""
    found: list[str] = []
    own = [each for each in (now, was) if each and each.name == name]
    for path in sorted({path for each in own for path in _application_file(each)} & touched.keys()):
        found += _other_objects(before, after, path, own)
    gateway = {after.layout.litellm_values, *gateway_without_entries(after)}
    if gateway & touched.keys():
        found += _other_entries(before, after, name, {entry.alias for each in own for entry in each.entries})
    return found


def _other_objects(before: Tree, after: Tree, path: str, own: list[Pieces]) -> list[str]:
    """Changes of other objects in the Application's file."""
    mine = {f"Application {value(each.application.node, 'metadata', 'name')}" for each in own if each.application}
    was, now = documents(before, path), documents(after, path)
    return [
        f"{path}:{line(now.get(what))}: this changes {what}, which has nothing to do with {own[0].name}."
        for what in sorted({*was, *now} - mine)
        if leaves(was.get(what)) != leaves(now.get(what))
    ]


def _other_entries(before: Platform, after: Platform, name: str, own: Iterable[str]) -> list[str]:
    """Changes of the gateway's files outside the endpoint's entries."""
    mine, found = {name, *own}, []
    old, new = entries_by_alias(before), entries_by_alias(after)
    for alias in sorted({*old, *new} - mine):
        was, now = [each for each, _ in old.get(alias, [])], [each for each, _ in new.get(alias, [])]
        if was != now:
            entry = (new.get(alias) or old[alias])[0][1]
            at = entry.first + 1 if alias in new else 1
            path = entry.document.path
            found.append(f"{path}:{at}: this changes the entry of {alias}, which has nothing to do with {name}.")
    rest, rest_now = gateway_without_entries(before), gateway_without_entries(after)
    for path in sorted({*rest, *rest_now}):
        if rest.get(path) != rest_now.get(path):
            at = _first_difference(before, after, path)
            found.append(f"{path}:{at}: this changes more of the gateway than the entry of {name}.")
    return found


def _first_difference(before: Tree, after: Tree, path: str) -> int:
    """The first line that differs, counted from 1."""
    old, new = (before.read(path) or "").splitlines(), (after.read(path) or "").splitlines()
    same = next(
        (n for n, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), min(len(old), len(new))
    )
    return same + 1
