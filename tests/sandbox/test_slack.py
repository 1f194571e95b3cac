"""The stand-in for Slack, used by a real Bolt app over the real protocol."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.faults import Faults, UnknownFault
from sandbox.slack import Workspace
from sandbox.slack.history import BOT_USER, CHANNEL, History, Message
from sandbox.slack.workspace import NotThere

APPROVE: dict[str, Any] = {
    "type": "button",
    "text": {"type": "plain_text", "text": "Approve"},
    "action_id": "approve",
    "value": "op-1",
}
CARD: list[dict[str, Any]] = [
    {"type": "section", "text": {"type": "mrkdwn", "text": "<@U0DEV> asks for *coder-chat*"}},
    {"type": "actions", "block_id": "decide", "elements": [APPROVE]},
]
ASK_WHY = {
    "type": "modal",
    "callback_id": "why",
    "title": {"type": "plain_text", "text": "Why"},
    "submit": {"type": "plain_text", "text": "Go"},
    "private_metadata": "op-1",
    "blocks": [
        {
            "type": "input",
            "block_id": "reason",
            "label": {"type": "plain_text", "text": "Reason"},
            "element": {"type": "plain_text_input", "action_id": "text"},
        }
    ],
}


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def ack_within() -> float:
    """Return the seconds to acknowledge, for a busy machine; a test that waits for their end is parametrised with fewer."""
    return 20


@pytest.fixture
def patience() -> float:
    """Return the seconds that a delivery waits for the app; a test without an app is parametrised with fewer."""
    return 20


@pytest.fixture
async def workspace(faults: Faults, ack_within: float, patience: float) -> AsyncIterator[Workspace]:
    async with Workspace(faults, ack_within=ack_within, patience=patience) as workspace:
        yield workspace


async def wait_until(workspace: Workspace, user: str, text: str) -> None:
    for _ in range(3000):
        if any(text in visible_text for visible_text in workspace.now_visible(user)):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{text!r} not in {workspace.now_visible(user)}")


async def test_a_request_is_shown_from_the_command_to_the_decision(workspace: Workspace, app: AsyncApp) -> None:
    """The command is acknowledged, a card is posted, its button opens a modal, and the submission updates the card."""
    card: dict[str, Any] = {}

    @app.command("/gpu")
    async def gpu(ack: Any, command: dict[str, Any], client: AsyncWebClient) -> None:
        await ack("On it.")
        assert (command["text"], command["user_name"]) == ("up coder-chat", "dev")
        card.update((await client.chat_postMessage(channel="C0GPUOPS", text="card", blocks=CARD)).data)  # type: ignore[arg-type]

    @app.action("approve")
    async def approve(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        assert (body["actions"][0]["value"], body["container"]["message_ts"]) == ("op-1", card["ts"])
        await client.views_open(trigger_id=body["trigger_id"], view=ASK_WHY)

    @app.view("why")
    async def submitted_reason(ack: Any, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient) -> None:
        reason = view["state"]["values"]["reason"]["text"]["value"]
        if reason == "no":
            await ack(response_action="errors", errors={"reason": "Say more."})
            return
        await ack()
        text = f"Approved by <@{body['user']['id']}>: {reason}"
        await client.chat_update(channel=card["channel"], ts=card["ts"], text=text, blocks=[])

    since = time.monotonic()
    await workspace.command("dev", "/gpu up coder-chat")
    await workspace.click("lead", "approve")
    await wait_until(workspace, "lead", "Reason")
    assert not any("Reason" in text for text in workspace.now_visible("dev"))
    await workspace.submit("lead")
    await wait_until(workspace, "lead", "Please complete this required field.")
    await workspace.fill("lead", "reason", "no")
    await workspace.submit("lead")
    await wait_until(workspace, "lead", "Say more.")
    await workspace.fill("lead", "Reason", "demo tonight")
    await workspace.submit("lead")
    await wait_until(workspace, "dev", "Approved by @lead: demo tonight")

    texts = workspace.visible("dev", since)
    assert "@dev asks for coder-chat\n[Approve]" in texts
    assert "On it." in texts
    assert not any("On it." in text for text in workspace.visible("lead", since))
    with pytest.raises(NotThere, match="Buttons there: none"):
        await workspace.click("lead", "Approve", timeout=0)


@pytest.mark.parametrize("ack_within", [0.3])
async def test_an_app_that_does_not_acknowledge_is_reported_to_the_user(workspace: Workspace, app: AsyncApp) -> None:
    """After Slack's time limit, Slackbot notifies only the user."""

    @app.command("/gpu")
    async def gpu() -> None:
        await asyncio.sleep(0)

    await workspace.command("dev", "/gpu up x")
    assert any("operation_timeout" in text for text in workspace.now_visible("dev"))
    assert not any("operation_timeout" in text for text in workspace.now_visible("lead"))


