"""The channel's bookmark that shows who has the GPU."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from slack_sdk.web.async_client import AsyncWebClient

from bot.domain.leases import Lease
from bot.settings.config import Config
from bot.slack.bookmark import HolderBookmark
from bot.slack.web_api import Slack
from bot.state.leases import Leases
from bot.state.messages import Messages
from sandbox.faults import Faults
from sandbox.main import IDLE_SETTINGS, STORY_LIMITS
from sandbox.slack import Workspace
from sandbox.slack.manifest import everything
from sandbox.world import merged, opened

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
ON = Config.model_validate({"slack": {"channel": "C0GPUOPS", "bookmark": True}})


@pytest.fixture
async def workspace() -> AsyncIterator[tuple[Workspace, Faults]]:
    faults = Faults()
    async with Workspace(faults) as workspace:
        yield workspace, faults


def bookmark_of(workspace: Workspace, redis: Redis, config: Config = ON) -> HolderBookmark:
    client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
    return HolderBookmark(Slack(client, Messages(redis)), Leases(redis), config)


async def test_the_bookmark_shows_the_holder_and_the_end(workspace: tuple[Workspace, Faults], redis: Redis) -> None:
    """There is one bookmark, whose title changes; another bot finds it again and adds no second one."""
    stand_in, _ = workspace
    bookmark, leases = bookmark_of(stand_in, redis), Leases(redis)
    await bookmark.refresh()
    assert stand_in.bookmarks() == ["GPU: free"]
    hold = timedelta(hours=2)
    lease = await leases.claim(Lease(model="coder-chat", op="1", holder="U0DEV", fence=0, hold=hold, claimed=NOW))
    await bookmark.refresh()
    assert stand_in.bookmarks() == ["GPU: coder-chat, dev, booting"]
    assert await leases.change(lease, lambda current: current.started(NOW))
    await bookmark_of(stand_in, redis).refresh()
    assert stand_in.bookmarks() == ["GPU: coder-chat, dev until 14:00 UTC"]
    assert stand_in.posted("C0GPUOPS") == []  # no message, so nobody is notified
    await leases.release(lease)
    await bookmark.refresh()
    assert stand_in.bookmarks() == ["GPU: free"]


async def test_the_bookmark_is_off_by_default(workspace: tuple[Workspace, Faults], redis: Redis) -> None:
    """Without the setting, the bot makes no request that needs the scopes."""
    stand_in, _ = workspace
    await bookmark_of(stand_in, redis, Config.model_validate({"slack": {"channel": "C0GPUOPS"}})).refresh()
    assert stand_in.bookmarks() == []


async def test_a_refusal_by_slack_has_no_other_effect(workspace: tuple[Workspace, Faults], redis: Redis) -> None:
    """Without the scope, or while Slack is busy, the refresh ends without an error, and a later one succeeds."""
    stand_in, faults = workspace
    bookmark = bookmark_of(stand_in, redis)
    faults.add("slack-429")
    await bookmark.refresh()
    faults.discard("slack-429")
    await bookmark.refresh()
    assert stand_in.bookmarks() == ["GPU: free"]
    async with Workspace(Faults(), manifest=everything(scopes=frozenset({"chat:write"}))) as strict:
        await bookmark_of(strict, redis).refresh()
        assert strict.bookmarks() == []


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("forked")
async def test_the_bot_updates_the_bookmark(tmp_path: Path) -> None:
    """The running bot has the scopes of `stoker manifest --bookmark`."""
    settings = merged(merged(IDLE_SETTINGS, STORY_LIMITS), {"slack": {"bookmark": True}})
    async with opened(
        platform=None, speed=120, port=0, checks_pass_after=None, settings=settings, directory=tmp_path
    ) as world:
        await world.command("dev", "/gpu up coder-chat for 2h because demo")
        await world.workspace.click("lead", "Approve", timeout=150)
        async with asyncio.timeout(200):
            while not any("coder-chat, dev until" in title for title in world.workspace.bookmarks()):
                await asyncio.sleep(0.2)
