"""The cluster as the bot operates it: model Deployments, their replicas, and a pod's way to ready or to nothing.

A model's Deployment is found by name in one namespace. The lease that a Deployment carries is the annotation
`stoker.dev/lease`, so that the cluster alone tells who brought a model up.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from kubernetes.aio.client import ApiClient
from pydantic import SecretStr

from bot.clients import boot
from bot.clients.boot import BootFailed, Phase
from bot.clients.kube import Collection, Conflict, Forbidden, Kube, KubeObject, Right, Selection, View
from bot.clients.workload import (
    FENCE,
    LEASE,
    GpuUser,
    Workload,
    annotations_of,
    engine_of,
    fence_of,
    gpu_limit,
    gpus_of,
    named,
    owner_of,
    replicas_of,
    user_of,
    workload_of,
)
from bot.domain import Node
from bot.errors import BotError, Unavailable
from bot.logs import conceal

__all__ = ["BootFailed", "Cluster", "Phase", "StaleFence"]

_LOG_LINES = 40
_ROUNDS = 20
"""Of looking and writing, before a Deployment that changes all the time is given up on."""
_NODES = Collection("/api/v1", "nodes")


class StaleFence(BotError):
    """A worker whose lease is over wanted to change a Deployment that a newer lease has had since."""

    remedy = "Nothing: a newer lease is in charge, and the older worker has stopped."


class Cluster:
    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._kube = Kube(api)
        self._deployments = Collection("/apis/apps/v1", "deployments", namespace)
        self._pods = Collection("/api/v1", "pods", namespace)
        self._events = Collection("/api/v1", "events", namespace)
        self._services = Collection("/api/v1", "services", namespace)

    async def lacking(self, wanted: Iterable[Right]) -> tuple[Right, ...]:
        """Those of the rights (`bot.clients.kube.rights`) that the bot's account does not have."""
        return await self._kube.lacking(wanted)

    async def workload(self, name: str) -> Workload | None:
        found = await self._kube.get(self._deployments, name)
        return workload_of(found, await self._kube.list(Selection(self._services))) if found else None

    async def workloads(self) -> dict[str, Workload]:
        """Every Deployment of the namespace by name, in two requests however many there are."""
        found, services = (
            await self._kube.list(Selection(self._deployments)),
            await self._kube.list(Selection(self._services)),
        )
        return {each.name: each for each in (workload_of(deployment, services) for deployment in found)}

    async def gpu_workloads(self) -> tuple[Workload, ...]:
        """Every Deployment of the cluster that asks for a GPU with replicas above zero, whoever brought it up."""
        found = await self._kube.list(Selection(Collection("/apis/apps/v1", "deployments")))
        holders = [d for d in found if gpus_of(d) and replicas_of(d) > 0]
        services = await self._kube.list(Selection(self._services)) if holders else ()
        return tuple(workload_of(holder, services) for holder in holders)

    async def gpu_users(self) -> tuple[GpuUser, ...]:
        """Everything in the cluster that takes a GPU: Deployments with replicas, and other pods (StatefulSets, Jobs, bare).

        A pod that is over or on its way out is not counted: it lets go of its GPU by itself.
        """
        deployments = await self._kube.list(Selection(Collection("/apis/apps/v1", "deployments")))
        users = {("Deployment", *named(d)): user_of(d) for d in deployments if gpus_of(d) and replicas_of(d) > 0}
        for pod in await self._kube.list(Selection(Collection("/api/v1", "pods"))):
            if boot.is_over(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            if not any(gpu_limit(container) for container in pod["spec"]["containers"]):
                continue
            kind, name = owner_of(pod)
            namespace = pod["metadata"].get("namespace", "")
            if kind != "Deployment":  # those with replicas are known; a pod of one without is about to go
                users.setdefault((kind, namespace, name), GpuUser(kind=kind, namespace=namespace, name=name))
        return tuple(users.values())

    async def highest_fence(self) -> int:
        """The highest fence that any Deployment of the namespace has seen: a new one must be above it."""
        return max((fence_of(d) for d in await self._kube.list(Selection(self._deployments))), default=0)

    async def scale(self, name: str, replicas: int, *, lease: str | None, fence: int | None = None) -> None:
        """Set a Deployment's replicas and the lease that it carries (None takes it off); repeating is harmless.

        With a `fence`, StaleFence when a newer lease has scaled the Deployment since, or when this one was already
        taken off it. Each write names the version that was looked at, so that nothing changes between look and write.
        """
        for _ in range(_ROUNDS):
            found = await self._deployment(name)
            _refuse_if_stale(name, found, fence, up=lease is not None)
            try:
                if replicas:
                    found = await self._annotate(found, lease, fence)
                if replicas_of(found) != replicas:
                    scale = {"metadata": _version(found), "spec": {"replicas": replicas}}
                    await self._kube.patch(self._deployments, name, scale, subresource="scale")
                    found = await self._deployment(name)
                if not replicas:
                    await self._annotate(found, lease, fence)
            except Conflict:  # its controller writes the status at any time: look again
                continue
            return
        raise Unavailable("Kubernetes", f"{name} changes faster than it can be scaled")

    async def mark(self, name: str, lease: str, fence: int) -> None:
        """Bring the lease that a running Deployment carries up to date; StaleFence as in `scale`."""
        for _ in range(_ROUNDS):
            found = await self._deployment(name)
            _refuse_if_stale(name, found, fence, up=False)
            try:
                await self._annotate(found, lease, fence)
            except Conflict:
                continue
            return
        raise Unavailable("Kubernetes", f"{name} changes faster than it can be marked")

    async def _annotate(self, found: KubeObject, lease: str | None, fence: int | None) -> KubeObject:
        wanted: dict[str, str | None] = {LEASE: lease}
        if fence is not None:
            wanted[FENCE] = str(fence)
        known = annotations_of(found)
        if all(known.get(key) == value for key, value in wanted.items()):
            return found
        body = {"metadata": {**_version(found), "annotations": wanted}}
        return await self._kube.patch(self._deployments, found["metadata"]["name"], body) or found

    async def wait_ready(
        self,
        name: str,
        *,
        timeout: float,
        progress: Callable[[tuple[Phase, ...]], Awaitable[None]],
    ) -> tuple[Phase, ...]:
        """The phases of the boot, once the pod is ready; `progress` hears all of them so far whenever one is new.

        A phase that passed unseen, while the bot was restarting or the watch was cut, is told like the others.

        Raises `BootFailed` as soon as the boot cannot succeed, and after `timeout` seconds.
        """
        pods = self._pods_of(await self._deployment(name))
        only = Selection(self._deployments, fields=f"metadata.name={name}")
        told: tuple[Phase, ...] = ()
        events: tuple[KubeObject, ...] = ()
        stale: set[str] | None = None
        seen: tuple[KubeObject, ...] = ()

        async def look(deployments: View, pods: View, all_events: View) -> tuple[Phase, ...] | None:
            nonlocal told, events, stale, seen
            seen = tuple(pods.values())
            if stale is None:  # events outlive their boot by an hour: a ReplicaSet's from before are not about this one
                stale = {e["metadata"]["resourceVersion"] for e in all_events.values()}
            self._refuse_if_scaled_away(name, deployments)
            pod = boot.newest(pods.values())
            if pod is None:
                fresh = [e for e in all_events.values() if e["metadata"]["resourceVersion"] not in stale]
                events = tuple(e for e in fresh if _is_replica_set_of(name, e))
                if refused := boot.refused_pod(events):
                    raise refused
                return None
            events = boot.of(pod["metadata"]["name"], "Pod", all_events.values())
            phases = boot.phases(pod, events)
            if phases != told:
                told = phases
                await progress(told)
            if boot.is_ready(pod):
                return phases
            await self._refuse_if_hopeless(name, pod, phases[-1], events)
            return None

        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._kube.follow(only, pods, Selection(self._events), look=look)
        except TimeoutError as e:
            if not limit.expired():  # `progress` talks to others, and a slow one must not cost the boot
                raise
            log = await self._last_lines(pod) if (pod := boot.newest(seen)) else ""
            raise boot.never_ready(timeout, told[-1] if told else None, events, log) from e

    async def wait_rolled_out(
        self,
        name: str,
        *,
        timeout: float,
        namespace: str | None = None,
        available: bool = True,
    ) -> bool:
        """Returns when every pod of a Deployment is of its newest template; no if there is no such Deployment.

        As `kubectl rollout status` sees it. Without `available` the new pods need not be ready: of a model's way to
        that, `wait_ready` tells more.
        """
        deployments = Collection("/apis/apps/v1", "deployments", namespace or self._home)
        if await self._kube.get(deployments, name) is None:
            return False

        async def look(found: View) -> bool | None:
            return True if all(_rolled_out(each, available) for each in found.values()) else None

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(Selection(deployments, fields=f"metadata.name={name}"), look=look)
        except TimeoutError as e:
            raise BotError(
                f"Deployment {name} in namespace {deployments.namespace} did not roll out in {timeout:.0f} s. "
                f"Look why: kubectl -n {deployments.namespace} describe deployment {name}."
            ) from e

    async def wait_gone(self, name: str, *, timeout: float) -> None:
        """Returns when no pod of the model is left, so that its GPU is free."""
        found = await self._kube.get(self._deployments, name)
        if found is None:
            return
        left: tuple[str, ...] = ()

        async def look(pods: View) -> bool | None:
            nonlocal left
            left = tuple(key[1] for key, pod in pods.items() if not boot.is_over(pod))
            return None if left else True

        try:
            async with asyncio.timeout(timeout):
                await self._kube.follow(self._pods_of(found), look=look)
        except TimeoutError as e:
            raise BotError(
                f"{name} is scaled down, but {', '.join(left) or 'its pod'} is still there after {timeout:.0f} s and "
                f"holds the GPU. Look why it does not end (kubectl describe pod), or delete it."
            ) from e

    async def node_of(self, name: str) -> Node | None:
        """The node that the model's pod runs on; None where there is no such pod, or nodes may not be looked at."""
        found = await self._kube.get(self._deployments, name)
        if found is None:
            return None
        pods = [p for p in await self._kube.list(self._pods_of(found)) if p["spec"].get("nodeName")]
        if not pods:
            return None
        last = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        try:
            node = await self._kube.get(_NODES, last["spec"]["nodeName"])
        except Forbidden:
            return None
        if node is None:
            return None
        meta = node["metadata"]
        machine = (meta.get("labels") or {}).get("node.kubernetes.io/instance-type", "")
        return Node(name=meta["name"], since=datetime.fromisoformat(meta["creationTimestamp"]), machine=machine)

    async def wait_node_gone(self, name: str, *, timeout: float) -> bool:
        """Whether the node went away within `timeout` seconds: watched, since that is when it stops to bill."""

        async def look(nodes: View) -> bool | None:
            return None if nodes else True

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(Selection(_NODES, fields=f"metadata.name={name}"), look=look)
        except TimeoutError:
            return False

    async def secret(self, name: str, field: str, *, namespace: str | None = None) -> SecretStr:
        secrets = Collection("/api/v1", "secrets", namespace or self._deployments.namespace)
        found = await self._kube.get(secrets, name)
        encoded = ((found or {}).get("data") or {}).get(field)
        if encoded is None:
            raise BotError(f"Secret {name} in namespace {secrets.namespace} has no field {field}: create it.")
        try:
            return conceal(SecretStr(base64.b64decode(encoded).decode().strip()))
        except (binascii.Error, UnicodeDecodeError) as e:
            raise BotError(f"Field {field} of Secret {name} in namespace {secrets.namespace} is not text.") from e

    async def _refuse_if_hopeless(
        self, name: str, pod: KubeObject, phase: Phase, events: tuple[KubeObject, ...]
    ) -> None:
        if phase.name == "waiting for a node":
            if failed := boot.no_machine(events):
                raise failed
            if boot.wants_gpu(events):
                others = [w for w in await self.gpu_workloads() if (w.namespace, w.name) != (self._home, name)]
                if others:
                    raise boot.gpu_taken(f"{others[0].name} (namespace {others[0].namespace})")
            return
        if failed := boot.pull_failure(pod) or boot.uncreated(pod):
            raise failed
        if crashed := boot.crash(pod):
            log = await self._kube.log(
                self._pods,
                pod["metadata"]["name"],
                container=crashed.container,
                lines=_LOG_LINES,
                previous=crashed.restarted,
            )
            if failed := boot.explain(crashed, log):
                raise failed

    async def _last_lines(self, pod: KubeObject) -> str:
        """Of the engine's log, as far as there is one."""
        name, engine = pod["metadata"]["name"], engine_of(pod["spec"])["name"]
        try:
            return await self._kube.log(self._pods, name, container=engine, lines=_LOG_LINES, previous=False)
        except (BotError, Unavailable):
            return ""  # the diagnosis is worth more than its last detail

    def _refuse_if_scaled_away(self, name: str, deployments: View) -> None:
        if not any(replicas_of(deployment) for deployment in deployments.values()):
            raise BootFailed(
                f"{name} was scaled to zero, or deleted, while it was starting.",
                "Find out by whom, then ask for it again.",
            )

    async def _deployment(self, name: str) -> KubeObject:
        found = await self._kube.get(self._deployments, name)
        if found is None:
            raise BotError(
                f"There is no Deployment {name} in namespace {self._home}: is its Application synced? (/model list)"
            )
        return found

    def _pods_of(self, deployment: KubeObject) -> Selection:
        labels = deployment["spec"]["selector"].get("matchLabels") or {}
        return Selection(self._pods, labels=",".join(f"{key}={value}" for key, value in labels.items()))

    @property
    def _home(self) -> str:
        return self._deployments.namespace or ""


def _rolled_out(deployment: KubeObject, available: bool) -> bool:
    """Whether the controller has seen the newest template, and no pod of an older one is left."""
    status, wanted = deployment.get("status") or {}, replicas_of(deployment)
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return False
    replaced = status.get("updatedReplicas", 0) >= wanted and status.get("replicas", 0) <= wanted
    return replaced and (not available or int(status.get("availableReplicas", 0)) >= wanted)


def _is_replica_set_of(name: str, event: KubeObject) -> bool:
    involved = event.get("involvedObject") or {}
    made_by_us = re.fullmatch(rf"{re.escape(name)}-[a-z0-9]+", involved.get("name", ""))
    return involved.get("kind") == "ReplicaSet" and made_by_us is not None


def _version(found: KubeObject) -> dict[str, str]:
    return {"resourceVersion": found["metadata"]["resourceVersion"]}


def _refuse_if_stale(name: str, found: KubeObject, fence: int | None, *, up: bool) -> None:
    seen = fence_of(found)
    over = up and seen == fence and LEASE not in annotations_of(found)
    if fence is not None and (seen > fence or over):
        raise StaleFence(
            f"{name} has changed hands since (fence {seen} instead of {fence}), so nothing was changed: see `/gpu status`."
        )
