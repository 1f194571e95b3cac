"""The local mirror of the GitOps repository: bare, updated by `git fetch`, without a work tree or an index.

Commits are created deterministically from their inputs, so a retry after a crash pushes nothing new. All methods block,
and `bot.git.repository` calls them from a thread.

The token is passed to git only in environment variables (GIT_CONFIG_*), and never in a URL, an argument or a log line.
"""

import hashlib
import os
import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import TypeVar

import structlog
from pydantic import SecretStr

from bot.errors import BotError, Unavailable
from bot.git import complaints
from bot.git.process import Bounded, GitProcess, TooMuch
from manifests.frozen import frozen
from manifests.tree import ChangeSet, contains

log = structlog.get_logger(__name__)
Key = TypeVar("Key")
Value = TypeVar("Value")

REGULAR, EXECUTABLE, SUBMODULE = "100644", "100755", "160000"
BUILT = "refs/stoker/built"
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
BRANCH = re.compile(r"[\w-]+([./][\w-]+)*", re.ASCII)
"""Valid names for Stoker's branches, a subset of git's."""

Changes = dict[str, tuple[str, str] | None]
"""Changed paths, each with its new mode and blob; None for a deleted file."""


_TEXT, _OUTPUT = 4 * 2**20, 64 * 2**20
"""Maximum bytes of one file, and of any other output of git. A listing has about a hundred bytes per file."""

_REMOTE_SECONDS = 600.0
"""Timeout in seconds for a fetch or push. A stalled transfer ends sooner: see `bot.git.process`."""

MISSING = re.compile(r"couldn't find remote ref refs/heads/(\S+)")

# Messages about files that a killed git process leaves behind.
BROKEN = re.compile(r"\.lock': File exists|not a git repository:|object file .* is empty|loose object .* is corrupt")


_MIRROR, _DAMAGED = "Stoker's copy of the repository", "it is damaged, and is fetched again"


class MirrorBroken(Unavailable):
    """The mirror on disk is damaged. The next fetch creates it again."""

    remedy = "Nothing: Stoker clones the mirror again from the remote."


@frozen
class Listing:
    """Every path of one commit with its mode and blob (`entries`), and the sorted paths."""

    commit: str
    entries: Mapping[str, tuple[str, str]]
    paths: Sequence[str]

    def below(self, prefix: str) -> tuple[str, ...]:
        """The sorted paths of the files below a directory, or the path itself if it is a file."""
        folder = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        first = bisect_left(self.paths, folder)
        inside = self.paths[first : bisect_left(self.paths, folder[:-1] + "0", first)] if folder else self.paths
        return (prefix.rstrip("/"), *inside) if prefix.rstrip("/") in self.entries else tuple(inside)


class Memory:
    """Cache for the mirror. With it, the cost of reading the next commit depends on its changes, and not on the size of
    the repository.
    """

    def __init__(self) -> None:
        self.listing: Listing | None = None
        self.texts: dict[str, str | None] = {}  # by blob
        self.changes: dict[tuple[str, str], Changes] = {}  # by the two compared commits
        self.matches: dict[
            tuple[str, ...], tuple[str, frozenset[str]]
        ] = {}  # the commit and the paths, by search texts
        # When the bot starts, several tasks need the same files: with the locks, git reads them once.
        self.reading, self.searching = Lock(), Lock()

    def forget(self) -> None:
        """Clear the data that refers to blobs of the mirror, because the mirror was deleted."""
        self.listing = None
        self.changes.clear()

    def store_text(self, blob: str, text: str | None) -> str | None:
        _make_room(self.texts, 4096)[blob] = text
        return text

    def store_matches(self, texts: tuple[str, ...], commit: str, paths: frozenset[str]) -> tuple[str, ...]:
        _make_room(self.matches, 64)[texts] = (commit, paths)
        return tuple(sorted(paths))


