"""Problems of a boot: temporary ones are shown and get time, permanent ones end the boot, each with its cause."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.clients.cluster import BootFailed, Cluster
from bot.clients.diagnosis.pods import not_started
from bot.clients.diagnosis.problems import PULL, WHILE_PULLING
from tests.clients.kube import (
    Object,
    Wire,
    condition,
    connected,
    deployment,
    event,
    hurry,
    now,
    pod,
    time_passes,
    wait_until,
)

SCHEDULED = condition("PodScheduled")
LIMIT = 120.0
GRACE = 25.0
"""Minimum seconds of a temporary problem. They pass only when a test advances the clock."""


class Booting:
    """A running `wait_ready` for one pod, and the details that were shown."""

    def __init__(self, wire: Wire, cluster: Cluster) -> None:
        self.wire, self.details = wire, list[str]()
        self.task = asyncio.create_task(cluster.wait_ready("coder-chat", timeout=LIMIT, progress=self._record))

    async def _record(self, phases: Any) -> None:
        self.details.append(phases[-1].detail)

    def change(self, **status: Any) -> None:
        self.wire.store.update("Pod", "coder-chat-1", "serving", lambda live: live["status"].update(status))

    def happens(self, reason: str, message: str, name: str = "coder-chat-1", kind: str = "Pod") -> None:
        """An event with a time in whole seconds, like those of the kubelet and the autoscaler."""
        self.wire.store.create(event(reason, message, name, kind) | {"lastTimestamp": now()[:19] + "Z"})

    async def shows(self, words: str) -> None:
        await wait_until(lambda: any(words in detail for detail in self.details) or self.task.done())
        assert not self.task.done(), self.task.exception()

    async def becomes_ready(self) -> None:
        self.change(conditions=[SCHEDULED, condition("Ready")], containerStatuses=[])
        assert (await self.task)[-1].phase.key == "ready"

    async def fails(self) -> BootFailed:
        """The end of the boot, after every shown problem has lasted too long."""
        while not self.task.done():
            if self.details[-1]:
                time_passes(1)
            await asyncio.sleep(0.01)
        with pytest.raises(BootFailed) as raised:
            await self.task
        return raised.value


@pytest.fixture
async def boot(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Booting]:
    monkeypatch.setattr("bot.clients.diagnosis.problems._LEAST", GRACE)
    wire.store.create(deployment(replicas=1))
    waiting = pod()
    waiting["spec"]["volumes"] = [{"name": "cache", "persistentVolumeClaim": {"claimName": "coder-chat-model-cache"}}]
    wire.store.create(waiting)
    async with connected(wire) as client:
        booting = Booting(wire, Cluster(client, "serving"))
        await wait_until(lambda: booting.details)
        yield booting
        booting.task.cancel()


def container(name: str = "vllm", *, restarts: int = 0, last: Object | None = None, **state: Object) -> list[Object]:
    last_state = {"terminated": last} if last else {}
    return [{"name": name, "ready": False, "restartCount": restarts, "state": state, "lastState": last_state}]


def waiting(reason: str, message: str = "") -> list[Object]:
    return container(waiting={"reason": reason, "message": message})


BLIPS = [
    ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition"),
    ("CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition"),
    ("CreateContainerConfigError", 'secret "vllm-api-key" not found'),
    ("CreateContainerError", "context deadline exceeded"),
    ("ErrImagePull", 'Head "https://registry/v2/": dial tcp 10.1.1.1:443: i/o timeout'),
    ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: unexpected status: 503 Service Unavailable'),
    ("ErrImagePull", "toomanyrequests: You have reached your pull rate limit"),
    ("ErrImagePull", "failed to authorize: 403 Forbidden"),
    ("ErrImagePull", "dial tcp: lookup registry.example on 10.0.0.10:53: no such host"),
]


@pytest.mark.parametrize(("reason", "message"), BLIPS)
async def test_a_temporary_problem_is_shown_and_given_time(boot: Booting, reason: str, message: str) -> None:
    """A problem of one second must not end a boot of ten minutes."""
    boot.change(conditions=[SCHEDULED], containerStatuses=waiting(reason, message))
    await boot.shows(message[-20:])
    await boot.becomes_ready()


@pytest.mark.parametrize(("reason", "message"), BLIPS)
async def test_a_temporary_problem_ends_the_boot_if_it_lasts(boot: Booting, reason: str, message: str) -> None:
    """The message contains the problem, and only the matching remedy."""
    boot.change(conditions=[SCHEDULED], containerStatuses=waiting(reason, message))
    assert message[-40:] in (await boot.fails()).reason


def test_a_later_pull_gets_the_time_that_an_image_takes() -> None:
    """The container keeps the status of the failed attempt until the image is pulled."""
    booting = pod(
        conditions=[SCHEDULED], containerStatuses=waiting("ErrImagePull", "dial tcp 10.1.1.1:443: i/o timeout")
    )
    failed, again = event("Failed", "Failed to pull image: i/o timeout"), event("Pulling", "Pulling image")

    def grace(*events: Object) -> float:
        problem = not_started(booting, events)
        assert problem
        return problem.grace.seconds

    assert grace(failed, again) == WHILE_PULLING
    assert grace(failed) == grace(again, failed) == PULL.seconds < WHILE_PULLING


@pytest.mark.parametrize(
    ("reason", "message", "words", "remedy"),
    [
        ("InvalidImageName", "couldn't parse image reference", "cannot be pulled", "digest"),
        ("ErrImagePull", 'failed to resolve reference "x": not found', "not found", "digest"),
        ("ErrImagePull", "no match for platform in manifest: not found", "no match for platform", "digest"),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            "run as root",
            "runAsUser",
        ),
        (
            "RunContainerError",
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your driver to a newer version",
            "driver is too old for this image (the image needs CUDA 12.9)",
            "newer node image",
        ),
        (
            "CreateContainerError",
            'exec: "vllm-serve": executable file not found in $PATH',
            "does not contain",
            "command",
        ),
    ],
)
async def test_a_permanent_problem_ends_the_boot_immediately(
    boot: Booting, monkeypatch: pytest.MonkeyPatch, reason: str, message: str, words: str, remedy: str
) -> None:
    """There is no grace period, and the boot does not wait for its limit."""
    monkeypatch.setattr("bot.clients.diagnosis.problems._LEAST", 600.0)
    boot.change(conditions=[SCHEDULED], containerStatuses=waiting(reason, message))
    failure = await boot.fails()
    assert words in failure.reason
    assert remedy in failure.remedy


async def test_the_reason_of_a_failed_start_is_read_from_the_last_state(boot: Booting) -> None:
    """Exit code 128 has no log; the runtime's message is in `lastState`."""
    message = "failed to create shim task: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your driver"
    last = {"exitCode": 128, "reason": "StartError", "message": message, "startedAt": "1970-01-01T00:00:00Z"}
    boot.change(
        conditions=[SCHEDULED],
        containerStatuses=container(
            last=last, restarts=1, waiting={"reason": "CrashLoopBackOff", "message": "back-off 10s"}
        ),
    )
    failure = await boot.fails()
    assert "driver is too old for this image (the image needs CUDA 12.9)" in failure.reason
    assert message in failure.details
    assert "older CUDA" in failure.remedy


