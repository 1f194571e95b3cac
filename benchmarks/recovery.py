"""Measure the time from a kill of the bot until a new process has taken over its tasks.

    PYTHONPATH=. .venv/bin/python benchmarks/recovery.py [RUNS]

The bot runs unchanged as a process against the sandbox's platform. It is killed while a model boots, and a new process is
started immediately. The new process has taken over when its worker holds the operation's task (the pending entry of
docket's stream). The goal is at most 5 s.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from redis.asyncio import Redis

from sandbox.world import Sandbox, opened

GOAL = 5.0
LIMIT = 120.0
MODEL = "coder-chat"


async def holders(redis: Redis) -> dict[object, object]:
    """Return the worker that holds each running task, by message id."""
    pending = await redis.xpending_range("stoker:stream", "docket-workers", "-", "+", 100)
    return {entry["message_id"]: entry["consumer"] for entry in pending}


async def measure(world: Sandbox, redis: Redis) -> float:
    """Kill the bot, and return the seconds until other workers hold all its tasks."""
    while not (before := await holders(redis)):
        await asyncio.sleep(0.02)
    began = time.perf_counter()
    await world.bot.kill()
    async with asyncio.timeout(LIMIT):
        while not all(now != before.get(task) for task, now in (await holders(redis)).items()):
            await asyncio.sleep(0.02)
    return time.perf_counter() - began


async def main(runs: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        async with opened(
            platform=None, speed=1, port=0, checks_pass_after=None, settings={}, directory=Path(directory)
        ) as world:
            redis = Redis.from_url(world.redis.url)
            await world.command("dev", f"/gpu up {MODEL}")
            await world.workspace.click("lead", "Approve", timeout=LIMIT)
            async with asyncio.timeout(LIMIT):
                while world.replicas(MODEL) == 0:
                    await asyncio.sleep(0.1)
            durations = []
            for run in range(1, runs + 1):
                await asyncio.sleep(3)
                durations.append(await measure(world, redis))
                print(f"run {run}: {durations[-1]:.2f} s", flush=True)
            median = statistics.median(durations)
            print(f"kill to takeover: median {median:.2f} s, worst {max(durations):.2f} s (goal at most {GOAL} s)")
            await redis.aclose()
    return int(median > GOAL)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)))
