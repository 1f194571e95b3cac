"""The lifecycle of a pod with a GPU (scheduled, attached, pulled, staged, loaded, ready), and the failure of each step.

The messages are those of Kubernetes 1.3x, GKE's autoscaler, containerd and huggingface_hub.
"""

import asyncio
from collections.abc import Set
from dataclasses import dataclass

from sandbox import engine_log
from sandbox.clock import Clock
from sandbox.command_line import CommandLine, engine_container
from sandbox.download import RATE, Script
from sandbox.kubelet import Address, Kubelet
from sandbox.node import GpuNode
from sandbox.objects import Object, ObjectStore
from sandbox.volumes import Volumes, claims_of

REFUSED_DOWNLOADS = {
    "hf-429": "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: {url}",
    "hf-gated": "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url {url}. "
    "Access to model {model} is restricted. You must have access to it and be authenticated to access it.",
}

# Seconds on the real platform.
PROVISION = 60.0
NO_NODE_AFTER = 20.0
NO_NODE_RETRY = 600.0  # after a failure, the autoscaler avoids the zone for 5 to 30 minutes
PULL = 240.0
PULL_FAILS = 5.0
STAGE = 90.0
STAGE_WARM = 5.0
LOAD = 210.0
COMPILE = 72.0
"""The part of LOAD that torch.compile takes if no earlier boot of the image has left its files on the volume. It
depends on the model; measured with vLLM on two consumer GPUs (https://blog.fulatoro.com/page-cache-vs-compile-cache/).
"""
PROBE = 30.0
STARTUP_LIMIT = 900.0
BLIP = 60.0
ATTACH_RETRY = 120.0  # the kubelet reports a volume that is not attached after two minutes
CRASH_BACKOFF = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)

NO_NODE = "Node scale up in zones us-central1-a associated with this pod failed: {why}. Pod is at risk of not being scheduled."
NO_NODE_FAULTS = {"no-stock": "GCE out of resources", "no-quota": "GCE quota exceeded"}
HOLDER, HOLDERS_NODE = "weights-shell", "gke-ai-dev-default-pool-1"
"""With `attach-stuck`: the pod that holds the volume with the weights, and its node."""
ILLEGAL_ACCESS = "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"


@dataclass(frozen=True)
class Death:
    """The end of a container: its exit code, the kubelet's reason, its last log lines, the runtime's message."""

    code: int = 1
    reason: str = "Error"
    log: tuple[str, ...] = ()
    message: str = ""


def _too_small(context: int, needed: str, free: str, largest: str = "") -> str:
    estimate = f" Based on the available memory, the estimated maximum model length is {largest}." if largest else ""
    return (
        f"ValueError: To serve at least one request with the model's max seq len ({context}), ({needed} GiB KV cache is needed, which "
        f"is larger than the available KV cache memory ({free} GiB).{estimate} Try increasing `gpu_memory_utilization` or "
        "decreasing `max_model_len` when initializing the engine."
    )


DEATHS = {
    "oom": Death(137, "OOMKilled"),
    "crash": Death(log=tuple(engine_log.engine_fails(_too_small(16384, "0.88", "0.31")))),
    "kv-cache-too-small": Death(log=tuple(engine_log.engine_fails(_too_small(65536, "3.50", "2.63", "49216")))),
    "cuda-oom": Death(
        log=tuple(
            engine_log.engine_fails(
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.53 GiB. GPU 0 has a total capacity of 22.03 GiB of "
                "which 1.02 GiB is free. Including non-PyTorch memory, this process has 21.00 GiB memory in use."
            )
        )
    ),
}


