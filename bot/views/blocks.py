"""The Block Kit elements in use, within Slack's limits (docs.slack.dev/reference/block-kit)."""

from collections.abc import Iterator, Sequence
from typing import Any

from bot.text.mrkdwn import Mrkdwn, md, shown
from bot.views.text import cut, plain, verbatim
from manifests.frozen import frozen

Block = dict[str, Any]
Blocks = list[Block]

MESSAGE_BLOCKS, VIEW_BLOCKS = 50, 100
MESSAGE_CHARACTERS = 12_000
"""Slack refuses messages with about 13 000 characters in total (`msg_blocks_too_long`, undocumented)."""
SECTION, FIELD, CONTEXT, HEADER, BUTTON, OPTION, VALUE, ALT = 3000, 2000, 2000, 150, 75, 75, 2000, 2000


@frozen
class View:
    """Arguments of chat.postMessage: blocks, and the text of the notification."""

    text: Mrkdwn
    blocks: Blocks


def mrkdwn(text: Mrkdwn, limit: int) -> Block:
    """A mrkdwn text object. With `verbatim`, Slack creates links and mentions only from explicit markup."""
    return {"type": "mrkdwn", "text": cut(shown(text), limit) or "–", "verbatim": True}


def plain_text(text: str, limit: int) -> Block:
    line = plain(text)
    return {"type": "plain_text", "text": line if len(line) <= limit else line[: limit - 1] + "…", "emoji": False}


def header(text: str) -> Block:
    return {"type": "header", "text": plain_text(text, HEADER)}


def section(text: Mrkdwn, accessory: Block | None = None) -> Block:
    return {"type": "section", "text": mrkdwn(text, SECTION)} | ({"accessory": accessory} if accessory else {})


def sections(lines: Sequence[Mrkdwn]) -> Blocks:
    """Put lines into as few sections as possible, without dividing a line."""
    parts: list[Mrkdwn] = []
    for line in (cut(line, SECTION) for line in lines):
        if parts and len(parts[-1]) + len(line) + 1 <= SECTION:
            parts[-1] = md("\n").join([parts[-1], line])
        else:
            parts.append(line)
    return [section(part) for part in parts]


def fields(texts: Sequence[Mrkdwn]) -> Blocks:
    """Sections with two columns of fields, at most ten fields each."""
    return [
        {"type": "section", "fields": [mrkdwn(text, FIELD) for text in texts[i : i + 10]]}
        for i in range(0, len(texts), 10)
    ]


def context(*texts: Mrkdwn) -> Block:
    return {"type": "context", "elements": [mrkdwn(text, CONTEXT) for text in texts[:10]]}


def divider() -> Block:
    return {"type": "divider"}


def preformatted(text: str) -> Block:
    """A block of log lines, without markup; if they are too long, only the end is kept."""
    log = verbatim(text)
    end_of_log = log if len(log) <= SECTION else "…" + log[-(SECTION - 1) :]
    return {
        "type": "rich_text",
        "elements": [{"type": "rich_text_preformatted", "elements": [{"type": "text", "text": end_of_log}]}],
    }


def button(label: str, action: str, value: str, style: str | None = None) -> Block:
    """A button. Its value is only an id; the state is in Redis."""
    block = {"type": "button", "text": plain_text(label, BUTTON), "action_id": action, "value": value[:VALUE]}
    return block | ({"style": style} if style else {})


def with_confirmation(element: Block, title: str, text: Mrkdwn, yes: str) -> Block:
    """The button with a confirmation dialog; `yes` is the label of the dialog's button, which has the colour of `element`."""
    dialog = {
        "title": plain_text(title, 100),
        "text": mrkdwn(text, 300),
        "confirm": plain_text(yes, 30),
        "deny": plain_text("Back", 30),
    }
    style = {"style": element["style"]} if "style" in element else {}
    return element | {"confirm": dialog | style}


def option(label: str, value: str) -> Block:
    return {"text": plain_text(label, OPTION), "value": value}


def overflow(action: str, *choices: tuple[str, str]) -> Block:
    """The `…` menu; each choice is a label and a value."""
    return {"type": "overflow", "action_id": action, "options": [option(label, value) for label, value in choices]}


def actions(*elements: Block, about: str) -> Block:
    """A row of buttons. `about` (plain text) names their target for screen readers, because Home may show ten buttons
    with the label *Approve*.
    """
    return {"type": "actions", "elements": [_with_accessibility_label(element, about) for element in elements]}


def _with_accessibility_label(element: Block, about: str) -> Block:
    if element["type"] != "button":
        return element  # Slack has no accessibility labels for menus
    label = plain_text(f"{element['text']['text']}: {plain(about)}", BUTTON)["text"]
    return {**element, "accessibility_label": label}


def trimmed_to_limits(blocks: Blocks, most: int = MESSAGE_BLOCKS) -> Blocks:
    """Trim blocks to the limits of a message, shortening the longest texts first."""
    fitting = blocks[:most]
    texts = list(_texts(fitting))
    while sum(len(text["text"]) for text in texts) > MESSAGE_CHARACTERS:
        longest = max(texts, key=lambda text: len(text["text"]))
        longest["text"] = cut(longest["text"], max(40, len(longest["text"]) * 3 // 4))
    return fitting


def without_buttons(view: View) -> View:
    return View(text=view.text, blocks=[block for block in view.blocks if block["type"] != "actions"])


def plain_view(view: View, *, buttons: bool) -> View:
    """A fallback for a message that Slack refuses: the text of its notification, and its buttons."""
    rows_of_buttons = [block for block in view.blocks if block["type"] == "actions"] if buttons else []
    return View(text=cut(view.text, SECTION), blocks=[section(cut(view.text, SECTION)), *rows_of_buttons])


def _texts(node: object) -> Iterator[Block]:
    if isinstance(node, dict):
        if isinstance(node.get("text"), str):
            yield node
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def lines(text: Mrkdwn) -> View:
    """A text message. If it is too long, it ends with the number of lines that are left out."""
    parts, room = [Mrkdwn()], MESSAGE_CHARACTERS - 200
    rows = [Mrkdwn(row) for row in shown(text).split("\n")]
    for index, whole in enumerate(rows):
        row = cut(whole, SECTION)
        if room < len(row) + 1:
            parts.append(md("_… and {more} more lines_", more=len(rows) - index))
            break
        room -= len(row) + 1
        if len(parts[-1]) + len(row) + 1 > SECTION:
            parts.append(row)
        else:
            parts[-1] = parts[-1] + Mrkdwn("\n" if parts[-1] else "") + row
    return View(
        text=cut(shown(text), SECTION) or md("–"),
        blocks=[section(part) for part in parts if part.strip()] or [section(md("–"))],
    )
