"""A ready session is watched: each problem is reported once, a restart keeps the lease, and time without a node is not billed."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.domain.sessions import Bill, Session
from bot.state.sessions import Sessions
from tests.operations.platform import Platform
from tests.operations.platform import platform as opened
from tests.operations.steps import held, queues, replicas, up

SLOW = {"gpu": {"boot_limit": "5m"}}
"""Time for a test's actions before a session that does not serve is ended."""


@pytest.fixture
async def it(tmp_path: Path, redis_url: str) -> AsyncIterator[Platform]:
    async with opened(tmp_path, redis_url, settings=SLOW, speed=600) as platform:
        yield platform


async def bills(it: Platform) -> list[Bill]:
    return [Bill.model_validate_json(text) for text in await it.redis.hvals("{stoker}:bills")]


def troubles(it: Platform, user: str = "dev") -> list[str]:
    return [
        text
        for text in it.visible(user)
        if "no longer serves requests" in text or "is up, but has been changed" in text
    ]


async def node_is_recorded(it: Platform) -> bool:
    """Return whether the watch has seen the node: it bills only nodes that it has seen."""
    (lease,) = await held(it)
    health = await Sessions(it.redis).health(lease)
    return health is not None and health.node is not None


async def test_a_node_that_is_reclaimed_is_told_and_bills_nothing(it: Platform) -> None:
    """The report has the possible actions; the receipt adds up the billed nodes."""
    await up(it)
    await it.until_true(lambda: node_is_recorded(it))
    it.faults.add("no-stock")
    it.cluster.reclaim_node()
    told = await it.sees("without a node")
    assert "reclaimed" in told
    assert "Nothing is billed while it has no node" in told
    assert "[Restart]" in told
    assert "[Bring down]" in told
    panel = it.cluster.panel()
    await asyncio.sleep(3)  # in which a lease without a node would cost
    await it.say("dev", "/gpu status")
    assert "without a node since" in await it.sees("Cost so far")
    await it.click("dev", "Bring down")
    await it.sees("coder-chat is down and the GPU is free")
    [bill] = await bills(it)
    assert bill.node is None
    assert len(bill.earlier) == 1
    assert bill.billed < bill.down - bill.begins - timedelta(seconds=2.5)
    assert not bill.estimated
    assert it.cluster.panel()["billed_seconds"] == panel["billed_seconds"]


async def test_a_crash_is_told_once_with_its_cause(it: Platform) -> None:
    """Once in the channel and once to the holder, for any number of checks, and even after a restart of the bot."""
    await up(it)
    it.cluster.engine_crashes("coder-chat")
    assert "an illegal memory access" in await it.sees("crash-looping since")
    await it.stop()
    await it.start()
    await it.until(lambda: len(troubles(it)) == 2)
    await asyncio.sleep(3)
    assert len(troubles(it)) == 2, "one in the channel, one personally"


async def test_a_model_that_does_not_serve_is_not_active(it: Platform) -> None:
    """Unreadable metrics do not count as use here: the idle limit still applies."""
    await up(it)

    async def session() -> Session | None:
        text = await it.redis.hget("{stoker}:sessions", "coder-chat")
        return Session.model_validate_json(text) if text else None

    while await session() is None:
        await asyncio.sleep(0.1)
    it.cluster.engine_crashes("coder-chat")
    await it.sees("crash-looping since")

    async def sampled_after(earlier: datetime) -> Session:
        while (seen := await session()) is None or seen.sampled <= earlier:
            await asyncio.sleep(0.1)
        return seen

    before = await sampled_after(datetime.now(UTC))
    after = await sampled_after(before.sampled + timedelta(seconds=2))
    assert after.active == before.active
    await it.say("dev", "/model list")
    assert "not serving, crash-looping since" in await it.sees("endpoints")


async def test_a_restart_keeps_the_lease(it: Platform) -> None:
    """The lease keeps its end, its holder and its fence; a second click by anybody names the first and starts nothing."""
    await up(it)
    [before] = await held(it)
    it.cluster.engine_crashes("coder-chat")
    await it.sees("crash-looping since")
    # The button may disappear before the second click: then there is nothing to click.
    clicks = [it.workspace.click(user, "Restart", timeout=5) for user in ("dev", "lead")]
    await asyncio.gather(*clicks, return_exceptions=True)
    await it.sees("coder-chat serves again")
    [after] = await held(it)
    assert (after.ends, after.holder, after.fence) == (before.ends, before.holder, before.fence)
    cards = [text for text in it.visible() if text.startswith(("✅ Restart", "🔥 Restart"))]
    assert len(cards) == 1
    assert replicas(it, "coder-chat") == 1
    await it.until(lambda: not troubles(it))


