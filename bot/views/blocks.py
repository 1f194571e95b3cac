"""Block Kit's pieces in use, each within Slack's limits (docs.slack.dev/reference/block-kit)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bot.views.text import cut, plain, quiet, verbatim

Block = dict[str, Any]
Blocks = list[Block]

MESSAGE_BLOCKS, VIEW_BLOCKS = 50, 100
MESSAGE_CHARACTERS = 12_000
"""Slack refuses a message near 13 000 characters in all (`msg_blocks_too_long`, undocumented)."""
SECTION, FIELD, CONTEXT, HEADER, BUTTON, OPTION, VALUE, ALT = 3000, 2000, 2000, 150, 75, 75, 2000, 2000


@dataclass(frozen=True)
class View:
    """What chat.postMessage takes: blocks, and the text of the notification."""

    text: str
    blocks: Blocks


def mrkdwn(text: str, limit: int) -> Block:
    """`verbatim`: Slack makes links and mentions only of what is written as one."""
    return {"type": "mrkdwn", "text": cut(quiet(text), limit) or "–", "verbatim": True}


def plain_text(text: str, limit: int) -> Block:
    line = plain(text)
    return {"type": "plain_text", "text": line if len(line) <= limit else line[: limit - 1] + "…", "emoji": False}


def header(text: str) -> Block:
    return {"type": "header", "text": plain_text(text, HEADER)}


def section(text: str, accessory: Block | None = None) -> Block:
    return {"type": "section", "text": mrkdwn(text, SECTION)} | ({"accessory": accessory} if accessory else {})


def fields(texts: Sequence[str]) -> Blocks:
    """Two columns; ten fields a section, which is Slack's limit."""
    return [
        {"type": "section", "fields": [mrkdwn(text, FIELD) for text in texts[i : i + 10]]}
        for i in range(0, len(texts), 10)
    ]


def context(*texts: str) -> Block:
    return {"type": "context", "elements": [mrkdwn(text, CONTEXT) for text in texts[:10]]}


def image(file_id: str, alt: str) -> Block:
    """A picture that was uploaded to Slack; `alt` is what it says to who cannot see it."""
    return {"type": "image", "slack_file": {"id": file_id}, "alt_text": plain_text(alt, ALT)["text"]}


def divider() -> Block:
    return {"type": "divider"}


def preformatted(text: str) -> Block:
    """Log lines as they are: rich text, in which nothing is markup."""
    shown = verbatim(text)
    kept = shown if len(shown) <= SECTION else "…" + shown[-(SECTION - 1) :]
    return {
        "type": "rich_text",
        "elements": [{"type": "rich_text_preformatted", "elements": [{"type": "text", "text": kept}]}],
    }


def button(label: str, action: str, value: str, style: str | None = None) -> Block:
    """A button; its value is an id and nothing else, the state is on the server."""
    made = {"type": "button", "text": plain_text(label, BUTTON), "action_id": action, "value": value[:VALUE]}
    return made | ({"style": style} if style else {})


def confirmed(pressed: Block, title: str, text: str, yes: str) -> Block:
    """The same button, asking before it acts."""
    return pressed | {
        "confirm": {
            "title": plain_text(title, 100),
            "text": mrkdwn(text, 300),
            "confirm": plain_text(yes, 30),
            "deny": plain_text("Back", 30),
        }
    }


def option(label: str, value: str) -> Block:
    return {"text": plain_text(label, OPTION), "value": value}


def overflow(action: str, *choices: tuple[str, str]) -> Block:
    """The `…` menu; each choice is a label and a value."""
    return {"type": "overflow", "action_id": action, "options": [option(label, value) for label, value in choices]}


def actions(*elements: Block) -> Block:
    return {"type": "actions", "elements": list(elements)}


def fitted(blocks: Blocks, most: int = MESSAGE_BLOCKS) -> Blocks:
    """The blocks within the limits of a whole message: the longest texts give way first."""
    kept = blocks[:most]
    texts = list(_texts(kept))
    while sum(len(text["text"]) for text in texts) > MESSAGE_CHARACTERS:
        longest = max(texts, key=lambda text: len(text["text"]))
        longest["text"] = cut(longest["text"], max(40, len(longest["text"]) * 3 // 4))
    return kept


def _texts(node: object) -> Iterator[Block]:
    if isinstance(node, dict):
        if isinstance(node.get("text"), str):
            yield node
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def lines(text: str) -> View:
    """A plain answer, cut at line ends; what is too long says how much is missing."""
    parts, room = [""], MESSAGE_CHARACTERS - 200
    rows = text.split("\n")
    for index, row in enumerate(rows):
        row = cut(row, SECTION)
        if room < len(row) + 1:
            parts.append(f"_… and {len(rows) - index} more lines_")
            break
        room -= len(row) + 1
        if len(parts[-1]) + len(row) + 1 > SECTION:
            parts.append(row)
        else:
            parts[-1] += ("\n" if parts[-1] else "") + row
    return View(
        text=cut(quiet(text), SECTION) or "–",
        blocks=[section(part) for part in parts if part.strip()] or [section("–")],
    )
