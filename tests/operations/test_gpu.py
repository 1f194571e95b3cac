"""One GPU and several people: queue, offer, replacement, extension and release; losses of data in Redis."""

import asyncio
from pathlib import Path

import pytest

from sandbox.process import Bot, free_port
from tests.operations.platform import SPEED, STOPPED, Platform, open_platform
from tests.operations.steps import LEASES, bring_up, queue_for_gpu, read_leases, replicas


async def test_an_unused_offer_passes_to_the_next_in_line(tmp_path: Path, redis_url: str) -> None:
    """The first in the queue has a moment to answer; then the request expires, and the next request gets the offer."""
    async with open_platform(tmp_path, redis_url, settings={"lease": {"offer": "2s"}}) as platform:
        await bring_up(platform)
        await queue_for_gpu(platform)
        await platform.say("dev", "/gpu down coder-chat")
        await platform.sees("did not take the GPU in time", "lead")
        await platform.say("dev", "/gpu queue")
        await platform.sees("Nobody is waiting")
        await bring_up(platform, "coder-chat")


async def test_an_approval_given_while_waiting_starts_it_when_the_offer_is_taken(platform: Platform) -> None:
    """No second approval is necessary, and no other request comes first."""
    await bring_up(platform)
    await queue_for_gpu(platform, "because next")
    await platform.click("admin", "Approve")
    await platform.sees("Approved by @admin")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.click("lead", "Take it")
    await platform.sees("coder-fim is up and answers")
    assert [lease.model for lease in await read_leases(platform)] == ["coder-fim"]


async def test_an_approval_to_replace_is_void_when_the_gpu_changed_hands(platform: Platform) -> None:
    """The approval named a holder, so it does not apply to the next holder."""
    await bring_up(platform)
    await platform.say("lead", "/gpu up coder-fim because demo")
    await platform.click("lead", "Replace")
    await platform.sees("Displaces coder-chat")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("is down and the GPU is free")
    await platform.click("admin", "Approve")
    await platform.sees("so the approval is void")
    assert await read_leases(platform) == []
    assert replicas(platform, "coder-fim") == 0


async def test_a_replacement_waits_for_running_requests_up_to_a_limit(platform: Platform) -> None:
    """A running request may finish; the old model is gone before the new one starts."""
    await bring_up(platform)
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


async def test_down_during_a_replacement(platform: Platform) -> None:
    """For the old model, `/gpu down` explains how to cancel the replacement; for the new one, it cancels it and restores the old model."""
    await bring_up(platform)
    platform.cluster.set_speed(STOPPED)
    await platform.say("lead", "/gpu up coder-fim because demo")
    await platform.click("lead", "Replace")
    await platform.click("admin", "Approve")
    await platform.sees("bringing down coder-chat …")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("coder-chat is being replaced by coder-fim, as @lead requested")
    await platform.end_for_another("dev", "/gpu down coder-fim")
    await platform.sees("coder-fim is still booting; its bring-up is being cancelled")
    platform.cluster.set_speed(SPEED)
    await platform.sees("coder-chat is restored: @dev holds the GPU again")
    assert [lease.model for lease in await read_leases(platform)] == ["coder-chat"]
    assert (replicas(platform, "coder-chat"), replicas(platform, "coder-fim")) == (1, 0)


async def test_idle_limits_do_not_apply_during_a_replacement(tmp_path: Path, redis_url: str) -> None:
    """Both models stay up even if the replacement takes longer than the limit."""
    idle = {
        "remind_after": "4s",
        "remind_every": "60s",
        "down_after": "8s",
        "announce_before": "2s",
        "sample_every": "1s",
    }
    waits = {"queue_remind_after": "4s", "queue_down_after": "8s"}
    async with open_platform(tmp_path, redis_url, settings={"idle": idle | waits}) as platform:
        traffic = asyncio.create_task(platform.serving.traffic("coder-chat", 5, 120))
        await bring_up(platform)
        await platform.say("lead", "/gpu up coder-fim because demo")
        await platform.click("lead", "Replace")
        await platform.click("admin", "Approve")
        platform.cluster.set_speed(STOPPED)
        await platform.sees("bringing down coder-chat …")
        await asyncio.sleep(9)  # longer than idle.down_after
        platform.cluster.set_speed(SPEED)
        traffic.cancel()
        await asyncio.gather(traffic, return_exceptions=True)
        await platform.sees("coder-fim is up and answers")
        await platform.sees("coder-fim has been idle", user="lead")
        texts = [revision.text for revision in platform.workspace.transcript]
        until_idle = texts[: next(n for n, text in enumerate(texts) if "coder-fim has been idle" in text)]
        assert not [text for text in until_idle if "Bring down" in text.splitlines()[0]]


