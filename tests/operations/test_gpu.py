"""One GPU and several people: queue, offer, replacement, extension and release; losses of data in Redis."""

import asyncio
from pathlib import Path

import pytest

from sandbox.process import Bot, free_port
from tests.operations.platform import SPEED, STOPPED, Platform
from tests.operations.platform import platform as opened
from tests.operations.steps import LEASES, held, queues, replicas, up


async def test_an_offer_that_nobody_takes_passes_to_the_next(tmp_path: Path, redis_url: str) -> None:
    """The first in the queue has a moment to answer; then the second gets the offer, and the first one's request has expired."""
    async with opened(tmp_path, redis_url, settings={"lease": {"offer": "2s"}}) as it:
        await up(it)
        await queues(it)
        await it.say("dev", "/gpu down coder-chat")
        await it.sees("did not take the GPU in time", "lead")
        await it.say("dev", "/gpu queue")
        await it.sees("Nobody is waiting")
        await up(it, "coder-chat")


async def test_an_approval_given_while_waiting_starts_it_when_the_offer_is_taken(platform: Platform) -> None:
    """No second approval is necessary, and no other request comes first."""
    await up(platform)
    await queues(platform, "because next")
    await platform.click("admin", "Approve")
    await platform.sees("Approved by @admin")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.click("lead", "Take it")
    await platform.sees("coder-fim is up and answers")
    assert [lease.model for lease in await held(platform)] == ["coder-fim"]


async def test_an_approval_to_replace_is_void_when_the_gpu_changed_hands(platform: Platform) -> None:
    """The approval named a holder, so it does not apply to the next holder."""
    await up(platform)
    await platform.say("lead", "/gpu up coder-fim because demo")
    await platform.click("lead", "Replace")
    await platform.sees("Displaces coder-chat")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("is down and the GPU is free")
    await platform.click("admin", "Approve")
    await platform.sees("so the approval is void")
    assert await held(platform) == []
    assert replicas(platform, "coder-fim") == 0


async def test_what_replaces_waits_for_running_requests_up_to_a_limit(platform: Platform) -> None:
    """A running request may finish; the old model is gone before the new one starts."""
    await up(platform)
    traffic = asyncio.create_task(platform.serving.traffic("coder-chat", 5, 2))
    await platform.say("lead", "/gpu up coder-fim because demo")
    await platform.click("lead", "Replace")
    await platform.sees("Displaces coder-chat")
    await platform.click("admin", "Approve")
    await platform.sees("finishing requests of coder-chat")
    await platform.sees("coder-fim is up and answers")
    await traffic
    assert (replicas(platform, "coder-chat"), replicas(platform, "coder-fim")) == (0, 1)
    await platform.sees("coder-chat is down, replaced by coder-fim")


async def test_what_is_being_replaced_goes_down_for_that_alone(platform: Platform) -> None:
    """`/gpu down` of the old model explains how to cancel the replacement; of the new model it cancels it, and the old one is restored."""
    await up(platform)
    platform.cluster.set_speed(STOPPED)
    await platform.say("lead", "/gpu up coder-fim because demo")
    await platform.click("lead", "Replace")
    await platform.click("admin", "Approve")
    await platform.sees("bringing down coder-chat …")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("coder-chat is being replaced by coder-fim, as @lead requested")
    await platform.ends_theirs("dev", "/gpu down coder-fim")
    await platform.sees("coder-fim is still booting; its bring-up is being cancelled")
    platform.cluster.set_speed(SPEED)
    await platform.sees("coder-chat is restored: @dev holds the GPU again")
    assert [lease.model for lease in await held(platform)] == ["coder-chat"]
    assert (replicas(platform, "coder-chat"), replicas(platform, "coder-fim")) == (1, 0)


async def test_nobody_is_idle_during_a_replacement(tmp_path: Path, redis_url: str) -> None:
    """Independent of the duration: neither the old nor the new model is brought down for it; the watch starts again."""
    idle = {
        "remind_after": "5s",
        "remind_every": "60s",
        "down_after": "15s",
        "announce_before": "2s",
        "sample_every": "1s",
    }
    waits = {"queue_remind_after": "5s", "queue_down_after": "15s"}
    async with opened(tmp_path, redis_url, settings={"idle": idle | waits}) as it:
        traffic = asyncio.create_task(it.serving.traffic("coder-chat", 5, 120))
        await up(it)
        await it.say("lead", "/gpu up coder-fim because demo")
        await it.click("lead", "Replace")
        await it.click("admin", "Approve")
        it.cluster.set_speed(STOPPED)
        await it.sees("bringing down coder-chat …")
        await asyncio.sleep(16)  # longer than idle.down_after
        it.cluster.set_speed(SPEED)
        traffic.cancel()
        await asyncio.gather(traffic, return_exceptions=True)
        await it.sees("coder-fim is up and answers")
        await it.sees("coder-fim has been idle", user="lead")
        shown = [each.text for each in it.workspace.transcript]
        until_idle = shown[: next(n for n, text in enumerate(shown) if "coder-fim has been idle" in text)]
        assert not [text for text in until_idle if "Bring down" in text.splitlines()[0]]