async def test_an_unacknowledged_envelope_is_sent_again_on_the_next_connection(workspace: Workspace) -> None:
    """The next connection gets it again, marked as a retry, under the same envelope id."""

    async def connect(session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        headers = {"Authorization": f"Bearer {workspace.app_token}"}
        async with session.post(workspace.api_url + "apps.connections.open", headers=headers) as response:
            socket = await session.ws_connect((await response.json())["url"])
        assert (await socket.receive_json())["type"] == "hello"
        return socket

    async with aiohttp.ClientSession() as session:
        first = await connect(session)
        typing = asyncio.create_task(workspace.command("dev", "/gpu status"))
        lost = await first.receive_json()
        await first.close()
        second = await connect(session)
        again = await second.receive_json()
        assert (again["envelope_id"], again["retry_attempt"]) == (lost["envelope_id"], 1)
        await second.send_json({"envelope_id": again["envelope_id"], "payload": {"text": "*free*"}})
        await typing
        await second.close()
    assert workspace.now_visible("dev") == ["free"]


async def test_a_rate_limit_names_the_time_of_the_next_attempt(
    workspace: Workspace, client: AsyncWebClient, faults: Faults
) -> None:
    """While the fault is on, every method answers 429 with Retry-After, which the SDK's own handler understands."""
    faults.add("slack-429")
    with pytest.raises(SlackApiError, match="ratelimited") as refused:
        await client.chat_postMessage(channel="C0GPUOPS", text="hello")
    assert refused.value.response.headers["Retry-After"] == "1"
    client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=3))
    asyncio.get_running_loop().call_later(0.2, faults.discard, "slack-429")
    await client.chat_postMessage(channel="C0GPUOPS", text="hello")
    assert workspace.now_visible("dev") == ["hello"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"channel": "C0NOWHERE", "text": "x"}, "channel_not_found"),
        ({"channel": "C0GPUOPS"}, "no_text"),
        ({"channel": "C0GPUOPS", "blocks": [{"type": "divider"}] * 51, "text": "x"}, "invalid_blocks"),
        (
            {"channel": "C0GPUOPS", "blocks": [CARD[0] | {"text": {"type": "mrkdwn", "text": "x" * 3001}}]},
            "invalid_blocks",
        ),
        ({"channel": "C0GPUOPS", "text": "x", "thread_ts": "1.000001"}, "thread_not_found"),
    ],
)
@pytest.mark.filterwarnings("ignore:The top-level `text` argument is missing")
async def test_invalid_arguments_get_slacks_error(
    client: AsyncWebClient, arguments: dict[str, Any], error: str
) -> None:
    """Bad arguments get Slack's own error, and no message appears."""
    with pytest.raises(SlackApiError, match=error):
        await client.chat_postMessage(**arguments)


async def test_a_wrong_token_is_refused(workspace: Workspace) -> None:
    """The Web API accepts only the bot's own token."""
    with pytest.raises(SlackApiError, match="invalid_auth"):
        await AsyncWebClient(token="xoxb-other", base_url=workspace.api_url).auth_test()


