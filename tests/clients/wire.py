"""A server on loopback with scripted answers, which records its requests."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class RecordedRequest:
    """One recorded request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    json: Any


@dataclass
class Wire:
    """`on` sets the answer of one method and path; anything else is a 404."""

    url: str = ""
    requests: list[RecordedRequest] = field(default_factory=list)
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)

    def on(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> None:
        async def answer(request: web.Request, body: Any) -> web.StreamResponse:
            if text is not None:
                return web.Response(status=status, text=text, headers=headers)
            return web.json_response(json, status=status, headers=headers)

        self.answers[method, path] = answer

    def calls(self, method: str, path: str) -> list[RecordedRequest]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        json = await request.json() if request.can_read_body else None
        self.requests.append(
            RecordedRequest(request.method, request.path, dict(request.query), dict(request.headers), json)
        )
        if answer := self.answers.get((request.method, request.path)):
            return await answer(request, json)
        return web.json_response({"message": "Not Found"}, status=404)


@asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    scripted = Wire()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", scripted._answer)
    async with TestServer(app, host="127.0.0.1") as server:
        scripted.url = str(server.make_url("")).rstrip("/")
        yield scripted


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """An address without a listener. The port stays reserved, so that no other test gets it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def client(base_url: str = "") -> httpx.AsyncClient:
    """A client for plain HTTP: its TLS context omits the certificates, which take 40 ms to read."""
    no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(base_url=base_url, timeout=30.0, trust_env=False, verify=no_certificates)
