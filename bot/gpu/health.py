"""Watch ready sessions for a reclaimed node, a dead engine, or replicas that were changed by hand.

Each problem is reported once, in the channel and to the holder, with *Restart* and *Bring down*. A session that does
not recover within the boot limit is ended, so that it stops costing money and blocking the queue.
"""

import asyncio
from datetime import datetime, timedelta

import structlog
from docket import Perpetual

from bot.clients.cluster import Cluster
from bot.clients.condition import Condition
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.leases import Lease
from bot.domain.operations import Operation, Status
from bot.domain.sessions import Health, Trouble
from bot.engine.crash_guard import CrashGuard
from bot.engine.lifecycle import Lifecycle
from bot.errors import Unavailable
from bot.gpu.holder_prompts import HolderPrompts
from bot.gpu.stopping import end_of_session
from bot.settings.config import Config
from bot.state.audit import AuditLog
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.sessions import Sessions
from bot.text.durations import show_duration
from bot.text.mrkdwn import clock, code, inline, md
from bot.views.health import trouble_view

log = structlog.get_logger(__name__)

_EVERY = timedelta(seconds=15)
"""Interval of the checks, so that each problem is reported within a minute."""
_CHECK_TIMEOUT = 20.0
"""Timeout in seconds for the check of one session: a slow check must not delay the others."""
_USUAL_BOOT = timedelta(seconds=1200)
_UNREADY = timedelta(seconds=40)
"""Time for which a model must be unready before this is reported (for the usual boot limit): a burst of long requests
can fail a probe or two (the kubelet's default is three failures, ten seconds apart).
"""
_SERVING = ("scaled", "changed")
"""States of a problem in which the model still serves."""


