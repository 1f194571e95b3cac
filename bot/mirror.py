"""The mirror of the GitOps repository on disk: a bare one, kept up to date by `git fetch`, without a work tree or an index.

A commit is imported from nothing but its inputs, so that the same ones give the same commit id, and a step that is
repeated after a crash pushes nothing new. Everything here blocks, and is called by `bot.gitops` from a thread.

The token reaches git in environment variables alone (GIT_CONFIG_*): never in a URL, an argument or a log line.
"""

import base64
import hashlib
import os
import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from bot.clients.github import Commit
from bot.errors import BotError, Unavailable
from manifests.tree import ChangeSet

Key = TypeVar("Key")
Kept = TypeVar("Kept")

REGULAR, EXECUTABLE, SUBMODULE = "100644", "100755", "160000"
BUILT = "refs/stoker/built"
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
BRANCH = re.compile(r"[\w-]+([./][\w-]+)*", re.ASCII)
"""A part of what git takes for a branch's name, and all that we ever call one."""

Changes = dict[str, tuple[str, str] | None]
"""Paths with their new mode and blob, None for one that is gone."""

# What a remote says when a retry would not help; anything else that a remote does is taken for an outage.
PERMANENT = re.compile(
    r"Authentication failed|could not read (Username|Password)|returned error: 40[134]|Permission denied"
    r"|[Rr]epository '?.*'? ?(not found|does not exist)|does not appear to be a git repository"
    r"|transport '.*' not allowed"
    r"|\[(remote )?rejected\]|pre-receive hook declined"
)


MISSING = re.compile(r"couldn't find remote ref refs/heads/(\S+)")

# What a kill in the middle of a command leaves behind.
BROKEN = re.compile(r"\.lock': File exists|not a git repository:|object file .* is empty|loose object .* is corrupt")


class MirrorBroken(Unavailable):
    """The mirror on disk is damaged. It is only a copy: the next fetch makes it anew."""

    remedy = "Nothing: the mirror is made anew from the remote."


class PushRefused(BotError):
    """The remote did not take the commit: the branch holds other work, or a rule forbids it."""

    remedy = "Read the remote's reason: a rule of the repository forbids the branch, or the token may not write."


@dataclass(frozen=True)
class Listing:
    """Every path of one commit with its mode and blob, and the paths in order."""

    commit: str
    entries: Mapping[str, tuple[str, str]]
    paths: Sequence[str]

    def below(self, prefix: str) -> tuple[str, ...]:
        folder = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        first = bisect_left(self.paths, folder)
        inside = self.paths[first : bisect_left(self.paths, folder[:-1] + "0", first)] if folder else self.paths
        return (prefix.rstrip("/"), *inside) if prefix.rstrip("/") in self.entries else tuple(inside)


class Memory:
    """What was read of the mirror: with it the next commit costs what it changes, however large the repository is."""

    def __init__(self) -> None:
        self.listing: Listing | None = None
        self.texts: dict[str, str | None] = {}  # by blob, which never changes
        self.changes: dict[tuple[str, str], Changes] = {}  # by the two commits that were compared
        self.found: dict[str, tuple[str, frozenset[str]]] = {}  # the commit and paths of what was searched for

    def forget(self) -> None:
        """The mirror was lost, and with it the blobs that the listing vouches for."""
        self.listing = None
        self.changes.clear()

    def keep_text(self, blob: str, text: str | None) -> str | None:
        _bounded(self.texts, 4096)[blob] = text
        return text

    def keep_found(self, text: str, commit: str, paths: frozenset[str]) -> tuple[str, ...]:
        _bounded(self.found, 64)[text] = (commit, paths)
        return tuple(sorted(paths))


