"""The leases and the queue."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from bot.domain.leases import Lease
from bot.domain.marks import read_mark
from bot.state.leases import GpuBusy, GpuQueued, LeaseMoved, Leases

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def a_lease(model: str = "coder-chat", op: str = "op1", holder: str = "U1") -> Lease:
    return Lease(model=model, op=op, holder=holder, fence=0, hold=timedelta(hours=2), claimed=NOW, reason="demo")


async def test_one_of_many_simultaneous_claims_succeeds(redis: Redis) -> None:
    """Twenty operations claim the one GPU; one gets it, and nineteen get the holder's name."""
    leases = Leases(redis)
    claims = [leases.claim(a_lease(f"model-{n}", f"op{n}")) for n in range(20)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    won = [r for r in results if isinstance(r, Lease)]
    assert len(won) == 1
    busy = [r for r in results if isinstance(r, GpuBusy)]
    assert len(busy) == 19
    assert all(error.holder == won[0] for error in busy)


async def test_a_claim_is_re_entrant_for_its_own_operation(redis: Redis) -> None:
    """A restarted operation gets its own lease back unchanged."""
    leases = Leases(redis)
    first = await leases.claim(a_lease())
    assert await leases.claim(a_lease()) == first


async def test_the_same_model_for_another_operation_is_busy(redis: Redis) -> None:
    """A second bring-up of the model that is up does not take the lease over."""
    leases = Leases(redis, slots=2)
    await leases.claim(a_lease())
    with pytest.raises(GpuBusy, match=r"coder-chat.*<@U1>.*03:00 UTC.*demo"):
        await leases.claim(a_lease(op="op2", holder="U2"))


async def test_the_fence_only_grows(redis: Redis) -> None:
    """Each claim gets a higher number, even after a release."""
    leases, fences = Leases(redis), []
    for n in range(3):
        lease = await leases.claim(a_lease(op=f"op{n}"))
        fences.append(lease.fence)
        assert await leases.release(lease)
    assert fences == sorted(set(fences))


async def test_a_stale_worker_changes_nothing(redis: Redis) -> None:
    """A worker whose lease was released and claimed again by somebody else can neither change nor release it."""
    leases = Leases(redis)
    stale = await leases.claim(a_lease())
    await leases.release(stale)
    current = await leases.claim(a_lease(op="op2"))
    assert not await leases.release(stale)
    assert await leases.change(stale, lambda current: current.model_copy(update={"keeps": 9})) is None
    assert await leases.held() == (current,)


async def test_two_slots_hold_two_models_and_no_third(redis: Redis) -> None:
    """With two GPUs, two models run, and the third request gets GpuBusy."""
    leases = Leases(redis, slots=2)
    await leases.claim(a_lease("a", "1"))
    await leases.claim(a_lease("b", "2"))
    with pytest.raises(GpuBusy):
        await leases.claim(a_lease("c", "3"))


async def test_simultaneous_changes_are_all_kept(redis: Redis) -> None:
    """Ten concurrent changes of one lease all take effect."""
    leases = Leases(redis)
    lease = await leases.claim(a_lease())
    await asyncio.gather(
        *(
            leases.change(lease, lambda current: current.model_copy(update={"keeps": current.keeps + 1}))
            for _ in range(10)
        )
    )
    changed = await leases.of("coder-chat")
    assert changed is not None
    assert changed.keeps == 10


async def test_a_free_slot_goes_to_the_head_of_the_queue(redis: Redis) -> None:
    """A new request and the second in the queue must wait; the first in the queue gets the slot and leaves the queue."""
    leases = Leases(redis)
    assert [await leases.join("first"), await leases.join("second"), await leases.join("first")] == [0, 1, 0]
    for late in ("newcomer", "second"):
        with pytest.raises(GpuQueued):
            await leases.claim(a_lease(op=late))
    assert (await leases.claim(a_lease(op="first"))).op == "first"
    assert await leases.queue() == ("second",)


async def test_two_free_slots_go_to_the_first_two(redis: Redis) -> None:
    """With two GPUs free, the second in line need not wait for the first."""
    leases = Leases(redis, slots=2)
    for op in ("1", "2", "3"):
        await leases.join(op)
    await leases.claim(a_lease("b", "2"))
    with pytest.raises(GpuQueued):
        await leases.claim(a_lease("c", "3"))
    await leases.claim(a_lease("a", "1"))


async def test_a_replacement_hands_the_slot_over_in_one_step(redis: Redis) -> None:
    """The new lease has a higher fence, the old one is gone, and a repeated replacement gives the same lease."""
    leases = Leases(redis)
    old = await leases.claim(a_lease())
    await leases.join("waiting")  # a replacement is approved: it does not queue
    new = await leases.replace(old, a_lease("coder-fim", "op2", "U2"))
    assert new.fence > old.fence
    assert await leases.replace(old, a_lease("coder-fim", "op2", "U2")) == new
    assert await leases.held() == (new,)
    assert not await leases.release(old)


async def test_a_replacement_of_a_lease_that_moved_changes_nothing(redis: Redis) -> None:
    """The approval was for another holder."""
    leases = Leases(redis)
    old = await leases.claim(a_lease())
    await leases.release(old)
    current = await leases.claim(a_lease(op="op2", holder="U2"))
    with pytest.raises(LeaseMoved, match="has another holder now"):
        await leases.replace(old, a_lease("coder-fim", "op3"))
    assert await leases.held() == (current,)


async def test_a_lost_lease_is_restored_and_the_next_fence_is_higher(redis: Redis) -> None:
    """After a flush the annotation's lease is restored unchanged; the next fence is above it."""
    leases = Leases(redis)
    for n in range(3):
        lost = await leases.claim(a_lease(op=f"op{n}"))
        if n < 2:
            await leases.release(lost)
    await redis.flushall()
    restored = read_mark(lost.mark, "coder-chat")
    assert restored == lost
    assert await leases.restore(restored)
    assert not await leases.restore(restored)  # the lease exists already
    with pytest.raises(GpuBusy):
        await leases.claim(a_lease("coder-fim", "op9"))
    await leases.release(restored)
    assert (await leases.claim(a_lease(op="op10"))).fence > lost.fence


async def test_the_fence_stays_above_those_in_the_cluster(redis: Redis) -> None:
    """A flushed counter does not restart below the fence on the Deployments."""
    ahead = 10**13
    assert (await Leases(redis).claim(a_lease(), floor=ahead)).fence == ahead + 1


async def test_the_fence_of_a_claim_that_a_failover_lost_is_not_reused(redis: Redis) -> None:
    """A replica that missed the write has neither the lease nor the counter: the next fence is still above the lost one."""
    leases = Leases(redis)
    lost = await leases.claim(a_lease())
    await redis.flushall()
    await asyncio.sleep(0.002)
    assert (await leases.claim(a_lease(op="op2"))).fence > lost.fence


async def test_a_lease_in_redis_is_never_replaced_by_an_annotation(redis: Redis) -> None:
    """People with kubectl can write an annotation: neither an old nor a newer one changes a lease that is held."""
    leases = Leases(redis)
    lease = await leases.claim(a_lease())
    changed = await leases.change(lease, lambda current: current.model_copy(update={"keeps": 1}))
    assert changed is not None
    assert not await leases.restore(lease)
    assert await leases.of("coder-chat") == changed
    newer = changed.model_copy(update={"keeps": 2, "revision": changed.revision + 1})
    assert not await leases.restore(newer)
    assert await leases.of("coder-chat") == changed


async def test_a_lost_lease_does_not_displace_a_holder(redis: Redis) -> None:
    """Somebody else has the slot now: there are never two holders, so a person must decide."""
    leases = Leases(redis)
    await leases.claim(a_lease("coder-fim", "op2"))
    with pytest.raises(GpuBusy, match="coder-fim"):
        await leases.restore(a_lease().model_copy(update={"fence": 7}))


@pytest.mark.parametrize("mark", [None, "", "{}", "not json", '{"op":"x","fence":3}', a_lease("other").mark])
def test_an_annotation_that_is_not_this_models_lease_is_ignored(mark: str | None) -> None:
    """Anybody with kubectl can write annotations."""
    assert read_mark(mark, "coder-chat") is None
