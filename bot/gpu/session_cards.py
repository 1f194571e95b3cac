"""The card of the bring-up that began a session says when the session is over."""

from datetime import datetime

import structlog

from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation, Operation, SessionEnd
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
    await _put(operations, presentation, lease.op, SessionEnd(since=lease.ready, until=until, receipt=message))


async def go_on(operations: Operations, presentation: Presentation, op_id: str) -> None:
    """A replacement failed, and the session goes on."""
    await _put(operations, presentation, op_id, None)


async def _put(operations: Operations, presentation: Presentation, op_id: str, end: SessionEnd | None) -> None:
    def put(op: Operation) -> Operation:
        return op.model_copy(update={"session_end": end}) if isinstance(op, BringUpOperation) else op

    try:
        await operations.update(op_id, put)
    except OperationNotFound:  # adopted, or older than operations are kept
        return
    except BotError as error:  # the end of a session never waits for its card
        log.warning("card not changed", op=op_id, error=str(error))
        return
    presentation.show(op_id)
