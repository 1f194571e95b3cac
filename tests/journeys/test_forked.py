"""A process of `tests.forked` behaves like `python -m bot` in the sandbox."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import process
from sandbox.process import free_port
from tests import forked

Start = Callable[..., Awaitable[Any]]
pytestmark = pytest.mark.parametrize(
    "start", [process.start_stoker, forked.start_stoker], ids=["with python -m bot", "as a fork"]
)

WAITS = {  # for Redis, which does not answer
    "SLACK_BOT_TOKEN": "xoxb-1",
    "SLACK_APP_TOKEN": "xapp-1",
    "GITHUB_TOKEN": "ghp-1",
    "GITHUB_REPOSITORY": "acme/llm-platform",
    "STOKER_CONFIG": "stoker.yaml",
}


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(process.SOURCE), **more}


async def test_a_command_prints_and_ends(start: Start, tmp_path: Path) -> None:
    """Its output and its exit code can be read."""
    command = await start("manifest", environment=environment(), directory=tmp_path)
    printed, errors = await command.communicate()
    assert (command.returncode, errors) == (0, b"")
    assert b"/gpu" in printed


async def test_a_command_has_its_own_environment_and_directory(start: Start, tmp_path: Path) -> None:
    """A file is found by its relative path; the next command no longer has the variable."""
    (tmp_path / "own.yaml").write_text("platform: {namespace: elsewhere}")
    command = await start("rights", environment=environment(STOKER_CONFIG="own.yaml"), directory=tmp_path)
    assert b"namespace: elsewhere" in (await command.communicate())[0]
    command = await start("rights", environment=environment(), directory=tmp_path)
    assert b"namespace: elsewhere" not in (await command.communicate())[0]


async def test_a_bot_without_settings_ends_with_its_exit_code(start: Start, tmp_path: Path) -> None:
    """Both streams of its output are in its log."""
    with (tmp_path / "bot.log").open("ab") as log:
        bot = await start("run", environment=environment(), directory=tmp_path, log=log)
        assert await bot.wait() == 2
    assert "SLACK_BOT_TOKEN" in (tmp_path / "bot.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_running_bot_can_be_killed(start: Start, number: signal.Signals, tmp_path: Path) -> None:
    """The process is in a separate session, and is reported as killed by the signal."""
    (tmp_path / "stoker.yaml").write_text("slack: {channel: C0GPUOPS}")
    variables = environment(**WAITS, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    with (tmp_path / "bot.log").open("ab") as log:
        bot = await start("run", environment=variables, directory=tmp_path, log=log)
        async with asyncio.timeout(120):
            while "Redis does not answer" not in (tmp_path / "bot.log").read_text():
                assert bot.returncode is None
                await asyncio.sleep(0.1)
        assert os.getsid(bot.pid) == bot.pid
        bot.send_signal(number)
        assert await bot.wait() == -number
