"""A boot is followed to ready, or to a diagnosis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.clients.boot import BootPhase
from bot.clients.cluster import BootFailed, Cluster
from bot.services import open_kubernetes
from bot.settings.environment import ClusterSettings
from tests.clients.kube import (
    REFUSED,
    Object,
    Wire,
    condition,
    deployment,
    event,
    now,
    pod,
    wait_until,
)


class Boot:
    """A running `wait_ready`, and its progress."""

    def __init__(self, wire: Wire, cluster: Cluster, seconds: float = 30, waits: timedelta | None = None) -> None:
        self.wire = wire
        self.newest: list[BootPhase] = []
        """The newest phase at each call."""
        self.phases: tuple[BootPhase, ...] = ()
        """All phases of the last call."""
        self.task = asyncio.create_task(
            cluster.wait_ready("coder-chat", timeout=seconds, progress=self._record, waits=waits)
        )

    async def _record(self, phases: tuple[BootPhase, ...]) -> None:
        self.newest.append(phases[-1])
        self.phases = phases

    async def reaches(self, phase: str) -> None:
        await wait_until(lambda: (self.newest and self.newest[-1].phase.key == phase) or self.task.done())
        assert not self.task.done(), self.task.exception()

    def pod(self, **status: Any) -> None:
        def change(live: Object) -> None:
            live["status"] |= status

        self.wire.store.update("Pod", "coder-chat-1", "serving", change)

    async def failure(self) -> BootFailed:
        with pytest.raises(BootFailed) as raised:
            await self.task
        return raised.value


@pytest.fixture
async def boot(wire: Wire, cluster: Cluster) -> AsyncIterator[Boot]:
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod())
    booting = Boot(wire, cluster)
    await booting.reaches("waiting for a node")
    yield booting
    booting.task.cancel()


SCHEDULED = [condition("PodScheduled")]


def container(name: str = "vllm", *, last: Object | None = None, **state: Object) -> list[Object]:
    return [{"name": name, "ready": False, "state": state, "lastState": {"terminated": last} if last else {}}]


@pytest.mark.parametrize("suffix", ["", ': RBAC: role.rbac.authorization.k8s.io "stoker" not found'])
async def test_a_refusal_while_the_api_server_starts_is_ignored(boot: Boot, suffix: str) -> None:
    """Its RBAC caches are empty for a moment, and a reconnecting watch gets 403."""
    await wait_until(lambda: boot.wire.count_requests("GET", "watch=true") == 3)
    boot.wire.refusals = [REFUSED + suffix] * 3
    boot.wire.cut()
    await wait_until(lambda: not boot.wire.refusals)
    boot.pod(conditions=[*SCHEDULED, condition("Ready")])
    assert (await boot.task)[-1].phase.key == "ready"


async def test_a_boot_is_reported_phase_by_phase(boot: Boot) -> None:
    """Each phase has the cluster's own time, so reading again later gives the same result."""
    boot.wire.store.create(event("TriggeredScaleUp", "pod triggered scale-up"))
    await wait_until(lambda: boot.newest[-1].detail == "the autoscaler adds one")
    boot.pod(conditions=SCHEDULED)
    await boot.reaches("pulling the image")
    boot.pod(initContainerStatuses=container("prestage-weights", running={"startedAt": now()}))
    await boot.reaches("staging weights")
    boot.pod(containerStatuses=container(running={"startedAt": now()}))
    await boot.reaches("loading")
    boot.pod(conditions=[*SCHEDULED, condition("Ready")])
    phases = await boot.task
    names = ["waiting for a node", "pulling the image", "staging weights", "loading", "ready"]
    assert [phase.phase.key for phase in phases] == names
    assert list(dict.fromkeys(phase.phase.key for phase in boot.newest)) == names
    assert sorted(phases, key=lambda phase: phase.since) == list(phases)


async def test_phases_that_passed_unobserved_are_reported_too(boot: Boot, cluster: Cluster) -> None:
    """After a restart the bot still shows how long the pull and the staging took."""
    boot.pod(
        conditions=SCHEDULED,
        initContainerStatuses=container("prestage-weights", terminated={"startedAt": now(), "exitCode": 0}),
        containerStatuses=container(running={"startedAt": now()}),
    )
    again = Boot(boot.wire, cluster)
    await again.reaches("loading")
    again.task.cancel()
    names = ["waiting for a node", "pulling the image", "staging weights", "loading"]
    assert [phase.phase.key for phase in again.phases] == names


