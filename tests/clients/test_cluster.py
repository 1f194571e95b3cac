"""Model Deployments are read, scaled, and followed to ready, to a diagnosis, or to nothing."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bot.clients.cluster import BootFailed, Cluster, Phase, StaleFence
from bot.clients.kube import Forbidden, rights
from bot.errors import BotError
from bot.services import open_kubernetes
from bot.settings import ClusterSettings, Config
from tests.clients.kube import (
    Object,
    Wire,
    condition,
    connected,
    deployment,
    event,
    now,
    pod,
    service,
    wait_until,
)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as api:
        yield api


@pytest.fixture
async def cluster(wire: Wire) -> AsyncIterator[Cluster]:
    async with connected(wire) as client:
        yield Cluster(client, "serving")


class Boot:
    """A `wait_ready` under way, and what it told."""

    def __init__(self, wire: Wire, cluster: Cluster, seconds: float = 30) -> None:
        self.wire = wire
        self.told: list[Phase] = []
        """The newest phase, each time that something was told."""
        self.heard: tuple[Phase, ...] = ()
        """All that was told the last time."""
        self.task = asyncio.create_task(cluster.wait_ready("coder-chat", timeout=seconds, progress=self._hear))

    async def _hear(self, phases: tuple[Phase, ...]) -> None:
        self.told.append(phases[-1])
        self.heard = phases

    async def reaches(self, phase: str) -> None:
        await wait_until(lambda: (self.told and self.told[-1].name == phase) or self.task.done())
        assert not self.task.done(), self.task.exception()

    def pod(self, **status: Any) -> None:
        def change(found: Object) -> None:
            found["status"] |= status

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


async def test_a_workload_is_read_with_the_service_in_front_of_it(wire: Wire, cluster: Cluster) -> None:
    """The Service is the one that selects the pods, whatever its name; its port is not the container's."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(service("other", 1))
    wire.store.create(service(port=80))
    found = await cluster.workload("coder-chat")
    assert found
    assert (found.service, found.port, found.gpus, found.replicas, found.lease) == ("coder-chat-svc", 80, 1, 1, None)
    assert (found.served_name, found.kind) == ("coder-chat-7b-instruct", "chat")
    assert await cluster.workload("nobody") is None


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (("--model", "Qwen/Qwen2.5-Coder-1.5B", "--served-model-name", "qwen-coder"), "completion"),
        (("--model=google/gemma-3-4b-it",), "chat"),
        (("--model=meta/Base", "--served-model-name=my-chat"), "chat"),
        (("--model-id=BAAI/bge-base-en-v1.5", "--port=8080"), "embedding"),
    ],
)
async def test_the_kind_follows_from_the_arguments(
    wire: Wire, cluster: Cluster, args: tuple[str, ...], kind: str
) -> None:
    """A base model is asked for completions, TEI for embeddings, and what says so for chats."""
    wire.store.create(deployment(args=args))
    found = await cluster.workload("coder-chat")
    assert found
    assert found.kind == kind


async def test_the_kind_can_be_said_on_the_deployment(wire: Wire, cluster: Cluster) -> None:
    """For a model whose name tells nothing."""
    said = deployment(args=("--model=openai/gpt-oss-20b",))
    said["metadata"]["labels"] = {"stoker.dev/kind": "chat"}
    wire.store.create(said)
    found = await cluster.workload("coder-chat")
    assert found
    assert found.kind == "chat"


async def test_gpu_workloads_are_those_that_hold_a_gpu_in_any_namespace(wire: Wire, cluster: Cluster) -> None:
    """Whoever brought them up, with or without a Service."""
    wire.store.create(deployment("asleep", replicas=0))
    wire.store.create(deployment("embeddings", replicas=1, gpus=0))
    wire.store.create(deployment("coder-chat", replicas=1))
    stranger = deployment("notebook", replicas=2)
    stranger["metadata"]["namespace"] = "research"
    wire.store.create(stranger)
    found = await cluster.gpu_workloads()
    assert [(w.namespace, w.name, w.replicas) for w in found] == [
        ("research", "notebook", 2),
        ("serving", "coder-chat", 1),
    ]


async def test_scaling_marks_the_lease_and_repeats_nothing(wire: Wire, cluster: Cluster) -> None:
    """The step may run again after a crash."""
    wire.store.create(deployment())
    for _ in range(2):
        await cluster.scale("coder-chat", 1, lease="7")
    found = await cluster.workload("coder-chat")
    assert found
    assert (found.replicas, found.lease) == (1, "7")
    assert (wire.asked("PATCH", "/scale"), wire.asked("PATCH", "")) == (1, 2)
    await cluster.scale("coder-chat", 0, lease=None)
    found = await cluster.workload("coder-chat")
    assert found
    assert (found.replicas, found.lease) == (0, None)
    with pytest.raises(BotError, match="no Deployment nobody"):
        await cluster.scale("nobody", 1, lease="7")


