"""Start Stoker as forks of a process that has imported it: importing takes a third of a short story's processor time.

Each fork is a process like `python -m bot`, with its own environment, directory and output, and can be killed.
"""

import asyncio
import atexit
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

LARGEST = 200_000
"""Bytes of a request: the arguments and the environment of one process."""


class Forked:
    """The part of `asyncio.subprocess.Process` that the sandbox uses."""

    def __init__(self, pid: int, status: asyncio.StreamReader, output: list[asyncio.StreamReader]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._output = output
        self._following = asyncio.create_task(self._follow(status))

    async def _follow(self, status: asyncio.StreamReader) -> int:
        self.returncode = int(await status.read())
        return self.returncode

    async def wait(self) -> int:
        return await asyncio.shield(self._following)

    async def communicate(self) -> tuple[bytes, ...]:
        printed = await asyncio.gather(*(stream.read() for stream in self._output))
        await self.wait()
        return tuple(printed)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def start_stoker(
    *arguments: str, environment: Mapping[str, str], directory: Path, log: BinaryIO | None = None
) -> Forked:
    """Start Stoker in a fork; this replaces the function of `sandbox.process`."""
    with ExitStack() as pipes_to_close:
        status, status_writer = await _pipe(pipes_to_close)
        pipes = [] if log else [await _pipe(pipes_to_close), await _pipe(pipes_to_close)]
        output = [log.fileno()] * 2 if log else [end for _, end in pipes]
        request = {"arguments": arguments, "environment": dict(environment), "directory": str(directory)}
        server = _server("run" if arguments == ("run",) else "commands")
        socket.send_fds(server, [json.dumps(request).encode()], [status_writer, *output])
    return Forked(int(await status.readline()), status, [stream for stream, _ in pipes])


async def _pipe(pipes_to_close: ExitStack) -> tuple[asyncio.StreamReader, int]:
    """Return a pipe's reader and its other end, which is closed when `pipes_to_close` ends."""
    reading, writing = os.pipe()
    pipes_to_close.callback(os.close, writing)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
    )
    return reader, writing


@cache
def _server(kind: str) -> socket.socket:
    """Return the connection to this process's server for `stoker run`, or for the terminal's commands."""
    client_end, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server_end:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, kind, str(server_end.fileno())],
            cwd=Path(__file__).parents[1],
            pass_fds=[server_end.fileno()],
            start_new_session=True,
        )

    @atexit.register
    def end() -> None:
        client_end.close()
        process.wait()

    return client_end


# ----------------------------------------------------------------------------------------------------------- the server


def main(kind: str, requests: socket.socket) -> None:
    """Import what the process needs, then fork for each request; each fork continues as Stoker."""
    if kind == "run":  # as in `bot.__main__`
        prevent_unused_imports = importlib.import_module("bot.unused_imports").prevent_unused_imports
        prevent_unused_imports()
        gc.disable()
        stoker = importlib.import_module("bot.app").start
    else:
        stoker = importlib.import_module("bot.cli.main").cli
        for module in ("bot.cli.manifest", "bot.clients.rights", "sandbox.main"):
            importlib.import_module(module)
    gc.freeze()
    if _serve_requests(requests):
        sys.exit(stoker())


def _serve_requests(requests: socket.socket) -> bool:
    """Fork for each request until the connection closes; return True in each fork, and False at the end."""
    while True:
        request, descriptors, *_ = socket.recv_fds(requests, LARGEST, 3)
        _collect_ended()
        if not request:
            return False
        if os.fork() == 0:
            requests.close()
            return _fork_stoker(json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _collect_ended() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _fork_stoker(request: dict[str, Any], status_writer: int, *output: int) -> Literal[True]:
    """Fork once more; the parent reports the process id and, at the end, the exit code."""
    if pid := os.fork():
        for descriptor in output:
            os.close(descriptor)
        os.write(status_writer, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):  # the test may have ended
            os.write(status_writer, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(status_writer)
    os.setsid()
    os.chdir(request["directory"])
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), *output)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["stoker", *request["arguments"]]
    return True


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
