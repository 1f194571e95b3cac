"""The days and weeks behind: GPU hours, idle share, cost. Pure: bills in, a table and a picture out."""

import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from string import ascii_uppercase
from typing import TYPE_CHECKING

from bot.domain import Bill

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES, _DAYS_INCHES, _DPI = (11, 7), (7, 2.7), 110
_HATCHES = ("", "//", "..", "xx", "--")
_NAMED = len(ascii_uppercase)
"""People who get a letter of their own; more than that are drawn together."""


@dataclass(frozen=True)
class Day:
    """The sessions that began on one day (UTC): hours that nodes billed, and how much of them a model was ready, or idle."""

    day: date
    hours: float
    up: float
    idle: float
    usd: float


@dataclass
class Week:
    """Hours that nodes billed, in one calendar week (UTC, from Monday), by where they went."""

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
        """Of the time in which a model was ready."""
        return self.idle_hours / self.up_hours if self.up_hours else 0.0


def weekly(bills: Iterable[Bill], now: datetime, count: int) -> tuple[Week, ...]:
    """The last `count` weeks, the present one last; a session counts where it began."""
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
    """The last `count` days, the present one last; a session counts where it began. Empty when there was none."""
    days = {(now - timedelta(days=back)).date(): (0.0, 0.0, 0.0, 0.0) for back in reversed(range(count))}
    for bill in bills:
        if (day := bill.begins.date()) in days:
            hour = timedelta(hours=1)
            spent = (bill.billed / hour, bill.up / hour, bill.idle_seconds / 3600, bill.usd)
            days[day] = tuple(map(sum, zip(days[day], spent, strict=True)))  # type: ignore[assignment]
    if not any(hours for hours, *_ in days.values()):
        return ()
    return tuple(Day(day, *(round(figure, 4) for figure in figures)) for day, figures in days.items())


def letters(weeks: Iterable[Week]) -> dict[str, str]:
    """A letter for each person, the one with the most hours first: a picture cannot show a mention, and names want a scope."""
    total: defaultdict[str, float] = defaultdict(float)
    for week in weeks:
        for person, hours in week.by_person.items():
            total[person] += hours
    ranked = sorted(total, key=lambda person: (-total[person], person))
    return {person: ascii_uppercase[min(n, _NAMED - 1)] for n, person in enumerate(ranked)}


def picture(weeks: tuple[Week, ...]) -> bytes:
    """The weeks as a PNG of four charts. Takes about a second, so not on the event loop."""
    figure = _figure(_INCHES)
    (models, people), (idle, cost) = figure.subplots(2, 2)
    mondays, named = [f"{week.begins:%d %b}" for week in weeks], letters(weeks)
    by_letter = [_renamed(week.by_person, named) for week in weeks]
    _stacked(models, mondays, [week.by_model for week in weeks], "GPU hours by model")
    _stacked(people, mondays, by_letter, "GPU hours by person")
    _bars(idle, mondays, [100 * week.idle_share for week in weeks], "Idle share of the time up, %", "{:.0f} %")
    idle.set_ylim(0, 100)
    _bars(cost, mondays, [week.usd for week in weeks], "Cost, US dollars", "${:.2f}")
    return _png(figure)


def picture_of_days(days: tuple[Day, ...]) -> bytes:
    """The days as a PNG: what their hours went to, and their cost. As slow as `picture`."""
    figure = _figure(_DAYS_INCHES)
    hours, cost = figure.subplots(1, 2)
    names = [f"{day.day:%a %d}" for day in days]
    parts = [{"in use": day.up - day.idle, "idle": day.idle, "boot and drain": day.hours - day.up} for day in days]
    _stacked(hours, names, parts, "GPU hours by day (UTC)")
    _bars(cost, names, [day.usd for day in days], "Cost, US dollars", "${:.2f}")
    return _png(figure)


def _figure(inches: tuple[float, float]) -> "Figure":
    # Imported here: it takes a second and 40 MB, and many bots are never asked.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def _renamed(hours: dict[str, float], names: dict[str, str]) -> dict[str, float]:
    renamed: defaultdict[str, float] = defaultdict(float)
    for person, value in hours.items():
        renamed[names[person]] += value
    return renamed


def _stacked(axes: "Axes", labels: list[str], parts: list[dict[str, float]], title: str) -> None:
    """A bar for each label; its parts are told apart by colour and by hatching, the first to come at the bottom."""
    below = [0.0] * len(labels)
    for number, name in enumerate(dict.fromkeys(name for part in parts for name in part)):
        heights = [part.get(name, 0.0) for part in parts]
        hatch = _HATCHES[number % len(_HATCHES)]
        axes.bar(labels, heights, bottom=below, label=name, hatch=hatch, edgecolor="white")
        below = [low + height for low, height in zip(below, heights, strict=True)]
    if any(below):
        axes.legend(fontsize="small")
    _framed(axes, title)


def _bars(axes: "Axes", labels: list[str], heights: list[float], title: str, form: str) -> None:
    bars = axes.bar(labels, heights, color="tab:gray")
    axes.bar_label(bars, [form.format(height) if height else "" for height in heights], fontsize="small")
    _framed(axes, title)


def _framed(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelrotation=30, labelsize="small")
