"""The GitOps repository: reads a commit, changes it by pushing one commit to a separate branch.

git runs in a worker thread, one command sequence at a time, on the mirror of `bot.git.mirror`.
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
from bot.git.merging import MergedTree, after_merge, reversal
from bot.git.mirror import COMMIT, GitTree, Memory, Mirror
from bot.progress import going_to
from manifests.strays import Touch
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
        name: str = "",
    ) -> None:
        """`author` has the form `Name <address>`; `name` is `owner/name` on GitHub."""
        if urlsplit(remote_url).password:
            raise BotError("The git remote's URL contains a password: remove it and set GITHUB_TOKEN.")
        self._mirror_dir = mirror_dir
        self._remote_url = remote_url
        self._branch = branch
        self._credentials = credentials
        self._author = parseaddr(author)
        self.name = name
        self._lock = asyncio.Lock()
        self.newest = ""
        """The head of the branch when it was last fetched."""
        self._memory = Memory()

    async def head(self) -> str:
        """The newest commit of the branch, fetched now."""
        self.newest = await self._exclusively(lambda mirror: mirror.fetched_head(self._branch))
        return self.newest

    async def tree(self, commit: str) -> GitTree:
        """The files of a commit, fetched if the mirror lacks them."""
        return await self._exclusively(lambda mirror: GitTree(mirror.offline(), mirror.listing(commit), self._memory))

    async def includes(self, later: str, earlier: str) -> bool:
        """Return whether the commit `earlier` is `later` or in its history; False for other text (a chart's version)."""

        def look(mirror: Mirror) -> bool:
            mirror.need(earlier)
            mirror.need(later)
            return mirror.contains(later, earlier)

        if later == earlier or not COMMIT.fullmatch(later):
            return later == earlier
        return await self._exclusively(look)

    async def after_merge(self, head: str, onto: str) -> "GitTree | MergedTree | None":
        """The files after merging `head` into the commit `onto`; None if both change the same lines."""
        return await self._exclusively(lambda mirror: after_merge(mirror, self._memory, head, onto))

    async def changed_by(self, head: str, onto: str, pushed: str = "") -> dict[str, Touch]:
        """Return the changes of a branch to each file since it diverged from the branch that contains `onto`.

        `pushed` is the bot's own commit on it: differences from it are other people's.
        """

        def look(mirror: Mirror) -> dict[str, Touch]:
            mirror.need(head)
            mirror.need(onto)
            base = mirror.merge_base(head, onto)
            changes = mirror.changed(base, head) or {}
            before, ours = mirror.entries(base, list(changes)), mirror.entries(pushed or head, list(changes))
            return {
                path: Touch((before.get(path) or ("",))[0], (now or ("",))[0], ours.get(path) != now)
                for path, now in sorted(changes.items())
            }

        return await self._exclusively(look)

    async def push(
        self, changes: ChangeSet, *, base: str, branch: str, message: str, when: datetime, replaces: str = ""
    ) -> str:
        """Push one commit with the changes on top of `base` to the branch, and return its id.

        The same arguments give the same commit, so a retry pushes nothing. Raises PushRefused if the branch contains
        other work; a branch with later commits of people is not changed. A branch is only moved if it is still exactly
        at `replaces`, an earlier commit of the bot.
        """
        if branch == self._branch:
            raise BotError(f"Stoker does not push to {branch}: changes go there by pull request.")
        return await self._push(changes, base, branch, message, when, replaces)

    async def switch(self, changes: ChangeSet, *, base: str, message: str, when: datetime) -> str:
        """Push one commit on top of `base`, the head, to the branch itself: this starts or stops a model in git.

        Raises PushRefused if the branch has moved, or refuses it.
        """
        return await self._push(changes, base, self._branch, message, when, "")

    async def _push(
        self, changes: ChangeSet, base: str, branch: str, message: str, when: datetime, replaces: str
    ) -> str:
        await going_to(f"push {branch}")

        def build_and_push(mirror: Mirror) -> str:
            commit = mirror.commit(changes, base, message, when, self._author)
            mirror.push(commit, branch, replaces)
            return commit

        return await self._exclusively(build_and_push)

    async def reversal(self, commit: str, onto: str, series: Sequence[Commit] = ()) -> ChangeSet:
        """The changes that revert a merged pull request on top of the commit `onto`.

        `commit` is GitHub's merge commit, `series` are the commits of the pull request, oldest first: a merge by rebase
        put each of them on the main branch, and `commit` is only the last of them.

        A file that was changed since is merged line by line; raises BotError with the files for which that is not
        possible.
        """
        return await self._exclusively(lambda mirror: reversal(mirror, commit, onto, series))

    async def delete_branch(self, branch: str) -> None:
        """Delete the branch on the remote; a missing branch is ignored."""
        if branch == self._branch:
            raise BotError(f"Stoker does not delete {branch}.")
        await self._exclusively(lambda mirror: mirror.delete(branch))

    async def _exclusively(self, work: Callable[[Mirror], Result]) -> Result:
        """Run the work in a thread, exclusively. A thread cannot be cancelled: the lock is held until it has ended."""
        async with self._lock:
            mirror = Mirror(self._mirror_dir, self._remote_url, await self._credentials(), self._memory)
            thread = asyncio.ensure_future(asyncio.to_thread(work, mirror))
            try:
                return await asyncio.shield(thread)
            except asyncio.CancelledError:
                await asyncio.wait([thread])
                raise
