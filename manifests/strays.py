"""Find changes on a branch that the change of an endpoint does not need. Each is refused, with its path and line.

Only the endpoint's YAML files, its Application and its gateway entries can be shown on the card.
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
"""The largest file that is read, in characters. An object in Kubernetes has at most 1.5 MiB (etcd.io/docs, limits)."""


class Touch(NamedTuple):
    """A branch's change of a file: git's mode before and after ("" if the file does not exist)."""

    before: str
    after: str
    foreign: bool = True
    """True if the change was not made by the bot."""


def is_large(tree: Tree, path: str) -> bool:
    """Return whether a file is larger than any file of an endpoint."""
    return len(tree.read(path) or "") > _LARGE


def unrelated_files(
    before: Platform, after: Platform, name: str, touched: Mapping[str, Touch], planned: Collection[str],
    old_pieces: Pieces | None,
) -> list[str]:  # fmt: skip
    """Changed files that do not belong to the endpoint, or that the card cannot show."""
    files_in_rows = _files_in_rows(before, after, name, planned, old_pieces)
    return [
        f"{path}:{line_number}: {reason}."
        for path, touch in sorted(touched.items())
        if (touch.foreign or path not in planned)
        for line_number, reason in [
            _refusal(
                before,
                after,
                _home_of(after.layout, name, old_pieces),
                name,
                path,
                touch,
                path in files_in_rows,
                path in planned,
            )
        ]
        if reason
    ]


def _files_in_rows(
    before: Platform, after: Platform, name: str, planned: Collection[str], old_pieces: Pieces | None
) -> set[str]:
    """The files whose fields are all shown in the card's rows, or compared with their old values."""
    layout = after.layout
    files = {path for path in planned if within(path, _home_of(layout, name, old_pieces))}
    files |= {path for path in planned if not is_large(after, path) and _applications(after, path)}
    if old_pieces is not None and old_pieces.name == name:
        files |= {*old_pieces.files, *_application_file(old_pieces)}
    readable = {path for path in files if path.endswith((".yaml", ".yml"))}
    return readable | {layout.litellm_values, *gateway_without_entries(before)}


def _home_of(layout: Layout, name: str, old_pieces: Pieces | None) -> str:
    """The directory of the endpoint's manifests; a new endpoint gets its own."""
    return old_pieces.home if old_pieces is not None and old_pieces.name == name else layout.home(name)


def _applications(tree: Tree, path: str) -> list[str]:
    return [title for title in documents(tree, path) if title.startswith("Application ")]


def _application_file(pieces: Pieces | None) -> tuple[str, ...]:
    return (pieces.application.document.path,) if pieces and pieces.application else ()


def _refusal(
    before: Tree, after: Tree, home: str, name: str, path: str, touch: Touch, is_in_rows: bool, is_planned: bool
) -> tuple[int, str]:  # fmt: skip
    """The line and the reason why a file is refused; the reason is empty for an accepted file."""
    unrelated = f"this file has nothing to do with {name}"
    if within(path, home):
        unrelated = f"the change of {name} does not need this file"
    if not touch.after:
        return (
            1,
            f"this file is deleted, and the change of {name} needs it"
            if is_in_rows
            else f"{unrelated}, and deletes it",
        )
    if touch.after != REGULAR and touch.after != touch.before:
        return 1, f"this is {_FORMS.get(touch.after, 'not a regular file')} now" + (
            "" if is_in_rows else f", and {unrelated}"
        )
    if touch.before not in ("", touch.after):
        return 1, f"its mode changes from {touch.before} to {touch.after}"
    if not is_in_rows and not is_planned:
        return _first_difference(before, after, path), unrelated
    if is_large(after, path):
        return 1, f"this file is larger than {_LARGE // 2**20} MiB, so it is not read"
    if after.read(path) is None:
        return 1, "this file is not text"
    if not is_in_rows:
        return _first_difference(
            before, after, path
        ), "this file was changed after Stoker wrote it, and the card does not show the change"
    return 1, ""


def unrelated_content(
    before: Platform, after: Platform, name: str, touched: Mapping[str, Touch], new_pieces: Pieces | None,
    old_pieces: Pieces | None,
) -> list[str]:  # fmt: skip
    """Changes in the endpoint's and the gateway's files that do not concern the endpoint."""
    problems: list[str] = []
    own_pieces = [pieces for pieces in (new_pieces, old_pieces) if pieces and pieces.name == name]
    for path in sorted({path for pieces in own_pieces for path in _application_file(pieces)} & touched.keys()):
        problems += _other_objects(before, after, path, own_pieces)
    gateway = {after.layout.litellm_values, *gateway_without_entries(after)}
    if gateway & touched.keys():
        problems += _other_entries(
            before, after, name, {entry.alias for pieces in own_pieces for entry in pieces.entries}
        )
    return problems


def _other_objects(before: Tree, after: Tree, path: str, own_pieces: list[Pieces]) -> list[str]:
    """Changes of other objects in the Application's file."""
    own_applications = {
        f"Application {value(pieces.application.node, 'metadata', 'name')}"
        for pieces in own_pieces
        if pieces.application
    }
    old_objects, new_objects = documents(before, path), documents(after, path)
    return [
        f"{path}:{line(new_objects.get(title))}: this changes {title}, which has nothing to do with {own_pieces[0].name}."
        for title in sorted({*old_objects, *new_objects} - own_applications)
        if leaves(old_objects.get(title)) != leaves(new_objects.get(title))
    ]


def _other_entries(before: Platform, after: Platform, name: str, own_aliases: Iterable[str]) -> list[str]:
    """Changes of the gateway's files outside the endpoint's entries."""
    endpoint_aliases, problems = {name, *own_aliases}, []
    old, new = entries_by_alias(before), entries_by_alias(after)
    for alias in sorted({*old, *new} - endpoint_aliases):
        old_digests, new_digests = (
            [content_digest for content_digest, _ in old.get(alias, [])],
            [content_digest for content_digest, _ in new.get(alias, [])],
        )
        if old_digests != new_digests:
            entry = (new.get(alias) or old[alias])[0][1]
            line_number = entry.first + 1 if alias in new else 1
            path = entry.document.path
            problems.append(
                f"{path}:{line_number}: this changes the entry of {alias}, which has nothing to do with {name}."
            )
    old_settings, new_settings = gateway_without_entries(before), gateway_without_entries(after)
    for path in sorted({*old_settings, *new_settings}):
        if old_settings.get(path) != new_settings.get(path):
            line_number = _first_difference(before, after, path)
            problems.append(f"{path}:{line_number}: this changes more of the gateway than the entry of {name}.")
    return problems


def _first_difference(before: Tree, after: Tree, path: str) -> int:
    """The first line that differs, counted from 1."""
    old, new = (before.read(path) or "").splitlines(), (after.read(path) or "").splitlines()
    first_different = next(
        (index for index, (old_line, new_line) in enumerate(zip(old, new, strict=False)) if old_line != new_line),
        min(len(old), len(new)),
    )
    return first_different + 1
