"""Model Deployments in the cluster: replicas, leases, and waiting until pods are ready or gone.

`Whereabouts` maps models to Deployments. For other models, the annotation `stoker.dev/model` of the Deployment is used.
The annotation `stoker.dev/lease` holds the lease, so that the cluster records who brought a model up.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from pydantic import SecretStr

from bot.clients import boot, condition
from bot.clients.boot import BootFailed, BootPhase
from bot.clients.condition import Condition
from bot.clients.diagnosis import ends
from bot.clients.diagnosis import pods as diagnose
from bot.clients.diagnosis.cause import Kind
from bot.clients.diagnosis.problems import Patience, Problem, events_of, is_scheduled, moment_of
from bot.clients.kube import Collection, Conflict, Forbidden, KubeObject, Selection, View
from bot.clients.models import Models, in_namespace, in_namespace_of
from bot.clients.rights import (
    EVENTS,
    GATEWAY_DEPLOYMENTS,
    MODELS,
    NODES,
    PODS,
    Access,
)
from bot.clients.whereabouts import Address
from bot.clients.workload import (
    FENCE,
    LAST_MESSAGE,
    LEASE,
    MODEL,
    annotations_of,
    engine_of,
    fence_of,
    named,
    replicas_of,
    was_recorded_within,
)
from bot.domain.sessions import Node
from bot.errors import BotError, Unavailable
from bot.observability.logs import conceal
from bot.settings.config import SecretRef

__all__ = ["BootFailed", "Cluster", "StaleFence"]

_ATTEMPTS = 20
"""Maximum number of attempts if writes conflict."""
_NODES = Collection(NODES)
_ENGINE_LOG_BYTES = 2**19
"""Maximum bytes of an engine's log that are read. A long log with many warnings has 100 kB when the engine is ready."""


class StaleFence(BotError):
    """A worker whose lease has ended tried to change a Deployment that has a newer lease."""

    remedy = "Nothing: a newer lease is in charge, and the older worker has stopped."


