"""A whole platform on loopback and the bot in a separate process, for journeys that a story cannot express."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sandbox.main import IDLE_SETTINGS, STORY_LIMITS
from sandbox.slack.history import CHANNEL
from sandbox.slack.workspace import NotThere
from sandbox.world import Sandbox, merged, opened

PATIENCE = 120.0
"""Seconds to wait for something on a slow machine before it counts as missing."""


class ObservedSandbox:
    """A sandbox with observations: the messages that people see, and the number of changes on the platform."""

    def __init__(self, world: Sandbox) -> None:
        self.world = world
        self._since = world.now()

    async def says(self, user: str, text: str) -> None:
        """Type a command as the user; earlier texts no longer count."""
        self._since = self.world.now()
        await self.world.command(user, text)

    async def clicks(self, user: str, label: str) -> None:
        """Press the newest button with that label, as soon as it appears; earlier texts no longer count."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._since = self.world.now()
            try:
                return await self.world.workspace.click(user, label, timeout=0)
            except NotThere:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    def acts(self) -> None:
        """Note that something happened on the platform; earlier texts no longer count."""
        self._since = self.world.now()

    def seen(self, user: str = "dev") -> str:
        """Every text that became visible to this user since the last action, for the message of a failure."""
        return "\n---\n".join(revision.text for revision in self.world.visible(user, self._since))

    def has_seen(self, text: str, user: str = "dev") -> bool:
        """Return whether the text appeared since the last action; an edit in another part of an old message does not count."""
        return any(revision.shows(text) for revision in self.world.visible(user, self._since))

    async def sees(self, text: str, user: str = "dev") -> None:
        """Wait until this user has seen the text."""
        deadline = time.monotonic() + PATIENCE
        while not self.has_seen(text, user):
            assert time.monotonic() < deadline, f"“{text}” was not seen within {PATIENCE:g} s:\n{self.seen(user)}"
            await asyncio.sleep(0.05)

    async def reaches(self, phase: str) -> None:
        """Wait until the card shows that a phase has begun or has ended; it lists the pending phases from the start."""
        deadline = time.monotonic() + PATIENCE
        while not any(self.has_seen(f"{sign} {phase}") for sign in ("🔸", "✔️", "→")):  # at the end all are in one line
            assert time.monotonic() < deadline, f"“{phase}” did not begin within {PATIENCE:g} s:\n{self.seen()}"
            await asyncio.sleep(0.05)

    def messages(self, text: str = "") -> list[str]:
        """The current messages in the channel that contain this text and everybody can read."""
        return [m for m in self.world.workspace.posted(CHANNEL) if text.casefold() in m.casefold()]

    def replies(self) -> list[str]:
        """The texts in the threads of the channel's messages."""
        return self.world.workspace.posted(CHANNEL, threads=True)

    def replicas(self, name: str) -> int:
        return int(self._deployment(name)["spec"]["replicas"])

    def ready(self, name: str) -> bool:
        return bool((self._deployment(name).get("status") or {}).get("readyReplicas"))

    def changes_of(self, name: str) -> int:
        """Return how often the spec of a model's Deployment changed: by a sync with a difference, or a scale."""
        return int(self._deployment(name)["metadata"]["generation"]) - 1

    def syncs_of(self, application: str) -> int:
        """Return how many syncs of an Application have ended."""
        live = self.world.cluster.store.get("Application", application, "argocd")
        assert live
        return len(live["status"].get("history") or [])

    def _deployment(self, name: str) -> dict[str, Any]:
        deployment = self.world.cluster.store.get("Deployment", name, "serving")
        assert deployment, f"there is no Deployment {name}"
        return deployment


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.fixture(name="open_sandbox")
async def open_sandbox_fixture(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[ObservedSandbox]]]:
    """Opens a sandbox: `await open_sandbox(speed=60, settings={"idle": {"remind_after": "4s"}})`."""
    async with AsyncExitStack() as stack:

        async def open_sandbox(
            *, speed: float = 60, settings: dict[str, Any] | None = None, one_clock: bool = False
        ) -> ObservedSandbox:
            base_settings = IDLE_SETTINGS if one_clock else merged(IDLE_SETTINGS, STORY_LIMITS)
            world = await stack.enter_async_context(
                opened(
                    platform=None,
                    speed=speed,
                    one_clock=one_clock,
                    port=0,
                    checks_pass_after=None,
                    settings=merged(base_settings, settings or {}),
                    directory=tmp_path,
                )
            )
            return ObservedSandbox(world)

        yield open_sandbox
