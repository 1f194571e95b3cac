"""What is offered after a roll-out: taking it back, and letting tenants' keys call a new alias."""

from collections.abc import Sequence
from dataclasses import dataclass

from bot.domain import Pull
from bot.views.blocks import Block, View, actions, button, option, plain_text, section
from bot.views.modals import CHOICES, modal
from bot.views.text import code, inline

REVERT, LET_IN, LET_IN_FORM = "revert", "let_in", "let_in"
_NAMED = 10


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


def keys_form(op_id: str, alias: str, keys: Sequence[Tenant]) -> Block:
    """Which of them may call the alias."""
    options = [option(f"{key.name} ({key.owner})" if key.owner else key.name, key.hash) for key in keys if key.hash]
    asked = f"Who may call {code(alias)} from now on? Budgets and everything else of a key stay as they are."
    if len(options) > CHOICES:
        asked += f" The first {CHOICES} of {len(options)} keys are offered; come back for the rest."
    element = {"type": "multi_static_select", "action_id": "value", "options": options[:CHOICES]}
    chosen = {"type": "input", "block_id": "keys", "label": plain_text("Virtual keys", 75), "element": element}
    return modal(LET_IN_FORM, "Let keys call it", [section(asked), chosen], submit="Let them", metadata=op_id)


def _shown(key: Tenant) -> str:
    owner = f" ({inline(key.owner, 40)})" if key.owner else ""
    return f"*{inline(key.name, 60)}*{owner}"