async def test_a_worker_with_an_older_fence_changes_nothing(wire: Wire, cluster: Cluster) -> None:
    """Neither up nor down, once a newer lease has scaled the Deployment; nor back up after its own lease is over."""
    wire.store.create(deployment())
    await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    await cluster.scale("coder-chat", 1, lease="seven", fence=7)  # its own worker again, after a crash
    for replicas, lease in ((0, None), (1, "six")):
        with pytest.raises(StaleFence, match="fence 7 instead of 6"):
            await cluster.scale("coder-chat", replicas, lease=lease, fence=6)
    with pytest.raises(StaleFence):
        await cluster.mark("coder-chat", "six", 6)
    await cluster.scale("coder-chat", 0, lease=None, fence=7)
    with pytest.raises(StaleFence):
        await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    found = await cluster.workload("coder-chat")
    assert found
    assert (found.replicas, found.lease) == (0, None)
    assert await cluster.highest_fence() == 7
    await cluster.scale("coder-chat", 1, lease="eight", fence=8)


async def test_a_change_between_look_and_write_is_seen(wire: Wire, cluster: Cluster) -> None:
    """Each write names the version that was looked at: a newer lease that gets in between wins."""
    wire.store.create(deployment())

    def newer(found: Object) -> None:
        found["metadata"]["annotations"] = {"stoker.dev/fence": "8", "stoker.dev/lease": "eight"}

    wire.before_patch = lambda: wire.store.update("Deployment", "coder-chat", "serving", newer)
    with pytest.raises(StaleFence):
        await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    found = await cluster.workload("coder-chat")
    assert found
    assert (found.replicas, found.lease) == (0, "eight")


async def test_a_status_written_in_between_is_no_obstacle(wire: Wire, cluster: Cluster) -> None:
    """The Deployment's controller writes all the time: look again, and write once."""
    wire.store.create(deployment())

    def status(found: Object) -> None:
        found["status"] = {"observedGeneration": 1}

    wire.before_patch = lambda: wire.store.update("Deployment", "coder-chat", "serving", status)
    await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    found = await cluster.workload("coder-chat")
    assert found
    assert (found.replicas, found.lease) == (1, "seven")


async def test_whoever_takes_a_gpu_is_found(wire: Wire, cluster: Cluster) -> None:
    """Deployments with replicas, and the pods of StatefulSets and of nobody, in any namespace; not what is over."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(deployment("down"))
    wire.store.create(deployment("cpu", replicas=1, gpus=0))

    def gpu_pod(name: str, owner: tuple[str, str] | None = None, **status: Any) -> Object:
        found = pod(name, **status)
        found["metadata"]["namespace"] = "research"
        found["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
        if owner:
            found["metadata"]["labels"]["pod-template-hash"] = "abc"
            found["metadata"]["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
        return found

    wire.store.create(gpu_pod("notebook-0", ("StatefulSet", "notebook")))
    wire.store.create(gpu_pod("training-x", ("Job", "training"), phase="Succeeded"))
    wire.store.create(gpu_pod("bare"))
    wire.store.create(gpu_pod("leaving"))
    wire.store.delete("Pod", "leaving", "research")
    wire.store.create(gpu_pod("coder-chat-abc-1", ("ReplicaSet", "coder-chat-abc")))
    assert [str(user) for user in await cluster.gpu_users()] == [
        "Deployment serving/coder-chat",
        "Pod research/bare",
        "StatefulSet research/notebook",
    ]


async def test_a_missing_right_to_scale_is_named(wire: Wire, cluster: Cluster) -> None:
    """The verb and the resource are what a Role lists."""
    wire.store.create(deployment())
    wire.forbidden = "/scale"
    with pytest.raises(Forbidden, match="may not patch deployments/scale in namespace serving"):
        await cluster.scale("coder-chat", 1, lease="7")


async def test_a_boot_is_told_phase_by_phase(boot: Boot) -> None:
    """Each phase has the cluster's own time, so looking again later finds the same."""
    boot.wire.store.create(event("TriggeredScaleUp", "pod triggered scale-up"))
    await wait_until(lambda: boot.told[-1].detail == "the autoscaler adds one")
    boot.pod(conditions=SCHEDULED)
    await boot.reaches("pulling the image")
    boot.pod(initContainerStatuses=container("prestage-weights", running={"startedAt": now()}))
    await boot.reaches("staging weights")
    boot.pod(containerStatuses=container(running={"startedAt": now()}))
    await boot.reaches("loading")
    boot.pod(conditions=[*SCHEDULED, condition("Ready")])
    phases = await boot.task
    names = ["waiting for a node", "pulling the image", "staging weights", "loading", "ready"]
    assert [phase.name for phase in phases] == names
    assert list(dict.fromkeys(phase.name for phase in boot.told)) == names
    assert sorted(phases, key=lambda phase: phase.since) == list(phases)


