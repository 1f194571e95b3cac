"""The idle watch: samples every model that holds the GPU, lets `bot.idle` decide, and acts on the decision."""

import asyncio
from datetime import datetime, timedelta
from typing import assert_never

from docket import Perpetual

from bot.clients.cluster import Cluster
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.leases import Lease
from bot.domain.operations import BringDownOperation
from bot.domain.sessions import Session, cost
from bot.engine.crash_guard import CrashGuard
from bot.engine.lifecycle import Lifecycle, NotAllowed, require
from bot.gpu import holder_prompts
from bot.gpu.holder_prompts import HolderPrompts
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.sampling import Sampler
from bot.gpu.stopping import end_of_session
from bot.idle import (
    BringDown,
    Decision,
    MetricsUnreadable,
    Nothing,
    Remind,
    WarnEnd,
    after_decision,
    decide,
    with_sample,
)
from bot.policy import may_keep
from bot.settings.config import Config
from bot.slack.roles import RoleMembers
from bot.state.audit import AuditLog
from bot.state.leases import Leases
from bot.state.messages import Messages
from bot.state.operations import Operations
from bot.state.questions import Questions
from bot.state.sessions import Sessions
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import View, clock, code, lines, metrics_unavailable, reminder

_EVENTS: dict[type[Decision], AuditEvent] = {
    Remind: AuditEvent.REMINDED,
    MetricsUnreadable: AuditEvent.METRICS_UNREACHABLE,
    WarnEnd: AuditEvent.END_WARNED_OF,
}
"""Audit events for decisions without an operation."""

_MODEL_TIMEOUT = 20.0
"""Timeout in seconds for one model: its Deployment, its metrics, and the action."""
_RETRY_AFTER = timedelta(minutes=5)
"""Time after which a failed bring-down is requested again."""


@component
class IdleMessages:
    """The messages of the idle watch to the holder of a session."""

    questions: Questions
    messages: Messages
    holder_prompts: HolderPrompts
    config: Config

    async def send(
        self, lease: Lease, session: Session, decision: Remind | MetricsUnreadable | WarnEnd, now: datetime
    ) -> None:
        """Post the message for a decision."""
        match decision:
            case Remind(idle, down_at, last):
                price = self.config.gpu.price(session.node.machine if session.node else "")
                view = reminder(
                    lease,
                    show_duration(idle),
                    cost(idle, price),
                    down_at=clock(down_at),
                    last=last,
                    keep=show_duration(self.config.idle.keep) if lease.keeps < self.config.idle.keeps else "",
                )
                await self._remind(lease, view, down_at if last else None)
            case MetricsUnreadable(since):
                await self._notify(
                    lease, f"blind:{lease.fence}:{int(since.timestamp())}", metrics_unavailable(lease, since, now)
                )
            case WarnEnd(left):
                text = md(
                    "⏰ {holder}, the lease of {model} ends in {left}; then it goes down.",
                    holder=person(lease.holder),
                    model=code(lease.model),
                    left=show_duration(left),
                )
                ends = int(lease.ends.timestamp()) if lease.ends else 0
                await self._notify(lease, f"warn:{lease.fence}:{ends}", lines(text))
            case _:
                assert_never(decision)

    async def _notify(self, lease: Lease, key: str, view: View) -> None:
        """Post in the channel, and send a direct message to the holder. Only the direct message notifies anybody."""
        for place, message_key in ((lease.channel(self.config.slack.channel), key), (lease.holder, f"{key}:dm")):
            await self.holder_prompts.ask(lease, message_key, place, view)

    async def _remind(self, lease: Lease, view: View, down_at: datetime | None) -> None:
        """Post one message in the channel and one to the holder for the whole session; later reminders update them.

        The first reminder notifies the holder. The announcement of the bring-down at `down_at` is a new direct message,
        so that it also notifies the holder.
        """
        last = f"{holder_prompts.idle_key(lease)}:last:{int(down_at.timestamp())}" if down_at else ""
        await self.holder_prompts.ask_again(
            lease, holder_prompts.idle_key(lease), lease.channel(self.config.slack.channel), view
        )
        if last and await self.messages.posted(f"{holder_prompts.idle_key(lease)}:dm"):
            questions = await self.questions.of(lease.op)
            text = md("💤 {text}: see the newer message below.", text=view.text)
            keys = tuple(key for key in questions if holder_prompts.is_idle_dm(key) and key != last)
            if keys:
                await self.holder_prompts.settle(lease.op, text, keys=keys)
            await self.holder_prompts.ask(lease, last, lease.holder, view)
        else:
            await self.holder_prompts.ask_again(lease, f"{holder_prompts.idle_key(lease)}:dm", lease.holder, view)


