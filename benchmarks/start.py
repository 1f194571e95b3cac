"""How long the bot takes from its start to ready, and how much memory it holds when idle.

    python benchmarks/start.py [ROUNDS [PYTHON]]

PYTHON is the interpreter that both run with, where it is not this one: of an environment with the image's packages, say.

Beside it runs, in the same round on the same machine, a bare Bolt app: `AsyncApp` on Socket Mode, with the Kubernetes
client imported and nothing else. Ready is the first 200 of /readyz; memory is the resident set (VmRSS) after 15 s.
Must: ready within 3 s, and at most 1.5 times the bare app's memory.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from sandbox.world import opened

IDLE = 15.0
BARE = """
import asyncio, os
from kubernetes.aio import client, config
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

async def main():
    app = AsyncApp(client=AsyncWebClient(token=os.environ["SLACK_BOT_TOKEN"], base_url=os.environ["SLACK_API_URL"]))
    await AsyncSocketModeHandler(app, os.environ["SLACK_APP_TOKEN"]).start_async()

asyncio.run(main())
"""


@asynccontextmanager
async def process(environment: Mapping[str, str], *command: str) -> AsyncIterator[int]:
    """Its process id, until the end of the block."""
    running = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield running.pid
    finally:
        running.terminate()
        await running.wait()


async def ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        while True:
            try:
                if (await http.get(f"{url}/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


def processor(pid: int) -> float:
    """Seconds of processor that it has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def measured(rounds: int, python: str) -> list[tuple[float, float, float, float]]:
    found = []
    with tempfile.TemporaryDirectory() as directory:
        async with opened(
            platform=None, speed=60, port=0, checks_pass_after=None, settings={}, directory=Path(directory)
        ) as world:
            await world.bot.die()
            environment = {**world.bot.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
            for _ in range(rounds):
                began = time.perf_counter()
                async with process(environment, python, "-m", "bot", "run") as pid:
                    await ready(world.bot.url)
                    took, worked = time.perf_counter() - began, processor(pid)
                    await asyncio.sleep(IDLE)
                    ours = resident(pid)
                async with process(environment, python, "-c", BARE) as pid:
                    await asyncio.sleep(IDLE)
                    found.append((took, worked, ours, resident(pid)))
                print(
                    f"ready in {took:.2f} s ({worked:.2f} s of processor), {ours:.0f} MiB, bare {found[-1][3]:.0f} MiB",
                    flush=True,
                )
    return found


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    python = sys.argv[2] if len(sys.argv) > 2 else sys.executable
    times, worked, ours, bare = zip(*asyncio.run(measured(rounds, python)), strict=True)
    print(
        f"start to ready: median {statistics.median(times):.2f} s, best {min(times):.2f} s, "
        f"of which processor {statistics.median(worked):.2f} s ({rounds} rounds)"
    )
    print(
        f"idle memory: {statistics.median(ours):.0f} MiB, a bare Bolt app {statistics.median(bare):.0f} MiB: "
        f"{statistics.median(ours) / statistics.median(bare):.2f} times"
    )
    return int(statistics.median(times) > 3 or statistics.median(ours) > 1.5 * statistics.median(bare))


if __name__ == "__main__":
    sys.exit(main())
