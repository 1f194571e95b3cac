"""A Redis connection on which the bot is killed right after a step is recorded, a lease moved or a status written.

The bytes are forwarded unchanged; the kind of write is read from the commands' arguments.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from bot.state.records import LARGEST
from tests.operations.kill_on_http_write import Tripwire

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
"""A script with one key and the maximum length of a value: it reads."""


def written(command: bytes) -> str:
    """Return the kind of write of a command's bytes; empty for anything else."""
    if _READ.search(command):
        return ""
    for pattern, kind in _WRITES:
        if found := pattern.search(command):
            return f"{kind} {found[1].decode()}".strip()
    return ""


@asynccontextmanager
async def ledgerwire(wire: Tripwire, environment: dict[str, str]) -> AsyncIterator[None]:
    """Start the proxy between the bot and its Redis."""
    socket = urlsplit(environment["REDIS_URL"]).path
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            tasks.add(task)
        there_reader, there_writer = await asyncio.open_unix_connection(socket)
        heard: asyncio.Future[None] | None = None

        async def answers() -> None:
            while data := await there_reader.read(2**16):
                if heard and not heard.done():
                    heard.set_result(None)
                    await killed.wait()
                writer.write(data)
                await writer.drain()

        killed = asyncio.Event()
        back = asyncio.create_task(answers())
        try:
            while data := await reader.read(2**20):
                kind = written(data)
                strikes = bool(kind) and wire.strikes(kind)
                heard = asyncio.get_running_loop().create_future() if strikes else None
                there_writer.write(data)
                if heard:
                    await heard
                    await wire.strike(kind)
                    killed.set()
        except ConnectionError:
            pass  # the bot is dead, as intended
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for end in (there_writer, writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environment["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
