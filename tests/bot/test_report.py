"""The figures of the past weeks."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.analysis.report import Day, daily, weekly
from bot.domain.sessions import Bill, Node
from bot.views.older import older
from bot.views.usage import usage
from sandbox.slack import blocks as kit
from tests.bot.view_examples import complaints

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)


def a_bill(claimed: datetime, hours: float, model: str = "coder-chat", holder: str = "U1", idle: float = 0) -> Bill:
    node = Node(name="gpu", since=claimed)
    down = claimed + hours * HOUR
    return Bill(
        fence=1, op="", model=model, holder=holder, claimed=claimed, ready=claimed, down=down, node=node, gone=down,
        drain=HOUR, price_per_hour=0.85, idle_seconds=idle * 3600,
    )  # fmt: skip


def test_a_session_counts_in_the_week_in_which_it_began() -> None:
    """Weeks begin on Monday, UTC; weeks older than the report are omitted."""
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    bills = [
        a_bill(monday, 2, idle=1),
        a_bill(monday + HOUR, 1, model="coder-fim", holder="U2"),
        a_bill(monday - timedelta(seconds=1), 4),
        a_bill(monday - timedelta(weeks=2), 8),
    ]
    before, present = weekly(bills, NOW, 2)
    assert (before.hours, present.hours) == (4, 3)
    assert present.by_model == {"coder-chat": 2, "coder-fim": 1}
    assert present.by_person == {"U1": 2, "U2": 1}
    assert present.idle_share == pytest.approx(1 / 3)
    assert present.usd == pytest.approx(3 * 0.85)


def test_a_week_without_a_session_is_drawn_empty() -> None:
    """Without usage, nothing is divided by zero."""
    (week,) = weekly([], NOW, 1)
    assert (week.hours, week.idle_share, week.usd) == (0, 0, 0)


def test_the_report_fits_with_many_people_and_models() -> None:
    """Names may have any length. The figures are in the table, and in older blocks."""
    bills = [a_bill(NOW - timedelta(weeks=n % 8), 1 + n, f"model-{n % 9}-" + "x" * 40, f"U{n}") for n in range(40)]
    view = usage(weekly(bills, NOW, 8), len(bills), 0)
    assert complaints(view) == []
    assert "20 more" in kit.visible_text(view.blocks, str)
    assert "$" in kit.visible_text(older(view.blocks), str)


def test_the_report_names_the_people_who_used_the_gpu() -> None:
    """The person with the most hours is first, a week without a session has no row, and an estimate is marked."""
    bills = [a_bill(NOW, 1, holder="U1", idle=0.3), a_bill(NOW, 2, holder="U2")]
    view = usage(weekly(bills, NOW, 2), 2, 1)
    text = kit.visible_text(view.blocks, lambda user: {"U1": "dev", "U2": "lead"}[user])
    assert "@lead 2 h · @dev 1 h" in text
    assert "3 h in 2 sessions, $2.55, idle 10% of the time up." in text
    assert "The cost of 1 of them is an estimate" in text
    assert "coder-chat: 16 Nov 0, 23 Nov 3" in text
    assert "cost: 16 Nov 0, 23 Nov 2.55" in text
    assert "2026-11-23 · 3 h · 10% · $2.55" in text
    assert "2026-11-16" not in text
    assert "estimate" not in kit.visible_text(usage(weekly(bills, NOW, 1), 2, 0).blocks, str)


def test_days_are_counted_where_their_sessions_began() -> None:
    """There are seven days, and the current day is the last; older days are omitted."""
    yesterday = NOW - timedelta(days=1)
    days = daily([a_bill(yesterday, 2, idle=0.5), a_bill(yesterday, 1), a_bill(NOW - timedelta(days=7), 9)], NOW)
    assert [day.day.day for day in days] == [19, 20, 21, 22, 23, 24, 25]
    assert days[-2] == Day(yesterday.date(), hours=3, up=3, idle=0.5, usd=2.55)
    assert not any(day.hours for day in (*days[:-2], days[-1]))


def test_no_days_are_returned_without_sessions() -> None:
    """Without sessions there is nothing to show."""
    assert daily([], NOW) == ()
    assert daily([a_bill(NOW - timedelta(days=8), 1)], NOW) == ()
