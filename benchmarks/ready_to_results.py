"""Measure the time from a pod's Ready condition to the results in Slack, without the smoke tests' own time.

    python benchmarks/ready_to_results.py [RUNS]

The bot runs unchanged in a separate process against the sandbox's platform.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from redis.asyncio import Redis

from bot.domain.operations import BringUpOperation
from bot.state.operations import Operations
from bot.state.records import PREFIX, name
from sandbox.cluster import is_ready
from sandbox.slack.history import CHANNEL
from sandbox.world import Sandbox, opened

LIMIT = 120.0
MODEL = "coder-chat"


async def wait_until(holds: Callable[[], bool]) -> float:
    """Wait until the condition holds, and return the time in seconds, accurate to two milliseconds."""
    async with asyncio.timeout(LIMIT):
        while not holds():
            await asyncio.sleep(0.002)
    return time.perf_counter()


async def measure(world: Sandbox, redis: Redis) -> tuple[float, float]:
    """Return the seconds from Ready to the posted results, and the duration of the tests."""
    before = set(world.workspace.posted(CHANNEL))

    def pods() -> list[dict[str, object]]:
        return world.cluster.store.find("Pod", "serving", labels=f"app.kubernetes.io/name={MODEL}")

    def posted(text: str) -> bool:
        return any(text in message for message in set(world.workspace.posted(CHANNEL)) - before)

    await world.command("dev", f"/gpu up {MODEL}")
    await world.workspace.click("lead", "Approve", timeout=LIMIT)
    ready = await wait_until(lambda: any(is_ready(pod) for pod in pods()))
    results = await wait_until(lambda: posted("all smoke tests passed"))
    tests = sum(check.seconds for check in (await newest_operation(redis)).checks)
    await world.command("dev", f"/gpu down {MODEL}")
    await wait_until(lambda: posted("is down and the GPU is free") and not pods())
    return results - ready, tests


async def newest_operation(redis: Redis) -> BringUpOperation:
    (op_id,) = await redis.zrange(f"{PREFIX}:ops", -1, -1)
    return await Operations(redis).load(name(op_id), BringUpOperation)


async def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with opened(
            platform=None, speed=120, port=0, checks_pass_after=None, settings={}, directory=Path(directory)
        ) as world:
            redis = Redis.from_url(world.redis.url)
            overheads = []
            for run in range(1, runs + 1):
                seconds, tests = await measure(world, redis)
                overheads.append(seconds - tests)
                print(
                    f"run {run}: ready to results {seconds:.3f} s, tests {tests:.3f} s, overhead {seconds - tests:.3f} s"
                )
            print(f"overhead: median {statistics.median(overheads):.3f} s, worst {max(overheads):.3f} s")
            await redis.aclose()


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
