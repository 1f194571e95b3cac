"""The storage of the sandbox's Kubernetes: its objects, their resource versions, and their history.

It behaves like etcd and the API server's storage: resource versions guard writes, a change of the spec raises the
generation, and a watch can resume over the latest changes. `kubernetes.py` implements the protocol.
"""

import asyncio
import marshal
import re
import secrets
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, TypeVar, cast

from sandbox.clock import real_date

Object = dict[str, Any]
T = TypeVar("T")

HISTORY = 5000  # number of changes over which a watch can resume; an older version gets 410, as after etcd's compaction


@dataclass(frozen=True)
class Resource:
    """One kind of the API, as in discovery."""

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
    Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, short_names=("pv",)),
    Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False, short_names=("sc",)),
    Resource("apps", "v1", "deployments", "Deployment", short_names=("deploy",), subresources=("scale", "status")),
    Resource("batch", "v1", "jobs", "Job", subresources=("status",)),
    Resource("argoproj.io", "v1alpha1", "applications", "Application", short_names=("app",)),
    Resource("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService", short_names=("isvc",)),
    Resource("serving.kserve.io", "v1alpha1", "llminferenceservices", "LLMInferenceService"),
    Resource("kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization", short_names=("ks",)),
    Resource("source.toolkit.fluxcd.io", "v1", "gitrepositories", "GitRepository", short_names=("gitrepo",)),
    Resource("helm.toolkit.fluxcd.io", "v2", "helmreleases", "HelmRelease", short_names=("hr",)),
)
BY_KIND = {resource.kind: resource for resource in RESOURCES}
BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}