async def test_a_lease_is_prolonged_within_the_limit_and_asked_for_above(platform: Platform) -> None:
    """The holder extends it immediately; above `lease.longest` an approver decides; other people may not."""
    await up(platform, words="for 2h")
    (before,) = await held(platform)
    await platform.say("dev", "/gpu extend 1h")
    await platform.sees("of @dev for coder-chat was extended to")
    (after,) = await held(platform)
    assert before.ends
    assert after.ends
    assert (after.ends - before.ends).total_seconds() == 3600
    said = f"is up and answers; all smoke tests passed. @dev holds the GPU until {after.ends:%H:%M} UTC"
    await platform.until(lambda: any(said in text for text in platform.visible()))
    await platform.say("dev", "/gpu extend 9h")
    await platform.sees("the limit is 8 h")
    await platform.click("lead", "Approve")
    await until_ends(platform, 12)


async def until_ends(it: Platform, hours: int) -> None:
    async with asyncio.timeout(it.patience):
        while True:
            (lease,) = await held(it)
            if lease.ends and lease.ready and (lease.ends - lease.ready).total_seconds() == hours * 3600:
                return
            await asyncio.sleep(0.05)


async def test_only_an_admin_breaks_a_lease_and_says_why(platform: Platform) -> None:
    """The reason is public, and another approver must agree."""
    await up(platform)
    await platform.say("dev", "/gpu release because I want it")
    await platform.sees("Only an admin may break somebody's lease")
    await platform.say("admin", "/gpu release")
    await platform.sees("Give a reason", "admin")
    await platform.say("admin", "/gpu release because nobody answers")
    await platform.sees("Breaks the lease on coder-chat")
    await platform.click("lead", "Approve")
    await platform.sees("breaks your lease")
    await platform.sees("is down and the GPU is free")
    assert await held(platform) == []


async def test_a_lease_that_a_failover_lost_is_rebuilt_and_one_that_it_resurrected_is_closed(
    platform: Platform,
) -> None:
    """The replica missed the last write: the claim, or the release. The state of the cluster decides which."""
    await up(platform)
    (lease,) = await held(platform)
    await platform.redis.delete(LEASES)
    await platform.sees("Redis had lost the lease of coder-chat")
    assert (await held(platform))[0].fence == lease.fence
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("is down and the GPU is free")
    await platform.redis.hset(LEASES, "coder-chat", lease.model_dump_json())
    await platform.sees("it was down already")
    async with asyncio.timeout(platform.patience):
        while await held(platform):
            await asyncio.sleep(0.05)


async def test_a_bring_up_whose_redis_was_flushed_ends_as_a_session(tmp_path: Path, redis_url: str) -> None:
    """The operation is lost, but not the lease: its time starts when the model answers, and it can be ended.

    That takes a while: docket recreates flushed timers every minute.
    """
    async with opened(tmp_path, redis_url, speed=60) as it:
        await it.say("dev", "/gpu up coder-chat for 1h because flushed")
        await it.click("lead", "Approve")
        await it.until(lambda: replicas(it, "coder-chat") == 1)  # and the lease is on the Deployment
        await it.redis.flushall()
        await it.say("dev", "/gpu status")
        await it.sees("coder-chat is held by @dev")
        async with asyncio.timeout(it.patience):
            while not [lease for lease in await held(it) if lease.ready]:
                await asyncio.sleep(0.1)
        await it.say("dev", "/gpu down coder-chat")
        await it.sees("is down and the GPU is free")
        assert replicas(it, "coder-chat") == 0


@pytest.mark.usefixtures("forked")
async def test_two_bots_do_everything_once(platform: Platform, tmp_path: Path) -> None:
    """One card, one alert, one lease, one receipt, although two bots sweep, reconcile and tend the queue."""
    port = free_port()
    (tmp_path / "second").mkdir()
    environment = platform.environment | {"STOKER_PORT": str(port), "STOKER_DATA_DIR": str(tmp_path / "second")}
    async with Bot(environment, port=port, directory=tmp_path / "second"):
        await up(platform, words="because two of us")
        await platform.cluster.scale("coder-fim", 1)
        await platform.sees("coder-fim uses the GPU, and nobody holds a lease")
        await platform.cluster.scale("coder-fim", 0)
        await platform.sees("had used the GPU without a lease since")
        await platform.say("dev", "/gpu down coder-chat")
        await platform.sees("is down and the GPU is free")
        seen = platform.visible()
        assert len([text for text in seen if "Bring up coder-chat" in text]) == 1
        assert len([text for text in seen if "had used the GPU without a lease since" in text]) == 1
        assert len([text for text in seen if "Receipt" in text]) == 1
        assert await held(platform) == []


async def test_an_unmanaged_gpu_is_told_once(platform: Platform) -> None:
    """Repeated checks do not report it again; when it is resolved, the message has no buttons."""
    await platform.cluster.scale("coder-fim", 1)
    await platform.sees("coder-fim uses the GPU, and nobody holds a lease")
    await asyncio.sleep(5)
    assert len([text for text in platform.visible() if "nobody holds a lease" in text]) == 1
    await platform.click("lead", "Bring down")
    told = await platform.sees("had used the GPU without a lease since")
    assert "[Adopt]" not in told
