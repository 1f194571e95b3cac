"""A Bolt app that is connected to the test's workspace."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack import Workspace


@pytest.fixture
async def client(workspace: Workspace) -> AsyncWebClient:
    return AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)


@pytest.fixture
async def app(workspace: Workspace, client: AsyncWebClient) -> AsyncIterator[AsyncApp]:
    async with connected(workspace, client) as app:
        yield app


@asynccontextmanager
async def connected(workspace: Workspace, client: AsyncWebClient, **options: Any) -> AsyncIterator[AsyncApp]:
    app = AsyncApp(client=client, **options)
    handler = AsyncSocketModeHandler(app, workspace.app_token, web_client=client)
    await handler.connect_async()  # type: ignore[no-untyped-call]
    await workspace.connected(30)
    yield app
    await handler.close_async()  # type: ignore[no-untyped-call]
