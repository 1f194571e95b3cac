"""The availability of the GPU: the slots that leases hold, the slots in use without a lease, and the free slots.

The claim itself is one atomic step in Redis (`bot.state.leases`). This module checks Redis and the cluster before the
claim.
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
        last slot.
        """
        slots, unleased = self.config.gpu.slots, tuple[GpuUser, ...]()
        other_leases = await self._leases(but=model)
        if len(other_leases) < slots:  # read the cluster's pods only if Redis has a free slot
            unleased = tuple(user for user in await self._unleased() if user.endpoint != model)
            other_leases = await self._leases(but=model)  # `_unleased` may have restored leases that Redis had lost
        if len(other_leases) >= slots:
            raise GpuBusy(other_leases[0])
        if len(other_leases) + len(unleased) >= slots:
            raise NotAllowed(
                md(
                    "{unleased} uses the GPU, and nobody holds a lease for it (was it started with kubectl?). "
                    "Bring it down first, or adopt it.",
                    unleased=code(str(unleased[0])),
                )
            )

    async def is_left_after(self, ahead: int) -> bool:
        """Return whether a slot stays free if each of the requests ahead takes one."""
        return len(await self._leases()) + ahead < self.config.gpu.slots

    async def free_slots(self) -> int:
        """Return the number of slots that are neither leased nor used without a lease."""
        free = self.config.gpu.slots - len(await self._leases())
        return max(0, free - len(await self._unleased())) if free > 0 else 0

    async def _leases(self, *, but: str = "") -> list[Lease]:
        return [lease for lease in await self.leases.held() if lease.model != but]

    async def _unleased(self) -> tuple[GpuUser, ...]:
        """Restore the leases that Redis has lost, and return the workloads that use the GPU without a lease."""
        return await self.lease_marks.rebuild(await self.cluster.gpu_users())
