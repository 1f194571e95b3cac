"""Slack's payloads reach every listener, and every person gets an answer.

The bot's own app and services, against the stand-in workspace; the rest of the platform does not answer.
"""

import asyncio
import inspect
import json
from contextlib import suppress
from typing import Any

import pytest
from slack_bolt.async_app import AsyncApp
from slack_bolt.kwargs_injection.async_args import AsyncArgs
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse

from bot import views
from bot.views.bench import KEEP_REPORT
from bot.views.endpoint_list import HOME_NEXT, HOME_SEARCH, LIST_NEXT
from bot.views.health import RESTART
from bot.views.home import HOME_ADD, HOME_UP, UP_FORM
from bot.views.modals import ADVANCED, ADVANCED_FORM, CHANGE_FORM, DOWN_FORM, EXTEND_FORM, OBJECT_FORM, SHORTCUT, TYPED
from bot.views.news import OBJECT
from bot.views.next_steps import BRING_UP, EXTEND, RETRY, REVERT
from bot.views.rollout import LET_IN, LET_IN_FORM
from bot.views.setup import SET_UP, SETUP_FORM
from commands.gpu.queue_buttons import CHOICES
from sandbox.slack import Workspace

Payload = dict[str, Any]

WHO: Payload = {"user": {"id": "U0LEAD", "username": "lead", "team_id": "T0SANDBOX"}, "team": {"id": "T0SANDBOX"}}
NO_FORM = {"id": "V1", "type": "modal", "callback_id": CHANGE_FORM, "private_metadata": "{}", "state": {"values": {}}}


def command(name: str, text: str) -> Payload:
    return {
        "command": name, "text": text, "user_id": "U0LEAD", "team_id": "T0SANDBOX", "channel_id": "C0GPUOPS",
        "trigger_id": "1.1.a",
    }  # fmt: skip


def click(action: str, value: str = "nothing") -> Payload:
    pressed: Payload = {"type": "button", "action_id": action, "block_id": "b", "value": value}
    if action == views.BECAUSE:
        pressed = {
            "type": "overflow",
            "action_id": action,
            "block_id": "b",
            "selected_option": {"value": f"deny:{value}"},
        }
    container = {"type": "message", "channel_id": "C0GPUOPS", "message_ts": "1.1000"}
    return {"type": "block_actions", **WHO, "trigger_id": "1.1.a", "container": container, "actions": [pressed]}


def in_form(action: str, view: Payload) -> Payload:
    return click(action) | {"container": {"type": "view", "view_id": "V1"}, "view": view}


def submission(form: str, metadata: str = "", **values: str) -> Payload:
    state = {block: {"value": {"type": "plain_text_input", "value": value}} for block, value in values.items()}
    view: Payload = {"id": "V1", "type": "modal", "callback_id": form, "private_metadata": metadata, "blocks": []}
    view["state"] = {"values": state}
    return {"type": "view_submission", **WHO, "trigger_id": "1.1.a", "view": view}


def event(kind: str, **fields: Any) -> Payload:
    return {
        "type": "event_callback", "team_id": "T0SANDBOX", "event_id": f"Ev-{kind}",
        "event": {"type": kind, "user": "U0LEAD", "channel": "C0GPUOPS", "ts": "1.1000", **fields},
    }  # fmt: skip


CHANGE = '{"verb": "add", "commit": "", "options": []}'
ADVANCED_PAGE = '{"verb": "add", "commit": "", "options": [], "values": {}, "root": "V1"}'
SESSION = '{"op": "nothing", "message": {"channel": "C0GPUOPS", "ts": "1.1000"}}'
PLACE = '{"channel": "C0GPUOPS", "thread": "1.1000"}'

