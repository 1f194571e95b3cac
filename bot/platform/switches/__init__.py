"""The methods to start and stop a model, one per file, with the same interface.

Stoker does not start and stop models that another system scales; `manifests/scalers` recognises these systems.
"""

from typing import Protocol

from bot.clients.workload import Workload
from bot.domain.leases import Lease


class Method(Protocol):
    """A method to set the replicas of a model."""

    async def applies(self, workload: Workload | None) -> bool:
        """Return whether this method applies to a workload. Reads only the cluster, because git may be unavailable."""

    async def set(
        self, model: str, replicas: int, *, lease: Lease | None, fence: int | None, session: Lease | None
    ) -> bool:
        """Set the replicas, and the Deployment's lease annotation (None removes it). Idempotent.

        `session` is the lease of the session, also if the annotation is removed. Returns whether this call changed the
        replicas in the cluster. Raises StaleFence like `Cluster.scale`.
        """
