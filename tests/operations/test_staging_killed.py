"""Staging survives kills of the bot: one Job, one merge, one sync, one card, and no GPU for the download."""

from collections import Counter
from pathlib import Path

import pytest

from tests.operations.kill_on_http_write import KillOnWrite
from tests.operations.test_gpu_killed import platform_with_bot
from tests.operations.test_staging import CLAIM, NEW, OLD, gpu_nodes

JOB = "POST /apis/batch/v1/namespaces/serving/jobs"
MERGE = "PUT /repos/acme/llm-platform/pulls/N/merge"
SYNC = "sync coder-chat"
STAGED, SWAPPED = "✅ Stage the weights of coder-chat\nSucceeded", f"✅ Swap coder-chat to {NEW}\nSucceeded"
"""The beginnings of the final cards; the requester's direct messages have the same news."""


@pytest.mark.usefixtures("forked")
async def test_a_requested_staging_makes_one_job(tmp_path: Path, redis_url: str) -> None:
    """The bot is killed when the card is posted, when the Job is created, when it has ended, and at the end."""
    points = {"/api/chat.postMessage", JOB, f"step staging {OLD} 1", "status succeeded"}
    kills = KillOnWrite(only=frozenset(points))
    async with platform_with_bot(tmp_path, redis_url, kills, kill=True) as platform:
        await platform.say("dev", "/model stage coder-chat")
        await platform.sees("are on the volume of coder-chat")
        kills.kill = None
        await platform.until(lambda: [text for text in platform.visible() if STAGED in text])
        cards = [text for text in platform.visible() if STAGED in text]
        assert platform.cluster.panel()["billed_seconds"] == 0
    assert Counter(kills.writes)[JOB] == 1
    assert len(cards) == 1
    assert set(kills.killed_at) == points


@pytest.mark.usefixtures("forked")
async def test_a_staged_swap_cuts_over_once(tmp_path: Path, redis_url: str) -> None:
    """The bot is killed during the staging, after it, at the merge, and at the sync that restarts the model."""
    points = {JOB, f"step staging {NEW} 1", MERGE, SYNC}
    kills = KillOnWrite(only=frozenset(points))
    async with platform_with_bot(tmp_path, redis_url, kills, kill=True) as platform:
        kill, kills.kill = kills.kill, None  # other tests cover the bring-up
        await platform.say("dev", "/gpu up coder-chat because crash test")
        await platform.click("lead", "Approve")
        await platform.sees("all smoke tests passed")
        nodes = gpu_nodes(platform)
        kills.writes.clear()
        kills.kill = kill
        await platform.say("dev", f"/model swap coder-chat {NEW}")
        await platform.sees("is staged next to the old weights")
        await platform.github.checks("success")
        await platform.click("lead", "Approve & roll out")
        await platform.sees(f"coder-chat now serves {NEW}")
        card = await platform.sees(SWAPPED)
        kills.kill = None
        assert NEW in platform.cluster.volumes.complete[CLAIM]
        assert gpu_nodes(platform) == nodes, "a second GPU was added for the download"
        deployment = platform.object("Deployment", "coder-chat")
    assert deployment
    assert deployment["spec"]["replicas"] == 1
    count = Counter(kills.writes)
    assert [count[write] for write in (JOB, MERGE, SYNC)] == [1, 1, 1]
    assert not [write for write in kills.writes if write.endswith("/scale")]
    assert [card.count(phase) for phase in ("starting the staging Job", "merging", "restarting")] == [1, 1, 1]
    assert set(kills.killed_at) == points
