"""Shows the end of a session on the card of the bring-up that began it, before and after it is over."""

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
    """The session is over; `receipt` is the operation whose card has its receipt. Idempotent."""
    message = None
    if receipt and receipt != lease.op:
        try:
            message = (await operations.load(receipt)).message
        except OperationNotFound:
            message = None
    await _put(
        operations, presentation, lease.op, session_end=SessionEnd(since=lease.ready, until=until, receipt=message)
    )


async def go_on(operations: Operations, presentation: Presentation, op_id: str) -> None:
    """A replacement failed, and the session continues."""
    await _put(operations, presentation, op_id, session_end=None)


async def extended(operations: Operations, presentation: Presentation, lease: Lease) -> None:
    """The lease has another end. Idempotent."""
    await _put(operations, presentation, lease.op, ends=lease.ends)


async def _put(operations: Operations, presentation: Presentation, op_id: str, **changes: object) -> None:
    def put(op: Operation) -> Operation:
        if not isinstance(op, BringUpOperation):
            return op
        if "ends" in changes:
            lasts = isinstance(op.result, Started | LeftUp)
            return op.model_copy(update={"result": op.result.model_copy(update=changes)} if op.result and lasts else {})
        return op.model_copy(update=changes)

    try:
        await operations.update(op_id, put)
    except OperationNotFound:  # adopted, or older than operations are kept
        return
    except BotError as error:  # the end of a session never waits for its card
        log.warning("card not changed", op=op_id, error=str(error))
        return
    presentation.show(op_id)