class GitTree:
    """The files of one commit (a `manifests.tree.Tree`). Its objects are in the mirror, so reading needs no network."""

    def __init__(self, mirror: "Mirror", listing: Listing, memory: Memory) -> None:
        self.commit = listing.commit
        self._mirror = mirror
        self._listing = listing
        self._memory = memory

    def read(self, path: str) -> str | None:
        """The text of a file; None if it does not exist, is not text, or is larger than 4 MB."""
        mode, blob = self._listing.entries.get(path, ("", ""))
        if mode not in (REGULAR, EXECUTABLE):
            return None
        with self._memory.reading:
            if blob in self._memory.texts:
                return self._memory.texts[blob]
            return self._memory.store_text(blob, self._mirror.blob_text(blob))

    def files(self, prefix: str) -> tuple[str, ...]:
        """The paths of all files below `prefix` ("" for the whole repository), sorted."""
        return self._listing.below(prefix)

    def content(self, path: str) -> str:
        """git's id of a file's content, even of a binary file; empty if the file does not exist."""
        return self._listing.entries.get(path, ("", ""))[1]

    def grep(self, *texts: str) -> tuple[str, ...]:
        """The paths of the files that contain one of the texts. For a later commit, only changed files are searched."""
        with self._memory.searching:
            commit, matches = self._memory.matches.get(texts, ("", frozenset()))
            changed = self._mirror.changes_between(commit, self.commit) if commit else None
            if changed is None or len(changed) > 100:
                return self._memory.store_matches(texts, self.commit, self._search(texts))
            # Reading the changed files, which are needed in any case, is faster than a git process for each search.
            searched = {path for path in changed if contains(self.read(path), texts)}
            return self._memory.store_matches(texts, self.commit, (matches - changed.keys()) | searched)

    def _search(self, texts: tuple[str, ...]) -> frozenset[str]:
        patterns = [word for text in texts for word in ("-e", text)]
        words = ("--literal-pathspecs", "grep", "-l", "-z", "-I", "-F", *patterns, self.commit, "--")
        output = self._mirror.run(*words, no_match_is=1)
        return frozenset(name.partition(":")[2] for name in os.fsdecode(output).split("\0") if name)