async def test_a_restart_that_fails_ends_the_session(it: Platform) -> None:
    """The end has the diagnosis of a boot and a receipt, and the next in the queue gets the GPU."""
    await up(it)
    it.cluster.engine_crashes("coder-chat")
    await it.sees("crash-looping since")
    it.faults.add("kv-cache-too-small")
    await it.click("dev", "Restart")
    told = await it.sees("--max-model-len=49216 would fit")
    await it.sees("Receipt")
    assert "keeps crashing" in told
    assert await held(it) == []
    assert replicas(it, "coder-chat") == 0


async def test_a_restart_goes_on_after_the_bot_was_killed(it: Platform) -> None:
    """The bot is killed during the restart: nothing is done twice, and nothing remains."""
    await up(it)
    it.cluster.engine_crashes("coder-chat")
    await it.sees("crash-looping since")
    it.cluster.set_speed(60)
    await it.click("dev", "Restart")
    await it.sees("stopping the old pod")
    await it.stop()
    it.cluster.set_speed(600)
    await it.start()
    await it.sees("coder-chat serves again")
    assert replicas(it, "coder-chat") == 1
    assert len(await held(it)) == 1


async def test_a_session_that_does_not_come_back_is_ended_for_who_waits(tmp_path: Path, redis_url: str) -> None:
    """It ends at the boot limit, so nobody waits for a session that no longer works."""
    async with opened(tmp_path, redis_url, settings={"gpu": {"boot_limit": "999s"}}, speed=600) as it:
        await up(it)
        await queues(it)
        await it.restart("boot_limit: 999s", "boot_limit: 10s")
        it.cluster.engine_crashes("coder-chat")
        await it.sees("crash-looping since")
        await it.sees("it has not served for 10 s")
        await it.sees("it is your turn", "lead")
        assert replicas(it, "coder-chat") == 0


async def test_a_deployment_that_is_deleted_is_said_to_be_gone(it: Platform) -> None:
    """The message reports that there is no Deployment, not zero replicas."""
    await up(it)
    it.cluster.store.delete("Deployment", "coder-chat", "serving")
    assert "the Deployment coder-chat no longer exists" in await it.sees("its lease is closed")
    await it.until(lambda: any("is down and the GPU is free" in text for text in it.visible()))
    assert await held(it) == []


async def test_a_deployment_that_is_changed_from_outside_is_told(it: Platform) -> None:
    """The running model is not the approved one."""
    await up(it)
    await it.until_true(lambda: _is_known(it))

    def change(live: dict[str, object]) -> None:
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "vllm/vllm-openai@sha256:2"  # type: ignore[index]

    it.cluster.store.update("Deployment", "coder-chat", "serving", change)
    await it.until(lambda: troubles(it))
    told = await it.sees("was changed from outside while it was up")
    assert "[Bring down]" in told
    assert "[Restart]" not in told


async def test_a_restart_starts_only_what_was_approved(it: Platform) -> None:
    """Somebody changes the Deployment of a model that has crashed, and *Restart* is still there."""
    await up(it)
    await it.until_true(lambda: _is_known(it))
    it.cluster.engine_crashes("coder-chat")
    await it.sees("crash-looping since", "lead")

    def change(live: dict[str, object]) -> None:
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "evil/image@sha256:2"  # type: ignore[index]

    it.cluster.store.update("Deployment", "coder-chat", "serving", change)
    await it.click("lead", "Restart")
    told = await it.sees("was changed after its approval", "lead")
    assert "evil/image@sha256:2" in told
    assert not [text for text in it.visible() if text.startswith(("✅ Restart", "🔥 Restart"))]


async def _is_known(it: Platform) -> bool:
    """Return whether the running model has been checked."""
    text = await it.redis.hget("{stoker}:health", "coder-chat")
    return bool(text and json.loads(text)["template"])


async def test_two_replicas_are_told_and_a_restart_makes_one_of_them(it: Platform) -> None:
    """There is one GPU: the second pod waits for it forever."""
    await up(it)
    await it.cluster.scale("coder-chat", 2)
    await it.sees("It was scaled to 2 replicas from outside")
    await it.click("lead", "Restart")
    await it.sees("@lead restarts coder-chat, which you hold")
    await it.sees("coder-chat serves again")
    assert replicas(it, "coder-chat") == 1
