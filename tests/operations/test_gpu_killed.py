"""A session survives the bot's death at every point: killed after each step and in the middle of each, the result is the same."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.process import Bot
from tests.operations.kill_on_http_write import Tripwire, tripwire
from tests.operations.kill_on_redis_write import ledgerwire
from tests.operations.platform import Platform, platform
from tests.operations.steps import queues, replaces

Story = Callable[[Platform], Awaitable[None]]


async def up_and_down(it: Platform) -> None:
    await it.say("dev", "/gpu up coder-chat because crash test")
    await it.click("lead", "Approve")
    await it.sees("all smoke tests passed")
    await it.say("dev", "/gpu down coder-chat")
    await it.sees("is down and the GPU is free")


async def a_turn_in_the_queue(it: Platform) -> None:
    """Extend, wait, approve early, replace, and break by an admin."""
    await it.say("dev", "/gpu up coder-chat because crash test")
    await it.click("lead", "Approve")
    await it.sees("all smoke tests passed")
    await it.say("dev", "/gpu extend 1h")
    await it.sees("of @dev for coder-chat was extended to")
    await queues(it, "because demo")
    await it.click("admin", "Approve")
    await it.sees("Approved by @admin")
    await it.say("dev", "/gpu down coder-chat")
    await it.click("lead", "Take it")
    await it.sees("coder-fim is up and answers")
    await it.say("admin", "/gpu release because nobody is there")
    await it.sees("Breaks the lease on coder-fim")
    await it.click("lead", "Approve")
    await it.sees("coder-fim is down and the GPU is free")


async def a_replacement_that_fails(it: Platform) -> None:
    await it.say("dev", "/gpu up coder-chat because evaluation run")
    await it.click("lead", "Approve")
    await it.sees("all smoke tests passed")
    it.faults.add("smoke-fails")
    await replaces(it)
    await it.sees("coder-chat is restored")
    await it.sees("Smoke tests: not all passed")  # in the thread, after the card's last state


async def a_restore_that_fails(it: Platform) -> None:
    await it.say("dev", "/gpu up coder-chat because evaluation run")
    await it.click("lead", "Approve")
    await it.sees("all smoke tests passed")
    it.faults.add("crash")
    await replaces(it)
    await it.sees("could not be restored either: Container vllm keeps crashing", "lead")


async def a_benchmark(it: Platform) -> None:
    await it.say("dev", "/gpu up coder-chat because crash test")
    await it.click("lead", "Approve")
    await it.sees("all smoke tests passed")
    await it.say("dev", "/model bench coder-chat")
    await it.sees("coder-chat generates up to")
    await it.click("dev", "Open a pull request")
    await it.sees("A pull request keeps it")
    await it.say("dev", "/gpu down coder-chat")
    await it.sees("is down and the GPU is free")


UNHURRIED = {
    "idle": {"queue_remind_after": "10m", "queue_down_after": "60m"},
    "bench": {"concurrency": [1, 2]},
    "staging": {"limit": "10m"},
}
"""The number of reminders depends on the duration of the kills, and so does the duration of a staging."""

ANY = {"step ready", "lease", "status running", "/api/chat.postMessage"}


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("story", "struck"),
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
async def test_a_session_is_the_same_however_often_the_bot_dies(
    tmp_path: Path, redis_url: str, story: Story, struck: set[str]
) -> None:
    """The same messages, scale writes, syncs, leases and fences, and the same end, as without a kill."""
    calm, deadly = Tripwire(), Tripwire()
    (tmp_path / "calm").mkdir()
    (tmp_path / "deadly").mkdir()
    async with living(tmp_path / "calm", redis_url, calm) as it:
        await story(it)
        expected = await outcome(it, calm)
    async with living(tmp_path / "deadly", redis_url, deadly, kill=True) as it:
        await story(it)
        deadly.kill = None
        it.patience = 60
        await it.until(lambda: messages(it) == expected["messages"], lambda: difference(it, expected["messages"]))
        assert await outcome(it, deadly) == expected
    assert struck <= set(deadly.struck), sorted(deadly.struck)


@asynccontextmanager
async def living(directory: Path, redis_url: str, wire: Tripwire, *, kill: bool = False) -> AsyncIterator[Platform]:
    """A platform, and the bot as a separate process behind the proxies."""

    @asynccontextmanager
    async def wired(environment: dict[str, str]) -> AsyncIterator[None]:
        async with tripwire(wire, environment), ledgerwire(wire, environment):
            yield

    async with (
        platform(directory, redis_url, settings=UNHURRIED, started=False, wired=wired) as it,
        Bot(it.environment, port=int(it.environment["STOKER_PORT"]), directory=directory) as bot,
    ):
        await it.workspace.connected(it.patience)
        wire.kill = bot.kill if kill else None
        it.patience = 600
        yield it


def messages(it: Platform) -> list[str]:
    """The first line of every message, including direct messages, without times."""
    seen = {
        user: Counter(re.sub(r"\d+", "N", text.strip().splitlines()[0]) for text in it.visible(user))
        for user in ("dev", "lead", "admin")
    }
    return sorted((seen["dev"] | seen["lead"] | seen["admin"]).elements())


def difference(it: Platform, expected: list[str]) -> str:
    """Return which messages are missing, and which are too many."""
    seen, wanted = Counter(messages(it)), Counter(expected)
    return f"missing: {sorted((wanted - seen).elements())}; too many: {sorted((seen - wanted).elements())}"


async def outcome(it: Platform, wire: Tripwire) -> dict[str, Any]:
    """The final state, and the calls that led to it."""
    count = Counter(wire.writes)
    deployments = it.cluster.store.find("Deployment", "serving")
    return {
        "messages": messages(it),
        "scaled": {name.split("/")[-2]: n for name, n in count.items() if name.endswith("/scale")},
        "synced": {name: n for name, n in count.items() if name.startswith("sync")},
        "grants": len(wire.fences),
        "leases": sorted(await it.redis.hkeys("{stoker}:leases")),
        "replicas": {d["metadata"]["name"]: d["spec"]["replicas"] for d in deployments},
        "marked": [
            d["metadata"]["name"] for d in deployments if "stoker.dev/lease" in d["metadata"].get("annotations", {})
        ],
    }
