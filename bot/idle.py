"""Decides when a model is idle, and whether to remind its holder, to warn of the end or to bring it down.

The functions are pure: they compute a decision from samples, lease, queue, time and policy. `bot.gpu.watch` takes the
samples and acts on the decisions; `bot.analysis.simulate` replays a trace of requests through the same functions.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from bot.domain.leases import Lease
from bot.domain.sessions import Activity, Own, Session
from bot.settings.config import Idle, LeaseLimits
from bot.text.durations import show_duration
from manifests.frozen import frozen


@frozen
class Nothing:
    """Do nothing."""


@frozen
class Remind:
    """Ask the holder whether the model is still needed. `idle` is the time since the last request. If nobody answers, the
    model is brought down at `down_at`.
    """

    idle: timedelta
    down_at: datetime
    last: bool
    """True if this is the last reminder, which announces the bring-down."""


@frozen
class MetricsUnreadable:
    """The metrics have been unreadable since `since`, so the model counts as in use until its lease ends."""

    since: datetime


@frozen
class WarnEnd:
    """Warn the holder that the lease ends soon."""

    left: timedelta


@frozen
class BringDown:
    """Bring the model down."""

    reason: str


Decision = Nothing | Remind | MetricsUnreadable | WarnEnd | BringDown


def with_sample(
    session: Session | None, lease: Lease, activity: Activity | None, now: datetime, bot_requests: Own | None = None
) -> Session:
    """The session after one more sample. Unknown activity (None) counts as use; the bot's own requests do not.

    `bot_requests` are the requests that the bot itself has made to the model; none of them may be running.
    """
    bot_requests = bot_requests or Own()
    if session is None:
        # The earlier activity is unknown (a new session, or Redis has lost its data), so it counts as use.
        session = Session(fence=lease.fence, sampled=now, active=now, own=bot_requests)
        return session if activity is None else _with_counters(session, activity)
    if activity is None:
        return session.model_copy(
            update={"sampled": now, "active": now, "unknown_since": session.unknown_since or now, "own": bot_requests}
        )
    own_requests = bot_requests.requests - session.own.requests
    own_tokens = bot_requests.tokens - session.own.tokens
    requests = max(0.0, _increase(activity.requests, session.requests_seen) - own_requests)
    tokens = max(0.0, _increase(activity.tokens, session.tokens_seen) - own_tokens)
    changes: dict[str, object] = {
        "sampled": now,
        "unknown_since": None,
        "told_unknown": False,
        "own": bot_requests,
        "requests": session.requests + requests,
        "tokens": session.tokens + tokens,
    }
    unknown = session.requests_seen is None or session.tokens_seen is None
    if unknown or requests or tokens or activity.running > 0 or activity.waiting > 0:
        changes["active"] = now
    else:
        changes["idle_seconds"] = session.idle_seconds + (now - session.sampled).total_seconds()
    return _with_counters(session.model_copy(update=changes), activity)


def _with_counters(session: Session, activity: Activity) -> Session:
    return session.model_copy(update={"requests_seen": activity.requests, "tokens_seen": activity.tokens})


def _increase(counter: float, previous: float | None) -> float:
    """The increase of a counter that restarts at 0 when its server restarts (like Prometheus' `increase`)."""
    if previous is None:
        return 0.0
    return counter - previous if counter >= previous else counter


def decide(lease: Lease, session: Session, waiting: int, now: datetime, policy: Idle, limits: LeaseLimits) -> Decision:
    """The decision about a model that holds the GPU, with `waiting` requests in the queue.

    A model that is loading is never idle. A keep and a lease end regardless of the metrics. An idle model is brought
    down only after an announcement, except in quiet hours.
    """
    if lease.ready is None or lease.ends is None:
        return Nothing()
    if now >= lease.ends:
        return BringDown("the lease has ended")
    if now >= lease.ends - limits.warn_before and session.warned != lease.ends and lease.hold > limits.warn_before:
        return WarnEnd(lease.ends - now)

    since = max(session.active, lease.keep_until or session.active)
    idle = now - since
    remind_after, down_after = idle_limits(policy, waiting)
    total = show_duration(now - session.active)
    if idle >= remind_after and is_quiet(now, policy):
        return BringDown(f"idle for {total} in quiet hours")
    notice = min(policy.announce_before, down_after - remind_after)
    # Keep the announced time, unless the limit is longer now, because the queue for the GPU has become empty.
    if session.announced and session.down_at and session.announced >= since and session.down_at >= since + down_after:
        return BringDown(f"idle for {total} and nobody answered") if now >= session.down_at else Nothing()
    if idle >= max(remind_after, down_after - notice):
        return Remind(now - session.active, down_at=max(since + down_after, now + notice), last=True)
    last_asked = session.reminded if session.reminded and session.reminded >= since else None
    if idle >= remind_after and (last_asked is None or now >= last_asked + policy.remind_every):
        return Remind(now - session.active, down_at=since + down_after, last=False)
    unknown = session.unknown_since
    if unknown and not session.told_unknown and now >= unknown + policy.remind_after:
        return MetricsUnreadable(unknown)
    return Nothing()


def after_decision(session: Session, decision: Decision, lease: Lease, now: datetime) -> Session:
    """The session after the decision was carried out, so that it is not carried out again."""
    match decision:
        case Remind(down_at=down_at, last=last):
            changes: dict[str, object] = {"reminders": session.reminders + 1, "reminded": now}
            return session.model_copy(update=changes | ({"announced": now, "down_at": down_at} if last else {}))
        case WarnEnd():
            return session.model_copy(update={"warned": lease.ends})
        case MetricsUnreadable():
            return session.model_copy(update={"told_unknown": True})
        case BringDown():
            return session.model_copy(update={"asked_down": now})
        case Nothing():
            return session


def idle_limits(policy: Idle, waiting: int) -> tuple[timedelta, timedelta]:
    """The idle times until a reminder and until the bring-down; they are shorter if somebody waits for the GPU."""
    if not waiting:
        return policy.remind_after, policy.down_after
    return min(policy.remind_after, policy.queue_remind_after), min(policy.down_after, policy.queue_down_after)


def is_quiet(now: datetime, policy: Idle) -> bool:
    """Return whether `now` is in a quiet day or hour, in the time zone `idle.timezone`."""
    local = now.astimezone(ZoneInfo(policy.timezone))
    if f"{local:%a}".lower() in policy.quiet_days:
        return True
    if policy.quiet_hours is None:
        return False
    begins, ends = policy.quiet_hours
    time = local.time()
    return begins <= time < ends if begins < ends else time >= begins or time < ends
