"""The report on the use of the GPU: charts and a table of the last weeks."""

from collections import defaultdict
from collections.abc import Sequence

from bot.analysis.report import Week
from bot.text.mrkdwn import md
from bot.views.blocks import View, section
from bot.views.newer import chart, table
from bot.views.text import hours_text, money, person

_PEOPLE = 20


def usage(weeks: Sequence[Week], sessions: int, estimates: int) -> View:
    """Totals, people, hours by model, cost, and the figures of each week."""
    total, usd = sum(week.hours for week in weeks), sum(week.usd for week in weeks)
    up = sum(week.up_hours for week in weeks)
    idle = f", idle {sum(week.idle_hours for week in weeks) / up:.0%} of the time up" if up else ""
    line = md(
        "*The GPU in the last {weeks} weeks*: {total} in {sessions} session{s}, {usd}{idle}.",
        weeks=len(weeks),
        total=hours_text(total),
        sessions=sessions,
        s="s" if sessions > 1 else "",
        usd=money(usd),
        idle=idle,
    )
    text = line
    if estimates:
        text += md(
            "\nThe cost of {n} of them is an estimate, because the end of their node was not observed.", n=estimates
        )
    names = [f"{week.begins:%d %b}" for week in weeks]
    models = dict.fromkeys(model for week in weeks for model in week.by_model)
    by_model = {model: [week.by_model.get(model, 0.0) for week in weeks] for model in models}
    rows = [
        (f"{week.begins:%Y-%m-%d}", hours_text(week.hours), f"{week.idle_share:.0%}", money(week.usd))
        for week in weeks
        if week.hours
    ]
    blocks = [
        section(text),
        section(md(" · ").join(_people(weeks))),
        chart("GPU hours by model, week by week", names, by_model, "hours"),
        chart("Cost of the GPU, week by week", names, {"cost": [week.usd for week in weeks]}, "US dollars"),
        table(("Week from", "Hours", "Idle while up", "Cost"), rows, right=(1, 2, 3)),
    ]
    return View(text=line, blocks=blocks)


def _people(weeks: Sequence[Week]) -> list[str]:
    """Each person with their hours, the person with the most hours first."""
    hours: defaultdict[str, float] = defaultdict(float)
    for week in weeks:
        for user, spent in week.by_person.items():
            hours[user] += spent
    ranked = sorted(hours, key=lambda user: (-hours[user], user))
    rows: list[str] = [
        md("{user} {hours}", user=person(user), hours=hours_text(hours[user])) for user in ranked[:_PEOPLE]
    ]
    return rows + ([f"{len(ranked) - _PEOPLE} more"] if len(ranked) > _PEOPLE else [])
