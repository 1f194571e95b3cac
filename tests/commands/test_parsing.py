"""Parsing of command lines."""

from datetime import timedelta

import pytest

from commands.parsing import Misunderstood, is_question, is_time, names_with_hold, read


def test_a_command_has_name_duration_and_reason() -> None:
    """All three parts are read."""
    line = read("up coder-chat for 1h 30m because demo for the board")
    assert (line.verb, line.names, line.hold) == ("up", ("coder-chat",), timedelta(minutes=90))
    assert line.reason == "demo for the board"


def test_options_are_key_value() -> None:
    """Options may be anywhere after the verb, quoted or not, and may be repeated."""
    line = read("add coder-mini Qwen/X context=8192 arg=--a=b arg=“--c d”")
    assert line.names == ("coder-mini", "Qwen/X")
    assert line.options == (("context", "8192"), ("arg", "--a=b"), ("arg", "--c d"))


@pytest.mark.parametrize("text", ["up x for -3h", "up x for", "up x for 0s", "up x for soon"])
def test_a_bad_duration_is_refused_with_an_example(text: str) -> None:
    """An invalid duration is named, with an example."""
    with pytest.raises(Misunderstood, match="for example 45m, 2h or 1h30m"):
        read(text)


def test_an_open_quote_is_named() -> None:
    """An unclosed quote is reported, not ignored."""
    with pytest.raises(Misunderstood, match="not closed"):
        read('add "x')


@pytest.mark.parametrize(
    ("text", "names", "minutes"),
    [
        ("up coder-fim 2h", ("coder-fim",), 120),
        ("up coder-fim for 2h", ("coder-fim",), 120),
        ("up coder-fim 1h 30m because demo", ("coder-fim",), 90),
        ("up coder-fim 2 h", ("coder-fim",), 120),
        ("up 2h", ("2h",), None),
        ("up coder-fim coder-chat", ("coder-fim", "coder-chat"), None),
    ],
)
def test_a_duration_needs_no_preposition(text: str, names: tuple[str, ...], minutes: int | None) -> None:
    """The last words may be a duration; the first word is always the name."""
    hold = None if minutes is None else timedelta(minutes=minutes)
    assert names_with_hold(read(text)) == (names, hold)


@pytest.mark.parametrize(
    ("word", "time"),
    [("5", True), ("1.5", True), ("2h", True), ("30min", True), ("coder-5", False), ("7b", False), ("two", False)],
)
def test_a_number_or_a_duration_is_not_a_name(word: str, time: bool) -> None:
    """`down coder-fim 5` does not mean a model `5`."""
    assert is_time(word) is time


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("what is running?", True),
        ("what is running", True),
        ("can you stop coder-chat", True),
        ("is coder-chat up?", True),
        ("coder-chat up?", True),
        ("up coder-chat", False),
        ("who", False),
        ("", False),
    ],
)
def test_a_question_is_recognised(text: str, asks: bool) -> None:
    """`who` without a name is a synonym of `status`."""
    assert is_question(text) is asks