async def test_a_pod_that_is_ready_already_ends_the_wait_at_once(boot: Boot, cluster: Cluster) -> None:
    """The wait ends even if the container was killed for memory in an earlier run."""
    boot.pod(
        conditions=[*SCHEDULED, condition("Ready")],
        containerStatuses=container(last={"reason": "OOMKilled"}, running={"startedAt": now()}),
    )
    first = await boot.task
    again = Boot(boot.wire, cluster)
    assert await again.task == first


async def test_a_boot_is_followed_over_410_and_a_dropped_connection(boot: Boot) -> None:
    """No change in the meantime is missed."""
    boot.wire.overtake("Pod", "coder-chat-1", "serving", lambda p: p["status"].update(conditions=SCHEDULED))
    await boot.reaches("pulling the image")
    boot.wire.cut()
    boot.pod(conditions=[*SCHEDULED, condition("Ready")])
    assert (await boot.task)[-1].phase.key == "ready"


@pytest.mark.parametrize(
    ("message", "reason", "remedy"),
    [
        ("Node scale up failed: GCE out of resources", "no GPU machine in stock", "another zone"),
        ("Node scale up failed: GCE quota exceeded", "quota is used up", "more quota"),
    ],
)
async def test_a_missing_machine_ends_the_boot(boot: Boot, message: str, reason: str, remedy: str) -> None:
    """Stock and quota are distinguished, because the remedies differ."""
    boot.wire.store.create(event("TriggeredScaleUp", "pod triggered scale-up"))
    boot.wire.store.create(event("FailedScaleUp", message))
    failure = await boot.failure()
    assert reason in failure.reason
    assert remedy in failure.remedy


