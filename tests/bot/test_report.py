"""The weeks behind, as numbers and as a picture."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.domain import Bill, Node
from bot.report import Day, daily, letters, picture, picture_of_days, weekly

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
    """Weeks begin on Monday, UTC; one that is older than the report is left out."""
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
    """Nothing was used, and nothing is divided by zero."""
    (week,) = weekly([], NOW, 1)
    assert (week.hours, week.idle_share, week.usd) == (0, 0, 0)


def test_people_are_letters_by_their_hours() -> None:
    """The picture needs no right to read names; who is who stands below it."""
    weeks = weekly([a_bill(NOW, 1, holder="U1"), a_bill(NOW, 2, holder="U2")], NOW, 1)
    assert letters(weeks) == {"U2": "A", "U1": "B"}


def test_the_picture_is_a_png_also_with_many_people() -> None:
    """A name of any length, forty people, eight weeks."""
    bills = [a_bill(NOW - timedelta(weeks=n % 8), 1 + n, f"model-{n % 9}-" + "x" * 40, f"U{n}") for n in range(40)]
    drawn = picture(weekly(bills, NOW, 8))
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) > 10_000


def test_days_are_counted_where_their_sessions_began() -> None:
    """Seven of them, the present one last; what is older is left out."""
    yesterday = NOW - timedelta(days=1)
    days = daily([a_bill(yesterday, 2, idle=0.5), a_bill(yesterday, 1), a_bill(NOW - timedelta(days=7), 9)], NOW)
    assert [day.day.day for day in days] == [19, 20, 21, 22, 23, 24, 25]
    assert days[-2] == Day(yesterday.date(), hours=3, up=3, idle=0.5, usd=2.55)
    assert not any(day.hours for day in (*days[:-2], days[-1]))


def test_days_without_a_session_are_none() -> None:
    """There is nothing to show then."""
    assert daily([], NOW) == ()
    assert daily([a_bill(NOW - timedelta(days=8), 1)], NOW) == ()


def test_the_days_are_a_png() -> None:
    """Also when the figures are tiny, or there is one."""
    tiny = daily([a_bill(NOW, 0.003)], NOW)
    assert picture_of_days(tiny).startswith(b"\x89PNG")
    assert picture_of_days(tiny[-1:]).startswith(b"\x89PNG")
