"""Redis by every kind of address, each a real server: with a password, over TLS, behind Sentinels, as a cluster."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from docket import Docket
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bot.clients.redis import AnyRedis, Password, durability, for_docket, opened
from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation
from bot.domain.requests import BringUp
from bot.embedded import _binary
from bot.state.audit import AuditLog
from bot.state.leases import GpuBusy, Leases
from bot.state.operations import Operations
from bot.state.step_ledger import StepLedger
from sandbox.process import free_port

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@asynccontextmanager
async def server(directory: Path, *options: str, sentinel: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Redis-protocol server with these options, until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        _binary(), *options, "--dir", str(directory), *(["--sentinel"] if sentinel else []),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def connected(url: str, password: Password | None = None) -> AsyncIterator[AnyRedis]:
    async with opened(url, password) as redis:
        async with asyncio.timeout(60):
            while True:
                try:
                    await redis.ping()
                    break
                except (RedisError, OSError):
                    await asyncio.sleep(0.1)
        yield redis


@asynccontextmanager
async def over_tls(port: int, certificate: Path, key: Path) -> AsyncIterator[int]:
    """A port with TLS in front of one without, like a managed Redis."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    terminator = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with terminator:
        yield terminator.sockets[0].getsockname()[1]


async def use(redis: AnyRedis, url: str, password: Password | None = None, *, at_once: int = 300) -> None:
    """Do everything that the bot does with Redis: an operation, a step, a lease, a docket task, and `at_once` concurrent
    requests.
    """
    operations, leases = Operations(redis), Leases(redis)
    request = BringUp(model="coder-chat", actor="U0DEV", channel="C1", at=NOW)
    await operations.create(BringUpOperation(id="op1", request=request, updated=NOW))
    assert [op.id for op in await operations.open()] == ["op1"]

    async def act() -> int:
        return 7

    assert await StepLedger(redis).once("op1", "step", act, int) == 7
    lease_request = Lease(model="coder-chat", op="op1", holder="U0DEV", fence=0, hold=timedelta(hours=1), claimed=NOW)
    lease = await leases.claim(lease_request)
    with pytest.raises(GpuBusy):
        await leases.claim(lease_request.model_copy(update={"model": "coder-fim", "op": "op2"}))
    assert await leases.release(lease)
    assert [entry["event"] async for entry in AuditLog(redis).entries()] == ["requested", "step"]
    async with Docket(name="stoker", url=for_docket(url), credential_provider=password) as docket:
        docket.register(nothing)
        await docket.add(nothing, key="once")("op1")
    # With more than redis-py's default number of connections, the bot reported that Redis does not answer.
    assert all(await asyncio.gather(*(operations.is_open("op1") for _ in range(at_once))))


async def nothing(op_id: str) -> None:
    """A task that does nothing."""


async def test_one_server_with_a_password(tmp_path: Path) -> None:
    """The password has its own setting, so it is in no URL."""
    port, password = free_port(), Password(lambda: SecretStr("p@ss/word"))
    url = f"redis://127.0.0.1:{port}/0"
    options = ["--port", str(port), "--requirepass", "p@ss/word"]
    async with server(tmp_path, *options), connected(url, password) as redis:
        await use(redis, url, password)


async def test_a_rotated_password_is_used_by_the_next_connection(tmp_path: Path) -> None:
    """When the server and the mounted file change, the bot continues without a restart."""
    port, current = free_port(), ["first"]
    url, password = f"redis://127.0.0.1:{port}/0", Password(lambda: SecretStr(current[0]))
    async with server(tmp_path, "--port", str(port), "--requirepass", "first"), connected(url, password) as redis:
        assert isinstance(redis, Redis)
        await redis.config_set("requirepass", "second")
        current[0] = "second"
        await redis.connection_pool.disconnect()
        assert await redis.ping()


async def test_tls(tmp_path: Path) -> None:
    """rediss:// uses TLS, and verifies the certificate with the authority in the address."""
    port, key, certificate = free_port(), tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate),
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    async with server(tmp_path / "data", "--port", str(port)), over_tls(port, certificate, key) as secure:
        async with connected(f"redis://127.0.0.1:{port}"):
            pass  # Redis answers
        url = f"rediss://127.0.0.1:{secure}/0?ssl_ca_certs={certificate}"
        async with connected(url) as redis:
            # The terminator shares a core with other tests: sixty simultaneous handshakes exceed the timeout of a connection.
            await use(redis, url, at_once=4)
        async with opened(f"rediss://127.0.0.1:{secure}/0") as distrusting:
            with pytest.raises(RedisError, match="CERTIFICATE_VERIFY_FAILED"):
                await distrusting.ping()


async def test_sentinel(tmp_path: Path) -> None:
    """redis+sentinel:// finds the primary by its name at the Sentinels."""
    port, watch = free_port(), free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"port {watch}\nsentinel monitor stoker 127.0.0.1 {port} 1\n")
    url = f"redis+sentinel://127.0.0.1:{watch}/stoker/0"
    async with (
        server(tmp_path / "primary", "--port", str(port)),
        server(tmp_path / "sentinel", str(configuration), sentinel=True),
        connected(url) as redis,
    ):
        await use(redis, url)


async def test_cluster(tmp_path: Path) -> None:
    """redis+cluster:// works with every script, because all keys of the bot are in one slot."""
    port = free_port()
    url = f"redis+cluster://127.0.0.1:{port}"
    async with server(tmp_path, "--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(free_port())):
        async with connected(f"redis://127.0.0.1:{port}") as node:
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            async with asyncio.timeout(30):
                while "cluster_state:ok" not in str(await node.execute_command("CLUSTER", "INFO")):
                    await asyncio.sleep(0.1)
        async with connected(url) as redis:
            await use(redis, url)
            assert (await durability(redis)).appends is False


async def test_the_durability_of_a_server_is_read(tmp_path: Path) -> None:
    """The persistence and the eviction policy of the server are read."""
    port = free_port()
    options = ["--port", str(port), "--appendonly", "yes", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "50mb"]
    async with server(tmp_path, *options), connected(f"redis://127.0.0.1:{port}") as redis:
        settings = await durability(redis)
    assert (settings.appends, settings.last_write_ok, settings.evicts) == (True, True, "allkeys-lru")


@pytest.mark.parametrize("url", ["redis+sentinel://host:26379", "redis+sentinel:///stoker"])
async def test_an_incomplete_address_is_refused(url: str) -> None:
    """Both the Sentinels and a service name are required."""
    with pytest.raises(ValueError, match="SERVICE"):
        async with opened(url):
            pass


async def test_a_hundred_operations_at_work_leave_docket_connections(tmp_path: Path) -> None:
    """docket only gets an address, which therefore contains the maximum number of connections."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    async with (
        server(tmp_path, "--port", str(port)),
        connected(url),
        Docket(name="stoker", url=for_docket(url)) as docket,
    ):
        docket.register(nothing)
        await asyncio.gather(*(docket.add(nothing, key=f"burst {number}")("op1") for number in range(150)))
        assert (await docket.snapshot()).total_tasks == 150


async def test_the_durability_is_unknown_without_the_permission_to_read_it(tmp_path: Path) -> None:
    """An account may lack INFO. Unknown means neither an unavailable server nor a server that loses data."""
    port = free_port()
    account = ("--user", "default", "on", "nopass", "~*", "&*", "+@all", "-info")
    async with (
        server(tmp_path, "--port", str(port), *account),
        connected(f"redis://127.0.0.1:{port}/0") as redis,
    ):
        settings = await durability(redis)
    assert (settings.appends, settings.evicts, settings.last_write_ok) == (None, None, None)
