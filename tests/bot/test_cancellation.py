"""A cancelled task ends, regardless of what it waits for."""

import asyncio

import pytest

import bot.cancellation


async def test_a_cancellation_that_comes_with_the_result_counts() -> None:
    """redis-py sends with `asyncio.wait_for`: a task that ignores its cancellation would be waited for forever."""
    assert bot.cancellation
    sent = asyncio.get_running_loop().create_future()

    async def works() -> None:
        await asyncio.wait_for(sent, 60)
        await asyncio.sleep(60)

    work = asyncio.create_task(works())
    await asyncio.sleep(0)
    sent.set_result(None)
    work.cancel()
    await asyncio.wait({work}, timeout=10)
    assert work.cancelled()


@pytest.mark.parametrize("limit", [0, 0.01])
async def test_work_that_takes_too_long_is_cancelled(limit: float) -> None:
    waited = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waited, limit)
    assert waited.cancelled()
    assert await asyncio.wait_for(asyncio.sleep(0, "done"), None) == "done"
