"""Escape external text in Markdown for GitHub: pull requests and reports.

A backslash is not sufficient: GitHub searches the rendered Markdown, except code, for mentions and references
(https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting/autolinked-references-and-urls),
and a reference after a word such as "fixes" closes an issue. A zero-width space inside them prevents this.
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


def text(value: object) -> str:
    """The value as text on one line, escaped for a paragraph, a list or a table."""
    return _BEGINS.sub(lambda match: f"{match[1]}\\" if match[1] else "\\", _escaped(_line(value)))


def code(value: object) -> str:
    """The value as code, in which GitHub finds no mentions. Backticks, which would end it, are replaced."""
    return "`" + (_line(value).replace("`", "ˋ") or "–") + "`"


def prose(value: str) -> str:
    """Escape a text in which backticks mark code, such as a warning that names a flag."""
    first, *others = _SPAN.split(_line(value))
    parts = (code(part) if number % 2 else _escaped(part) for number, part in enumerate(others, 1))
    return (text(first) + " " * first.endswith(" ") if first else "") + "".join(parts)


def cell(markdown: str) -> str:
    """Markdown as a cell of a table: bars are escaped, because a bar ends the cell even inside code."""
    return _BAR.sub(r"\\|", markdown)


def _escaped(line: str) -> str:
    plain = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LIVE.sub(lambda match: match[0] + _BREAK, _MARKS.sub(lambda match: "\\" + match[0], plain))


def _line(value: object) -> str:
    return " ".join(INVISIBLE.sub("", str(value)).split())
