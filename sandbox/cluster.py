"""The sandbox's cluster: the Deployment controller, the scheduler, the kubelet and the autoscaler of one GPU node.

Each pod has a task for its lifecycle: scheduled, pulled, staged, loaded, ready. `argocd.py` syncs the cluster from git;
`serving.py` answers requests to ready pods.
"""

import asyncio
import base64
import hashlib
import json
import random
import secrets
import string
from collections.abc import Mapping, Set
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Self

from sandbox.argocd import ArgoCD, Git
from sandbox.clock import Clock
from sandbox.download import Downloads
from sandbox.flux import Flux
from sandbox.gpu_pods import GpuPods
from sandbox.jobs import JobController
from sandbox.kserve import KServe
from sandbox.kubelet import Address, Kubelet
from sandbox.kubernetes import KubernetesAPI
from sandbox.node import GPU_NODE_PRICE, GpuNode, is_gpu, node
from sandbox.objects import Object
from sandbox.volumes import ZONE, ZONES, Volumes

CPU_NODES = 3

CPU_START = 45.0
"""Seconds that LiteLLM 1.108 with a database takes to start; measured: 45 to 50."""
TERMINATE = 20.0
"""Seconds that a container takes to terminate."""


class Cluster:
    """Controllers for the objects in `api`, synced from `git`; `clock` is their clock, or its speed."""

    def __init__(
        self,
        api: KubernetesAPI,
        git: Git,
        clock: Clock | float,
        faults: Set[str],
        *,
        environment: str = "ai-dev",
        hub: str = "",
        gpu_shares: int = 1,
        keys: Mapping[str, Object] | None = None,
    ) -> None:
        self.api, self.store, self._faults = api, api.store, faults
        self.clock = clock if isinstance(clock, Clock) else Clock(clock)
        self._argocd = ArgoCD(api.store, git, self.clock, faults, environment)
        self._flux = Flux(api.store, git, self.clock, faults)
        self._lives: dict[Address, asyncio.Task[None]] = {}
        self._kubelet = Kubelet(api.store)
        self.volumes = Volumes(api.store, self._kubelet)
        self._kserve = KServe(api.store)
        self._gpu = GpuNode(api.store, self.clock, gpu_shares)
        self._pods = GpuPods(api.store, self._kubelet, self._gpu, self.clock, faults, self.volumes)
        downloads = Downloads(self.volumes, self.clock, faults, hub)
        self._jobs = JobController(api.store, self._kubelet, self._pods.pull, self.volumes, downloads)
        self._keys = dict(keys or {})
        self._endings: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for number in range(CPU_NODES):
            labels = {ZONE: ZONES[number % len(ZONES)]}
            self.store.create(
                node(
                    f"gke-ai-dev-default-pool-{number}", {"cpu": "4", "memory": "16Gi"}, self.store.timestamp(), labels
                )
            )
        for namespace in ("default", "argocd", "serving", "litellm"):
            self.store.create({"kind": "Namespace", "metadata": {"name": namespace}, "status": {"phase": "Active"}})
        self._secret("serving", "vllm-api-key", "api-key", self._keys.get("engine") or {})
        self._secret("litellm", "litellm-secrets", "PROXY_MASTER_KEY", self._keys.get("master") or {})
        self.api.logs, self.api.previous_logs = self._kubelet.read_log, self._kubelet.read_previous_log
        await self._argocd.start()
        await self._flux.start()
        self.volumes.control(used_before=True)  # as if the models of the sample had been up before
        self._control()
        for work in (self._argocd.run(), self._flux.run(), self._run()):
            task = asyncio.create_task(work)
            self._stack.push_async_callback(_ended, task)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await self._jobs.close()
        await self._gpu.close()
        for task in [*self._lives.values(), *self._endings]:
            await _ended(task)

    def kubeconfig(self, path: Path, token: str = "") -> Path:
        return self.api.kubeconfig(path, token)

    async def scale(self, name: str, replicas: int) -> None:
        """Scale a Deployment like `kubectl scale deployment NAME`; raises LookupError if it does not exist."""
        deployment = self._deployment(name)
        if deployment is None:
            raise LookupError(f'deployments.apps "{name}" not found in any namespace')
        namespace = deployment["metadata"]["namespace"]
        self.store.update("Deployment", name, namespace, lambda live: live["spec"].update(replicas=replicas))

    def replicas(self, name: str) -> int | None:
        """Return `spec.replicas` of the Deployment; None if it does not exist."""
        deployment = self._deployment(name)
        return int(deployment["spec"].get("replicas", 1)) if deployment else None

    def _deployment(self, name: str) -> Object | None:
        """Return the Deployment of this name, from the namespace `serving` if it is there; None if it does not exist."""
        deployments = [
            deployment for deployment in self.store.stored("Deployment") if deployment["metadata"]["name"] == name
        ]
        return min(deployments, key=lambda deployment: deployment["metadata"]["namespace"] != "serving", default=None)

    def reclaim_node(self) -> None:
        """Reclaim the GPU node, as a cloud does: its pods are removed, and their replacements have no node.

        Raises LookupError if no GPU node is in use.
        """
        holders = tuple(self._gpu.holders)
        if not self._gpu.name or not holders:
            raise LookupError("there is no GPU node in use that could be reclaimed")
        self._gpu.reclaim()
        for holder in holders:
            if holder in self._lives:
                self._lives.pop(holder).cancel()
            self._kubelet.event(holder, "NodeNotReady", "Node is not ready", warning=True)
            self.store.remove("Pod", holder.name, holder.namespace)  # like the pod garbage collector
        self.store.wake()

    def engine_crashes(self, name: str) -> None:
        """Crash the engine of a ready model, and again at each restart of its container; a new pod works."""
        self._pods.crash(self._serving(name))

    def engine_says(self, line: str, name: str) -> None:
        """Add a line to the log of a running engine."""
        address = self._serving(name)
        pod = self.store.get("Pod", address.name, address.namespace)
        self._kubelet.log(address, (pod or {})["spec"]["containers"][0], line)

    def _serving(self, name: str) -> Address:
        pods = [_address(pod) for pod in self.store.stored("Pod") if _deployment_of(pod) == name and is_ready(pod)]
        if not pods:
            raise LookupError(f"{name} has no pod that is ready")
        return pods[0]

    def set_speed(self, speed: float) -> None:
        """Set the platform's speed relative to real time."""
        self.clock.speed = speed
        self.store.wake()

    def ready_models(self) -> list[str]:
        """Return the names of the GPU models that answer requests."""
        pods = self.store.stored("Pod")
        return sorted({_deployment_of(pod) for pod in pods if _gpus(pod["spec"]) and is_ready(pod)})

    def panel(self) -> Object:
        """Return the data of the panel beside the channel. Dollars and seconds are in the platform's time."""
        seconds = self._gpu.billed
        pods = [pod for pod in self.store.stored("Pod") if _gpus(pod["spec"])]
        models = [d for d in self.store.stored("Deployment") if _gpus(d["spec"]["template"]["spec"])]
        return {
            "node": self._gpu.name,
            "node_state": self._gpu.state,
            "holder": ", ".join(holder.name for holder in self._gpu.holders) or None,
            "price": GPU_NODE_PRICE,
            "billed_seconds": round(seconds),
            "cost_usd": round(GPU_NODE_PRICE * seconds / 3600, 4),
            "pods": [{"name": pod["metadata"]["name"], "phase": displayed_phase(pod)} for pod in pods],
            "models": [{"name": d["metadata"]["name"], "replicas": d["spec"].get("replicas", 1)} for d in models],
            "speed": self.clock.speed,
            "shared": self.clock.shared,
        }

    # The Deployment controller

    async def _run(self) -> None:
        while True:
            version = self.store.version
            self._control()
            await self.store.changed(version)

    def _control(self) -> None:
        """Reconcile once: start and stop pods, and update the status of each Deployment."""
        self._kserve.control()
        for pod in self.store.stored("Pod"):
            address = _address(pod)
            if "deletionTimestamp" in pod["metadata"] and address in self._lives:
                self._terminate(address)
        for deployment in self.store.stored("Deployment"):
            self._match(deployment)
        existing = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in self.store.stored("Deployment")}
        for pod in self.store.stored("Pod"):
            owner = (pod["metadata"]["namespace"], _deployment_of(pod))
            if owner[1] and owner not in existing and "deletionTimestamp" not in pod["metadata"]:
                self.store.delete("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])
        self._jobs.control()
        self.volumes.control()

    def _match(self, deployment: Object) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        template_hash = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
        pods = [pod for pod in self.store.stored("Pod", meta["namespace"]) if _deployment_of(pod) == meta["name"]]
        staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        current = [pod for pod in staying if pod["metadata"]["labels"]["pod-template-hash"] == template_hash]
        outdated = [pod for pod in staying if pod not in current]
        replicas = spec.get("replicas", 1)
        recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
        replaced = recreate or replicas == 0 or any(is_ready(pod) for pod in current)
        for pod in [*current[replicas:], *(outdated if replaced else [])]:
            self.store.delete("Pod", pod["metadata"]["name"], meta["namespace"])
        old_ones_left = any(pod["metadata"]["labels"]["pod-template-hash"] != template_hash for pod in pods)
        if not (recreate and old_ones_left):
            for _ in range(replicas - len(current)):
                self._start_pod(deployment, template_hash, replaces=bool(outdated))
        remaining = [] if replaced else outdated
        self._update_status(deployment, current[:replicas], outdated=len(remaining))

    def _start_pod(self, deployment: Object, template_hash: str, *, replaces: bool) -> None:
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        replica_set = f"{meta['name']}-{template_hash}"
        name = f"{replica_set}-{''.join(random.choices(string.ascii_lowercase + string.digits, k=5))}"
        labels = {**template["metadata"].get("labels", {}), "pod-template-hash": template_hash}
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "controller": True, "uid": "0"}
        pod = self.store.create(
            {
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "annotations": dict(template["metadata"].get("annotations") or {}),
                    "ownerReferences": [owner],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending", "conditions": [], "qosClass": "Burstable"},
            }
        )
        address = _address(pod)
        self._kubelet.event(address, "SuccessfulCreate", f"Created pod: {name}", involved=("ReplicaSet", replica_set))
        life = (
            self._pods.life(address, pod)
            if _gpus(pod["spec"])
            else self._cpu_life(address, pod, CPU_START if replaces else 0)
        )
        self._lives[address] = asyncio.create_task(life)

    def _update_status(self, deployment: Object, pods: list[Object], *, outdated: int) -> None:
        meta, replicas, ready = deployment["metadata"], len(pods), sum(is_ready(pod) for pod in pods)
        desired = deployment["spec"].get("replicas", 1)
        available = {"type": "Available", "status": "True" if ready >= desired else "False"}
        progressing = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
        counts = {
            "replicas": replicas + outdated,
            "updatedReplicas": replicas,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": desired - ready,
        }
        status: Object = {key: count for key, count in counts.items() if count}
        status |= {"observedGeneration": meta["generation"], "conditions": [available, progressing]}
        self.store.update("Deployment", meta["name"], meta["namespace"], lambda live: live.update(status=status))

    # The life of a pod

    async def _cpu_life(self, address: Address, pod: Object, start: float) -> None:
        self._kubelet.bound(address, "gke-ai-dev-default-pool-0")
        await self.clock.sleep(start)
        for container in pod["spec"]["containers"]:
            self._kubelet.container(address, container, running=True, ready=True)
        self._kubelet.condition(address, Initialized=True, ContainersReady=True, Ready=True)
        self._kubelet.update(address, lambda live: live["status"].update(phase="Running"))

    def _terminate(self, address: Address) -> None:
        """Terminate a pod; after the grace period, remove it and free its GPU."""
        self._lives.pop(address).cancel()
        pod = self.store.get("Pod", address.name, address.namespace)
        self._kubelet.event(address, "Killing", "Stopping container " + (pod or {})["spec"]["containers"][0]["name"])

        async def end() -> None:
            await self._sleep(TERMINATE if (pod or {})["spec"].get("nodeName") else 0)
            self.store.remove("Pod", address.name, address.namespace)
            self._gpu.leave(address)
            self.store.wake()

        ending = asyncio.create_task(end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _secret(self, namespace: str, name: str, field: str, also: Object) -> None:
        """Create a Secret with a random key, and the same key in the Secret that the settings name (`also`)."""
        value = base64.b64encode(f"sk-{secrets.token_urlsafe(18)}".encode()).decode()
        usual = {"namespace": namespace, "name": name, "field": field}
        for place in (usual, usual | also) if also.get("namespace") and usual | also != usual else (usual,):
            meta = {"name": place["name"], "namespace": place["namespace"]}
            secret = self.store.get("Secret", meta["name"], meta["namespace"])
            if secret is None:
                secret = {"kind": "Secret", "metadata": meta, "type": "Opaque", "data": {place["field"]: value}}
                self.store.create(secret)
            elif place["field"] not in secret["data"]:
                data = secret["data"] | {place["field"]: value}
                self.store.update("Secret", meta["name"], meta["namespace"], partial(_with_data, data))

    async def _sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)


