"""Role-based access control in front of the sandbox's Kubernetes API: what the roles do not grant is answered 403."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.clients.kube import Right

_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_REVIEW = "selfsubjectaccessreviews"


class Authorizer:
    """Grants these rights, and remembers which of them were used."""

    def __init__(self, granted: Iterable[Right]) -> None:
        self.granted = frozenset(granted)
        self.used: set[Right] = set()

    def allows(self, right: Right) -> bool:
        """Every grant that covers it counts as used: one for all namespaces covers one for a namespace."""
        covering = {
            grant
            for grant in self.granted
            if (grant.verb, grant.group, grant.resource) == (right.verb, right.group, right.resource)
            and grant.namespace in (None, right.namespace)
            and grant.name in ("", right.name)
        }
        self.used |= covering
        return bool(covering)


@asynccontextmanager
async def guarded(url: str, authorizer: Authorizer) -> AsyncIterator[str]:
    """The address of the guarded API; watches are passed on as they come."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            if request.path.endswith(_REVIEW):
                return _reviewed(authorizer, json.loads(body))
            right = _asked(request)
            if not authorizer.allows(right):
                said = {"kind": "Status", "status": "Failure", "code": 403, "message": f"the bot cannot {right}"}
                return web.json_response(said, status=403)
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "accept-encoding")}
            async with http.request(request.method, f"{url}{request.path_qs}", headers=headers, data=body) as answer:
                response = web.StreamResponse(
                    status=answer.status, headers={"Content-Type": answer.headers.get("Content-Type", "text/plain")}
                )
                await response.prepare(request)
                with suppress(ConnectionError, aiohttp.ClientError):
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                return response

        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", forward)
        async with TestServer(app, host="127.0.0.1") as server:
            yield str(server.make_url("")).rstrip("/")


def _reviewed(authorizer: Authorizer, review: dict[str, dict[str, dict[str, str]]]) -> web.Response:
    asked = review["spec"]["resourceAttributes"]
    resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
    right = Right(
        asked["verb"], resource, asked.get("group", ""), asked.get("namespace") or None, asked.get("name", "")
    )
    before = set(authorizer.used)
    allowed = authorizer.allows(right)
    authorizer.used = before  # to ask whether one may is not to do it
    return web.json_response(review | {"status": {"allowed": allowed}}, status=201)


def _asked(request: web.Request) -> Right:
    """The right that a request needs, as Kubernetes derives it from method and path."""
    parts = urlsplit(request.path).path.strip("/").split("/")
    if parts[0] == "as":
        parts = parts[2:]
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, sub = (*rest, "", "")[:3]
    verb = _WRITES.get(request.method, "get" if name else "watch" if request.query.get("watch") else "list")
    return Right(verb, "/".join(filter(None, (resource, sub))), group, namespace, name)