async def test_a_gpu_taken_by_another_model_names_it(boot: Boot) -> None:
    """Without another holder the same event is only the wait for a new node."""
    lacking = event("FailedScheduling", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    boot.wire.store.create(lacking)
    await wait_until(lambda: "Insufficient" in boot.newest[-1].detail)
    assert not boot.task.done()
    boot.wire.store.create(deployment("coder-fim", replicas=1))
    boot.wire.store.create(lacking)
    assert "taken by coder-fim" in (await boot.failure()).reason


async def test_an_image_that_cannot_be_pulled_ends_the_boot(boot: Boot) -> None:
    """A first failed pull may be temporary, but the back-off is not."""
    boot.pod(
        conditions=SCHEDULED, containerStatuses=container(waiting={"reason": "ErrImagePull", "message": "timeout"})
    )
    await wait_until(lambda: boot.newest[-1].detail == "timeout")
    boot.pod(containerStatuses=container(waiting={"reason": "ImagePullBackOff", "message": "manifest unknown"}))
    failure = await boot.failure()
    assert "manifest unknown" in failure.reason
    assert "digest" in failure.remedy


@pytest.mark.parametrize(
    ("line", "reason", "remedy"),
    [
        ("HfHubHTTPError: 429 Client Error: Too Many Requests", "too many requests", "kubectl cp"),
        ("RepositoryNotFoundError: 401 Client Error. Invalid username or password.", "(401)", "valid token"),
        ("GatedRepoError: 401 Client Error. Cannot access gated repo", "gated", "licence"),
        ("GatedRepoError: 403 Client Error.", "gated", "licence"),
    ],
)
async def test_weights_that_cannot_be_staged_end_the_boot(boot: Boot, line: str, reason: str, remedy: str) -> None:
    """The init container's log shows whether to stage by hand or to accept a licence."""
    boot.wire.logs = lambda _namespace, _pod, name: ["Fetching", line] if name == "prestage-weights" else None
    ended = {"exitCode": 1, "reason": "Error", "startedAt": now()}
    boot.pod(conditions=SCHEDULED, initContainerStatuses=container("prestage-weights", terminated=ended))
    failure = await boot.failure()
    assert reason in failure.reason
    assert line in failure.details
    assert line not in failure.message
    assert remedy in failure.remedy


async def test_a_container_killed_for_memory_ends_the_boot(boot: Boot) -> None:
    """The boot ends the first time, because a restart with the same memory does not help."""
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": now()}
    boot.pod(conditions=SCHEDULED, containerStatuses=container(last=ended, running={"startedAt": now()}))
    failure = await boot.failure()
    assert "OOMKilled" in failure.reason
    assert "memory limit" in failure.remedy


async def test_a_crash_loop_ends_the_boot_with_its_last_lines(boot: Boot) -> None:
    """A single crash is restarted first."""
    boot.wire.logs = lambda *_: [*(f"line {n}" for n in range(50)), "ValueError: unknown quantization"]
    ended = {"exitCode": 1, "reason": "Error", "startedAt": now()}
    boot.pod(conditions=SCHEDULED, containerStatuses=container(terminated=ended))
    await boot.reaches("loading")
    boot.pod(containerStatuses=container(last=ended, waiting={"reason": "CrashLoopBackOff"}))
    failure = await boot.failure()
    assert failure.reason.endswith("keeps crashing (exit code 1): ValueError: unknown quantization.")
    assert "line 49\nValueError" in failure.details
    assert "line 3\n" not in failure.details


async def test_a_refused_pod_ends_the_boot_but_an_old_refusal_does_not(wire: Wire, cluster: Cluster) -> None:
    """Events of an earlier boot may still exist."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(event("FailedCreate", "exceeded quota: old", "coder-chat-5f", "ReplicaSet"))
    boot = Boot(wire, cluster)
    await wait_until(lambda: wire.count_requests("GET", "events?watch=true"))
    assert not boot.task.done()
    wire.store.create(event("FailedCreate", "exceeded quota: new", "coder-chat-5f", "ReplicaSet"))
    assert "exceeded quota: new" in (await boot.failure()).reason


async def test_a_model_that_is_scaled_to_zero_ends_the_boot(boot: Boot) -> None:
    """The wait for a model ends when somebody turns the model off."""
    boot.wire.store.update("Deployment", "coder-chat", "serving", lambda d: d["spec"].update(replicas=0))
    assert "scaled to zero" in (await boot.failure()).reason


async def test_a_boot_that_takes_too_long_reports_its_phase(wire: Wire, cluster: Cluster) -> None:
    """The error contains the last warning, the best hint, and the duration on the bot's clock."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=SCHEDULED))
    wire.store.create(event("FailedMount", "volume is busy"))
    failure = await Boot(wire, cluster, seconds=0.4, waits=timedelta(minutes=20)).failure()
    assert "not ready after 20 min, stuck at “pulling the image”" in failure.reason
    assert "volume is busy" in failure.reason


async def test_a_warning_of_an_earlier_phase_is_not_the_diagnosis(wire: Wire, cluster: Cluster) -> None:
    """Every boot on an autoscaled node begins with a warning that there is no node."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=SCHEDULED))
    early = event("FailedScheduling", "0/3 nodes are available")
    wire.store.create(early | {"lastTimestamp": "2026-11-22T00:00:00Z"})
    failure = await Boot(wire, cluster, seconds=0.4).failure()
    assert "nodes are available" not in failure.reason


async def test_a_probe_that_never_passes_is_reported_with_the_engines_last_lines(wire: Wire, cluster: Cluster) -> None:
    """The log shows whether the engine still loads, or answers under another path."""
    wire.logs = lambda *_: ["Starting to load model", "Loading safetensors: 40 %"]
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=SCHEDULED, containerStatuses=container(running={"startedAt": now()})))
    wire.store.create(event("Unhealthy", "Startup probe failed: connection refused"))
    failure = await Boot(wire, cluster, seconds=1.0).failure()
    assert "its probe never passed. Startup probe failed: connection refused." in failure.reason
    assert failure.details.endswith("Loading safetensors: 40 %")
    assert "failureThreshold" in failure.remedy


async def test_a_container_that_cannot_be_created_ends_the_boot(boot: Boot) -> None:
    """A missing Secret does not appear by waiting."""
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "vllm-api-key" not found'}
    boot.pod(conditions=SCHEDULED, containerStatuses=container(waiting=waiting))
    failure = await boot.failure()
    assert 'secret "vllm-api-key" not found' in failure.reason
    assert "Create the Secret" in failure.remedy


async def test_many_watched_boots_leave_connections_for_requests(wire: Wire, tmp_path: Path) -> None:
    """Each watch uses a connection; a client limited to a hundred would have none left for a request."""
    async with AsyncExitStack() as stack:
        settings = ClusterSettings(kubeconfig=str(wire.kubeconfig(tmp_path / "kubeconfig")))
        cluster = Cluster(await open_kubernetes(settings, stack), "serving")
        wire.store.create(deployment(replicas=1))

        async def nobody(_: tuple[BootPhase, ...]) -> None:
            """Ignore the phases."""

        boots = [asyncio.create_task(cluster.wait_ready("coder-chat", timeout=60, progress=nobody)) for _ in range(60)]
        try:
            await wait_until(lambda: wire.count_requests("GET", "watch=true") > 100, 30)
            async with asyncio.timeout(20):
                assert await cluster.workload("coder-chat")
        finally:
            for boot in boots:
                boot.cancel()
            await asyncio.gather(*boots, return_exceptions=True)
