"""The availability of the GPU: the slots that leases hold, those in use without a lease, and the free ones.

The claim itself is one atomic step in Redis (`bot.state.leases`). This module answers before the claim, from Redis
and the cluster.
"""

from bot.clients.cluster import Cluster
from bot.clients.workload import GpuUser
from bot.component import component
from bot.domain.leases import Lease
from bot.engine.lifecycle import NotAllowed
from bot.gpu.lease_marks import LeaseMarks
from bot.settings.config import Config
from bot.state.leases import GpuBusy, Leases
from bot.text.mrkdwn import code, md


@component
class GpuAvailability:
    """The single place that decides whether the GPU is free."""

    leases: Leases
    cluster: Cluster
    lease_marks: LeaseMarks
    config: Config

    async def refuse_if_taken(self, model: str) -> None:
        """Raise GpuBusy if other models' leases hold all slots, and NotAllowed if something without a lease uses the
        last one.
        """
        slots, unleased = self.config.gpu.slots, tuple[GpuUser, ...]()
        others = await self._leases(but=model)
        if len(others) < slots:  # read the cluster's pods only if Redis has a free slot
            unleased = tuple(user for user in await self._unleased() if user.endpoint != model)
            others = await self._leases(but=model)  # `_unleased` may have restored leases that Redis had lost
        if len(others) >= slots:
            raise GpuBusy(others[0])
        if len(others) + len(unleased) >= slots:
            raise NotAllowed(
                md(
                    "{unleased} uses the GPU, and nobody holds a lease for it (was it started with kubectl?). "
                    "Bring it down first, or adopt it.",
                    unleased=code(str(unleased[0])),
                )
            )

    async def is_left_after(self, ahead: int) -> bool:
        """Return whether a free slot is left once each of the requests ahead has one."""
        return len(await self._leases()) + ahead < self.config.gpu.slots

    async def free_slots(self) -> int:
        """The number of slots that nothing uses, with a lease or without."""
        free = self.config.gpu.slots - len(await self._leases())
        return max(0, free - len(await self._unleased())) if free > 0 else 0

    async def _leases(self, *, but: str = "") -> list[Lease]:
        return [lease for lease in await self.leases.held() if lease.model != but]

    async def _unleased(self) -> tuple[GpuUser, ...]:
        """The workloads that use the GPU without a lease, after the leases that Redis has lost are restored."""
        return await self.lease_marks.rebuild(await self.cluster.gpu_users())
