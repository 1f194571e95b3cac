"""Client for Kubernetes' REST API: get and patch objects, read logs, and watch collections until a condition is met.

Maps Kubernetes' answers to Stoker's errors, and resumes interrupted watches. Objects stay JSON as sent by the
server: `bot.clients.argocd` and `bot.clients.cluster` parse the fields that they need.

The library's `Watch` class is not used: after 410 Gone it requests the refused version again, it reconnects without a
pause, and an aborted connection ends it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import stamina
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import OpenApiException
from kubernetes.aio.config import ConfigException

from bot.clients.http import parse_json
from bot.clients.rights import ACCESS_REVIEWS, Access, Right, Verb
from bot.clients.shape import KubeObject as KubeObject
from bot.clients.shape import shaped
from bot.errors import BotError, Unavailable
from bot.progress import going_to
from manifests.frozen import frozen

View = Mapping[tuple[str, str], KubeObject]
"""The objects of a selection by (namespace, name)."""

Permission = tuple[str, str, str, str | None]
"""Verb, API group, resource (with its subresource) and namespace of a request."""

T = TypeVar("T")

_METHODS: Mapping[Verb, str] = {"patch": "PATCH", "create": "POST", "delete": "DELETE"}

_REQUEST = aiohttp.ClientTimeout(total=30)
# The server ends a watch after _WATCH_SECONDS; treat a watch with no data for much longer as dead.
_WATCH_SECONDS = 240
_PAUSE = 0.1
"""Seconds between two watches, so that a server that ends watches immediately is not polled in a tight loop."""
_OUTAGE = 120.0
"""Seconds for which the API server may be unavailable during a wait: an upgrade of a control plane takes about a minute."""
_FORBIDDEN_FOR = 30.0
"""Seconds for which the refusal of a previously granted permission is retried: a restarting API server returns 403
until its RBAC caches are filled (seen on Kubernetes 1.36: `RBAC: role … not found`, or no suffix).
"""
_FORBIDDEN_AGAIN = 0.5
_BY_AUTHORIZER = re.compile(r"\bcannot\b")
"""Matches the message of a 403 from the authorizer. A 403 from an admission plugin or a quota is not retried."""
_CACHES_EMPTY = re.compile(r"RBAC: .*not found")
_PAGE = 500
"""Objects per list request, like kubectl (`--chunk-size`): a pod has about 10 kB of JSON, and all pods of a large
cluster exceed the limit of one answer.
"""
_LOG = 2**20
"""Maximum characters kept from the end of a log, because its lines may have any length."""
_WATCH = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 30)


class Forbidden(BotError):
    """The bot's role lacks a right. The message contains the verb and the resource."""

    remedy = "Give the bot's service account the right in the message: the chart's Role has all of them. `stoker doctor` lists what is missing."


class Conflict(Unavailable):
    """The object changed since it was read, so it must be read again."""

    remedy = "Nothing: Stoker retries."


class _Gone(Exception):
    """The API server no longer stores the version from which to resume, so the objects must be listed again."""


