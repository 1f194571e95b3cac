"""Formats of times and durations."""

from datetime import timedelta

import pytest

from bot.text.durations import parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("1h30m", 5400), ("45 min", 2700), ("900s", 900), ("1 d", 86400)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    """People write durations in these forms."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["-3h", "", "0m", "2", "soon", "3h;rm"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    """Durations that are negative, empty, zero, without a unit, or mixed with other text are refused."""
    with pytest.raises(ValueError, match="for example"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (12, "12 s"), (250, "4 min 10 s"), (5400, "1 h 30 min"), (183600, "2 d 3 h")]
)
def test_durations_are_shown(seconds: int, text: str) -> None:
    """A duration is shown with two units at most."""
    assert show_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    "text",
    ["99999999999h", "9" * 5000 + "h", "1e999h", "-1h", "NaN", "inf", "0h", "0.0000001s", "3651d", "1h" * 100000],
)
def test_an_absurd_duration_is_one_sentence(text: str) -> None:
    """The error stays short even if the duration exceeds the range of dates or has thousands of digits."""
    with pytest.raises(ValueError, match=r"45m, 2h or 1h30m") as refused:
        parse_duration(text)
    assert len(str(refused.value)) < 300
