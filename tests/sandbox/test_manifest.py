"""The workspace gives an app exactly the features in its manifest."""

import json
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.faults import Faults
from sandbox.slack import Workspace
from sandbox.slack.manifest import BadManifest, read_manifest

HOME = {"type": "home", "blocks": [{"type": "divider"}]}


def manifest_text(**changes: Any) -> str:
    """A manifest in Slack's format; `scopes` and `events` are replaced, `features` are merged in."""
    features = {
        "bot_user": {"display_name": "stoker"},
        "app_home": {"home_tab_enabled": True, "messages_tab_enabled": True},
        "slash_commands": [{"command": "/gpu", "description": "the shared GPU"}],
        "shortcuts": [{"name": "Show status", "type": "message", "callback_id": "status", "description": "…"}],
    }
    return json.dumps(
        {
            "display_information": {"name": "Stoker"},
            "features": features | changes.get("features", {}),
            "oauth_config": {"scopes": {"bot": changes.get("scopes", ["chat:write", "commands"])}},
            "settings": {"event_subscriptions": {"bot_events": changes.get("events", [])}},
        }
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "neither JSON nor YAML"),
        ("[]", "no features"),
        (manifest_text(events=["app_mention"]), "event app_mention needs the scope app_mentions:read"),
        (manifest_text(events=["reaction_added"]), "reaction_added"),
        (manifest_text(scopes=["chat:write"]), "slash commands and shortcuts need the scope commands"),
    ],
)
def test_an_invalid_manifest_is_refused(text: str, words: str) -> None:
    """An invalid manifest is reported at the start, with the missing parts."""
    with pytest.raises(BadManifest, match=words):
        read_manifest(text)


async def test_a_method_without_its_scope_is_refused_as_slack_does() -> None:
    """The answer names the missing scope and the scopes of the token, and nothing is done."""
    async with Workspace(Faults(), manifest=read_manifest(manifest_text(scopes=["commands"]))) as workspace:
        client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
        with pytest.raises(SlackApiError) as refused:
            await client.chat_postMessage(channel="C0GPUOPS", text="hello")
        answer = refused.value.response
        assert (answer["error"], answer["needed"], answer["provided"]) == ("missing_scope", "chat:write", "commands")
        assert answer.headers["x-oauth-scopes"] == "commands"
        assert workspace.now_visible("dev") == []


@pytest.mark.parametrize(("scope", "channel"), [("channels:history", "C0GPUOPS"), ("im:history", "D0DEV")])
async def test_history_needs_the_scope_of_its_kind_of_conversation(scope: str, channel: str) -> None:
    """Reading a channel and reading direct messages are two rights."""
    async with Workspace(Faults(), manifest=read_manifest(manifest_text(scopes=["commands", scope]))) as workspace:
        client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
        assert (await client.conversations_history(channel=channel))["messages"] == []
        other_channel = "D0DEV" if channel == "C0GPUOPS" else "C0GPUOPS"
        with pytest.raises(SlackApiError, match="missing_scope"):
            await client.conversations_history(channel=other_channel)


async def test_a_home_that_is_switched_off_cannot_be_published() -> None:
    """Without home_tab_enabled there is no Home to publish to."""
    off = manifest_text(features={"app_home": {"home_tab_enabled": False}})
    for text, error in ((off, "not_enabled"), (manifest_text(), None)):
        async with Workspace(Faults(), manifest=read_manifest(text)) as workspace:
            client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
            if error is None:
                assert (await client.views_publish(user_id="U0DEV", view=HOME))["ok"]
            else:
                with pytest.raises(SlackApiError, match=error):
                    await client.views_publish(user_id="U0DEV", view=HOME)


async def test_an_unregistered_command_is_not_delivered() -> None:
    """Slack itself notifies the user; the app gets nothing."""
    async with Workspace(Faults(), manifest=read_manifest(manifest_text()), patience=0.1) as workspace:
        await workspace.command("dev", "/model list")
        assert workspace.now_visible("dev") == ["/model is not a valid command."]
