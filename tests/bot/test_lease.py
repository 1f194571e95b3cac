"""Who holds the GPU."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from bot.domain import Lease
from bot.lease import GpuBusy, Leases

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def a_lease(model: str = "coder-chat", op: str = "op1", holder: str = "U1") -> Lease:
    return Lease(model=model, op=op, holder=holder, fence=0, hold=timedelta(hours=2), claimed=NOW, reason="demo")


async def test_of_many_claims_at_once_one_wins(redis: Redis) -> None:
    """Twenty operations claim the one GPU; one gets it, nineteen hear who it is."""
    leases = Leases(redis)
    claims = [leases.claim(a_lease(f"model-{n}", f"op{n}")) for n in range(20)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    won = [r for r in results if isinstance(r, Lease)]
    assert len(won) == 1
    busy = [r for r in results if isinstance(r, GpuBusy)]
    assert len(busy) == 19
    assert all(error.holder == won[0] for error in busy)


async def test_a_claim_is_re_entrant_for_its_own_operation(redis: Redis) -> None:
    """A restarted operation gets its own lease back, as it is."""
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
    """Each claim gets a higher number, also after a release."""
    leases, fences = Leases(redis), []
    for n in range(3):
        lease = await leases.claim(a_lease(op=f"op{n}"))
        fences.append(lease.fence)
        assert await leases.release(lease)
    assert fences == [1, 2, 3]


async def test_a_stale_worker_changes_nothing(redis: Redis) -> None:
    """A worker whose lease was released and claimed anew by somebody else can neither change nor release it."""
    leases = Leases(redis)
    stale = await leases.claim(a_lease())
    await leases.release(stale)
    current = await leases.claim(a_lease(op="op2"))
    assert not await leases.release(stale)
    assert await leases.change(stale, lambda held: held.model_copy(update={"keeps": 9})) is None
    assert await leases.held() == (current,)


async def test_two_slots_hold_two_models_and_no_third(redis: Redis) -> None:
    """With two GPUs, two models run and the third hears that it is busy."""
    leases = Leases(redis, slots=2)
    await leases.claim(a_lease("a", "1"))
    await leases.claim(a_lease("b", "2"))
    with pytest.raises(GpuBusy):
        await leases.claim(a_lease("c", "3"))


async def test_changes_at_once_are_all_kept(redis: Redis) -> None:
    """Ten changes that race on one lease all take effect."""
    leases = Leases(redis)
    lease = await leases.claim(a_lease())
    await asyncio.gather(
        *(leases.change(lease, lambda held: held.model_copy(update={"keeps": held.keeps + 1})) for _ in range(10))
    )
    found = await leases.of("coder-chat")
    assert found is not None
    assert found.keeps == 10