class Mirror:
    """Runs git in one bare directory. Every method blocks."""

    def __init__(self, directory: Path, remote_url: str, token: SecretStr | None, memory: Memory) -> None:
        self._memory = memory
        self._directory = directory
        self._remote_url = remote_url
        self._git = GitProcess(directory, remote_url, token)

    def offline(self) -> "Mirror":
        """The same mirror without the token, for objects that are kept after the call."""
        return Mirror(self._directory, self._remote_url, None, self._memory)

    def fetched_head(self, branch: str) -> str:
        """Fetch the branch and return its newest commit, from the branch's file in the mirror or, if git does not store
        the branch as a file, from git.
        """
        self.fetch(branch)
        file = self._directory / "refs" / "heads" / branch
        head = file.read_text(errors="replace").strip() if file.is_file() else ""
        return (
            head
            if COMMIT.fullmatch(head)
            else self.object_id(f"refs/heads/{branch}", f"The mirror has no branch {branch}.")
        )

    def fetch(self, branch: str = "*") -> None:
        """Fetch a branch, or all branches. A damaged mirror is created again."""
        try:
            self._fetch(branch)
        except MirrorBroken:
            self._memory.forget()
            shutil.rmtree(self._directory)
            self._fetch(branch)

    def _fetch(self, branch: str) -> None:
        """Fetch the history, without file contents if the remote supports that.

        After the first fetch, fetching one branch includes the contents of new commits, so reading them needs no second
        request.

        Fetching one branch takes the same time in a large repository as in a small one. A fetch that includes a branch
        that Stoker pushed is slower: git walks all fetched objects, because that commit did not come from the remote.
        """
        if not (self._directory / "HEAD").exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            self.run("init", "--quiet", "--bare")
        refs = f"+refs/heads/{branch}:refs/heads/{branch}"
        # git marks packs that were fetched with a filter with `.promisor` files, so these exist after the first fetch.
        is_filled = any((self._directory / "objects" / "pack").glob("*.promisor"))
        contents = f"blob:limit={_TEXT}" if is_filled and branch != "*" else "blob:none"
        self.remote("fetch", "--quiet", "--prune", "--no-tags", f"--filter={contents}", "origin", refs)

    def require(self, commit: str) -> None:
        """Fetch all branches unless the mirror has the commit. Raises BotError if it is not in any branch."""
        if self._has(_commit_id(commit)):
            return
        self.fetch()
        if not self._has(commit):
            raise BotError(f"The repository has no commit {commit[:9]}: it was removed from every branch.")

    def listing(self, commit: str) -> Listing:
        """Every path of the commit. Missing blobs are fetched in one request."""
        previous = self._memory.listing
        if previous is not None and previous.commit == _commit_id(commit):
            return previous
        self._memory.listing = (self._listing_from(previous, commit) if previous else None) or self._full_listing(
            commit
        )
        return self._memory.listing

    def _full_listing(self, commit: str) -> Listing:
        self.require(commit)
        self._fetch_missing(self.run("rev-list", "--objects", "--no-walk", "--missing=print", commit))
        entries = {}
        # A path may not be UTF-8. `fsdecode` keeps undecodable bytes, so that git gets the same path back.
        for line in os.fsdecode(self.run("ls-tree", "-r", "-z", "--full-tree", commit)).split("\0")[:-1]:
            description, _, path = line.partition("\t")
            mode, _, blob = description.split(" ")
            entries[path] = (mode, blob)
        return Listing(commit, entries, sorted(entries))

    def _listing_from(self, previous: Listing, commit: str) -> Listing | None:
        """The listing derived from an earlier listing and the changes; None if the mirror lacks one of the commits."""
        changed = self.changes_between(previous.commit, commit)
        if changed is None:
            return None
        blobs = [entry[1] for entry in changed.values() if entry and entry[0] != SUBMODULE]
        if blobs:
            self._fetch_missing(
                self.run("rev-list", "--objects", "--no-walk", "--missing=print", "--stdin", stdin="\n".join(blobs))
            )
        entries, deleted = dict(previous.entries), {path for path, entry in changed.items() if entry is None}
        for path in deleted:
            entries.pop(path, None)
        entries |= {path: entry for path, entry in changed.items() if entry}
        if changed.keys() - deleted <= previous.entries.keys() and not deleted:
            return Listing(commit, entries, previous.paths)
        return Listing(commit, entries, sorted(entries))

    def changes_between(self, before: str, after: str) -> Changes | None:
        """The paths that differ between two commits, with mode and blob at the later one; None for deleted paths.

        Returns None if the mirror lacks one of the commits.
        """
        if before == after:
            return {}
        if (before, after) in self._memory.changes:
            return self._memory.changes[before, after]
        listed = self.run("diff-tree", "-r", "-z", "--no-renames", before, after, "--", no_match_is=128)
        if not listed:
            return {} if self._has(before) and self._has(after) else None
        fields = os.fsdecode(listed).split("\0")[:-1]
        changes: Changes = {}
        for description, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, blob, _ = description.split(" ")
            changes[path] = (mode, blob) if int(mode, 8) else None
        _make_room(self._memory.changes, 8)[before, after] = changes
        return changes

    def _fetch_missing(self, objects: bytes) -> None:
        """Fetch the blobs that are marked as missing in a listing of objects."""
        if missing := [line[1:].decode() for line in objects.split(b"\n") if line.startswith(b"?")]:
            # Without this, git would make one such request for each missing blob (promisor-remote.c).
            options = ["-c", "fetch.negotiationAlgorithm=noop"]
            arguments = ["--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--stdin"]
            self.remote(*options, "fetch", "--quiet", "origin", *arguments, stdin="\n".join(missing) + "\n")

    def object_id(self, expression: str, otherwise: str) -> str:
        """The object id of a revision expression; raises BotError with the message `otherwise` if it has none."""
        output = self.run("rev-parse", "--quiet", "--verify", "--end-of-options", expression, no_match_is=1)
        if not output:
            raise BotError(otherwise)
        return output.decode().strip()

    def commit(self, changes: ChangeSet, base: str, message: str, when: datetime, author: tuple[str, str]) -> str:
        """Create a commit on top of `base` and return its id. The same arguments give the same commit.

        Raises BotError if the changes change nothing. git reads only the directories that it changes.
        """
        present = self.listing(base).entries
        entries = {path: _entry(text, present.get(path), base) for path, text in sorted(changes.files.items())}
        if all(present.get(path) == entry for path, entry in entries.items()):
            raise BotError("There is nothing to change: the repository already has this content.")
        signature = f"{author[0]} <{author[1]}> {int(when.timestamp())} +0000"
        stream = [
            f"commit {BUILT}",
            "mark :1",
            f"author {signature}",
            f"committer {signature}",
            *_data(f"{message.rstrip()}\n"),
        ]
        stream.append(f"from {base}")
        for path, entry in entries.items():
            text = changes.files[path]
            if text is None or entry is None:
                stream.append(f"D {_quoted(path)}")
            else:
                stream += [f"M {entry[0]} inline {_quoted(path)}", *_data(text)]
        stream.append("get-mark :1")
        # The branch is internal to the mirror and temporary: --force allows any move.
        return self.run("fast-import", "--quiet", "--force", stdin="\n".join(stream) + "\n").decode().strip()

    def merge_base(self, first: str, second: str) -> str:
        """The newest commit that is in the history of both commits."""
        output = self.run("merge-base", first, second, no_match_is=1)
        if not output:
            raise BotError(f"Commits {first[:9]} and {second[:9]} have no history in common, so they cannot be merged.")
        return output.decode().split()[0]

    def entries(self, commit: str, paths: Sequence[str]) -> Changes:
        """Mode and blob of these files at a commit. Missing contents are fetched."""
        if not paths:
            return {}
        listed = self.run("--literal-pathspecs", "ls-tree", "-z", "--full-tree", commit, "--", *paths)
        entries: Changes = {}
        for line in os.fsdecode(listed).split("\0")[:-1]:
            description, _, path = line.partition("\t")
            mode, _, blob = description.split(" ")
            entries[path] = (mode, blob)
        blobs = "\n".join(blob for mode, blob in filter(None, entries.values()) if mode != SUBMODULE)
        self._fetch_missing(self.run("rev-list", "--objects", "--no-walk", "--missing=print", "--stdin", stdin=blobs))
        return entries

    @staticmethod
    def blob_id(text: str, commit: str) -> str:
        """git's id of a text; the length of a commit's id determines the repository's hash function."""
        content = text.encode()
        algorithm = hashlib.sha1 if len(commit) == 40 else hashlib.sha256
        return algorithm(b"blob %d\0" % len(content) + content).hexdigest()

    def text(self, entry: tuple[str, str] | None) -> str | None:
        """The text of a file; None if it does not exist, is not text, or is larger than 4 MB."""
        return self.blob_text(entry[1]) if entry and entry[0] in (REGULAR, EXECUTABLE) else None

    def blob_text(self, blob: str) -> str | None:
        """The text of a blob; None if it is not UTF-8, or larger than 4 MB."""
        try:
            return self.run("cat-file", "blob", blob, size=_TEXT).decode()
        except (UnicodeDecodeError, TooMuch):
            return None

    def merge_entries(self, *entries: tuple[str, str] | None) -> str | None:
        """Merge three entries (ours, base, theirs): the text of `ours` with the changes from `base` to `theirs`. None if
        there is a conflict, or if a file is not text.
        """
        ours, base, theirs = (self.text(entry) for entry in entries)
        return None if ours is None or base is None or theirs is None else self._three_way(ours, base, theirs)

    def _three_way(self, ours: str, base: str, theirs: str) -> str | None:
        """`ours` with the difference from `base` to `theirs`; None if both change the same lines."""
        with tempfile.TemporaryDirectory(prefix="stoker-merge-") as scratch:
            names = [Path(scratch, name) for name in ("ours", "base", "theirs")]
            for name, text in zip(names, (ours, base, theirs), strict=True):
                name.write_bytes(text.encode())
            status, merged, _ = self._git.execute(("merge-file", "-p", "-q", *map(str, names)), None, {})
        return merged.decode() if status == 0 else None

    def push(self, commit: str, branch: str, replaces: str) -> None:
        """Push a commit to a branch. With `replaces`, the branch is reset if it is still at that commit.

        Raises PushRefused if the remote refuses the push, unless the branch already contains the commit.
        """
        if not BRANCH.fullmatch(branch):
            raise BotError(f"{branch!r} is not a valid branch name.")
        ref = f"refs/heads/{branch}"
        lease = [f"--force-with-lease={ref}:{replaces}"] if replaces else []
        try:
            self.remote("push", "--quiet", *lease, "origin", f"{commit}:{ref}")
        except complaints.PushRefused:
            self.fetch()
            if not self.contains(ref, commit):
                raise

    def delete(self, branch: str) -> None:
        """Delete a branch on the remote. A missing branch is ignored."""
        ref = f"refs/heads/{branch}"
        if self.remote("ls-remote", "origin", ref):
            self.remote("push", "--quiet", "origin", f":{ref}")

    def contains(self, ref: str, commit: str) -> bool:
        """Return whether the commit is in the history of the ref (a branch or a commit)."""
        return self._git.execute(("merge-base", "--is-ancestor", commit, ref), None, {})[0] == 0

    def remote(self, *arguments: str, stdin: str | None = None) -> bytes:
        """Run a command that connects to the remote. Raises BotError if the remote refuses it, and Unavailable during an
        outage.
        """
        status, output, complaint = self._git.execute(arguments, stdin, {}, seconds=_REMOTE_SECONDS)
        if status == 0:
            return output
        log.warning("git failed", command=arguments[0], status=status, complaint=complaint)
        if BROKEN.search(complaint):
            raise MirrorBroken(_MIRROR, _DAMAGED)
        if missing := MISSING.search(complaint):
            raise BotError(f"The repository has no branch {missing[1]}: create it, or name another.")
        if refused := complaints.refusal(complaint):
            raise refused
        raise Unavailable("the git remote", complaints.outage(complaint) or "Stoker's log has git's message")

    def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        no_match_is: int | None = None,
        size: int = 0,
    ) -> bytes:
        """Run a local command. `no_match_is` is the exit status that means "nothing found"."""
        output = Bounded(size or _OUTPUT)
        status, _, complaint = self._git.execute(arguments, stdin, env or {}, output=output)
        if status not in (0, no_match_is):
            log.warning("git failed", command=arguments[0], status=status, complaint=complaint)
            if BROKEN.search(complaint):
                raise MirrorBroken(_MIRROR, _DAMAGED)
            raise BotError(
                f"git {arguments[0]} failed in Stoker's copy of the repository, see Stoker's log for details. Restart Stoker"
                " with an empty STOKER_DATA_DIR if it happens again."
            )
        return output.whole()

    def _has(self, commit: str) -> bool:
        if not (self._directory / "HEAD").exists():
            return False
        return self._git.execute(("cat-file", "-e", f"{commit}^{{commit}}"), None, {})[0] == 0


def _data(text: str) -> tuple[str, str]:
    """A text in fast-import's format: a line with its length in bytes, and the text."""
    return f"data {len(text.encode())}", text


def _commit_id(text: str) -> str:
    """Return the text if it is a commit id. Otherwise raise BotError, because git could read it as an option or
    expression.
    """
    if not COMMIT.fullmatch(text):
        raise BotError(f"{text!r} is not a commit id.")
    return text


def _entry(text: str | None, present: tuple[str, str] | None, commit: str) -> tuple[str, str] | None:
    """Mode and blob of a changed file; None for a deleted file."""
    if text is None:
        return None
    return (EXECUTABLE if present and present[0] == EXECUTABLE else REGULAR), Mirror.blob_id(text, commit)


def _quoted(path: str) -> str:
    """A path in fast-import's format; raises BotError for a path that no checkout could contain."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or not path.isprintable():
        raise BotError(f"Invalid path {path!r}: nothing is pushed.")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _make_room(cache: dict[Key, Value], size: int) -> dict[Key, Value]:
    """Drop the oldest entries until there is room for one more. Returns the same dictionary."""
    while len(cache) >= size:
        cache.pop(next(iter(cache)))
    return cache