async def test_another_zone_is_tried_after_one_has_failed(boot: Booting) -> None:
    """The events have the same second, like those of the autoscaler, and the later one makes the failure outdated."""
    boot.happens("TriggeredScaleUp", "pod triggered scale-up in zone a")
    boot.happens("FailedScaleUp", "Node scale up in zone a failed: GCE out of resources")
    await boot.shows("out of resources")
    boot.happens("TriggeredScaleUp", "pod triggered scale-up in zone b")
    await wait_until(lambda: boot.details[-1] == "the autoscaler adds one")
    time_passes(2 * GRACE)
    await boot.becomes_ready()


async def test_a_boot_ends_if_no_zone_has_a_machine(boot: Booting) -> None:
    """The autoscaler tries no other zone."""
    boot.happens("FailedScaleUp", "Node scale up in zone a failed: GCE out of resources")
    assert "no GPU machine in stock" in (await boot.fails()).reason


async def test_the_pod_that_still_has_the_volume_is_named(boot: Booting) -> None:
    """The problem is on the card while it lasts; the failed mount after it is its consequence."""
    old = pod("coder-chat-0", model="other", phase="Running")
    old["spec"] |= {
        "nodeName": "gpu-0",
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "coder-chat-model-cache"}}],
    }
    boot.wire.store.create(old)
    boot.change(conditions=[SCHEDULED])
    boot.happens(
        "FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node'
    )
    boot.happens("FailedMount", "Unable to attach or mount volumes: timed out waiting for the condition")
    await boot.shows("pod coder-chat-0 on node gpu-0 still holds the volume claim coder-chat-model-cache")
    failure = await boot.fails()
    assert "coder-chat-0 on node gpu-0 still holds the volume claim coder-chat-model-cache" in failure.reason
    assert "Multi-Attach" in failure.reason


