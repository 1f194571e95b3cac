"""The sandbox's cluster: the Deployment controller, the scheduler, the kubelet and the autoscaler of one GPU node.

Every pod lives in one task that reads like its life: scheduled, pulled, staged, loaded, ready. Git's side of the
cluster is `argocd.py`; who answers in a ready pod is `serving.py`.
"""

import asyncio
import base64
import hashlib
import json
import random
import re
import secrets
import string
from collections.abc import Set
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.argocd import ArgoCD, Git
from sandbox.clock import Clock
from sandbox.jobs import JobController
from sandbox.kubelet import Address, Kubelet
from sandbox.kubernetes import KubernetesAPI
from sandbox.node import GPU, GPU_NODE_PRICE, GpuNode, node
from sandbox.objects import Object, timestamp

REFUSED_DOWNLOADS = {
    "hf-429": "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: {url}",
    "hf-gated": "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url {url}. "
    "Access to model {model} is restricted. You must have access to it and be authenticated to access it.",
}
CPU_NODES = 3

# Seconds on the real platform.
PROVISION = 60.0
NO_NODE_AFTER = 20.0
NO_NODE_RETRY = 120.0
PULL = 240.0
PULL_FAILS = 5.0
STAGE = 90.0
STAGE_WARM = 5.0
LOAD = 210.0
PROBE = 30.0
STARTUP_LIMIT = 900.0
CRASH_BACKOFF = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
TERMINATE = 20.0

NO_NODE = "Node scale up in zones us-central1-a associated with this pod failed: {why}. Pod is at risk of not being scheduled."
NO_NODE_FAULTS = {"no-stock": "GCE out of resources", "no-quota": "GCE quota exceeded"}


@dataclass(frozen=True)
class Death:
    """How a container ends before its time: exit code, the kubelet's reason, and its last words."""

    code: int = 1
    reason: str = "Error"
    log: tuple[str, ...] = ()


DEATHS = {
    "oom": Death(137, "OOMKilled"),
    "crash": Death(
        log=(
            "ERROR [core.py] EngineCore failed to start.",
            "ValueError: To serve at least one request with the model's max seq len (16384), 0.88 GiB KV cache is needed, "
            "which is larger than the available KV cache memory (0.31 GiB). Try increasing `gpu_memory_utilization` or "
            "decreasing `max_model_len` when initializing the engine.",
        )
    ),
}