@component
class IdleWatch:
    """Samples the models that hold the GPU, and acts when one is idle."""

    operations: Operations
    audit: AuditLog
    leases: Leases
    sessions: Sessions
    cluster: Cluster
    crash_guard: CrashGuard
    idle_messages: IdleMessages
    lifecycle: Lifecycle
    sampler: Sampler
    config: Config
    clock: Clock

    async def watch(self, perpetual: Perpetual = Perpetual(every=timedelta(seconds=30), automatic=True)) -> None:
        """Sample every model that holds the GPU and act on the decision; a slow model does not delay the others."""
        perpetual.after(self.clock.period(self.config.idle.sample_every))
        await asyncio.gather(*(self._watch_alone(lease) for lease in await self.leases.held()))

    async def _watch_alone(self, lease: Lease) -> None:
        async with self.crash_guard.isolated(
            f"watch:{lease.fence}", lease, timeout=_MODEL_TIMEOUT, failure="idle watch failed"
        ) as may_read:
            await self._watch_one(lease, may_read=may_read)

    async def _watch_one(self, lease: Lease, *, may_read: bool) -> None:
        """Take one sample and act on it. Without `may_read` (reading the metrics has crashed the process), the activity is
        unknown.
        """
        now = self.clock()
        workload = await self.cluster.workload(lease.model)
        if lease.ready is None or workload is None or workload.replicas == 0:
            return  # the reconciliation closes the lease of a model that was scaled down
        session: Session | None
        if not may_read or (lease.ends and now >= lease.ends):  # the decision does not depend on the metrics
            previous = await self.sessions.of(lease)
            session = with_sample(previous, lease, None, now, previous.own if previous else None)
        else:
            session = await self.sampler.sample(lease, workload)
        if session is None:
            return
        decision = decide(lease, session, len(await self.leases.queue()), now, self.config.idle, self.config.lease)
        if isinstance(decision, BringDown) and session.asked_down and now < session.asked_down + _RETRY_AFTER:
            decision = Nothing()
        await self._act(lease, session, decision, now)
        await self.sessions.remember(lease.model, after_decision(session, decision, lease, now))
        if event := _EVENTS.get(type(decision)):
            idle = show_duration(now - session.active)
            await self.audit.note_lease(lease, event, lease.holder, f"idle for {idle}", now)

    async def _act(self, lease: Lease, session: Session, decision: Decision, now: datetime) -> None:
        match decision:
            case Nothing():
                return
            case Remind() | MetricsUnreadable() | WarnEnd():
                await self.idle_messages.send(lease, session, decision, now)
            case BringDown(reason):
                if not await self.operations.open(BringDownOperation, lease.model):
                    announced = session.announced is not None and session.announced >= session.active
                    request = end_of_session(
                        lease, reason, self.config.slack.channel, self.clock(), announced=announced
                    )
                    await self.lifecycle.request(request, delivery=f"idle:{lease.fence}:{now.isoformat()}")
            case _:
                assert_never(decision)


@component
class Keeping:
    """Handles *Keep* on a reminder."""

    audit: AuditLog
    leases: Leases
    roles: RoleMembers
    holder_prompts: HolderPrompts
    lease_marks: LeaseMarks
    config: Config
    clock: Clock

    async def keep(self, op_id: str, actor: str, until: datetime | None = None) -> Mrkdwn:
        """Keep an operation's model up for the time in `idle.keep`, or until a given time. Returns the answer to the click.

        Raises NotAllowed if the time is after the end of the lease, or the session has no keep left.
        """
        lease = await self.leases.of_operation(op_id)
        if lease is None or lease.ends is None:
            raise NotAllowed("That session has ended, so there is nothing to keep.")
        model = lease.model
        require(may_keep(lease.holder, actor, await self.roles.people()))
        limit, now = self.config.idle.keeps, self.clock()
        if lease.keep_until and lease.keep_until > now and (until is None or until <= lease.keep_until):
            raise NotAllowed(
                md("{model} is already kept until {keep_until}.", model=code(model), keep_until=clock(lease.keep_until))
            )
        if lease.keeps >= limit:
            raise NotAllowed(
                md(
                    "{model} has been kept {limit} times already. Use it, or bring it down.",
                    model=code(model),
                    limit=limit,
                )
            )
        if until and until <= now:
            raise NotAllowed("That time has passed; choose a later one.")
        if until and until > lease.ends:
            raise NotAllowed(
                md(
                    "The lease of {model} ends at {ends}; it cannot be kept longer than that. Extend it first with "
                    "`/gpu extend 1h`.",
                    model=code(model),
                    ends=clock(lease.ends),
                )
            )
        until = min(until or now + self.config.idle.keep, lease.ends)
        changed = await self.lease_marks.renew(
            lease, lambda current: current.model_copy(update={"keeps": lease.keeps + 1, "keep_until": until})
        )
        if changed is None:
            raise NotAllowed(md("That session of {model} has ended, so there is nothing to keep.", model=code(model)))
        await self.audit.note_lease(changed, AuditEvent.KEPT, actor, f"until {until.isoformat()}", now)
        answer = md(
            "👍 {model} is kept until {until} by {actor} ({keeps} of {limit}).",
            model=code(model),
            until=clock(until),
            actor=person(actor),
            keeps=changed.keeps,
            limit=limit,
        )
        await self.holder_prompts.settle(op_id, answer, keys=await self.holder_prompts.idle_reminders(op_id))
        return answer
