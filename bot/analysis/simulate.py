"""Computes the cost of a policy: replays timestamps of requests through the bot's policy code.

The functions are pure and use a simulated clock. The model of people is simple: a person who needs an answer requests the
GPU immediately, and the request is approved after a fixed time; nobody answers a reminder; a lease in use is extended before its end,
up to the maximum without an approval. These assumptions are the same for every policy.
"""

import csv
import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.domain.leases import Lease
from bot.domain.sessions import COLD_START, Activity, cost
from bot.errors import BotError
from bot.idle import BringDown, WarnEnd, after_decision, decide, with_sample
from bot.settings.config import Config
from manifests.frozen import frozen

NEVER = timedelta(days=36_500)
ZERO = timedelta()


@dataclass(frozen=True, order=True)
class Arrival:
    """One request to the model: its time, and the duration of its answer."""

    at: datetime
    takes: timedelta = timedelta(seconds=10)


@frozen
class World:
    """Parameters that do not depend on the policy. The default drain is that of GKE, ten minutes."""

    approval: timedelta = timedelta(minutes=2)
    boot: timedelta = COLD_START
    drain: timedelta = timedelta(minutes=10)
    price_per_hour: float = 0.85


@dataclass
class Outcome:
    """The result of one policy for one trace."""

    name: str
    billed: list[tuple[datetime, datetime]] = field(default_factory=list)
    up: timedelta = ZERO
    idle: timedelta = ZERO
    cold_starts: int = 0
    waits: list[timedelta] = field(default_factory=list)
    """The waits of the requests that waited for a cold start."""

    def bill(self, begins: datetime, ends: datetime) -> None:
        """Add a session. If the node of the previous session is still draining, this node is used again, and billed once."""
        if self.billed and begins <= self.billed[-1][1]:
            self.billed[-1] = (self.billed[-1][0], max(ends, self.billed[-1][1]))
        else:
            self.billed.append((begins, ends))

    @property
    def gpu_time(self) -> timedelta:
        return sum((ends - begins for begins, ends in self.billed), ZERO)

    @property
    def idle_share(self) -> float:
        return self.idle / self.up if self.up else 0.0

    @property
    def waited(self) -> timedelta:
        return sum(self.waits, ZERO)

    def usd(self, world: World) -> float:
        return cost(self.gpu_time, world.price_per_hour)


def replay(name: str, arrivals: list[Arrival], config: Config, world: World) -> Outcome:
    """Replay a trace under a policy: `bot.idle` decides at each sample, as in the bot."""
    outcome, position = Outcome(name), 0
    while position < len(arrivals):
        node = arrivals[position].at + world.approval
        ready = node + world.boot
        down, position = _session(outcome, arrivals, position, ready, config)
        outcome.bill(node, down + world.drain)
        outcome.cold_starts += 1
    return outcome


def _session(
    outcome: Outcome, arrivals: list[Arrival], first: int, ready: datetime, config: Config
) -> tuple[datetime, int]:
    """Simulate one session from ready to down. Returns its end, and the index of the next request after it."""
    hold = config.lease.default
    lease = Lease(model="", op="", holder="", fence=1, hold=hold, claimed=ready, ready=ready, ends=ready + hold)
    starts = [max(arrival.at, ready) for arrival in arrivals[first:]]
    ended = sorted(start + arrival.takes for start, arrival in zip(starts, arrivals[first:], strict=True))
    session, now = with_sample(None, lease, Activity(), ready), ready
    while True:
        now += config.idle.sample_every
        done, begun = bisect_right(ended, now), bisect_right(starts, now)
        session = with_sample(session, lease, Activity(running=begun - done, requests=done), now)
        decision = decide(lease, session, 0, now, config.idle, config.lease)
        session = after_decision(session, decision, lease, now)
        match decision:
            case WarnEnd():
                longer = (lease.ends or now) + hold
                if now - session.active < config.idle.remind_after and longer - ready <= config.lease.longest:
                    lease = lease.model_copy(update={"ends": longer})
            case BringDown():
                break
            case _:
                pass
    outcome.up += now - ready
    outcome.idle += timedelta(seconds=session.idle_seconds)
    served = bisect_right(starts, now)
    outcome.waits += [ready - arrival.at for arrival in arrivals[first : first + served] if arrival.at < ready]
    return now, first + served


def always_on(arrivals: list[Arrival], world: World) -> Outcome:
    """One node from the first request to the last answer."""
    outcome, (begins, ends) = Outcome("always on"), (arrivals[0].at, max(a.at + a.takes for a in arrivals))
    outcome.bill(begins, ends)
    outcome.up = ends - begins
    outcome.idle = sum((after - before for before, after in _gaps(arrivals)), ZERO)
    return outcome


def never_remind(arrivals: list[Arrival], config: Config, world: World) -> Outcome:
    """A policy without reminders: only the end of a lease brings a model down."""
    idle = config.idle.model_copy(update={"remind_after": NEVER, "down_after": 2 * NEVER, "quiet_days": ()})
    idle = idle.model_copy(update={"quiet_hours": None})
    return replay("never remind", arrivals, config.model_copy(update={"idle": idle}), world)


def office_hours(arrivals: list[Arrival], world: World) -> Outcome:
    """A cron job: up on weekdays from 8:00 to 18:00 UTC. A request outside these hours waits until 8:00."""
    outcome, last = Outcome("cron: weekdays 8:00 to 18:00"), max(arrival.at + arrival.takes for arrival in arrivals)
    opens, waiting = arrivals[0].at.replace(hour=8, minute=0, second=0, microsecond=0), list(arrivals)
    while waiting or opens <= last:
        closes = opens + timedelta(hours=10)
        if opens.weekday() < 5:
            outcome.bill(opens - world.boot, closes + world.drain)
            outcome.up += closes - opens
            outcome.cold_starts += 1
            outcome.waits += [opens - arrival.at for arrival in waiting if arrival.at < opens]
            waiting = [arrival for arrival in waiting if arrival.at >= closes]
        opens += timedelta(days=1)
    outcome.idle = outcome.up - min(outcome.up, sum((arrival.takes for arrival in arrivals), ZERO))
    return outcome


