"""Slack's markup as a type. Only templates create it, and a template escapes each value that is not already markup.

md("{model} is held by {holder}", model=code(lease.model), holder=person(lease.holder))

mypy rejects a plain `str` where `Mrkdwn` is expected, and at run time a plain `str` is escaped. So external text is
always shown as plain text.

Slack's mrkdwn has three control characters that can be escaped (`&`, `<`, `>`) and four formatting characters that cannot
(`*`, `_`, `~`, and the backtick). These four are replaced by similar characters where they would format text. So external
text looks the same in Slack, and cannot create a mention or a format (docs.slack.dev/messaging/formatting-message-text).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString, SupportsIndex

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f"  # control characters, except tab and line feed
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"  # zero-width characters, and characters that reorder text
    "\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff"  # other line separators, byte order mark, lone surrogates
    "\U000e0000-\U000e007f]"  # tags, which can hide text
)
_LOOK_ALIKE = {"*": "∗", "_": "ˍ", "~": "∼", "`": "ˋ"}
_FORMATS = re.compile(r"(?<!\w)[*_~]|[*_~](?!\w)|`")
_EMOJI = re.compile(r":(?=[a-z0-9_+-]*[a-z][a-z0-9_+-]*:)")
_QUOTE = re.compile(r"^&gt;", re.MULTILINE)
_MENTION = re.compile(r"<(?:@|!subteam\^)([A-Z0-9]+)(?:\|[^>]*)?>")
_STAMP = re.compile(r"\b(\d{4}-\d\d-\d\d)([T ])(\d\d:\d\d)(?::(\d\d)(?:\.\d+)?)?Z\b")
_SPAN = re.compile(r"`([^`\n]{1,200})`")


class Mrkdwn(str):
    """Text with markup, created by `md` and the functions below. A slice of it is a plain `str`."""

    __slots__ = ()

    def __add__(self, more: str) -> "Mrkdwn":
        return Mrkdwn(str.__add__(self, shown(more)))

    def join(self, parts: Iterable[str]) -> "Mrkdwn":
        return Mrkdwn(str.join(self, (shown(part) for part in parts)))

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> "Mrkdwn":
        return Mrkdwn(str.replace(self, shown(old), shown(new), count))

    def strip(self, characters: str | None = None) -> "Mrkdwn":
        return Mrkdwn(str.strip(self, characters))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return [Mrkdwn(line) for line in str.splitlines(self, keepends)]

    def split(self, separator: str | None = None, most: SupportsIndex = -1) -> list[str]:
        return [Mrkdwn(part) for part in str.split(self, separator, most)]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Stored values are markup, and are not escaped again when they are read. Plain text is escaped before it is
        stored.
        """
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls, core_schema.str_schema()),
            # Do not validate with `str_schema` first, because it converts every kind of text to plain text.
            python_schema=core_schema.no_info_plain_validator_function(_validated),
            serialization=core_schema.plain_serializer_function_ser_schema(_stored),
        )


def _validated(value: object) -> Mrkdwn:
    if not isinstance(value, str):
        raise ValueError("this is not text")
    return shown(value)


def _stored(value: object) -> str:
    return str(shown(value))


def shown(value: object) -> Mrkdwn:
    """Any value as markup: markup and the markup of Stoker's errors are unchanged, everything else is escaped."""
    if isinstance(value, Mrkdwn):
        return value
    markup = getattr(value, "shown", None)
    return markup if isinstance(markup, Mrkdwn) else escape(str(value))


def md(template: LiteralString, /, **values: object) -> Mrkdwn:
    """The template, which is markup, with each `{name}` replaced by a value. Values that are not markup are escaped."""
    return Mrkdwn(template.format_map({name: shown(value) for name, value in values.items()}))


