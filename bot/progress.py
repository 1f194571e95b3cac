"""Reports the progress of the current work to `bot.state.task_starts`, so that a crash can be attributed to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

Note = Callable[[str], Awaitable[None]]

noting: ContextVar[Note | None] = ContextVar("noting", default=None)
at_work: set[Note] = set()
"""One function for each piece of work in this process; it records an activity that does not belong to the work."""


async def going_to(activity: str) -> None:
    """Record the next step or write of the current work, before it begins."""
    if note := noting.get():
        await note(activity)


@asynccontextmanager
async def beside_all_work(activity: str) -> AsyncIterator[None]:
    """Record an activity that belongs to none of the current work, so that a crash during it is not attributed to that work."""
    notes = tuple(at_work)
    await asyncio.gather(*(note(activity) for note in notes))
    try:
        yield
    finally:
        await asyncio.gather(*(note("") for note in notes if note in at_work))
