"""Slack's other surfaces, driven by the real Bolt app: threads, direct messages, shortcuts, Home, selects, files, HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.faults import Faults
from sandbox.slack import Workspace
from sandbox.slack.manifest import Shortcut, everything
from sandbox.slack.workspace import NotThere
from tests.sandbox.conftest import connected
from tests.sandbox.test_slack import wait_until

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
STATUS = Shortcut("Show status", "message", "status")


def plain(text: str) -> dict[str, str]:
    return {"type": "plain_text", "text": text}


def modal(title: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "modal", "callback_id": title.lower(), "title": plain(title), "submit": plain("Go"), "blocks": [*blocks],
    }  # fmt: skip


def field(label: str, element: dict[str, Any], **more: Any) -> dict[str, Any]:
    name = label.lower()
    return {"type": "input", "block_id": name, "label": plain(label), "element": {"action_id": name, **element}, **more}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace(Faults(), manifest=everything(shortcuts=(STATUS,))) as workspace:
        yield workspace


@pytest.fixture
async def app(workspace: Workspace, client: AsyncWebClient) -> AsyncIterator[AsyncApp]:
    async with connected(workspace, client, ignoring_self_events_enabled=False) as app:
        yield app


async def test_a_mention_in_a_thread_is_answered_there(workspace: Workspace, app: AsyncApp) -> None:
    """The event contains the thread; a slash command does not work there, and Slack reports it."""

    @app.event("app_mention")
    async def mentioned(event: dict[str, Any], say: Any) -> None:
        await say(text=f"You said: {event['text'].split(' ', 1)[1]}", thread_ts=event["thread_ts"])

    @app.event("message")
    async def ignore_message() -> None:
        pass

    await app.client.chat_postMessage(channel="C0GPUOPS", text="Bring up coder-chat")
    await workspace.say("dev", "@stoker status", on="bring up")
    await wait_until(workspace, "lead", "You said: status")
    history = (await app.client.conversations_history(channel="C0GPUOPS"))["messages"]
    assert [(m["text"], m["reply_count"]) for m in history] == [("Bring up coder-chat", 2)]
    await workspace.say("dev", "/gpu status", on="bring up")
    assert "/gpu is not supported in threads. Sorry!" in workspace.now_visible("dev")
    with pytest.raises(NotThere, match="no message with the text"):
        await workspace.say("dev", "hello", on="nothing like it")


async def test_a_direct_message_reaches_the_app(workspace: Workspace, app: AsyncApp) -> None:
    """The event is message.im, and only this user sees the answer."""

    @app.event("message")
    async def on_message(event: dict[str, Any], say: Any) -> None:
        assert event["channel_type"] == "im"
        await say("The GPU is free.")

    await workspace.say("dev", "status", direct=True)
    await wait_until(workspace, "dev", "The GPU is free.")
    assert workspace.now_visible("lead") == []


async def test_a_message_shortcut_opens_a_modal_about_its_message(workspace: Workspace, app: AsyncApp) -> None:
    """The app gets the message and a trigger that opens a modal."""

    @app.shortcut("status")
    async def status(ack: Any, shortcut: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        text_section = {"type": "section", "text": {"type": "mrkdwn", "text": f"About: {shortcut['message']['text']}"}}
        await client.views_open(trigger_id=shortcut["trigger_id"], view=modal("Status", text_section))

    await app.client.chat_postMessage(channel="C0GPUOPS", text="Bring up coder-chat")
    await workspace.shortcut("lead", "show status", "coder-chat")
    await wait_until(workspace, "lead", "About: Bring up coder-chat")
    with pytest.raises(NotThere, match="Shortcuts there: “Show status”"):
        await workspace.shortcut("lead", "Show price", "coder-chat")


async def test_the_app_learns_that_it_was_invited(workspace: Workspace, app: AsyncApp) -> None:
    """`/invite @stoker` is Slack's own command; the app gets member_joined_channel with the inviting user."""

    @app.event("member_joined_channel")
    async def joined(event: dict[str, Any], say: Any) -> None:
        await say(f"Thanks, <@{event['inviter']}>. Type `/gpu help`.")

    await workspace.command("dev", "/invite @stoker")
    await wait_until(workspace, "lead", "Thanks, @dev. Type /gpu help.")