class ApiError(Exception):
    """An error that the API returns as a `Status` body."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def copied(value: T) -> T:
    """Return a copy of a JSON value that consists of plain dicts and lists.

    Every read of the store copies its results, many times a second. `marshal` takes a third of the time of a copy in
    Python or of `copy.deepcopy`.
    """
    try:
        return cast("T", marshal.loads(marshal.dumps(cast("Any", value))))  # noqa: S302  # it reads only its own output
    except ValueError:  # a YAML parser's own types
        return _plain(value)


def _plain(value: T) -> T:
    if isinstance(value, dict):
        return cast("T", {name: _plain(child) for name, child in value.items()})
    return cast("T", [_plain(item) for item in value]) if isinstance(value, list) else value


@dataclass(frozen=True)
class Change:
    """One entry of the history: an object before and after this version (None: it did not exist)."""

    version: int
    resource: Resource
    before: Object | None
    after: Object | None


class ObjectStore:
    """All objects by kind, namespace and name, with one resource version that increases with each change."""

    def __init__(self, date: Callable[[], datetime] = real_date) -> None:
        self.date = date
        self.version = 1000
        self._objects: defaultdict[str, dict[tuple[str, str], Object]] = defaultdict(dict)
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._compacted = self.version
        self._changed = asyncio.Event()

    def timestamp(self) -> str:
        """Return the current time in the format of `metadata.creationTimestamp`: UTC, whole seconds."""
        return self.date().strftime("%Y-%m-%dT%H:%M:%SZ")

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        found_object = self._objects[kind].get((namespace, name))
        return copied(found_object) if found_object else None

    def exists(self, kind: str, name: str, namespace: str = "") -> bool:
        return (namespace, name) in self._objects[kind]

    def find(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Return copies of the objects that match the selectors, sorted by namespace and name; no namespace means all."""
        return [copied(obj) for obj in self.stored(kind, namespace, labels=labels, fields=fields)]

    def stored(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Return the stored objects that `find` would copy, for a caller that only reads them.

        They never change, because every change replaces the object. The controllers read all objects after each change.
        """
        selection = Selection(namespace, labels, fields)
        return [obj for _, obj in sorted(self._objects[kind].items(), key=itemgetter(0)) if selection.matches(obj)]

    def create(self, manifest: Object) -> Object:
        resource = BY_KIND[manifest["kind"]]
        created = copied(manifest)
        _canonical(created)
        meta = created.setdefault("metadata", {})
        if "name" not in meta and "generateName" in meta:
            meta["name"] = meta["generateName"] + secrets.token_hex(3)
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", meta.get("name", "")):
            raise ApiError(422, "Invalid", f'{resource.kind} "{meta.get("name", "")}" is invalid: metadata.name')
        if _key(resource, created) in self._objects[resource.kind]:
            raise ApiError(409, "AlreadyExists", f'{_qualified_name(resource)} "{meta["name"]}" already exists')
        created.setdefault("apiVersion", resource.api_version)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": self.timestamp(), "generation": 1}
        self._record(resource, None, created)
        return copied(created)

    def update(self, kind: str, name: str, namespace: str, change: Callable[[Object], None]) -> Object:
        """Apply `change` to the object and return it; a change of the spec raises its generation.

        Raises ApiError 404 if it does not exist, 409 if `change` sets another resource version.
        """
        resource = BY_KIND[kind]
        before = self._objects[kind].get((namespace, name))
        if before is None:
            raise not_found(resource, name)
        after = copied(before)
        change(after)
        _canonical(after)
        version = after["metadata"].get("resourceVersion")
        if version and version != before["metadata"]["resourceVersion"]:
            raise ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {_qualified_name(resource)} "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        if after == before:
            return copied(before)
        for fixed in ("name", "uid", "creationTimestamp", "namespace"):
            if fixed in before["metadata"]:
                after["metadata"][fixed] = before["metadata"][fixed]
        after["metadata"]["generation"] = before["metadata"]["generation"] + (after.get("spec") != before.get("spec"))
        self._record(resource, before, after)
        return copied(after)

    def delete(self, kind: str, name: str, namespace: str = "") -> Object:
        """Handle DELETE: a pod or an object with finalizers is only marked, and its controller removes it."""
        found_object = self.get(kind, name, namespace)
        if found_object is None:
            raise not_found(BY_KIND[kind], name)
        if kind == "Pod" or found_object["metadata"].get("finalizers"):
            return self.update(
                kind, name, namespace, lambda live: live["metadata"].setdefault("deletionTimestamp", self.timestamp())
            )
        self.remove(kind, name, namespace)
        return found_object

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete the object immediately, if it exists."""
        before = self._objects[kind].get((namespace, name))
        if before is not None:
            self._record(BY_KIND[kind], before, None)

    def since(self, version: int) -> Iterator[Change]:
        """Return the changes after `version`; raises ApiError 410 if some of them are no longer stored."""
        if version < self._compacted:
            raise ApiError(410, "Expired", f"too old resource version: {version} ({self._compacted})")
        return iter([change for change in self._history if change.version > version])

    def compact(self) -> None:
        """Delete the history, so that every watch from an older version gets 410."""
        self._history.clear()
        self._compacted = self.version

    async def changed(self, version: int) -> None:
        """Wait until the store is newer than `version`, or until `wake` is called."""
        if self.version <= version:
            await self._changed.wait()

    def wake(self) -> None:
        """End every `changed`, so that the waiters check again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _record(self, resource: Resource, before: Object | None, after: Object | None) -> None:
        self.version += 1
        if after is None:
            del self._objects[resource.kind][_key(resource, before or {})]
        else:
            after["metadata"]["resourceVersion"] = str(self.version)
            self._objects[resource.kind][_key(resource, after)] = after
        if len(self._history) == self._history.maxlen:
            self._compacted = self._history[0].version
        self._history.append(Change(self.version, resource, before, after))
        self.wake()


def _canonical(value: Any) -> None:
    """Convert quantities to strings: `nvidia.com/gpu: 1` becomes "1"."""
    for name, child in value.items() if isinstance(value, dict) else ():
        if name in {"limits", "requests", "capacity"} and isinstance(child, dict):
            value[name] = {resource_name: str(quantity) for resource_name, quantity in child.items()}
        else:
            _canonical(child)
    for item in value if isinstance(value, list) else ():
        _canonical(item)


def _key(resource: Resource, obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    namespace = meta.setdefault("namespace", "default") if resource.namespaced else ""
    return namespace, meta["name"]


def _qualified_name(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{_qualified_name(resource)} "{name}" not found')


@dataclass(frozen=True)
class Selection:
    """The selection of a list or watch: a namespace, a label selector and a field selector (empty: all)."""

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
    return [term.strip() for term in re.split(r",(?![^(]*\))", selector) if term.strip()] if selector else []


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
    field_value: Any = obj
    for part in path.split("."):
        field_value = field_value.get(part) if isinstance(field_value, dict) else None
    return (str(field_value or "") == value) == (sign != "!=")


def merge_patch(target: Object, patch: Object) -> None:
    """Apply an RFC 7386 patch in place. It is also used for strategic merge patches, whose lists it replaces."""
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
    """Apply RFC 6902's add, replace, remove and test in place; raises ApiError 422 for other operations."""
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
    key: Any = last if isinstance(place, dict) else len(place) if last == "-" else int(last)
    match operation["op"]:
        case "add" if isinstance(place, list):
            place.insert(key, operation["value"])
        case "add":
            place[key] = operation["value"]
        case "replace":
            del place[key]  # raises if it does not exist
            _json_operation(place, last, operation | {"op": "add"})
        case "remove":
            del place[key]
        case "test" if place[key] != operation["value"]:
            raise ValueError(f"testing path {operation['path']} value failed")
        case "test":
            pass
        case other:
            raise ValueError(f"unexpected kind: {other}")
