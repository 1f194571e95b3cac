"""What is idle, and what is done about it.

`decide` is pure: a lease, what the samples remembered, the clock and the policy in, what to do out.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from docket import Depends, Perpetual

from bot.clients.vllm import Activity
from bot.domain import Kind, Lease, Session, cost
from bot.durations import show_duration
from bot.errors import BotError, Unavailable
from bot.operations.down import down_request
from bot.operations.life import NotAllowed, insist, request
from bot.policy import may_keep
from bot.services import Services, services
from bot.settings import Config
from bot.views import clock, code, lines, reminder

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Nothing:
    """Leave it."""


@dataclass(frozen=True)
class Remind:
    """Tell the holder, with the buttons to answer."""

    idle: timedelta
    down_in: timedelta


@dataclass(frozen=True)
class WarnEnd:
    """The lease ends soon."""

    left: timedelta


@dataclass(frozen=True)
class BringDown:
    why: str


def sampled(session: Session | None, lease: Lease, activity: Activity | None, now: datetime) -> Session:
    """The memory after one more sample. Unknown (None) counts as active, and so does the first sample."""
    if session is None or session.fence != lease.fence:
        return Session(
            fence=lease.fence,
            sampled=now,
            active=lease.ready or now,
            counter=_counter(activity),
            requests_seen=activity.requests if activity else 0,
            tokens_seen=activity.prompt_tokens + activity.generation_tokens if activity else 0,
        )
    moved = activity is None or activity.running > 0 or activity.waiting > 0 or _counter(activity) != session.counter
    served_requests = max(0.0, activity.requests - session.requests_seen) if activity else 0.0
    changes: dict[str, object] = {"sampled": now}
    if activity:
        tokens = activity.prompt_tokens + activity.generation_tokens
        changes |= {
            "counter": _counter(activity),
            "requests": session.requests + served_requests,
            "requests_seen": activity.requests,
            "tokens": session.tokens + max(0.0, tokens - session.tokens_seen),
            "tokens_seen": tokens,
        }
    if moved:
        changes |= {"active": now, "reminders": 0, "reminded": None, "announced": False}
    else:
        changes |= {"idle_seconds": session.idle_seconds + (now - session.sampled).total_seconds()}
    return session.model_copy(update=changes)


def _counter(activity: Activity | None) -> float:
    return activity.requests + activity.prompt_tokens + activity.generation_tokens if activity else 0


def decide(lease: Lease, session: Session, config: Config, now: datetime) -> Nothing | Remind | WarnEnd | BringDown:
    """What to do about a model that is up. Loading is never idle; a keep has an end; the lease's end is hard."""
    if lease.ready is None or lease.ends is None:
        return Nothing()
    if now >= lease.ends:
        return BringDown("the lease has ended")
    if now >= lease.ends - config.lease.warn_before and not session.warned and lease.hold > config.lease.warn_before:
        return WarnEnd(lease.ends - now)
    since = max(session.active, lease.keep_until or session.active)
    idle = now - since
    if idle >= config.idle.down_after and session.reminders:
        return BringDown(f"idle for {show_duration(now - session.active)} and nobody answered")
    if idle >= config.idle.remind_after and not session.reminders:
        return Remind(idle=now - session.active, down_in=max(timedelta(), config.idle.down_after - idle))
    return Nothing()


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
        return
    try:
        activity = await svc.vllm.activity(svc.vllm.url(workload.service, workload.namespace, workload.port))
    except (Unavailable, BotError):
        activity = None
    session = sampled(await svc.store.session(lease.model), lease, activity, now)
    match decide(lease, session, svc.config, now):
        case Nothing():
            pass
        case Remind() as due:
            session = session.model_copy(update={"reminders": session.reminders + 1, "reminded": now})
            await _remind(svc, lease, session, due)
        case WarnEnd(left):
            session = session.model_copy(update={"warned": True})
            text = f"⏰ <@{lease.holder}> the lease of {code(lease.model)} ends in {show_duration(left)}; then it goes down."
            await svc.slack.post(f"warn:{lease.fence}", _channel(svc, lease), lines(text))
        case BringDown(why):
            if not await svc.store.open(Kind.GPU_DOWN, lease.model):
                wanted = down_request(lease.model, "", _channel(svc, lease), now, why)
                await request(svc, wanted, delivery=f"idle:{lease.fence}:{now.isoformat()}")
    await svc.store.save_session(lease.model, session)


def _channel(svc: Services, lease: Lease) -> str:
    return lease.message.channel if lease.message else svc.config.slack.channel


async def _remind(svc: Services, lease: Lease, session: Session, due: Remind) -> None:
    view = reminder(
        lease,
        show_duration(due.idle),
        cost(due.idle, svc.config.gpu.price_per_hour),
        show_duration(due.down_in),
        can_keep=lease.keeps < svc.config.idle.keeps,
    )
    key = f"remind:{lease.fence}:{lease.keeps}:{int(session.active.timestamp())}"
    await svc.slack.post(key, _channel(svc, lease), view)
    await svc.slack.post(f"{key}:dm", lease.holder, view)


async def keep(svc: Services, model: str, fence: int, actor: str) -> str:
    """Answer a reminder: leave the model up for a while. Bounded in length and in number; returns what to say."""
    lease = await svc.leases.of(model)
    if lease is None or lease.fence != fence:
        raise NotAllowed(f"That session of {code(model)} is over; there is nothing to keep.")
    insist(may_keep(lease.holder, actor, await svc.people()))
    limit, now = svc.config.idle.keeps, svc.clock()
    if lease.keeps >= limit:
        raise NotAllowed(f"{code(model)} has been kept {limit} times already. Use it, or bring it down.")
    until = now + svc.config.idle.keep
    if lease.ends and until > lease.ends:
        until = lease.ends
    kept = await svc.leases.change(
        lease, lambda held: held.model_copy(update={"keeps": lease.keeps + 1, "keep_until": until})
    )
    if kept is None:
        raise NotAllowed(f"That session of {code(model)} is over; there is nothing to keep.")
    session = await svc.store.session(model)
    if session and session.fence == fence:
        await svc.store.save_session(model, session.model_copy(update={"reminders": 0, "reminded": None}))
    return f"👍 {code(model)} is kept until {clock(until)} by <@{actor}> ({kept.keeps} of {limit})."
