"""The platform's clock is faster than real time, and can be accelerated during a wait."""

import asyncio
import time

import pytest

from sandbox.clock import Clock
from sandbox.objects import ObjectStore
from sandbox.slack.history import History


async def test_a_minute_passes_in_a_moment() -> None:
    """A sleep takes its seconds by this clock."""
    clock = Clock(6000)
    began = clock.now()
    await clock.sleep(60)
    assert clock.now() - began >= 59


async def test_a_faster_clock_shortens_running_sleeps() -> None:
    """A sleep of hours ends quickly once the clock is fast enough; the elapsed time counts."""
    clock = Clock(1)
    sleeping = asyncio.create_task(clock.sleep(7200))
    await asyncio.sleep(0.05)
    assert not sleeping.done()
    clock.speed = 1_000_000
    async with asyncio.timeout(20):
        await sleeping
    assert clock.now() >= 7200


async def test_time_only_increases() -> None:
    """Slowing down keeps the elapsed time."""
    clock = Clock(1_000_000)
    time.sleep(0.01)
    before = clock.now()
    clock.speed = 1
    assert clock.now() >= before > 5000
    with pytest.raises(ValueError, match="above 0"):
        clock.speed = 0


async def test_a_shared_clock_dates_everything_and_keeps_its_speed() -> None:
    """Messages and objects have its date; if the bot does not share the clock, they have the real date."""
    shared, separate = Clock(3600, shared=True), Clock(3600)
    time.sleep(0.05)
    real = time.time()
    assert shared.date().timestamp() - real > 100
    assert float(History(shared.date).next_ts()) - real > 100
    assert ObjectStore(shared.date).timestamp() > ObjectStore(separate.date).timestamp()
    assert abs(float(History(separate.date).next_ts()) - real) < 10
    assert separate.for_the_bot() == {}
    assert shared.for_the_bot()["STOKER_CLOCK"].startswith("3600x since 20")
    with pytest.raises(ValueError, match="The bot uses the same clock"):
        shared.speed = 1
