"""A session survives the bot's death at every point: the result is the same after a kill between or within any steps."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.process import Bot
from tests.operations.kill_on_http_write import KillOnWrite, http_proxy
from tests.operations.kill_on_redis_write import redis_proxy
from tests.operations.platform import Platform, open_platform
from tests.operations.steps import queue_for_gpu, replace_model

Story = Callable[[Platform], Awaitable[None]]


async def up_and_down(platform: Platform) -> None:
    await platform.say("dev", "/gpu up coder-chat because crash test")
    await platform.click("lead", "Approve")
    await platform.sees("all smoke tests passed")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("is down and the GPU is free")


async def a_turn_in_the_queue(platform: Platform) -> None:
    """Extend a lease, queue, approve early, replace the model, and let an admin break the lease."""
    await platform.say("dev", "/gpu up coder-chat because crash test")
    await platform.click("lead", "Approve")
    await platform.sees("all smoke tests passed")
    await platform.say("dev", "/gpu extend 1h")
    await platform.sees("of @dev for coder-chat was extended to")
    await queue_for_gpu(platform, "because demo")
    await platform.click("admin", "Approve")
    await platform.sees("Approved by @admin")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.click("lead", "Take it")
    await platform.sees("coder-fim is up and answers")
    await platform.say("admin", "/gpu release because nobody is there")
    await platform.sees("Breaks the lease on coder-fim")
    await platform.click("lead", "Approve")
    await platform.sees("coder-fim is down and the GPU is free")


async def a_replacement_that_fails(platform: Platform) -> None:
    await platform.say("dev", "/gpu up coder-chat because evaluation run")
    await platform.click("lead", "Approve")
    await platform.sees("all smoke tests passed")
    platform.faults.add("smoke-fails")
    await replace_model(platform)
    await platform.sees("coder-chat is restored")
    await platform.sees("Smoke tests: not all passed")  # in the thread, after the card's last state


async def a_restore_that_fails(platform: Platform) -> None:
    await platform.say("dev", "/gpu up coder-chat because evaluation run")
    await platform.click("lead", "Approve")
    await platform.sees("all smoke tests passed")
    platform.faults.add("crash")
    await replace_model(platform)
    await platform.sees("could not be restored either: Container vllm keeps crashing", "lead")


async def a_benchmark(platform: Platform) -> None:
    await platform.say("dev", "/gpu up coder-chat because crash test")
    await platform.click("lead", "Approve")
    await platform.sees("all smoke tests passed")
    await platform.say("dev", "/model bench coder-chat")
    await platform.sees("coder-chat generates up to")
    await platform.click("dev", "Open a pull request")
    await platform.sees("A pull request adds this result")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("is down and the GPU is free")


UNHURRIED = {
    "idle": {"queue_remind_after": "10m", "queue_down_after": "60m"},
    "bench": {"concurrency": [1, 2]},
    "staging": {"limit": "10m"},
}
"""Long limits, because the number of reminders and the duration of a staging depend on the duration of the kills."""

ANY = {"step ready", "lease", "status running", "/api/chat.postMessage"}


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("story", "killed_at"),
    [
        (up_and_down, {"step starting", "step scaling to zero", "step waiting until the pod is gone"} | ANY),
        (a_benchmark, {"step starting the Job", "step result", "step told", "step pull request of the report"} | ANY),
        (a_turn_in_the_queue, {"queue", "status waiting for the GPU"} | ANY),
        (
            a_replacement_that_fails,
            {
                "step told the holder",
                "step bringing down coder-chat",
                "step receipt of the old",
                "step bringing it down again",
                "step lease given back",
                "step restoring coder-chat",
                "step waiting for coder-chat",
            }
            | ANY,
        ),
        (a_restore_that_fails, {"step waiting for coder-chat", "step taking coder-chat down again"} | ANY),
    ],
)
@pytest.mark.usefixtures("forked")
async def test_a_session_is_the_same_after_any_number_of_kills(
    tmp_path: Path, redis_url: str, story: Story, killed_at: set[str]
) -> None:
    """Messages, scale writes, syncs, leases, fences and the end are the same as without a kill."""
    calm, deadly = KillOnWrite(), KillOnWrite()
    (tmp_path / "calm").mkdir()
    (tmp_path / "deadly").mkdir()
    async with platform_with_bot(tmp_path / "calm", redis_url, calm) as platform:
        await story(platform)
        expected = await outcome(platform, calm)
    async with platform_with_bot(tmp_path / "deadly", redis_url, deadly, kill=True) as platform:
        await story(platform)
        deadly.kill = None
        platform.patience = 60
        await platform.until(
            lambda: messages(platform) == expected["messages"], lambda: difference(platform, expected["messages"])
        )
        assert await outcome(platform, deadly) == expected
    assert killed_at <= set(deadly.killed_at), sorted(deadly.killed_at)


@asynccontextmanager
async def platform_with_bot(
    directory: Path, redis_url: str, kills: KillOnWrite, *, kill: bool = False
) -> AsyncIterator[Platform]:
    """A platform, and the bot as a separate process behind the proxies."""

    @asynccontextmanager
    async def connect(environment: dict[str, str]) -> AsyncIterator[None]:
        async with http_proxy(kills, environment), redis_proxy(kills, environment):
            yield

    async with (
        open_platform(directory, redis_url, settings=UNHURRIED, started=False, connect=connect) as platform,
        Bot(platform.environment, port=int(platform.environment["STOKER_PORT"]), directory=directory) as bot,
    ):
        await platform.workspace.connected(platform.patience)
        kills.kill = bot.kill if kill else None
        platform.patience = 600
        yield platform


def messages(platform: Platform) -> list[str]:
    """The first line of every message, including direct messages, without times."""
    counts = {
        user: Counter(re.sub(r"\d+", "N", text.strip().splitlines()[0]) for text in platform.visible(user))
        for user in ("dev", "lead", "admin")
    }
    return sorted((counts["dev"] | counts["lead"] | counts["admin"]).elements())


def difference(platform: Platform, expected: list[str]) -> str:
    """Return the missing and the surplus messages."""
    actual, allowed = Counter(messages(platform)), Counter(expected)
    return f"missing: {sorted((allowed - actual).elements())}; too many: {sorted((actual - allowed).elements())}"


async def outcome(platform: Platform, kills: KillOnWrite) -> dict[str, Any]:
    """The final state, and the calls that led to it."""
    count = Counter(kills.writes)
    deployments = platform.cluster.store.find("Deployment", "serving")
    return {
        "messages": messages(platform),
        "scaled": {name.split("/")[-2]: n for name, n in count.items() if name.endswith("/scale")},
        "synced": {name: n for name, n in count.items() if name.startswith("sync")},
        "grants": len(kills.fences),
        "leases": sorted(await platform.redis.hkeys("{stoker}:leases")),
        "replicas": {d["metadata"]["name"]: d["spec"]["replicas"] for d in deployments},
        "marked": [
            d["metadata"]["name"] for d in deployments if "stoker.dev/lease" in d["metadata"].get("annotations", {})
        ],
    }
