"""The weeks behind: GPU hours by model and by person, idle share, cost. Pure: bills in, a table and a picture out."""

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

_INCHES, _DPI = (11, 7), 110
_NAMED = len(ascii_uppercase)
"""People who get a letter of their own; more than that are drawn together."""


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
    # Imported here: it takes a second and 40 MB, and most bots are never asked.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    (models, people), (idle, cost) = figure.subplots(2, 2)
    named = letters(weeks)
    by_letter = [_renamed(week.by_person, named) for week in weeks]
    _stacked(models, weeks, [week.by_model for week in weeks], "GPU hours by model")
    _stacked(people, weeks, by_letter, "GPU hours by person")
    _bars(idle, weeks, [100 * week.idle_share for week in weeks], "Idle share of the time up, %", "{:.0f} %")
    idle.set_ylim(0, 100)
    _bars(cost, weeks, [week.usd for week in weeks], "Cost, US dollars", "${:.2f}")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def _renamed(hours: dict[str, float], names: dict[str, str]) -> dict[str, float]:
    renamed: defaultdict[str, float] = defaultdict(float)
    for person, value in hours.items():
        renamed[names[person]] += value
    return renamed


def _stacked(axes: "Axes", weeks: tuple[Week, ...], parts: list[dict[str, float]], title: str) -> None:
    below = [0.0] * len(weeks)
    for name in sorted({name for part in parts for name in part}):
        heights = [part.get(name, 0.0) for part in parts]
        axes.bar(_labels(weeks), heights, bottom=below, label=name)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    if any(below):
        axes.legend(fontsize="small")
    _framed(axes, title)


def _bars(axes: "Axes", weeks: tuple[Week, ...], heights: list[float], title: str, form: str) -> None:
    bars = axes.bar(_labels(weeks), heights, color="tab:gray")
    axes.bar_label(bars, [form.format(height) if height else "" for height in heights], fontsize="small")
    _framed(axes, title)


def _framed(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelrotation=30, labelsize="small")


def _labels(weeks: tuple[Week, ...]) -> list[str]:
    """The Monday of each week."""
    return [f"{week.begins:%d %b}" for week in weeks]
