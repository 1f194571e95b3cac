"""Staging without the GPU, on a whole platform: the billed time, and the downtime of a swap."""

import asyncio
import re
from datetime import UTC, datetime

import pytest

from bot.domain.sessions import Staged
from tests.operations.platform import Platform
from tests.operations.steps import bring_up, card_of

HOUR = 3600.0
CLAIM = ("serving", "coder-chat-model-cache")
OLD, NEW = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"


def gpu_nodes(platform: Platform) -> list[str]:
    nodes = platform.cluster.store.find("Node")
    return [node["metadata"]["name"] for node in nodes if "nvidia.com/gpu" in node["status"]["capacity"]]


def staging_pods(platform: Platform) -> list[str]:
    """Return the pods of staging Jobs that run or are about to start."""
    pods = platform.cluster.store.find("Pod", "serving", labels="app.kubernetes.io/name=stoker-staging")
    return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]


async def test_nothing_is_billed_while_hugging_face_refuses_the_download(platform: Platform) -> None:
    """During an hour of status 429 there is no GPU node and no second pod for the volume; then the weights are downloaded."""
    platform.faults.add("hf-429")
    began = platform.cluster.clock.now()
    await platform.say("dev", "/model stage coder-chat")
    await platform.sees("Hugging Face answers 429")
    most = 0
    while platform.cluster.clock.now() < began + HOUR:
        most = max(most, len(staging_pods(platform)))
        assert gpu_nodes(platform) == []
        await asyncio.sleep(0.05)
    platform.faults.discard("hf-429")
    await platform.sees("are on the volume of coder-chat")
    assert most <= 1
    assert platform.cluster.panel()["billed_seconds"] == 0
    assert OLD in platform.cluster.volumes.complete[CLAIM]


async def test_a_staged_swap_interrupts_only_for_the_load(platform: Platform) -> None:
    """The weights are staged before the merge; the new pod finds them."""
    await platform.say("dev", "/gpu up coder-chat")
    await platform.click("lead", "Approve")
    await platform.sees("coder-chat is up and answers")
    await platform.say("dev", f"/model swap coder-chat {NEW}")
    assert "load only, no download" in await platform.sees("is staged next to the old weights")
    await platform.github.checks("success")
    await platform.click("lead", "Approve & roll out")
    await platform.until(lambda: NEW in platform.cluster.volumes.complete[CLAIM])
    platform.faults.add("hf-429")  # downloads fail from now on; the cut-over must not need any
    message = await platform.sees(f"coder-chat now serves {NEW}")
    assert re.search(r"Downtime: [^,]+, from the merge until it answered", message)
    card = card_of(platform, "Swap coder-chat")
    assert card.index("starting the staging Job") < card.index("merging")
    (job,) = platform.cluster.store.find("Job", "serving")
    assert job["metadata"]["annotations"]["stoker.dev/weights"] == NEW
    assert OLD in platform.cluster.volumes.complete[CLAIM], "the old weights were deleted although there is space"
    assert OLD in platform.cluster.volumes.downloaded[CLAIM]


async def test_two_requests_and_a_bring_up_stage_the_weights_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second request refers to the first, and the GPU starts after the download."""
    monkeypatch.setattr("sandbox.download.RATE", 1.0)  # too slow to finish
    await asyncio.gather(*(platform.say(user, "/model stage coder-chat") for user in ("dev", "lead")))
    await platform.sees("downloading the weights")
    message = "are already being staged"
    await platform.until(lambda: any(message in text for user in ("dev", "lead") for text in platform.visible(user)))
    await platform.say("dev", "/gpu up coder-chat")
    await platform.click("lead", "Approve")
    await platform.sees("waiting for the weights")
    await platform.sees("Cancel the staging to start without it")
    assert len(staging_pods(platform)) == 1
    assert gpu_nodes(platform) == []
    assert platform.cluster.panel()["billed_seconds"] == 0
    monkeypatch.undo()
    await platform.sees("coder-chat is up and answers")
    assert len(platform.cluster.store.find("Job", "serving")) == 1
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("The weights were staged before, without the GPU: that saved about")


async def test_a_removal_ends_the_download_and_deletes_the_volume(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The staging is cancelled, although its Job is gone before it notices the removal."""
    monkeypatch.setattr("sandbox.download.RATE", 1.0)
    await platform.say("dev", "/model stage coder-fim")
    await platform.sees("downloading the weights")
    await platform.say("dev", "/model remove coder-fim")
    await platform.sees("Pull request #1")
    await platform.github.checks("success")
    assert len(staging_pods(platform)) == 1
    await platform.click("lead", "Approve deletion")
    await platform.sees("because the endpoint has changed")
    await platform.sees("coder-fim is removed, with its volume")
    assert platform.cluster.store.find("Job", "serving") == []
    assert platform.object("PersistentVolumeClaim", "coder-fim-model-cache") is None


async def test_weights_that_the_session_did_not_load_saved_nothing(platform: Platform) -> None:
    """A swap staged the weights, but was not merged."""
    staged = Staged(hf_id=NEW, at=datetime.now(UTC), seconds=600)
    await platform.redis.hset("{stoker}:staged", "coder-chat", staged.model_dump_json())
    await bring_up(platform)
    await platform.say("dev", "/gpu down coder-chat")
    assert "staged before" not in await platform.sees("Receipt")


async def test_unused_weights_are_removed_for_more_space(platform: Platform) -> None:
    """Models are removed only if the volume needs the space, and never the served one."""
    volumes = platform.cluster.volumes
    volumes.downloaded[CLAIM] = {"old/model": 17e9}
    volumes.complete[CLAIM] = {"old/model"}
    await platform.say("dev", "/model stage coder-chat")
    await platform.sees("are on the volume of coder-chat")
    await platform.sees("Removed from the volume for more space")
    assert set(volumes.downloaded[CLAIM]) == {OLD}


async def test_a_full_volume_is_named(platform: Platform) -> None:
    volumes = platform.cluster.volumes
    volumes.downloaded[("serving", "coder-fim-model-cache")] = {"Qwen/Qwen2.5-Coder-1.5B": 0.0}

    def shrunk(claim: dict[str, object]) -> None:
        claim["spec"] = {**dict(claim["spec"]), "resources": {"requests": {"storage": "1Gi"}}}  # type: ignore[call-overload]

    platform.cluster.store.update("PersistentVolumeClaim", "coder-fim-model-cache", "serving", shrunk)
    await platform.say("dev", "/model stage coder-fim")
    card = await platform.sees("Failed · requested")
    assert "full" in card or "space" in card.lower()
    assert gpu_nodes(platform) == []
