"""Messages to Slack, over the wire to the stand-in workspace."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest
from redis.asyncio import Redis
from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import Unavailable
from bot.slack.web_api import Slack, SlackRefused, slack_errors
from bot.state.messages import Messages
from bot.state.records import PREFIX
from bot.text.mrkdwn import md
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
    stand_in, _ = workspace
    client = AsyncWebClient(token=stand_in.bot_token, base_url=stand_in.api_url)
    return Slack(client, Messages(redis))


def greetings(workspace: Workspace) -> list[str]:
    return [text for text in workspace.now_visible("dev") if "hello" in text]


async def test_one_key_is_one_message(workspace: tuple[Workspace, Faults], slack: Slack) -> None:
    """A message that is posted twice under one key exists once."""
    first = await slack.post("k", "C0GPUOPS", lines(md("hello")))
    assert await slack.post("k", "C0GPUOPS", lines(md("hello"))) == first
    assert len(greetings(workspace[0])) == 1


@pytest.mark.parametrize("channel", ["C0GPUOPS", "U0DEV"])
async def test_a_bot_killed_after_posting_does_not_post_again(
    workspace: tuple[Workspace, Faults], slack: Slack, redis: Redis, channel: str
) -> None:
    """The message that arrived before the crash is found by the key in its metadata, in a channel or a DM."""
    first = await slack.post("k", channel, lines(md("hello")))
    await redis.set(f"{PREFIX}:message:k", datetime.now(UTC).isoformat())  # as if the record had never been written
    again = await slack.post("k", channel, lines(md("hello")))
    assert again.ts == first.ts
    assert len(greetings(workspace[0])) == 1


async def test_a_bot_killed_before_posting_posts(
    workspace: tuple[Workspace, Faults], slack: Slack, redis: Redis
) -> None:
    """If there is an intent but no message, the message is posted."""
    await redis.set(f"{PREFIX}:message:k", datetime.now(UTC).isoformat())
    await slack.post("k", "C0GPUOPS", lines(md("hello")))
    assert len(greetings(workspace[0])) == 1


async def test_slack_that_is_too_busy_is_unavailable(workspace: tuple[Workspace, Faults], slack: Slack) -> None:
    """429 is temporary, and the message is then posted once."""
    stand_in, faults = workspace
    faults.add("slack-429")
    with pytest.raises(Unavailable, match="ratelimited"):
        await slack.post("k", "C0GPUOPS", lines(md("hello")))
    faults.discard("slack-429")
    await slack.post("k", "C0GPUOPS", lines(md("hello")))
    assert len(greetings(stand_in)) == 1


async def test_a_refusal_by_slack_is_reported(slack: Slack) -> None:
    """A wrong channel is a permanent error."""
    with pytest.raises(SlackRefused, match="channel_not_found"):
        await slack.post("k", "CNOWHERE", lines(md("hello")))


async def test_a_picture_has_an_alternative_text(workspace: tuple[Workspace, Faults], slack: Slack) -> None:
    """The text is truncated to Slack's limit, so that the picture is posted."""
    stand_in, _ = workspace
    card = await slack.post("k", "C0GPUOPS", lines(md("hello")))
    await slack.attach("p", card, b"png", "a.png", title="A", alt="506 tokens per second " * 99, text=md("below"))
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {stand_in.bot_token}"}) as http:
        replies = {"channel": card.channel, "ts": card.ts}
        async with http.get(stand_in.api_url + "conversations.replies", params=replies) as answer:
            (file,) = (await answer.json())["messages"][-1]["files"]
    assert file["alt_txt"].startswith("506 tokens per second")
    assert len(file["alt_txt"]) == 1000


@pytest.mark.parametrize("code", ["rate_limited", "ratelimited", "accesslimited", "team_added_to_org"])
def test_a_temporary_refusal_is_an_outage(code: str) -> None:
    """Slack has several codes for a temporary refusal, some with status 200; the message is sent later."""
    response = SlackResponse(
        client=None, http_verb="POST", api_url="", req_args={}, data={"error": code}, headers={}, status_code=200
    )
    with pytest.raises(Unavailable), slack_errors("chat.postMessage"):
        raise SlackApiError("x", response)  # type: ignore[no-untyped-call]
