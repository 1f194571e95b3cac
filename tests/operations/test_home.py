"""Home: the last week as a chart, and its content when systems do not answer."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from bot.domain.leases import Lease
from bot.domain.sessions import Bill, Node
from bot.home import AppHome
from bot.services import Services
from bot.wiring import Wiring
from sandbox.faults import Faults
from sandbox.slack import Workspace
from sandbox.slack.blocks import Json
from sandbox.slack.history import CHANNEL
from sandbox.slack.manifest import Manifest
from tests.commands.conftest import hf_endpoint, manifest, svc, workspace

__all__ = ["hf_endpoint", "manifest", "svc", "workspace"]

HOUR = timedelta(hours=1)
DEV = "U0DEV"


async def store_session(svc: Services, fence: int) -> None:
    """Store the bill of a session of three hours that began two days ago."""
    began = datetime.now(UTC) - timedelta(days=2)
    node = Node(name="gpu", since=began)
    await svc.bills.keep(
        Bill(
            fence=fence, op="", model="coder-chat", holder=DEV, claimed=began, ready=began + HOUR / 4,
            down=began + 3 * HOUR, node=node, gone=began + 3 * HOUR, drain=HOUR / 6, price_per_hour=0.85,
            idle_seconds=1800,
        )
    )  # fmt: skip


def week(workspace: Workspace) -> list[Json]:
    """The blocks of Home that show the week."""
    blocks: list[Json] = workspace._history.homes[DEV].view["blocks"]
    header = next(n for n, block in enumerate(blocks) if block.get("text", {}).get("text") == "The last week")
    return blocks[header + 1 :]


async def test_slack_draws_the_week(svc: Services, workspace: Workspace) -> None:
    """Home shows the hours by use for each day, and their sum in words; nothing is posted or uploaded for it."""
    await store_session(svc, 1)
    await Wiring(svc).of(AppHome).publish(DEV)
    drawn, total = week(workspace)
    assert drawn["type"] == "data_visualization"
    used = {series["name"]: sum(bar["value"] for bar in series["data"]) for series in drawn["chart"]["series"]}
    assert used == {"in use": 2.25, "idle": 0.5, "boot and drain": 0.25}
    assert "3 h on the GPU" in str(total)
    assert "$2.55" in str(total)
    assert workspace.posted(CHANNEL, threads=True) == []


class TestWithoutCharts:
    @pytest.fixture
    async def workspace(self, manifest: Manifest) -> AsyncIterator[Workspace]:
        faults = Faults()
        faults.add("slack-old-blocks")
        async with Workspace(faults, manifest=manifest) as workspace:
            yield workspace

    async def test_home_has_bars(self, svc: Services, workspace: Workspace) -> None:
        """A text has the same figures."""
        await store_session(svc, 1)
        await Wiring(svc).of(AppHome).publish(DEV)
        assert "in use 2.25, idle 0.5, boot and drain 0.25" in str(week(workspace))
        assert "█" in str(week(workspace))


async def test_an_older_state_never_replaces_a_newer_one(svc: Services, workspace: Workspace) -> None:
    """Somebody opens Home, and Slack accepts its content late; in the meantime the GPU is claimed, and Home is published again."""
    delayed, app_home = workspace._api.held, Wiring(svc).of(AppHome)
    delayed["views.publish"] = accepted = asyncio.Event()
    opening = asyncio.create_task(app_home.publish(DEV))
    while delayed:
        await asyncio.sleep(0.01)
    lease = Lease(model="coder-chat", op="up", holder=DEV, fence=0, hold=HOUR, claimed=svc.clock())
    await svc.leases.claim(lease)
    refreshing = asyncio.create_task(app_home.refresh())
    await asyncio.wait({refreshing}, timeout=0.3)  # the refresh waits for its turn
    accepted.set()
    await asyncio.gather(opening, refreshing)
    assert "coder-chat" in workspace.home("dev")


async def test_home_opens_without_redis_and_claims_nothing(svc: Services, workspace: Workspace) -> None:
    """The holder is unknown, so the GPU is not shown as free; systems that do not answer are named once."""
    await Wiring(svc).of(AppHome).publish(DEV)
    before = workspace.home("dev")
    assert "It is unknown whether the GPU is free" in before  # the cluster does not answer here either
    await svc.records._redis.shutdown(nosave=True)
    await Wiring(svc).of(AppHome).publish(DEV)
    home = workspace.home("dev")
    assert home != before
    assert home.count("Redis does not answer") == 1
    assert "is free. Nothing" not in home
    assert workspace.posted(CHANNEL) == []
