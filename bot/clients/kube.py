"""Kubernetes' REST as two adapters need it: get, patch, read a log, and follow collections until something is seen.

Owns how a Kubernetes answer becomes an error of ours, and how a watch survives what happens to watches. Objects stay
the JSON that the server sent: `bot.clients.argocd` and `bot.clients.cluster` parse the few fields that they are about.

The library's own `Watch` is not used: after 410 Gone it asks again for the version that was just refused, it reconnects
without a pause, and an aborted connection ends it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import stamina
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import OpenApiException
from kubernetes.aio.config import ConfigException

from bot.errors import BotError, Unavailable
from bot.settings import Config

KubeObject = dict[str, Any]
View = Mapping[tuple[str, str], KubeObject]
"""The objects of a selection by (namespace, name)."""

T = TypeVar("T")

_METHODS = {"patch": "PATCH", "create": "POST", "delete": "DELETE"}

_REQUEST = aiohttp.ClientTimeout(total=30)
# The server ends a watch after _WATCH_SECONDS; a connection silent for much longer than that is dead.
_WATCH_SECONDS = 240
# A server that ends or breaks watches at once must not be asked in a tight loop.
_PAUSE = 0.1
_AWAY = 120.0
"""Seconds that the API server may be away in the middle of a wait: an upgrade of a control plane takes about a minute."""
_WATCH = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 30)


class Forbidden(BotError):
    """The bot's role lacks a right; names the verb and the resource."""

    remedy = "Give the bot's service account the right that is named: the chart's Role has all of them. `stoker doctor` lists what is missing."


class Conflict(Unavailable):
    """The object changed since it was read: look again."""

    remedy = "Nothing: it is tried again by itself."


class _Gone(Exception):
    """The version to resume from is no longer kept: list again."""


@dataclass(frozen=True)
class Collection:
    """The objects of a kind: in one namespace, in all of them, or in none (nodes)."""

    api: str
    resource: str
    namespace: str | None = None

    def path(self, name: str | None = None, subresource: str | None = None) -> str:
        namespaced = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        tail = "".join(f"/{quote(part, safe='')}" for part in (name, subresource) if part)
        return f"{self.api}{namespaced}/{self.resource}{tail}"


@dataclass(frozen=True)
class Selection:
    """The objects of a collection that the selectors, in Kubernetes' own syntax, leave."""

    collection: Collection
    fields: str = ""
    labels: str = ""

    def query(self) -> dict[str, str]:
        return {k: v for k, v in (("fieldSelector", self.fields), ("labelSelector", self.labels)) if v}


@dataclass(frozen=True)
class Right:
    """One thing that the bot does to the cluster, as a rule of a Role (or, without a namespace, of a ClusterRole) says it."""

    verb: str
    resource: str
    """The plural, with its subresource: `deployments/scale`."""
    group: str = ""
    namespace: str | None = None
    name: str = ""
    """The only object that it is about (`resourceNames`); empty for any."""
    without: str = ""
    """What is lost without it; empty where the bot cannot do its work then."""

    def __str__(self) -> str:
        what = f"{self.resource}.{self.group}" if self.group else self.resource
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{f' {self.name}' if self.name else ''}{where}"


def rights(config: Config) -> tuple[Right, ...]:
    """Every right that the bot uses, and no other: the chart grants them, the start and the doctor check them."""
    serving, argocd = config.platform.namespace, config.argocd.namespace
    jobs = ("list", "watch", "create", "delete") if config.bench.image else ()
    node = "the receipt estimates how long the node billed instead of watching it"
    return (
        *(Right(verb, "deployments", "apps", serving) for verb in ("get", "list", "watch", "patch")),
        Right("patch", "deployments/scale", "apps", serving),
        # Whoever uses a GPU, in any namespace, stands in the way of the next model.
        Right("list", "deployments", "apps"),
        Right("list", "pods"),
        *(Right(verb, "pods", "", serving) for verb in ("list", "watch")),
        Right("get", "pods/log", "", serving),
        *(Right(verb, "events", "", serving) for verb in ("list", "watch")),
        Right("list", "services", "", serving),
        *(Right(verb, "jobs", "batch", serving) for verb in jobs),
        *(Right(verb, "nodes", without=node) for verb in ("get", "list", "watch")),
        *(Right(verb, "applications", "argoproj.io", argocd) for verb in ("get", "list", "watch", "patch")),
        *(
            Right("get", "secrets", "", secret.namespace, secret.name)
            for secret in (config.vllm.api_key, config.litellm.master_key)
        ),
    )