class GitTree:
    """The files of one commit (a `manifests.tree.Tree`). Its objects are in the mirror: reading needs no network."""

    def __init__(self, mirror: "Mirror", listing: Listing, memory: Memory) -> None:
        self.commit = listing.commit
        self._mirror = mirror
        self._listing = listing
        self._memory = memory

    def read(self, path: str) -> str | None:
        """The text of a file; None when there is no such file, or it is no text."""
        mode, blob = self._listing.entries.get(path, ("", ""))
        if mode not in (REGULAR, EXECUTABLE):
            return None
        if blob in self._memory.texts:
            return self._memory.texts[blob]
        try:
            text = self._mirror.run("cat-file", "blob", blob).decode()
        except UnicodeDecodeError:
            text = None
        return self._memory.keep_text(blob, text)

    def files(self, prefix: str) -> tuple[str, ...]:
        """The paths of all files below `prefix` ("" for the whole repository), sorted."""
        return self._listing.below(prefix)

    def grep(self, text: str) -> tuple[str, ...]:
        """The paths of the files that contain the text. Asked again at a later commit, only what changed is searched."""
        commit, known = self._memory.found.get(text, ("", frozenset()))
        changed = self._mirror.changed(commit, self.commit) if commit else None
        if changed is None or len(changed) > 1000:
            return self._memory.keep_found(text, self.commit, self._search(text))
        searched = self._search(text, *changed) if changed else frozenset()
        return self._memory.keep_found(text, self.commit, (known - changed.keys()) | searched)

    def _search(self, text: str, *paths: str) -> frozenset[str]:
        words = ("--literal-pathspecs", "grep", "-l", "-z", "-I", "-F", "-e", text, self.commit, "--", *paths)
        found = self._mirror.run(*words, no_match_is=1)
        return frozenset(name.partition(":")[2] for name in os.fsdecode(found).split("\0") if name)


