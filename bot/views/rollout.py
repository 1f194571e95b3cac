"""The offer after a roll-out to grant tenants' keys access to a new alias."""

from collections.abc import Sequence

from bot.text.mrkdwn import Mrkdwn, md
from bot.views.blocks import Block, View, actions, button, option, plain_text, section
from bot.views.modals import CHOICES, modal
from bot.views.text import code, inline
from manifests.frozen import frozen

LET_IN, LET_IN_FORM = "let_in", "let_in"
_NAMED = 10


@frozen
class Tenant:
    """A virtual key for display: its name and owner; the hash identifies it for LiteLLM."""

    hash: str
    name: str
    owner: str


def keys_offer(op_id: str, alias: str, keys: Sequence[Tenant]) -> View:
    """The message with the keys that cannot call a new alias yet, and the button to grant them access."""
    names = md(", ").join(_key_text(key) for key in keys[:_NAMED])
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    line = md(
        "🔑 {count} virtual key{value} cannot call {alias} yet: {names}{more}. An approver or an admin can grant access.",
        count=len(keys),
        value="s" if len(keys) > 1 else "",
        alias=code(alias),
        names=names,
        more=more,
    )
    return View(
        text=md("Virtual keys that cannot call {alias} yet", alias=inline(alias, 100)),
        blocks=[section(line), actions(button("Choose keys", LET_IN, op_id), about=f"for {alias}")],
    )


def keys_form(op_id: str, alias: str, keys: Sequence[Tenant]) -> Block:
    """The form to select the keys that may call the alias."""
    options = [option(f"{key.name} ({key.owner})" if key.owner else key.name, key.hash) for key in keys if key.hash]
    introduction = md(
        "Select the keys that may call {alias}. Budgets and all other settings of a key stay the same.",
        alias=code(alias),
    )
    if len(options) > CHOICES:
        introduction += f" The first {CHOICES} of {len(options)} keys are listed; repeat this for the others."
    element = {"type": "multi_static_select", "action_id": "value", "options": options[:CHOICES]}
    chosen = {"type": "input", "block_id": "keys", "label": plain_text("Virtual keys", 75), "element": element}
    return modal(LET_IN_FORM, "Grant access", [section(introduction), chosen], submit="Grant", metadata=op_id)


def _key_text(key: Tenant) -> Mrkdwn:
    owner = md(" ({owner})", owner=inline(key.owner, 40)) if key.owner else ""
    return md("*{name}*{owner}", name=inline(key.name, 60), owner=owner)
