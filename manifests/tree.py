"""Input and output of `manifests`: a tree of files, and changes to it.

A `Tree` is read-only: a checkout on disk, a commit in a mirror, or either of them with changes on top. Paths are POSIX,
relative to the root of the repository.
"""

import difflib
import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from pydantic import BaseModel, field_validator


class ManifestError(Exception):
    """A request that the repository does not allow: the message states the problem and its fix."""

    remedy = "Fix the problem in the request or in the repository; `stoker model check` finds contradictions."


class Tree(Protocol):
    """The files of a platform repository at one point in time."""

    def read(self, path: str) -> str | None:
        """The text of a file, or None if there is no such text file."""

    def files(self, prefix: str) -> tuple[str, ...]:
        """The paths of all files below `prefix` ("" for the whole repository), sorted."""

    def grep(self, *texts: str) -> tuple[str, ...]:
        """The paths of the files that contain at least one of the texts literally, sorted."""


class ChangeSet(BaseModel, frozen=True, defer_build=True):
    """New texts for some paths; None deletes the file."""

    files: Mapping[str, str | None]

    @field_validator("files", mode="after")
    @classmethod
    def _sorted_and_read_only(cls, files: Mapping[str, str | None]) -> Mapping[str, str | None]:
        return MappingProxyType(dict(sorted(files.items())))

    def diff(self, tree: Tree) -> str:
        """The change in the format of `git diff`: unified, three lines of context."""
        return "".join(self._file_diff(path, tree.read(path), new) for path, new in self.files.items())

    @staticmethod
    def _file_diff(path: str, old: str | None, new: str | None) -> str:
        if old == new:
            return ""
        lines = difflib.unified_diff(
            (old or "").splitlines(keepends=True),
            (new or "").splitlines(keepends=True),
            fromfile="/dev/null" if old is None else f"a/{path}",
            tofile="/dev/null" if new is None else f"b/{path}",
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


class Checkout:
    """A tree on disk, without git's own directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def read(self, path: str) -> str | None:
        file = self.root / path
        # A path through a link or `..` is not a text file in git, either.
        if file.resolve() != file or not file.is_file():
            return None
        try:
            # newline="" keeps the line endings, so that unchanged content stays identical byte for byte.
            with file.open(encoding="utf-8", newline="") as stream:
                return stream.read()
        except UnicodeDecodeError:
            return None

    def files(self, prefix: str) -> tuple[str, ...]:
        start = self.root / prefix
        if start.is_file() or start.is_symlink():
            return (prefix,)
        # Files that git ignores (a virtual environment, build output) do not belong to the repository.
        git_files = self._git_files(prefix)
        if git_files is not None:
            return git_files
        return tuple(
            sorted(
                path.relative_to(self.root).as_posix()
                for path in start.rglob("*")
                if (path.is_file() or path.is_symlink()) and ".git" not in path.relative_to(self.root).parts
            )
        )

    def grep(self, *texts: str) -> tuple[str, ...]:
        # `git grep` is much faster than reading all files.
        patterns = [word for text in texts for word in ("-e", text)]
        matches = self._git("grep", "--untracked", "--no-color", "-l", "-I", "-F", "-z", *patterns, no_match_code=1)
        if matches is not None:
            return matches
        return tuple(path for path in self.files("") if contains(self.read(path), texts))

    def _git_files(self, prefix: str) -> tuple[str, ...] | None:
        paths = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", prefix or ".")
        return paths and tuple(path for path in paths if os.path.lexists(self.root / path))

    def _git(self, *arguments: str, no_match_code: int = 0) -> tuple[str, ...] | None:
        """The paths that git prints, sorted; None if this is not a repository, or git is not installed."""
        if not (self.root / ".git").exists():
            return None
        command = ["git", "-C", str(self.root), "--literal-pathspecs", *arguments]
        try:
            result = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
        except OSError:
            return None
        if result.returncode not in (0, no_match_code):
            return None
        # File names may be invalid UTF-8.
        return tuple(sorted({os.fsdecode(path) for path in result.stdout.split(b"\0") if path}))


class Files:
    """A tree in memory."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = dict(files)

    def read(self, path: str) -> str | None:
        return self._files.get(path)

    def files(self, prefix: str) -> tuple[str, ...]:
        return tuple(sorted(path for path in self._files if within(path, prefix)))

    def grep(self, *texts: str) -> tuple[str, ...]:
        return tuple(sorted(path for path, content in self._files.items() if contains(content, texts)))


class Overlay:
    """A tree with changes applied."""

    def __init__(self, tree: Tree, changes: ChangeSet) -> None:
        self._tree = tree
        self._changes = changes.files

    def read(self, path: str) -> str | None:
        return self._changes[path] if path in self._changes else self._tree.read(path)

    def files(self, prefix: str) -> tuple[str, ...]:
        unchanged = {path for path in self._tree.files(prefix) if path not in self._changes}
        new = {path for path, text in self._changes.items() if text is not None and within(path, prefix)}
        return tuple(sorted(unchanged | new))

    def grep(self, *texts: str) -> tuple[str, ...]:
        unchanged = {path for path in self._tree.grep(*texts) if path not in self._changes}
        new = {path for path, content in self._changes.items() if contains(content, texts)}
        return tuple(sorted(unchanged | new))


def without(tree: Tree, paths: Collection[str]) -> Tree:
    """The tree without these files."""
    return Overlay(tree, ChangeSet(files=dict.fromkeys(paths))) if paths else tree


def contains(content: str | None, texts: Collection[str]) -> bool:
    """Return whether a file has at least one of the texts; `content` is None if it is not a text file."""
    return content is not None and any(text in content for text in texts)


def within(path: str, prefix: str) -> bool:
    """Return whether `path` is `prefix` or below it ("serving/ab" is not within "serving/a")."""
    folder = prefix.rstrip("/")
    return not folder or path == folder or path.startswith(f"{folder}/")
