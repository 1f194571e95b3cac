"""A ready session is watched: each problem is reported once, a restart keeps the lease, and time without a node is not billed."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.domain.sessions import Bill, Session
from bot.state.sessions import Sessions
from tests.operations.platform import Platform, open_platform
from tests.operations.steps import bring_up, queue_for_gpu, read_leases, replicas

SLOW = {"gpu": {"boot_limit": "5m"}}
"""Time for a test's actions before a session that does not serve is ended."""


@pytest.fixture
async def platform(tmp_path: Path, redis_url: str) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path, redis_url, settings=SLOW, speed=600) as platform:
        yield platform


async def bills(platform: Platform) -> list[Bill]:
    return [Bill.model_validate_json(text) for text in await platform.redis.hvals("{stoker}:bills")]


def reports(platform: Platform, user: str = "dev") -> list[str]:
    return [
        text
        for text in platform.visible(user)
        if "no longer serves requests" in text or "is up, but has been changed" in text
    ]


async def node_is_recorded(platform: Platform) -> bool:
    """Return whether the watch has seen the node: it bills only nodes that it has seen."""
    (lease,) = await read_leases(platform)
    health = await Sessions(platform.redis).health(lease)
    return health is not None and health.node is not None


async def test_a_reclaimed_node_is_reported_and_not_billed(platform: Platform) -> None:
    """The report has the possible actions; the receipt adds up the billed nodes."""
    await bring_up(platform)
    await platform.until_true(lambda: node_is_recorded(platform))
    platform.faults.add("no-stock")
    platform.cluster.reclaim_node()
    message = await platform.sees("without a node")
    assert "reclaimed" in message
    assert "Nothing is billed while it has no node" in message
    assert "[Restart]" in message
    assert "[Bring down]" in message
    panel = platform.cluster.panel()
    await asyncio.sleep(3)  # a lease without a node would be billed in this time
    await platform.say("dev", "/gpu status")
    assert "without a node since" in await platform.sees("Cost so far")
    await platform.click("dev", "Bring down")
    await platform.sees("coder-chat is down and the GPU is free")
    [bill] = await bills(platform)
    assert bill.node is None
    assert len(bill.earlier) == 1
    assert bill.billed < bill.down - bill.begins - timedelta(seconds=2.5)
    assert not bill.estimated
    assert platform.cluster.panel()["billed_seconds"] == panel["billed_seconds"]


async def test_a_crash_is_reported_once_with_its_cause(platform: Platform) -> None:
    """The channel and the holder get one message each, even after many checks and a restart of the bot."""
    await bring_up(platform)
    platform.cluster.engine_crashes("coder-chat")
    assert "an illegal memory access" in await platform.sees("crash-looping since")
    await platform.stop()
    await platform.start()
    await platform.until(lambda: len(reports(platform)) == 2)
    await asyncio.sleep(3)
    assert len(reports(platform)) == 2, "expected one report in the channel and one to the holder"


async def test_a_model_that_does_not_serve_is_not_active(platform: Platform) -> None:
    """Unreadable metrics do not count as use here: the idle limit still applies."""
    await bring_up(platform)

    async def session() -> Session | None:
        text = await platform.redis.hget("{stoker}:sessions", "coder-chat")
        return Session.model_validate_json(text) if text else None

    while await session() is None:
        await asyncio.sleep(0.1)
    platform.cluster.engine_crashes("coder-chat")
    await platform.sees("crash-looping since")

    async def sampled_after(earlier: datetime) -> Session:
        while (current := await session()) is None or current.sampled <= earlier:
            await asyncio.sleep(0.1)
        return current

    before = await sampled_after(datetime.now(UTC))
    after = await sampled_after(before.sampled + timedelta(seconds=2))
    assert after.active == before.active
    await platform.say("dev", "/model list")
    assert "not serving, crash-looping since" in await platform.sees("endpoints")


async def test_a_restart_keeps_the_lease(platform: Platform) -> None:
    """The lease keeps its end, its holder and its fence; a second click starts nothing, and its answer names the first."""
    await bring_up(platform)
    [before] = await read_leases(platform)
    platform.cluster.engine_crashes("coder-chat")
    await platform.sees("crash-looping since")
    # The button may disappear before the second click: then there is nothing to click.
    clicks = [platform.workspace.click(user, "Restart", timeout=5) for user in ("dev", "lead")]
    await asyncio.gather(*clicks, return_exceptions=True)
    await platform.sees("coder-chat serves again")
    [after] = await read_leases(platform)
    assert (after.ends, after.holder, after.fence) == (before.ends, before.holder, before.fence)
    cards = [text for text in platform.visible() if text.startswith(("✅ Restart", "🔥 Restart"))]
    assert len(cards) == 1
    assert replicas(platform, "coder-chat") == 1
    await platform.until(lambda: not reports(platform))


