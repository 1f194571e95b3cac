"""How times are written and shown."""

from datetime import timedelta

import pytest

from bot.durations import parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("1h30m", 5400), ("45 min", 2700), ("900s", 900), ("1 d", 86400)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    """The ways people write them."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["-3h", "", "0m", "2", "soon", "3h;rm"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Negative, empty, zero, without a unit, with something else in it."""
    with pytest.raises(ValueError, match="for example"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (12, "12 s"), (250, "4 min 10 s"), (5400, "1 h 30 min"), (183600, "2 d 3 h")]
)
def test_durations_are_shown(seconds: int, text: str) -> None:
    """Two units at most."""
    assert show_duration(timedelta(seconds=seconds)) == text
