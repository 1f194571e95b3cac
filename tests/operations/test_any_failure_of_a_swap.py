"""After any failure during a swap: the model goes to zero within its lease, and only content from the cards is merged, synced or scaled.

The tests are like those of test_any_failure.py, for a model that is up or at zero. Argo CD and the connection to Redis can
fail, too. Redis and the Kubernetes API come back later. Some combinations always run; all run as a soak test.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bot.state.leases import Leases
from sandbox.slack.workspace import NotThere
from tests.operations.failing_systems import Failures, spoil
from tests.operations.platform import Platform
from tests.operations.steps import bring_up, git, read_leases, replicas
from tests.operations.test_any_failure import AWAY, FAILURES, LIMIT, STARTS, running_platform

BIG = "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"
LEFT = 8
"""Remaining seconds of the lease when the failure begins, independent of the machine's speed."""
MOMENTS = ("asked", "shown", "approved", "merged", "synced")
ARGOCD = (
    "argocd-outofsync",
    "argocd-comparison-error",
    "argocd-hook-hangs",
    "argocd-sync-window",
    "sync-fails",
)
REDIS: dict[str, list[tuple[str, ...]]] = {
    "paused": [("CLIENT", "PAUSE", str(int(AWAY * 1000)), "ALL")],
    "refused": [("CONFIG", "SET", "requirepass", "another"), ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")],
    "full": [("CONFIG", "SET", "maxmemory", "1")],
    "read-only": [("REPLICAOF", "127.0.0.1", "1")],
}
"""Failures of a running Redis: it does not answer, refuses the password, has no memory left, or became a replica."""
RESTORED_REDIS: list[tuple[str, ...]] = [
    ("CONFIG", "SET", "requirepass", ""),
    ("CONFIG", "SET", "maxmemory", "0"),
    ("REPLICAOF", "NO", "ONE"),
]
EVERYTHING = (*FAILURES, *product(("argocd",), ARGOCD), *product(("redis",), REDIS))
SOME = (
    ("argocd", "argocd-hook-hangs", "shown", True),
    ("argocd", "sync-fails", "merged", True),
    ("github", "503", "merged", True),
    ("slack", "is_archived", "approved", True),
    ("redis", "read-only", "approved", True),
    ("litellm", "garbage", "synced", False),
)


@pytest.mark.parametrize(("system", "failure", "moment", "running"), SOME)
async def test_a_swap_survives_a_failure(
    tmp_path: Path, redis_url: str, system: str, failure: str, moment: str, running: bool
) -> None:
    """Some combinations of failures are tested."""
    await check_swap(tmp_path, redis_url, system, failure, moment, running=running)


@pytest.mark.soak
@pytest.mark.parametrize("running", [True, False], ids=["up", "at zero"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("system", "failure"), EVERYTHING)
async def test_a_swap_survives_every_failure(
    tmp_path: Path, redis_url: str, system: str, failure: str, moment: str, running: bool
) -> None:
    """All combinations of failures are tested, including the slow ones."""
    await check_swap(tmp_path, redis_url, system, failure, moment, running=running)


async def check_swap(directory: Path, redis_url: str, system: str, failure: str, moment: str, *, running: bool) -> None:
    failures = Failures()
    async with running_platform(directory, redis_url, failures) as platform:
        before = git("rev-parse", "main", cwd=platform.remote)
        if running:
            await bring_up(platform)
        await platform.say("dev", f"/model swap coder-chat {BIG}")
        if moment == "asked":
            await start_failure(platform, failures, system, failure, running=running)
            await wait_at_most(STARTS, lambda: platform.pulls)
        await platform.until(lambda: platform.pulls or moment == "asked")
        shown_head = platform.pull().head_sha if platform.pulls else ""
        if shown_head:
            await platform.github.checks("success")
        if moment != "asked":
            await platform.sees("[Approve & roll out]")
        if moment == "shown":
            await start_failure(platform, failures, system, failure, running=running)
        approved = await approve(platform)
        if moment in ("merged", "synced"):
            await platform.until(lambda: failures.merged)
        if moment == "synced":
            await platform.until(lambda: any(before.encode() not in body for _, body in failures.synced))
        if moment not in ("asked", "shown"):
            await start_failure(platform, failures, system, failure, running=running)
        await restore(platform, failures, system)
        platform.patience = LIMIT + LEFT
        if not running:
            await asyncio.sleep(STARTS)  # everything that may start has started
        await platform.until(
            lambda: replicas(platform, "coder-chat") == 0,
            lambda: f"coder-chat is still up, {failures.refused} requests failed:\n" + "\n".join(platform.visible()),
        )
        check_all_was_shown(platform, failures, before, shown_head, approved=approved)


def check_all_was_shown(
    platform: Platform, failures: Failures, before: str, shown_head: str, *, approved: bool
) -> None:
    """Check that everything that was merged, synced or scaled was shown on the cards."""
    assert [json.loads(body)["sha"] for _, body in failures.merged] == [shown_head] * len(failures.merged)
    assert approved or not failures.merged
    main = git("rev-parse", "main", cwd=platform.remote)
    if main != before:
        assert failures.merged
        assert git("diff", shown_head, main, cwd=platform.remote) == ""
        assert git("rev-parse", f"{main}^", cwd=platform.remote) == before
    for name, body in failures.synced:
        assert name in {"coder-chat", "litellm"}
        assert before.encode() in body or (main != before and main.encode() in body), body
    assert {(name, json.loads(body)["spec"]["replicas"]) for name, body in failures.scaled} <= {
        ("coder-chat", 0),
        ("coder-chat", 1),
    }


async def approve(platform: Platform) -> bool:
    """Approve, and return whether the button existed; a card that Slack did not accept has no button."""
    try:
        await platform.workspace.click("lead", "Approve & roll out", timeout=STARTS / 2)
    except NotThere:
        return False
    return True


async def wait_at_most(seconds: float, condition: Callable[[], object]) -> None:
    """Wait until the condition is true, but not longer than this time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)


async def start_failure(platform: Platform, failures: Failures, system: str, failure: str, *, running: bool) -> None:
    if running:
        await shorten_lease(platform)
    match system:
        case "records":
            await spoil(platform.redis, failure)
        case "argocd":
            platform.faults.add(failure)
        case "redis":
            await run_commands(platform.redis, REDIS[failure])
        case _:
            failures.begin(system, failure)


async def shorten_lease(platform: Platform) -> None:
    """Shorten the lease, in Redis and on the Deployment."""
    (lease,) = await read_leases(platform)
    ends = datetime.now(UTC) + timedelta(seconds=LEFT)
    changed = await Leases(platform.redis).change(lease, lambda current: current.model_copy(update={"ends": ends}))
    assert changed
    await platform.until(lambda: changed.mark in str(platform.object("Deployment", "coder-chat")))


async def restore(platform: Platform, failures: Failures, system: str) -> None:
    """End the failure of a system without which nothing can be scaled or requested: Kubernetes or Redis."""
    if system == "kubernetes":
        await asyncio.sleep(AWAY)
        failures.end()
    elif system == "redis":
        await asyncio.sleep(AWAY)
        await run_commands(platform.redis, RESTORED_REDIS)


async def run_commands(redis: Redis, commands: list[tuple[str, ...]]) -> None:
    for command in commands:
        await redis.execute_command(*command)  # type: ignore[no-untyped-call]
