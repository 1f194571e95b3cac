"""The sandbox's Kubernetes API: an object store, and the REST, watch and discovery protocol over it.

It keeps what clients of a real API server rely on: resource versions that only grow and guard writes, generations, the
scale subresource, watches that resume or answer 410, `Status` bodies. Who gives the objects a life is in `cluster.py`.
"""

import asyncio
import json
import re
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Set
from contextlib import AsyncExitStack, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web

Object = dict[str, Any]

HISTORY = 5000  # changes a watch can resume over; an older version is answered with 410, as after etcd's compaction
BOOKMARK_SECONDS = 60.0
WATCH_SECONDS = 1800.0


@dataclass(frozen=True)
class Resource:
    """One kind that the API serves, as discovery describes it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, short_names=("ns",)),
    Resource("", "v1", "nodes", "Node", namespaced=False, short_names=("no",)),
    Resource("", "v1", "pods", "Pod", short_names=("po",), subresources=("log", "status")),
    Resource("", "v1", "events", "Event", short_names=("ev",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    Resource("", "v1", "services", "Service", short_names=("svc",)),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short_names=("pvc",)),
    Resource("apps", "v1", "deployments", "Deployment", short_names=("deploy",), subresources=("scale", "status")),
    Resource("argoproj.io", "v1alpha1", "applications", "Application", short_names=("app",)),
)
BY_KIND = {resource.kind: resource for resource in RESOURCES}
BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}
REVIEW = "selfsubjectaccessreviews"


class ApiError(Exception):
    """A refusal that the API answers with a `Status` body."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    def status(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def timestamp(moment: datetime | None = None) -> str:
    """`moment`, or now, as `metadata.creationTimestamp` has it: UTC, whole seconds."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Change:
    """One entry of the history: what an object was before and after this version (None: it was not there)."""

    version: int
    resource: Resource
    before: Object | None
    after: Object | None


class ObjectStore:
    """Every object by kind, namespace and name, with one resource version that grows with each change."""

    def __init__(self) -> None:
        self.version = 1000
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._compacted = self.version
        self._changed = asyncio.Event()

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        found = self._objects.get((kind, namespace, name))
        return deepcopy(found) if found else None

    def find(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """The objects of a kind that match the selectors, sorted by namespace and name; no namespace means all."""
        wanted = Selection(namespace, labels, fields)
        keys = sorted(key for key in self._objects if key[0] == kind)
        return [deepcopy(self._objects[key]) for key in keys if wanted.matches(self._objects[key])]

    def create(self, manifest: Object) -> Object:
        resource = BY_KIND[manifest["kind"]]
        created = deepcopy(manifest)
        _canonical(created)
        meta = created.setdefault("metadata", {})
        if "name" not in meta and "generateName" in meta:
            meta["name"] = meta["generateName"] + secrets.token_hex(3)
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", meta.get("name", "")):
            raise ApiError(422, "Invalid", f'{resource.kind} "{meta.get("name", "")}" is invalid: metadata.name')
        key = _key(resource, created)
        if key in self._objects:
            raise ApiError(409, "AlreadyExists", f'{_qualified(resource)} "{meta["name"]}" already exists')
        created.setdefault("apiVersion", resource.api_version)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(), "generation": 1}
        self._record(resource, None, created)
        return deepcopy(created)

    def update(self, kind: str, name: str, namespace: str, change: Callable[[Object], None]) -> Object:
        """Applies `change` to the object; a change of the spec raises the generation, no change changes nothing."""
        resource = BY_KIND[kind]
        before = self._objects.get((kind, namespace, name))
        if before is None:
            raise _not_found(resource, name)
        after = deepcopy(before)
        change(after)
        _canonical(after)
        given = after["metadata"].get("resourceVersion")
        if given and given != before["metadata"]["resourceVersion"]:
            raise ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {_qualified(resource)} "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        if after == before:
            return deepcopy(before)
        for fixed in ("name", "uid", "creationTimestamp", "namespace"):
            if fixed in before["metadata"]:
                after["metadata"][fixed] = before["metadata"][fixed]
        after["metadata"]["generation"] = before["metadata"]["generation"] + (after.get("spec") != before.get("spec"))
        self._record(resource, before, after)
        return deepcopy(after)

    def delete(self, kind: str, name: str, namespace: str = "") -> Object:
        """What DELETE asks for: a pod or an object with finalizers is only marked; its controller ends it."""
        found = self.get(kind, name, namespace)
        if found is None:
            raise _not_found(BY_KIND[kind], name)
        if kind == "Pod" or found["metadata"].get("finalizers"):
            return self.update(kind, name, namespace, _mark_deleted)
        self.remove(kind, name, namespace)
        return found

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """Takes the object out at once; nothing happens where there is none."""
        before = self._objects.get((kind, namespace, name))
        if before is not None:
            self._record(BY_KIND[kind], before, None)

    def since(self, version: int) -> Iterator[Change]:
        """The changes after `version`.

        Raises ApiError 410 when they are no longer all known.
        """
        if version < self._compacted:
            raise ApiError(410, "Expired", f"too old resource version: {version} ({self._compacted})")
        return iter([change for change in self._history if change.version > version])

    def compact(self) -> None:
        """Forgets the history, so that every watch from an older version is answered with 410."""
        self._history.clear()
        self._compacted = self.version

    async def changed(self, version: int) -> None:
        """Waits for the store to move past `version`, or for `wake`."""
        if self.version <= version:
            await self._changed.wait()

    def wake(self) -> None:
        """Ends every `changed`, so that who waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _record(self, resource: Resource, before: Object | None, after: Object | None) -> None:
        self.version += 1
        if after is None:
            del self._objects[_key(resource, before or {})]
        else:
            after["metadata"]["resourceVersion"] = str(self.version)
            self._objects[_key(resource, after)] = after
        if len(self._history) == self._history.maxlen:
            self._compacted = self._history[0].version
        self._history.append(Change(self.version, resource, before, after))
        self.wake()


