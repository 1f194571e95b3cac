"""Reports to `bot.state.task_starts`: the next step or write of the current work, and writes to Slack beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

Note = Callable[[str], Awaitable[None]]

noting: ContextVar[Note | None] = ContextVar("noting", default=None)
at_work: set[Note] = set()
"""For each work of this process, a function that records the process's other activity."""


async def going_to(what: str) -> None:
    """Record the next step or write, so that a crash in it can be distinguished from a crash elsewhere."""
    if note := noting.get():
        await note(what)


@asynccontextmanager
async def beside_all_work(what: str) -> AsyncIterator[None]:
    """Record a write that belongs to no particular work: a crash during it does not count against the work."""
    noted = tuple(at_work)
    await asyncio.gather(*(note(what) for note in noted))
    try:
        yield
    finally:
        await asyncio.gather(*(note("") for note in noted if note in at_work))
