"""The GitOps repository: read at a commit, changed by pushing one commit to a branch of its own.

git runs in a worker thread, one command sequence at a time, on the mirror of `bot.mirror`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from email.utils import parseaddr
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from bot.clients.github import Commit
from bot.errors import BotError
from bot.mirror import COMMIT, GitTree, Memory, Mirror
from manifests.tree import ChangeSet

Result = TypeVar("Result")


class Repository:
    """One remote repository, its mirror, and the branch that Argo CD follows."""

    def __init__(
        self,
        mirror_dir: Path,
        remote_url: str,
        branch: str,
        credentials: Callable[[], Awaitable[SecretStr | None]],
        author: str,
    ) -> None:
        """`author` is written `Name <address>`."""
        if urlsplit(remote_url).password:
            raise BotError("The git remote's URL holds a password: leave it out and set GITHUB_TOKEN.")
        self._mirror_dir = mirror_dir
        self._remote_url = remote_url
        self._branch = branch
        self._credentials = credentials
        self._author = parseaddr(author)
        self._lock = asyncio.Lock()
        self._memory = Memory()

    async def head(self) -> str:
        """The newest commit of the branch, fetched now."""
        return await self._exclusively(lambda mirror: mirror.fetched_head(self._branch))

    async def tree(self, commit: str) -> GitTree:
        """The files of a commit, fetched if the mirror lacks them."""
        return await self._exclusively(lambda mirror: GitTree(mirror.offline(), mirror.listing(commit), self._memory))

    async def subtree_id(self, commit: str, path: str) -> str:
        """git's id of a directory or file at a commit: equal ids mean equal content."""

        def look(mirror: Mirror) -> str:
            mirror.need(commit)
            return mirror.object_id(f"{commit}:{path.strip('/')}", f"{path} does not exist at commit {commit[:9]}.")

        return await self._exclusively(look)

    async def includes(self, later: str, earlier: str) -> bool:
        """Whether the commit `earlier` is `later` itself or in its history; no for what is no commit (a chart's version)."""

        def look(mirror: Mirror) -> bool:
            mirror.need(earlier)
            mirror.need(later)
            return mirror.contains(later, earlier)

        if later == earlier or not COMMIT.fullmatch(later):
            return later == earlier
        return await self._exclusively(look)

    async def push(
        self, changes: ChangeSet, *, base: str, branch: str, message: str, when: datetime, replaces: str = ""
    ) -> str:
        """Push one commit with the changes on top of `base` to the branch, and return its id.

        The same arguments give the same commit, so repeating the call pushes nothing. A branch that holds other work
        is PushRefused; one that people have built upon since is left as it is. Only a branch that is still exactly at
        the commit `replaces`, an earlier one of ours, is moved off it.
        """
        if branch == self._branch:
            raise BotError(f"Stoker does not push to {branch}: changes go there by pull request.")

        def build_and_push(mirror: Mirror) -> str:
            commit = mirror.commit(changes, base, message, when, self._author)
            mirror.push(commit, branch, replaces)
            return commit

        return await self._exclusively(build_and_push)

    async def reversal(self, commit: str, onto: str, series: Sequence[Commit] = ()) -> ChangeSet:
        """What takes back a merged pull request on top of the commit `onto`.

        `commit` is what GitHub calls its merge commit, `series` are the commits that it was made of, oldest first: a
        merge by rebase put each of them on the main branch, and `commit` is only the last of them.

        A file that was changed since is merged line by line; BotError names those where that cannot be done.
        """
        return await self._exclusively(lambda mirror: mirror.reversal(commit, onto, series))

    async def delete_branch(self, branch: str) -> None:
        """Delete the branch on the remote; one that is gone already is fine."""
        if branch == self._branch:
            raise BotError(f"Stoker does not delete {branch}.")
        await self._exclusively(lambda mirror: mirror.delete(branch))

    async def _exclusively(self, work: Callable[[Mirror], Result]) -> Result:
        """Do the work in a thread, alone. A thread cannot be cancelled: the lock is kept until it has ended."""
        async with self._lock:
            mirror = Mirror(self._mirror_dir, self._remote_url, await self._credentials(), self._memory)
            thread = asyncio.ensure_future(asyncio.to_thread(work, mirror))
            try:
                return await asyncio.shield(thread)
            except asyncio.CancelledError:
                await asyncio.wait([thread])
                raise
