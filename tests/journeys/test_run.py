"""`stoker run` with only its environment."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from sandbox.process import start_stoker
from tests import forked
from tests.journeys.conftest import ObservedSandbox, eventually

OpenSandbox = Callable[..., Awaitable[ObservedSandbox]]
pytestmark = pytest.mark.timeout(600)


async def test_without_redis_url_the_bot_starts_its_own_and_keeps_the_data(open_sandbox: OpenSandbox) -> None:
    """One machine needs no set-up; a request that waits for approval still exists after the bot was killed."""
    sandbox = await open_sandbox(speed=60)
    environment = sandbox.world.bot.environment
    del environment["REDIS_URL"]
    await sandbox.world.bot.kill()
    await _ready(sandbox)
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.sees("Approve")
    await sandbox.world.bot.kill()
    await sandbox.clicks("lead", "Approve")
    await sandbox.sees("all smoke tests passed")
    assert len(sandbox.messages("Bring up coder-chat")) == 1


WRONG: list[tuple[str, str | None]] = [
    ("SLACK_BOT_TOKEN", None),
    ("SLACK_APP_TOKEN", None),
    ("GITHUB_REPOSITORY", None),
    ("STOKER_CONFIG", "/nowhere.yaml"),
    ("KUBECONFIG", "/nowhere"),
    ("STOKER_PORT", "http"),
]


async def test_a_wrong_setting_stops_the_start_with_one_line(open_sandbox: OpenSandbox, tmp_path: Path) -> None:
    """The line is on standard error and names the setting; the exit code is 2, and there is no traceback."""
    sandbox = await open_sandbox(speed=60)
    for number, (name, value) in enumerate(WRONG):
        environment = dict(sandbox.world.bot.environment)
        environment.pop(name)
        environment |= {name: value} if value else {}
        start = forked.start_stoker if number else start_stoker  # later processes are forks, which need no import
        process = await start("run", environment=environment, directory=tmp_path)
        _, error = await process.communicate()
        lines = error.decode().strip().splitlines()
        assert process.returncode == 2, lines
        assert len(lines) == 1, lines
        assert name in lines[0]


async def test_the_bot_waits_for_a_redis_that_starts_later(open_sandbox: OpenSandbox) -> None:
    """On a new installation both start at the same time, and Redis waits for its volume."""
    sandbox = await open_sandbox(speed=60)
    await sandbox.world.redis.stop()
    before = len(sandbox.world.bot.log.read_text())
    await sandbox.world.bot.kill()
    await eventually(lambda: "Redis does not answer" in sandbox.world.bot.log.read_text()[before:])
    await sandbox.world.redis.start()
    await _ready(sandbox)


async def test_a_started_bot_has_loaded_only_the_modules_that_it_needs(open_sandbox: OpenSandbox) -> None:
    """Modules of the terminal's commands, for drawing, GitHub Apps, files and traces are loaded only when they are needed."""
    sandbox = await open_sandbox(speed=60)
    await sandbox.world.bot.die()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "bot", "run"),
        env=sandbox.world.bot.environment,
        stderr=asyncio.subprocess.PIPE,
    )
    communication = asyncio.create_task(process.communicate())
    await _ready(sandbox)
    process.terminate()
    _, error = await communication
    lines = error.decode().splitlines()
    assert not [line for line in lines if "warning" in line and not line.startswith("import time")]
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
    assert {"bot.app", "slack_bolt", "docket"} <= loaded
    not_loaded = "bot.cli typer click rich matplotlib cryptography.hazmat opentelemetry.sdk.metrics sandbox"
    not_loaded += " kubernetes.client requests requests_oauthlib oauthlib beartype"
    assert not {name for name in loaded if name.startswith(tuple(f"{package}." for package in not_loaded.split()))}


async def _ready(sandbox: ObservedSandbox) -> None:
    async with asyncio.timeout(200), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"{sandbox.world.bot.url}/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
