"""Messages to Slack, over the wire to the stand-in workspace."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import Unavailable
from bot.slack import Slack, SlackRefused
from bot.store import PREFIX, Store
from bot.views import lines
from sandbox.faults import Faults
from sandbox.slack import Workspace


@pytest.fixture
async def workspace() -> AsyncIterator[tuple[Workspace, Faults]]:
    faults = Faults()
    async with Workspace(faults) as workspace:
        yield workspace, faults


@pytest.fixture
def slack(workspace: tuple[Workspace, Faults], redis: Redis) -> Slack:
    there, _ = workspace
    client = AsyncWebClient(token=there.bot_token, base_url=there.api_url)
    return Slack(client, Store(redis), update_every=timedelta(seconds=3))


def shown(workspace: Workspace) -> list[str]:
    return [text for text in workspace.now_visible("dev") if "hello" in text]


async def test_one_key_is_one_message(workspace: tuple[Workspace, Faults], slack: Slack) -> None:
    """Posted twice under one key, it is there once."""
    first = await slack.post("k", "C0GPUOPS", lines("hello"))
    assert await slack.post("k", "C0GPUOPS", lines("hello")) == first
    assert len(shown(workspace[0])) == 1


@pytest.mark.parametrize("channel", ["C0GPUOPS", "U0DEV"])
async def test_a_bot_killed_after_posting_does_not_post_again(
    workspace: tuple[Workspace, Faults], slack: Slack, redis: Redis, channel: str
) -> None:
    """The message that arrived before the crash is found by the key in its metadata, in a channel or a DM."""
    first = await slack.post("k", channel, lines("hello"))
    await redis.set(f"{PREFIX}:message:k", datetime.now(UTC).isoformat())  # as it is when the note was never written
    again = await slack.post("k", channel, lines("hello"))
    assert again.ts == first.ts
    assert len(shown(workspace[0])) == 1


async def test_a_bot_killed_before_posting_posts(
    workspace: tuple[Workspace, Faults], slack: Slack, redis: Redis
) -> None:
    """An intent without a message is carried out."""
    await redis.set(f"{PREFIX}:message:k", datetime.now(UTC).isoformat())
    await slack.post("k", "C0GPUOPS", lines("hello"))
    assert len(shown(workspace[0])) == 1


async def test_slack_that_is_too_busy_is_unavailable(workspace: tuple[Workspace, Faults], slack: Slack) -> None:
    """429 is for later, and the message is then posted once."""
    there, faults = workspace
    faults.add("slack-429")
    with pytest.raises(Unavailable, match="ratelimited"):
        await slack.post("k", "C0GPUOPS", lines("hello"))
    faults.discard("slack-429")
    await slack.post("k", "C0GPUOPS", lines("hello"))
    assert len(shown(there)) == 1


async def test_what_slack_refuses_is_said(slack: Slack) -> None:
    """A wrong channel is no reason to try again."""
    with pytest.raises(SlackRefused, match="channel_not_found"):
        await slack.post("k", "CNOWHERE", lines("hello"))