async def test_the_home_is_published_when_it_is_opened(workspace: Workspace, app: AsyncApp) -> None:
    """While Home is on a user's screen, a click uses Home's buttons first; Home's text counts as seen only then."""

    def home(text: str) -> dict[str, Any]:
        press = {"type": "button", "text": plain("Bring down"), "action_id": "down", "value": "coder-chat"}
        section = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
        return {"type": "home", "blocks": [section, {"type": "actions", "elements": [press]}]}

    @app.event("app_home_opened")
    async def on_home_opened(event: dict[str, Any], client: AsyncWebClient) -> None:
        await client.views_publish(user_id=event["user"], view=home("*coder-chat* is up"))

    @app.action("down")
    async def down(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        assert body["container"]["type"] == "view"
        await client.views_publish(user_id=body["user"]["id"], view=home("The GPU is free"))

    since = time.monotonic()
    await workspace.open_home("dev")
    await until(lambda: "coder-chat is up" in workspace.home("dev"))
    await workspace.click("dev", "Bring down")
    await until(lambda: any("The GPU is free" in visible_text for visible_text in workspace.visible("dev", since)))
    assert workspace.visible("lead", since) == []


async def test_a_modal_is_searched_updated_and_pushed(workspace: Workspace, app: AsyncApp) -> None:
    """An external select queries the app, a dispatching input updates the view, and a button pushes another view."""
    search = {"type": "external_select", "min_query_length": 2}
    form = modal(
        "Swap",
        field("Model", search, dispatch_action=True),
        field("When", {"type": "datetimepicker"}, optional=True),
        field("Checks", {"type": "checkboxes", "options": [{"text": plain("Keep"), "value": "keep"}]}, optional=True),
        {"type": "actions", "elements": [{"type": "button", "text": plain("More"), "action_id": "more"}]},
    )  # fmt: skip
    done: list[dict[str, Any]] = []

    @app.command("/model")
    async def on_command(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=form)

    @app.options("model")
    async def offered(ack: Any, payload: dict[str, Any]) -> None:
        await ack(options=[{"text": plain(f"{payload['value']}-3B"), "value": f"{payload['value']}-3B"}])

    @app.action("model")
    async def chosen(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        model = body["actions"][0]["selected_option"]["value"]
        verdict = {"type": "section", "text": {"type": "mrkdwn", "text": f"{model} fits."}}
        await client.views_update(
            view_id=body["view"]["id"], hash=body["view"]["hash"], view={**form, "blocks": [*form["blocks"], verdict]}
        )

    @app.action("more")
    async def more(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        await client.views_push(
            trigger_id=body["trigger_id"], view=modal("More", field("Note", {"type": "plain_text_input"}))
        )

    @app.view("more")
    async def noted(ack: Any) -> None:
        await ack()

    @app.view("swap")
    async def submitted(ack: Any, view: dict[str, Any]) -> None:
        done.append(view["state"]["values"])
        await ack()

    await workspace.command("dev", "/model swap coder-chat")
    await wait_until(workspace, "dev", "Swap")
    await workspace.fill("dev", "Model", "Qwen/Coder")
    await wait_until(workspace, "dev", "Qwen/Coder-3B fits.")
    await workspace.fill("dev", "When", "2030-01-31 18:00")
    await workspace.fill("dev", "Checks", "Keep")
    await workspace.click("dev", "More")
    await wait_until(workspace, "dev", "Note")
    await workspace.fill("dev", "Note", "for the demo")
    await workspace.submit("dev")
    await workspace.submit("dev")
    (values,) = done
    assert values["model"]["model"]["selected_option"]["value"] == "Qwen/Coder-3B"
    assert values["when"]["when"]["selected_date_time"] == 1896112800
    assert [option["value"] for option in values["checks"]["checks"]["selected_options"]] == ["keep"]
    assert workspace.now_visible("dev") == []


async def test_a_view_is_pushed_on_an_open_one_only(workspace: Workspace, app: AsyncApp) -> None:
    """Without a modal, a push is refused."""
    errors: list[str] = []

    @app.command("/gpu")
    async def on_command(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        try:
            await client.views_push(trigger_id=body["trigger_id"], view=modal("More"))
        except SlackApiError as e:
            errors.append(e.response["error"])

    await workspace.command("dev", "/gpu")
    await until(lambda: bool(errors))
    assert errors == ["not_found"]


async def test_an_overflow_menu_gives_the_chosen_option(workspace: Workspace, app: AsyncApp) -> None:
    """Each of its entries can be selected by its label."""
    chosen: list[str] = []

    @app.action("more")
    async def more(ack: Any, action: dict[str, Any]) -> None:
        chosen.append(action["selected_option"]["value"])
        await ack()

    options = [{"text": plain(label), "value": label.lower()} for label in ("Extend", "Release")]
    menu = {"type": "overflow", "action_id": "more", "options": options}
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "coder-chat"}, "accessory": menu}
    await app.client.chat_postMessage(channel="C0GPUOPS", text="x", blocks=[section])
    await workspace.click("dev", "release")
    assert chosen == ["release"]


async def usable(client: AsyncWebClient, image: dict[str, Any]) -> None:
    """Publish the image on @dev's Home as soon as Slack has scanned its file."""
    deadline = time.monotonic() + 60
    while True:
        try:
            await client.views_publish(user_id="U0DEV", view={"type": "home", "blocks": [image]})
            return
        except SlackApiError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_a_picture_is_uploaded_and_shown_where_it_was_shared(
    workspace: Workspace, client: AsyncWebClient
) -> None:
    """A message shows the file, and a moment later blocks can refer to its id; an unknown id is refused."""
    posted = await client.files_upload_v2(channel="C0GPUOPS", content=PNG, filename="week.png", title="Last week")
    assert any("[file Last week]" in text for text in workspace.now_visible("dev"))
    image = {"type": "image", "alt_text": "the week", "slack_file": {"id": posted["file"]["id"]}}
    with pytest.raises(SlackApiError, match="invalid_arguments"):
        await client.views_publish(user_id="U0DEV", view={"type": "home", "blocks": [image]})
    await usable(client, image)
    picture = f"{workspace.url}/files/{posted['file']['id']}"
    async with aiohttp.ClientSession() as session, session.get(picture) as response:
        assert (response.content_type, await response.read()) == ("image/png", PNG)
    unknown = image | {"slack_file": {"id": "F0NOTHING"}}
    with pytest.raises(SlackApiError, match="invalid_arguments"):
        await client.views_publish(user_id="U0DEV", view={"type": "home", "blocks": [unknown]})


async def test_an_unshared_file_is_visible_only_to_the_app(workspace: Workspace, client: AsyncWebClient) -> None:
    """Its blocks are accepted, because the app may see it; people see a broken picture."""
    private = await client.files_upload_v2(content=PNG, filename="week.png")
    image = {"type": "image", "alt_text": "the week", "slack_file": {"id": private["file"]["id"]}}
    await usable(client, image)
    picture = f"{workspace.url}/files/{private['file']['id']}"
    async with aiohttp.ClientSession() as session, session.get(picture) as response:
        assert response.status == 404


async def test_a_file_is_deleted_once_and_its_message_shows_it(workspace: Workspace, client: AsyncWebClient) -> None:
    """This includes a file in a thread; a message to a missing thread is refused."""
    parent = await client.chat_postMessage(channel="C0GPUOPS", text="pictures")
    with pytest.raises(SlackApiError, match="thread_not_found"):
        await client.files_upload_v2(channel="C0GPUOPS", thread_ts="1.2", content=PNG, filename="week.png")
    posted = await client.files_upload_v2(
        channel="C0GPUOPS", thread_ts=parent["ts"], content=PNG, filename="week.png", title="Last week"
    )
    await client.files_delete(file=posted["file"]["id"])
    assert any("This file was deleted" in text for text in workspace.now_visible("dev"))
    with pytest.raises(SlackApiError, match="file_deleted"):
        await client.files_delete(file=posted["file"]["id"])
    with pytest.raises(SlackApiError, match="file_not_found"):
        await client.files_delete(file="F0NOTHING")


async def test_requests_come_signed_over_http() -> None:
    """A command, a click and an event are signed POST requests to one address; Bolt itself refuses a wrong signature."""
    received: list[str] = []
    app = AsyncApp(
        token="xoxb-sandbox-stoker", signing_secret=Workspace.signing_secret, request_verification_enabled=True
    )

    async def serve(request: web.Request) -> web.Response:
        return await to_aiohttp_response(await app.async_dispatch(await to_bolt_request(request)))

    server = web.Application()
    server.router.add_post("/slack/events", serve)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    async with Workspace(Faults(), request_url=url) as workspace:
        app.client.base_url = workspace.api_url

        @app.command("/gpu")
        async def gpu(ack: Any, command: dict[str, Any]) -> None:
            received.append(command["text"])
            await ack(f"On it: {command['text']}")

        @app.action("approve")
        async def approve(ack: Any, action: dict[str, Any]) -> None:
            received.append(action["value"])
            await ack()

        @app.event("app_mention")
        async def mentioned(event: dict[str, Any]) -> None:
            received.append(event["text"])

        @app.event("message")
        async def ignore_message() -> None:
            pass

        await workspace.connected(20)
        await workspace.command("dev", "/gpu up coder-chat")
        assert workspace.now_visible("dev") == ["On it: up coder-chat"]
        button = {"type": "button", "text": plain("Approve"), "action_id": "approve", "value": "op-1"}
        await AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url).chat_postMessage(
            channel="C0GPUOPS", text="card", blocks=[{"type": "actions", "elements": [button]}]
        )
        await workspace.click("lead", "Approve")
        await workspace.say("dev", "@stoker hello")
        async with aiohttp.ClientSession() as session:
            forged = {"X-Slack-Signature": "v0=0", "X-Slack-Request-Timestamp": str(int(time.time()))}
            async with session.post(url, data="payload={}", headers=forged) as response:
                assert response.status == 401
    await runner.cleanup()
    assert received == ["up coder-chat", "op-1", "<@U0STOKER> hello"]