PAYLOADS: dict[str, Payload] = {
    "/gpu": command("/gpu", "status"),
    "/model": command("/model", "list"),
    "/model bench": command("/model", "bench coder-chat"),
    **{
        action: click(action)
        for action in (views.APPROVE, views.ROLL_OUT, views.DENY, views.BECAUSE, views.CANCEL, views.ADOPT, *CHOICES)
    },
    views.END_USE: click(views.END_USE, "coder-chat"),
    **{action: click(action) for action in (views.BRING_DOWN, views.KEEP, views.KEEP_UNTIL, RESTART)},
    HOME_ADD: click(HOME_ADD),
    HOME_UP: click(HOME_UP),
    **{action: click(action) for action in (BRING_UP, EXTEND, RETRY, REVERT, LIST_NEXT, HOME_NEXT, HOME_SEARCH)},
    "the button of virtual keys": click(LET_IN),
    "the button of the set-up": click(SET_UP),
    SETUP_FORM: submission(SETUP_FORM),
    KEEP_REPORT: click(KEEP_REPORT),
    LET_IN_FORM: submission(LET_IN_FORM, "nothing")
    | {"view": submission(LET_IN_FORM, "nothing")["view"] | {"state": {"values": {"keys": {"value": {"selected_options": []}}}}}},
    ADVANCED: in_form(ADVANCED, NO_FORM | {"private_metadata": CHANGE}),
    "a field of a form": in_form(f"{TYPED}:name", NO_FORM | {"private_metadata": CHANGE}),
    "the search": {"type": "block_suggestion", **WHO, "action_id": f"{TYPED}:hf_id", "block_id": "hf_id", "value": "qwen"},
    "the form of because": submission(views.BECAUSE_FORM, "deny:nothing", reason="no"),
    CHANGE_FORM: submission(CHANGE_FORM, CHANGE, name="coder-mini", hf_id="Qwen/X"),
    ADVANCED_FORM: submission(ADVANCED_FORM, ADVANCED_PAGE, storage="huge"),
    UP_FORM: submission(UP_FORM, model="coder-chat", hold="2h"),
    DOWN_FORM: submission(DOWN_FORM, '{"models": ["coder-chat"], "sessions": {"coder-chat": "nothing"}}', reason="no"),
    OBJECT_FORM: submission(OBJECT_FORM, "nothing", reason="no"),
    OBJECT: click(OBJECT),
    EXTEND_FORM: submission(EXTEND_FORM, "coder-chat", hold="1h"),
    "the form of keep until": submission(views.KEEP_UNTIL, SESSION)
    | {"view": submission(views.KEEP_UNTIL, SESSION)["view"] | {"state": {"values": {"until": {"value": {"selected_date_time": 1795748400}}}}}},
    "the form of the shortcut": submission(SHORTCUT, PLACE, said="gpu status"),
    "a mention": event("app_mention", text="<@U0STOKER> status"),
    "a direct message": event("message", channel="D0LEAD", channel_type="im", text="help"),
    "the bot joins": event("member_joined_channel", user="U0STOKER"),
    "Home": event("app_home_opened", tab="home"),
    "the shortcut": {
        "type": "message_action", **WHO, "callback_id": SHORTCUT, "trigger_id": "1.1.a", "channel": {"id": "C0GPUOPS"},
        "message": {"ts": "1.1000"},
    },
}  # fmt: skip
QUIET = {
    HOME_NEXT,
    HOME_SEARCH,
    views.ADOPT,
    "a field of a form",
    "the search",
    ADVANCED_FORM,
    "the form of keep until",
    "Home",
}
"""Listeners whose answer is in the form, in the select or in Home, or is the card of an operation."""


async def listeners_for(app: AsyncApp, payload: Payload) -> list[str]:
    """The names of the listeners for a payload."""
    request = AsyncBoltRequest(mode="socket_mode", body=payload)
    return [
        listener.ack_function.__qualname__
        for listener in app._async_listeners
        if await listener.async_matches(req=request, resp=BoltResponse(status=200))
    ]


async def test_every_listener_has_a_payload_here(app: AsyncApp) -> None:
    """A new listener needs a payload in the table above; a listener that no payload reaches is dead code."""
    all_listeners = {listener.ack_function.__qualname__ for listener in app._async_listeners}
    names = [name for payload in PAYLOADS.values() for name in await listeners_for(app, payload)]
    assert all_listeners == set(names)
    assert len(names) == len(PAYLOADS)


async def test_every_argument_is_one_that_bolt_passes(app: AsyncApp) -> None:
    """Bolt silently passes None for an unknown name."""
    argument_names = set(inspect.get_annotations(AsyncArgs)) | {"args", "next", "next_"}
    for listener in app._async_listeners:
        assert set(inspect.signature(listener.ack_function).parameters) <= argument_names, (
            listener.ack_function.__qualname__
        )


@pytest.mark.parametrize("name", PAYLOADS)
async def test_every_payload_is_acknowledged_and_answered(
    app: AsyncApp, workspace: Workspace, thread: str, name: str
) -> None:
    """While the platform is down, requests are refused with clear messages: everybody gets an answer."""
    before = workspace.now_visible("lead")
    payload = json.loads(json.dumps(PAYLOADS[name]).replace("1.1000", thread))
    answer = await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=payload))
    assert answer.status == 200
    texts: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(60):  # updates of messages are written in the background
            while not (texts or workspace.home("lead") or answer.body or name in QUIET):
                await asyncio.sleep(0.02)
                texts = [text for text in workspace.now_visible("lead") if text not in before]
    texts = [text for text in workspace.now_visible("lead") if text not in before]
    assert not [text for text in texts if "unexpected" in text]
    assert texts or workspace.home("lead") or answer.body or name in QUIET
