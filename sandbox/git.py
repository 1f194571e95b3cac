"""The sandbox's git remote: a bare repository on disk, served over smart HTTP.

It uses the real git, with plumbing commands; `sandbox.github` adds GitHub's features (pull requests, checks, webhooks).
"""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MAIN = "main"
_REGULAR_FILES = ("100644", "100755")
_FULL_ID = re.compile(r"[0-9a-f]{40}")


class GitFailed(Exception):
    """A git command failed; the message is git's output."""


class MergeConflict(Exception):
    """The two sides change the same lines."""


@dataclass(frozen=True)
class Person:
    name: str
    email: str


@dataclass(frozen=True)
class FileChange:
    """One file of a diff; `status` and `patch` in GitHub's format."""

    path: str
    status: str
    additions: int
    deletions: int
    patch: str


@dataclass(frozen=True)
class CgiResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes


def _environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which no personal git settings affect the sandbox."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**inherited, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", **(extra or {})}


async def _run(
    *argv: str, env: Mapping[str, str], stdin: bytes = b"", allowed: Sequence[int] = (0,)
) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate(stdin)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):  # it may have exited in the meantime
            process.kill()
        await process.wait()
        raise
    code = process.returncode or 0
    if code not in allowed:
        raise GitFailed(err.decode(errors="replace").strip() or f"{argv[0]} ended with status {code}")
    return code, out


async def seed(path_or_url: str | Path, bare: Path) -> None:
    """Create the bare repository `bare` with a branch main, from a git repo, its URL, or a plain directory."""
    source = Path(path_or_url)
    if _is_plain_directory(source):
        await _commit_directory(source, bare)
        return
    # The caller's own environment is used, because a private repository needs the caller's credentials.
    await _run("git", "clone", "--quiet", "--bare", "--no-hardlinks", str(path_or_url), str(bare), env=os.environ)
    repository = BareRepository(bare)
    if await repository.commit(MAIN) is None:
        await repository.git("branch", MAIN, "HEAD")
    await repository.git("symbolic-ref", "HEAD", f"refs/heads/{MAIN}")


def _is_plain_directory(path: Path) -> bool:
    is_checkout = (path / ".git").exists()
    is_bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
    return path.is_dir() and not is_checkout and not is_bare


async def _commit_directory(directory: Path, bare: Path) -> None:
    await _run("git", "init", "--quiet", "--bare", f"--initial-branch={MAIN}", str(bare), env=_environment())
    repository = BareRepository(bare)
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        await repository.git("--work-tree", str(directory), "add", "--all", "--force", ":/", env=index)
        tree = await repository.git("write-tree", env=index)
    octocat = Person("octocat", "octocat@example.com")
    commit = await repository.commit_tree(tree, (), "chore: the platform as it is", author=octocat)
    await repository.git("update-ref", f"refs/heads/{MAIN}", commit)


