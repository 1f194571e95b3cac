"""How a command line is read."""

from datetime import timedelta

import pytest

from commands.words import Misunderstood, read


def test_a_whole_sentence() -> None:
    """Name, duration and reason."""
    said = read("up coder-chat for 1h 30m because demo for the board")
    assert (said.verb, said.names, said.hold) == ("up", ("coder-chat",), timedelta(minutes=90))
    assert said.reason == "demo for the board"


def test_options_are_key_value() -> None:
    """Options may come anywhere after the verb, quoted or not, and repeat."""
    said = read("add coder-mini Qwen/X context=8192 arg=--a=b arg=“--c d”")
    assert said.names == ("coder-mini", "Qwen/X")
    assert said.options == (("context", "8192"), ("arg", "--a=b"), ("arg", "--c d"))


@pytest.mark.parametrize("text", ["up x for -3h", "up x for", "up x for 0s", "up x for soon"])
def test_a_bad_duration_is_refused_with_the_fix(text: str) -> None:
    """What is no duration is named, with an example."""
    with pytest.raises(Misunderstood, match="for example 45m, 2h or 1h30m"):
        read(text)


def test_an_open_quote_is_named() -> None:
    """A quote that is not closed is said so, not swallowed."""
    with pytest.raises(Misunderstood, match="not closed"):
        read('add "x')
