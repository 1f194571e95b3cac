"""Starts and stops a model through the Kubernetes API, by scaling its Deployment."""

from bot.clients.cluster import Cluster
from bot.clients.workload import Workload
from bot.component import component
from bot.domain.leases import Lease


@component
class ByApi:
    """The method for every model whose deployer does not revert changes through the API."""

    cluster: Cluster

    async def applies(self, workload: Workload | None) -> bool:
        """Return True: this is the default method."""
        return True

    async def set(
        self, model: str, replicas: int, *, lease: Lease | None, fence: int | None, session: Lease | None
    ) -> bool:
        """Scale the Deployment and set its lease annotation; see `Method.set`."""
        return await self.cluster.scale(model, replicas, lease=lease.mark if lease else None, fence=fence)
