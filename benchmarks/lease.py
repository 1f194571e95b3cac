"""Measure the rate of claims and releases of a lease, and check that no slot is granted twice under contention.

    python benchmarks/lease.py                      # 20 000 contended claims, a few seconds
    python benchmarks/lease.py --claims 1000000     # a million

The benchmark starts a real server. `CONTENDERS` workers, each with its own connection, claim the only slot as fast as they
can. A worker that gets the slot sets a key with SET NX and deletes it before the release, so that even a short time with
two holders is detected. The benchmark then compares the rate with that of direct calls of the same two scripts; both alternate in one run.
"""

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis.asyncio import Redis

from bot.domain.leases import Lease
from bot.embedded import embedded_redis
from bot.state.leases import GpuBusy, Leases

CONTENDERS = 32
PAIRS = 5000
FLOOR = 0.95


def new_lease(op: str) -> Lease:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    return Lease(
        model="coder-chat", op=op, holder="U0DEV", fence=0, hold=timedelta(hours=2), claimed=now, reason="demo"
    )


async def contend_for_slot(url: str, claims: int) -> tuple[int, int, float]:
    """Let `CONTENDERS` workers make `claims` claims; return the numbers of grants and refusals, and the seconds.

    Raises SystemExit if there are two holders, or if a fence did not increase.
    """
    granted: list[int] = []
    refused, left = 0, claims
    witness = Redis.from_url(url)

    async def contend(number: int) -> None:
        nonlocal refused, left
        redis = Redis.from_url(url)
        leases, lease = Leases(redis), new_lease(f"op{number}")
        while left > 0:
            left -= 1
            try:
                granted_lease = await leases.claim(lease)
            except GpuBusy:
                refused += 1
                continue
            if not await witness.set("holder", number, nx=True):
                raise SystemExit(f"two holders at fence {granted_lease.fence}")
            granted.append(granted_lease.fence)
            await witness.delete("holder")
            if not await leases.release(granted_lease):
                raise SystemExit(f"fence {granted_lease.fence} was lost")
        await redis.aclose()

    began = time.perf_counter()
    await asyncio.gather(*(contend(number) for number in range(CONTENDERS)))
    seconds = time.perf_counter() - began
    await witness.aclose()
    if granted != sorted(set(granted)):
        raise SystemExit("a fence did not increase")
    return len(granted), refused, seconds


async def compare_with_scripts(url: str) -> tuple[float, float]:
    """Return Stoker's rate relative to the raw scripts' rate, and Stoker's pairs of claim and release per second."""
    redis = Redis.from_url(url)
    leases, lease = Leases(redis), new_lease("op")
    text = lease.model_dump_json()
    keys = [leases._leases, leases._fence, leases._queue]

    async def through_stoker() -> None:
        await leases.release(await leases.claim(lease))

    async def raw() -> None:
        _, fence = await leases._claim(keys=keys, args=[lease.model, lease.op, 1, text, 0])
        await leases._release(keys=keys[:1], args=[lease.model, fence])

    spent = {through_stoker: 0.0, raw: 0.0}
    for turn in range(2 * PAIRS):
        pair = through_stoker if turn % 2 else raw
        began = time.perf_counter()
        await pair()
        if turn >= PAIRS // 5:  # the first pairs warm up
            spent[pair] += time.perf_counter() - began
    await redis.aclose()
    return spent[raw] / spent[through_stoker], (2 * PAIRS - PAIRS // 5) / 2 / spent[through_stoker]


async def main(claims: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with embedded_redis(Path(directory)) as url:
            async with Redis.from_url(url) as redis:
                await redis.config_set("appendonly", "no")  # the calls are measured, not the disk
            share, pairs = await compare_with_scripts(url)
            print(f"claim + release: {pairs:,.0f} pairs/s, ratio to the raw scripts {share:.2f} (floor {FLOOR})")
            granted, refused, seconds = await contend_for_slot(url, claims)
            print(
                f"{granted + refused:,} contended claims by {CONTENDERS} in {seconds:.0f} s ({(granted + refused) / seconds:,.0f}/s):"
            )
            print(f"{granted:,} granted, {refused:,} refused, never two holders, every fence above the previous one")
            if share < FLOOR:
                raise SystemExit(f"the rate is below {FLOOR} of the raw scripts' rate")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().claims))