def on_traffic(arrivals: list[Arrival], config: Config, world: World) -> Outcome:
    """Scale to zero: the first request starts the model, and the model stops after 15 minutes without a request."""
    idle = config.idle.model_copy(update={"remind_after": timedelta(minutes=14), "down_after": timedelta(minutes=15)})
    idle = idle.model_copy(update={"quiet_days": (), "quiet_hours": None, "announce_before": timedelta(minutes=1)})
    without = replace(world, approval=ZERO)
    return replay("scale to zero after 15 min", arrivals, config.model_copy(update={"idle": idle}), without)


def clairvoyant(arrivals: list[Arrival], world: World) -> Outcome:
    """The optimal policy if all requests are known in advance: the model is up just before each request, and is brought
    down after it if that is cheaper than staying up.

    This is the lowest cost at which nobody waits. A policy under which people wait can be cheaper.
    """
    outcome = Outcome("clairvoyant", cold_starts=1)
    begins = arrivals[0].at
    for before, after in _gaps(arrivals):
        if after - before <= world.boot + world.drain:
            outcome.idle += after - before
            continue
        outcome.bill(begins - world.boot, before + world.drain)
        outcome.up += before - begins
        outcome.cold_starts += 1
        begins = after
    ends = max(arrival.at + arrival.takes for arrival in arrivals)
    outcome.bill(begins - world.boot, ends + world.drain)
    outcome.up += ends - begins
    return outcome


def _gaps(arrivals: list[Arrival]) -> Iterable[tuple[datetime, datetime]]:
    """The times between the end of one answer and the next request."""
    until = arrivals[0].at
    for arrival in arrivals:
        if arrival.at > until:
            yield until, arrival.at
        until = max(until, arrival.at + arrival.takes)


def table(outcomes: Iterable[Outcome], world: World) -> str:
    """One line per policy, aligned for a terminal."""
    rows = [("policy", "GPU hours", "idle", "cold starts", "waited", "waited, mean", "cost")]
    for outcome in outcomes:
        mean = outcome.waited / len(outcome.waits) if outcome.waits else ZERO
        rows.append(
            (
                outcome.name,
                f"{outcome.gpu_time / timedelta(hours=1):.1f}",
                f"{outcome.idle_share:.0%}",
                str(outcome.cold_starts),
                f"{outcome.waited / timedelta(hours=1):.1f} h",
                f"{mean / timedelta(minutes=1):.1f} min",
                f"${outcome.usd(world):.2f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not n else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def read_trace(path: Path) -> list[Arrival]:
    """Read a CSV file with the columns `timestamp` (ISO 8601 or seconds since 1970) and, optionally, `seconds`, the
    duration of the answer.
    """
    arrivals = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    arrivals.append(_arrival(row))
                except (KeyError, TypeError, ValueError) as error:
                    raise BotError(
                        f"{path}:{number}: each line needs a `timestamp` (ISO 8601 or seconds since 1970) and may have"
                        f" `seconds`; this one is {dict(row)}."
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BotError(f"{path} cannot be read: {error}") from error
    if not arrivals:
        raise BotError(f"{path} contains no requests.")
    return sorted(arrivals)


def _arrival(row: dict[str, str]) -> Arrival:
    text = row["timestamp"].strip()
    try:
        at = datetime.fromtimestamp(float(text), UTC)
    except ValueError:
        at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    takes = float(row.get("seconds") or 10)
    if takes < 0:
        raise ValueError(takes)
    return Arrival(at, timedelta(seconds=takes))


def office_trace(seed: int = 1, weeks: int = 2) -> list[Arrival]:
    """A synthetic trace of a team: one to three periods of work on weekdays, sometimes an evening; requests in bursts."""
    dice = random.Random(seed)  # noqa: S311  # reproducible, not secret
    monday = datetime(2026, 11, 2, tzinfo=UTC)
    arrivals = []
    for day in range(7 * weeks):
        periods = dice.choice((1, 2, 2, 3)) if day % 7 < 5 else dice.choice((0, 0, 0, 1))
        begins = [dice.gauss(10, 0.7), dice.gauss(14, 0.8), dice.gauss(17, 1)][:periods]
        begins += [dice.gauss(20.5, 0.5)] if dice.random() < 0.15 else []
        for hour in begins:
            now, left = hour * 60, dice.lognormvariate(3.9, 0.6)  # minute of the day; minutes of work, about 50
            while left > 0:
                for _ in range(dice.randint(1, 4)):
                    at = monday + timedelta(days=day, minutes=now, seconds=dice.uniform(0, 40))
                    takes = min(90.0, dice.lognormvariate(2, 0.7))  # about 7 s
                    arrivals.append(Arrival(at.replace(microsecond=0), timedelta(seconds=round(takes, 1))))
                pause = dice.expovariate(1 / 5)
                now, left = now + pause, left - pause
    return sorted(arrivals)


def written(arrivals: Iterable[Arrival]) -> str:
    """The trace in the format of `read_trace`."""
    lines = [f"{arrival.at.isoformat()},{arrival.takes.total_seconds():g}" for arrival in arrivals]
    return "\n".join(["timestamp,seconds", *lines]) + "\n"
