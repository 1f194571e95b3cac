"""Starts and stops a model with a commit that changes its replicas in git, for deployers that revert changes through
the API.
"""

import asyncio

import structlog

from bot.clients.application import Application
from bot.clients.cluster import Cluster
from bot.clients.deployer import Deployer, ignore_message
from bot.clients.github import GitHub
from bot.clients.workload import Workload
from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.errors import BotError, Unavailable
from bot.git.complaints import PushRefused
from bot.git.repository import Repository
from bot.platform.deploying import Applications
from bot.settings.config import Config
from bot.text.mrkdwn import md
from bot.views import code
from manifests import replicas as in_git
from manifests.platform import Platform
from manifests.tree import ChangeSet, ManifestError

log = structlog.get_logger(__name__)

_ROUNDS = 5
"""Maximum number of attempts to push to a branch that changes at the same time."""


@component
class ByCommit:
    """The method for the models of Flux, and of Argo CD with `selfHeal`; for all models if `switch.by` is `commit`."""

    deployer: Deployer
    cluster: Cluster
    github: GitHub
    repository: Repository
    applications: Applications
    config: Config
    clock: Clock

    async def applies(self, workload: Workload | None) -> bool:
        """Return whether the deployer would revert a change through the API."""
        return workload is not None and await reverting(self.deployer, self.config.switch.by, workload) is not None

    async def set(
        self, model: str, replicas: int, *, lease: Lease | None, fence: int | None, session: Lease | None
    ) -> bool:
        """Commit the replicas, wait until the deployer has applied them, and set the annotation; see `Method.set`."""
        mark = lease.mark if lease else None
        workload = await self.cluster.workload(model)
        application = await reverting(self.deployer, self.config.switch.by, workload) if workload else None
        if application is None:  # the Deployment or its application was deleted in the meantime
            return await self.cluster.scale(model, replicas, lease=mark, fence=fence)
        if replicas:
            await self.cluster.claim(model, mark, fence)
        else:  # scale down first to save cost; the deployer may revert that until it has the commit
            await self.cluster.scale(model, 0, lease=mark, fence=fence)
        session = lease or session
        commit = await self._commit_replicas(model, replicas, session)
        await self.applications.bring_to(
            application.name, commit, actor=session.holder if session else "stoker", on_message=ignore_message
        )
        changed = await self.cluster.scale(model, replicas, lease=mark, fence=fence)
        return changed or bool(workload and workload.replicas != replicas)

    async def _commit_replicas(self, model: str, replicas: int, lease: Lease | None) -> str:
        """Commit the replicas; returns the new commit, or the newest commit if it already has these replicas."""
        for _ in range(_ROUNDS):
            head = await self.repository.head()
            platform = Platform(await self.repository.tree(head), self.config.platform)
            try:
                changes = await asyncio.to_thread(in_git.with_replicas, platform, model, replicas)
            except ManifestError as error:
                raise BotError(str(error)) from error
            if not changes.files:
                return head
            try:
                return await self._push(model, replicas, lease, changes, head)
            except PushRefused as refused:
                if await self.repository.head() == head:
                    raise BotError(
                        md(
                            "{branch} does not accept Stoker's commit: {why} Allow its account to push there, or set `switch.merge: pull`.",
                            branch=code(self.config.platform.branch),
                            why=refused.shown,
                        )
                    ) from refused
                log.info("the branch moved, trying again", model=model)
        raise Unavailable("git", f"{self.config.platform.branch} changes too often to push the replicas of {model}")

    async def _push(self, model: str, replicas: int, lease: Lease | None, changes: ChangeSet, head: str) -> str:
        config, branch = self.config, self.config.platform.branch
        title = f"chore({model}): {'start' if replicas else 'stop'} the model"
        trailers = f"Requested-by: {lease.holder}\nOperation: {lease.op}" if lease else "Requested-by: stoker"
        message = f"{title}\n\nStoker sets the replicas in git, because {self.deployer.word} reverts changes through the API.\n\n{trailers}"
        now = self.clock()
        if config.switch.merge == "push":
            return await self.repository.switch(changes, base=head, message=message, when=now)
        own_branch = f"stoker/{'start' if replicas else 'stop'}-{model}"
        await self.github.withdraw(own_branch)  # the pull request of an interrupted attempt, if there is one
        pushed = await self.repository.push(changes, base=head, branch=own_branch, message=message, when=now)
        pull = await self.github.open_pull(own_branch, branch, title, message, config.github.labels)
        merged = await self.github.merge(pull.number, pushed, branch)
        await self.github.delete_branch(own_branch)
        return merged


async def reverting(deployer: Deployer, by: str, workload: Workload) -> Application | None:
    """Return the application whose replicas must be changed in git; None if they can be changed through the API.

    Reads only the cluster, because git may be unavailable. `by` is the setting `switch.by`.
    """
    if by == "api" or workload.kept_by_owner is False:
        return None
    application = await deployer.of(workload)
    reverts = workload.kept_by_owner or (application is not None and application.reverts_replicas)
    return application if by == "commit" or reverts else None
