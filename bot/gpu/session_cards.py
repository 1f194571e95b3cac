"""Shows the end of a session on the card of the bring-up that began it."""

from datetime import datetime

import structlog

from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation, Operation, SessionEnd
from bot.domain.outcomes import LeftUp, Started
from bot.errors import BotError
from bot.slack.presentation import Presentation
from bot.state.operations import OperationNotFound, Operations

log = structlog.get_logger(__name__)


async def end(
    operations: Operations, presentation: Presentation, lease: Lease, until: datetime, *, receipt: str = ""
) -> None:
    """Show that the session is over; `receipt` is the id of the operation whose card has the receipt. Idempotent."""
    message = None
    if receipt and receipt != lease.op:
        try:
            message = (await operations.load(receipt)).message
        except OperationNotFound:
            message = None
    await _update_card(
        operations, presentation, lease.op, session_end=SessionEnd(since=lease.ready, until=until, receipt=message)
    )


async def resume(operations: Operations, presentation: Presentation, op_id: str) -> None:
    """Show that the session continues, because its replacement failed."""
    await _update_card(operations, presentation, op_id, session_end=None)


async def show_new_end(operations: Operations, presentation: Presentation, lease: Lease) -> None:
    """Show the new end of the lease. Idempotent."""
    await _update_card(operations, presentation, lease.op, ends=lease.ends)


async def _update_card(operations: Operations, presentation: Presentation, op_id: str, **changes: object) -> None:
    """Change the bring-up and show its card. A new end (`ends`) is stored in the result of the bring-up."""

    def changed(op: Operation) -> Operation:
        if not isinstance(op, BringUpOperation):
            return op
        if "ends" not in changes:
            return op.model_copy(update=changes)
        if isinstance(op.result, Started | LeftUp):
            return op.model_copy(update={"result": op.result.model_copy(update=changes)})
        return op

    try:
        await operations.update(op_id, changed)
    except OperationNotFound:  # the lease was adopted, or Redis no longer has its operation
        return
    except BotError as error:  # a failed update of the card does not stop the end of a session
        log.warning("card not changed", op=op_id, error=str(error))
        return
    presentation.show(op_id)
