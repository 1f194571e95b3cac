"""After any failure at any time: the model goes to zero within the limits of the policy, and only shown content runs.

One system fails in one way, permanently, from one moment of a session on. The cluster is the only exception:
without its API nothing can be scaled, so it comes back. Some of the combinations always run, all of them as a soak test.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from tests.operations.failing_systems import EVERYWHERE, REFUSALS, Weather, spoil, weather
from tests.operations.platform import Platform
from tests.operations.platform import platform as opened
from tests.operations.steps import git, held, replicas

HOLD = 5
"""Seconds of the lease."""
LIMIT = 240.0
"""Seconds from the failure until replicas are at zero: a boot of at most 20, the lease, and a busy machine."""
STARTS = 8.0
"""Seconds within which an approved request starts, if it does."""
AWAY = 4.0
"""Seconds without the Kubernetes API."""
MOMENTS = ("asked", "starting", "up", "ending", "brought down", "cancelled")
FAILURES = (
    *product(("slack", "github", "litellm", "metrics", "hub"), EVERYWHERE),
    *product(("slack",), REFUSALS),
    *product(("kubernetes",), ("503", "403", "cut off", "garbage")),
    *product(("records",), ("leases", "operations", "steps", "sessions", "everything")),
)
SOME = (
    ("slack", "message_not_found", "starting"),
    ("slack", "hangs", "up"),
    ("slack", "is_archived", "cancelled"),
    ("metrics", "drips", "ending"),
    ("litellm", "garbage", "starting"),
    ("litellm", "login page", "starting"),
    ("slack", "token_revoked", "up"),
    ("github", "503", "brought down"),
    ("records", "everything", "up"),
    ("records", "operations", "starting"),
    ("kubernetes", "503", "ending"),
)
POLICY = {
    "lease": {"warn_before": "1s", "reconcile_every": "1s"},
    "gpu": {"boot_limit": "20s"},
    "litellm": {"wait": "5s"},
    "argocd": {"sync_limit": "10s"},
}


@pytest.mark.parametrize(("system", "how", "moment"), SOME)
async def test_it_goes_to_zero(tmp_path: Path, redis_url: str, system: str, how: str, moment: str) -> None:
    """Some of what can happen."""
    await goes_to_zero(tmp_path, redis_url, system, how, moment)


@pytest.mark.soak
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("system", "how"), FAILURES)
async def test_it_goes_to_zero_whatever_happens(
    tmp_path: Path, redis_url: str, system: str, how: str, moment: str
) -> None:
    """All of it."""
    await goes_to_zero(tmp_path, redis_url, system, how, moment)


async def goes_to_zero(directory: Path, redis_url: str, system: str, how: str, moment: str) -> None:
    wire = Weather()
    async with living(directory, redis_url, wire) as it:
        await it.say("dev", f"/gpu up coder-chat for {HOLD}s")
        await it.sees("Bring up coder-chat")
        shown = git("rev-parse", "main", cwd=it.remote)
        if moment != "asked":
            await it.click("lead", "Approve")
            await reached(it, moment)
        if system == "records":
            await spoil(it.redis, how)
        else:
            wire.strike(system, how)
        if moment == "asked":
            await it.click("lead", "Approve")
        elif moment in ("brought down", "cancelled"):
            await it.say("dev", "/gpu down coder-chat")
        if system == "kubernetes":
            await asyncio.sleep(AWAY)
            wire.clear()
        it.patience = LIMIT
        if moment == "asked":
            await asyncio.sleep(STARTS)  # it may have been refused or started
        await it.until(
            lambda: replicas(it, "coder-chat") == 0,
            lambda: f"coder-chat is still up, {wire.refused} requests met the failure:\n" + "\n".join(it.visible()),
        )
        assert {name for name, _ in wire.scaled} <= {"coder-chat"}
        assert {name for name, _ in wire.synced} <= {"coder-chat"}
        assert all(shown.encode() in body for _, body in wire.synced)
        assert wire.merged == []
        assert git("rev-parse", "main", cwd=it.remote) == shown


async def reached(it: Platform, moment: str) -> None:
    """Checked in the cluster and in Redis, because Slack may be the failing system."""
    await it.until(lambda: replicas(it, "coder-chat") == 1)
    if moment in ("starting", "cancelled"):
        return
    async with asyncio.timeout(it.patience):
        while not (leases := await held(it)) or leases[0].ends is None:
            if not leases and replicas(it, "coder-chat") == 0:
                return  # the machine has stalled for longer than the lease
            await asyncio.sleep(0.05)
    if moment == "ending":
        await asyncio.sleep(max(0.0, (leases[0].ends - datetime.now(UTC)).total_seconds() - 1))


@asynccontextmanager
async def living(directory: Path, redis_url: str, wire: Weather) -> AsyncIterator[Platform]:
    @asynccontextmanager
    async def wired(environment: dict[str, str]) -> AsyncIterator[None]:
        async with weather(wire, environment):
            yield

    async with opened(directory, redis_url, settings=POLICY, speed=400, wired=wired) as it:
        yield it
        wire.clear()
