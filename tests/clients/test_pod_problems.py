"""Messages of Kubernetes and cloud providers about a pod, and the kind of problem that each of them means."""

from typing import Any

import pytest

from bot.clients.diagnosis import ends, pods
from bot.clients.diagnosis.cause import Kind

Object = dict[str, Any]


def pod(*containers: Object, **status: Any) -> Object:
    return {
        "metadata": {"name": "p"},
        "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "cache"}}]},
        "status": {"phase": "Pending", "containerStatuses": list(containers), **status},
    }


def event(number: int, reason: str, message: str) -> Object:
    return {
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "Pod", "name": "p"},
        "metadata": {"name": f"p.{number}", "resourceVersion": str(number)},
        "lastTimestamp": f"2026-11-29T05:00:{number:02}Z",
    }


def container(*, restarts: int, exit_code: int, looping: bool = False) -> Object:
    state: Object = {"waiting": {"reason": "CrashLoopBackOff"}} if looping else {"running": {}}
    last = {"terminated": {"reason": "Error" if exit_code else "Completed", "exitCode": exit_code}}
    return {"name": "vllm", "ready": False, "restartCount": restarts, "state": state, "lastState": last}


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ('persistentvolumeclaim "cache" is being deleted', Kind.VOLUME, "cache is being deleted"),
        ("3 node(s) didn't find available persistent volumes to bind.", Kind.VOLUME, "in another zone"),
        ('binding volumes: provisioning failed for PVC "cache"', Kind.VOLUME, "cache is not bound"),
    ],
)
def test_a_volume_problem_that_prevents_scheduling_is_named(message: str, kind: Kind, words: str) -> None:
    problem = pods.without_node(pod(), [event(1, "FailedScheduling", f"0/3 nodes are available: {message}")])
    assert problem
    assert (problem.kind, words in problem.reason) == (kind, True)
    assert problem.grace.seconds


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("VcpuLimitExceeded: more vCPU capacity than your current limit allows", "quota is used up"),
        ("MaxSpotInstanceCountExceeded", "quota is used up"),
        ("ZonalAllocationFailed. Allocation failed.", "no GPU machine in stock"),
        ("UnfulfillableCapacity: there is no Spot capacity", "no GPU machine in stock"),
    ],
)
def test_every_clouds_message_about_a_missing_machine_is_recognised(message: str, words: str) -> None:
    """The cause stays the same until the autoscaler tries the pool again."""
    events = [event(1, "FailedScaleUp", message)]
    for later in (
        [],
        [event(2, "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 in backoff after failed scale-up")],
    ):
        problem = pods.without_node(pod(), [*events, *later])
        assert problem
        assert words in problem.reason


def test_a_node_pool_at_its_maximum_is_reported() -> None:
    problem = pods.without_node(
        pod(), [event(1, "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached")]
    )
    assert problem
    assert "The node pool has reached its maximum size" in problem.reason
    assert problem.kind is Kind.CAPACITY


@pytest.mark.parametrize(
    "message",
    [
        "AttachVolume.Attach failed: googleapi: Error 400: RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
        "AttachVolume.Attach failed: VolumeInUse: vol-1 is already attached to an instance",
        "AttachVolume.Attach failed: disk is currently attached to node gpu-1",
    ],
)
def test_a_disk_on_another_node_is_named(message: str) -> None:
    """The message is similar to that for Kubernetes' own Multi-Attach error."""
    creating = {"name": "vllm", "ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}
    problem = pods.not_started(pod(creating), [event(1, "FailedAttachVolume", message)])
    assert problem
    assert "cache is still attached to another node" in problem.reason


@pytest.mark.parametrize("exit_code", [0, 1, 137, 143])
@pytest.mark.parametrize("probe", ["startup", "liveness"])
def test_a_probe_that_kills_is_named_for_every_exit_code(probe: str, exit_code: int) -> None:
    """An engine may exit with 0 when it is terminated, and then the container does not show a failure."""
    events = [
        event(1, "Unhealthy", f"{probe.capitalize()} probe failed: HTTP probe failed with statuscode: 503"),
        event(2, "Killing", f"Container vllm failed {probe} probe, will be restarted"),
    ]
    crashed = ends.crash(pod(container(restarts=2, exit_code=exit_code)))
    assert crashed
    problem = ends.explain(crashed, "INFO still loading", events)
    assert problem
    assert problem.kind is Kind.PROBE
    assert "killed container vllm 2 times because its probe failed" in problem.reason
    assert "statuscode: 503" in problem.reason


def test_an_engine_that_is_killed_without_a_message_lacks_memory() -> None:
    crashed = ends.crash(pod(container(restarts=3, exit_code=137, looping=True)))
    assert crashed
    problem = ends.explain(crashed, "")
    assert problem
    assert problem.kind is Kind.MEMORY
    assert "memory limit" in problem.remedy


@pytest.mark.parametrize("reason", ["OutOfcpu", "TopologyAffinityError", "SysctlForbidden", "NodeAffinity"])
def test_a_refusal_by_the_node_is_reported(reason: str) -> None:
    problem = ends.ended(pod(reason=reason, message="it does not fit"))
    assert problem
    assert f"The node refused the pod ({reason}): it does not fit" in problem.reason


def test_an_engine_that_ends_without_an_error_does_not_crash() -> None:
    """Its command may not start a server, as with `--help`."""
    crashed = ends.crash(pod(container(restarts=3, exit_code=0, looping=True)))
    assert crashed
    problem = ends.explain(crashed, "usage: vllm serve")
    assert problem
    assert "ends again and again without an error (exit code 0)" in problem.reason
    assert "a server that stays" in problem.remedy


def test_a_secret_that_a_volume_lacks_is_reported_as_a_mount() -> None:
    """The reason CreateContainerConfigError is only for Secrets in a container's variables."""
    waiting = {"name": "vllm", "ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}
    message = 'MountVolume.SetUp failed for volume "token" : secret "hf-token" not found'
    problem = pods.not_started(pod(waiting), [event(1, "FailedMount", message)])
    assert problem
    assert "is missing (FailedMount)" in problem.reason