class Cluster:
    """Gives the objects of `api` a life, and syncs them from `git`; it runs `speed` times faster than life."""

    def __init__(
        self, api: KubernetesAPI, git: Git, speed: float, faults: Set[str], *, environment: str = "ai-dev"
    ) -> None:
        self.api, self.store, self._faults = api, api.store, faults
        self.clock = Clock(speed)
        self._argocd = ArgoCD(api.store, git, self.clock, faults, environment)
        self._lives: dict[Address, asyncio.Task[None]] = {}
        self._kubelet = Kubelet(api.store)
        self._jobs = JobController(api.store, self._kubelet, self._pull)
        self._gpu = GpuNode(api.store, self.clock)
        self._warm: set[str] = set()  # model ids whose weights are in their cache
        self._pulled: set[tuple[str, str]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for number in range(CPU_NODES):
            self.store.create(node(f"gke-ai-dev-default-pool-{number}", {"cpu": "4", "memory": "16Gi"}))
        for namespace in ("default", "argocd", "serving", "litellm"):
            self.store.create({"kind": "Namespace", "metadata": {"name": namespace}, "status": {"phase": "Active"}})
        self._secret("serving", "vllm-api-key", "api-key")
        self._secret("litellm", "litellm-secrets", "PROXY_MASTER_KEY")
        self.api.logs = self._kubelet.read_log
        await self._argocd.start()
        self._control()
        for work in (self._argocd.run(), self._run()):
            task = asyncio.create_task(work)
            self._stack.push_async_callback(_ended, task)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await self._jobs.close()
        await self._gpu.close()
        for task in [*self._lives.values(), *self._endings]:
            await _ended(task)

    def kubeconfig(self, path: Path) -> Path:
        return self.api.kubeconfig(path)

    async def scale(self, name: str, replicas: int, namespace: str = "serving") -> None:
        """What `kubectl scale deployment NAME` does."""
        if self.store.get("Deployment", name, namespace) is None:
            raise LookupError(f'deployments.apps "{name}" not found in namespace {namespace}')
        self.store.update("Deployment", name, namespace, lambda live: live["spec"].update(replicas=replicas))

    def set_speed(self, speed: float) -> None:
        """Let the platform run so many times faster than life from now on."""
        self.clock.speed = speed
        self.store.wake()

    def ready_models(self) -> list[str]:
        """The GPU models that answer now."""
        pods = self.store.find("Pod")
        return sorted({_deployment_of(pod) for pod in pods if _gpus(pod["spec"]) and is_ready(pod)})

    def panel(self) -> Object:
        """What the page shows beside the channel. Dollars and seconds are the platform's, not the viewer's."""
        seconds = self._gpu.billed
        pods = [pod for pod in self.store.find("Pod") if _gpus(pod["spec"])]
        models = [d for d in self.store.find("Deployment") if _gpus(d["spec"]["template"]["spec"])]
        return {
            "node": self._gpu.name,
            "node_state": self._gpu.state,
            "holder": self._gpu.holder.name if self._gpu.holder else None,
            "price": GPU_NODE_PRICE,
            "billed_seconds": round(seconds),
            "cost_usd": round(GPU_NODE_PRICE * seconds / 3600, 4),
            "pods": [{"name": pod["metadata"]["name"], "phase": displayed_phase(pod)} for pod in pods],
            "models": [{"name": d["metadata"]["name"], "replicas": d["spec"].get("replicas", 1)} for d in models],
            "speed": self.clock.speed,
        }

    # The Deployment controller

    async def _run(self) -> None:
        while True:
            seen = self.store.version
            self._control()
            await self.store.changed(seen)

    def _control(self) -> None:
        """One look at everything: pods are started and ended, and the status of each Deployment told."""
        for pod in self.store.find("Pod"):
            address = _address(pod)
            if "deletionTimestamp" in pod["metadata"] and address in self._lives:
                self._terminate(address)
        for deployment in self.store.find("Deployment"):
            self._match(deployment)
        wanted = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in self.store.find("Deployment")}
        for pod in self.store.find("Pod"):
            owner = (pod["metadata"]["namespace"], _deployment_of(pod))
            if owner[1] and owner not in wanted and "deletionTimestamp" not in pod["metadata"]:
                self.store.delete("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])
        self._jobs.control()
        for claim in self.store.find("PersistentVolumeClaim"):
            self._bind(claim)

    def _match(self, deployment: Object) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        template_hash = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
        pods = [pod for pod in self.store.find("Pod", meta["namespace"]) if _deployment_of(pod) == meta["name"]]
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
                self._start_pod(deployment, template_hash)
        kept = [] if replaced else outdated
        self._tell_status(deployment, current[:replicas], outdated=len(kept))

    def _start_pod(self, deployment: Object, template_hash: str) -> None:
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
        life = self._gpu_life(address, pod) if _gpus(pod["spec"]) else self._cpu_life(address, pod)
        self._lives[address] = asyncio.create_task(life)

    def _tell_status(self, deployment: Object, pods: list[Object], *, outdated: int) -> None:
        meta, replicas, ready = deployment["metadata"], len(pods), sum(is_ready(pod) for pod in pods)
        wanted = deployment["spec"].get("replicas", 1)
        available = {"type": "Available", "status": "True" if ready >= wanted else "False"}
        progressing = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
        counts = {
            "replicas": replicas + outdated,
            "updatedReplicas": replicas,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": wanted - ready,
        }
        status: Object = {key: count for key, count in counts.items() if count}
        status |= {"observedGeneration": meta["generation"], "conditions": [available, progressing]}
        self.store.update("Deployment", meta["name"], meta["namespace"], lambda live: live.update(status=status))

    def _bind(self, claim: Object) -> None:
        meta, storage = claim["metadata"], claim["spec"]["resources"]["requests"]["storage"]
        bound = {"phase": "Bound", "capacity": {"storage": storage}}
        self.store.update("PersistentVolumeClaim", meta["name"], meta["namespace"], lambda c: c.update(status=bound))

    # The life of a pod

    async def _cpu_life(self, address: Address, pod: Object) -> None:
        self._kubelet.bound(address, "gke-ai-dev-default-pool-0")
        for container in pod["spec"]["containers"]:
            self._kubelet.container(address, container, running=True, ready=True)
        self._kubelet.condition(address, Initialized=True, ContainersReady=True, Ready=True)
        self._kubelet.update(address, lambda live: live["status"].update(phase="Running"))

    async def _gpu_life(self, address: Address, pod: Object) -> None:
        node = await self._schedule(address)
        self._kubelet.bound(address, node)
        inits, containers = pod["spec"].get("initContainers") or [], pod["spec"]["containers"]
        for container in inits:
            self._kubelet.container(address, container, init=True, waiting="PodInitializing")
        for container in containers:
            self._kubelet.container(address, container, waiting="PodInitializing")
        self._kubelet.condition(address, Initialized=not inits, ContainersReady=False, Ready=False)
        for container in inits:
            await self._pull(address, node, container, True)
            await self._stage(address, container)
        self._kubelet.condition(address, Initialized=True)
        for container in containers:
            await self._pull(address, node, container)
        self._kubelet.update(address, lambda live: live["status"].update(phase="Running"))
        for container in containers:
            await self._load(address, container)
        self._kubelet.condition(address, ContainersReady=True, Ready=True)

    async def _schedule(self, address: Address) -> str:
        """The node the pod runs on: the GPU node once it is free, provisioned if there is none."""
        while True:
            if self._gpu.holder not in {None, address}:
                self._kubelet.unschedulable(address)
                self._kubelet.event(
                    address, "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached"
                )
                while self._gpu.holder not in {None, address}:
                    await self.store.changed(self.store.version)
            self._gpu.take(address)
            if self._gpu.name:
                return self._gpu.name
            self._kubelet.unschedulable(address)
            group = "https://www.googleapis.com/compute/v1/projects/ai-lab/zones/us-central1-a/instanceGroups/gke-gpu"
            self._kubelet.event(address, "TriggeredScaleUp", f"pod triggered scale-up: [{{{group} 0->1 (max: 1)}}]")
            why = next((why for fault, why in NO_NODE_FAULTS.items() if fault in self._faults), None)
            if why is None:
                await self._sleep(PROVISION)
                return self._gpu.provision()
            await self._sleep(NO_NODE_AFTER)
            self._kubelet.event(address, "FailedScaleUp", NO_NODE.format(why=why), warning=True)
            self._gpu.leave(address)
            await self._sleep(NO_NODE_RETRY)

    async def _pull(self, address: Address, node: str, container: Object, init: bool = False) -> None:
        image = container["image"]
        if (node, image) in self._pulled:
            self._kubelet.event(address, "Pulled", f'Container image "{image}" already present on machine')
            return
        self._kubelet.event(address, "Pulling", f'Pulling image "{image}"')
        while "image-missing" in self._faults:
            await self._sleep(PULL_FAILS)
            missing = f"failed to pull and unpack image: failed to resolve reference: {image}: not found"
            self._kubelet.event(
                address,
                "Failed",
                f'Failed to pull image "{image}": rpc error: code = NotFound desc = {missing}',
                warning=True,
            )
            self._kubelet.container(address, container, init=init, waiting="ErrImagePull", message=missing)
            await self._sleep(1)
            back_off = f'Back-off pulling image "{image}"'
            self._kubelet.event(address, "BackOff", back_off, warning=True)
            self._kubelet.container(address, container, init=init, waiting="ImagePullBackOff", message=back_off)
            await self._sleep(CRASH_BACKOFF[0])
        await self._sleep(PULL)
        self._pulled.add((node, image))
        took = f"{PULL:.0f}s ({PULL:.0f}s including waiting)"
        self._kubelet.event(
            address, "Pulled", f'Successfully pulled image "{image}" in {took}. Image size: 9437184000 bytes.'
        )

    async def _stage(self, address: Address, container: Object) -> None:
        """The init container: it downloads the weights, or finds them in the cache."""
        model = _model_of(container)
        restarts = 0
        while True:
            self._kubelet.started(address, container, restarts, init=True)
            refused = next((f for f in REFUSED_DOWNLOADS if f in self._faults and model not in self._warm), None)
            if refused is None:
                break
            await self._sleep(STAGE_WARM)
            self._kubelet.log(address, container, "Traceback (most recent call last):", _refusal(refused, model))
            await self._crash(address, container, restarts, init=True)
            restarts += 1
        await self._sleep(STAGE_WARM if model in self._warm else STAGE)
        self._warm.add(model)
        self._kubelet.log(address, container, "Fetching 10 files: 100%|##########| 10/10")
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": timestamp(), "finishedAt": timestamp()}
        self._kubelet.container(address, container, init=True, terminated=ended, ready=True, restarts=restarts)

    async def _load(self, address: Address, container: Object) -> None:
        """The engine: weights and CUDA graphs; the startup probe fails until it listens."""
        restarts = 0
        while True:
            self._kubelet.started(address, container, restarts)
            self._kubelet.log(address, container, "INFO [api_server.py] vLLM API server version 0.32.0")
            self._kubelet.log(address, container, "INFO [gpu_model_runner.py] Starting to load model ...")
            waited = 0.0
            while waited < LOAD or ("never-ready" in self._faults and waited < STARTUP_LIMIT):
                await self._sleep(PROBE)
                waited += PROBE
                self._kubelet.event(
                    address,
                    "Unhealthy",
                    'Startup probe failed: Get "http://10.8.2.7:8000/health": dial tcp 10.8.2.7:8000: '
                    "connect: connection refused",
                    warning=True,
                )
            died = next((fault for fault in DEATHS if fault in self._faults), None)
            if died:
                self._kubelet.log(address, container, *DEATHS[died].log)
                await self._crash(address, container, restarts, init=False, death=DEATHS[died])
                restarts += 1
                continue
            if "never-ready" not in self._faults:
                break
            reason = f"Container {container['name']} failed startup probe, will be restarted"
            self._kubelet.event(address, "Killing", reason)
            restarts += 1
        self._kubelet.log(address, container, "INFO [launcher.py] Application startup complete.")
        self._kubelet.container(address, container, running=True, ready=True, restarts=restarts)

    async def _crash(
        self, address: Address, container: Object, restarts: int, *, init: bool, death: "Death | None" = None
    ) -> None:
        """The container died; the kubelet backs off before it starts it again."""
        death = death or Death()
        ended = {"exitCode": death.code, "reason": death.reason, "startedAt": timestamp(), "finishedAt": timestamp()}
        self._kubelet.container(address, container, init=init, terminated=ended, restarts=restarts)
        await self._sleep(1)
        delay = CRASH_BACKOFF[min(restarts, len(CRASH_BACKOFF) - 1)]
        what = f"container={container['name']} pod={address.name}_{address.namespace}"
        self._kubelet.container(
            address,
            container,
            init=init,
            waiting="CrashLoopBackOff",
            message=f"back-off {delay:.0f}s restarting failed {what}",
            last=ended,
            restarts=restarts + 1,
        )
        message = f"Back-off restarting failed container {container['name']} in pod {address.name}"
        self._kubelet.event(address, "BackOff", message, warning=True)
        await self._sleep(delay)

    def _terminate(self, address: Address) -> None:
        """Ends a pod's life; it is gone, and its GPU free, after the grace period."""
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

    def _secret(self, namespace: str, name: str, field: str) -> None:
        value = base64.b64encode(f"sk-{secrets.token_urlsafe(18)}".encode()).decode()
        meta = {"name": name, "namespace": namespace}
        self.store.create({"kind": "Secret", "metadata": meta, "type": "Opaque", "data": {field: value}})

    async def _sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)


