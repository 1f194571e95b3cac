"""Takes a model off the GPU: cancels its boot, scales it to zero under the lease's fence, ends crashed operations."""

from datetime import datetime

import structlog

from bot.clients.cluster import Cluster, StaleFence
from bot.clients.job import Jobs
from bot.clients.staging import Stager
from bot.clients.workload import Workload
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.leases import MAYBE_LEASE, Lease
from bot.domain.operations import BringUpOperation, Operation
from bot.domain.outcomes import STOKER, CutShort, Failed
from bot.domain.requests import BringDown
from bot.engine.lifecycle import Lifecycle
from bot.engine.run import Step
from bot.gpu import session_cards
from bot.gpu.lease_marks import LeaseMarks
from bot.platform.switch import Switch
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.state.audit import AuditLog
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code, lines, unmarked

log = structlog.get_logger(__name__)

LEASE = Step("lease", MAYBE_LEASE)
"""The lease of a bring-down or a restart, as it was at the start."""
GONE_WITHIN = 300.0
"""Timeout in seconds for a pod to terminate; vLLM's grace period is 30."""


def down_request(model: str, actor: str, channel: str, at: datetime, reason: str) -> BringDown:
    """Return a request to bring a model down, regardless of its session."""
    return BringDown(model=model, actor=actor, channel=channel, at=at, reason=reason)


def end_of_session(lease: Lease, reason: str, channel: str, at: datetime, *, announced: bool = False) -> BringDown:
    """Return the bot's request to bring down exactly this session; it notifies the holder unless it was `announced`."""
    return BringDown(
        model=lease.model,
        actor="",
        channel=lease.channel(channel),
        at=at,
        reason=reason,
        holder=lease.holder,
        fence=lease.fence,
        announced=announced,
    )


@component
class Stopping:
    """Takes models off the GPU."""

    operations: Operations
    leases: Leases
    cluster: Cluster
    jobs: Jobs
    stager: Stager
    switch: Switch
    config: Config
    clock: Clock

    async def cancel_boot(self, up: Operation, by: str) -> bool:
        """Cancel a running bring-up; returns False if it has already ended. Idempotent."""
        now = self.clock()

        def cancelled(up: Operation) -> Operation:
            return up if up.status.final else up.model_copy(update={"cancelled_by": by or STOKER, "updated": now})

        up = await self.operations.update(up.id, cancelled, event=AuditEvent.CANCELLED, actor=by)
        return up.cancelled_by == (by or STOKER)

    async def scale_to_zero(self, model: str, lease: Lease | None) -> bool:
        """Scale to zero, and return whether this call changed the replicas.

        The fence of the lease prevents a late worker from ending another session. Without a lease there is no such
        check.
        """
        if await self.cluster.workload(model) is None:
            return False
        try:
            return await self.switch.turn(model, 0, lease=None, fence=lease.fence if lease else None, session=lease)
        except StaleFence as stale:
            if lease is None or lease.fence not in {current.fence for current in await self.leases.held()}:
                raise
            # This lease is current in Redis, so somebody else changed the annotation.
            log.warning("fence annotation ignored", model=model, op=lease.op, error=stale.message)
            return await self.switch.turn(model, 0, lease=None, fence=None, session=lease)

    async def to_zero(self, model: str, lease: Lease | None) -> None:
        """Scale to zero and wait until the pods are gone."""
        await self.scale_to_zero(model, lease)
        await self.cluster.wait_gone(model, timeout=GONE_WITHIN)

    async def bring_down_without_redis(self, model: str) -> Mrkdwn:
        """Bring a model down through the cluster only, without a record, a lease or a card."""
        workload: Workload | None = await self.cluster.workload(model)
        if workload is None or not workload.gpus:
            return md("There is no GPU model {model} in the cluster.", model=code(model))
        await self.to_zero(model, None)
        if self.config.staging.enabled:
            await self.stager.delete_all(model)
        if self.config.bench.image:
            # A benchmark Job would keep the node, and its operation cannot delete it while Redis is down.
            await self.jobs.delete_all(model)
        return md(
            "{model} is down. Redis does not answer, so there is no receipt; the lease is closed when Redis is back.",
            model=code(model),
        )


@component
class SettingAside:
    """Ends operations that have crashed the process."""

    audit: AuditLog
    leases: Leases
    presentation: Presentation
    lease_marks: LeaseMarks
    lifecycle: Lifecycle
    stopping: Stopping
    clock: Clock

    async def cut_short(self, op: Operation, reason: Mrkdwn) -> None:
        """End a bring-down or a rollback that crashes the process: only scale its model to zero and release the lease.

        Idempotent. Later sessions, and sessions of other bring-ups, are not changed.
        """
        model = op.request.model
        lease = await self.lease_marks.lease_on(model)
        brought_up = isinstance(op, BringUpOperation)
        is_its_lease = lease is not None and (lease.op == op.id if brought_up else lease.claimed <= op.request.at)
        result = md("Its model is not running.")
        if is_its_lease or (lease is None and not brought_up):
            await self.stopping.scale_to_zero(model, lease)
            result = md("{model} is scaled to zero without a receipt.", model=code(model))
        if is_its_lease and lease:
            await self.leases.release(lease)
            await session_cards.end(self.stopping.operations, self.presentation, lease, self.clock())
            if lease.displaced:
                result += md(" {model} had the GPU before: request it again.", model=code(lease.displaced.model))
            await self.lifecycle.hand_over_soon()
        await self._set_aside(op, md("{reason} {result}", reason=reason, result=result))

    async def leave_undone(self, op: Operation, reason: Mrkdwn) -> None:
        """End an operation that holds no GPU and whose rollback crashes the process: its partial effects stay."""
        await self._set_aside(op, md("{reason} Its partial changes are not rolled back: check them.", reason=reason))

    async def _set_aside(self, op: Operation, reason: Mrkdwn) -> None:
        work = f"the rollback of {op.request.kind}" if op.failure else str(op.request.kind)
        await self.audit.note_set_aside(f"{work} {op.request.model} ({op.id})", str(unmarked(reason)), self.clock())
        await self.presentation.notify_admins(f"cut short:{op.id}", lines(md("🧹 {reason}", reason=reason)))
        end = Failed(reason=op.failure, undone=CutShort(told=reason)) if op.failure else Failed(reason=reason)
        await self.lifecycle.run(op).finish(end)