async def test_a_volume_that_is_attached_later_is_no_longer_a_problem(boot: Booting) -> None:
    """The warning stays listed for an hour."""
    boot.change(conditions=[SCHEDULED])
    boot.happens("FailedAttachVolume", "Multi-Attach error for volume pvc-1")
    await boot.shows("Multi-Attach")
    boot.happens("SuccessfulAttachVolume", "AttachVolume.Attach succeeded")
    await wait_until(lambda: boot.details[-1] == "")
    time_passes(2 * GRACE)
    await boot.becomes_ready()


@pytest.mark.parametrize(
    ("reason", "message", "words"),
    [
        (
            "FailedScheduling",
            "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            "is not bound: no such class",
        ),
        ("FailedScheduling", 'persistentvolumeclaim "coder-chat-model-cache" not found', "does not exist"),
        (
            "FailedScheduling",
            "0/3 nodes are available: 1 node(s) had volume node affinity conflict.",
            "in another zone",
        ),
    ],
)
async def test_a_volume_problem_that_prevents_scheduling_is_named(
    boot: Booting, reason: str, message: str, words: str
) -> None:
    """The claim is missing, not bound, or on another node."""
    boot.happens("ProvisioningFailed", "no such class", "coder-chat-model-cache", "PersistentVolumeClaim")
    boot.happens(reason, message)
    assert words in (await boot.fails()).reason


async def test_a_boot_ends_if_no_node_group_fits(boot: Booting) -> None:
    """Messages of the scheduler and the autoscaler are about taints, labels or sizes."""
    boot.happens(
        "FailedScheduling", "0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: present}."
    )
    boot.happens("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 node(s) had untolerated taint")
    failure = await boot.fails()
    assert "untolerated taint" in failure.reason
    assert "tolerations" in failure.remedy


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('admission webhook "policy.acme" denied the request: no latest tags', "denied the request"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "violates PodSecurity"),
        ('Internal error: failed calling webhook "x": connection refused', "failed calling webhook"),
    ],
)
async def test_a_pod_that_cannot_be_created_ends_the_boot(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, message: str, words: str
) -> None:
    """The ReplicaSet's events contain the reason."""
    monkeypatch.setattr("bot.clients.diagnosis.problems._LEAST", GRACE)
    wire.store.create(deployment(replicas=1))
    async with connected(wire) as client:
        cluster = Cluster(client, "serving")

        async def ignore(_: object) -> None:
            """Nothing is shown without a pod."""

        task = asyncio.create_task(cluster.wait_ready("coder-chat", timeout=LIMIT, progress=ignore))
        await wait_until(lambda: wire.count_requests("GET", "events?watch=true"))
        wire.store.create(event("FailedCreate", message, "coder-chat-5f", "ReplicaSet"))
        await hurry(task.done)
        with pytest.raises(BootFailed, match=words):
            await task


async def test_a_second_eviction_ends_the_boot(boot: Booting) -> None:
    """One evicted pod is replaced; after a second eviction, the next pod would be evicted, too."""
    message = "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 8Gi."
    boot.wire.store.create(pod("coder-chat-2", phase="Failed", reason="Evicted", message=message))
    await asyncio.sleep(0.3)
    assert not boot.task.done()
    boot.wire.store.create(pod("coder-chat-3", phase="Failed", reason="Evicted", message=message))
    failure = await boot.fails()
    assert "The pod was evicted: The node was low on resource: ephemeral-storage" in failure.reason
    assert "boot disk" in failure.remedy


