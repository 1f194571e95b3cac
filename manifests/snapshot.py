"""A platform repository at one point in time; the modules that read endpoints build on it."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from manifests.layout import Layout
from manifests.memory import remembered
from manifests.tree import ChangeSet, Overlay, Tree


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The files of a platform repository, and their layout.

    It is a `Tree`, so functions that only read files accept it. `memory` caches read and parsed files for the lifetime
    of the snapshot.
    """

    tree: Tree
    layout: Layout
    memory: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @remembered
    def read(self, path: str) -> str | None:
        return self.tree.read(path)

    @remembered
    def files(self, prefix: str) -> tuple[str, ...]:
        return self.tree.files(prefix)

    @remembered
    def grep(self, *texts: str) -> tuple[str, ...]:
        return self.tree.grep(*texts)

    def with_changes(self, changes: ChangeSet | Mapping[str, str | None]) -> Self:
        """The repository after these changes."""
        changed = changes if isinstance(changes, ChangeSet) else ChangeSet(files=dict(changes))
        return type(self)(Overlay(self, changed), self.layout)

    def without(self, paths: Collection[str]) -> Self:
        """The repository without these files."""
        return self.with_changes(dict.fromkeys(paths)) if paths else self

    def with_layout(self, layout: Layout) -> Self:
        """The same files with another layout."""
        return type(self)(self, layout)