def escape(text: str) -> Mrkdwn:
    """Escape external text: it cannot become a mention, link, format, emoji name, quote or reordered text.

    A time in UTC (`2026-11-29T12:45:00Z`) is shown in the reader's time zone.
    """
    visible = _FORMATS.sub(lambda m: _LOOK_ALIKE[m[0]], INVISIBLE.sub("", text))
    safe = _EMOJI.sub("\uff1a", visible).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Mrkdwn(_STAMP.sub(_in_readers_zone, _QUOTE.sub("\u200b&gt;", safe)))


def stamp(at: datetime) -> str:
    """Day and time as plain text, which `escape` converts to the markup of `moment`."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def time_stamp(at: datetime) -> str:
    """A time of today as plain text, which `escape` converts to the markup of `clock`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def _in_readers_zone(match: re.Match[str]) -> str:
    day, separator, minute, second = match.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{minute}:{second or '00'}+00:00")
    except ValueError:
        return match[0]
    return moment(at) if separator == "T" else clock(at)


def inline(text: str, limit: int) -> Mrkdwn:
    """Escape external text, on one line, with at most `limit` visible characters."""
    line = " ".join(INVISIBLE.sub("", text).split())
    return Mrkdwn(escape(line if len(line) <= limit else line[: limit - 1] + "…") or "–")


def code(text: str) -> Mrkdwn:
    """A name in Slack's code style. Backticks, which would end it, are replaced."""
    line = " ".join(INVISIBLE.sub("", text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Mrkdwn("`" + (line.replace("`", "ˋ") or "–") + "`")


def with_code(text: str) -> Mrkdwn:
    """Convert text in which backticks mark code, such as a diagnosis that names a flag; everything else is escaped."""
    parts = _SPAN.split(text)
    return Mrkdwn("".join(code(part) if number % 2 else escape(part) for number, part in enumerate(parts)))


def link(url: str, label: str) -> Mrkdwn:
    """A link; only its label if the URL is not a web address, or contains a character that would end the link."""
    if not re.fullmatch(r"https?://[^\s<>|\"`]+", url):
        return shown(label)
    return Mrkdwn(f"<{url.replace('&', '&amp;')}|{shown(label).replace('|', '∣')}>")


def person(user: str) -> Mrkdwn:
    """A mention of a user by id. An empty id is the bot itself; a text that is not an id is escaped."""
    if not user:
        return Mrkdwn("Stoker")
    return Mrkdwn(f"<@{user}>") if re.fullmatch(r"[A-Z0-9]+", user) else escape(user)


def mention(member: str) -> Mrkdwn:
    """A mention of a user or, for an id that begins with S, of a user group."""
    return Mrkdwn(f"<!subteam^{member}>") if re.fullmatch(r"S[A-Z0-9]+", member) else person(member)


def mentioned(text: str) -> set[str]:
    """The ids of the users and user groups that a markup text mentions."""
    return {match[1] for match in _MENTION.finditer(text)}


def mentioning(text: str, members: Collection[str], names: Mapping[str, str]) -> Mrkdwn:
    """Keep only the mentions of `members`. Other mentions are replaced by the name, which notifies nobody."""
    return Mrkdwn(_MENTION.sub(lambda m: m[0] if m[1] in members else "@" + escape(names.get(m[1]) or m[1]), text))


def clock(at: datetime) -> Mrkdwn:
    """The time of day in the reader's time zone."""
    return Mrkdwn(f"<!date^{int(at.timestamp())}^{{time}}|{at:%H:%M} UTC>")


def moment(at: datetime) -> Mrkdwn:
    """Day and time in the reader's time zone, for times that are not today."""
    return Mrkdwn(f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>")


def unmarked(text: str) -> str:
    """Convert markup to plain text, for the error of a form or a terminal: `<!date^…|09:00 UTC>` becomes 09:00 UTC."""
    if not isinstance(text, Mrkdwn):
        return text
    plain = re.sub(r"<([^<>|]*)\|([^<>]*)>", r"\2", text)
    plain = re.sub(r"(?<!\w)\*([^*\n]+)\*(?!\w)", r"\1", plain).replace("`", "")
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
