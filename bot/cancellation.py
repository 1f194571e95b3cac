"""Replaces `asyncio.wait_for` in Python 3.11, which can ignore a cancellation.

In 3.11, `asyncio.wait_for` ignores a cancellation that arrives when the awaited object has just ended, and redis-py
calls `wait_for` for each command. The cancelled task then continues, and code that waits for its end waits forever
(python/cpython#86296). Importing this module replaces `wait_for` with the implementation of Python 3.12.
"""

import asyncio
import sys
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def _wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:
    if timeout is None or timeout > 0:
        async with asyncio.timeout(timeout):
            return await awaitable
    future = asyncio.ensure_future(awaitable)
    if not future.done():
        future.cancel()
        await asyncio.wait([future])
    with suppress(asyncio.CancelledError):
        return future.result()
    raise TimeoutError


if sys.version_info < (3, 12):
    asyncio.wait_for = _wait_for  # type: ignore[assignment]
