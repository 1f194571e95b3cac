"""What is idle, and what is to be done about it.

Pure: samples, lease, queue, clock and policy in; a decision out. `bot.watch` takes the samples and acts on the
decisions, `bot.simulate` replays a trace of requests through these same functions.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from bot.domain import Activity, Lease, Own, Session
from bot.durations import show_duration
from bot.settings import Idle, LeaseLimits


@dataclass(frozen=True)
class Nothing:
    """Leave it."""


@dataclass(frozen=True)
class Remind:
    """Ask the holder whether it is still needed. `idle` is since the last request, `down_at` if nobody answers."""

    idle: timedelta
    down_at: datetime
    last: bool
    """Whether this announces the bring-down: no other reminder comes before it."""


@dataclass(frozen=True)
class Blind:
    """The metrics have not been readable since then: it counts as in use until the lease ends."""

    since: datetime


@dataclass(frozen=True)
class WarnEnd:
    """The lease ends soon."""

    left: timedelta


@dataclass(frozen=True)
class BringDown:
    why: str


Decision = Nothing | Remind | Blind | WarnEnd | BringDown


def sampled(
    session: Session | None, lease: Lease, activity: Activity | None, now: datetime, own: Own | None = None
) -> Session:
    """The memory after one more sample. Unknown (None) counts as active, and the bot's own requests do not.

    `own` is what the bot itself has asked of the model so far; no request of it may be under way.
    """
    own = own or Own()
    if session is None or session.fence != lease.fence:
        # What was before is unknown (a new session, or Redis has lost its data), and unknown counts as active.
        session = Session(fence=lease.fence, sampled=now, active=now, own=own)
        return session if activity is None else _seen(session, activity)
    if activity is None:
        return session.model_copy(
            update={"sampled": now, "active": now, "unknown_since": session.unknown_since or now, "own": own}
        )
    requests = max(0.0, _grown(activity.requests, session.requests_seen) - (own.requests - session.own.requests))
    tokens = max(0.0, _grown(activity.tokens, session.tokens_seen) - (own.tokens - session.own.tokens))
    changes: dict[str, object] = {
        "sampled": now,
        "unknown_since": None,
        "told_unknown": False,
        "own": own,
        "requests": session.requests + requests,
        "tokens": session.tokens + tokens,
    }
    if requests or tokens or activity.running > 0 or activity.waiting > 0:
        changes["active"] = now
    else:
        changes["idle_seconds"] = session.idle_seconds + (now - session.sampled).total_seconds()
    return _seen(session.model_copy(update=changes), activity)


def _seen(session: Session, activity: Activity) -> Session:
    return session.model_copy(update={"requests_seen": activity.requests, "tokens_seen": activity.tokens})


def _grown(counter: float, before: float) -> float:
    """By how much a counter grew, which starts anew when its server does (as Prometheus' `increase` reads it)."""
    return counter - before if counter >= before else counter


def decide(lease: Lease, session: Session, waiting: int, now: datetime, policy: Idle, limits: LeaseLimits) -> Decision:
    """What to do about a model that holds the GPU, with `waiting` people in the queue.

    Loading is never idle. A keep has an end, and so has the lease, whatever the metrics say or fail to say. A model is
    brought down for being idle only after that was announced, except in quiet hours, whose point is not to ask.
    """
    if lease.ready is None or lease.ends is None:
        return Nothing()
    if now >= lease.ends:
        return BringDown("the lease has ended")
    if now >= lease.ends - limits.warn_before and session.warned != lease.ends and lease.hold > limits.warn_before:
        return WarnEnd(lease.ends - now)

    since = max(session.active, lease.keep_until or session.active)
    idle = now - since
    remind_after, down_after = times(policy, waiting)
    total = show_duration(now - session.active)
    if idle >= remind_after and is_quiet(now, policy):
        return BringDown(f"idle for {total} in quiet hours")
    notice = min(policy.announce_before, down_after - remind_after)
    # What was announced is kept to the moment; it is void when the moment would now be a later one (nobody waits any more).
    if session.announced and session.down_at and session.announced >= since and session.down_at >= since + down_after:
        return BringDown(f"idle for {total} and nobody answered") if now >= session.down_at else Nothing()
    if idle >= max(remind_after, down_after - notice):
        return Remind(now - session.active, down_at=max(since + down_after, now + notice), last=True)
    asked = session.reminded if session.reminded and session.reminded >= since else None
    if idle >= remind_after and (asked is None or now >= asked + policy.remind_every):
        return Remind(now - session.active, down_at=since + down_after, last=False)
    unknown = session.unknown_since
    if unknown and not session.told_unknown and now >= unknown + policy.remind_after:
        return Blind(unknown)
    return Nothing()


def noted(session: Session, decision: Decision, lease: Lease, now: datetime) -> Session:
    """The memory once the decision has been acted on, so that it is acted on once."""
    match decision:
        case Remind(down_at=down_at, last=last):
            changes: dict[str, object] = {"reminders": session.reminders + 1, "reminded": now}
            return session.model_copy(update=changes | ({"announced": now, "down_at": down_at} if last else {}))
        case WarnEnd():
            return session.model_copy(update={"warned": lease.ends})
        case Blind():
            return session.model_copy(update={"told_unknown": True})
        case BringDown():
            return session.model_copy(update={"asked_down": now})
        case Nothing():
            return session


def times(policy: Idle, waiting: int) -> tuple[timedelta, timedelta]:
    """After how much idle time to remind and to bring down: less when somebody waits for the GPU."""
    if not waiting:
        return policy.remind_after, policy.down_after
    return min(policy.remind_after, policy.queue_remind_after), min(policy.down_after, policy.queue_down_after)


def is_quiet(now: datetime, policy: Idle) -> bool:
    """Whether it is a night or a day on which nobody is asked, by the clock of `idle.timezone`."""
    local = now.astimezone(ZoneInfo(policy.timezone))
    if f"{local:%a}".lower() in policy.quiet_days:
        return True
    if policy.quiet_hours is None:
        return False
    begins, ends = policy.quiet_hours
    time = local.time()
    return begins <= time < ends if begins < ends else time >= begins or time < ends