@component
class HealthWatch:
    """Watches ready sessions."""

    operations: Operations
    audit: AuditLog
    leases: Leases
    sessions: Sessions
    cluster: Cluster
    crash_guard: CrashGuard
    holder_prompts: HolderPrompts
    lifecycle: Lifecycle
    config: Config
    clock: Clock

    async def watch_health(self, perpetual: Perpetual = Perpetual(every=_EVERY, automatic=True)) -> None:
        """Check every session that was ready."""
        perpetual.after(self.clock.period(min(_EVERY, self.config.idle.sample_every)))
        try:
            leases = [lease for lease in await self.leases.held() if lease.ready]
        except Unavailable as error:
            log.warning("health not watched", error=str(error))
            return
        await asyncio.gather(*(self._watch_one(lease) for lease in leases))

    async def _watch_one(self, lease: Lease) -> None:
        task = f"watch_health:{lease.fence}"
        async with self.crash_guard.isolated(
            task, lease, timeout=_CHECK_TIMEOUT, failure="health not checked"
        ) as may_run:
            if may_run:
                await self.check_session(lease)

    async def check_session(self, lease: Lease) -> None:
        """Check one session. Idempotent, even if two bots do it at the same time."""
        health = await self.sessions.health(lease) or Health(fence=lease.fence)
        condition = await self.cluster.condition(lease.model, health.node)
        now = self.clock()
        updated = health.billing(condition.node, lease.claimed, now) if condition.node_known else health
        operations = await self._operations_at_work(lease)
        trouble = None if operations else _trouble(condition, updated, now)
        if condition.serving and (operations or not updated.template):
            updated = updated.model_copy(update={"template": condition.template, "image": condition.image})
        earlier = updated.trouble
        if trouble is None:
            if earlier and not operations and condition.serving:
                await self._report_recovery(lease, earlier, now)
                updated = updated.model_copy(update={"trouble": None})
        elif earlier is None or (earlier.state in _SERVING) != (trouble.state in _SERVING):
            updated = updated.model_copy(update={"trouble": trouble})
            # Store it before the message is posted: the message's key contains this time.
            await self.sessions.keep_health(lease.model, updated)
        else:  # the reason may have become more precise, but the message is posted once
            updated = updated.model_copy(
                update={"trouble": trouble.model_copy(update={"since": earlier.since, "told": earlier.told})}
            )
        if updated.trouble and trouble and not updated.trouble.told and self._is_due(updated.trouble, condition, now):
            await self._report(lease, updated, condition, now)
            updated = updated.model_copy(update={"trouble": updated.trouble.model_copy(update={"told": True})})
        if updated != health:
            await self.sessions.keep_health(lease.model, updated)
        if (
            updated.trouble
            and trouble
            and not condition.serving
            and now - updated.trouble.since > self.config.gpu.boot_limit
        ):
            await self._end(lease, updated.trouble, now)

    async def _operations_at_work(self, lease: Lease) -> list[Operation]:
        """Return the running operations that stop or boot the model: they report its problems themselves."""
        return [
            op
            for op in await self.operations.open()
            if op.request.model == lease.model
            and op.request.kind.spec.stops_model
            and (
                op.status in (Status.APPROVED, Status.RUNNING)
                or (op.status is Status.REQUESTED and not op.request.kind.spec.needs_approval)
            )
        ]

    def _is_due(self, trouble: Trouble, condition: Condition, now: datetime) -> bool:
        if condition.state != "not ready":
            return True
        return now - trouble.since >= _UNREADY * min(1.0, self.config.gpu.boot_limit / _USUAL_BOOT)

    async def _report(self, lease: Lease, health: Health, condition: Condition, now: datetime) -> None:
        """Post a separate message in the channel and to the holder: the card of the bring-up may be deleted or old."""
        if (trouble := health.trouble) is None:
            return
        price = self.config.gpu.price(health.node.machine if health.node else "")
        if condition.node_known and health.node is None:
            price = 0.0
        view = trouble_view(
            lease,
            trouble,
            serving=condition.serving,
            price=price,
            ends=trouble.since + self.config.gpu.boot_limit,
            log=condition.log,
        )
        channel = lease.channel(self.config.slack.channel)
        for place, key in zip((channel, lease.holder), _keys(lease, trouble), strict=True):
            await self.holder_prompts.ask(lease, key, place, view)
        await self.audit.note_trouble(lease, trouble, now)

    async def _report_recovery(self, lease: Lease, trouble: Trouble, now: datetime) -> None:
        text = md(
            "✅ {model} serves again. It had stopped at {since}: {reason}",
            model=code(lease.model),
            since=clock(trouble.since),
            reason=inline(trouble.reason, 600),
        )
        if trouble.state in _SERVING:
            text = md("✅ {model} has its approved configuration again.", model=code(lease.model))
        if trouble.told:
            await self.holder_prompts.settle(lease.op, text, keys=_keys(lease, trouble))
            await self.audit.note_lease(lease, AuditEvent.SERVES_AGAIN, "", trouble.reason, now)

    async def _end(self, lease: Lease, trouble: Trouble, now: datetime) -> None:
        """End a session that did not recover: nobody can use it, and other people wait."""
        limit = self.config.gpu.boot_limit
        reason = f"it has not served for {show_duration(limit)}: {trouble.reason}"
        attempt = int((now - trouble.since) / limit)  # a failed bring-down is retried, but not at every check
        delivery = f"not-serving:{lease.fence}:{int(trouble.since.timestamp())}:{attempt}"
        await self.lifecycle.request(end_of_session(lease, reason, self.config.slack.channel, self.clock()), delivery)


def _trouble(condition: Condition, health: Health, now: datetime) -> Trouble | None:
    """Return the current problem, even if it is not due to be reported yet."""
    if condition.state == "at zero" or condition.state == "no Deployment":
        return None  # the reconciliation closes the lease, with a receipt
    if not condition.serving:
        since = condition.since if condition.since and condition.since <= now else now
        return Trouble(state=condition.state, since=since, reason=condition.reason, remedy=condition.remedy)
    if condition.replicas > 1:
        reason = f"It was scaled to {condition.replicas} replicas from outside, but there is only one GPU."
        return Trouble(state="scaled", since=now, reason=reason, remedy="Restart brings it back to one.")
    if health.template and condition.template != health.template:
        image = f" (image {health.image} → {condition.image})" if health.image != condition.image else ""
        reason = f"Its Deployment was changed from outside while it was up{image}: this was not approved."
        return Trouble(
            state="changed",
            since=now,
            reason=reason,
            remedy="Find out who changed it; a sync restores the state in git.",
        )
    return None


def _keys(lease: Lease, trouble: Trouble) -> tuple[str, str]:
    key = f"trouble:{lease.fence}:{int(trouble.since.timestamp())}"
    return key, f"{key}:dm"