async def test_history_and_replies_are_separate(client: AsyncWebClient) -> None:
    """A thread's replies are not in the channel's history; metadata is returned only on request."""
    metadata = {"event_type": "operation", "event_payload": {"id": "op-1"}}
    parent = await client.chat_postMessage(channel="#gpu-ops", text="parent", metadata=metadata)
    await client.chat_postMessage(channel="C0GPUOPS", text="reply", thread_ts=parent["ts"])
    history = (await client.conversations_history(channel="C0GPUOPS", include_all_metadata=True))["messages"]
    assert [(m["text"], m["metadata"], m["reply_count"]) for m in history] == [("parent", metadata, 1)]
    replies = (await client.conversations_replies(channel="C0GPUOPS", ts=parent["ts"]))["messages"]
    assert [m["text"] for m in replies] == ["parent", "reply"]
    assert "metadata" not in replies[0]


async def test_a_direct_message_is_seen_by_one_user(workspace: Workspace, client: AsyncWebClient) -> None:
    """A message to a user id is sent as a direct message."""
    posted = await client.chat_postMessage(channel="U0DEV", text="psst")
    assert posted["channel"] == (await client.conversations_open(users="U0DEV"))["channel"]["id"]
    assert (workspace.now_visible("dev"), workspace.now_visible("lead")) == (["psst"], [])


async def test_a_response_url_works_five_times(workspace: Workspace, app: AsyncApp) -> None:
    """The sixth use is refused, as Slack does."""
    answers: list[int] = []

    @app.command("/gpu")
    async def gpu(ack: Any, respond: Any) -> None:
        answers.extend([(await respond(f"answer {number}")).status_code for number in range(6)])
        await ack()

    await workspace.command("dev", "/gpu")
    assert answers == [200] * 5 + [404]


async def test_the_page_streams_only_messages_that_its_user_may_see(
    workspace: Workspace, client: AsyncWebClient
) -> None:
    """The page gets snapshots; requests from another origin are refused."""
    await client.chat_postEphemeral(channel="C0GPUOPS", user="U0DEV", text="only you")
    async with aiohttp.ClientSession(workspace.url) as session:
        for path in ("/", "/page/app.js", "/page/blocks.js", "/page/style.css"):
            async with session.get(path) as response:
                assert response.status == 200
        for user, expected in (("U0DEV", True), ("U0LEAD", False)):
            async with session.get("/stream", params={"user": user}) as response:
                assert ("only you" in (await response.content.readline()).decode()) == expected
        arguments = {"user": "U0DEV", "text": "/gpu"}
        async with session.post("/do/command", json=arguments, headers={"Origin": "http://elsewhere"}) as response:
            assert response.status == 403


async def test_faults_are_switched_from_the_page(workspace: Workspace, faults: Faults) -> None:
    """A known fault can be switched on and off; an unknown one is refused."""
    async with aiohttp.ClientSession(workspace.url) as session:
        await session.post("/faults/no-stock", data="on")
        assert faults == {"no-stock"}
        async with session.get("/cluster.json") as response:
            listed = (await response.json())["faults"]
        assert [fault["name"] for fault in listed if fault["on"]] == ["no-stock"]
        await session.post("/faults/no-stock", data="off")
        async with session.post("/faults/no-such", data="on") as response:
            assert response.status == 404
    assert faults == set()
    with pytest.raises(UnknownFault, match="no-such"):
        faults.add("no-such")


async def test_a_modal_is_filled_and_closed_on_the_page(workspace: Workspace, app: AsyncApp) -> None:
    """An incomplete submission from the page gets Slack's validation error, and the page can close the modal."""

    @app.command("/gpu")
    async def gpu(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=ASK_WHY)

    await workspace.command("dev", "/gpu up x")
    await wait_until(workspace, "dev", "Reason")
    async with aiohttp.ClientSession(workspace.url) as session:
        async with session.get("/stream", params={"user": "U0DEV"}) as response:
            modal = json.loads((await response.content.readline()).removeprefix(b"data: "))["modal"]
        arguments = {"user": "U0DEV", "view_id": modal["id"], "values": modal["values"]}
        async with session.post("/do/submit", json=arguments) as response:
            assert response.status == 202
        await wait_until(workspace, "dev", "Please complete this required field.")
        async with session.post("/do/dismiss", json=arguments) as response:
            assert response.status == 202
    assert workspace.now_visible("dev") == []


