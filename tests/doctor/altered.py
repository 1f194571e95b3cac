"""A proxy that changes the answers of a sandbox system, so that the system looks misconfigured."""

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
async def altered(
    url: str, path: str, change: Change, own_answers: Mapping[str, Any] | None = None
) -> AsyncIterator[str]:
    """Return the address of a proxy for `url` that changes the answers for paths that end with `path`.

    `own_answers` has the paths that the proxy answers itself, with their JSON.
    """
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:

        async def forward(request: web.Request) -> web.Response:
            if own_answers and request.path in own_answers:
                return web.json_response(own_answers[request.path], status=201)
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "accept-encoding")}
            answer = await http.request(
                request.method, f"{url.rstrip('/')}{request.path_qs}", headers=headers, content=await request.read()
            )
            headers_to_keep = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
            content = answer.content
            if request.path.endswith(path):
                body = answer.json()
                change(body, headers_to_keep)
                content = json.dumps(body).encode()
            return web.Response(status=answer.status_code, body=content, headers=headers_to_keep)

        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", forward)
        async with TestServer(app, host="127.0.0.1") as server:
            yield str(server.make_url("")).rstrip("/")
