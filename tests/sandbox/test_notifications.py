"""The sandbox's Slack notifies the same people as Slack with its default preferences."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.faults import Faults
from sandbox.slack import Workspace
from sandbox.slack.history import CHANNEL


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace(Faults(), patience=0.1) as workspace:
        yield workspace


@pytest.fixture
async def client(workspace: Workspace) -> AsyncWebClient:
    return AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)


def section(text: str) -> list[dict[str, Any]]:
    return [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]


def notified(workspace: Workspace) -> dict[str, list[tuple[str, str]]]:
    by_user = {name: [(n.how, n.text) for n in workspace.notified(name)] for name in ("dev", "lead", "admin")}
    return {name: notifications for name, notifications in by_user.items() if notifications}


@pytest.mark.parametrize(
    ("place", "message", "expected"),
    [
        (CHANNEL, {"text": "nobody in particular"}, {}),
        (CHANNEL, {"text": "<@U0DEV> look"}, {"dev": [("mention", "@dev look")]}),
        (
            CHANNEL,
            {"text": "<!subteam^S0APPROVERS>: decide"},
            {"lead": [("mention", "@gpu-approvers: decide")], "admin": [("mention", "@gpu-approvers: decide")]},
        ),
        (CHANNEL, {"text": "news", "blocks": section("for <@U0DEV>")}, {"dev": [("mention", "news")]}),
        (CHANNEL, {"text": "<@U0DEV>: news", "blocks": section("news")}, {}),
        ("U0LEAD", {"text": "for you"}, {"lead": [("direct message", "for you")]}),
    ],
)
async def test_a_new_message_notifies_the_people_it_names(
    workspace: Workspace,
    client: AsyncWebClient,
    place: str,
    message: dict[str, Any],
    expected: dict[str, list[tuple[str, str]]],
) -> None:
    """People get a mention or a direct message. The notification shows the fallback text; mentions are read from the blocks."""
    await client.chat_postMessage(channel=place, **message)
    assert notified(workspace) == expected


async def test_an_edit_notifies_nobody(workspace: Workspace, client: AsyncWebClient) -> None:
    """Neither the mentioned people nor the user of a direct message are notified."""
    for place in (CHANNEL, "U0LEAD"):
        posted = await client.chat_postMessage(channel=place, text="before")
        before = notified(workspace)
        await client.chat_update(channel=posted["channel"], ts=posted["ts"], text="after <@U0DEV> <@U0LEAD>")
        assert notified(workspace) == before


async def test_a_reply_notifies_the_people_it_mentions(workspace: Workspace, client: AsyncWebClient) -> None:
    """People who are named only in the message above the reply are not notified."""
    root = await client.chat_postMessage(channel=CHANNEL, text="the card")
    await client.chat_postMessage(channel=CHANNEL, text="evidence", thread_ts=root["ts"])
    assert notified(workspace) == {}
    await client.chat_postMessage(channel=CHANNEL, text="<@U0LEAD> decide", thread_ts=root["ts"])
    assert notified(workspace) == {"lead": [("mention", "@lead decide")]}


async def test_an_ephemeral_message_notifies_nobody(workspace: Workspace, client: AsyncWebClient) -> None:
    """Everybody in the channel sees it, and nobody is notified."""
    await client.chat_postEphemeral(channel=CHANNEL, user="U0DEV", text="<@U0DEV> only you")
    assert notified(workspace) == {}


async def test_nobody_is_notified_of_their_own_message(workspace: Workspace) -> None:
    """This applies to a mention of their name or of a group that they are in."""
    await workspace.say("lead", "I am <@U0LEAD>, of <!subteam^S0APPROVERS>")
    assert notified(workspace) == {"admin": [("mention", "I am @lead, of @gpu-approvers")]}
