"""A real failover by real Sentinels while a lease is held: the GPU has one holder, and no fence is given twice."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from bot.clients.redis import AnyRedis
from bot.domain.leases import Lease
from bot.errors import Unavailable
from bot.state.leases import GpuBusy, Leases
from sandbox.process import free_port
from tests.clients.test_redis import NOW, connected, server

pytestmark = pytest.mark.timeout(280)


@dataclass(frozen=True)
class Pair:
    """A primary and its replica, watched by three Sentinels; `redis` is the bot's client."""

    redis: AnyRedis
    primary: asyncio.subprocess.Process
    replica: asyncio.subprocess.Process


@asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[Pair]:
    first, second = free_port(), free_port()
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(server(directory / "primary", "--port", str(first)))
        await stack.enter_async_context(connected(f"redis://127.0.0.1:{first}"))
        replica = await stack.enter_async_context(
            server(directory / "replica", "--port", str(second), "--replicaof", f"127.0.0.1 {first}")
        )
        await stack.enter_async_context(connected(f"redis://127.0.0.1:{second}"))
        ports = [free_port() for _ in range(3)]
        for port in ports:
            file = directory / f"sentinel-{port}.conf"
            file.write_text(
                f"port {port}\nsentinel monitor stoker 127.0.0.1 {first} 2\n"
                "sentinel down-after-milliseconds stoker 1000\nsentinel failover-timeout stoker 5000\n"
            )
            await stack.enter_async_context(server(directory / str(port), str(file), sentinel=True))
        for port in ports:
            async with connected(f"redis://127.0.0.1:{port}") as sentinel:
                await until(sentinel, "num-other-sentinels", "2")
                await until(sentinel, "num-slaves", "1")
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        redis = await stack.enter_async_context(connected(f"redis+sentinel://{hosts}/stoker/0"))
        yield Pair(redis, primary, replica)


async def until(sentinel: AnyRedis, field: str, expected: str) -> None:
    """Wait until this field of the Sentinel's report has the expected value."""
    async with asyncio.timeout(60):
        while True:
            reply = await sentinel.execute_command("SENTINEL", "MASTER", "stoker")
            fields = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
            if str(fields.get(field, fields.get(field.encode()))).strip("b'") == expected:
                return
            await asyncio.sleep(0.2)


def new_lease(op: str) -> Lease:
    return Lease(model=f"model-{op}", op=op, holder="U0DEV", fence=0, hold=timedelta(hours=1), claimed=NOW)


async def claim(leases: Leases, op: str) -> Lease | GpuBusy:
    """Claim once there is a primary again, and return the result; until then a claim fails, and grants nothing."""
    async with asyncio.timeout(90):
        while True:
            try:
                return await leases.claim(new_lease(op))
            except GpuBusy as busy:
                return busy
            except (Unavailable, RedisError):
                await asyncio.sleep(0.2)


async def test_a_lease_survives_the_loss_of_its_primary(tmp_path: Path) -> None:
    """After the failover the holder is still known; its release and the next claim work as usual."""
    async with watched(tmp_path) as pair:
        leases = Leases(pair.redis)
        lease = await leases.claim(new_lease("op1"))
        assert await pair.redis.execute_command("WAIT", 1, 20_000) == 1
        pair.primary.kill()
        refused = await claim(leases, "op2")
        assert isinstance(refused, GpuBusy)
        assert refused.holder == lease
        assert await claim(leases, "op1") == lease, "the operation does not get its lease back unchanged"
        assert await leases.release(lease)
        following = await claim(leases, "op2")
        assert isinstance(following, Lease)
        assert following.fence > lease.fence


async def test_a_claim_that_the_replica_missed_loses_to_the_next_one(tmp_path: Path) -> None:
    """Redis may lose a confirmed write. The lost holder's fence is older, so it can change nothing."""
    async with watched(tmp_path) as pair:
        leases = Leases(pair.redis)
        pair.replica.send_signal(signal.SIGSTOP)
        await pair.redis.execute_command(
            "CLIENT", "KILL", "TYPE", "replica"
        )  # the server can become a replica only when it continues
        forgotten = await leases.claim(new_lease("op1"))
        pair.primary.kill()
        await pair.primary.wait()
        pair.replica.send_signal(signal.SIGCONT)
        now = await claim(leases, "op2")
        assert isinstance(now, Lease), "the new primary has the first claim"
        assert now.fence > forgotten.fence
        assert not await leases.release(forgotten), "a lost lease released a slot"
        assert [lease.op for lease in await leases.held()] == ["op2"]
