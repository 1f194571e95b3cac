"""The lease annotation of a Deployment, and the lease in Redis: read, restored and changed together."""

import hashlib
from collections.abc import Callable, Iterable

import structlog

from bot.clients.cluster import Cluster
from bot.clients.workload import GpuUser
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.leases import Lease
from bot.domain.marks import bounded, prolonged, read_mark
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
        """The lease of a model, even if Redis has lost it but the cluster has not."""
        lease = await self.leases.of(model)
        if lease is None and (workload := await self.cluster.workload(model)) and workload.replicas:
            lease = await self.restorable(workload.lease, model)
        return lease

    async def restorable(self, mark: str | None, model: str) -> Lease | None:
        """The lease annotation of a Deployment, limited by the policy and by Redis; None if they contradict it."""
        marked = read_mark(mark, model)
        lease = bounded(marked, self.clock(), self.config.lease.longest, self.config.slack.channel) if marked else None
        if lease is None or await self.bills.of(lease.fence):
            return None  # a session with a bill has ended
        try:
            op = await self.operations.load(lease.op)
        except OperationNotFound:
            return lease
        request = op.request
        forged = isinstance(request, BringUp) and request.model == model and request.actor != lease.holder
        return None if forged else lease

    async def report_ignored(self, model: str, annotation: str, value: str, why: str) -> None:
        """Report once per value which annotation is ignored."""
        digest = hashlib.sha256(f"{model} {annotation} {value}".encode()).hexdigest()[:16]
        log.warning("annotation ignored", model=model, annotation=annotation, error=why)
        text = md(
            "⚠️ The annotation {annotation} of {model} is ignored: {why}. Its value is {value}.",
            annotation=code(annotation),
            model=code(model),
            why=why,
            value=code(value[:60]),
        )
        await self.presentation.post(f"ignored:{digest}", self.config.slack.channel, lines(text))

    async def held(self) -> tuple[Lease, ...]:
        """The leases, including those that Redis just lost but the cluster still has."""
        if not await self.leases.held():
            await self.rebuild(await self.cluster.gpu_users())
        return await self.leases.held()

    async def rebuild(self, users: Iterable[GpuUser]) -> tuple[GpuUser, ...]:
        """Restore the leases that Redis has lost; returns the GPU users without a lease."""
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
        """Change a lease, in Redis and on its Deployment; None if it is no longer held."""
        changed = await self.leases.change(lease, change)
        if changed:
            try:
                await self.cluster.mark(changed.model, changed.mark, changed.fence)
            except (Unavailable, BotError) as error:
                log.warning(
                    "lease not marked", model=lease.model, op=lease.op, error=str(error)
                )  # the next reconciliation tries again
        return changed

    async def extended_by_mark(self, lease: Lease, marked: Lease) -> Lease | None:
        """The lease with the keep or the extension that a failover of Redis lost; None if the annotation adds none."""
        longest = self.config.lease.longest
        longer = prolonged(lease, marked, longest)
        if longer is None or longer.ends is None:
            return None
        kept_text = md(" and it is kept until {kept}", kept=clock(longer.keep_until)) if longer.keep_until else ""
        text = md(
            "🧭 Redis had lost a change of the lease of {model}; the Deployment still has it: the lease ends at {ends}{kept}.",
            model=code(lease.model),
            ends=clock(longer.ends),
            kept=kept_text,
        )
        # Before the change, because afterwards nothing shows that it was lost.
        await self.presentation.post(
            f"prolonged:{marked.fence}:{marked.revision}", lease.channel(self.config.slack.channel), lines(text)
        )
        why = f"a keep or an extension that Redis had lost; the lease ends at {longer.ends.isoformat()}"
        await self.audit.note_lease(longer, AuditEvent.PROLONGED, "stoker", why, self.clock())
        return await self.leases.change(lease, lambda current: prolonged(current, marked, longest) or current)

    async def _rebuild_one(self, user: GpuUser) -> bool:
        """Return whether the model has a lease now, or is no longer up: `user` may be outdated."""
        now = await self.cluster.workload(user.endpoint)
        if now is None or now.replicas == 0 or await self.leases.of(user.endpoint):
            return True
        lost = await self.restorable(now.lease, user.endpoint)
        if lost is None:
            if now.lease:
                why = "the policy or Redis does not allow this lease"
                await self.report_ignored(user.endpoint, "stoker.dev/lease", now.lease, why)
            return False
        try:
            put_back = await self.leases.restore(lost)
        except GpuBusy:
            return False
        if put_back:
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
