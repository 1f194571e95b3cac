"""A change survives the bot's death at every point: killed after each write, it repeats none and loses none."""

from collections import Counter
from pathlib import Path

import pytest

from sandbox.process import Bot
from tests.operations.platform import Platform, platform
from tests.operations.tripwire import Tripwire, tripwire

MINI = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
BIG = "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("command", "outcome", "synced"),
    [
        (f"/model add coder-mini {MINI}", "coder-mini is rolled out", "coder-mini"),
        (f"/model swap coder-chat {BIG}", "coder-chat is rolled out", "coder-chat"),
    ],
)
async def test_a_change_is_made_once_however_often_the_bot_dies(
    tmp_path: Path, redis_url: str, command: str, outcome: str, synced: str
) -> None:
    """One pull request, one merge, one sync, one message, and no phase twice on the card."""
    wire = Tripwire()
    async with platform(
        tmp_path, redis_url, started=False, wired=lambda environment: tripwire(wire, environment)
    ) as it:
        async with Bot(it.environment, port=int(it.environment["STOKER_PORT"]), directory=tmp_path) as bot:
            wire.kill = bot.kill
            await it.workspace.connected(60)
            await it.say("dev", command)
            await it.sees("Pull request #1")
            await it.github.checks("success")
            await it.click("lead", "Approve & roll out")
            await it.sees(outcome)
            wire.kill = None
        assert_once(it, wire, synced)


def assert_once(it: Platform, wire: Tripwire, synced: str) -> None:
    count = Counter(wire.writes)
    assert len(it.pulls) == 1
    assert {"/api/chat.postMessage", "POST /repos/acme/llm-platform/pulls", f"sync {synced}"} <= set(wire.struck)
    assert "PUT /repos/acme/llm-platform/pulls/N/merge" in wire.struck
    assert count["POST /repos/acme/llm-platform/pulls"] == 1
    assert count["PUT /repos/acme/llm-platform/pulls/N/merge"] == 1
    assert count["POST /acme/llm-platform.git/git-receive-pack"] == 1
    assert count[f"sync {synced}"] == 1
    assert len([text for text in it.visible() if "Pull request #1" in text]) == 1
    cards = [text for text in it.visible() if "is rolled out" in text]
    assert len(cards) == 1
    for phase in ("merging", "Argo CD: the gateway", "Argo CD: the endpoint"):
        assert cards[0].count(phase) == 1
