"""The bot's start and its idle memory, next to those of a bare Bolt app.

    python benchmarks/start.py [ROUNDS [PYTHON]]

PYTHON is the interpreter for both, if it is not this one: for example of an environment with the image's packages.

The bare app is `AsyncApp` on Socket Mode with the Kubernetes client imported and nothing else. Both are started in the same
rounds on the same machine. The bot is ready at the first 200 of /readyz, after it has connected to Slack; the bare app is
ready when it has connected to Slack. Memory is the resident set (VmRSS) after 15 s.
Floors: the start takes at most 1.5 times as long as the bare app's, and the memory is at most 1.4 times the bare app's.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from sandbox.world import opened

IDLE = 15.0
FLOORS = {"start to ready": 1.5, "idle memory": 1.4}
"""The goal, as a multiple of the bare app."""
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
    """Processor time used, in seconds."""
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@dataclass(frozen=True)
class Round:
    """Seconds until ready, seconds of processor until then, and idle MiB: of the bot and of the bare app."""

    took: float
    worked: float
    held: float
    bare_took: float
    bare_worked: float
    bare_held: float


async def measured(rounds: int, python: str) -> list[Round]:
    found = []
    with tempfile.TemporaryDirectory() as directory:
        async with opened(
            platform=None, speed=60, port=0, checks_pass_after=None, settings={}, directory=Path(directory)
        ) as world:
            await world.bot.die()
            environment = {**world.bot.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
            environment["PYTHONDONTWRITEBYTECODE"] = ""  # modules are compiled before a start, as in the image
            for _ in range(rounds):
                began = time.perf_counter()
                async with process(environment, python, "-m", "bot", "run") as pid:
                    await ready(world.bot.url)
                    took, worked = time.perf_counter() - began, processor(pid)
                    await asyncio.sleep(IDLE)
                    held = resident(pid)
                began = time.perf_counter()
                async with process(environment, python, "-c", BARE) as pid:
                    await world.workspace.connected(60)
                    bare_took, bare_worked = time.perf_counter() - began, processor(pid)
                    await asyncio.sleep(IDLE)
                    found.append(Round(took, worked, held, bare_took, bare_worked, resident(pid)))
                print(found[-1], flush=True)
    return found


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    python = sys.argv[2] if len(sys.argv) > 2 else sys.executable
    found = asyncio.run(measured(rounds, python))
    ratios = {}
    for what, unit, ours, bare in (
        ("start to ready", "s", [each.took for each in found], [each.bare_took for each in found]),
        ("processor until ready", "s", [each.worked for each in found], [each.bare_worked for each in found]),
        ("idle memory", "MiB", [each.held for each in found], [each.bare_held for each in found]),
    ):
        ratios[what] = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
        print(
            f"{what}: {statistics.median(ours):.2f} {unit}, bare Bolt app {statistics.median(bare):.2f} {unit}: "
            f"ratio {ratios[what]:.2f}" + (f" (floor {FLOORS[what]})" if what in FLOORS else "")
        )
    return int(any(ratios[what] > floor for what, floor in FLOORS.items()))


if __name__ == "__main__":
    sys.exit(main())