class BareRepository:
    """A bare repository: its content at a commit, trial merges, and git's own HTTP server."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        # True if git can merge without a work tree (>= 2.38); determined at the first merge.
        self._plumbing: bool | None = None
        self._files: dict[tuple[str, str], dict[str, str]] = {}
        self._said: dict[tuple[str, ...], str] = {}

    async def git(self, *args: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> str:
        _, out = await _run("git", "--git-dir", str(self.path), *args, env=_environment(env), stdin=stdin)
        return out.decode(errors="replace").rstrip("\n")

    async def _lasting(self, *args: str) -> str:
        """Return git's output for full commit ids, cached because it never changes."""
        if args not in self._said:
            self._said[args] = await self.git(*args)
        return self._said[args]

    async def commit(self, ref: str) -> str | None:
        """Return the commit id of a branch, tag or id; None if there is none."""
        if loose_commit := self._loose(ref):
            return loose_commit
        for name in (f"refs/heads/{ref}", ref):
            code, out = await _run(
                *("git", "--git-dir", str(self.path), "rev-parse", "--verify", "--quiet", "--end-of-options"),
                f"{name}^{{commit}}",
                env=_environment(),
                allowed=(0, 1, 128),
            )
            if code == 0:
                return out.decode().strip()
        return None

    def _loose(self, branch: str) -> str:
        """Return the commit in a branch's file; empty if there is no such file.

        Argo CD reads it several times a second; a git process for each read would take half of the sandbox's time.
        """
        folder = self.path / "refs" / "heads"
        file = (folder / branch).resolve()
        if not file.is_relative_to(folder):
            return ""
        try:
            commit = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return commit if _FULL_ID.fullmatch(commit) else ""

    async def heads(self) -> dict[str, str]:
        """Return the commits by branch name."""
        listing = await self.git("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads")
        pairs = (line.split(" ", 1) for line in listing.splitlines())
        return {branch: commit for commit, branch in pairs}

    async def files_at(self, commit: str, prefix: str = "") -> dict[str, str]:
        """Return the text files below a folder (or one file) at a commit: path -> text."""
        if not _FULL_ID.fullmatch(commit):
            return await self._read(commit, prefix)
        key = commit, prefix.rstrip("/")
        if key not in self._files:  # Argo CD reads the same few folders of a commit repeatedly
            self._files[key] = await self._read(*key)
        return dict(self._files[key])

    async def _read(self, commit: str, prefix: str) -> dict[str, str]:
        pathspec = ("--", prefix.rstrip("/")) if prefix.rstrip("/") else ()
        listing = await self.git("ls-tree", "-r", "-z", "--full-tree", commit, *pathspec)
        entries = [entry.split("\t", 1) for entry in listing.split("\0") if entry]
        blobs = [(path, meta.split()[2]) for meta, path in entries if meta.split()[0] in _REGULAR_FILES]
        return await self._texts(blobs)

    async def _texts(self, blobs: Sequence[tuple[str, str]]) -> dict[str, str]:
        if not blobs:
            return {}
        blob_ids = "".join(f"{blob}\n" for _, blob in blobs).encode()
        _, out = await _run(
            "git", "--git-dir", str(self.path), "cat-file", "--batch", env=_environment(), stdin=blob_ids
        )
        texts: dict[str, str] = {}
        at = 0
        for path, _ in blobs:
            header_end = out.index(b"\n", at)
            size = int(out[at:header_end].split()[-1])
            content = out[header_end + 1 : header_end + 1 + size]
            at = header_end + 1 + size + 1
            if b"\0" not in content:
                texts[path] = content.decode(errors="replace")
        return texts

    async def is_ancestor(self, ancestor: str, commit: str) -> bool:
        code, _ = await _run(
            *("git", "--git-dir", str(self.path), "merge-base", "--is-ancestor", ancestor, commit),
            env=_environment(),
            allowed=(0, 1),
        )
        return code == 0

    async def commits_between(self, base: str, head: str) -> list[str]:
        """Return the commits in `head` that are not in `base`, oldest first."""
        return (await self._lasting("rev-list", "--reverse", f"{base}..{head}")).split()

    async def message(self, commit: str) -> str:
        return await self.git("show", "--no-patch", "--format=%B", commit)

    async def changes(self, base: str, head: str) -> tuple[FileChange, ...]:
        """Return the diff of a pull request, from the merge base to the head."""
        span = f"{base}...{head}"
        stats = await self._lasting("diff", "--no-renames", "--numstat", "-z", span)
        status = (await self._lasting("diff", "--no-renames", "--name-status", "-z", span)).split("\0")
        words = {"A": "added", "D": "removed", "M": "modified", "T": "changed"}
        by_path = dict(zip(status[1::2], status[0::2], strict=False))
        file_changes = []
        for line in filter(None, stats.split("\0")):
            added, deleted, path = line.split("\t", 2)
            diff = await self._lasting("diff", "--no-renames", span, "--", path)
            hunks = diff.find("\n@@")
            file_changes.append(
                FileChange(
                    path=path,
                    status=words.get(by_path.get(path, "M"), "modified"),
                    additions=int(added) if added.isdigit() else 0,  # "-" for a binary file
                    deletions=int(deleted) if deleted.isdigit() else 0,
                    patch=diff[hunks + 1 :] if hunks >= 0 else "",
                )
            )
        return tuple(file_changes)

    async def merge_tree(self, base: str, head: str) -> str:
        """Return the tree after merging `head` into `base`; raises MergeConflict if a person has to resolve it."""
        if self._plumbing is None:
            version = (await self.git("version")).split()[2].split(".")
            self._plumbing = (int(version[0]), int(version[1])) >= (2, 38)
        if not self._plumbing:
            return await self._merge_tree_in_clone(base, head)
        code, out = await _run(
            *("git", "--git-dir", str(self.path), "merge-tree", "--write-tree", base, head),
            env=_environment(),
            allowed=(0, 1),
        )
        if code == 1:
            raise MergeConflict
        return out.decode().strip()

    async def _merge_tree_in_clone(self, base: str, head: str) -> str:
        async with self._clone(base) as clone:
            env = _environment(
                _identity("COMMITTER", Person("GitHub", "noreply@github.com"))
            )  # git merge requires an identity
            code, _ = await _run(
                *("git", "-C", clone, "merge", "--quiet", "--no-commit", "--no-ff", head), env=env, allowed=(0, 1)
            )
            if code == 1:
                raise MergeConflict
            _, tree = await _run("git", "-C", clone, "write-tree", env=env)
            return await self._fetch_object(clone, tree.decode().strip())

    async def rebased(self, base: str, head: str, committer: Person) -> str:
        """Replay `head`'s commits on `base` and return the last new commit; raises MergeConflict."""
        async with self._clone(head) as clone:
            env = _environment(_identity("COMMITTER", committer))
            try:
                await _run("git", "-C", clone, "rebase", "--quiet", "--force-rebase", base, env=env)
            except GitFailed as e:
                raise MergeConflict from e
            _, commit = await _run("git", "-C", clone, "rev-parse", "HEAD", env=env)
            return await self._fetch_object(clone, commit.decode().strip())

    async def _fetch_object(self, clone: str, object_id: str) -> str:
        """Copy an object that was created in a clone into this repository."""
        _, pack = await _run(
            *("git", "-C", clone, "pack-objects", "--revs", "--stdout", "--quiet"),
            env=_environment(),
            stdin=f"{object_id}\n".encode(),
        )
        await self.git("unpack-objects", "-q", stdin=pack)
        return object_id

    @asynccontextmanager
    async def _clone(self, commit: str) -> AsyncIterator[str]:
        with tempfile.TemporaryDirectory() as scratch:
            clone = str(Path(scratch) / "clone")
            env = _environment()
            await _run("git", "clone", "--quiet", "--shared", "--no-checkout", str(self.path), clone, env=env)
            await _run("git", "-C", clone, "checkout", "--quiet", "--detach", commit, env=env)
            yield clone

    async def commit_tree(
        self, tree: str, parents: Sequence[str], message: str, *, author: Person, committer: Person | None = None
    ) -> str:
        parent_options = [option for parent in parents for option in ("-p", parent)]
        env = {**_identity("AUTHOR", author), **_identity("COMMITTER", committer or author)}
        return await self.git("commit-tree", tree, *parent_options, env=env, stdin=message.encode())

    async def commit_file(self, branch: str, path: str, text: str, *, author: Person) -> str:
        """Commit one file to a branch; returns the new commit's id."""
        tip = await self.git("rev-parse", f"refs/heads/{branch}")
        blob = await self.git("hash-object", "-w", "--stdin", stdin=text.encode())
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            await self.git("read-tree", tip, env=index)
            await self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
            tree = await self.git("write-tree", env=index)
        commit = await self.commit_tree(tree, [tip], f"chore: change {path}\n", author=author)
        await self.git("update-ref", f"refs/heads/{branch}", commit, tip)
        return commit

    async def serve(
        self, method: str, tail: str, query: str, headers: Mapping[str, str], body: bytes, user: str
    ) -> CgiResponse:
        """Answer one request of git's smart HTTP protocol with `git http-backend` (CGI, RFC 3875)."""
        env = _environment(
            {
                "GIT_PROJECT_ROOT": str(self.path.parent),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": f"/{self.path.name}/{tail}",
                "REQUEST_METHOD": method,
                "QUERY_STRING": query,
                "CONTENT_TYPE": headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "REMOTE_USER": user,  # http-backend requires this to accept a push
                "REMOTE_ADDR": "127.0.0.1",
                "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
            }
        )
        _, out = await _run("git", "http-backend", env=env, stdin=body)
        head, _, content = out.partition(b"\r\n\r\n")
        answer = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n"))
        status = int(answer.pop("Status", "200").split()[0])
        return CgiResponse(status, answer, content)


def _identity(role: str, person: Person) -> dict[str, str]:
    return {f"GIT_{role}_NAME": person.name, f"GIT_{role}_EMAIL": person.email}
