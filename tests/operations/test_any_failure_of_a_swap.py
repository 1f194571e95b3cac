"""After any failure during a swap: the model goes to zero within its lease, and only shown content is merged, synced or scaled.

Like test_any_failure.py, for a model that is up and for one at zero, with Argo CD and the connection to Redis among
the failing systems. Redis and the Kubernetes API come back later. Some of the combinations always run, all as a soak test.
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
from tests.operations.failing_systems import Weather, spoil
from tests.operations.platform import Platform
from tests.operations.steps import git, held, replicas, up
from tests.operations.test_any_failure import AWAY, FAILURES, LIMIT, STARTS, living

BIG = "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"
LEFT = 12
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
CALM_REDIS: list[tuple[str, ...]] = [
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


@pytest.mark.parametrize(("system", "how", "moment", "running"), SOME)
async def test_a_swap_ends_well(
    tmp_path: Path, redis_url: str, system: str, how: str, moment: str, running: bool
) -> None:
    """Some of what can happen."""
    await ends_well(tmp_path, redis_url, system, how, moment, running=running)


@pytest.mark.soak
@pytest.mark.parametrize("running", [True, False], ids=["up", "at zero"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("system", "how"), EVERYTHING)
async def test_a_swap_ends_well_whatever_happens(
    tmp_path: Path, redis_url: str, system: str, how: str, moment: str, running: bool
) -> None:
    """All of it."""
    await ends_well(tmp_path, redis_url, system, how, moment, running=running)


async def ends_well(directory: Path, redis_url: str, system: str, how: str, moment: str, *, running: bool) -> None:
    wire = Weather()
    async with living(directory, redis_url, wire) as it:
        before = git("rev-parse", "main", cwd=it.remote)
        if running:
            await up(it)
        await it.say("dev", f"/model swap coder-chat {BIG}")
        if moment == "asked":
            await fails(it, wire, system, how, running=running)
            await within(STARTS, lambda: it.pulls)
        await it.until(lambda: it.pulls or moment == "asked")
        shown = it.pull().head_sha if it.pulls else ""
        if shown:
            await it.github.checks("success")
        if moment != "asked":
            await it.sees("[Approve & roll out]")
        if moment == "shown":
            await fails(it, wire, system, how, running=running)
        approved = await approve(it)
        if moment in ("merged", "synced"):
            await it.until(lambda: wire.merged)
        if moment == "synced":
            await it.until(lambda: any(before.encode() not in body for _, body in wire.synced))
        if moment not in ("asked", "shown"):
            await fails(it, wire, system, how, running=running)
        await comes_back(it, wire, system)
        it.patience = LIMIT + LEFT
        if not running:
            await asyncio.sleep(STARTS)  # everything that may start has started
        await it.until(
            lambda: replicas(it, "coder-chat") == 0,
            lambda: f"coder-chat is still up, {wire.refused} requests met the failure:\n" + "\n".join(it.visible()),
        )
        assert_shown(it, wire, before, shown, approved=approved)


def assert_shown(it: Platform, wire: Weather, before: str, shown: str, *, approved: bool) -> None:
    """Everything that was merged, synced and scaled was shown on the cards."""
    assert [json.loads(body)["sha"] for _, body in wire.merged] == [shown] * len(wire.merged)
    assert approved or not wire.merged
    main = git("rev-parse", "main", cwd=it.remote)
    if main != before:
        assert wire.merged
        assert git("diff", shown, main, cwd=it.remote) == ""
        assert git("rev-parse", f"{main}^", cwd=it.remote) == before
    for name, body in wire.synced:
        assert name in {"coder-chat", "litellm"}
        assert before.encode() in body or (main != before and main.encode() in body), body
    assert {(name, json.loads(body)["spec"]["replicas"]) for name, body in wire.scaled} <= {
        ("coder-chat", 0),
        ("coder-chat", 1),
    }


async def approve(it: Platform) -> bool:
    """Return whether the button existed; a card that Slack did not accept has none."""
    try:
        await it.workspace.click("lead", "Approve & roll out", timeout=STARTS / 2)
    except NotThere:
        return False
    return True


async def within(seconds: float, holds: Callable[[], object]) -> None:
    """Wait until the condition is true, at most for this time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)


async def fails(it: Platform, wire: Weather, system: str, how: str, *, running: bool) -> None:
    if running:
        await ends_soon(it)
    match system:
        case "records":
            await spoil(it.redis, how)
        case "argocd":
            it.faults.add(how)
        case "redis":
            await tell(it.redis, REDIS[how])
        case _:
            wire.strike(system, how)


async def ends_soon(it: Platform) -> None:
    """Shorten the lease, in Redis and on the Deployment."""
    (lease,) = await held(it)
    ends = datetime.now(UTC) + timedelta(seconds=LEFT)
    changed = await Leases(it.redis).change(lease, lambda held: held.model_copy(update={"ends": ends}))
    assert changed
    await it.until(lambda: changed.mark in str(it.object("Deployment", "coder-chat")))


async def comes_back(it: Platform, wire: Weather, system: str) -> None:
    """Without the Kubernetes API nothing can be scaled, and without Redis nothing can be requested."""
    if system == "kubernetes":
        await asyncio.sleep(AWAY)
        wire.clear()
    elif system == "redis":
        await asyncio.sleep(AWAY)
        await tell(it.redis, CALM_REDIS)


async def tell(redis: Redis, commands: list[tuple[str, ...]]) -> None:
    for command in commands:
        await redis.execute_command(*command)  # type: ignore[no-untyped-call]
