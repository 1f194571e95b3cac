"""Reads, restores and changes a lease in Redis together with the lease annotation of its Deployment."""

import hashlib
from collections.abc import Callable, Iterable

import structlog

from bot.clients.cluster import Cluster
from bot.clients.workload import GpuUser
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.leases import Lease
from bot.domain.marks import bounded, read_mark, with_longer_end
from bot.domain.requests import BringUp
from bot.errors import BotError, Unavailable
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.state.audit import AuditLog
from bot.state.bills import Bills
from bot.state.leases import GpuBusy, Leases
from bot.state.operations import OperationNotFound, Operations
from bot.text.mrkdwn import md, person
from bot.views import clock, code, lines

log = structlog.get_logger(__name__)


@component
class LeaseMarks:
    """Keeps the leases in Redis and their annotations on the Deployments consistent."""

    operations: Operations
    audit: AuditLog
    leases: Leases
    bills: Bills
    presentation: Presentation
    cluster: Cluster
    config: Config
    clock: Clock

    async def lease_on(self, model: str) -> Lease | None:
        """Return the lease of a model from Redis, or from the Deployment if Redis has lost it."""
        lease = await self.leases.of(model)
        if lease is None and (workload := await self.cluster.workload(model)) and workload.replicas:
            lease = await self.restorable(workload.lease, model)
        return lease

    async def restorable(self, mark: str | None, model: str) -> Lease | None:
        """Return the lease in a Deployment's annotation, limited to what the policy allows.

        None if it is invalid, if its session has a bill and so has ended, or if its holder is not the requester in Redis.
        """
        marked = read_mark(mark, model)
        lease = bounded(marked, self.clock(), self.config.lease.longest, self.config.slack.channel) if marked else None
        if lease is None or await self.bills.of(lease.fence):
            return None
        try:
            op = await self.operations.load(lease.op)
        except OperationNotFound:
            return lease
        request = op.request
        forged = isinstance(request, BringUp) and request.model == model and request.actor != lease.holder
        return None if forged else lease

    async def report_ignored(self, model: str, annotation: str, value: str, reason: str) -> None:
        """Report an ignored annotation, once per value."""
        digest = hashlib.sha256(f"{model} {annotation} {value}".encode()).hexdigest()[:16]
        log.warning("annotation ignored", model=model, annotation=annotation, error=reason)
        text = md(
            "⚠️ The annotation {annotation} of {model} is ignored: {reason}. Its value is {value}.",
            annotation=code(annotation),
            model=code(model),
            reason=reason,
            value=code(value[:60]),
        )
        await self.presentation.post(f"ignored:{digest}", self.config.slack.channel, lines(text))

    async def held(self) -> tuple[Lease, ...]:
        """Return the leases; if Redis has lost all of them, restore them from the cluster first."""
        if not await self.leases.held():
            await self.rebuild(await self.cluster.gpu_users())
        return await self.leases.held()

    async def rebuild(self, users: Iterable[GpuUser]) -> tuple[GpuUser, ...]:
        """Restore the leases that Redis has lost, and return the GPU users without a lease."""
        leases = await self.leases.held()
        leased = {lease.model for lease in leases} | {lease.displaced.model for lease in leases if lease.displaced}
        return tuple(
            [
                user
                for user in users
                if not user.endpoint or (user.endpoint not in leased and not await self._rebuild_one(user))
            ]
        )

    async def renew(self, lease: Lease, change: Callable[[Lease], Lease]) -> Lease | None:
        """Change a lease in Redis and on its Deployment, and return it; None if it is no longer held."""
        changed = await self.leases.change(lease, change)
        if changed:
            try:
                await self.cluster.mark(changed.model, changed.mark, changed.fence)
            except (Unavailable, BotError) as error:
                # The next reconciliation writes the annotation.
                log.warning("lease not marked", model=lease.model, op=lease.op, error=str(error))
        return changed

    async def extended_by_mark(self, lease: Lease, marked: Lease) -> Lease | None:
        """Restore a keep or an extension of the lease that a failover of Redis lost, and return the lease. None if the
        annotation has neither.
        """
        longest = self.config.lease.longest
        longer = with_longer_end(lease, marked, longest)
        if longer is None or longer.ends is None:
            return None
        keep_text = md(" and it is kept until {keep}", keep=clock(longer.keep_until)) if longer.keep_until else ""
        text = md(
            "🧭 Redis had lost a change of the lease of {model}; the Deployment still has it: the lease ends at {ends}{keep}.",
            model=code(lease.model),
            ends=clock(longer.ends),
            keep=keep_text,
        )
        # Post before the change: after a crash in between, nothing would show that a keep or an extension was lost.
        await self.presentation.post(
            f"prolonged:{marked.fence}:{marked.revision}", lease.channel(self.config.slack.channel), lines(text)
        )
        reason = f"a keep or an extension that Redis had lost; the lease ends at {longer.ends.isoformat()}"
        await self.audit.note_lease(longer, AuditEvent.PROLONGED, "stoker", reason, self.clock())
        return await self.leases.change(lease, lambda current: with_longer_end(current, marked, longest) or current)

    async def _rebuild_one(self, user: GpuUser) -> bool:
        """Restore the lease of a GPU user. Returns whether it has a lease now, or is no longer up: `user` may be
        outdated.
        """
        workload = await self.cluster.workload(user.endpoint)
        if workload is None or workload.replicas == 0 or await self.leases.of(user.endpoint):
            return True
        lost = await self.restorable(workload.lease, user.endpoint)
        if lost is None:
            if workload.lease:
                reason = "the policy or Redis does not allow this lease"
                await self.report_ignored(user.endpoint, "stoker.dev/lease", workload.lease, reason)
            return False
        try:
            is_restored = await self.leases.restore(lost)
        except GpuBusy:
            return False
        if is_restored:
            log.warning("lease rebuilt", model=lost.model, op=lost.op, fence=lost.fence)
            until = md(" until {ends}", ends=clock(lost.ends)) if lost.ends else ""
            text = md(
                "🧭 Redis had lost the lease of {model}; it is rebuilt from the cluster: {holder} holds it{until}.",
                model=code(lost.model),
                holder=person(lost.holder),
                until=until,
            )
            await self.presentation.post(
                f"rebuilt:{lost.fence}:{lost.revision}", self.config.slack.channel, lines(text)
            )
        return True