class GpuPods:
    """Runs the lifecycle of the pods in `store` on the one GPU node."""

    def __init__(
        self, store: ObjectStore, kubelet: Kubelet, gpu: GpuNode, clock: Clock, faults: Set[str], volumes: Volumes
    ) -> None:
        self._store, self._kubelet, self._gpu, self._clock, self._faults = store, kubelet, gpu, clock, faults
        self._volumes = volumes
        self._pulled: set[tuple[str, str]] = set()
        self._crashes: dict[Address, asyncio.Event] = {}

    async def life(self, address: Address, pod: Object) -> None:
        node = await self._schedule(address)
        self._kubelet.bound(address, node)
        inits, containers = pod["spec"].get("initContainers") or [], pod["spec"]["containers"]
        for container in inits:
            self._kubelet.container(address, container, init=True, waiting="PodInitializing")
        for container in containers:
            self._kubelet.container(address, container, waiting="PodInitializing")
        self._kubelet.condition(address, Initialized=not inits, ContainersReady=False, Ready=False)
        await self._wait_for_attachment(address, pod)
        await self._volumes.attached(address, pod["spec"], node)
        for container in inits:
            await self.pull(address, node, container, True)
            await self._stage(address, container, pod["spec"])
        self._kubelet.condition(address, Initialized=True)
        for container in containers:
            await self.pull(address, node, container)
        self._kubelet.update(address, lambda live: live["status"].update(phase="Running"))
        engine = engine_container(pod["spec"])
        words = CommandLine(self._store, pod).words
        for container in containers:
            if container is engine:
                await self._load(address, container, pod["spec"], words)
            else:  # a proxy beside the engine
                self._kubelet.container(address, container, running=True, ready=True)
        self._kubelet.condition(address, ContainersReady=True, Ready=True)
        await self._crashed(address).wait()
        await self._crash_repeatedly(address, engine, words)

    async def _schedule(self, address: Address) -> str:
        """Wait for the GPU node, which is created if there is none; returns its name."""
        while True:
            if not self._gpu.is_free_for(address):
                self._kubelet.unschedulable(address)
                self._kubelet.event(
                    address, "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached"
                )
                while not self._gpu.is_free_for(address):
                    await self._store.changed(self._store.version)
            self._gpu.take(address)
            if self._gpu.name:
                return self._gpu.name
            self._kubelet.unschedulable(address)
            self._scale_up(address, "us-central1-a")
            reason = next((reason for fault, reason in NO_NODE_FAULTS.items() if fault in self._faults), None)
            if self._gpu.scarce:  # a machine that was just reclaimed is not available immediately
                reason, self._gpu.scarce = reason or NO_NODE_FAULTS["no-stock"], False
            if reason is None and "zone-blip" in self._faults:
                await self._clock.sleep(NO_NODE_AFTER)
                out_of_stock = NO_NODE_FAULTS["no-stock"]
                self._kubelet.event(address, "FailedScaleUp", NO_NODE.format(why=out_of_stock), warning=True)
                await self._clock.sleep(BLIP)
                self._scale_up(address, "us-central1-b")
            if reason is None:
                await self._clock.sleep(PROVISION)
                return (
                    self._gpu.name or self._gpu.provision()
                )  # another pod that shares the GPU may have created it meanwhile
            await self._clock.sleep(NO_NODE_AFTER)
            self._kubelet.event(address, "FailedScaleUp", NO_NODE.format(why=reason), warning=True)
            self._gpu.leave(address)
            await self._clock.sleep(NO_NODE_RETRY)

    async def pull(self, address: Address, node: str, container: Object, init: bool = False) -> None:
        image = container["image"]
        if (node, image) in self._pulled:
            self._kubelet.event(address, "Pulled", f'Container image "{image}" already present on machine')
            return
        self._kubelet.event(address, "Pulling", f'Pulling image "{image}"')
        while "image-missing" in self._faults:
            await self._clock.sleep(PULL_FAILS)
            missing = f"failed to pull and unpack image: failed to resolve reference: {image}: not found"
            self._pull_failed(address, container, init, missing)
            await self._clock.sleep(1)
            back_off = f'Back-off pulling image "{image}"'
            self._kubelet.event(address, "BackOff", back_off, warning=True)
            self._kubelet.container(address, container, init=init, waiting="ImagePullBackOff", message=back_off)
            await self._clock.sleep(CRASH_BACKOFF[0])
        if "pull-blip" in self._faults:
            error = f'failed to resolve reference "{image}": dial tcp 142.250.1.82:443: i/o timeout'
            self._pull_failed(address, container, init, error)
            await self._clock.sleep(BLIP)
            self._kubelet.event(address, "Pulling", f'Pulling image "{image}"')
        await self._clock.sleep(PULL)
        self._pulled.add((node, image))
        duration = f"{PULL:.0f}s ({PULL:.0f}s including waiting)"
        self._kubelet.event(
            address, "Pulled", f'Successfully pulled image "{image}" in {duration}. Image size: 9437184000 bytes.'
        )

    async def _stage(self, address: Address, container: Object, spec: Object) -> None:
        """Run the init container, which downloads the weights, or finds them on the volume."""
        model = Script.of(container.get("command") or [""], {}).model
        claim = (address.namespace, next(iter(claims_of(spec)), ""))
        warm = model in self._volumes.complete[claim]
        restarts = 0
        while True:
            self._kubelet.started(address, container, restarts, init=True)
            refused = next((f for f in REFUSED_DOWNLOADS if f in self._faults and not warm), None)
            if refused is None:
                break
            self._kubelet.log(address, container, "Traceback (most recent call last):", _refusal(refused, model))
            await self._clock.sleep(STAGE_WARM)
            await self._crash(address, container, restarts, init=True)
            restarts += 1
        await self._clock.sleep(STAGE_WARM if warm else STAGE)
        self._volumes.complete[claim].add(model)
        self._volumes.downloaded[claim].setdefault(model, STAGE * RATE)
        self._kubelet.log(address, container, "Fetching 10 files: 100%|##########| 10/10")
        ended = {
            "exitCode": 0,
            "reason": "Completed",
            "startedAt": self._store.timestamp(),
            "finishedAt": self._store.timestamp(),
        }
        self._kubelet.container(address, container, init=True, terminated=ended, ready=True, restarts=restarts)

    async def _load(self, address: Address, container: Object, spec: Object, words: list[str]) -> None:
        """Start the engine: weights, compilation and CUDA graphs. The startup probe fails until the engine listens."""
        cache = self._volumes.compile_cache(address.namespace, container, spec)
        takes = LOAD - COMPILE if cache in self._volumes.compiled else LOAD
        if "secret-sync-blip" in self._faults:
            error = "failed to sync secret cache: timed out waiting for the condition"
            self._kubelet.event(address, "Failed", f"Error: {error}", warning=True)
            self._kubelet.container(address, container, waiting="CreateContainerConfigError", message=error)
            await self._clock.sleep(BLIP)
        restarts = 0
        while True:
            if "driver-too-old" in self._faults:
                await self._cannot_start(address, container, restarts)
                restarts += 1
                continue
            self._kubelet.started(address, container, restarts)
            self._kubelet.log(address, container, *engine_log.banner(words))
            waited = 0.0
            while waited < takes or ("never-ready" in self._faults and waited < STARTUP_LIMIT):
                await self._clock.sleep(PROBE)
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
        if cache:
            self._volumes.compiled.add(cache)
        self._kubelet.log(address, container, *engine_log.loaded(words))
        self._kubelet.container(address, container, running=True, ready=True, restarts=restarts)

    async def _wait_for_attachment(self, address: Address, pod: Object) -> None:
        """With `attach-stuck`, let a pod on another node hold the weights' claim until the fault ends."""
        claims = claims_of(pod["spec"])
        if not claims or "attach-stuck" not in self._faults:
            return
        self._hold_claim(address.namespace, claims[0])
        self._kubelet.event(
            address,
            "FailedAttachVolume",
            f'Multi-Attach error for volume "pvc-{claims[0]}" Volume is already used by pod(s) {HOLDER}',
            warning=True,
        )
        while "attach-stuck" in self._faults:
            await self._clock.sleep(ATTACH_RETRY)
            self._kubelet.event(
                address,
                "FailedMount",
                f"Unable to attach or mount volumes: unmounted volumes=[{claims[0]}]: timed out waiting for the condition",
                warning=True,
            )
        self._store.remove("Pod", HOLDER, address.namespace)
        attached = f'AttachVolume.Attach succeeded for volume "pvc-{claims[0]}"'
        self._kubelet.event(address, "SuccessfulAttachVolume", attached)

    def _hold_claim(self, namespace: str, claim: str) -> None:
        if self._store.get("Pod", HOLDER, namespace) is None:
            volume = {"name": "weights", "persistentVolumeClaim": {"claimName": claim}}
            container = {"name": "shell", "image": "busybox"}
            self._store.create(
                {
                    "kind": "Pod",
                    "metadata": {"name": HOLDER, "namespace": namespace},
                    "spec": {"nodeName": HOLDERS_NODE, "containers": [container], "volumes": [volume]},
                    "status": {"phase": "Running", "conditions": []},
                }
            )

    async def _cannot_start(self, address: Address, container: Object, restarts: int) -> None:
        """Fail a container that the runtime's hook refuses: exit code 128, and no log."""
        error = (
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to "
            "start container process: error during container init: error running prestart hook #0: exit status 1, stderr: "
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your driver to a newer "
            "version, or use an earlier cuda container: unknown"
        )
        self._kubelet.event(address, "Failed", f"Error: {error}", warning=True)
        self._kubelet.container(address, container, waiting="RunContainerError", message=error, restarts=restarts)
        await self._crash(address, container, restarts, init=False, death=Death(128, "StartError", message=error))

    def crash(self, address: Address) -> None:
        """Crash the engine in this pod from now on, also after each restart of its container."""
        self._crashed(address).set()

    def _crashed(self, address: Address) -> asyncio.Event:
        return self._crashes.setdefault(address, asyncio.Event())

    async def _crash_repeatedly(self, address: Address, container: Object, words: list[str]) -> None:
        """Crash the engine with the last error in its log, or a CUDA error that a restart in the same pod does not fix."""
        restarts, error = 0, self._kubelet.last_error(address, container)
        while True:
            new_lines = () if error and not restarts else (error or ILLEGAL_ACCESS,)
            self._kubelet.log(address, container, *engine_log.engine_dies(*new_lines))
            self._kubelet.condition(address, ContainersReady=False, Ready=False)
            await self._crash(address, container, restarts, init=False)
            restarts += 1
            self._kubelet.started(address, container, restarts)
            self._kubelet.log(address, container, *engine_log.banner(words))
            await self._clock.sleep(PROBE)

    def _scale_up(self, address: Address, zone: str) -> None:
        group = f"https://www.googleapis.com/compute/v1/projects/ai-lab/zones/{zone}/instanceGroups/gke-gpu"
        self._kubelet.event(address, "TriggeredScaleUp", f"pod triggered scale-up: [{{{group} 0->1 (max: 1)}}]")

    def _pull_failed(self, address: Address, container: Object, init: bool, error: str) -> None:
        image = container["image"]
        event = f'Failed to pull image "{image}": rpc error: code = Unknown desc = {error}'
        self._kubelet.event(address, "Failed", event, warning=True)
        self._kubelet.container(address, container, init=init, waiting="ErrImagePull", message=error)

    async def _crash(
        self, address: Address, container: Object, restarts: int, *, init: bool, death: Death | None = None
    ) -> None:
        """End a container, and wait as long as the kubelet waits before it restarts the container."""
        death = death or Death()
        ended = {
            "exitCode": death.code,
            "reason": death.reason,
            "startedAt": self._store.timestamp(),
            "finishedAt": self._store.timestamp(),
        }
        ended |= {"message": death.message} if death.message else {}
        self._kubelet.container(address, container, init=init, terminated=ended, restarts=restarts)
        await self._clock.sleep(1)
        delay = CRASH_BACKOFF[min(restarts, len(CRASH_BACKOFF) - 1)]
        failed = f"container={container['name']} pod={address.name}_{address.namespace}"
        self._kubelet.container(
            address,
            container,
            init=init,
            waiting="CrashLoopBackOff",
            message=f"back-off {delay:.0f}s restarting failed {failed}",
            last=ended,
            restarts=restarts + 1,
        )
        message = f"Back-off restarting failed container {container['name']} in pod {address.name}"
        self._kubelet.event(address, "BackOff", message, warning=True)
        await self._clock.sleep(delay)


def _refusal(fault: str, model: str) -> str:
    """Return the last line of the download's traceback, with huggingface_hub's message."""
    url = f"https://huggingface.co/api/models/{model}/revision/main"
    return REFUSED_DOWNLOADS[fault].format(url=url, model=model)
