"""Conversion between mrkdwn and Slack's rich text, which table cells and the details of tasks require."""

import re
from collections.abc import Iterator
from typing import Any

from slack_sdk.models.blocks import RichTextBlock, RichTextElementParts, RichTextSectionElement

from bot.text.mrkdwn import Mrkdwn, code, escape, link, md, mention
from bot.views.text import harmless

Part = dict[str, Any]

_TOKEN = re.compile(
    r"<(?P<angle>[^<>\n]+)>|`(?P<code>[^`\n]+)`"
    r"|(?<!\w)\*(?=\S)(?P<bold>[^*\n]*?\S)\*(?!\w)|(?<!\w)_(?=\S)(?P<italic>[^_\n]*?\S)_(?!\w)"
)
_STYLES = {"bold": "*", "italic": "_"}


def rich_text(text: Mrkdwn) -> Part:
    """A `rich_text` block with one section."""
    block: Part = RichTextBlock(elements=[RichTextSectionElement(elements=list(_parts(text)) or _none())]).to_dict()
    return block


def is_plain(text: Mrkdwn) -> bool:
    """Return whether the text has no markup."""
    return not _TOKEN.search(text)


def unescaped(text: str) -> str:
    """Convert mrkdwn that has no markup to plain text: only the escapes are resolved."""
    return harmless(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def as_mrkdwn(block: Part) -> Mrkdwn:
    """Convert rich text to mrkdwn, with each paragraph on its own line."""
    sections = [md("").join(map(_to_mrkdwn, part.get("elements", []))) for part in block.get("elements", [])]
    return md("\n").join(sections)


def _none() -> list[Part]:
    return [RichTextElementParts.Text(text="–").to_dict()]


def _parts(text: str, style: dict[str, bool] | None = None) -> Iterator[Part]:
    end = 0
    for match in _TOKEN.finditer(text):
        yield from _text(text[end : match.start()], style)
        end = match.end()
        if match["angle"]:
            yield _reference(match["angle"], style)
        elif match["code"]:
            yield from _text(match["code"], {**(style or {}), "code": True})
        else:
            kind = "bold" if match["bold"] else "italic"
            yield from _parts(match[kind], {**(style or {}), kind: True})
    yield from _text(text[end:], style)


def _text(text: str, style: dict[str, bool] | None) -> Iterator[Part]:
    if text:
        yield RichTextElementParts.Text(text=unescaped(text), style=style).to_dict()


def _reference(inside: str, style: dict[str, bool] | None) -> Part:
    target, _, label = inside.partition("|")
    part: Part
    if target.startswith("@"):
        part = RichTextElementParts.User(user_id=target[1:], style=style).to_dict()
    elif target.startswith("!subteam^"):
        part = RichTextElementParts.UserGroup(usergroup_id=target.removeprefix("!subteam^"), style=style).to_dict()
    elif target.startswith("!date^"):
        _, seconds, form, *_ = target.split("^")
        part = RichTextElementParts.Date(timestamp=int(seconds), format=form, fallback=label, style=style).to_dict()
    else:
        words = unescaped(label or target)
        part = RichTextElementParts.Link(url=target.replace("&amp;", "&"), text=words, style=style).to_dict()
    return part


def _to_mrkdwn(part: Part) -> Mrkdwn:
    style = part.get("style") or {}
    match part["type"]:
        case "user":
            markup = mention(part["user_id"])
        case "usergroup":
            markup = mention(part["usergroup_id"])
        case "date":
            prefix = f"<!date^{part['timestamp']}^{part['format']}|"
            markup = Mrkdwn(prefix) + escape(part["fallback"]) + Mrkdwn(">")
        case "link":
            markup = link(part["url"], part.get("text") or part["url"])
        case _ if style.get("code"):
            markup = code(part["text"])
        case _:
            markup = escape(part["text"])
    for name, sign in _STYLES.items():
        if style.get(name) and markup.strip() == markup:
            markup = Mrkdwn(sign) + markup + Mrkdwn(sign)
    return markup
