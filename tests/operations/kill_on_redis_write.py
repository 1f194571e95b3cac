"""A Redis connection on which the bot is killed right after a step is recorded, a lease moved or a status written.

The bytes are forwarded unchanged; the kind of write is read from the commands' arguments.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from bot.state.records import LARGEST
from tests.operations.kill_on_http_write import KillOnWrite

_WRITES = (
    (re.compile(rb"\{stoker\}:op:[0-9a-f]+:steps\r\n\$\d+\r\n([^\r\n]+)\r\n\$"), "step"),
    (re.compile(rb"EVALSHA\r\n.{0,80}?\{stoker\}:leases\r\n()", re.DOTALL), "lease"),
    (re.compile(rb"EVALSHA\r\n.{0,80}?\{stoker\}:queue\r\n()", re.DOTALL), "queue"),
    (
        re.compile(rb'EVALSHA\r\n.{0,2000}?"status":"(waiting for the GPU|running|succeeded|failed)"', re.DOTALL),
        "status",
    ),
)

_READ = re.compile(rb"EVALSHA\r\n\$40\r\n\w{40}\r\n\$1\r\n1\r\n\$\d+\r\n[^\r\n]+\r\n\$\d+\r\n%d\r\n" % LARGEST)
"""A script with one key and the maximum length of a value; it only reads."""


def kind_of_write(command: bytes) -> str:
    """Return the kind of write of a command's bytes; empty for anything else."""
    if _READ.search(command):
        return ""
    for pattern, kind in _WRITES:
        if match := pattern.search(command):
            return f"{kind} {match[1].decode()}".strip()
    return ""


@asynccontextmanager
async def redis_proxy(kills: KillOnWrite, environment: dict[str, str]) -> AsyncIterator[None]:
    """Start the proxy between the bot and its Redis."""
    socket = urlsplit(environment["REDIS_URL"]).path
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            tasks.add(task)
        redis_reader, redis_writer = await asyncio.open_unix_connection(socket)
        response_arrived: asyncio.Future[None] | None = None

        async def forward_responses() -> None:
            while data := await redis_reader.read(2**16):
                if response_arrived and not response_arrived.done():
                    response_arrived.set_result(None)
                    await killed.wait()
                writer.write(data)
                await writer.drain()

        killed = asyncio.Event()
        forwarding = asyncio.create_task(forward_responses())
        try:
            while data := await reader.read(2**20):
                kind = kind_of_write(data)
                kills_bot = bool(kind) and kills.kills_at(kind)
                response_arrived = asyncio.get_running_loop().create_future() if kills_bot else None
                redis_writer.write(data)
                if response_arrived:
                    await response_arrived
                    await kills.kill_at(kind)
                    killed.set()
        except ConnectionError:
            pass  # the bot is dead, as intended
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)
            for end in (redis_writer, writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environment["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
