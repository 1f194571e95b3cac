"""The sandbox's Kubernetes API: the REST, watch and discovery protocol on top of an `ObjectStore`.

It implements the features that clients of a real API server rely on: resource versions that guard writes, the scale
subresource, watches that resume or answer 410, and `Status` bodies. The controllers are in `cluster.py`.
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Set
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from sandbox.access import Account, request_of
from sandbox.clock import real_date
from sandbox.objects import (
    BY_KIND,
    BY_PATH,
    RESOURCES,
    ApiError,
    Change,
    Object,
    ObjectStore,
    Resource,
    Selection,
    json_patch,
    merge_patch,
    not_found,
)
from sandbox.volumes import quantity

BOOKMARK_SECONDS = 60.0
WATCH_SECONDS = 1800.0
REVIEW = "selfsubjectaccessreviews"


class KubernetesAPI:
    """Serves an `ObjectStore` on loopback at `.url`.

    `.token` is the administrator's token, which grants everything; the Roles of an account grant its rights.
    """

    def __init__(self, faults: Set[str] = frozenset(), date: Callable[[], datetime] = real_date) -> None:
        self.store = ObjectStore(date)
        self._faults = faults
        self.token = secrets.token_urlsafe(24)
        self._accounts: dict[str, Account] = {}
        self.url = ""
        self.logs: Callable[[str, str, str], list[str] | None] = lambda _namespace, _pod, _container: None
        self.previous_logs: Callable[[str, str, str], list[str] | None] = lambda *address: self.logs(*address)
        self.call_counts = Counter[str]()
        """The number of requests for each resource, including refused requests: `GET pods`, `PATCH deployments`."""
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

    def account(self, namespace: str, name: str, roles: Iterable[Object]) -> tuple[Account, str]:
        """Create a ServiceAccount with these Roles and ClusterRoles; returns it with its token."""
        account, token = Account(namespace, name, roles), secrets.token_urlsafe(24)
        self._accounts[token] = account
        return account, token

    def kubeconfig(self, path: Path, token: str = "") -> Path:
        """Write a kubeconfig for this server to `path` (JSON, which is YAML), for an account or the administrator.

        kubectl sends no bearer token over plain HTTP, so the URL also contains the token.
        """
        token = token or self.token
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "clusters": [{"name": "sandbox", "cluster": {"server": f"{self.url}/as/{token}"}}],
            "users": [{"name": "sandbox", "user": {"token": token}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
        }
        path.write_text(json.dumps(config, indent=2) + "\n")
        path.chmod(0o600)
        return path

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """Check the bearer token and the rights of its account, and return every refusal as a `Status`."""
        self.call_counts[f"{request.method} {request.match_info.get('plural', request.path)}"] += 1
        if "api-away" in self._faults and request.transport:
            request.transport.abort()
            return web.Response()  # never sent: the connection is closed
        try:
            account = self._account_of(request)
            if account and "plural" in request.match_info:
                account.require(request_of(request.method, request.match_info, request.query))
            answer: web.StreamResponse = await handler(request)
        except ApiError as refusal:
            return web.json_response(refusal.status(), status=refusal.code)
        except web.HTTPException as e:
            unknown = ApiError(e.status, "NotFound", "the server could not find the requested resource")
            return web.json_response(unknown.status(), status=e.status)
        return answer

    def _account_of(self, request: web.Request) -> Account | None:
        """Return the account of the token; None for the administrator."""
        token = request.match_info.get("token") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self._accounts:
            return self._accounts[token]
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return None

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
        """Answer a SelfSubjectAccessReview. kubectl sends the administrator's review in protobuf, and accepts JSON."""
        review = await _body(request) if request.content_type == "application/json" else {}
        account, identity = (
            self._account_of(request),
            {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"},
        )
        if account and not review:
            raise ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        allowed = account is None or account.review(review["spec"]["resourceAttributes"])
        return web.json_response(review | identity | {"status": {"allowed": allowed}}, status=201)

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        resource, namespace = self._resource(request), request.match_info.get("namespace", "")
        query = request.query
        selection = Selection(namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if request.method == "POST":
            manifest = await _body(request)
            manifest |= {"kind": resource.kind, "apiVersion": resource.api_version}
            if resource.namespaced:
                manifest.setdefault("metadata", {})["namespace"] = namespace
            return web.json_response(self.store.create(manifest), status=201)
        if request.method == "DELETE":
            for obj in self.store.find(resource.kind, namespace, labels=selection.labels, fields=selection.fields):
                self.store.delete(resource.kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        if request.method != "GET":
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if query.get("watch") in {"1", "true", "True"}:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            with suppress(ConnectionError):  # the client disconnected
                await response.prepare(request)
                await self._watch(request, response, resource, selection)
                await response.write_eof()
            return response
        items = self.store.stored(resource.kind, namespace, labels=selection.labels, fields=selection.fields)
        items, meta = _page_of(items, self.store.version, query.get("limit", ""), query.get("continue", ""))
        return web.json_response(
            {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": items}
        )

    async def _watch(
        self, request: web.Request, response: web.StreamResponse, resource: Resource, selection: Selection
    ) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(request.query.get("timeoutSeconds", WATCH_SECONDS))
        bookmarks = request.query.get("allowWatchBookmarks") in {"1", "true", "True"}

        async def send(kind: str, obj: Object) -> None:
            await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

        async def bookmark() -> None:
            if bookmarks:
                meta = {"resourceVersion": str(sent_version)}
                await send("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})

        try:
            sent_version = int(request.query.get("resourceVersion") or 0)
            if not sent_version:
                sent_version = self.store.version
                existing = self.store.stored(
                    resource.kind, selection.namespace, labels=selection.labels, fields=selection.fields
                )
                for obj in existing:
                    await send("ADDED", obj)
            while not self._closing and "api-away" not in self._faults and (left := ends - loop.time()) > 0:
                upto = self.store.version
                for change in self.store.since(sent_version):
                    if change.resource is resource and (event := _event(change, selection)):
                        await send(*event)
                sent_version = max(sent_version, upto)
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                        await self.store.changed(sent_version)
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
                found_object = self.store.get(resource.kind, name, namespace)
                if found_object is None:
                    raise not_found(resource, name)
                return web.json_response(found_object)
            case "DELETE":
                if resource.kind == "Job" and request.query.get("propagationPolicy") not in (
                    "Background",
                    "Foreground",
                ):
                    self._orphan(name, namespace)
                return web.json_response(self.store.delete(resource.kind, name, namespace))
            case "PUT" | "PATCH":
                body = await _body(request)
                change = _writer(request.method, body, resource, status=status)
                if resource.kind == "PersistentVolumeClaim":
                    change = _resizing(change, self.store.find("StorageClass"))
                return web.json_response(self.store.update(resource.kind, name, namespace, change))
            case _:
                raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the resource")

    def _orphan(self, job: str, namespace: str) -> None:
        """Remove the owner of a Job's pods: by default, deleting a Job in batch/v1 orphans its pods."""
        for pod in self.store.find("Pod", namespace, labels=f"batch.kubernetes.io/job-name={job}"):
            name = pod["metadata"]["name"]
            self.store.update("Pod", name, namespace, lambda live: live["metadata"].pop("ownerReferences", None))

    async def _scale(self, request: web.Request) -> web.Response:
        resource, name = self._resource(request), request.match_info["name"]
        namespace = request.match_info["namespace"]
        deployment = self.store.get(resource.kind, name, namespace)
        if deployment is None or "scale" not in resource.subresources:
            raise not_found(resource, name)
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
            raise not_found(BY_KIND["Pod"], name)
        container = request.query.get("container") or pod["spec"]["containers"][0]["name"]
        previous = request.query.get("previous") == "true"
        lines = (self.previous_logs if previous else self.logs)(namespace, name, container)
        if lines is None and previous:
            message = f'previous terminated container "{container}" in pod "{name}" not found'
            raise ApiError(400, "BadRequest", message)
        if lines is None:
            message = f'container "{container}" in pod "{name}" is waiting to start: PodInitializing'
            raise ApiError(400, "BadRequest", message)
        tail = int(request.query.get("tailLines", len(lines)))
        text = "".join(f"{line}\n" for line in lines[max(0, len(lines) - tail) :])
        return web.Response(text=text[: int(request.query.get("limitBytes", len(text)))])

    def _resource(self, request: web.Request) -> Resource:
        info = request.match_info
        resource = BY_PATH.get((info.get("group", ""), info["version"], info["plural"]))
        if resource is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return resource


def _page_of(items: list[Object], version: int, limit: str, token: str) -> tuple[list[Object], Object]:
    """Return at most `limit` objects, and the list's metadata with the token for the next page.

    All pages of a list have the version of the first page. Source:
    https://kubernetes.io/docs/reference/using-api/api-concepts/, "Retrieving large results sets in chunks".
    """
    first, start = token.split(":") if token else (str(version), "0")
    end = int(start) + (int(limit) if limit.isdecimal() and int(limit) else len(items))
    meta: Object = {"resourceVersion": first}
    if end < len(items):
        meta |= {"continue": f"{first}:{end}", "remainingItemCount": len(items) - end}
    return items[int(start) : end], meta


def _resizing(change: Callable[[Object], None], classes: list[Object]) -> Callable[[Object], None]:
    """Add the API server's admission (PersistentVolumeClaimResize) and validation to a change of a claim."""

    def resized(claim: Object) -> None:
        before, version = claim["spec"]["resources"]["requests"]["storage"], claim["metadata"]["resourceVersion"]
        change(claim)
        if claim["metadata"].get("resourceVersion", version) != version:
            return  # a conflict, which the store reports before any validation
        size, name = quantity(claim["spec"]["resources"]["requests"]["storage"]), claim["metadata"]["name"]
        if size < quantity(before):
            message = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
            raise ApiError(422, "Invalid", f'PersistentVolumeClaim "{name}" is invalid: {message}')
        class_name = claim["spec"].get("storageClassName")
        own_classes = [
            storage_class for storage_class in classes if class_name in (None, storage_class["metadata"]["name"])
        ]
        if size > quantity(before) and not any(
            storage_class.get("allowVolumeExpansion") for storage_class in own_classes
        ):
            message = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
            raise ApiError(403, "Forbidden", f'persistentvolumeclaims "{name}" is forbidden: {message}')

    return resized


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as e:
        raise ApiError(400, "BadRequest", f"the object provided is unrecognized: {e}") from e


def _event(change: Change, selection: Selection) -> tuple[str, Object] | None:
    """Return the event that a watcher of `selection` receives; an object that no longer matches appears as deleted."""
    matched_before = change.before if change.before and selection.matches(change.before) else None
    if change.after and selection.matches(change.after):
        return ("MODIFIED" if matched_before else "ADDED"), change.after
    if matched_before:
        return "DELETED", matched_before | {
            "metadata": matched_before["metadata"] | {"resourceVersion": str(change.version)}
        }
    return None


def _writer(method: str, body: Any, resource: Resource, *, status: bool) -> Callable[[Object], None]:
    """Return the change of a PUT or PATCH. If the status is a subresource, it only changes with `status`."""

    def write(obj: Object) -> None:
        status_before = obj.get("status")
        if method == "PUT":
            obj.clear()
            obj.update(body)
        elif isinstance(body, list):
            json_patch(obj, body)
        else:
            merge_patch(obj, body)
        if "status" in resource.subresources and not status:
            if status_before is None:
                obj.pop("status", None)
            else:
                obj["status"] = status_before

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
