"""Measure the bot's start and its idle memory, compared with a bare Bolt app.

    python benchmarks/start.py [ROUNDS [PYTHON]]

PYTHON is the interpreter that runs both, for example that of an environment with the image's packages.

The bare app is an `AsyncApp` on Socket Mode that has also imported the Kubernetes client. Each round starts both, one after
the other. The bot is ready when it logs `ready`: it is connected to Slack, and /readyz answers 200; the bare app is ready when it
has connected to Slack. Memory is the resident set (VmRSS) 15 s later.
Goals: a start of at most 1.5 times the bare app's, and at most 1.4 times its memory.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.world import opened

IDLE = 15.0
GOALS = {"start to ready": 1.5, "idle memory": 1.4}
"""The highest acceptable ratio to the bare app."""
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
async def process(environment: Mapping[str, str], *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command until the end of the block; yields its process."""
    running = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        running.terminate()
        await running.communicate()


async def wait_until_ready(bot: asyncio.subprocess.Process) -> None:
    """Return when the bot logs that it is ready. Requests to /readyz would delay the start that is measured."""
    assert bot.stderr
    async for line in bot.stderr:
        if b'"event": "ready"' in line:
            return
    raise SystemExit("the bot ended before it was ready")


def name_authority(kubeconfig: Path) -> None:
    """Add a certificate authority to a kubeconfig, as in a pod. Otherwise the client loads all of the machine's."""
    certificate = kubeconfig.with_name("ca.crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(kubeconfig.with_name("ca.key")),
         "-out", str(certificate), "-subj", "/CN=kubernetes"],
        check=True, capture_output=True,
    )  # fmt: skip
    config = json.loads(kubeconfig.read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["certificate-authority"] = str(certificate)
    kubeconfig.write_text(json.dumps(config), encoding="utf-8")


def processor(pid: int) -> float:
    """Return the processor time of a process in seconds."""
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@dataclass(frozen=True)
class Round:
    """The bot's and the bare app's seconds until ready, processor seconds until ready, and idle memory in MiB."""

    seconds: float
    processor_seconds: float
    memory: float
    bare_seconds: float
    bare_processor_seconds: float
    bare_memory: float


async def measure(rounds: int, python: str) -> list[Round]:
    results = []
    with tempfile.TemporaryDirectory() as directory:
        async with opened(
            platform=None, speed=60, port=0, checks_pass_after=None, settings={}, directory=Path(directory)
        ) as world:
            await world.bot.die()
            environment = {**world.bot.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
            environment["PYTHONDONTWRITEBYTECODE"] = ""  # modules are compiled before a start, as in the image
            name_authority(Path(environment["KUBECONFIG"]))
            for _ in range(rounds):
                began = time.perf_counter()
                async with process(environment, python, "-m", "bot", "run") as bot:
                    await wait_until_ready(bot)
                    seconds, processor_seconds = time.perf_counter() - began, processor(bot.pid)
                    await asyncio.sleep(IDLE)
                    memory = resident(bot.pid)
                began = time.perf_counter()
                async with process(environment, python, "-c", BARE) as app:
                    await world.workspace.connected(60)
                    bare_seconds, bare_processor_seconds = time.perf_counter() - began, processor(app.pid)
                    await asyncio.sleep(IDLE)
                    bare = (bare_seconds, bare_processor_seconds, resident(app.pid))
                results.append(Round(seconds, processor_seconds, memory, *bare))
                print(results[-1], flush=True)
    return results


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    python = sys.argv[2] if len(sys.argv) > 2 else sys.executable
    results = asyncio.run(measure(rounds, python))
    ratios = {}
    for quantity, unit, pairs in (
        ("start to ready", "s", [(result.seconds, result.bare_seconds) for result in results]),
        (
            "processor until ready",
            "s",
            [(result.processor_seconds, result.bare_processor_seconds) for result in results],
        ),
        ("idle memory", "MiB", [(result.memory, result.bare_memory) for result in results]),
    ):
        bot, bare = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = ratios[quantity] = statistics.median(bot_value / bare_value for bot_value, bare_value in pairs)
        goal = f" (goal at most {GOALS[quantity]})" if quantity in GOALS else ""
        print(f"{quantity}: {bot:.2f} {unit}, bare Bolt app {bare:.2f} {unit}: ratio {ratio:.2f}{goal}")
    return int(any(ratios[quantity] > goal for quantity, goal in GOALS.items()))


if __name__ == "__main__":
    sys.exit(main())
