"""The forms. A form is opened empty within Slack's three seconds and filled by `views.update`."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from bot.domain import Lease, Message, Operation
from bot.views.blocks import Block, plain_text, section
from bot.views.card import title
from bot.views.reminder import KEEP_UNTIL
from bot.views.text import clock, code, inline

TITLE, BECAUSE_FORM = 24, "because"
"""Slack's limit for a title, submit and close; the callback id of the form that asks for a reason."""


def modal(callback: str, name: str, blocks: list[Block], *, submit: str = "", metadata: str = "") -> Block:
    """A form; without `submit` it is one to read."""
    view = {
        "type": "modal",
        "callback_id": callback,
        "private_metadata": metadata,
        "title": plain_text(name, TITLE),
        "close": plain_text("Cancel" if submit else "Close", TITLE),
        "blocks": blocks,
    }
    return view | ({"submit": plain_text(submit, TITLE)} if submit else {})


def because_form(op: Operation, verb: str) -> Block:
    """`approve` or `deny`, with the reason that the card and the audit log will show."""
    reason = {
        "type": "input",
        "block_id": "reason",
        "label": plain_text("Because", 75),
        "element": {"type": "plain_text_input", "action_id": "value", "multiline": True, "max_length": 500},
    }
    asked = f"*{inline(title(op), 300)}*, asked by <@{op.request.actor}>"
    name = f"{verb.capitalize()} because …"
    return modal(BECAUSE_FORM, name, [section(asked), reason], submit=verb.capitalize(), metadata=f"{verb}:{op.id}")


class KeepUntil(BaseModel, frozen=True):
    """What the form of *Keep until …* is about: a session, and the reminder that it answers."""

    model: str
    fence: int
    message: Message


def keep_form(lease: Lease, until: datetime, message: Message) -> Block:
    """A moment to keep an idle model up to: `until` at first, at the latest the end of the lease."""
    ends = f" At the latest {clock(lease.ends)}, when its lease ends." if lease.ends else ""
    moment = {
        "type": "input",
        "block_id": "until",
        "label": plain_text("Keep until", 75),
        "element": {
            "type": "datetimepicker",
            "action_id": "value",
            "initial_date_time": int(until.timestamp()),
        },
    }
    asked = section(f"How long shall {code(lease.model)} stay up although nobody uses it?{ends}")
    about = KeepUntil(model=lease.model, fence=lease.fence, message=message).model_dump_json()
    return modal(KEEP_UNTIL, "Keep until …", [asked, moment], submit="Keep", metadata=about)


def add_form(name: str, channel: str, template: str) -> dict[str, Any]:
    """The modal of `/model add NAME` without a model."""

    def field(block: str, label: str, *, optional: bool, placeholder: str) -> dict[str, Any]:
        return {
            "type": "input",
            "block_id": block,
            "optional": optional,
            "label": {"type": "plain_text", "text": label},
            "element": {
                "type": "plain_text_input",
                "action_id": "value",
                "placeholder": {"type": "plain_text", "text": placeholder},
            },
        }

    return {
        "type": "modal",
        "callback_id": "model_add",
        "private_metadata": f"{channel} {name}",
        "title": {"type": "plain_text", "text": "Add a model"},
        "submit": {"type": "plain_text", "text": "Open pull request"},
        "close": {"type": "plain_text", "text": "Cancel"},
        "blocks": [
            section(f"A new endpoint {code(name)}, made like {code(template)}."),
            field("hf_id", "Model on Hugging Face", optional=False, placeholder="Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"),
            field("context", "Context", optional=True, placeholder="the largest that fits, at most the template's"),
            field("served", "Served name", optional=True, placeholder="from the model's name"),
        ],
    }
