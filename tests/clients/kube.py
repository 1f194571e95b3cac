"""A Kubernetes API on loopback whose connections can be cut and whose rights can be withheld, and objects for it."""

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from sandbox.kubernetes import KubernetesAPI
from sandbox.objects import BY_KIND

Object = dict[str, Any]


REFUSED = 'pods is forbidden: User "stoker" cannot list resource "pods" in API group "" in the namespace "serving"'


class Wire(KubernetesAPI):
    """The sandbox's API server, which records requests and fails on demand: `forbidden` paths, `unwell` answers,
    `denied` (verb, resource).
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.forbidden = ""
        self.unwell = 0
        self.refusals: list[str] = []
        """Messages of 403 for the next requests, as from a server that has just started."""
        self.before_patch: Callable[[], object] | None = None
        """A change by somebody else, once, between a client's read and its write."""
        self.denied: set[tuple[str, str]] = set()
        self.reviews_together = 0
        """The number of access reviews that must be open at the same time before one is answered."""
        self.open_reviews, self.most_reviews = 0, 0
        self._reviews_overlap = asyncio.Event()
        self._watching: set[asyncio.Transport] = set()

    def count_requests(self, method: str, part: str) -> int:
        return len([line for line in self.requests if line.startswith(method) and part in line])

    def store_unchanged(self, manifest: Object) -> None:
        """Store an object unchanged, without validation."""
        self.store._record(BY_KIND[manifest["kind"]], None, copy.deepcopy(manifest))

    def cut(self) -> None:
        """Drop every connection of a watch, like a load balancer."""
        for transport in self._watching:
            transport.abort()
        self._watching.clear()

    def overtake(self, kind: str, name: str, namespace: str, change: Callable[[Object], None]) -> None:
        """Make a change that no watch receives: the history is deleted, so each watch gets a 410."""
        self.store.update(kind, name, namespace, change)
        self.store.compact()

    async def _review(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.open_reviews += 1
        self.most_reviews = max(self.most_reviews, self.open_reviews)
        if self.open_reviews == self.reviews_together:
            asyncio.get_running_loop().call_later(0.2, self._reviews_overlap.set)  # time for further reviews to arrive
        if self.reviews_together:
            await self._reviews_overlap.wait()
        self.open_reviews -= 1
        attributes = review["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (attributes["resource"], attributes["subresource"]) if part)
        allowed = (attributes["verb"], resource) not in self.denied
        return web.json_response(review | {"status": {"allowed": allowed}}, status=201)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.forbidden and self.forbidden in request.path_qs:
            return web.json_response({"kind": "Status", "code": 403, "message": "stoker cannot do that"}, status=403)
        if self.refusals:
            return web.json_response({"kind": "Status", "code": 403, "message": self.refusals.pop()}, status=403)
        if request.method == "PATCH" and self.before_patch:
            change, self.before_patch = self.before_patch, None
            change()
        if self.unwell:
            self.unwell -= 1
            return web.json_response({"kind": "Status", "code": 503, "message": "etcd is electing"}, status=503)
        if "watch" in request.query and request.transport:
            self._watching.add(request.transport)
        return await super()._guard(request, handler)


@asynccontextmanager
async def connected(wire: Wire) -> AsyncIterator[ApiClient]:
    configuration = Configuration(host=wire.url, api_key={"BearerToken": f"Bearer {wire.token}"})
    async with ApiClient(configuration) as client:
        yield client


async def wait_until(condition: Callable[[], Any], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


_monotonic, _ahead = time.monotonic, 0.0


def time_passes(seconds: float) -> None:
    """Make the timers of event loops for the next `seconds` due now, so that a wait ends immediately and without a race.

    The clock of event loops stays ahead, which has no other effect.
    """
    global _ahead
    _ahead += seconds
    setattr(time, "monotonic", lambda: _monotonic() + _ahead)  # noqa: B010  # mypy refuses to assign to a function


async def hurry(condition: Callable[[], object]) -> None:
    """Advance the clock by one second every hundredth of a second until the condition is true."""
    while not condition():
        time_passes(1)
        await asyncio.sleep(0.01)


def now() -> str:
    """Return the time with microseconds, so that two times in one test differ."""
    return datetime.now(UTC).isoformat()


def application(name: str = "coder-chat", **status: Any) -> Object:
    options = ["RespectIgnoreDifferences=true"]
    return {
        "kind": "Application",
        "metadata": {"name": name, "namespace": "argocd"},
        "spec": {
            "source": {"repoURL": "https://git/platform", "path": f"serving/{name}", "targetRevision": "main"},
            "destination": {"namespace": "serving"},
            "syncPolicy": {"syncOptions": options},
        },
        "status": {"sync": {"status": "OutOfSync", "revision": "old"}, "health": {"status": "Healthy"}} | status,
    }


def deployment(name: str = "coder-chat", *, replicas: int = 0, gpus: int = 1, args: tuple[str, ...] = ()) -> Object:
    labels = {"app.kubernetes.io/name": name}
    limits = {"nvidia.com/gpu": gpus} if gpus else {"cpu": "2"}
    arguments = args or ("--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", f"--served-model-name={name}-7b-instruct")
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai@sha256:1",
        "args": list(arguments),
        "resources": {"limits": limits},
    }
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "serving", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def service(name: str = "coder-chat", port: int = 8000) -> Object:
    return {
        "kind": "Service",
        "metadata": {"name": f"{name}-svc", "namespace": "serving"},
        "spec": {"selector": {"app.kubernetes.io/name": name}, "ports": [{"name": "http", "port": port}]},
    }


def pod(name: str = "coder-chat-1", model: str = "coder-chat", **status: Any) -> Object:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "serving", "labels": {"app.kubernetes.io/name": model}},
        "spec": {"containers": [{"name": "vllm"}], "nodeName": "gpu-1"},
        "status": {"phase": "Pending"} | status,
    }


def condition(kind: str, status: str = "True") -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": now()}


def event(reason: str, message: str, name: str = "coder-chat-1", kind: str = "Pod") -> Object:
    return {
        "kind": "Event",
        "metadata": {"generateName": f"{name}.", "namespace": "serving"},
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": now(),
    }


def caching(workload: Object, claim: str = "coder-chat-model-cache") -> Object:
    """Return the Deployment with a weight cache on a claim, whose path is in HF_HOME."""
    spec = workload["spec"]["template"]["spec"]
    spec["containers"][0] |= {
        "env": [{"name": "HF_HOME", "value": "/models"}],
        "volumeMounts": [{"name": "model-cache", "mountPath": "/models"}],
    }
    spec |= {
        "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"name": "model-cache", "persistentVolumeClaim": {"claimName": claim}}],
    }
    return workload