async def _ended(task: "asyncio.Task[None]") -> None:
    """Cancels the task and waits for its end; an error of its own comes to light here."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def is_ready(pod: Object) -> bool:
    """Whether a Service sends requests to the pod."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def displayed_phase(pod: Object) -> str:
    """The STATUS column of `kubectl get pods`."""
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
    """The Deployment whose pod it is; empty for any other pod."""
    owners = pod["metadata"].get("ownerReferences") or [{"kind": "", "name": ""}]
    return str(owners[0]["name"]).rpartition("-")[0] if owners[0]["kind"] == "ReplicaSet" else ""


def _gpus(spec: Object) -> int:
    limits = [(c.get("resources") or {}).get("limits") or {} for c in spec["containers"]]
    return sum(int(limit.get(GPU, 0)) for limit in limits)


def _model_of(init_container: Object) -> str:
    script = " ".join(init_container.get("command") or [])
    found = re.search(r"""["']([\w.-]+/[\w.-]+)["']""", script)
    return found.group(1) if found else "unknown/model"


def _refusal(fault: str, model: str) -> str:
    """The last line of the download's traceback, as huggingface_hub words it."""
    url = f"https://huggingface.co/api/models/{model}/revision/main"
    return REFUSED_DOWNLOADS[fault].format(url=url, model=model)
