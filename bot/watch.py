"""The idle watch: samples every model that holds the GPU, has `bot.idle` decide, and acts on the decision."""

from datetime import datetime, timedelta
from typing import assert_never

import structlog
from docket import Depends, Perpetual

from bot.domain import Kind, Lease, Session, cost
from bot.durations import show_duration
from bot.errors import BotError, Unavailable
from bot.idle import Blind, BringDown, Decision, Nothing, Remind, WarnEnd, decide, noted
from bot.operations import questions
from bot.operations.down import down_request
from bot.operations.life import NotAllowed, insist, request
from bot.operations.reconcile import renew
from bot.operations.sampling import sample
from bot.policy import may_keep
from bot.services import Services, services
from bot.views import View, blind, clock, code, lines, reminder

log = structlog.get_logger(__name__)

_EVENTS: dict[type[Decision], str] = {Remind: "reminded", Blind: "metrics unreachable", WarnEnd: "end warned of"}
"""What the audit log calls a decision that no operation stands for."""

_ASK_AGAIN = timedelta(minutes=5)
"""A bring-down that failed is tried again after this, not at every sample."""


async def watch(
    svc: Services = Depends(services), perpetual: Perpetual = Perpetual(every=timedelta(seconds=30), automatic=True)
) -> None:
    """Sample every model that holds the GPU and act on the decision."""
    perpetual.after(svc.config.idle.sample_every)
    for lease in await svc.leases.held():
        try:
            await _watch_one(svc, lease)
        except (BotError, Unavailable) as error:
            log.warning("idle watch failed", model=lease.model, op=lease.op, error=str(error))


async def _watch_one(svc: Services, lease: Lease) -> None:
    now = svc.clock()
    workload = await svc.cluster.workload(lease.model)
    if lease.ready is None or workload is None or workload.replicas == 0:
        return  # the reconciliation sees to a model that somebody took down
    session = await sample(svc, lease, workload)
    if session is None:
        return
    decision = decide(lease, session, await _waiting(svc), now, svc.config.idle, svc.config.lease)
    if isinstance(decision, BringDown) and session.asked_down and now < session.asked_down + _ASK_AGAIN:
        decision = Nothing()
    await _act(svc, lease, session, decision, now)
    await svc.sessions.remember(lease.model, noted(session, decision, lease, now))
    if event := _EVENTS.get(type(decision)):
        idle = show_duration(now - session.active)
        await svc.store.note_lease(lease, event, lease.holder, f"idle for {idle}", now)


async def _waiting(svc: Services) -> int:
    """How many people wait for the GPU."""
    return len(await svc.leases.queue())


async def _act(svc: Services, lease: Lease, session: Session, decision: Decision, now: datetime) -> None:
    match decision:
        case Nothing():
            return
        case Remind(idle, down_at, last):
            price = svc.config.gpu.price(session.node.machine if session.node else "")
            view = reminder(
                lease,
                show_duration(idle),
                cost(idle, price),
                down_in=show_duration(down_at - now),
                down_at=clock(down_at),
                last=last,
                keep=show_duration(svc.config.idle.keep) if lease.keeps < svc.config.idle.keeps else "",
            )
            key = f"remind:{lease.fence}:{lease.keeps}:{session.reminders}:{int(session.active.timestamp())}"
            await _tell(svc, lease, key, view)
        case Blind(since):
            await _tell(svc, lease, f"blind:{lease.fence}:{int(since.timestamp())}", blind(lease, since, now))
        case WarnEnd(left):
            text = f"⏰ <@{lease.holder}>, the lease of {code(lease.model)} ends in {show_duration(left)}; then it goes down."
            ends = int(lease.ends.timestamp()) if lease.ends else 0
            await _tell(svc, lease, f"warn:{lease.fence}:{ends}", lines(text))
        case BringDown(why):
            if not await svc.store.open(Kind.GPU_DOWN, lease.model):
                wanted = down_request(lease.model, "", _channel(svc, lease), now, why)
                await request(svc, wanted, delivery=f"idle:{lease.fence}:{now.isoformat()}")
        case _:
            assert_never(decision)


async def _tell(svc: Services, lease: Lease, key: str, view: View) -> None:
    """In the channel, and to the holder, who may not be looking at it.

    Who cannot be told (an account that is gone, a channel without the bot) must not keep an idle model up for ever.
    """
    await questions.settle(svc, lease.op, keys=await _asked_before(svc, lease, key))
    for place, sent in ((_channel(svc, lease), key), (lease.holder, f"{key}:dm")):
        try:
            await questions.ask(svc, lease, sent, place, view)
        except BotError as error:
            log.warning("not told", model=lease.model, op=lease.op, where=place, error=error.message)


async def _asked_before(svc: Services, lease: Lease, key: str) -> tuple[str, ...]:
    """The reminders that a new one makes old."""
    asked = await svc.sessions.questions(lease.op)
    return tuple(other for other in asked if other.startswith("remind:") and not other.startswith(key))


def _channel(svc: Services, lease: Lease) -> str:
    return lease.message.channel if lease.message else svc.config.slack.channel


async def keep(svc: Services, op_id: str, actor: str, until: datetime | None = None) -> str:
    """Answer a reminder: leave an operation's model up for an hour, or until then. Bounded in length and in number.

    Never beyond the end of the lease; returns what to say.
    """
    lease = await svc.leases.of_operation(op_id)
    if lease is None or lease.ends is None:
        raise NotAllowed("That session is over; there is nothing to keep.")
    model = lease.model
    insist(may_keep(lease.holder, actor, await svc.people()))
    limit, now = svc.config.idle.keeps, svc.clock()
    if lease.keep_until and lease.keep_until > now and (until is None or until <= lease.keep_until):
        raise NotAllowed(f"{code(model)} is already kept until {clock(lease.keep_until)}.")
    if lease.keeps >= limit:
        raise NotAllowed(f"{code(model)} has been kept {limit} times already. Use it, or bring it down.")
    if until and until <= now:
        raise NotAllowed("That time is over; choose a later one.")
    if until and until > lease.ends:
        raise NotAllowed(
            f"The lease of {code(model)} ends at {clock(lease.ends)}; it cannot be kept longer than that."
            " `/gpu extend 1h` prolongs it first."
        )
    until = min(until or now + svc.config.idle.keep, lease.ends)
    kept = await renew(svc, lease, lambda held: held.model_copy(update={"keeps": lease.keeps + 1, "keep_until": until}))
    if kept is None:
        raise NotAllowed(f"That session of {code(model)} is over; there is nothing to keep.")
    await svc.store.note_lease(kept, "kept", actor, f"until {until.isoformat()}", now)
    said = f"👍 {code(model)} is kept until {clock(until)} by <@{actor}> ({kept.keeps} of {limit})."
    await questions.settle(svc, op_id, said)
    return said