class Cluster(Models):
    """Changes models and waits for them."""

    async def scale(self, name: str, replicas: int, *, lease: str | None, fence: int | None = None) -> bool:
        """Set a Deployment's replicas and its lease annotation (None removes it). Idempotent.

        Returns whether this call changed the replicas. Of several identical calls, only one returns True.

        With a `fence`, raises StaleFence if a newer lease has scaled the Deployment, or if this lease was already
        removed. Each write contains the version that was read, so the object cannot change between read and write.
        """
        scaled = False
        for _ in range(_ATTEMPTS):
            deployment = await self._deployment(name)
            _refuse_if_stale(name, deployment, fence, up=lease is not None)
            try:
                if replicas:
                    deployment = await self._annotate(deployment, name, lease, fence)
                if replicas_of(deployment) != replicas:
                    scale = {"metadata": _version(deployment), "spec": {"replicas": replicas}}
                    await self._kube.patch(
                        in_namespace_of(deployment, MODELS), named(deployment)[1], scale, subresource="scale"
                    )
                    scaled = True
                    deployment = await self._deployment(name)
                if not replicas:
                    await self._annotate(deployment, name, lease, fence)
            except Conflict:  # the controller may update the status at any time
                continue
            return scaled
        raise Unavailable("Kubernetes", f"{name} changes faster than it can be scaled")

    async def claim(self, name: str, lease: str | None, fence: int | None) -> None:
        """Write the lease annotation of a Deployment that the deployer will scale up; raises StaleFence like `scale`."""
        await self._put(name, lease, fence, up=True)

    async def record_message(self, name: str, message: str, now: datetime, within: timedelta) -> bool:
        """Record on a Deployment that `message` is sent now. Returns False if it was already recorded less than
        `within` ago.

        If several bots do this at the same time, only one gets True: each write contains the version that was read.
        """
        for _ in range(_ATTEMPTS):
            deployment = await self._deployment(name)
            if was_recorded_within(deployment, message, now, within):
                return False
            try:
                body = {
                    "metadata": {
                        **_version(deployment),
                        "annotations": {LAST_MESSAGE: f"{message} {int(now.timestamp())}"},
                    }
                }
                await self._kube.patch(in_namespace_of(deployment, MODELS), named(deployment)[1], body)
            except Conflict:
                continue
            return True
        raise Unavailable("Kubernetes", f"{name} changes faster than it can be marked")

    async def mark(self, name: str, lease: str, fence: int) -> None:
        """Update the lease annotation of a running Deployment; raises StaleFence like `scale`."""
        await self._put(name, lease, fence, up=False)

    async def _put(self, name: str, lease: str | None, fence: int | None, *, up: bool) -> None:
        for _ in range(_ATTEMPTS):
            deployment = await self._deployment(name)
            _refuse_if_stale(name, deployment, fence, up=up)
            try:
                await self._annotate(deployment, name, lease, fence)
            except Conflict:
                continue
            return
        raise Unavailable("Kubernetes", f"{name} changes faster than it can be marked")

    async def _annotate(self, deployment: KubeObject, model: str, lease: str | None, fence: int | None) -> KubeObject:
        annotations: dict[str, str | None] = {LEASE: lease}
        if lease and named(deployment) != (self.whereabouts.home, model):
            annotations[MODEL] = model  # lets a bot without the repository find the Deployment by the model's name
        if fence is not None:
            annotations[FENCE] = str(fence)
        current = annotations_of(deployment)
        if all(current.get(key) == value for key, value in annotations.items()):
            return deployment
        body = {"metadata": {**_version(deployment), "annotations": annotations}}
        return await self._kube.patch(in_namespace_of(deployment, MODELS), named(deployment)[1], body) or deployment

    async def wait_ready(
        self,
        name: str,
        *,
        timeout: float,
        progress: Callable[[tuple[BootPhase, ...]], Awaitable[None]],
        limit: float | None = None,
        waits: timedelta | None = None,
    ) -> tuple[BootPhase, ...]:
        """Wait until the pod is ready, and return the phases of its boot. `progress` receives all phases so far at each
        change.

        The phases include those that passed while the bot restarted or the watch was interrupted.

        Raises `BootFailed` as soon as the boot cannot succeed, and after `timeout` seconds. A temporary problem is shown
        as the detail of its phase, and fails the boot only if it lasts too long. `limit` is the maximum time of a
        complete boot in seconds (by default `timeout`): a shorter limit shortens the time for which a problem may last.
        `waits` is `timeout` on the bot's clock, for the error message.
        """
        deployment = await self._deployment(name)
        pods, home = self._pods_of(deployment), Address(*named(deployment))
        only = Selection(in_namespace_of(deployment, MODELS), fields=f"metadata.name={home.name}")
        reported: tuple[BootPhase, ...] = ()
        events: tuple[KubeObject, ...] = ()
        stale: set[str] | None = None
        ended_before: set[str] | None = None
        listed: tuple[KubeObject, ...] = ()
        patience = Patience(limit or timeout, asyncio.get_running_loop().time)

        async def check(deployments: View, pods: View, all_events: View) -> tuple[BootPhase, ...] | None:
            nonlocal reported, events, stale, ended_before, listed
            listed = tuple(pods.values())
            ended = {p["metadata"]["name"]: problem for p in listed if boot.is_over(p) and (problem := ends.ended(p))}
            ended_before = set(ended) if ended_before is None else ended_before
            if repeated := ends.repeated([problem for name, problem in ended.items() if name not in ended_before]):
                raise BootFailed.of(repeated)
            if stale is None:  # Kubernetes keeps events for an hour: ignore those of earlier boots
                stale = {e["metadata"]["resourceVersion"] for e in all_events.values()}
            self._refuse_if_scaled_away(name, deployments)
            pod = boot.newest(pods.values())
            if pod is None:
                fresh = [e for e in all_events.values() if e["metadata"]["resourceVersion"] not in stale]
                events = tuple(sorted((e for e in fresh if _is_replica_set_of(home.name, e)), key=moment_of))
                if (refused := diagnose.creation_refused(events)) and patience.is_over(refused):
                    raise BootFailed.of(refused)
                return None
            events = events_of(pod["metadata"]["name"], "Pod", all_events.values())
            is_ready = boot.is_ready(pod)
            problem = None if is_ready else await self._problem(home, pod, tuple(all_events.values()), events)
            phases = boot.phases(pod, events, problem.detail if problem and problem.grace.seconds else "")
            if phases != reported:
                reported = phases
                await progress(reported)
            if is_ready:
                return phases
            if problem and patience.is_over(problem):
                raise BootFailed.of(problem)
            if problem is None:
                patience.is_over(None)
            return None

        try:
            async with asyncio.timeout(timeout) as deadline:
                return await self._kube.follow(
                    only, pods, in_namespace(EVENTS, home.namespace), check=check, next_check=patience.left
                )
        except TimeoutError as e:
            if not deadline.expired():  # `progress` calls other systems; a slow system must not fail the boot
                raise
            pod = boot.newest(listed)
            reader = self._readers[home.namespace]
            log = await reader.tail(pod, engine_of(pod["spec"]).get("name", "")) if pod else ""
            raise boot.never_ready(
                waits or timedelta(seconds=timeout), reported[-1] if reported else None, events, log
            ) from e

    async def engine_log(self, name: str) -> str:
        """The beginning of the log of a model's newest pod, in which the engine reports its measurements; empty if there
        is no pod.
        """
        pods = await self._kube.list(self._pods_of(await self._deployment(name)))
        pod = boot.newest(pods)
        if pod is None:
            return ""
        container = engine_of(pod["spec"]).get("name", "")
        return await self._kube.log(
            in_namespace_of(pod, PODS),
            pod["metadata"]["name"],
            container=container,
            previous=False,
            size=_ENGINE_LOG_BYTES,
        )

    async def last_log(self, name: str) -> str:
        """The last lines of the log of a model's newest pod; empty if there is no pod, or if the log cannot be read."""
        deployment = await self._deployment(name)
        pod = boot.newest(await self._kube.list(self._pods_of(deployment)))
        if pod is None:
            return ""
        return await self._readers[Address(*named(deployment)).namespace].tail(
            pod, engine_of(pod["spec"]).get("name", "")
        )

    async def wait_rolled_out(
        self,
        name: str,
        *,
        timeout: float,
        namespace: str | None = None,
        available: bool = True,
    ) -> bool:
        """Wait until every pod of a Deployment has the Deployment's newest template; returns False if the Deployment
        does not exist.

        Works like `kubectl rollout status`. `namespace` is for the gateway's Deployment. Without `available` the new
        pods need not be ready: `wait_ready` reports more about a model's boot.
        """
        if namespace:
            deployments, deployment = Collection(GATEWAY_DEPLOYMENTS, namespace), name
            if await self._kube.get(deployments, name) is None:
                return False
        elif model := await self._find(name):
            deployments, deployment = in_namespace_of(model, MODELS), named(model)[1]
        else:
            return False

        async def is_rolled_out(listed: View) -> bool | None:
            return True if all(_has_rolled_out(candidate, available) for candidate in listed.values()) else None

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(
                    Selection(deployments, fields=f"metadata.name={deployment}"), check=is_rolled_out
                )
        except TimeoutError as e:
            raise BotError(
                f"Deployment {deployment} in namespace {deployments.namespace} did not roll out in {timeout:.0f} s. "
                f"Find out why: kubectl -n {deployments.namespace} describe deployment {deployment}."
            ) from e

    async def wait_gone(self, name: str, *, timeout: float) -> None:
        """Wait until the model has no pods, so that its GPU is free."""
        workload = await self._find(name)
        if workload is None:
            return
        remaining: tuple[str, ...] = ()

        async def is_gone(pods: View) -> bool | None:
            nonlocal remaining
            remaining = tuple(key[1] for key, pod in pods.items() if not boot.is_over(pod))
            return None if remaining else True

        try:
            async with asyncio.timeout(timeout):
                await self._kube.follow(self._pods_of(workload), check=is_gone)
        except TimeoutError as e:
            raise BotError(
                f"{name} is scaled down, but {', '.join(remaining) or 'its pod'} is still there after {timeout:.0f} s and "
                f"holds the GPU. Find out why it does not end (kubectl describe pod), or delete it."
            ) from e

    async def node_of(self, name: str) -> Node | None:
        """The node of the model's pod; None if there is no such pod, or the bot may not read nodes."""
        deployment = await self._find(name)
        if deployment is None:
            return None
        pods = [p for p in await self._kube.list(self._pods_of(deployment)) if p["spec"].get("nodeName")]
        if not pods:
            return None
        last = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        try:
            node = await self._kube.get(_NODES, last["spec"]["nodeName"])
        except Forbidden:
            return None
        return _node_of(node) if node else None

    async def condition(self, name: str, last: Node | None = None) -> Condition:
        """The condition of a model that should be serving, with its billed node: the node of its pod, or `last` as long
        as that node exists.
        """
        deployment = await self._find(name)
        listed = await self._kube.list(self._pods_of(deployment)) if deployment else ()
        serving = any(boot.is_ready(pod) for pod in listed)
        namespace = named(deployment)[0] if deployment else self.whereabouts.home
        events = () if serving else await self._kube.list(in_namespace(EVENTS, namespace))
        result = await condition.examine(name, deployment, listed, events, self._readers[namespace])
        pod = next((pod for pod in listed if boot.is_ready(pod)), None) or boot.newest(listed)
        node_name = (pod["spec"].get("nodeName") if pod else "") or (last.name if last else "")
        if not node_name:
            return result
        try:
            node = await self._kube.get(_NODES, node_name)
        except Forbidden:
            return result.model_copy(update={"node_known": False})
        if pod and pod["spec"].get("nodeName"):
            result = result if node else condition.with_missing_node(result, node_name)
            result = condition.with_unready_node(result, node_name) if node and not _is_node_ready(node) else result
        return result.model_copy(update={"node": _node_of(node) if node else None})

    async def wait_node_gone(self, name: str, *, timeout: float) -> bool:
        """Wait until the node is removed, which ends its billing. Returns False after `timeout` seconds."""

        async def is_gone(nodes: View) -> bool | None:
            return None if nodes else True

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(Selection(_NODES, fields=f"metadata.name={name}"), check=is_gone)
        except TimeoutError:
            return False

    async def secret(self, access: Access, ref: SecretRef) -> SecretStr:
        """A field of a Secret that the bot's Roles allow it to read (`ENGINE_KEY`, `MASTER_KEY`).

        Raises BotError if the Secret is not configured, or if the field is missing or not text.
        """
        if not ref.namespace:
            raise BotError(
                f"The setting {access.place.value.removesuffix('.namespace')} names no Secret: set its namespace, name and field."
            )
        stored = await self._kube.get(Collection(access, ref.namespace), ref.name)
        encoded = ((stored or {}).get("data") or {}).get(ref.field)
        if encoded is None:
            raise BotError(f"Secret {ref.name} in namespace {ref.namespace} has no field {ref.field}: create it.")
        try:
            return conceal(SecretStr(base64.b64decode(encoded).decode().strip()))
        except (binascii.Error, UnicodeDecodeError) as e:
            raise BotError(
                f"Field {ref.field} of Secret {ref.name} in namespace {ref.namespace} is not text in UTF-8: write it again."
            ) from e

    async def _problem(
        self, home: Address, pod: KubeObject, everything: tuple[KubeObject, ...], events: tuple[KubeObject, ...]
    ) -> Problem | None:
        """The reason why a pod is not ready, for example another model on the GPU; None if the wait is normal."""
        if not is_scheduled(pod) and diagnose.wants_gpu(events):
            other_models = [w for w in await self.gpu_workloads() if (w.namespace, w.name) != home]
            if other_models:
                return boot.gpu_taken(f"{other_models[0].name} (namespace {other_models[0].namespace})")
        return await self._readers[home.namespace].problem(pod, everything)

    def _refuse_if_scaled_away(self, name: str, deployments: View) -> None:
        if not any(replicas_of(deployment) for deployment in deployments.values()):
            raise BootFailed(
                f"{name} was scaled to zero, or deleted, while it was starting.",
                "Find out who did this, then request it again.",
                kind=Kind.CHANGED,
            )