def _mark_deleted(obj: Object) -> None:
    obj["metadata"].setdefault("deletionTimestamp", timestamp())


def _canonical(value: Any) -> None:
    """Quantities are strings, however they came: `nvidia.com/gpu: 1` is stored as "1"."""
    for name, below in value.items() if isinstance(value, dict) else ():
        if name in {"limits", "requests", "capacity"} and isinstance(below, dict):
            value[name] = {what: str(quantity) for what, quantity in below.items()}
        else:
            _canonical(below)
    for item in value if isinstance(value, list) else ():
        _canonical(item)


def _key(resource: Resource, obj: Object) -> tuple[str, str, str]:
    meta = obj["metadata"]
    namespace = meta.setdefault("namespace", "default") if resource.namespaced else ""
    return resource.kind, namespace, meta["name"]


def _qualified(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{_qualified(resource)} "{name}" not found')


@dataclass(frozen=True)
class Selection:
    """What a list or watch asks for: a namespace, a label selector and a field selector (empty: anything)."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""

    def matches(self, obj: Object) -> bool:
        meta = obj["metadata"]
        if self.namespace and meta.get("namespace") != self.namespace:
            return False
        labels = meta.get("labels") or {}
        return all(_label_matches(term, labels) for term in _terms(self.labels)) and all(
            _field_matches(term, obj) for term in _terms(self.fields)
        )


def _terms(selector: str) -> list[str]:
    return [term.strip() for term in re.split(r",(?![^(]*\))", selector) if term.strip()]


def _label_matches(term: str, labels: dict[str, str]) -> bool:
    if among := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", term):
        name, verb, values = among.groups()
        return (labels.get(name) in {value.strip() for value in values.split(",")}) == (verb == "in")
    if equal := re.fullmatch(r"([^!=\s]+)\s*(==|=|!=)\s*(\S*)", term):
        name, sign, value = equal.groups()
        return (labels.get(name) == value) == (sign != "!=")
    return term[1:] not in labels if term.startswith("!") else term in labels


def _field_matches(term: str, obj: Object) -> bool:
    equal = re.fullmatch(r"([^!=]+)(==|=|!=)(.*)", term)
    if equal is None:
        raise ApiError(400, "BadRequest", f"invalid field selector: {term}")
    path, sign, value = equal.groups()
    found: Any = obj
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return (str(found or "") == value) == (sign != "!=")


def merge_patch(target: Object, patch: Object) -> None:
    """RFC 7386 in place; also good for a strategic merge patch, whose lists are then replaced instead of merged."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            merge_patch(target[name], value)
        else:
            target[name] = value


def json_patch(target: Object, operations: list[Object]) -> None:
    """RFC 6902's add, replace, remove and test, in place."""
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].removeprefix("/").split("/")
        ]
        try:
            place: Any = target
            for parent in parents:
                place = place[int(parent)] if isinstance(place, list) else place[parent]
            _json_operation(place, last, operation)
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise ApiError(
                422, "Invalid", f"the server rejected our request due to an error in our request: {e}"
            ) from e


