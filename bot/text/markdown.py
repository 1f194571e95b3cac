"""Escape external text in Markdown for GitHub: pull requests and reports.

A backslash is not sufficient: GitHub searches the rendered Markdown, except code, for mentions and references
(https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting/autolinked-references-and-urls),
and a reference after a word such as "fixes" closes an issue. A zero-width character breaks them.
"""

import re

from bot.text.mrkdwn import INVISIBLE

_BREAK = "\u200b"
_LIVE = re.compile(r"(?<!\w)@(?=\w)|#(?=\d)|\bGH-(?=\d)|\b(?:https?|ftp):(?=//)|\bwww(?=\.)", re.IGNORECASE)
"""A mention, a reference to an issue, or a URL that becomes a link. `image@sha256:…` does not match."""
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_BEGINS = re.compile(r"^(?=[#+>=-])|^(\d+)(?=[.)])")
_BAR = re.compile(r"(?<!\\)\|")
_SPAN = re.compile(r"`([^`\n]+)`")


def text(said: object) -> str:
    """The text on one line, escaped for a paragraph, a list or a table."""
    return _BEGINS.sub(lambda found: f"{found[1]}\\" if found[1] else "\\", _escaped(_line(said)))


def code(said: object) -> str:
    """The text as code, in which GitHub finds no mentions; a backtick would end it."""
    return "`" + (_line(said).replace("`", "ˋ") or "–") + "`"


def prose(said: str) -> str:
    """Escape a text in which backticks mark code, such as a warning that names a flag."""
    first, *parts = _SPAN.split(_line(said))
    rest = (code(part) if number % 2 else _escaped(part) for number, part in enumerate(parts, 1))
    return (text(first) + " " * first.endswith(" ") if first else "") + "".join(rest)


def cell(markdown: str) -> str:
    """Existing Markdown as a cell of a table: a bar would end the cell, even in code."""
    return _BAR.sub(r"\\|", markdown)


def _escaped(line: str) -> str:
    plain = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LIVE.sub(lambda found: found[0] + _BREAK, _MARKS.sub(lambda found: "\\" + found[0], plain))


def _line(said: object) -> str:
    return " ".join(INVISIBLE.sub("", str(said)).split())