class Mirror:
    """git in one bare directory; every method blocks."""

    def __init__(self, directory: Path, remote_url: str, token: SecretStr | None, memory: Memory) -> None:
        self._memory = memory
        self._directory = directory
        self._remote_url = remote_url
        self._token = token
        self._environment = _environment(remote_url, token)

    def offline(self) -> "Mirror":
        """The same mirror without the token, for readers that outlive it."""
        return Mirror(self._directory, self._remote_url, None, self._memory)

    def fetched_head(self, branch: str) -> str:
        self.fetch(branch)
        return self.object_id(f"refs/heads/{branch}", f"The mirror has no branch {branch}.")

    def fetch(self, branch: str = "*") -> None:
        """Bring a branch, or all of them, up to date; a mirror that an earlier kill left broken is made anew."""
        try:
            self._fetch(branch)
        except MirrorBroken:
            self._memory.forget()
            shutil.rmtree(self._directory)
            self._fetch(branch)

    def _fetch(self, branch: str) -> None:
        """History comes without file contents where the remote can leave them out.

        One branch is fetched as fast in a large repository as in a small one. With a branch in it that we pushed
        ourselves, git goes through everything that it ever fetched: its commit did not come from the remote.
        """
        if not (self._directory / "HEAD").exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            self.run("init", "--quiet", "--bare")
        refs = f"+refs/heads/{branch}:refs/heads/{branch}"
        self.remote("fetch", "--quiet", "--prune", "--no-tags", "--filter=blob:none", "origin", refs)

    def need(self, commit: str) -> None:
        """Make sure that the mirror has the commit."""
        if self._has(_commit_id(commit)):
            return
        self.fetch()
        if not self._has(commit):
            raise BotError(f"The repository has no commit {commit[:9]}: it was removed from every branch.")

    def listing(self, commit: str) -> Listing:
        """Every path of the commit; blobs that the mirror lacks are fetched in one request."""
        known = self._memory.listing
        if known is not None and known.commit == _commit_id(commit):
            return known
        self._memory.listing = (self._since(known, commit) if known else None) or self._whole(commit)
        return self._memory.listing

    def _whole(self, commit: str) -> Listing:
        self.need(commit)
        self._complete(self.run("rev-list", "--objects", "--no-walk", "--missing=print", commit))
        entries = {}
        # A path need not be UTF-8: what is no text in it survives the way back to git.
        for line in os.fsdecode(self.run("ls-tree", "-r", "-z", "--full-tree", commit)).split("\0")[:-1]:
            about, _, path = line.partition("\t")
            mode, _, blob = about.split(" ")
            entries[path] = (mode, blob)
        return Listing(commit, entries, sorted(entries))

    def _since(self, known: Listing, commit: str) -> Listing | None:
        """The listing from an earlier one and what has changed; None where the mirror lacks one of the commits."""
        changed = self.changed(known.commit, commit)
        if changed is None:
            return None
        blobs = [entry[1] for entry in changed.values() if entry and entry[0] != SUBMODULE]
        if blobs:
            self._complete(
                self.run("rev-list", "--objects", "--no-walk", "--missing=print", "--stdin", stdin="\n".join(blobs))
            )
        entries, gone = dict(known.entries), {path for path, entry in changed.items() if entry is None}
        for path in gone:
            entries.pop(path, None)
        entries |= {path: entry for path, entry in changed.items() if entry}
        if changed.keys() - gone <= known.entries.keys() and not gone:
            return Listing(commit, entries, known.paths)
        return Listing(commit, entries, sorted(entries))

    def changed(self, before: str, after: str) -> Changes | None:
        """The paths that differ between two commits, with mode and blob at the later one; None where it has none.

        None altogether where the mirror lacks one of the commits.
        """
        if before == after:
            return {}
        if (before, after) in self._memory.changes:
            return self._memory.changes[before, after]
        listed = self.run("diff-tree", "-r", "-z", "--no-renames", before, after, "--", no_match_is=128)
        if not listed:
            return {} if self._has(before) and self._has(after) else None
        fields = os.fsdecode(listed).split("\0")[:-1]
        found: Changes = {}
        for about, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, blob, _ = about.split(" ")
            found[path] = (mode, blob) if int(mode, 8) else None
        _bounded(self._memory.changes, 8)[before, after] = found
        return found

    def _complete(self, objects: bytes) -> None:
        """Fetch the blobs that a listing of objects marks as missing."""
        if missing := [line[1:].decode() for line in objects.split(b"\n") if line.startswith(b"?")]:
            # The request that git makes by itself for one blob, for all of them (promisor-remote.c).
            options = ["-c", "fetch.negotiationAlgorithm=noop"]
            asked = ["--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--stdin"]
            self.remote(*options, "fetch", "--quiet", "origin", *asked, stdin="\n".join(missing) + "\n")

    def object_id(self, expression: str, otherwise: str) -> str:
        found = self.run("rev-parse", "--quiet", "--verify", "--end-of-options", expression, no_match_is=1)
        if not found:
            raise BotError(otherwise)
        return found.decode().strip()

    def commit(self, changes: ChangeSet, base: str, message: str, when: datetime, author: tuple[str, str]) -> str:
        """A commit on top of `base`, made of nothing but its arguments: git reads the directories that it touches alone."""
        present = self.listing(base).entries
        wanted = {path: _entry(text, present.get(path), base) for path, text in sorted(changes.files.items())}
        if all(present.get(path) == entry for path, entry in wanted.items()):
            raise BotError("There is nothing to change: the repository says so already.")
        who = f"{author[0]} <{author[1]}> {int(when.timestamp())} +0000"
        stream = [f"commit {BUILT}", "mark :1", f"author {who}", f"committer {who}", *_data(f"{message.rstrip()}\n")]
        stream.append(f"from {base}")
        for path, entry in wanted.items():
            text = changes.files[path]
            if text is None or entry is None:
                stream.append(f"D {_quoted(path)}")
            else:
                stream += [f"M {entry[0]} inline {_quoted(path)}", *_data(text)]
        stream.append("get-mark :1")
        # The branch is the mirror's own and holds nothing that is kept: --force lets it go anywhere.
        return self.run("fast-import", "--quiet", "--force", stdin="\n".join(stream) + "\n").decode().strip()

    def reversal(self, commit: str, onto: str, series: Sequence[Commit] = ()) -> ChangeSet:
        """See `Repository.reversal`."""
        self.need(commit)
        before = self._before(commit, series)
        was_there, was_made, is_now = (self.listing(at).entries for at in (before, commit, onto))
        files: dict[str, str | None] = {}
        stuck = []
        for path in self.changed(before, commit) or {}:
            was, made, now = was_there.get(path), was_made.get(path), is_now.get(path)
            if now == was:
                continue
            if now == made:
                old = None if was is None else self._text(was)
                files[path] = old
                stuck += [path] if was is not None and old is None else []
            else:
                merged = self._merged(now, made, was)
                files[path] = merged
                stuck += [path] if merged is None else []
        if stuck:
            raise BotError(f"Changed since, so it cannot be taken back by itself: {', '.join(stuck)}. Revert by hand.")
        return ChangeSet(files=files)

    def _before(self, commit: str, series: Sequence[Commit]) -> str:
        """The commit that a pull request was merged onto.

        A merge commit and a squash have it as their first parent. A rebase put the request's `series` (oldest first)
        there one by one, and leaves author, date and message of each as they were; one that changes nothing is left out.
        """
        asked = ["log", "--first-parent", f"--max-count={len(series) + 1}", "--format=%P%x00%ae%x00%at%x00%B%x1e"]
        lines = self.run(*asked, commit, "--").decode(errors="replace").split("\x1e")
        there = [line.strip("\n").split("\0") for line in lines if line.strip()]
        begin = commit
        for made in reversed(series):
            if not there:
                break
            parents, by, at, message = there[0]
            if len(parents.split()) == 1 and made == Commit(by=by, at=int(at), message=message.strip()):
                begin = parents
                there = there[1:]
        if begin == commit:
            begin = self.object_id(f"{commit}^1", f"Commit {commit[:9]} has no parent to go back to.")
        return begin

    def _text(self, entry: tuple[str, str] | None) -> str | None:
        """The text of a file; None when there is none, or it is no text."""
        if entry is None or entry[0] not in (REGULAR, EXECUTABLE):
            return None
        try:
            return self.run("cat-file", "blob", entry[1]).decode()
        except UnicodeDecodeError:
            return None

    def _merged(self, *entries: tuple[str, str] | None) -> str | None:
        ours, base, theirs = (self._text(entry) for entry in entries)
        return None if ours is None or base is None or theirs is None else self._three_way(ours, base, theirs)

    def _three_way(self, ours: str, base: str, theirs: str) -> str | None:
        """`ours` with the difference from `base` to `theirs`; None where the two touch the same lines."""
        with tempfile.TemporaryDirectory(prefix="stoker-merge-") as scratch:
            names = [Path(scratch, name) for name in ("ours", "base", "theirs")]
            for name, text in zip(names, (ours, base, theirs), strict=True):
                name.write_bytes(text.encode())
            status, merged, _ = self._execute(("merge-file", "-p", "-q", *map(str, names)), None, {})
        return merged.decode() if status == 0 else None

    def push(self, commit: str, branch: str, replaces: str) -> None:
        if not BRANCH.fullmatch(branch):
            raise BotError(f"{branch!r} is no name for a branch.")
        ref = f"refs/heads/{branch}"
        lease = [f"--force-with-lease={ref}:{replaces}"] if replaces else []
        try:
            self.remote("push", "--quiet", *lease, "origin", f"{commit}:{ref}")
        except PushRefused:
            self.fetch()
            if not self.contains(ref, commit):
                raise

    def delete(self, branch: str) -> None:
        ref = f"refs/heads/{branch}"
        if self.remote("ls-remote", "origin", ref):
            self.remote("push", "--quiet", "origin", f":{ref}")

    def contains(self, ref: str, commit: str) -> bool:
        """Whether the commit is in the history of the ref (a branch or a commit)."""
        return self._execute(("merge-base", "--is-ancestor", commit, ref), None, {})[0] == 0

    def remote(self, *arguments: str, stdin: str | None = None) -> bytes:
        """Run a command that talks to the remote, and tell outages from refusals."""
        status, output, complaint = self._execute(arguments, stdin, {})
        if status == 0:
            return output
        reason = complaint or f"git ended with status {status}"
        if BROKEN.search(complaint):
            raise MirrorBroken("the git mirror", reason)
        if missing := MISSING.search(complaint):
            raise BotError(f"The repository has no branch {missing[1]}: create it, or name another.")
        if "rejected]" in complaint:
            raise PushRefused(f"The git remote refused the push: {reason}.")
        if PERMANENT.search(complaint):
            raise BotError(f"The git remote refused: {reason}. Check GIT_REMOTE_URL and the token's rights.")
        raise Unavailable("the git remote", reason)

    def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        no_match_is: int | None = None,
    ) -> bytes:
        """Run a local command. `no_match_is` is the status that means "nothing found", not a failure."""
        status, output, complaint = self._execute(arguments, stdin, env or {})
        if status not in (0, no_match_is):
            if BROKEN.search(complaint):
                raise MirrorBroken("the git mirror", complaint)
            raise BotError(f"git {arguments[0]} failed in the mirror: {complaint or f'status {status}'}.")
        return output

    def _has(self, commit: str) -> bool:
        if not (self._directory / "HEAD").exists():
            return False
        return self._execute(("cat-file", "-e", f"{commit}^{{commit}}"), None, {})[0] == 0

    def _execute(self, arguments: tuple[str, ...], stdin: str | None, env: Mapping[str, str]) -> tuple[int, bytes, str]:
        """Status, output and complaint. GitPython's own exception is not raised: its text is not ours to vouch for."""
        # Without git on PATH the import alone would raise; so it is told where git is needed, and by the doctor.
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import git  # 3 MiB, for the first request that is about files; a bot that only lights the GPU needs none of it

        with tempfile.TemporaryFile() as typed:
            typed.write((stdin or "").encode())
            typed.seek(0)
            try:
                status, output, complaint = git.Git(str(self._directory)).execute(
                    ["git", f"--git-dir={self._directory}", *arguments],
                    istream=typed,
                    env={**self._environment, **env},
                    with_extended_output=True,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                )
            except git.GitCommandNotFound as error:
                raise BotError("There is no git on PATH: install it; the image has it.") from error
        return status, _bytes(output), self._scrubbed(_bytes(complaint).decode(errors="replace"))

    def _scrubbed(self, complaint: str) -> str:
        """The complaint in one line, without any form of the token."""
        if self._token is not None:
            for form in (self._token.get_secret_value().strip(), _basic(self._token)):
                complaint = complaint.replace(form, "***")
        return " ".join(complaint.split())[-800:].rstrip(".")


