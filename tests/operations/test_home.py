"""The last week as a picture in Home: drawn when its figures change, shared where readers can see it, one at a time."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from bot.domain import Bill, Node
from bot.operations.home import draw_week, publish, refresh
from bot.services import Services
from bot.views import lines
from sandbox.slack import Workspace
from sandbox.slack.blocks import Json
from sandbox.slack.history import CHANNEL
from sandbox.slack.manifest import Manifest, everything
from tests.commands.conftest import hf_endpoint, manifest, svc, workspace

__all__ = ["hf_endpoint", "manifest", "svc", "workspace"]

HOUR = timedelta(hours=1)
DEV = "U0DEV"


async def a_session(svc: Services, fence: int) -> None:
    """One that began two days ago, three hours long."""
    began = datetime.now(UTC) - timedelta(days=2)
    node = Node(name="gpu", since=began)
    await svc.sessions.keep_bill(
        Bill(
            fence=fence, op="", model="coder-chat", holder=DEV, claimed=began, ready=began + HOUR / 4,
            down=began + 3 * HOUR, node=node, gone=began + 3 * HOUR, drain=HOUR / 6, price_per_hour=0.85,
            idle_seconds=1800,
        )
    )  # fmt: skip


def week(workspace: Workspace) -> Json:
    """The block of Home that shows the week."""
    blocks: list[Json] = workspace._history.homes[DEV].view["blocks"]
    header = next(n for n, block in enumerate(blocks) if block.get("text", {}).get("text") == "The last week")
    return blocks[header + 1]


async def pictured(svc: Services, workspace: Workspace) -> str:
    """The id of the file in Home, as soon as Slack has looked through it."""
    deadline = time.monotonic() + 30
    while week(workspace)["type"] != "image":
        assert time.monotonic() < deadline, week(workspace)
        await asyncio.sleep(0.1)
        await refresh(svc)
    return str(week(workspace)["slack_file"]["id"])


async def status(workspace: Workspace, file_id: str) -> int:
    """What a reader's browser gets for the picture."""
    async with aiohttp.ClientSession() as http, http.get(f"{workspace.url}/files/{file_id}") as answer:
        return answer.status


def live(workspace: Workspace) -> list[str]:
    """The pictures in the channel's threads that are not deleted."""
    return [text for text in workspace.posted(CHANNEL, threads=True) if "[file gpu-week" in text]


async def test_the_week_becomes_a_picture_that_readers_can_see(svc: Services, workspace: Workspace) -> None:
    """Home opens with bars at once; the picture follows, its figures in words for who cannot see it."""
    await a_session(svc, 1)
    await publish(svc, DEV)
    assert "█" in week(workspace)["text"]["text"]
    await draw_week(svc)
    file_id = await pictured(svc, workspace)
    assert await status(workspace, file_id) == 200
    assert "3 h (2 h 45 min up, 30 min idle), $2.55" in week(workspace)["alt_text"]
    assert len([text for text in workspace.posted(CHANNEL) if "day by day" in text]) == 1


async def test_the_same_figures_are_drawn_once(svc: Services, workspace: Workspace) -> None:
    """However often and by however many it is asked."""
    await a_session(svc, 1)
    await publish(svc, DEV)
    for _ in range(3):
        await draw_week(svc)
        await publish(svc, "U0LEAD")
    assert len(live(workspace)) == 1


async def test_a_new_figure_is_a_new_picture_and_the_old_one_goes(svc: Services, workspace: Workspace) -> None:
    """In the thread of the same message."""
    await a_session(svc, 1)
    await publish(svc, DEV)
    await draw_week(svc)
    first = await pictured(svc, workspace)
    await a_session(svc, 2)
    await publish(svc, DEV)
    assert "█" in week(workspace)["text"]["text"]  # no picture of other figures than today's
    await draw_week(svc)
    second = await pictured(svc, workspace)
    assert (await status(workspace, first), await status(workspace, second)) == (404, 200)
    assert len(live(workspace)) == len([t for t in workspace.posted(CHANNEL) if "day by day" in t]) == 1


async def test_a_bot_killed_before_it_noted_its_picture_leaves_none_behind(svc: Services, workspace: Workspace) -> None:
    """The next one draws anew, and deletes what nobody shows."""
    await a_session(svc, 1)
    await publish(svc, DEV)
    place = await svc.slack.post("somewhere", CHANNEL, lines("a thread"))
    lost = await svc.slack.upload_file(b"x" * 9, "gpu-week-lost.png", alt="-", note=svc.store.note_file)
    await svc.slack.share_file(lost, "gpu-week-lost.png", place)  # and here it was killed
    await draw_week(svc)
    assert await status(workspace, lost) == 404
    assert len(live(workspace)) == 1


async def test_a_picture_that_somebody_deleted_is_drawn_again(svc: Services, workspace: Workspace) -> None:
    """Until then there are bars."""
    await a_session(svc, 1)
    await publish(svc, DEV)
    await draw_week(svc)
    file_id = await pictured(svc, workspace)
    await svc.slack.delete_file(file_id)
    noted = await svc.store.week_picture()
    assert noted
    await svc.store.keep_week_picture(noted.model_copy(update={"at": noted.at - HOUR}))
    await publish(svc, DEV)
    assert "█" in week(workspace)["text"]["text"]
    await draw_week(svc)
    assert await pictured(svc, workspace) != file_id


async def test_nobody_looks_so_nothing_is_drawn(svc: Services, workspace: Workspace) -> None:
    """A channel whose people never open Home sees none of it."""
    await a_session(svc, 1)
    await draw_week(svc)
    assert workspace.posted(CHANNEL) == []


class TestWithoutTheScope:
    """An app that was installed before it uploaded files."""

    @pytest.fixture
    def manifest(self) -> Manifest:
        return everything(scopes=everything().scopes - {"files:write"})

    async def test_home_has_bars(self, svc: Services, workspace: Workspace) -> None:
        """And nothing is posted, nor tried again at once."""
        await a_session(svc, 1)
        await publish(svc, DEV)
        await draw_week(svc)
        await refresh(svc)
        await draw_week(svc)
        assert "█" in week(workspace)["text"]["text"]
        assert workspace.posted(CHANNEL) == []


async def test_home_opens_without_redis_and_claims_nothing(svc: Services, workspace: Workspace) -> None:
    """Who has the GPU is not known, so it is not called free; what does not answer is named, once."""
    await publish(svc, DEV)
    before = workspace.home("dev")
    assert "cannot be seen" in before  # nor does the cluster answer here
    await svc.store._redis.shutdown(nosave=True)
    await publish(svc, DEV)
    shown = workspace.home("dev")
    assert shown != before
    assert shown.count("Redis does not answer") == 1
    assert "is free. Nothing" not in shown
    assert workspace.posted(CHANNEL) == []
