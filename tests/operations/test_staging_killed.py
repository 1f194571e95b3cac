"""Staging survives kills of the bot: one Job, one merge, one sync, one card, and no GPU for the download."""

from collections import Counter
from pathlib import Path

import pytest

from tests.operations.kill_on_http_write import Tripwire
from tests.operations.test_gpu_killed import living
from tests.operations.test_staging import CLAIM, NEW, OLD, gpu_nodes

JOB = "POST /apis/batch/v1/namespaces/serving/jobs"
MERGE = "PUT /repos/acme/llm-platform/pulls/N/merge"
SYNC = "sync coder-chat"
STAGED, SWAPPED = "✅ Stage the weights of coder-chat\nSucceeded", f"✅ Swap coder-chat to {NEW}\nSucceeded"
"""The beginnings of the final cards; the requester's direct messages have the same news."""


@pytest.mark.usefixtures("forked")
async def test_a_requested_staging_makes_one_job(tmp_path: Path, redis_url: str) -> None:
    """Killed when the card is posted, when the Job is created, when it has ended, and at the end."""
    points = {"/api/chat.postMessage", JOB, f"step staging {OLD} 1", "status succeeded"}
    wire = Tripwire(only=frozenset(points))
    async with living(tmp_path, redis_url, wire, kill=True) as it:
        await it.say("dev", "/model stage coder-chat")
        await it.sees("are on the volume of coder-chat")
        wire.kill = None
        await it.until(lambda: [text for text in it.visible() if STAGED in text])
        cards = [text for text in it.visible() if STAGED in text]
        assert it.cluster.panel()["billed_seconds"] == 0
    assert Counter(wire.writes)[JOB] == 1
    assert len(cards) == 1
    assert set(wire.struck) == points


@pytest.mark.usefixtures("forked")
async def test_a_staged_swap_cuts_over_once(tmp_path: Path, redis_url: str) -> None:
    """Killed while it stages, after that, at the merge, and at the sync that restarts the model."""
    points = {JOB, f"step staging {NEW} 1", MERGE, SYNC}
    wire = Tripwire(only=frozenset(points))
    async with living(tmp_path, redis_url, wire, kill=True) as it:
        kill, wire.kill = wire.kill, None  # other tests cover the bring-up
        await it.say("dev", "/gpu up coder-chat because crash test")
        await it.click("lead", "Approve")
        await it.sees("all smoke tests passed")
        nodes = gpu_nodes(it)
        wire.writes.clear()
        wire.kill = kill
        await it.say("dev", f"/model swap coder-chat {NEW}")
        await it.sees("is staged next to the old weights")
        await it.github.checks("success")
        await it.click("lead", "Approve & roll out")
        await it.sees(f"coder-chat now serves {NEW}")
        card = await it.sees(SWAPPED)
        wire.kill = None
        assert NEW in it.cluster.volumes.complete[CLAIM]
        assert gpu_nodes(it) == nodes, "no second GPU was added for the download"
        deployment = it.object("Deployment", "coder-chat")
    assert deployment
    assert deployment["spec"]["replicas"] == 1
    count = Counter(wire.writes)
    assert [count[write] for write in (JOB, MERGE, SYNC)] == [1, 1, 1]
    assert not [write for write in wire.writes if write.endswith("/scale")]
    assert [card.count(phase) for phase in ("starting the staging Job", "merging", "restarting")] == [1, 1, 1]
    assert set(wire.struck) == points
