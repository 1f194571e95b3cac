"""Pure functions that compute GPU hours, idle share and cost of the past days and weeks from the bills."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from bot.domain.sessions import Bill
from manifests.frozen import frozen


@frozen
class Day:
    """The sessions that began on one day (UTC)."""

    day: date
    hours: float
    """Billed hours."""
    up: float
    """Hours in which a model was ready."""
    idle: float
    """Idle hours."""
    usd: float


@dataclass
class Week:
    """The sessions that began in one calendar week (UTC, from Monday), with the billed hours by model and by person."""

    begins: date
    by_model: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    by_person: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    up_hours: float = 0
    idle_hours: float = 0
    usd: float = 0

    @property
    def hours(self) -> float:
        return sum(self.by_model.values())

    @property
    def idle_share(self) -> float:
        """The idle time as a share of the time in which a model was ready."""
        return self.idle_hours / self.up_hours if self.up_hours else 0.0


def weekly(bills: Iterable[Bill], now: datetime, count: int) -> tuple[Week, ...]:
    """The last `count` weeks, the current week last. A session counts in the week in which it began."""
    monday = now.date() - timedelta(days=now.weekday())
    weeks = {monday - timedelta(weeks=n): Week(monday - timedelta(weeks=n)) for n in reversed(range(count))}
    for bill in bills:
        begun = bill.begins.date()
        week = weeks.get(begun - timedelta(days=begun.weekday()))
        if week is None:
            continue
        hours = bill.billed / timedelta(hours=1)
        week.by_model[bill.model] += hours
        week.by_person[bill.holder] += hours
        week.up_hours += bill.up / timedelta(hours=1)
        week.idle_hours += bill.idle_seconds / 3600
        week.usd += bill.usd
    return tuple(weeks.values())


def daily(bills: Iterable[Bill], now: datetime, count: int = 7) -> tuple[Day, ...]:
    """The last `count` days, today last; empty if there was no session. A session counts on the day on which it began."""
    days = {(now - timedelta(days=back)).date(): (0.0, 0.0, 0.0, 0.0) for back in reversed(range(count))}
    for bill in bills:
        if (day := bill.begins.date()) in days:
            hour = timedelta(hours=1)
            spent = (bill.billed / hour, bill.up / hour, bill.idle_seconds / 3600, bill.usd)
            days[day] = tuple(map(sum, zip(days[day], spent, strict=True)))  # type: ignore[assignment]
    if not any(hours for hours, *_ in days.values()):
        return ()
    return tuple(Day(day, *(round(figure, 4) for figure in figures)) for day, figures in days.items())
