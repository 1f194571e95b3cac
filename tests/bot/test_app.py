"""A bot that can no longer work exits, so that Kubernetes restarts it; other bots keep running."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from docket import Docket, Worker

from bot.app import wait_for_stop, watch_worker
from bot.embedded import embedded_redis
from bot.errors import BotError


async def test_a_bot_whose_worker_takes_no_tasks_ends(redis_url: str) -> None:
    """After a failover of a Redis Cluster, docket continues to use the primary that no longer exists."""
    async with Docket(name="deaf", url=redis_url) as docket, asyncio.timeout(60):
        with pytest.raises(BotError, match="no longer receives tasks"):
            await watch_worker(docket, "an unknown worker", every=0.01)


async def test_a_bot_that_works_or_has_no_redis_continues(tmp_path: Path) -> None:
    """The bot waits for an unavailable Redis: it can stop costs without Redis, and a restart would not help."""
    server = embedded_redis(tmp_path)
    async with AsyncExitStack() as stack:
        docket = await stack.enter_async_context(Docket(name="working", url=await server.__aenter__()))
        async with Worker(docket) as worker:
            work = asyncio.create_task(worker.run_forever())
            async with asyncio.timeout(60):
                while worker.name not in {member.name for member in await docket.workers()}:
                    await asyncio.sleep(0.05)
            assert await _keeps_running(docket, worker.name)
        await work
        assert not await _keeps_running(docket, worker.name, within=30), "the stopped worker is still registered"
        await server.__aexit__(None, None, None)
        assert await _keeps_running(docket, worker.name)


async def test_a_signal_during_the_start_with_other_settings_stops_the_bot() -> None:
    stop = asyncio.Event()
    try:
        await _run_until_stopped(stop, changed=True)
        assert not stop.is_set(), "the bot does not start again"
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(60):
            await _run_until_stopped(stop, changed=False)
        assert stop.is_set()
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(name)


async def _run_until_stopped(stop: asyncio.Event, *, changed: bool) -> None:
    """Run a bot that works until its settings change, or until it is stopped."""
    work, watching, changing = (asyncio.create_task(asyncio.sleep(long)) for long in (600, 600, 0 if changed else 600))
    await wait_for_stop(work, watching, changing, stop)
    work.cancel()


async def _keeps_running(docket: Docket, worker: str, within: float = 1) -> bool:
    watching = asyncio.create_task(watch_worker(docket, worker, every=0.02))
    done, _ = await asyncio.wait({watching}, timeout=within)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return not done
