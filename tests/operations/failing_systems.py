"""Proxies between the bot and the other systems; from a given moment on, one system fails in one way."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from tests.operations.kill_on_http_write import HOP

SYSTEMS = {
    "slack": ("SLACK_API_URL",),
    "github": ("GITHUB_API_URL", "GIT_REMOTE_URL"),
    "litellm": ("LITELLM_URL",),
    "metrics": ("VLLM_URL_TEMPLATE",),
    "hub": ("HF_ENDPOINT",),
}
"""The variables with the address of each system; Kubernetes, with Argo CD's Applications, is in the kubeconfig."""

EVERYWHERE = ("503", "403", "hangs", "drips", "garbage", "another shape", "cut off", "login page", "redirect")
REFUSALS = ("message_not_found", "cant_update_message", "is_archived", "channel_not_found", "account_inactive",
            "msg_too_long", "invalid_blocks", "restricted_action", "ratelimited", "something_new", "token_revoked",
            "ekm_access_denied", "restricted_action_thread_locked", "message_limit_exceeded")  # fmt: skip


@dataclass
class Failures:
    """`begin` starts a failure of a system and `end` ends it; the bot's writes are recorded."""

    active: tuple[str, str] = ("", "")
    scaled: list[tuple[str, bytes]] = field(default_factory=list)
    """Each write to a Deployment's scale: its name, and the body."""
    synced: list[tuple[str, bytes]] = field(default_factory=list)
    merged: list[tuple[str, bytes]] = field(default_factory=list)
    refused: int = 0
    """The number of requests that have failed."""

    def begin(self, system: str, failure: str) -> None:
        self.active = (system, failure)

    def end(self) -> None:
        self.active = ("", "")

    async def connect(self, environment: dict[str, str], stack: AsyncExitStack) -> None:
        kubeconfig = Path(environment["KUBECONFIG"])
        server = re.findall(r'"?server"?: "?(http[^",\s]+)', kubeconfig.read_text())[0]
        kubeconfig.write_text(kubeconfig.read_text().replace(server, await self._front(stack, "kubernetes", server)))
        for system, variables in SYSTEMS.items():
            target = "{0.scheme}://{0.netloc}".format(urlsplit(environment[variables[0]]))
            front = await self._front(stack, system, target)
            for name in variables:
                environment[name] = environment[name].replace(target, front)

    async def _front(self, stack: AsyncExitStack, system: str, target: str) -> str:
        http = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{tail:.*}", self._forward(http, system, target))
        front = await stack.enter_async_context(TestServer(app, host="127.0.0.1"))
        return str(front.make_url("")).rstrip("/")

    def _forward(
        self, http: aiohttp.ClientSession, system: str, target: str
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            if self.active[0] == system:
                self.refused += 1
                return await self._fail(request, self.active[1])
            self._note(request, body)
            headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP}
            timeout = aiohttp.ClientTimeout(total=None)
            url = f"{target}{request.path_qs}"
            async with http.request(request.method, url, data=body, headers=headers, timeout=timeout) as response:
                downstream = web.StreamResponse(status=response.status)
                downstream.headers.update({k: v for k, v in response.headers.items() if k.lower() not in HOP})
                await downstream.prepare(request)
                async for chunk in response.content.iter_any():
                    await downstream.write(chunk)
                return downstream

        return forward

    def _note(self, request: web.Request, body: bytes) -> None:
        parts = request.path.split("/")
        if request.method == "PATCH" and parts[-1] == "scale":
            self.scaled.append((parts[-2], body))
        elif request.method == "PATCH" and "/applications/" in request.path and b"initiatedBy" in body:
            self.synced.append((parts[-1], body))
        elif request.method == "PUT" and parts[-1] == "merge":
            self.merged.append((request.path, body))

    async def _fail(self, request: web.Request, failure: str) -> web.StreamResponse:
        match failure:
            case "503":
                return web.Response(status=503, text="<html>upstream connect error", content_type="text/html")
            case "403":
                return web.json_response({"message": "forbidden"}, status=403)
            case "garbage":
                return web.Response(body=b"\x00\xff{[", content_type="application/json")
            case "another shape":
                return web.json_response([None, {"nan": float("nan")}])
            case "login page":
                page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Use your account.</body></html>"
                return web.Response(text=page, content_type="text/html")
            case "redirect":
                return web.Response(status=302, headers={"Location": "http://login.example.com/?next=here"})
            case "cut off":
                if request.transport:
                    request.transport.abort()
                return web.Response()
            case "hangs" | "drips":
                answer = web.StreamResponse()
                if failure == "drips":
                    await answer.prepare(request)
                while self.active[1] == failure:
                    if failure == "drips":
                        await answer.write(b" ")
                    await asyncio.sleep(0.5)
                return answer
            case "ratelimited":
                headers = {"Retry-After": "300"}
                return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
            case code:
                return web.json_response({"ok": False, "error": code})


@asynccontextmanager
async def failing_proxies(failures: Failures, environment: dict[str, str]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await failures.connect(environment, stack)
        yield


async def spoil(redis: Redis, records: str) -> None:
    """Overwrite the bot's data in Redis: its leases, its operations, its sessions, or everything."""
    kinds = {"leases": r":leases$", "operations": r":op:[^:]+$", "steps": r":steps$", "sessions": r":sessions$|:own:"}
    pattern = re.compile(kinds.get(records, r"."))
    for raw in await redis.keys("{stoker}:*"):
        key = raw.decode() if isinstance(raw, bytes) else raw
        if not pattern.search(key):
            continue
        match await redis.type(key):
            case b"hash":
                for name in await redis.hkeys(key):
                    await redis.hset(key, name, '{"fence": 1e999, "op": null}')
            case b"string":
                await redis.set(key, "{")
            case b"zset" | b"set" if records == "everything":
                await redis.set(key, "overwritten")
