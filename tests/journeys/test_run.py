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
    here = await open_sandbox(speed=60)
    environment = here.world.bot.environment
    del environment["REDIS_URL"]
    await here.world.bot.kill()
    await _ready(here)
    await here.says("dev", "/gpu up coder-chat")
    await here.sees("Approve")
    await here.world.bot.kill()
    await here.clicks("lead", "Approve")
    await here.sees("all smoke tests passed")
    assert len(here.messages("Bring up coder-chat")) == 1


WRONG: list[tuple[str, str | None]] = [
    ("SLACK_BOT_TOKEN", None),
    ("SLACK_APP_TOKEN", None),
    ("GITHUB_REPOSITORY", None),
    ("STOKER_CONFIG", "/nowhere.yaml"),
    ("KUBECONFIG", "/nowhere"),
    ("STOKER_PORT", "http"),
]


async def test_a_wrong_setting_stops_the_start_with_one_line(open_sandbox: OpenSandbox, tmp_path: Path) -> None:
    """The line names the setting, on the error output, with an exit code; there is no traceback."""
    here = await open_sandbox(speed=60)
    for number, (name, value) in enumerate(WRONG):
        environment = dict(here.world.bot.environment)
        environment.pop(name)
        environment |= {name: value} if value else {}
        start = forked.start_stoker if number else start_stoker  # the others import Stoker only once
        process = await start("run", environment=environment, directory=tmp_path)
        _, error = await process.communicate()
        lines = error.decode().strip().splitlines()
        assert process.returncode == 2, lines
        assert len(lines) == 1, lines
        assert name in lines[0]


async def test_the_bot_waits_for_a_redis_that_starts_later(open_sandbox: OpenSandbox) -> None:
    """On a new installation both start at the same time, and Redis waits for its volume."""
    here = await open_sandbox(speed=60)
    await here.world.redis.stop()
    before = len(here.world.bot.log.read_text())
    await here.world.bot.kill()
    await eventually(lambda: "Redis does not answer" in here.world.bot.log.read_text()[before:])
    await here.world.redis.start()
    await _ready(here)


async def test_a_started_bot_has_loaded_only_the_modules_that_it_needs(open_sandbox: OpenSandbox) -> None:
    """Not the terminal's commands, nor modules for drawing, GitHub Apps, files or traces, unless needed."""
    here = await open_sandbox(speed=60)
    await here.world.bot.die()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "bot", "run"),
        env=here.world.bot.environment,
        stderr=asyncio.subprocess.PIPE,
    )
    told = asyncio.create_task(process.communicate())
    await _ready(here)
    process.terminate()
    _, error = await told
    lines = error.decode().splitlines()
    assert not [line for line in lines if "warning" in line and not line.startswith("import time")]
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
    assert {"bot.app", "slack_bolt", "docket"} <= loaded
    spared = "bot.cli typer click rich matplotlib cryptography.hazmat opentelemetry.sdk.metrics sandbox"
    spared += " kubernetes.client requests requests_oauthlib oauthlib beartype"
    assert not {name for name in loaded if name.startswith(tuple(f"{room}." for room in spared.split()))}


async def _ready(here: ObservedSandbox) -> None:
    async with asyncio.timeout(200), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"{here.world.bot.url}/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
