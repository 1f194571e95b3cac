"""The suggestions of a form's model field while typing, with a Hub stand-in on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

from bot.views.modals import TYPED
from sandbox.slack import blocks as kit
from tests.clients.wire import Wire, wire

QWEN = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"


@pytest.fixture
async def hub() -> AsyncIterator[Wire]:
    async with wire() as server:
        yield server


@pytest.fixture
def hf_endpoint(hub: Wire) -> str:
    return hub.url


async def options_for(app: AsyncApp, text: str) -> list[dict[str, Any]]:
    """The options for a typed text; the complete answer stays within Slack's limits."""
    person = {"user": {"id": "U0DEV", "team_id": "T0SANDBOX"}, "team": {"id": "T0SANDBOX"}}
    typed = {"type": "block_suggestion", **person, "action_id": f"{TYPED}:hf_id", "block_id": "hf_id", "value": text}
    answer = await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=typed))
    assert answer.status == 200
    options: list[dict[str, Any]] = kit.options(_parsed(answer.body))
    select = {"type": "static_select", "action_id": "a", "placeholder": {"type": "plain_text", "text": "x"}}
    placeholder = options or [{"text": {"type": "plain_text", "text": "x"}, "value": "x"}]
    assert kit.complaints([{"type": "actions", "elements": [select | {"options": placeholder}]}]) == []
    return options


def _parsed(body: Any) -> dict[str, Any]:
    return dict(json.loads(body) if isinstance(body, str) else body)


async def test_the_hubs_models_are_offered(app: AsyncApp, hub: Wire) -> None:
    """The ids are the labels and the values."""
    hub.on("GET", "/api/models", [{"id": QWEN}, {"id": "gpt2"}])
    assert [(option["text"]["text"], option["value"]) for option in await options_for(app, "qwen")] == [(QWEN, QWEN)]


async def test_the_typed_text_is_offered_first(app: AsyncApp, hub: Wire) -> None:
    """A model that the search does not find, such as a private one, can still be chosen. No model is offered twice."""
    hub.on("GET", "/api/models", [{"id": QWEN}, {"id": "acme/ours-2"}])
    assert [option["value"] for option in await options_for(app, " acme/ours ")] == ["acme/ours", QWEN, "acme/ours-2"]
    assert [option["value"] for option in await options_for(app, QWEN)] == [QWEN, "acme/ours-2"]


async def test_many_search_results_are_cut_to_slacks_limits(app: AsyncApp, hub: Wire) -> None:
    """There are at most a hundred options. A label has at most 75 characters, and an id of more than 150 is not offered."""
    hub.on("GET", "/api/models", [{"id": f"organisation-{n:03}/{'m' * (40 + n % 57)}"} for n in range(300)])
    options = await options_for(app, "m")
    assert len(options) == 100
    assert any(option["text"]["text"].endswith("…") and len(option["value"]) > 75 for option in options)
    hub.on("GET", "/api/models", [{"id": f"{'o' * 90}/{'m' * 90}"}, {"id": QWEN}])
    assert [option["value"] for option in await options_for(app, "m")] == [QWEN]


@pytest.mark.parametrize(("status", "text"), [(429, "{}"), (503, ""), (200, "<html>"), (200, '{"error": 1}')])
async def test_typing_works_without_the_hub(app: AsyncApp, hub: Wire, status: int, text: str) -> None:
    """If the Hub fails, the field accepts the typed text."""
    hub.on("GET", "/api/models", status=status, text=text)
    assert [option["value"] for option in await options_for(app, "acme/ours")] == ["acme/ours"]
    assert await options_for(app, "acm") == []


async def test_a_slow_hub_does_not_delay_the_answer(app: AsyncApp, hub: Wire) -> None:
    """Slack waits three seconds for the options: before that, only the typed text is offered."""
    release = asyncio.Event()

    async def slow(_request: web.Request, _asked: Any) -> web.Response:
        await release.wait()
        return web.json_response([{"id": QWEN}])

    hub.answers["GET", "/api/models"] = slow
    try:
        options = await asyncio.wait_for(options_for(app, "acme/ours"), 60)
    finally:
        release.set()
    assert [option["value"] for option in options] == ["acme/ours"]