async def test_phases_that_passed_unseen_are_told_too(boot: Boot, cluster: Cluster) -> None:
    """A bot that was down for the pull and the staging still shows how long they took."""
    boot.pod(
        conditions=SCHEDULED,
        initContainerStatuses=container("prestage-weights", terminated={"startedAt": now(), "exitCode": 0}),
        containerStatuses=container(running={"startedAt": now()}),
    )
    again = Boot(boot.wire, cluster)
    await again.reaches("loading")
    again.task.cancel()
    names = ["waiting for a node", "pulling the image", "staging weights", "loading"]
    assert [phase.name for phase in again.heard] == names


async def test_a_pod_that_is_ready_already_ends_the_wait_at_once(boot: Boot, cluster: Cluster) -> None:
    """Also one that was killed for memory in an earlier life."""
    boot.pod(
        conditions=[*SCHEDULED, condition("Ready")],
        containerStatuses=container(last={"reason": "OOMKilled"}, running={"startedAt": now()}),
    )
    first = await boot.task
    again = Boot(boot.wire, cluster)
    assert await again.task == first


async def test_a_boot_is_followed_over_410_and_a_dropped_connection(boot: Boot) -> None:
    """Nothing that happened meanwhile is missed."""
    boot.wire.overtake("Pod", "coder-chat-1", "serving", lambda p: p["status"].update(conditions=SCHEDULED))
    await boot.reaches("pulling the image")
    boot.wire.cut()
    boot.pod(conditions=[*SCHEDULED, condition("Ready")])
    assert (await boot.task)[-1].name == "ready"


@pytest.mark.parametrize(
    ("said", "reason", "remedy"),
    [
        ("Node scale up failed: GCE out of resources", "no GPU machine in stock", "another zone"),
        ("Node scale up failed: GCE quota exceeded", "quota is used up", "more quota"),
    ],
)
async def test_no_machine_to_be_had_ends_the_boot(boot: Boot, said: str, reason: str, remedy: str) -> None:
    """Stock and quota are told apart, as the remedies differ."""
    boot.wire.store.create(event("TriggeredScaleUp", "pod triggered scale-up"))
    boot.wire.store.create(event("FailedScaleUp", said))
    failure = await boot.failure()
    assert reason in failure.reason
    assert remedy in failure.remedy


