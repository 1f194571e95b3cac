"""Several bots with one Redis: one of them handles each delivery, timer and step."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sandbox.process import Bot, free_port
from tests.journeys.conftest import PATIENCE, ObservedSandbox

OpenSandbox = Callable[..., Awaitable[ObservedSandbox]]
pytestmark = pytest.mark.usefixtures("forked")


@asynccontextmanager
async def more_bots(sandbox: ObservedSandbox, directory: Path, count: int) -> AsyncIterator[list[Bot]]:
    """Start more replicas of the sandbox's bot, each with its own port and mirror, like pods."""
    async with AsyncExitStack() as stack:
        bots = []
        for number in range(count):
            port, home = free_port(), directory / f"replica-{number}"
            home.mkdir()
            variables = {"STOKER_PORT": str(port), "STOKER_DATA_DIR": str(home / "data")}
            bot = Bot(sandbox.world.bot.environment | variables, port=port, directory=home)
            bots.append(await stack.enter_async_context(bot))
        yield bots


@pytest.mark.timeout(600)
async def test_three_bots_do_everything_once_while_one_is_killed(open_sandbox: OpenSandbox, tmp_path: Path) -> None:
    """There is one message, one scale, one result and one end, although a bot is killed in the middle and not restarted."""
    sandbox = await open_sandbox(speed=30)
    changes = sandbox.changes_of("coder-chat")
    async with more_bots(sandbox, tmp_path, 2) as (second, third):
        await sandbox.says("dev", "/gpu up coder-chat because fleet test")
        await sandbox.clicks("lead", "Approve")
        await sandbox.reaches("pulling the image")
        await sandbox.world.bot.die()
        await sandbox.reaches("staging weights")
        await second.die()
        await sandbox.sees("all smoke tests passed")
        await sandbox.sees("/health · ✅ passed · 200")
        assert len(sandbox.messages("Bring up coder-chat")) == 1
        assert sum("/health · ✅ passed · 200" in reply for reply in sandbox.replies()) == 1
        assert sandbox.changes_of("coder-chat") == changes + 1
        await sandbox.says("dev", "/gpu down")
        await sandbox.sees("is down")
        assert sandbox.replicas("coder-chat") == 0
        assert sandbox.changes_of("coder-chat") == changes + 2
        assert third.url


@pytest.mark.timeout(600)
async def test_a_timer_of_three_bots_fires_once(open_sandbox: OpenSandbox, tmp_path: Path) -> None:
    """Three replicas watch the same idle model; there is one reminder in the channel, one bring-down and one receipt."""
    sandbox = await open_sandbox(
        speed=300, settings={"idle": {"remind_after": "4s", "remind_every": "1h", "down_after": "14s"}}
    )
    async with more_bots(sandbox, tmp_path, 2):
        await sandbox.says("dev", "/gpu up coder-chat")
        await sandbox.clicks("lead", "Approve")
        await sandbox.sees("all smoke tests passed")
        await sandbox.sees("has been idle")
        assert len(sandbox.messages("has been idle")) == 1
        await sandbox.sees("is down")
        assert len(sandbox.messages("Bring down coder-chat")) == 1
        assert sandbox.replicas("coder-chat") == 0


@pytest.mark.timeout(600)
async def test_three_bots_without_redis_post_each_message_once(open_sandbox: OpenSandbox, tmp_path: Path) -> None:
    """Each bot enforces the lease's end; one of them warns, and one of them reports the end."""
    quick = {"lease": {"warn_before": "8s"}, "idle": {"sample_every": "1s", "remind_after": "1h", "down_after": "2h"}}
    sandbox = await open_sandbox(speed=300, settings=quick)
    async with more_bots(sandbox, tmp_path, 2):
        await sandbox.says("dev", "/gpu up coder-chat for 25s")
        await sandbox.clicks("lead", "Approve")
        await sandbox.sees("all smoke tests passed")
        await sandbox.world.redis_stops()
        await sandbox.sees("then it goes down")
        await sandbox.sees("The reason: the lease has ended")
        assert sandbox.replicas("coder-chat") == 0
        await sandbox.world.redis_starts()
        await sandbox.sees("is down and the GPU is free")
        for expected in ("then it goes down", "The reason: the lease has ended"):
            messages = [text for text in sandbox.world.workspace.now_visible("dev") if expected in text]
            assert len(messages) == 2, f"“{expected}” is for the channel and the holder, once each: {messages}"


@pytest.mark.timeout(600)
async def test_two_clicks_at_two_bots_are_one_decision(open_sandbox: OpenSandbox, tmp_path: Path) -> None:
    """Slack sends each click to another connection: the first decides, and the answer to the second names who decided."""
    sandbox = await open_sandbox(speed=300)
    async with more_bots(sandbox, tmp_path, 1):
        await sandbox.says("dev", "/gpu up coder-chat")
        await sandbox.sees("Awaiting approval", user="lead")
        click = sandbox.world.workspace.click
        await asyncio.gather(click("lead", "Approve", timeout=PATIENCE), click("admin", "Approve", timeout=PATIENCE))
        await sandbox.sees("all smoke tests passed")
        assert len(sandbox.messages("Bring up coder-chat")) == 1
        replies = [sandbox.seen(user).count("This request is already") for user in ("lead", "admin")]
        assert sorted(replies) == [0, 1]
