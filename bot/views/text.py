"""Plain text, log lines, and the truncation of markup to Slack's limits. `bot.text.mrkdwn` creates the markup."""

import re
from datetime import timedelta

from bot.text.durations import show_duration
from bot.text.mrkdwn import INVISIBLE, Mrkdwn, clock, code, escape, inline, link, md, moment, person, shown, unmarked

__all__ = [
    "Mrkdwn", "because", "clock", "code", "cut", "escape", "harmless", "hours_text", "inline", "link", "md", "moment", "money", "person", "plain",
    "shown", "size", "unmarked", "verbatim",
]  # fmt: skip

_MENTION = re.compile(r"<(?=[!@#])")


def plain(text: str) -> str:
    """Convert a text for a `plain_text` object: one line, without invisible characters and angle brackets."""
    return " ".join(INVISIBLE.sub("", text).split()).replace("<", "‹").replace(">", "›") or "–"


def harmless(text: str) -> str:
    """Plain text that cannot be read as a mention."""
    return _MENTION.sub("<\u200b", text)


def verbatim(text: str) -> str:
    """Convert log lines for rich text without markup; their indentation is kept."""
    return harmless(INVISIBLE.sub("", text.expandtabs(4))).strip("\n") or "–"


def cut(text: Mrkdwn, limit: int) -> Mrkdwn:
    """Truncate mrkdwn to `limit` characters, without dividing an entity, a link or a code span."""
    if len(text) <= limit:
        return text
    shortened: str = text[: limit - 2]
    for opens, closes in (("<", ">"), ("&", ";")):
        start = shortened.rfind(opens)
        if start > shortened.rfind(closes) and (opens == "<" or len(shortened) - start < 6):
            shortened = shortened[:start]
    return Mrkdwn(shortened + ("`" if shortened.count("`") % 2 else "") + "…")


def because(reason: str, limit: int = 300) -> Mrkdwn:
    """Return " because" with a person's reason; empty without a reason."""
    return md(" because {reason}", reason=inline(reason, limit)) if reason else md("")


def hours_text(count: float) -> str:
    """Format a number of hours as a duration."""
    return show_duration(timedelta(hours=count))


def size(count: int) -> str:
    """Format a number of bytes in GB."""
    return f"{count / 10**9:.1f} GB"


def money(usd: float) -> str:
    """Format US dollars."""
    return f"${usd:.2f}"
