"""The availability of the GPU. While leases hold every slot, Redis is sufficient: there is no cluster in these tests."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.domain.leases import Lease
from bot.gpu.availability import GpuAvailability
from bot.services import Services
from bot.state.leases import GpuBusy
from bot.wiring import Wiring
from tests.commands.conftest import hf_endpoint, manifest, svc, workspace

__all__ = ["hf_endpoint", "manifest", "svc", "workspace"]

LEASE = Lease(
    model="coder-chat", op="up1", holder="U0DEV", fence=0, hold=timedelta(hours=1), claimed=datetime.now(UTC)
)  # fmt: skip


async def test_a_free_slot_is_left_for_the_first_in_the_queue(svc: Services) -> None:
    availability = Wiring(svc).of(GpuAvailability)
    assert await availability.is_left_after(0)
    assert not await availability.is_left_after(1)
    await svc.leases.claim(LEASE)
    assert not await availability.is_left_after(0)


async def test_a_lease_that_holds_the_last_slot_is_named(svc: Services) -> None:
    availability = Wiring(svc).of(GpuAvailability)
    await svc.leases.claim(LEASE)
    assert await availability.free_slots() == 0
    with pytest.raises(GpuBusy, match="coder-chat"):
        await availability.refuse_if_taken("coder-fim")
