"""Parser of command text: words, `key=value` options, `for 2h`, `because …`."""

import re
import shlex
from datetime import timedelta

from bot.errors import BotError
from bot.text.durations import parse_duration
from bot.text.mrkdwn import md
from bot.views import code
from manifests.frozen import frozen

MENTION = re.compile(r"<@[A-Z0-9]+(\|[^>]*)?>")


class Misunderstood(BotError):
    """The text is not a valid command; the message lists valid ones."""

    remedy = "Correct the command as the message shows. `/gpu help` and `/model help` have examples."


@frozen
class Words:
    """A parsed command. `verb` is in lower case; `hold` is the duration after `for`, `reason` the text after `because`."""

    verb: str
    names: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    hold: timedelta | None
    reason: str


_ASKS = frozenset(
    [
        "what",
        "who",
        "which",
        "when",
        "where",
        "why",
        "how",
        "is",
        "are",
        "does",
        "do",
        "can",
        "could",
        "will",
        "anybody",
        "anyone",
        "anything",
        "somebody",
        "someone",
    ]
)
"""First words of questions. None of them is a verb or a synonym of a verb that changes something."""


def is_question(text: str) -> bool:
    """Return whether the text is a question, which must never start a command that changes something."""
    words = text.lower().split()
    return bool(words) and (words[-1].endswith("?") or (len(words) > 1 and words[0] in _ASKS))


def names_with_hold(words: Words) -> tuple[tuple[str, ...], timedelta | None]:
    """Return the names and the duration. The duration follows `for` or the last name, as in `up coder-fim 1h 30m`."""
    if words.hold:
        return words.names, words.hold
    for first in range(1, len(words.names)):
        try:
            return words.names[:first], parse_duration(" ".join(words.names[first:]))
        except ValueError:
            continue
    return words.names, None


def is_time(word: str) -> bool:
    """Return whether a word is a number or a duration, and so not a name: `5`, `2h`."""
    try:
        parse_duration(word)
    except ValueError:
        return word.replace(".", "", 1).isdecimal()
    return True


def read(text: str) -> Words:
    """Parse a command; raises Misunderstood for an unclosed quote or an invalid duration."""
    # JSON may contain a lone surrogate, which cannot be encoded as UTF-8.
    text, _, reason = text.encode(errors="replace").decode().partition(" because ")
    try:
        words = shlex.split(text.replace("“", '"').replace("”", '"'))
    except ValueError as error:
        raise Misunderstood(md("A quote is not closed in {text}.", text=code(text[:300]))) from error
    hold = None
    lower = [word.lower() for word in words]
    if "for" in lower:
        index = lower.index("for")
        try:
            hold = parse_duration(" ".join(words[index + 1 :]))
        except ValueError as error:
            raise Misunderstood(str(error)) from error
        words = words[:index]
    options = tuple((key, value) for key, eq, value in (word.partition("=") for word in words[1:]) if eq)
    names = tuple(word for word in words[1:] if "=" not in word)
    return Words(words[0].lower() if words else "", names, options, hold, reason.strip())
