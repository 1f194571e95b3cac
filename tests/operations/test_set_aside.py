"""A request that ends the process each time is set aside, and blocks no other request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sandbox.process import Bot
from tests.clients.wire import Wire, wire
from tests.operations.platform import open_platform
from tests.operations.steps import read_leases, replicas

pytestmark = pytest.mark.usefixtures("forked")

POISON = "acme/poison"


async def test_a_request_that_ends_the_process_twice_is_set_aside(tmp_path: Path, redis_url: str) -> None:
    """The bot dies while it reads a model's file; the requester is notified, and another request gets its answer."""
    async with wire() as hub:
        running: list[Bot] = []
        deaths = 0

        async def deadly(_: web.Request, __: Any) -> web.StreamResponse:
            nonlocal deaths
            deaths += 1
            # In a separate task, because the current one may end with the connection of the killed bot.
            await asyncio.shield(asyncio.ensure_future(running[0].kill()))
            return web.Response()

        model_info = {"sha": "a" * 40, "siblings": [{"rfilename": "model.safetensors", "size": 5_000_000}]}
        hub.on("GET", f"/api/models/{POISON}", model_info)
        hub.answers["GET", f"/{POISON}/resolve/{'a' * 40}/config.json"] = deadly
        async with (
            open_platform(tmp_path, redis_url, started=False, connect=lambda env: use_hub(env, hub)) as platform,
            Bot(platform.environment, port=int(platform.environment["STOKER_PORT"]), directory=tmp_path) as bot,
        ):
            running.append(bot)
            await platform.workspace.connected(platform.patience)
            await platform.say("dev", f"/model add poison {POISON}")
            await platform.sees("the request is set aside", "dev")
            assert deaths == 2
            await platform.say("lead", "/gpu up coder-chat for 1h because demo")
            await platform.sees("Bring up coder-chat", "lead")
            assert deaths == 2


async def test_a_running_operation_that_ends_the_process_twice_is_undone(tmp_path: Path, redis_url: str) -> None:
    """The bot dies at the smoke test's key, after ten successful steps: the model goes down, and its requester is
    notified.
    """
    async with wire() as gateway:
        running: list[Bot] = []
        deaths = 0

        async def deadly(_: web.Request, __: Any) -> web.StreamResponse:
            nonlocal deaths
            deaths += 1
            await asyncio.shield(asyncio.ensure_future(running[0].kill()))
            return web.Response()

        gateway.answers["POST", "/key/generate"] = deadly
        async with (
            open_platform(
                tmp_path, redis_url, started=False, connect=lambda env: use_gateway(env, gateway)
            ) as platform,
            Bot(platform.environment, port=int(platform.environment["STOKER_PORT"]), directory=tmp_path) as bot,
        ):
            running.append(bot)
            await platform.workspace.connected(platform.patience)
            await platform.say("dev", "/gpu up coder-chat for 1h because demo")
            await platform.click("lead", "Approve")
            await platform.sees("the request is set aside", "dev")
            await platform.until(lambda: replicas(platform, "coder-chat") == 0)
            await platform.sees("is down again", "dev")
            assert deaths == 2
            assert not await read_leases(platform)


@asynccontextmanager
async def use_gateway(environment: dict[str, str], gateway: Wire) -> AsyncIterator[None]:
    environment["LITELLM_URL"] = gateway.url
    yield


@asynccontextmanager
async def use_hub(environment: dict[str, str], hub: Wire) -> AsyncIterator[None]:
    environment["HF_ENDPOINT"] = hub.url
    yield