def _with_data(data: Object, secret: Object) -> None:
    secret["data"] = data


async def _ended(task: "asyncio.Task[None]") -> None:
    """Cancel the task and wait for its end; raises the task's own errors."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def is_ready(pod: Object) -> bool:
    """Return whether a Service sends requests to the pod."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def displayed_phase(pod: Object) -> str:
    """Return the text of the STATUS column of `kubectl get pods`."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for number, status in enumerate(inits := pod["status"].get("initContainerStatuses") or []):
        if not status["ready"]:
            waiting = (status["state"].get("waiting") or {}).get("reason", "PodInitializing")
            return f"Init:{number}/{len(inits)}" if waiting == "PodInitializing" else f"Init:{waiting}"
    if pod["status"]["phase"] == "Running":
        return "Running" if is_ready(pod) else "Running (not ready)"
    return str(pod["status"]["phase"])


def _address(pod: Object) -> Address:
    return Address(pod["metadata"]["namespace"], pod["metadata"]["name"])


def _deployment_of(pod: Object) -> str:
    """Return the name of the Deployment that owns the pod; empty for any other pod."""
    owners = pod["metadata"].get("ownerReferences") or [{"kind": "", "name": ""}]
    return str(owners[0]["name"]).rpartition("-")[0] if owners[0]["kind"] == "ReplicaSet" else ""


def _gpus(spec: Object) -> int:
    limits = [(c.get("resources") or {}).get("limits") or {} for c in spec["containers"]]
    claims = len(spec.get("resourceClaims") or ())  # dynamic resource allocation
    return claims + sum(int(count) for limit in limits for name, count in limit.items() if is_gpu(name))
