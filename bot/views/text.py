"""Text from people and APIs made safe to show, and how values are written.

Slack's mrkdwn has three control characters with an escape (`&`, `<`, `>`) and four that format and have none
(`*`, `_`, `~`, and the backtick). Those four are shown by a look-alike where they could format, so that what somebody
typed is read as typed, and neither a mention nor a heading of their own comes out of it.
"""

import re
from datetime import datetime

_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f"  # control characters; tab and line feed stay
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, which reorder what is read
    "\u2028\u2029\ufeff\ud800-\udfff]"  # line separators of other systems, byte order mark, halves of a surrogate pair
)
_LOOK_ALIKE = {"*": "∗", "_": "ˍ", "~": "∼", "`": "ˋ"}
_FORMATS = re.compile(r"(?<!\w)[*_~]|[*_~](?!\w)|`")
_EMOJI = re.compile(r":(?=[a-z0-9_+-]*[a-z][a-z0-9_+-]*:)")
_MENTION = re.compile(r"<(?=[!@#])")
_CALL = re.compile(r"<!(?!date\^)")
_QUOTE = re.compile(r"^&gt;", re.MULTILINE)


def plain(text: str) -> str:
    """For a `plain_text` object: one line, nothing invisible, and no angle bracket that any reader could parse."""
    return " ".join(_INVISIBLE.sub("", text).split()).replace("<", "‹").replace(">", "›") or "–"


def verbatim(text: str) -> str:
    """For rich text, where nothing is markup: log lines with their indentation."""
    return _MENTION.sub("<\u200b", _INVISIBLE.sub("", text.expandtabs(4))).strip("\n") or "–"


def escape(text: str) -> str:
    """For mrkdwn, as text: no mention, link, format, emoji name, quote or reordering comes of it."""
    visible = _FORMATS.sub(lambda m: _LOOK_ALIKE[m[0]], _INVISIBLE.sub("", text))
    safe = _EMOJI.sub("\uff1a", visible).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _QUOTE.sub("\u200b&gt;", safe)


def inline(text: str, limit: int) -> str:
    """`escape`d, on one line, of at most `limit` characters as a reader counts them."""
    line = " ".join(_INVISIBLE.sub("", text).split())
    return escape(line if len(line) <= limit else line[: limit - 1] + "…") or "–"


def code(text: str) -> str:
    """A name in Slack's code style; a backtick inside would end it."""
    line = " ".join(_INVISIBLE.sub("", text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "`" + (line.replace("`", "ˋ") or "–") + "`"


def quiet(text: str) -> str:
    """Our own mrkdwn, in which no text from outside that slipped through calls a whole channel or group.

    Stoker writes `<!date^…>` and no other command of Slack's.
    """
    return _CALL.sub("&lt;!", text)


def unmarked(text: str) -> str:
    """Our own mrkdwn for a place that shows it as it is, such as a form's error: `<!date^…|09:00 UTC>` is 09:00 UTC."""
    return re.sub(r"<[^<>|]*\|([^<>]*)>", r"\1", text).replace("`", "")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of mrkdwn, without leaving half of an entity, a link or a code span behind."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 2]
    for opens, closes in (("<", ">"), ("&", ";")):
        start = kept.rfind(opens)
        if start > kept.rfind(closes) and (opens == "<" or len(kept) - start < 6):
            kept = kept[:start]
    return kept + ("`" if kept.count("`") % 2 else "") + "…"


def money(usd: float) -> str:
    return f"${usd:.2f}"


def clock(at: datetime) -> str:
    """The reader's own time of day."""
    return f"<!date^{int(at.timestamp())}^{{time}}|{at:%H:%M} UTC>"


def moment(at: datetime) -> str:
    """The reader's own day and time: for what is more than some hours away."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def person(user: str) -> str:
    """Who did something; empty is the bot itself."""
    return f"<@{user}>" if user else "Stoker"
