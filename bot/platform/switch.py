"""Starts and stops models, with the method that the deployer allows. Operations change replicas only with `turn`."""

import asyncio

from bot.clients.cluster import Cluster
from bot.component import component
from bot.domain.leases import Lease
from bot.engine.lifecycle import NotAllowed
from bot.git.repository import Repository
from bot.platform.switches import Method
from bot.platform.switches.api import ByApi
from bot.platform.switches.commit import ByCommit
from bot.settings.config import Config
from bot.text.mrkdwn import md
from bot.views import code
from manifests import replicas as in_git
from manifests.platform import Platform


@component
class Switch:
    """Starts and stops models."""

    by_commit: ByCommit
    by_api: ByApi
    cluster: Cluster
    repository: Repository
    config: Config

    async def turn(
        self, model: str, replicas: int, *, lease: Lease | None, fence: int | None, session: Lease | None = None
    ) -> bool:
        """Set the replicas of a model and its Deployment's lease annotation (None removes it). Idempotent.

        `session` is the lease of the session if `lease` is None. Returns whether this call changed the replicas in the
        cluster. Raises StaleFence like `Cluster.scale`.
        """
        method = await self.method(model)
        return await method.set(model, replicas, lease=lease, fence=fence, session=session)

    async def method(self, model: str) -> Method:
        """Return the method for a model: a commit if the deployer would revert a change through the API."""
        workload = await self.cluster.workload(model)
        return self.by_commit if await self.by_commit.applies(workload) else self.by_api

    async def is_by_commit(self, model: str) -> bool:
        """Return whether replicas are changed in git, because the deployer would revert a change through the API."""
        return await self.method(model) is self.by_commit

    async def refuse_if_foreign(self, model: str, commit: str) -> None:
        """Raise NotAllowed if another system starts and stops the model, or if its workload is not a Deployment."""
        platform = Platform(await self.repository.tree(commit), self.config.platform)
        if kind := await asyncio.to_thread(in_git.switched_by_hand, platform, model):
            raise NotAllowed(
                md(
                    "{model} is {kind}. Stoker only starts and stops Deployments: change its replicas manually.",
                    model=code(model),
                    kind=kind,
                )
            )
        if scaler := await asyncio.to_thread(in_git.scaled_by, platform, model):
            raise NotAllowed(
                md(
                    "{model} is started and stopped by {scaler}, not by Stoker: it would revert Stoker's changes.",
                    model=code(model),
                    scaler=scaler,
                )
            )
