"""The bot is killed at any moment and everything still happens exactly once."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from tests.journeys.conftest import ObservedSandbox, eventually

OpenSandbox = Callable[..., Awaitable[ObservedSandbox]]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "moments",
    [
        (),
        ("syncing",),
        ("starting", "pulling the image"),
        ("waiting for a node", "staging weights"),
        ("loading", "smoke tests"),
    ],
    ids=lambda moments: " and ".join(moments) or "never",
)
async def test_an_interrupted_bring_up_ends_like_an_uninterrupted_one(
    open_sandbox: OpenSandbox, moments: tuple[str, ...]
) -> None:
    """There is one message, one scale, one lease and one result, regardless of how often the bot is killed."""
    sandbox = await open_sandbox(speed=60)
    changes, syncs = sandbox.changes_of("coder-chat"), sandbox.syncs_of("coder-chat")
    await sandbox.says("dev", "/gpu up coder-chat because crash test")
    await sandbox.clicks("lead", "Approve")
    for moment in moments:
        await sandbox.reaches(moment)
        await sandbox.world.kill_bot()
    await sandbox.sees("all smoke tests passed")
    await sandbox.sees("/health · ✅ passed · 200")
    assert len(sandbox.messages("Bring up coder-chat")) == 1
    assert len(sandbox.messages()) == 1 + len(sandbox.messages("has been idle"))
    phases_line = next(line for line in sandbox.messages()[0].splitlines() if "→" in line)
    assert [re.sub(r"^✔️ .*: | [\d.]+ m?s.*$", "", phase) for phase in phases_line.split(" → ")] == [
        "syncing",
        "starting",
        "waiting for a node",
        "pulling the image",
        "staging weights",
        "loading",
        "smoke tests",
    ]
    assert sum("/health · ✅ passed · 200" in reply for reply in sandbox.replies()) == 1
    assert sandbox.replicas("coder-chat") == 1
    assert sandbox.changes_of("coder-chat") == changes + 1
    assert sandbox.syncs_of("coder-chat") == syncs
    await sandbox.says("dev", "/gpu status")
    await sandbox.sees("held by @dev")
    assert sandbox.seen().count("held by") == 1


@pytest.mark.timeout(600)
async def test_a_restarted_bot_resumes_without_any_action(open_sandbox: OpenSandbox) -> None:
    """The card is updated again without any action, while the cluster is in the middle of a long phase.

    The bot is killed, or gets the signal to stop. Kubernetes gives a pod half a minute for that, and the next bot cannot take over
    work that this bot has not released.
    """
    sandbox = await open_sandbox(speed=1, settings={"gpu": {"boot_limit": "20m"}})
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.clicks("lead", "Approve")
    await sandbox.reaches("waiting for a node")
    await sandbox.world.kill_bot()
    before = len(sandbox.world.workspace.transcript)
    await eventually(lambda: len(sandbox.world.workspace.transcript) > before)
    async with asyncio.timeout(120):
        assert await sandbox.world.bot.stop() == 0  # the bot exits although the boot takes minutes
    await sandbox.world.bot.start()
    before = len(sandbox.world.workspace.transcript)
    await eventually(lambda: len(sandbox.world.workspace.transcript) > before)
    card = sandbox.messages("Bring up coder-chat")[0]
    assert len(re.findall(r"^\S+ waiting for a node", card, re.MULTILINE)) == 1
