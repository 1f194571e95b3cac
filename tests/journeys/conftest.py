"""A whole platform on loopback and the bot as a process of its own, for the journeys that a story cannot tell."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sandbox.slack.history import CHANNEL
from sandbox.world import Sandbox, opened

PATIENCE = 120.0
"""Seconds that something may take on a slow machine before its absence is a failure."""


class Town:
    """A sandbox, with eyes: what people see, and how often something happened on the platform."""

    def __init__(self, world: Sandbox) -> None:
        self.world = world
        self._since = world.now()

    async def says(self, user: str, text: str) -> None:
        """Somebody types a command; what was seen before no longer counts."""
        self._since = self.world.now()
        await self.world.command(user, text)

    async def clicks(self, user: str, label: str) -> None:
        """Somebody presses the newest button of that label, as soon as it is there."""
        self._since = self.world.now()
        await self.world.workspace.click(user, label, timeout=PATIENCE)

    def seen(self, user: str = "dev") -> str:
        """Everything that this user got to see since somebody last acted."""
        return "\n---\n".join(seen.text for seen in self.world.visible(user, self._since))

    async def sees(self, text: str, user: str = "dev") -> None:
        """Wait until this user has seen the text."""
        deadline = time.monotonic() + PATIENCE
        while text.casefold() not in " ".join(self.seen(user).split()).casefold():
            assert time.monotonic() < deadline, f"“{text}” was not seen within {PATIENCE:g} s:\n{self.seen(user)}"
            await asyncio.sleep(0.05)

    def messages(self, text: str = "") -> list[str]:
        """The messages in the channel that all can read, as they are now, with this text."""
        return [m for m in self.world.workspace.posted(CHANNEL) if text.casefold() in m.casefold()]

    def replies(self) -> list[str]:
        """What stands in the threads of the channel's messages."""
        return self.world.workspace.posted(CHANNEL, threads=True)

    def replicas(self, name: str) -> int:
        return int(self._deployment(name)["spec"]["replicas"])

    def ready(self, name: str) -> bool:
        return bool((self._deployment(name).get("status") or {}).get("readyReplicas"))

    def changes_of(self, name: str) -> int:
        """How often the spec of a model's Deployment changed: by a sync that found a difference, or a scale."""
        return int(self._deployment(name)["metadata"]["generation"]) - 1

    def syncs_of(self, application: str) -> int:
        """How many syncs of an Application have ended."""
        found = self.world.cluster.store.get("Application", application, "argocd")
        assert found
        return len(found["status"].get("history") or [])

    def _deployment(self, name: str) -> dict[str, Any]:
        found = self.world.cluster.store.get("Deployment", name, "serving")
        assert found, f"there is no Deployment {name}"
        return found


async def eventually(true: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.05)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Town]]]:
    """Opens a town: `await town(speed=60, settings={"idle": {"remind_after": "4s"}})`."""
    async with AsyncExitStack() as stack:

        async def open_town(*, speed: float = 60, settings: dict[str, Any] | None = None) -> Town:
            world = await stack.enter_async_context(
                opened(
                    platform=None,
                    speed=speed,
                    port=0,
                    checks_pass_after=None,
                    settings=settings or {},
                    directory=tmp_path,
                )
            )
            return Town(world)

        yield open_town