async def test_a_gpu_taken_by_another_model_names_it(boot: Boot) -> None:
    """Without another holder the same event is only the wait for a new node."""
    lacking = event("FailedScheduling", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    boot.wire.store.create(lacking)
    await wait_until(lambda: "Insufficient" in boot.told[-1].detail)
    assert not boot.task.done()
    boot.wire.store.create(deployment("coder-fim", replicas=1))
    boot.wire.store.create(lacking)
    assert "taken by coder-fim" in (await boot.failure()).reason


async def test_an_image_that_cannot_be_pulled_ends_the_boot(boot: Boot) -> None:
    """A first failed pull may pass; the back-off does not."""
    boot.pod(
        conditions=SCHEDULED, containerStatuses=container(waiting={"reason": "ErrImagePull", "message": "timeout"})
    )
    await wait_until(lambda: boot.told[-1].detail == "timeout")
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
    """The init container's log tells whether to stage by hand or to accept a licence."""
    boot.wire.logs = lambda _namespace, _pod, name: ["Fetching", line] if name == "prestage-weights" else None
    ended = {"exitCode": 1, "reason": "Error", "startedAt": now()}
    boot.pod(conditions=SCHEDULED, initContainerStatuses=container("prestage-weights", terminated=ended))
    failure = await boot.failure()
    assert reason in failure.reason
    assert line in failure.details
    assert line not in failure.message
    assert remedy in failure.remedy


async def test_a_container_killed_for_memory_ends_the_boot(boot: Boot) -> None:
    """At its first death: more of the same memory will not help."""
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
    """Events outlive the boot that they are about."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(event("FailedCreate", "exceeded quota: old", "coder-chat-5f", "ReplicaSet"))
    boot = Boot(wire, cluster)
    await wait_until(lambda: wire.asked("GET", "events?watch=true"))
    assert not boot.task.done()
    wire.store.create(event("FailedCreate", "exceeded quota: new", "coder-chat-5f", "ReplicaSet"))
    assert "exceeded quota: new" in (await boot.failure()).reason


async def test_a_model_scaled_away_meanwhile_ends_the_boot(boot: Boot) -> None:
    """Nobody waits twenty minutes for what somebody turned off."""
    boot.wire.store.update("Deployment", "coder-chat", "serving", lambda d: d["spec"].update(replicas=0))
    assert "scaled to zero" in (await boot.failure()).reason


async def test_a_boot_that_takes_too_long_says_where_it_is_stuck(wire: Wire, cluster: Cluster) -> None:
    """With the last warning, which is the best hint there is."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=SCHEDULED))
    wire.store.create(event("FailedMount", "volume is busy"))
    failure = await Boot(wire, cluster, seconds=0.4).failure()
    assert "not ready after 0 s, stuck at “pulling the image”" in failure.reason
    assert "volume is busy" in failure.reason


async def test_what_stood_in_the_way_of_an_earlier_phase_is_no_diagnosis(wire: Wire, cluster: Cluster) -> None:
    """Every boot on an autoscaled node begins with a warning that there is none."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=SCHEDULED))
    early = event("FailedScheduling", "0/3 nodes are available")
    wire.store.create(early | {"lastTimestamp": "2026-11-22T00:00:00Z"})
    failure = await Boot(wire, cluster, seconds=0.4).failure()
    assert "nodes are available" not in failure.reason


async def test_a_probe_that_never_passes_is_told_with_the_engines_last_lines(wire: Wire, cluster: Cluster) -> None:
    """Whether it still loads or answers elsewhere, the log tells."""
    wire.logs = lambda *_: ["Starting to load model", "Loading safetensors: 40 %"]
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=SCHEDULED, containerStatuses=container(running={"startedAt": now()})))
    wire.store.create(event("Unhealthy", "Startup probe failed: connection refused"))
    failure = await Boot(wire, cluster, seconds=1.0).failure()
    assert "its probe never passed. Startup probe failed: connection refused." in failure.reason
    assert failure.details.endswith("Loading safetensors: 40 %")
    assert "failureThreshold" in failure.remedy


async def test_a_container_that_cannot_be_made_ends_the_boot(boot: Boot) -> None:
    """A Secret that is not there does not come by waiting."""
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "vllm-api-key" not found'}
    boot.pod(conditions=SCHEDULED, containerStatuses=container(waiting=waiting))
    failure = await boot.failure()
    assert 'secret "vllm-api-key" not found' in failure.reason
    assert "Create the Secret" in failure.remedy


async def test_a_model_is_gone_when_its_last_pod_is(wire: Wire, cluster: Cluster) -> None:
    """The GPU is free only then; an evicted pod that is still listed holds none."""
    wire.store.create(deployment())
    wire.store.create(pod())
    wire.store.create(pod("evicted", phase="Failed"))
    with pytest.raises(BotError, match="coder-chat-1 is still there"):
        await cluster.wait_gone("coder-chat", timeout=0.2)
    going = asyncio.create_task(cluster.wait_gone("coder-chat", timeout=30))
    await asyncio.sleep(0)
    wire.store.remove("Pod", "coder-chat-1", "serving")
    await going
    await cluster.wait_gone("nobody", timeout=30)


async def test_the_node_bills_since_it_was_created(wire: Wire, cluster: Cluster) -> None:
    """Not since the pod started; its machine type is what the price is looked up by."""
    wire.store.create(deployment(replicas=1))
    assert await cluster.node_of("coder-chat") is None
    wire.store.create(pod())
    assert await cluster.node_of("coder-chat") is None
    labels = {"node.kubernetes.io/instance-type": "g2-standard-4"}
    node = wire.store.create({"kind": "Node", "metadata": {"name": "gpu-1", "labels": labels}})
    found = await cluster.node_of("coder-chat")
    assert found
    assert found.since.isoformat().replace("+00:00", "Z") == node["metadata"]["creationTimestamp"]
    assert (found.name, found.machine) == ("gpu-1", "g2-standard-4")


async def test_nodes_that_may_not_be_looked_at_are_unknown(wire: Wire, cluster: Cluster) -> None:
    """Then the receipt is an estimate; it must not fail for that."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod())
    wire.forbidden = "/nodes"
    assert await cluster.node_of("coder-chat") is None


async def test_the_end_of_a_node_is_watched(wire: Wire, cluster: Cluster) -> None:
    """It bills until it is gone, which is some time after the last pod."""
    wire.store.create({"kind": "Node", "metadata": {"name": "gpu-1"}})
    assert not await cluster.wait_node_gone("gpu-1", timeout=0.2)
    waiting = asyncio.create_task(cluster.wait_node_gone("gpu-1", timeout=30))
    await wait_until(lambda: wire.asked("GET", "watch=true") >= 2)
    wire.cut()
    wire.store.remove("Node", "gpu-1")
    assert await waiting


async def test_a_secret_is_read_by_field_and_never_shown(wire: Wire, cluster: Cluster) -> None:
    """A missing one is named, without a value."""
    key = base64.b64encode(b"sk-1\n").decode()
    wire.store.create({"kind": "Secret", "metadata": {"name": "k", "namespace": "litellm"}, "data": {"api-key": key}})
    secret = await cluster.secret("k", "api-key", namespace="litellm")
    assert secret.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(secret)
    with pytest.raises(BotError, match="Secret k in namespace serving has no field api-key"):
        await cluster.secret("k", "api-key")


async def test_rights_that_the_role_lacks_are_named(wire: Wire, cluster: Cluster) -> None:
    """The API server itself is asked; what the bot can do without is told apart."""
    assert await cluster.lacking(rights(Config())) == ()
    wire.denied = {("patch", "deployments/scale"), ("watch", "nodes")}
    scale, nodes = await cluster.lacking(rights(Config()))
    assert str(scale) == "patch deployments/scale.apps in namespace serving"
    assert scale.without == ""
    assert (str(nodes), bool(nodes.without)) == ("watch nodes", True)


def rolling(wire: Wire, **status: Any) -> None:
    """The Deployment controller tells how far a roll-out is."""
    wire.store.update("Deployment", "coder-chat", "serving", lambda live: live.update(status=status))


async def test_a_roll_out_is_over_when_no_old_pod_is_left(wire: Wire, cluster: Cluster) -> None:
    """A status from before the change counts as little as a new pod beside an old one."""
    wire.store.create(deployment(replicas=1))
    generation = (wire.store.get("Deployment", "coder-chat", "serving") or {})["metadata"]["generation"]
    before = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    rolling(wire, observedGeneration=generation - 1, **before)
    rolled = asyncio.create_task(cluster.wait_rolled_out("coder-chat", timeout=30))
    replaced = asyncio.create_task(cluster.wait_rolled_out("coder-chat", timeout=30, available=False))
    await wait_until(lambda: wire.asked("GET", "watch=true") >= 2)
    rolling(wire, observedGeneration=generation, replicas=2, updatedReplicas=1, availableReplicas=1)
    await asyncio.sleep(0.1)
    assert not rolled.done()
    assert not replaced.done()
    rolling(wire, observedGeneration=generation, replicas=1, updatedReplicas=1)
    assert await replaced is True
    assert not rolled.done()
    rolling(wire, observedGeneration=generation, **before)
    assert await rolled is True


async def test_a_roll_out_that_never_ends_is_told(wire: Wire, cluster: Cluster) -> None:
    """With what to look at; and where there is no such Deployment, there is nothing to wait for."""
    wire.store.create(deployment(replicas=1))
    with pytest.raises(BotError, match="coder-chat in namespace serving did not roll out"):
        await cluster.wait_rolled_out("coder-chat", timeout=0.3)
    assert await cluster.wait_rolled_out("litellm", namespace="litellm", timeout=30) is False


async def test_a_hundred_boots_that_are_watched_keep_nobody_waiting(wire: Wire, tmp_path: Path) -> None:
    """Each watch is a connection of its own; a client with a hundred of them has none left for a question."""
    async with AsyncExitStack() as stack:
        settings = ClusterSettings(kubeconfig=str(wire.kubeconfig(tmp_path / "kubeconfig")))
        cluster = Cluster(await open_kubernetes(settings, stack), "serving")
        wire.store.create(deployment(replicas=1))

        async def nobody(_: tuple[Phase, ...]) -> None:
            """Hears of the phases."""

        boots = [asyncio.create_task(cluster.wait_ready("coder-chat", timeout=60, progress=nobody)) for _ in range(60)]
        try:
            await wait_until(lambda: wire.asked("GET", "watch=true") > 100, 30)
            async with asyncio.timeout(20):
                assert await cluster.workload("coder-chat")
        finally:
            for boot in boots:
                boot.cancel()
            await asyncio.gather(*boots, return_exceptions=True)