async def test_an_extension_above_the_limit_needs_an_approval(platform: Platform) -> None:
    """The holder extends the lease immediately; above `lease.longest` an approver decides. Other people may not extend it."""
    await bring_up(platform, words="for 2h")
    (before,) = await read_leases(platform)
    await platform.say("dev", "/gpu extend 1h")
    await platform.sees("of @dev for coder-chat was extended to")
    (after,) = await read_leases(platform)
    assert before.ends
    assert after.ends
    assert (after.ends - before.ends).total_seconds() == 3600
    message = f"is up and answers; all smoke tests passed. @dev holds the GPU until {after.ends:%H:%M} UTC"
    await platform.until(lambda: any(message in text for text in platform.visible()))
    await platform.say("dev", "/gpu extend 9h")
    await platform.sees("the limit is 8 h")
    await platform.click("lead", "Approve")
    await until_ends(platform, 12)


async def until_ends(platform: Platform, hours: int) -> None:
    async with asyncio.timeout(platform.patience):
        while True:
            (lease,) = await read_leases(platform)
            if lease.ends and lease.ready and (lease.ends - lease.ready).total_seconds() == hours * 3600:
                return
            await asyncio.sleep(0.05)


async def test_only_an_admin_with_a_reason_breaks_a_lease(platform: Platform) -> None:
    """The reason is public, and another approver must agree."""
    await bring_up(platform)
    await platform.say("dev", "/gpu release because I want it")
    await platform.sees("Only an admin may break somebody's lease")
    await platform.say("admin", "/gpu release")
    await platform.sees("Give a reason", "admin")
    await platform.say("admin", "/gpu release because nobody answers")
    await platform.sees("Breaks the lease on coder-chat")
    await platform.click("lead", "Approve")
    await platform.sees("breaks your lease")
    await platform.sees("is down and the GPU is free")
    assert await read_leases(platform) == []


async def test_a_lost_lease_is_rebuilt_and_a_resurrected_one_is_closed(
    platform: Platform,
) -> None:
    """The replica missed the last write, which was the claim or the release. The state of the cluster shows which one."""
    await bring_up(platform)
    (lease,) = await read_leases(platform)
    await platform.redis.delete(LEASES)
    await platform.sees("Redis had lost the lease of coder-chat")
    assert (await read_leases(platform))[0].fence == lease.fence
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("is down and the GPU is free")
    await platform.redis.hset(LEASES, "coder-chat", lease.model_dump_json())
    await platform.sees("it was down already")
    async with asyncio.timeout(platform.patience):
        while await read_leases(platform):
            await asyncio.sleep(0.05)


async def test_a_bring_up_whose_redis_was_flushed_ends_as_a_session(tmp_path: Path, redis_url: str) -> None:
    """The operation is lost, but not the lease: its time starts when the model answers, and the session can be ended.

    The test takes a while, because docket recreates flushed timers only every minute.
    """
    async with open_platform(tmp_path, redis_url, speed=60) as platform:
        await platform.say("dev", "/gpu up coder-chat for 1h because flushed")
        await platform.click("lead", "Approve")
        await platform.until(lambda: replicas(platform, "coder-chat") == 1)  # the lease is then on the Deployment
        await platform.redis.flushall()
        await platform.say("dev", "/gpu status")
        await platform.sees("coder-chat is held by @dev")
        async with asyncio.timeout(platform.patience):
            while not [lease for lease in await read_leases(platform) if lease.ready]:
                await asyncio.sleep(0.1)
        await platform.say("dev", "/gpu down coder-chat")
        await platform.sees("is down and the GPU is free")
        assert replicas(platform, "coder-chat") == 0


@pytest.mark.usefixtures("forked")
async def test_two_bots_do_everything_once(platform: Platform, tmp_path: Path) -> None:
    """There is one card, alert, lease and receipt, although two bots sweep, reconcile and serve the queue."""
    port = free_port()
    (tmp_path / "second").mkdir()
    environment = platform.environment | {"STOKER_PORT": str(port), "STOKER_DATA_DIR": str(tmp_path / "second")}
    async with Bot(environment, port=port, directory=tmp_path / "second"):
        await bring_up(platform, words="because two of us")
        await platform.cluster.scale("coder-fim", 1)
        await platform.sees("coder-fim uses the GPU, and nobody holds a lease")
        await platform.cluster.scale("coder-fim", 0)
        await platform.sees("had used the GPU without a lease since")
        await platform.say("dev", "/gpu down coder-chat")
        await platform.sees("is down and the GPU is free")
        visible = platform.visible()
        assert len([text for text in visible if "Bring up coder-chat" in text]) == 1
        assert len([text for text in visible if "had used the GPU without a lease since" in text]) == 1
        assert len([text for text in visible if "Receipt" in text]) == 1
        assert await read_leases(platform) == []


async def test_unmanaged_use_of_the_gpu_is_reported_once(platform: Platform) -> None:
    """Repeated checks do not report it again; when it is resolved, the message has no buttons."""
    await platform.cluster.scale("coder-fim", 1)
    await platform.sees("coder-fim uses the GPU, and nobody holds a lease")
    await asyncio.sleep(5)
    assert len([text for text in platform.visible() if "nobody holds a lease" in text]) == 1
    await platform.click("lead", "Bring down")
    message = await platform.sees("had used the GPU without a lease since")
    assert "[Adopt]" not in message