async def test_a_message_that_somebody_deleted_cannot_be_updated(workspace: Workspace, client: AsyncWebClient) -> None:
    """The answer is `message_not_found`; the app may post another message."""
    posted = await client.chat_postMessage(channel="C0GPUOPS", text="card", blocks=CARD)
    workspace.delete_card()
    with pytest.raises(SlackApiError, match="message_not_found"):
        await client.chat_update(channel="C0GPUOPS", ts=str(posted["ts"]), text="newer")
    with pytest.raises(NotThere, match="no message of the app"):
        workspace.delete_card()


async def test_an_archived_channel_accepts_no_message_until_it_is_unarchived(
    workspace: Workspace, client: AsyncWebClient
) -> None:
    """Posts get `is_archived` and updates `is_inactive`; the channel's buttons have no effect, but direct messages arrive."""
    posted = await client.chat_postMessage(channel="C0GPUOPS", text="card", blocks=CARD)
    workspace.archive()
    with pytest.raises(SlackApiError, match="is_archived"):
        await client.chat_postMessage(channel="C0GPUOPS", text="hello")
    with pytest.raises(SlackApiError, match="is_archived"):
        await client.chat_postEphemeral(channel="C0GPUOPS", user="U0DEV", text="hello")
    with pytest.raises(SlackApiError, match="is_inactive"):
        await client.chat_update(channel="C0GPUOPS", ts=str(posted["ts"]), text="newer")
    with pytest.raises(NotThere):
        await workspace.click("dev", "Approve", timeout=0)
    await client.chat_postMessage(channel="U0DEV", text="hello")
    assert len((await client.conversations_history(channel="C0GPUOPS"))["messages"]) == 1
    workspace.archive(archived=False)
    await client.chat_update(channel="C0GPUOPS", ts=str(posted["ts"]), text="newer")


@pytest.mark.parametrize("patience", [0.1])
async def test_a_bot_that_was_removed_is_not_in_the_channel(workspace: Workspace, client: AsyncWebClient) -> None:
    """The bot is in the channel again after an invitation."""
    posted = await client.chat_postMessage(channel="C0GPUOPS", text="card", blocks=CARD)
    await workspace.remove_bot()
    with pytest.raises(SlackApiError, match="not_in_channel"):
        await client.chat_postMessage(channel="C0GPUOPS", text="hello")
    with pytest.raises(SlackApiError, match="not_in_channel"):
        await client.conversations_history(channel="C0GPUOPS")
    with pytest.raises(SlackApiError, match="channel_not_found"):
        await client.chat_update(channel="C0GPUOPS", ts=str(posted["ts"]), text="newer")
    await workspace.invite_bot()
    await client.chat_postMessage(channel="C0GPUOPS", text="hello")


def test_a_revision_has_the_previous_text() -> None:
    """A message has its previous text. A Home has none when its user opens it, because all of it is new then."""
    history = History()
    message = history.post(Message(CHANNEL, history.next_ts(), BOT_USER, "Running"))
    history.edit(message, "Succeeded", None, None)
    assert [(revision.before, revision.text) for revision in history.revisions] == [
        ("", "Running"),
        ("Running", "Succeeded"),
    ]

    view = {"type": "home", "blocks": [{"type": "section", "text": {"type": "plain_text", "text": "The GPU is free"}}]}
    history.publish_home("U0DEV", view)
    history.open_home("U0DEV")
    history.publish_home("U0DEV", view)
    history.open_home("U0DEV")
    opened, published, again = history.revisions[2:]
    assert opened.before == again.before == ""
    assert published.before == published.text
