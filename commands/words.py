"""How a command line is read: words, `key=value` options, `for 2h`, `because …`."""

import shlex
from dataclasses import dataclass
from datetime import timedelta

from bot.durations import parse_duration
from bot.errors import BotError
from bot.views import code, escape


class Misunderstood(BotError):
    """What was typed is no command; says what is."""

    remedy = "Say it as the message shows; `/gpu help` and `/model help` have examples."


@dataclass(frozen=True)
class Words:
    verb: str
    names: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    hold: timedelta | None
    reason: str


def read(text: str) -> Words:
    """Take a command apart; Misunderstood for an unclosed quote or a duration that is none."""
    # Half of a surrogate pair cannot be stored: JSON may carry it, UTF-8 may not.
    text, _, reason = text.encode(errors="replace").decode().partition(" because ")
    try:
        words = shlex.split(text.replace("“", '"').replace("”", '"'))
    except ValueError as error:
        raise Misunderstood(f"A quote is not closed in {code(text[:300])}.") from error
    hold = None
    lower = [word.lower() for word in words]
    if "for" in lower:
        index = lower.index("for")
        try:
            hold = parse_duration(" ".join(words[index + 1 :]))
        except ValueError as error:
            raise Misunderstood(escape(str(error))) from error
        words = words[:index]
    options = tuple((key, value) for key, eq, value in (word.partition("=") for word in words[1:]) if eq)
    names = tuple(word for word in words[1:] if "=" not in word)
    return Words(words[0].lower() if words else "", names, options, hold, reason.strip())
