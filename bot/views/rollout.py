"""What is offered after a roll-out: taking it back, and letting tenants' keys call a new alias."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bot.domain import Pull
from bot.views.blocks import View, actions, button, section
from bot.views.text import code, inline

REVERT, LET_IN, LET_IN_FORM = "revert", "let_in", "let_in"
_NAMED, _CHOICES = 10, 100


@dataclass(frozen=True)
class Tenant:
    """A virtual key as people may see it: its name and owner; the hash says to LiteLLM which one is meant."""

    hash: str
    name: str
    owner: str


def revert_offer(op_id: str, pull: Pull) -> View:
    line = (
        f"The change is on the main branch, by <{pull.url}|pull request #{pull.number}>. *Revert* opens a pull request"
        " that takes it back; it is approved and rolled out like any other."
    )
    return View(text="Revert the change?", blocks=[section(line), actions(button("Revert", REVERT, op_id))])


def keys_offer(op_id: str, alias: str, keys: Sequence[Tenant]) -> View:
    """Who cannot call a new alias yet."""
    names = ", ".join(_shown(key) for key in keys[:_NAMED])
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    line = (
        f"🔑 {len(keys)} virtual key{'s' if len(keys) > 1 else ''} cannot call {code(alias)} yet: {names}{more}."
        " An approver or an admin can let them."
    )
    return View(
        text=f"Virtual keys that cannot call {inline(alias, 100)} yet",
        blocks=[section(line), actions(button("Choose keys", LET_IN, op_id))],
    )


def keys_form(op_id: str, alias: str, keys: Sequence[Tenant]) -> dict[str, Any]:
    """Which of them may call the alias."""
    options = [
        {"text": {"type": "plain_text", "text": _plain(key)}, "value": key.hash} for key in keys[:_CHOICES] if key.hash
    ]
    return {
        "type": "modal",
        "callback_id": LET_IN_FORM,
        "private_metadata": op_id,
        "title": {"type": "plain_text", "text": "Let keys call it"},
        "submit": {"type": "plain_text", "text": "Let them"},
        "close": {"type": "plain_text", "text": "Cancel"},
        "blocks": [
            section(f"Who may call {code(alias)} from now on? Budgets and everything else of a key stay as they are."),
            {
                "type": "input",
                "block_id": "keys",
                "label": {"type": "plain_text", "text": "Virtual keys"},
                "element": {"type": "multi_static_select", "action_id": "value", "options": options},
            },
        ],
    }


def _shown(key: Tenant) -> str:
    owner = f" ({inline(key.owner, 40)})" if key.owner else ""
    return f"*{inline(key.name, 60)}*{owner}"


def _plain(key: Tenant) -> str:
    return f"{key.name} ({key.owner})"[:75] if key.owner else key.name[:75]