def _node_of(node: KubeObject) -> Node:
    meta = node["metadata"]
    machine = (meta.get("labels") or {}).get("node.kubernetes.io/instance-type", "")
    return Node(name=meta["name"], since=datetime.fromisoformat(meta["creationTimestamp"]), machine=machine)


def _is_node_ready(node: KubeObject) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return not any(c.get("type") == "Ready" and c.get("status") != "True" for c in conditions)


def _has_rolled_out(deployment: KubeObject, available: bool) -> bool:
    """Return whether the controller has observed the newest template, and no pod of an older template remains."""
    status, replicas = deployment.get("status") or {}, replicas_of(deployment)
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return False
    replaced = status.get("updatedReplicas", 0) >= replicas and status.get("replicas", 0) <= replicas
    return replaced and (not available or int(status.get("availableReplicas", 0)) >= replicas)


def _is_replica_set_of(name: str, event: KubeObject) -> bool:
    involved = event.get("involvedObject") or {}
    is_of_deployment = re.fullmatch(rf"{re.escape(name)}-[a-z0-9]+", involved.get("name", ""))
    return involved.get("kind") == "ReplicaSet" and is_of_deployment is not None


def _version(deployment: KubeObject) -> dict[str, str]:
    return {"resourceVersion": deployment["metadata"]["resourceVersion"]}


def _refuse_if_stale(name: str, deployment: KubeObject, fence: int | None, *, up: bool) -> None:
    current, leased = fence_of(deployment), LEASE in annotations_of(deployment)
    has_ended = up and current == fence and not leased
    # If Redis lost a claim, two operations may have claimed one model. The first one to scale it up keeps the model.
    is_taken = up and current != fence and leased and replicas_of(deployment) > 0
    if fence is not None and (current > fence or has_ended or is_taken):
        raise StaleFence(
            f"{name} has another holder now (fence {current} instead of {fence}), so nothing was changed: see `/gpu status`."
        )
