"""A change survives a kill of the bot after each of its writes: no write is repeated or lost."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.git import Person
from sandbox.github_pulls import Pull, Refused
from sandbox.process import Bot
from tests.operations.kill_on_http_write import KillOnWrite, http_proxy
from tests.operations.kill_on_redis_write import redis_proxy
from tests.operations.platform import Platform, open_platform

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
async def test_a_change_is_made_once_after_any_number_of_kills(
    tmp_path: Path, redis_url: str, command: str, outcome: str, synced: str
) -> None:
    """There is one pull request, one merge, one sync and one message, and the card shows no phase twice."""
    kills = KillOnWrite()
    async with open_platform(
        tmp_path, redis_url, started=False, connect=lambda environment: http_proxy(kills, environment)
    ) as platform:
        async with Bot(platform.environment, port=int(platform.environment["STOKER_PORT"]), directory=tmp_path) as bot:
            kills.kill = bot.kill
            await platform.workspace.connected(platform.patience)
            await platform.say("dev", command)
            await platform.sees("Pull request #1")
            await platform.github.checks("success")
            await platform.click("lead", "Approve & roll out")
            await platform.sees(outcome)
            kills.kill = None
        assert_once(platform, kills, synced)


async def refused_by_github(platform: Platform) -> None:
    """GitHub accepts the branch and the pull request, and then refuses to return its head."""
    platform.github.refuses["GET /commits/"] = Refused(422, "No commit found for SHA")
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees("No commit found")
    await platform.until(lambda: all(pull.state == "closed" for pull in platform.pulls))
    await platform.until_true(lambda: no_branch(platform))
    assert len(platform.pulls) == 1


async def merged_with_something_else(platform: Platform) -> None:
    """Main changes the same Deployment at the moment of the merge: the approval of the shown plan does not cover it."""
    github, merge = platform.github, platform.github._merge

    async def merge_after_a_commit(pull: Pull, **options: Any) -> str:
        text = (await github.files_at(await github.main_commit(), DEPLOYMENT))[DEPLOYMENT]
        text = text.replace("v0.32.0@sha256:4f0c", "v0.32.1@sha256:5f0c")
        pull.base_sha = await github.repo.commit_file("main", DEPLOYMENT, text, author=Person("o", "o@example.com"))
        return await merge(pull, **options)

    github._merge = merge_after_a_commit  # type: ignore[method-assign]
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees("Pull request #1")
    await github.checks("success")
    await platform.click("lead", "Approve & roll out")
    await platform.sees("does not deploy what was approved")
    deployed = str(platform.object("Deployment", "coder-chat"))
    assert "v0.32.1" not in deployed
    assert BIG not in deployed
    await platform.click("lead", "Approve")
    await platform.sees("coder-chat is rolled out")
    assert len(platform.pulls) == 1


async def no_branch(platform: Platform) -> bool:
    return not [branch for branch in await platform.github.repo.heads() if branch.startswith("stoker/")]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ledger", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["writes", "every-step"])
@pytest.mark.parametrize("story", [refused_by_github, merged_with_something_else])
@pytest.mark.usefixtures("forked")
async def test_a_problem_is_resolved_once_after_any_number_of_kills(
    tmp_path: Path, redis_url: str, story: Callable[[Platform], Awaitable[None]], ledger: bool
) -> None:
    """There is one pull request, one push, at most one merge and one message. With `ledger` the bot is killed after each step."""
    kills = KillOnWrite()

    @asynccontextmanager
    async def connect(environment: dict[str, str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(http_proxy(kills, environment))
            if ledger:
                await stack.enter_async_context(redis_proxy(kills, environment))
            yield

    async with open_platform(tmp_path, redis_url, started=False, connect=connect) as platform:
        async with Bot(platform.environment, port=int(platform.environment["STOKER_PORT"]), directory=tmp_path) as bot:
            kills.kill = bot.kill
            await platform.workspace.connected(platform.patience)
            await story(platform)
            kills.kill = None
        count = Counter(kills.writes)
        assert "POST /repos/acme/llm-platform/pulls" in kills.killed_at
        assert count["POST /repos/acme/llm-platform/pulls"] == 1
        assert count["PUT /repos/acme/llm-platform/pulls/N/merge"] == (story is merged_with_something_else)
        assert count["sync coder-chat"] == (story is merged_with_something_else)
        messages = [text for text in platform.visible() if "Pull request #1" in text or "No commit found" in text]
        assert len(messages) == 1, messages


def assert_once(platform: Platform, kills: KillOnWrite, synced: str) -> None:
    count = Counter(kills.writes)
    assert len(platform.pulls) == 1
    assert {"/api/chat.postMessage", "POST /repos/acme/llm-platform/pulls", f"sync {synced}"} <= set(kills.killed_at)
    assert "PUT /repos/acme/llm-platform/pulls/N/merge" in kills.killed_at
    assert count["POST /repos/acme/llm-platform/pulls"] == 1
    assert count["PUT /repos/acme/llm-platform/pulls/N/merge"] == 1
    assert count["POST /acme/llm-platform.git/git-receive-pack"] == 1
    assert count[f"sync {synced}"] == 1
    cards = [text for text in platform.visible() if "Pull request #1" in text]
    assert len(cards) == 1
    assert "is rolled out" in cards[0]
    for phase in ("merging", "Argo CD: the gateway", "Argo CD: the endpoint"):
        assert cards[0].count(phase) == 1