def _json_operation(place: Any, last: str, operation: Object) -> None:
    where: Any = last if isinstance(place, dict) else len(place) if last == "-" else int(last)
    match operation["op"]:
        case "add" if isinstance(place, list):
            place.insert(where, operation["value"])
        case "add":
            place[where] = operation["value"]
        case "replace":
            del place[where]  # it must be there
            _json_operation(place, last, operation | {"op": "add"})
        case "remove":
            del place[where]
        case "test" if place[where] != operation["value"]:
            raise ValueError(f"testing path {operation['path']} value failed")
        case "test":
            pass
        case other:
            raise ValueError(f"unexpected kind: {other}")


class KubernetesAPI:
    """Serves an `ObjectStore` on loopback at `.url`, to whoever has `.token`."""

    def __init__(self, faults: Set[str] = frozenset()) -> None:
        self.store = ObjectStore()
        self._faults = faults
        self.token = secrets.token_urlsafe(24)
        self.url = ""
        self.logs: Callable[[str, str, str], list[str] | None] = lambda _namespace, _pod, _container: None
        self._closing = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard])
        for root in ("", "/as/{token}"):
            self._add_routes(app.router, root)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self

    def _add_routes(self, router: web.UrlDispatcher, root: str) -> None:
        router.add_get(root + "/version", self._version)
        for path in ("/healthz", "/livez", "/readyz"):
            router.add_get(root + path, self._healthy)
        router.add_get(root + "/api", self._core_versions)
        router.add_get(root + "/apis", self._groups)
        router.add_post(root + "/apis/authorization.k8s.io/v1/" + REVIEW, self._review)
        for api in (root + "/api/{version}", root + "/apis/{group}/{version}"):
            router.add_get(api, self._resources)
            for collection in (api + "/namespaces/{namespace}/{plural}", api + "/{plural}"):
                router.add_route("*", collection, self._collection)
                router.add_route("*", collection + "/{name}", self._item)
            router.add_route("*", api + "/namespaces/{namespace}/{plural}/{name}/{subresource}", self._item)

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self.store.wake()
        await self._stack.aclose()

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig for this server to `path` (JSON, which is YAML).

        kubectl sends no bearer token over plain HTTP, so the address carries it as well.
        """
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "clusters": [{"name": "sandbox", "cluster": {"server": f"{self.url}/as/{self.token}"}}],
            "users": [{"name": "sandbox", "user": {"token": self.token}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
        }
        path.write_text(json.dumps(config, indent=2) + "\n")
        path.chmod(0o600)
        return path

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """Checks the bearer token, and words every refusal as a `Status`."""
        if "api-away" in self._faults and request.transport:
            request.transport.abort()
            return web.Response()  # which nobody hears
        try:
            given = request.match_info.get("token") or request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                raise ApiError(401, "Unauthorized", "Unauthorized")
            answer: web.StreamResponse = await handler(request)
        except ApiError as refusal:
            return web.json_response(refusal.status(), status=refusal.code)
        except web.HTTPException as e:
            unknown = ApiError(e.status, "NotFound", "the server could not find the requested resource")
            return web.json_response(unknown.status(), status=e.status)
        return answer

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "34", "gitVersion": "v1.34.1-gke.sandbox"})

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _core_versions(self, _: web.Request) -> web.Response:
        return web.json_response({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})

    async def _groups(self, _: web.Request) -> web.Response:
        offered = {resource.group: resource.version for resource in RESOURCES if resource.group}
        groups = []
        for name, version in (offered | {"authorization.k8s.io": "v1"}).items():
            served = {"groupVersion": f"{name}/{version}", "version": version}
            groups.append({"name": name, "versions": [served], "preferredVersion": served})
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})

    async def _resources(self, request: web.Request) -> web.Response:
        group, version = request.match_info.get("group", ""), request.match_info["version"]
        described: list[Object] = []
        for resource in RESOURCES:
            if (resource.group, resource.version) != (group, version):
                continue
            entry = {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
            }
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            described.append(entry | {"verbs": verbs, "shortNames": list(resource.short_names)})
            for sub in resource.subresources:
                scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"} if sub == "scale" else {}
                described.append(
                    entry | scale | {"name": f"{resource.plural}/{sub}", "verbs": ["get", "patch", "update"]}
                )
        if group == "authorization.k8s.io":
            kind = "SelfSubjectAccessReview"
            described = [{"name": REVIEW, "singularName": "", "namespaced": False, "kind": kind, "verbs": ["create"]}]
        if not described:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        api_version = f"{group}/{version}" if group else version
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": described}
        )

    async def _review(self, request: web.Request) -> web.Response:
        """Everything is allowed; kubectl asks in protobuf, and takes the answer in JSON."""
        review = await _body(request) if request.content_type == "application/json" else {}
        known = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        return web.json_response(review | known | {"status": {"allowed": True}}, status=201)

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        resource, namespace = self._resource(request), request.match_info.get("namespace", "")
        query = request.query
        wanted = Selection(namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if request.method == "POST":
            manifest = await _body(request)
            manifest |= {"kind": resource.kind, "apiVersion": resource.api_version}
            if resource.namespaced:
                manifest.setdefault("metadata", {})["namespace"] = namespace
            return web.json_response(self.store.create(manifest), status=201)
        if request.method == "DELETE":
            for obj in self.store.find(resource.kind, namespace, labels=wanted.labels, fields=wanted.fields):
                self.store.delete(resource.kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        if request.method != "GET":
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if query.get("watch") in {"1", "true", "True"}:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            with suppress(ConnectionError):  # the client went away
                await self._watch(request, response, resource, wanted)
                await response.write_eof()
            return response
        items = self.store.find(resource.kind, namespace, labels=wanted.labels, fields=wanted.fields)
        return web.json_response(
            {
                "kind": f"{resource.kind}List",
                "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": str(self.store.version)},
                "items": items,
            }
        )

    async def _watch(
        self, request: web.Request, response: web.StreamResponse, resource: Resource, wanted: Selection
    ) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(request.query.get("timeoutSeconds", WATCH_SECONDS))
        bookmarks = request.query.get("allowWatchBookmarks") in {"1", "true", "True"}

        async def send(kind: str, obj: Object) -> None:
            await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

        async def bookmark() -> None:
            if bookmarks:
                meta = {"resourceVersion": str(seen)}
                await send("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})

        try:
            seen = int(request.query.get("resourceVersion") or 0)
            if not seen:
                seen = self.store.version
                found = self.store.find(resource.kind, wanted.namespace, labels=wanted.labels, fields=wanted.fields)
                for obj in found:
                    await send("ADDED", obj)
            while not self._closing and "api-away" not in self._faults and (left := ends - loop.time()) > 0:
                upto = self.store.version
                for change in self.store.since(seen):
                    if change.resource is resource and (event := _event(change, wanted)):
                        await send(*event)
                seen = max(seen, upto)
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                        await self.store.changed(seen)
                except TimeoutError:
                    await bookmark()
        except ApiError as expired:
            await send("ERROR", expired.status())

    async def _item(self, request: web.Request) -> web.StreamResponse:
        match request.match_info.get("subresource"):
            case "scale":
                return await self._scale(request)
            case "log":
                return self._log(request)
            case "status" | None as subresource:
                return await self._object(request, status=subresource == "status")
            case _:
                raise ApiError(404, "NotFound", "the server could not find the requested resource")

    async def _object(self, request: web.Request, *, status: bool) -> web.StreamResponse:
        resource, name = self._resource(request), request.match_info["name"]
        namespace = request.match_info.get("namespace", "")
        match request.method:
            case "GET":
                found = self.store.get(resource.kind, name, namespace)
                if found is None:
                    raise _not_found(resource, name)
                return web.json_response(found)
            case "DELETE":
                return web.json_response(self.store.delete(resource.kind, name, namespace))
            case "PUT" | "PATCH":
                body = await _body(request)
                change = _writer(request.method, body, resource, status=status)
                return web.json_response(self.store.update(resource.kind, name, namespace, change))
            case _:
                raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the resource")

    async def _scale(self, request: web.Request) -> web.Response:
        resource, name = self._resource(request), request.match_info["name"]
        namespace = request.match_info["namespace"]
        deployment = self.store.get(resource.kind, name, namespace)
        if deployment is None or "scale" not in resource.subresources:
            raise _not_found(resource, name)
        if request.method in {"PUT", "PATCH"}:
            scale = _scale_of(deployment)
            _writer(request.method, await _body(request), resource, status=True)(scale)
            replicas = scale["spec"].get("replicas", 0)
            if not isinstance(replicas, int) or replicas < 0:
                raise ApiError(422, "Invalid", f'Scale.autoscaling "{name}" is invalid: spec.replicas: {replicas}')

            def rescale(obj: Object) -> None:
                obj["metadata"]["resourceVersion"] = scale["metadata"].get("resourceVersion")
                obj["spec"]["replicas"] = replicas

            deployment = self.store.update(resource.kind, name, namespace, rescale)
        return web.json_response(_scale_of(deployment))

    def _log(self, request: web.Request) -> web.Response:
        name, namespace = request.match_info["name"], request.match_info["namespace"]
        pod = self.store.get("Pod", name, namespace)
        if pod is None:
            raise _not_found(BY_KIND["Pod"], name)
        container = request.query.get("container") or pod["spec"]["containers"][0]["name"]
        lines = self.logs(namespace, name, container)
        if lines is None:
            message = f'container "{container}" in pod "{name}" is waiting to start: PodInitializing'
            raise ApiError(400, "BadRequest", message)
        tail = int(request.query.get("tailLines", len(lines)))
        return web.Response(text="".join(f"{line}\n" for line in lines[max(0, len(lines) - tail) :]))

    def _resource(self, request: web.Request) -> Resource:
        info = request.match_info
        found = BY_PATH.get((info.get("group", ""), info["version"], info["plural"]))
        if found is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return found


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as e:
        raise ApiError(400, "BadRequest", f"the object provided is unrecognized: {e}") from e


def _event(change: Change, wanted: Selection) -> tuple[str, Object] | None:
    """What a watcher of `wanted` is told of a change: an object that no longer matches is deleted for it."""
    known = change.before if change.before and wanted.matches(change.before) else None
    if change.after and wanted.matches(change.after):
        return ("MODIFIED" if known else "ADDED"), change.after
    if known:
        return "DELETED", known | {"metadata": known["metadata"] | {"resourceVersion": str(change.version)}}
    return None


def _writer(method: str, body: Any, resource: Resource, *, status: bool) -> Callable[[Object], None]:
    """How a PUT or PATCH changes an object; where the status is a subresource, it leaves the status alone."""

    def write(obj: Object) -> None:
        kept = obj.get("status")
        if method == "PUT":
            obj.clear()
            obj.update(body)
        elif isinstance(body, list):
            json_patch(obj, body)
        else:
            merge_patch(obj, body)
        if "status" in resource.subresources and not status:
            if kept is None:
                obj.pop("status", None)
            else:
                obj["status"] = kept

    return write


def _scale_of(deployment: Object) -> Object:
    meta = deployment["metadata"]
    labels = deployment["spec"].get("selector", {}).get("matchLabels", {})
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")},
        "spec": {"replicas": deployment["spec"].get("replicas", 1)},
        "status": {
            "replicas": deployment.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        },
    }