async def test_a_restart_that_fails_ends_the_session(platform: Platform) -> None:
    """The end has the diagnosis of a boot and a receipt, and the next in the queue gets the GPU."""
    await bring_up(platform)
    platform.cluster.engine_crashes("coder-chat")
    await platform.sees("crash-looping since")
    platform.faults.add("kv-cache-too-small")
    await platform.click("dev", "Restart")
    message = await platform.sees("--max-model-len=49216 would fit")
    await platform.sees("Receipt")
    assert "keeps crashing" in message
    assert await read_leases(platform) == []
    assert replicas(platform, "coder-chat") == 0


async def test_a_restart_continues_after_a_kill_of_the_bot(platform: Platform) -> None:
    """The bot is killed during the restart: nothing is done twice, and nothing remains."""
    await bring_up(platform)
    platform.cluster.engine_crashes("coder-chat")
    await platform.sees("crash-looping since")
    platform.cluster.set_speed(60)
    await platform.click("dev", "Restart")
    await platform.sees("stopping the old pod")
    await platform.stop()
    platform.cluster.set_speed(600)
    await platform.start()
    await platform.sees("coder-chat serves again")
    assert replicas(platform, "coder-chat") == 1
    assert len(await read_leases(platform)) == 1


async def test_a_session_that_stays_down_ends_for_the_next_in_the_queue(tmp_path: Path, redis_url: str) -> None:
    """The wait ends at the boot limit."""
    async with open_platform(tmp_path, redis_url, settings={"gpu": {"boot_limit": "999s"}}, speed=600) as platform:
        await bring_up(platform)
        await queue_for_gpu(platform)
        await platform.restart("boot_limit: 999s", "boot_limit: 10s")
        platform.cluster.engine_crashes("coder-chat")
        await platform.sees("crash-looping since")
        await platform.sees("it has not served for 10 s")
        await platform.sees("it is your turn", "lead")
        assert replicas(platform, "coder-chat") == 0


async def test_a_deleted_deployment_is_reported(platform: Platform) -> None:
    """The message reports that there is no Deployment, not zero replicas."""
    await bring_up(platform)
    platform.cluster.store.delete("Deployment", "coder-chat", "serving")
    assert "the Deployment coder-chat no longer exists" in await platform.sees("its lease is closed")
    await platform.until(lambda: any("is down and the GPU is free" in text for text in platform.visible()))
    assert await read_leases(platform) == []


async def test_a_deployment_that_is_changed_from_outside_is_reported(platform: Platform) -> None:
    """The running model is not the approved one."""
    await bring_up(platform)
    await platform.until_true(lambda: template_is_recorded(platform))

    def change(live: dict[str, object]) -> None:
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "vllm/vllm-openai@sha256:2"  # type: ignore[index]

    platform.cluster.store.update("Deployment", "coder-chat", "serving", change)
    await platform.until(lambda: reports(platform))
    message = await platform.sees("was changed from outside while it was up")
    assert "[Bring down]" in message
    assert "[Restart]" not in message


async def test_a_restart_starts_only_what_was_approved(platform: Platform) -> None:
    """If somebody changes the Deployment of a crashed model, *Restart* does not start it."""
    await bring_up(platform)
    await platform.until_true(lambda: template_is_recorded(platform))
    platform.cluster.engine_crashes("coder-chat")
    await platform.sees("crash-looping since", "lead")

    def change(live: dict[str, object]) -> None:
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "evil/image@sha256:2"  # type: ignore[index]

    platform.cluster.store.update("Deployment", "coder-chat", "serving", change)
    await platform.click("lead", "Restart")
    message = await platform.sees("was changed after its approval", "lead")
    assert "evil/image@sha256:2" in message
    assert not [text for text in platform.visible() if text.startswith(("✅ Restart", "🔥 Restart"))]


async def template_is_recorded(platform: Platform) -> bool:
    """Return whether the watch has recorded the running Deployment's template."""
    text = await platform.redis.hget("{stoker}:health", "coder-chat")
    return bool(text and json.loads(text)["template"])


async def test_two_replicas_are_reported_and_a_restart_scales_to_one(platform: Platform) -> None:
    """There is only one GPU, so the second pod would wait forever."""
    await bring_up(platform)
    await platform.cluster.scale("coder-chat", 2)
    await platform.sees("It was scaled to 2 replicas from outside")
    await platform.click("lead", "Restart")
    await platform.sees("@lead restarts coder-chat, which you hold")
    await platform.sees("coder-chat serves again")
    assert replicas(platform, "coder-chat") == 1
