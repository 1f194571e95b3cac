"""A change survives a kill of the bot at every point: after each write, no write is repeated or lost."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.git import Person
from sandbox.github_pulls import Pull, Refused
from sandbox.process import Bot
from tests.operations.kill_on_http_write import Tripwire, tripwire
from tests.operations.kill_on_redis_write import ledgerwire
from tests.operations.platform import Platform, platform

DEPLOYMENT = "serving/coder-chat/deployment.yaml"
MINI = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
BIG = "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("command", "outcome", "synced"),
    [
        pytest.param(
            f"/model add coder-mini {MINI}", "coder-mini is rolled out", "coder-mini", marks=pytest.mark.soak
        ),  # the writes of a swap
        (f"/model swap coder-chat {BIG}", "coder-chat is rolled out", "coder-chat"),
    ],
)
@pytest.mark.usefixtures("forked")
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
            await it.workspace.connected(it.patience)
            await it.say("dev", command)
            await it.sees("Pull request #1")
            await it.github.checks("success")
            await it.click("lead", "Approve & roll out")
            await it.sees(outcome)
            wire.kill = None
        assert_once(it, wire, synced)


async def refused_by_github(it: Platform) -> None:
    """GitHub accepts the branch and the pull request, and then refuses to return its head."""
    it.github.refuses["GET /commits/"] = Refused(422, "No commit found for SHA")
    await it.say("dev", f"/model swap coder-chat {BIG}")
    await it.sees("No commit found")
    await it.until(lambda: all(pull.state == "closed" for pull in it.pulls))
    await it.until_true(lambda: no_branch(it))
    assert len(it.pulls) == 1


async def merged_with_something_else(it: Platform) -> None:
    """Main changes the same Deployment at the moment of the merge: the approval of the shown plan does not cover it."""
    github, merge = it.github, it.github._merge

    async def racing(pull: Pull, **how: Any) -> str:
        text = (await github.files_at(await github.main_commit(), DEPLOYMENT))[DEPLOYMENT]
        text = text.replace("v0.32.0@sha256:4f0c", "v0.32.1@sha256:5f0c")
        pull.base_sha = await github.repo.commit_file("main", DEPLOYMENT, text, author=Person("o", "o@example.com"))
        return await merge(pull, **how)

    github._merge = racing  # type: ignore[method-assign]
    await it.say("dev", f"/model swap coder-chat {BIG}")
    await it.sees("Pull request #1")
    await github.checks("success")
    await it.click("lead", "Approve & roll out")
    await it.sees("does not deploy what was approved")
    deployed = str(it.object("Deployment", "coder-chat"))
    assert "v0.32.1" not in deployed
    assert BIG not in deployed
    await it.click("lead", "Approve")
    await it.sees("coder-chat is rolled out")
    assert len(it.pulls) == 1


async def no_branch(it: Platform) -> bool:
    return not [branch for branch in await it.github.repo.heads() if branch.startswith("stoker/")]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ledger", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["writes", "every-step"])
@pytest.mark.parametrize("story", [refused_by_github, merged_with_something_else])
@pytest.mark.usefixtures("forked")
async def test_what_goes_wrong_is_put_right_once(
    tmp_path: Path, redis_url: str, story: Callable[[Platform], Awaitable[None]], ledger: bool
) -> None:
    """One pull request, one push, at most one merge, one message, for any number of kills; with `ledger` after each step."""
    wire = Tripwire()

    @asynccontextmanager
    async def wired(environment: dict[str, str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(tripwire(wire, environment))
            if ledger:
                await stack.enter_async_context(ledgerwire(wire, environment))
            yield

    async with platform(tmp_path, redis_url, started=False, wired=wired) as it:
        async with Bot(it.environment, port=int(it.environment["STOKER_PORT"]), directory=tmp_path) as bot:
            wire.kill = bot.kill
            await it.workspace.connected(it.patience)
            await story(it)
            wire.kill = None
        count = Counter(wire.writes)
        assert "POST /repos/acme/llm-platform/pulls" in wire.struck
        assert count["POST /repos/acme/llm-platform/pulls"] == 1
        assert count["PUT /repos/acme/llm-platform/pulls/N/merge"] == (story is merged_with_something_else)
        assert count["sync coder-chat"] == (story is merged_with_something_else)
        told = [text for text in it.visible() if "Pull request #1" in text or "No commit found" in text]
        assert len(told) == 1, told


def assert_once(it: Platform, wire: Tripwire, synced: str) -> None:
    count = Counter(wire.writes)
    assert len(it.pulls) == 1
    assert {"/api/chat.postMessage", "POST /repos/acme/llm-platform/pulls", f"sync {synced}"} <= set(wire.struck)
    assert "PUT /repos/acme/llm-platform/pulls/N/merge" in wire.struck
    assert count["POST /repos/acme/llm-platform/pulls"] == 1
    assert count["PUT /repos/acme/llm-platform/pulls/N/merge"] == 1
    assert count["POST /acme/llm-platform.git/git-receive-pack"] == 1
    assert count[f"sync {synced}"] == 1
    cards = [text for text in it.visible() if "Pull request #1" in text]
    assert len(cards) == 1
    assert "is rolled out" in cards[0]
    for phase in ("merging", "Argo CD: the gateway", "Argo CD: the endpoint"):
        assert cards[0].count(phase) == 1
