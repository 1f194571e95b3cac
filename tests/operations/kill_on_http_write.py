"""A proxy that kills the bot after each new kind of write has arrived, before the response."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

HOP = {"transfer-encoding", "connection", "content-encoding", "content-length", "host"}


@dataclass
class KillOnWrite:
    """Forwards everything. `kill` is called once for each kind of write, in the order of `killed_at`."""

    kill: Callable[[], Coroutine[Any, Any, None]] | None = None
    only: frozenset[str] = frozenset()
    """The kinds of writes at which the proxy kills the bot; if empty, all kinds."""
    additional: tuple[str, ...] = ()
    """Variables with the addresses of additional services behind the proxy."""
    writes: list[str] = field(default_factory=list)
    """Every write that arrived, as `METHOD path`, without ids and commits."""
    killed_at: list[str] = field(default_factory=list)
    fences: set[bytes] = field(default_factory=set)
    """Every fence with which a Deployment was written."""
    _killing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def connect(self, environment: dict[str, str], stack: AsyncExitStack) -> None:
        """Start the proxy in front of Slack, GitHub, git and Kubernetes."""
        kubeconfig = Path(environment["KUBECONFIG"])
        server = re.findall(r'"?server"?: "?(http[^",\s]+)', kubeconfig.read_text())[0]
        for target in {
            *(_origin(environment[name]) for name in ("SLACK_API_URL", "GITHUB_API_URL", *self.additional)),
            _origin(server),
        }:
            http = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{tail:.*}", self._forward(http, target))
            front = await stack.enter_async_context(TestServer(app, host="127.0.0.1"))
            origin = str(front.make_url("")).rstrip("/")
            for name in ("SLACK_API_URL", "GITHUB_API_URL", "GIT_REMOTE_URL", *self.additional):
                environment[name] = environment[name].replace(target, origin)
            kubeconfig.write_text(kubeconfig.read_text().replace(target, origin))

    def _forward(
        self, http: aiohttp.ClientSession, target: str
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP}
            timeout = aiohttp.ClientTimeout(total=None)
            async with http.request(
                request.method, f"{target}{request.path_qs}", data=body, headers=headers, timeout=timeout
            ) as response:
                write = _write(request, body)
                self.fences.update(re.findall(rb'stoker.dev/fence": ?"(\d+)"', body))
                if write:
                    await response.read()
                    self.writes.append(write)
                    await self.kill_at(write)
                answer = web.StreamResponse(status=response.status)
                answer.headers.update({k: v for k, v in response.headers.items() if k.lower() not in HOP})
                await answer.prepare(request)
                async for chunk in response.content.iter_any() if not write else _once(await response.read()):
                    await answer.write(chunk)
                return answer

        return forward

    def kills_at(self, write: str) -> bool:
        return bool(self.kill) and write not in self.killed_at and (not self.only or write in self.only)

    async def kill_at(self, write: str) -> None:
        if self._killing.locked() and self.kills_at(write):
            self.killed_at.append(write)  # it arrived from a bot that is being killed, so it gets no response
        async with self._killing:
            if self.kill and self.kills_at(write):
                self.killed_at.append(write)
                # In a separate task, because the current one may end with the connection of the killed bot.
                await asyncio.shield(asyncio.ensure_future(self.kill()))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _origin(url: str) -> str:
    return "{0.scheme}://{0.netloc}".format(urlsplit(url))


def _write(request: web.Request, body: bytes) -> str:
    """Return the kind of write of a request; empty if the request changes nothing."""
    # Remove the prefix with which the sandbox's API server identifies the bot's account.
    path = re.sub(r"^/as/[^/]+", "", re.sub(r"/\d+\b", "/N", request.path))
    if path.startswith("/api/"):
        return path if path in ("/api/chat.postMessage", "/api/chat.update") else ""
    if path.endswith("git-upload-pack") or request.method == "GET" or "selfsubjectaccessreviews" in path:
        return ""
    if request.method == "PATCH" and "/applications/" in path:
        return f"{'sync' if b'initiatedBy' in body else 'refresh'} {path.rpartition('/')[2]}"
    return f"{request.method} {path}"


@asynccontextmanager
async def http_proxy(kills: KillOnWrite, environment: dict[str, str]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await kills.connect(environment, stack)
        yield
