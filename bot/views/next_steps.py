"""The buttons for the next step, on the card of an operation that has ended. Each is shown only while it applies."""

from bot.domain.kinds import Kind
from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation, ChangeOperation, Operation, Status
from bot.domain.outcomes import BroughtDown, LeftUp, Removed, RolledOut, Started, StaysMerged
from bot.domain.requests import RevertChange
from bot.text.mrkdwn import md
from bot.views.blocks import Block, button, with_confirmation
from bot.views.reminder import BRING_DOWN
from bot.views.text import code

EXTEND, BRING_UP, RETRY, REVERT = "home_extend", "bring_up_again", "retry", "revert"
"""The action ids. The value is the id of an operation: for *Extend* and *Bring down*, the operation that claimed the lease."""


def next_steps(op: Operation) -> list[Block]:
    """The buttons of an operation that has ended."""
    if isinstance(op, BringUpOperation) and isinstance(op.result, Started | LeftUp) and op.session_end is None:
        down_again = op.request.trial and isinstance(op.result, Started)  # the model is already being brought down
        return [] if down_again else of_session(op.request.model, op.id)
    buttons = []
    if can_bring_up(op):
        buttons.append(button("Bring up", BRING_UP, op.id))
    if can_retry(op):
        buttons.append(button("Retry", RETRY, op.id))
    if can_revert(op):
        buttons.append(button("Revert", REVERT, op.id))
    return buttons


def of_session(model: str, op_id: str, *, can_extend: bool = True) -> list[Block]:
    """The buttons of a running session; `op_id` is the operation that claimed its lease."""
    effect = md("{model} stops, and its users get errors.", model=code(model[:100]))
    down = with_confirmation(button("Bring down", BRING_DOWN, op_id, "danger"), "Bring it down?", effect, "Bring down")
    return [*([button("Extend …", EXTEND, op_id)] if can_extend else []), down]


def of_lease(lease: Lease) -> list[Block]:
    """The buttons of the running session of this lease. A lease can be extended only after the boot, when it has an end."""
    return of_session(lease.model, lease.op, can_extend=lease.ends is not None)


def can_bring_up(op: Operation) -> bool:
    """Return whether this is the newest card that shows that the model is down."""
    down = isinstance(op.result, BroughtDown) or (isinstance(op.result, RolledOut) and op.result.then == "at zero")
    return down and BRING_UP not in op.obsolete


def can_retry(op: Operation) -> bool:
    """Return whether the operation failed or expired and was not requested again. A merged change can be reverted, but
    not retried.
    """
    unsuccessful = op.status in (Status.FAILED, Status.EXPIRED) and not isinstance(op.result, LeftUp)
    asked_by_person = bool(op.request.actor)
    return unsuccessful and asked_by_person and not _stays_merged(op) and RETRY not in op.obsolete


def can_revert(op: Operation) -> bool:
    """Return whether the operation's change is on the main branch. A revert has no *Revert*: the change can be requested
    again.
    """
    merged = isinstance(op.result, RolledOut | Removed) or _stays_merged(op)
    return merged and _merge_commit(op) != "" and not isinstance(op.request, RevertChange) and REVERT not in op.obsolete


def _merge_commit(op: Operation) -> str:
    return op.plan.pull.merge_commit if isinstance(op, ChangeOperation) and op.plan else ""


def _stays_merged(op: Operation) -> bool:
    return isinstance(getattr(op.result, "undone", None), StaysMerged)


def family(kind: Kind) -> str:
    """The group of a kind. A new operation on a model makes the buttons of older operations in its group obsolete."""
    if kind.spec.uses_pull_request:
        return "change"
    return "gpu" if kind.spec.stops_model else str(kind)


def superseded(kind: Kind) -> dict[str, tuple[str, ...]]:
    """The buttons to remove from the newest card of each family when a card of this kind is posted."""
    obsolete = {family(kind): (BRING_UP, RETRY)}
    return obsolete | ({"change": (BRING_UP,)} if family(kind) == "gpu" else {})
