"""The GitOps repository: read the files of a commit, and change them by pushing one commit.

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
        """The files of a commit, which are fetched if they are not in the mirror."""
        return await self._exclusively(lambda mirror: GitTree(mirror.offline(), mirror.listing(commit), self._memory))

    async def includes(self, later: str, earlier: str) -> bool:
        """Return whether `earlier` is the commit `later` or in its history. False if `later` is not a commit id (a chart's
        version).
        """

        def check(mirror: Mirror) -> bool:
            mirror.require(earlier)
            mirror.require(later)
            return mirror.contains(later, earlier)

        if later == earlier or not COMMIT.fullmatch(later):
            return later == earlier
        return await self._exclusively(check)

    async def after_merge(self, head: str, onto: str) -> "GitTree | MergedTree | None":
        """The files after merging `head` into the commit `onto`; None if both change the same lines."""
        return await self._exclusively(lambda mirror: after_merge(mirror, self._memory, head, onto))

    async def changed_by(self, head: str, onto: str, pushed: str = "") -> dict[str, Touch]:
        """Return the changes of a branch to each file since it diverged from the branch that contains `onto`.

        `pushed` is the bot's commit on that branch; files that differ from that commit were changed by other people.
        """

        def changes_of_files(mirror: Mirror) -> dict[str, Touch]:
            mirror.require(head)
            mirror.require(onto)
            base = mirror.merge_base(head, onto)
            changes = mirror.changes_between(base, head) or {}
            before, pushed_entries = mirror.entries(base, list(changes)), mirror.entries(pushed or head, list(changes))
            return {
                path: Touch((before.get(path) or ("",))[0], (now or ("",))[0], pushed_entries.get(path) != now)
                for path, now in sorted(changes.items())
            }

        return await self._exclusively(changes_of_files)

    async def push(
        self, changes: ChangeSet, *, base: str, branch: str, message: str, when: datetime, replaces: str = ""
    ) -> str:
        """Push one commit with the changes on top of `base` to the branch, and return its id.

        The same arguments give the same commit, so a retry pushes nothing. Raises PushRefused if the branch contains
        commits of other people. With `replaces`, an earlier commit of the bot, the branch is reset if it is still at
        that commit.
        """
        if branch == self._branch:
            raise BotError(f"Stoker does not push to {branch}: changes go there by pull request.")
        return await self._push(changes, base, branch, message, when, replaces)

    async def switch(self, changes: ChangeSet, *, base: str, message: str, when: datetime) -> str:
        """Push one commit on top of `base`, the head, to the main branch, to start or stop a model in git. Returns its id.

        Raises PushRefused if the branch has moved, or if a rule of the remote refuses the push.
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

        `commit` is GitHub's merge commit. `series` are the commits of the pull request, oldest first: a merge by rebase
        puts each of them on the main branch, and `commit` is the last one.

        A file that was changed after the merge is merged line by line. Raises BotError with the files for which that is
        not possible.
        """
        return await self._exclusively(lambda mirror: reversal(mirror, commit, onto, series))

    async def delete_branch(self, branch: str) -> None:
        """Delete the branch on the remote; a missing branch is ignored."""
        if branch == self._branch:
            raise BotError(f"Stoker does not delete {branch}.")
        await self._exclusively(lambda mirror: mirror.delete(branch))

    async def _exclusively(self, work: Callable[[Mirror], Result]) -> Result:
        """Run the work in a thread, exclusively. A thread cannot be cancelled, so the lock is held until it has ended."""
        async with self._lock:
            mirror = Mirror(self._mirror_dir, self._remote_url, await self._credentials(), self._memory)
            thread = asyncio.ensure_future(asyncio.to_thread(work, mirror))
            try:
                return await asyncio.shield(thread)
            except asyncio.CancelledError:
                await asyncio.wait([thread])
                raise