@frozen
class Collection:
    """The objects of a declared kind: in one namespace, in all namespaces, or cluster-scoped (nodes)."""

    access: Access
    namespace: str | None = None

    @property
    def resource(self) -> str:
        return self.access.resource

    def path(self, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, of one object, or of its subresource."""
        namespaced = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        tail = "".join(f"/{quote(part, safe='')}" for part in (name, subresource) if part)
        return f"{self.access.root}{namespaced}/{self.resource}{tail}"


@frozen
class Selection:
    """The objects of a collection that match the selectors, in Kubernetes' syntax."""

    collection: Collection
    fields: str = ""
    labels: str = ""

    def query(self) -> dict[str, str]:
        """The query parameters for the selectors."""
        return {k: v for k, v in (("fieldSelector", self.fields), ("labelSelector", self.labels)) if v}


@frozen
class _Page:
    items: tuple[KubeObject, ...]
    version: str
    more: str
    """The token for the next page; empty for the last page."""


_REVIEWS = Collection(ACCESS_REVIEWS)
_REVIEWS_AT_A_TIME = 8


class Kube:
    """Sends requests to the API server.

    Methods raise `Forbidden` (403), `Conflict` (409), `BotError` (other refusals), or `Unavailable` (anything else).
    """

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._granted: set[Permission] = set()
        """The permissions granted so far: a later refusal may be temporary."""

    async def get(self, collection: Collection, name: str) -> KubeObject | None:
        """The object, or None if it does not exist."""
        return _object(collection, await self._read("get", collection, name))

    async def list(self, selection: Selection) -> tuple[KubeObject, ...]:
        """All objects of the selection."""
        return tuple([item async for item in self.iterate(selection)])

    async def iterate(self, selection: Selection) -> AsyncIterator[KubeObject]:
        """Yield the objects one by one. They are loaded in pages, so that memory is needed for only one page."""
        token = ""
        while True:
            page = await self._page(selection, token)
            for item in page.items:
                yield item
            if not (token := page.more):
                return

    async def patch(
        self, collection: Collection, name: str, body: KubeObject, *, subresource: str | None = None
    ) -> KubeObject | None:
        """Merge-patch the object and return its new state; None if it does not exist."""
        return _object(collection, await self._read("patch", collection, name, subresource=subresource, body=body))

    async def create(self, collection: Collection, body: KubeObject) -> None:
        """Create the object; raises `Conflict` if an object of that name exists."""
        await self._read("create", collection, body=body)

    async def delete(self, collection: Collection, name: str) -> None:
        """Delete the object, then its dependents. A missing object is ignored."""
        # Without a propagation policy the API orphans a Job's pods (DefaultGarbageCollectionPolicy of batch/v1).
        await self._read("delete", collection, name, query={"propagationPolicy": "Background"})

    async def lacking(self, rights: Iterable[Right]) -> tuple[Right, ...]:
        """The rights that the bot's account does not have, according to the API server.

        About 30 rights are checked at the start, several at a time, because sequential requests would take a twelfth of
        the start-up time.
        """
        slots = asyncio.Semaphore(_REVIEWS_AT_A_TIME)

        async def allowed(right: Right) -> bool:
            resource, _, subresource = right.resource.partition("/")
            attributes = {
                "verb": right.verb,
                "group": right.group,
                "resource": resource,
                "subresource": subresource,
                "namespace": right.namespace or "",
                "name": right.name,
            }
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            async with slots:
                text = await self._read("create", _REVIEWS, body=review | {"spec": {"resourceAttributes": attributes}})
            answer = _parse(text)
            status = (answer or {}).get("status") or {}
            if "allowed" not in status:
                raise BotError("Kubernetes does not return the rights of the bot's account (SelfSubjectAccessReview).")
            granted = bool(status["allowed"])
            if granted:
                self._granted.add((right.verb, right.group, right.resource, right.namespace))
            return granted

        try:
            async with asyncio.TaskGroup() as group:
                reviews = {right: group.create_task(allowed(right)) for right in rights}
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__
        return tuple(right for right, review in reviews.items() if not review.result())

    async def log(
        self, pods: Collection, name: str, *, container: str, previous: bool, lines: int = 0, size: int = 0
    ) -> str:
        """The last `lines` of a container's log, or its first `size` bytes; empty if the kubelet no longer has the log."""
        query = {"container": container, "previous": str(previous).lower()}
        query |= {"tailLines": str(lines)} if lines else {}
        query |= {"limitBytes": str(size)} if size else {}
        try:
            text = await self._read("get", pods, name, subresource="log", query=query)
        except Forbidden:
            raise
        except BotError:  # 400: "previous terminated container not found"
            return ""
        return (text or "")[-_LOG:]

    async def follow(
        self,
        *selections: Selection,
        check: Callable[..., Awaitable[T | None]],
        next_check: Callable[[], float | None] = lambda: None,
    ) -> T:
        """Call `check` with a `View` of each selection, now and after every change, until it returns a value.

        `next_check` returns the seconds after which `check` is called even without a change; None for never.

        Resumes interrupted watches, lists the objects again if necessary, and tolerates a short outage of the server.
        Set a deadline with `asyncio.timeout`.
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
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), next_check())
                    changed.clear()
                    if None in views or (answer := await check(*views)) is None:
                        continue
                    for watcher in watchers:
                        watcher.cancel()
                    return answer
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__

    async def _views(self, selection: Selection) -> AsyncIterator[View]:
        while True:
            listed, version = await self._list_with_retries(selection)
            objects = {_key(item): item for item in listed}
            yield dict(objects)
            try:
                while True:
                    async for kind, item in self._events(selection, version):
                        version = str((item.get("metadata") or {}).get("resourceVersion") or version)
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
                    kind, item = _event(line)
                    if kind == "ERROR":
                        raise _failure("watch", selection.collection, None, _status(item), line)
                    if kind == "BOOKMARK":
                        yield kind, item
                    elif (valid := shaped(selection.collection.resource, item)) is not None:
                        yield kind, valid
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as e:
            raise Unavailable("Kubernetes", f"the watch on {selection.collection.resource} broke off") from e
        await asyncio.sleep(_PAUSE)

    @stamina.retry(on=Unavailable, attempts=None, timeout=_OUTAGE, wait_initial=0.2)
    async def _list_with_retries(self, selection: Selection) -> tuple[tuple[KubeObject, ...], str]:
        """The objects, and the collection's version from which a watch continues. All pages have the same version."""
        objects: list[KubeObject] = []
        page = await self._page(selection)
        while True:
            objects += page.items
            if not page.more:
                return tuple(objects), page.version
            page = await self._page(selection, page.more)

    async def _page(self, selection: Selection, token: str = "") -> "_Page":
        collection = selection.collection
        query = selection.query() | {"limit": str(_PAGE)} | ({"continue": token} if token else {})
        try:
            listing = _parse(await self._read("list", collection, query=query))
        except _Gone as error:  # reading the pages took longer than the API server keeps a version
            raise Unavailable("Kubernetes", f"the list of {collection.resource} expired before it was read") from error
        if listing is None:
            raise BotError(
                f"This cluster has no resource {collection.resource} ({collection.access.api}): "
                "check that its CustomResourceDefinition is installed."
            )
        meta, items = listing.get("metadata"), listing.get("items")
        if not isinstance(meta, dict):
            raise Unavailable("Kubernetes", f"its list of {collection.resource} has no metadata")
        objects = [shaped(collection.resource, item) for item in (items if isinstance(items, list) else ())]
        return _Page(
            items=tuple(item for item in objects if item is not None),
            version=str(meta.get("resourceVersion") or ""),
            more=str(meta.get("continue") or ""),
        )

    async def _read(
        self,
        verb: Verb,
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
        except aiohttp.ClientPayloadError as e:  # aborted, or too large
            raise Unavailable("Kubernetes", f"{verb} {collection.resource}: {e}") from e
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise Unavailable("Kubernetes", f"{verb} {collection.resource}") from e

    async def _open(
        self,
        verb: Verb,
        collection: Collection,
        name: str | None = None,
        *,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: KubeObject | None = None,
        timeout: aiohttp.ClientTimeout = _REQUEST,
    ) -> aiohttp.ClientResponse:
        """Send a request and return its response. A refusal of a previously granted permission is retried for
        `_FORBIDDEN_FOR` seconds.
        """
        resource = "/".join(part for part in (collection.resource, subresource) if part)
        permission = (verb, collection.access.group, resource, collection.namespace)
        clock = asyncio.get_running_loop().time
        deadline = clock() + _FORBIDDEN_FOR
        while True:
            try:
                response = await self._request(verb, collection, name, subresource, query, body, timeout)
            except Forbidden as refused:
                lost = permission in self._granted and _BY_AUTHORIZER.search(refused.message)
                if clock() > deadline or not (lost or _CACHES_EMPTY.search(refused.message)):
                    raise
                await asyncio.sleep(_FORBIDDEN_AGAIN)
            else:
                self._granted.add(permission)
                return response

    async def _request(
        self,
        verb: Verb,
        collection: Collection,
        name: str | None,
        subresource: str | None,
        query: Mapping[str, str] | None,
        body: KubeObject | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request through the library's client, which has the address, the certificates and the (refreshed)
        token.

        Every request of the bot to Kubernetes uses this method; requests that are not declared in `bot.clients.rights`
        are not sent.
        """
        collection.access.require(verb, subresource or "")
        if verb in _METHODS:
            await going_to(f"{verb} {collection.resource} {name or ''}")
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


def _failure(verb: Verb, collection: Collection, subresource: str | None, status: int, body: bytes) -> Exception:
    resource = "/".join(part for part in (collection.resource, subresource) if part)
    suffix = f" in namespace {collection.namespace}" if collection.namespace else ""
    message = _message(body)
    match status:
        case 403:
            return Forbidden(
                f"Stoker's role may not {verb} {resource}{suffix}: add that right to its Role or ClusterRole. "
                f"Kubernetes' message: {message}"
            )
        case 409:
            return Conflict("Kubernetes", message)
        case 410:
            return _Gone(message)
        case 401 | 429:
            return Unavailable("Kubernetes", message)
        case _ if status < 500:
            return BotError(f"Kubernetes refused to {verb} {resource}{suffix}: {message}")
        case _:
            return Unavailable("Kubernetes", message)


def _message(body: bytes) -> str:
    """The message of a `Status` object, which may be inside a watch event."""
    text = body.decode(errors="replace")
    try:
        status = parse_json(text)
        return str((status.get("object") or status)["message"])
    except (ValueError, KeyError, AttributeError):
        return text.strip()[:300]


def _parse(text: str | None) -> KubeObject | None:
    if text is None:
        return None
    try:
        parsed = parse_json(text)
    except ValueError as e:
        raise Unavailable("Kubernetes", "its answer is not JSON") from e
    if not isinstance(parsed, dict):
        raise Unavailable("Kubernetes", "its answer is not an object")
    return parsed


def _object(collection: Collection, text: str | None) -> KubeObject | None:
    """One object; None if it does not exist."""
    parsed = _parse(text)
    if parsed is None:
        return None
    item = shaped(collection.resource, parsed)
    if item is None:
        raise Unavailable("Kubernetes", f"its answer about one of {collection.resource} is not an object with a name")
    return item


def _event(line: bytes) -> tuple[str, KubeObject]:
    """The type and the object of one line of a watch; raises ValueError if the line is invalid."""
    event = parse_json(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ValueError("not an event of a watch")
    return str(event.get("type")), event["object"]


def _status(status: KubeObject) -> int:
    code = status.get("code")
    return code if isinstance(code, int) else 500


def _key(item: KubeObject) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
