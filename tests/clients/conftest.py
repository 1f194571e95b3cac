"""A Kubernetes API on loopback, and the bot's client of it."""

from collections.abc import AsyncIterator

import pytest

from bot.clients.cluster import Cluster
from tests.clients.kube import Wire, connected


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as api:
        yield api


@pytest.fixture
async def cluster(wire: Wire) -> AsyncIterator[Cluster]:
    async with connected(wire) as client:
        yield Cluster(client, "serving")
