"""After any failure at any time: the model goes to zero within the limits of the policy, and only shown content runs.

One system fails in one way, permanently, from one moment of a session on. The cluster is the only exception:
without its API nothing can be scaled, so it comes back. Some of the combinations always run; all of them run as a soak test.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from tests.operations.failing_systems import EVERYWHERE, REFUSALS, Failures, failing_proxies, spoil
from tests.operations.platform import Platform, open_platform
from tests.operations.steps import git, read_leases, replicas

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


@pytest.mark.parametrize(("system", "failure", "moment"), SOME)
async def test_the_model_goes_to_zero_after_a_failure(
    tmp_path: Path, redis_url: str, system: str, failure: str, moment: str
) -> None:
    """Some combinations of failures are tested."""
    await check_goes_to_zero(tmp_path, redis_url, system, failure, moment)


@pytest.mark.soak
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("system", "failure"), FAILURES)
async def test_the_model_goes_to_zero_after_every_failure(
    tmp_path: Path, redis_url: str, system: str, failure: str, moment: str
) -> None:
    """All combinations of failures are tested, including the slow ones."""
    await check_goes_to_zero(tmp_path, redis_url, system, failure, moment)


async def check_goes_to_zero(directory: Path, redis_url: str, system: str, failure: str, moment: str) -> None:
    failures = Failures()
    async with running_platform(directory, redis_url, failures) as platform:
        await platform.say("dev", f"/gpu up coder-chat for {HOLD}s")
        await platform.sees("Bring up coder-chat")
        approved = git("rev-parse", "main", cwd=platform.remote)
        if moment != "asked":
            await platform.click("lead", "Approve")
            await until_moment(platform, moment)
        if system == "records":
            await spoil(platform.redis, failure)
        else:
            failures.begin(system, failure)
        if moment == "asked":
            await platform.click("lead", "Approve")
        elif moment in ("brought down", "cancelled"):
            await platform.say("dev", "/gpu down coder-chat")
        if system == "kubernetes":
            await asyncio.sleep(AWAY)
            failures.end()
        platform.patience = LIMIT
        if moment == "asked":
            await asyncio.sleep(STARTS)  # the request may have been refused or started
        await platform.until(
            lambda: replicas(platform, "coder-chat") == 0,
            lambda: f"coder-chat is still up, {failures.refused} requests failed:\n" + "\n".join(platform.visible()),
        )
        assert {name for name, _ in failures.scaled} <= {"coder-chat"}
        assert {name for name, _ in failures.synced} <= {"coder-chat"}
        assert all(approved.encode() in body for _, body in failures.synced)
        assert failures.merged == []
        assert git("rev-parse", "main", cwd=platform.remote) == approved


async def until_moment(platform: Platform, moment: str) -> None:
    """Wait for the moment, as the cluster and Redis show it, because Slack may be the failing system."""
    await platform.until(lambda: replicas(platform, "coder-chat") == 1)
    if moment in ("starting", "cancelled"):
        return
    async with asyncio.timeout(platform.patience):
        while not (leases := await read_leases(platform)) or leases[0].ends is None:
            if not leases and replicas(platform, "coder-chat") == 0:
                return  # the machine has stalled for longer than the lease
            await asyncio.sleep(0.05)
    if moment == "ending":
        await asyncio.sleep(max(0.0, (leases[0].ends - datetime.now(UTC)).total_seconds() - 1))


@asynccontextmanager
async def running_platform(directory: Path, redis_url: str, failures: Failures) -> AsyncIterator[Platform]:
    @asynccontextmanager
    async def connect(environment: dict[str, str]) -> AsyncIterator[None]:
        async with failing_proxies(failures, environment):
            yield

    async with open_platform(directory, redis_url, settings=POLICY, speed=400, connect=connect) as platform:
        yield platform
        failures.end()
