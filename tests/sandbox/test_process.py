"""The processes of a sandbox: Redis restarts with its data, and a bot that exits is noticed."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis as Client
from redis.exceptions import ConnectionError as RedisGone

from sandbox import process
from sandbox.process import Bot, ProcessError, Redis, free_port


async def test_redis_comes_back_with_everything_that_was_written(tmp_path: Path) -> None:
    """A stopped Redis refuses connections; after a restart, the same address has the same data."""
    async with Redis(tmp_path / "redis") as redis, Client.from_url(redis.url) as client:
        await client.set("lease", "coder-chat")
        await redis.stop()
        with pytest.raises(RedisGone):
            await client.get("lease")
        await redis.start()
        assert await client.get("lease") == b"coder-chat"


async def test_stopping_and_starting_twice_is_harmless(tmp_path: Path) -> None:
    """A story may stop a stopped Redis, or start a running one."""
    async with Redis(tmp_path / "redis") as redis:
        await redis.start()
        await redis.stop()
        await redis.stop()


async def test_a_bot_that_does_not_start_shows_the_reason(tmp_path: Path) -> None:
    """Without any setting the bot ends at once; the error contains its exit code and its last lines."""
    with pytest.raises(ProcessError, match=r"(?s)did not start: exit code \d.*bot\.log"):
        async with Bot({}, port=free_port(), directory=tmp_path):
            pass


async def test_the_environment_of_the_shell_does_not_reach_the_bot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's own token in the environment must never reach the sandbox."""
    monkeypatch.setenv("SLACK_BOT_TOKEN", "somebody's own")
    bot = Bot({"STOKER_PORT": "1"}, port=1, directory=tmp_path)
    assert "SLACK_BOT_TOKEN" not in bot.environment
    assert bot.environment["STOKER_PORT"] == "1"


async def test_the_sandbox_runs_the_bot_of_its_own_clone(tmp_path: Path) -> None:
    """A sandbox that is imported from a clone runs the clone's bot, although another one is installed."""
    clone = tmp_path / "clone"
    for package in ("bot", "sandbox"):
        (clone / package).mkdir(parents=True)
        (clone / package / "__init__.py").touch()
    shutil.copy(process.__file__, clone / "sandbox" / "process.py")
    (clone / "bot" / "__main__.py").write_text("print('the bot of the clone')")
    script = "import asyncio; from pathlib import Path; from sandbox import process; "
    script += "print(process.__file__, asyncio.run(process.app_manifest(Path())))"
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), env={"PYTHONPATH": str(clone)}, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await started.communicate()
    assert "the bot of the clone" in printed.decode()
