"""The buttons with which people decide about an operation, the same on its card and in Home."""

from bot.domain.operations import Operation
from bot.domain.plans import ChangePlan
from bot.domain.requests import RemoveModel
from bot.text.mrkdwn import md
from bot.views.blocks import Block, button, with_confirmation
from bot.views.text import code, cut, inline

APPROVE, DENY, ROLL_OUT = "approve", "deny", "roll_out"


def approve(op: Operation) -> Block:
    """*Approve*, or *Approve & roll out* or *Approve deletion*, depending on the effect of the approval."""
    if deletes(op):
        return _approve_deletion(op)
    if op.open_pull:
        return button("Approve & roll out", ROLL_OUT, op.shown, "primary")
    return button("Approve", APPROVE, op.shown, "primary")


def deny(op: Operation) -> Block:
    """*Deny*. It is red unless the row has the red button *Approve deletion*."""
    return button("Deny", DENY, op.shown, None if deletes(op) else "danger")


def deletes(op: Operation) -> bool:
    """Return whether the roll-out deletes an endpoint with its volume: a removal, or the revert of an addition."""
    reverts_addition = isinstance(op.plan, ChangePlan) and op.plan.own.removes
    return isinstance(op.request, RemoveModel) or reverts_addition


def _approve_deletion(op: Operation) -> Block:
    volume = dict(op.plan.rows).get("Volume", "") if op.plan else ""
    weights = md("its volume {volume} with the weights", volume=inline(volume, 80)) if volume else "its volume"
    lost = md(
        "{model} is deleted: its Deployment, its alias at the gateway, and {weights}. A revert restores the files,"
        " but not the weights.",
        model=code(op.request.model[:60]),
        weights=weights,
    )
    pressed = button("Approve deletion", ROLL_OUT, op.shown, "danger")
    return with_confirmation(pressed, "Delete this endpoint?", cut(lost, 300), "Delete")