def _environment(remote_url: str, token: SecretStr | None) -> dict[str, str]:
    """git's whole configuration of the remote. A stalled transfer ends after a minute."""
    config = [("remote.origin.url", remote_url), ("http.lowSpeedLimit", "100"), ("http.lowSpeedTime", "60")]
    address = urlsplit(remote_url)
    if token is not None and address.scheme in ("http", "https"):
        # For this host alone, lest a redirect carry the token elsewhere; and no helper of the machine is asked.
        config += [
            (f"http.{address.scheme}://{address.netloc}/.extraHeader", f"Authorization: Basic {_basic(token)}"),
            ("credential.helper", ""),
        ]
    return {
        **{f"GIT_CONFIG_KEY_{i}": key for i, (key, _) in enumerate(config)},
        **{f"GIT_CONFIG_VALUE_{i}": text for i, (_, text) in enumerate(config)},
        "GIT_CONFIG_COUNT": str(len(config)),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    }


def _basic(token: SecretStr) -> str:
    return base64.b64encode(f"x-access-token:{token.get_secret_value().strip()}".encode()).decode()


def _bytes(output: str | bytes | None) -> bytes:
    return output.encode() if isinstance(output, str) else output or b""


def _data(text: str) -> tuple[str, str]:
    """Text as fast-import reads it: its length in bytes, then itself."""
    return f"data {len(text.encode())}", text


def _commit_id(text: str) -> str:
    """The text, which git would else take for an option or another expression; BotError when it is no commit's id."""
    if not COMMIT.fullmatch(text):
        raise BotError(f"{text!r} is not a commit id.")
    return text


def _entry(text: str | None, present: tuple[str, str] | None, commit: str) -> tuple[str, str] | None:
    """Mode and blob of a file as it will be; None for one that is deleted. The blob's id is a hash like the commit's."""
    if text is None:
        return None
    content = text.encode()
    algorithm = hashlib.sha1 if len(commit) == 40 else hashlib.sha256
    blob = algorithm(b"blob %d\0" % len(content) + content).hexdigest()
    return (EXECUTABLE if present and present[0] == EXECUTABLE else REGULAR), blob


def _quoted(path: str) -> str:
    """A path as fast-import reads it; BotError for one that no checkout could hold."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or not path.isprintable():
        raise BotError(f"Invalid path {path!r}: nothing is pushed.")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _bounded(kept: dict[Key, Kept], size: int) -> dict[Key, Kept]:
    """The dictionary with room for one more: the oldest goes."""
    while len(kept) >= size:
        kept.pop(next(iter(kept)))
    return kept