async def test_a_cause_sixty_lines_above_the_end_is_the_headline(boot: Booting) -> None:
    """The server's traceback follows the engine's; the details are the lines around the cause."""
    cause = (
        "(EngineCore_DP0 pid=71) ERROR 11-29 05:01:00 [core.py:708] ValueError: To serve at least one request with the models's "
        "max seq len (65536), (3.50 GiB KV cache is needed, which is larger than the available KV cache memory (2.63 GiB). Based "
        "on the available memory, the estimated maximum model length is 49216."
    )
    after = [f'(APIServer pid=1)   File "server.py", line {number}, in run' for number in range(90)]
    log = ["(APIServer pid=1) INFO 11-29 05:00:00 [api_server.py:1] vLLM API server", cause, *after]
    boot.wire.logs = lambda *_: [
        *log,
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    last = {"exitCode": 1, "reason": "Error", "startedAt": now()}
    boot.change(conditions=[SCHEDULED], containerStatuses=container(last=last, waiting={"reason": "CrashLoopBackOff"}))
    failure = await boot.fails()
    assert failure.reason.startswith(
        "The KV cache is too small for a context of 65536 tokens: `--max-model-len=49216` would fit"
    )
    assert "ValueError: To serve at least one request" in failure.details
    assert failure.kind == "memory"


async def test_the_end_of_a_long_log_is_read(boot: Booting) -> None:
    """The server truncates a large log at its end, which contains the cause."""
    long = [f"(EngineCore_DP0 pid=71) INFO 11-29 05:00:00 [x.py:1] {number} {'x' * 4000}" for number in range(1500)]
    boot.wire.logs = lambda *_: [*long, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."]
    last = {"exitCode": 1, "reason": "Error", "startedAt": now()}
    boot.change(conditions=[SCHEDULED], containerStatuses=container(last=last, waiting={"reason": "CrashLoopBackOff"}))
    assert "2.00 GiB more were needed" in (await boot.fails()).reason
    log_requests = [line for line in boot.wire.requests if "/log?" in line]
    assert log_requests
    assert all("limitBytes" in line for line in log_requests), "the whole log is downloaded to find one line"


async def test_a_download_that_the_proxy_refuses_is_not_a_licence_problem(boot: Booting) -> None:
    """The error is in the init container's log, and ends the boot at the first exit."""
    boot.wire.logs = lambda *_: ["OSError: Tunnel connection failed: 403 Forbidden"]
    ended = {"exitCode": 1, "reason": "Error", "startedAt": now()}
    boot.change(conditions=[SCHEDULED], initContainerStatuses=container("prestage-weights", terminated=ended))
    failure = await boot.fails()
    assert "The proxy refused the connection (403)" in failure.reason
    assert "gated" not in failure.message


async def test_a_network_error_is_retried(boot: Booting) -> None:
    """A new node has no DNS at first; the third failure in a row is reported."""
    boot.wire.logs = lambda *_: ["socket.gaierror: [Errno -3] Temporary failure in name resolution"]
    ended = {"exitCode": 1, "reason": "Error", "startedAt": now()}
    for restarts in (0, 1):
        boot.change(
            conditions=[SCHEDULED],
            initContainerStatuses=container("prestage-weights", restarts=restarts, terminated=ended),
        )
        await asyncio.sleep(0.2)
        assert not boot.task.done()
    boot.change(initContainerStatuses=container("prestage-weights", restarts=2, terminated=ended))
    assert "DNS" in (await boot.fails()).reason


async def test_a_second_kill_by_a_probe_ends_the_boot(boot: Booting) -> None:
    """The reason of the first kill may be a slow load; a second kill shows that the probe is too strict, or wrong."""
    boot.wire.logs = lambda *_: ["INFO 11-29 05:00:00 [x.py:1] Loading safetensors checkpoint shards: 40 %"]
    boot.happens("Unhealthy", "Startup probe failed: connection refused")
    boot.happens("Killing", "Container vllm failed startup probe, will be restarted")
    last = {"exitCode": 137, "reason": "Error", "startedAt": now()}
    running = {"startedAt": now()}
    boot.change(conditions=[SCHEDULED], containerStatuses=container(restarts=1, last=last, running=running))
    await asyncio.sleep(0.3)
    assert not boot.task.done()
    boot.change(containerStatuses=container(restarts=2, last=last, running=running))
    failure = await boot.fails()
    assert "failed startup probe" in failure.reason
    assert "failureThreshold" in failure.remedy
