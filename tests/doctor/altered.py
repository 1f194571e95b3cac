"""A proxy in front of a system of the sandbox that changes its answers, like a misconfigured one."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from aiohttp import web
from aiohttp.test_utils import TestServer

Change = Callable[[Any, dict[str, str]], None]
"""Changes the JSON of an answer, and its headers, in place."""

_KEPT = ("content-type", "x-oauth-scopes", "date")


@asynccontextmanager
async def altered(url: str, path: str, change: Change, own: Mapping[str, Any] | None = None) -> AsyncIterator[str]:
    """The address of a proxy for `url` whose answers for paths that end with `path` are changed.

    `own` are paths that the proxy answers itself, with what it creates.
    """
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:

        async def forward(request: web.Request) -> web.Response:
            if own and request.path in own:
                return web.json_response(own[request.path], status=201)
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "accept-encoding")}
            answer = await http.request(
                request.method, f"{url.rstrip('/')}{request.path_qs}", headers=headers, content=await request.read()
            )
            kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
            content = answer.content
            if request.path.endswith(path):
                body = answer.json()
                change(body, kept)
                content = json.dumps(body).encode()
            return web.Response(status=answer.status_code, body=content, headers=kept)

        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", forward)
        async with TestServer(app, host="127.0.0.1") as server:
            yield str(server.make_url("")).rstrip("/")