class Kube:
    """Raises `Forbidden` (403), `Conflict` (409), `BotError` (other refusals), `Unavailable` (anything else)."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def get(self, collection: Collection, name: str) -> KubeObject | None:
        """The object, or None where there is none."""
        return _parse(await self._read("get", collection, name))

    async def list(self, selection: Selection) -> tuple[KubeObject, ...]:
        listing = await self._listing(selection)
        return tuple(listing.get("items") or ())

    async def patch(
        self, collection: Collection, name: str, body: KubeObject, *, subresource: str | None = None
    ) -> KubeObject | None:
        """Merge-patch the object and return it as it is now; None where there is none."""
        return _parse(await self._read("patch", collection, name, subresource=subresource, body=body))

    async def create(self, collection: Collection, body: KubeObject) -> None:
        """Make the object; `Conflict` where there is one of that name."""
        await self._read("create", collection, body=body)

    async def delete(self, collection: Collection, name: str) -> None:
        """Take the object away, and then what it made; one that is gone is fine."""
        # Without it the API leaves a Job's pods behind (DefaultGarbageCollectionPolicy of batch/v1).
        await self._read("delete", collection, name, query={"propagationPolicy": "Background"})

    async def lacking(self, wanted: Iterable[Right]) -> tuple[Right, ...]:
        """Those of the rights that the bot's account does not have, by the API server's own word."""
        reviews = Collection("/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews")

        async def allowed(right: Right) -> bool:
            resource, _, subresource = right.resource.partition("/")
            asked = {
                "verb": right.verb,
                "group": right.group,
                "resource": resource,
                "subresource": subresource,
                "namespace": right.namespace or "",
                "name": right.name,
            }
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            answer = _parse(await self._read("create", reviews, body=review | {"spec": {"resourceAttributes": asked}}))
            return bool(((answer or {}).get("status") or {}).get("allowed"))

        return tuple([right for right in wanted if not await allowed(right)])

    async def log(self, pods: Collection, name: str, *, container: str, lines: int, previous: bool) -> str:
        """The last lines of a container's log; empty where the kubelet has none (any more)."""
        query = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        try:
            text = await self._read("get", pods, name, subresource="log", query=query)
        except Forbidden:
            raise
        except BotError:  # 400: "previous terminated container not found"
            return ""
        return text or ""

    async def follow(self, *selections: Selection, look: Callable[..., Awaitable[T | None]]) -> T:
        """Call `look` with a `View` of each selection, now and after every change, until it returns something.

        Resumes where a watch ended, lists again where it cannot, and rides out a short absence of the server. Set the
        deadline around it with `asyncio.timeout`.
        """
        views: list[View | None] = [None] * len(selections)
        changed = asyncio.Event()

        async def keep(position: int, selection: Selection) -> None:
            async for view in self._views(selection):
                views[position] = view
                changed.set()

        try:
            async with asyncio.TaskGroup() as group:
                watchers = [group.create_task(keep(*numbered)) for numbered in enumerate(selections)]
                while True:
                    await changed.wait()
                    changed.clear()
                    if None in views or (answer := await look(*views)) is None:
                        continue
                    for watcher in watchers:
                        watcher.cancel()
                    return answer
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__

    async def _views(self, selection: Selection) -> AsyncIterator[View]:
        while True:
            listing = await self._listing_patiently(selection)
            objects = {_key(item): item for item in listing.get("items") or ()}
            version = listing["metadata"]["resourceVersion"]
            yield dict(objects)
            try:
                while True:
                    async for kind, item in self._events(selection, version):
                        version = item["metadata"]["resourceVersion"]
                        match kind:
                            case "BOOKMARK":
                                continue
                            case "DELETED":
                                objects.pop(_key(item), None)
                            case _:
                                objects[_key(item)] = item
                        yield dict(objects)
            except _Gone:
                continue
            except Unavailable:
                await asyncio.sleep(_PAUSE)

    async def _events(self, selection: Selection, version: str) -> AsyncIterator[tuple[str, KubeObject]]:
        query = selection.query() | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            response = await self._open("watch", selection.collection, query=query, timeout=_WATCH)
            async with response:
                if response.status == 404:
                    raise _Gone
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _failure("watch", selection.collection, None, event["object"].get("code", 500), line)
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as e:
            raise Unavailable("Kubernetes", f"the watch on {selection.collection.resource} broke off") from e
        await asyncio.sleep(_PAUSE)

    @stamina.retry(on=Unavailable, attempts=None, timeout=_AWAY, wait_initial=0.2)
    async def _listing_patiently(self, selection: Selection) -> KubeObject:
        return await self._listing(selection)

    async def _listing(self, selection: Selection) -> KubeObject:
        listing = _parse(await self._read("list", selection.collection, query=selection.query()))
        if listing is None:
            raise BotError(f"This cluster knows no {selection.collection.resource} ({selection.collection.api}).")
        return listing

    async def _read(
        self,
        verb: str,
        collection: Collection,
        name: str | None = None,
        *,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: KubeObject | None = None,
    ) -> str | None:
        try:
            response = await self._open(verb, collection, name, subresource=subresource, query=query, body=body)
            async with response:
                return None if response.status == 404 else await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise Unavailable("Kubernetes", f"{verb} {collection.resource}") from e

    async def _open(
        self,
        verb: str,
        collection: Collection,
        name: str | None = None,
        *,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: KubeObject | None = None,
        timeout: aiohttp.ClientTimeout = _REQUEST,
    ) -> aiohttp.ClientResponse:
        """Through the library's client, which brings the address, the certificates and the (refreshed) token."""
        path = collection.path(name, subresource) + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json" if verb == "create" else "application/merge-patch+json"
        try:
            request = await self._api.param_serialize(
                _METHODS.get(verb, "GET"),
                path,
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._api.call_api(*request, _request_timeout=timeout)
        except (OpenApiException, ConfigException) as e:
            raise Unavailable("Kubernetes", str(e)) from e
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 400 and response.status != 404:
            async with response:
                raise _failure(verb, collection, subresource, response.status, await response.read())
        return response


def _failure(verb: str, collection: Collection, subresource: str | None, status: int, body: bytes) -> Exception:
    resource = "/".join(part for part in (collection.resource, subresource) if part)
    where = f" in namespace {collection.namespace}" if collection.namespace else ""
    said = _message(body)
    match status:
        case 403:
            return Forbidden(
                f"Stoker's role may not {verb} {resource}{where}: add that right to its Role or ClusterRole. "
                f"Kubernetes said: {said}"
            )
        case 409:
            return Conflict("Kubernetes", said)
        case 410:
            return _Gone(said)
        case 401 | 429:
            return Unavailable("Kubernetes", said)
        case _ if status < 500:
            return BotError(f"Kubernetes refused to {verb} {resource}{where}: {said}")
        case _:
            return Unavailable("Kubernetes", said)


def _message(body: bytes) -> str:
    """What a `Status` object says, also the one inside a watch event."""
    text = body.decode(errors="replace")
    try:
        status = json.loads(text)
        return str((status.get("object") or status)["message"])
    except (ValueError, KeyError, AttributeError):
        return text.strip()[:300]


def _parse(text: str | None) -> KubeObject | None:
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except ValueError as e:
        raise Unavailable("Kubernetes", "its answer is not JSON") from e
    if not isinstance(parsed, dict):
        raise Unavailable("Kubernetes", "its answer is not an object")
    return parsed


def _key(item: KubeObject) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
