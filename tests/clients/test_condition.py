"""The condition of a model that was ready, from its pods and its node, with the cause if it does not serve."""

from typing import Any

import pytest

from bot.clients.cluster import Cluster
from bot.domain.sessions import Node
from tests.clients.kube import Object, Wire, condition, deployment, event, now, pod

READY = [condition("PodScheduled"), condition("Ready")]
UNREADY = [condition("PodScheduled"), condition("Ready", "False")]


def node(wire: Wire, name: str = "gpu-1", ready: str = "True") -> None:
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    wire.store.create({"kind": "Node", "metadata": {"name": name}, "status": status})


def container(**changes: Any) -> list[Object]:
    status: Object = {"name": "vllm", "ready": False, "restartCount": 0, "state": {"running": {"startedAt": now()}}}
    return [{**status, "lastState": {}, "started": True, **changes}]


async def test_a_pod_that_is_ready_serves(wire: Wire, cluster: Cluster) -> None:
    """The condition contains the billed node and a digest of the Deployment's template."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=READY))
    node(wire)
    current = await cluster.condition("coder-chat")
    assert (current.state, current.replicas, current.image) == ("serving", 1, "vllm/vllm-openai@sha256:1")
    assert current.node
    assert current.node.name == "gpu-1"
    before = current.template
    wire.store.update("Deployment", "coder-chat", "serving", lambda d: d["spec"].update(replicas=2))
    assert (await cluster.condition("coder-chat")).template == before
    args = ["--model=evil/model"]
    wire.store.update(
        "Deployment",
        "coder-chat",
        "serving",
        lambda d: d["spec"]["template"]["spec"]["containers"][0].update(args=args),
    )
    assert (await cluster.condition("coder-chat")).template != before


async def test_a_pod_of_a_removed_node_does_not_serve(wire: Wire, cluster: Cluster) -> None:
    """Its last state stays listed for a while, as if it were running."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=UNREADY, containerStatuses=container()))
    current = await cluster.condition("coder-chat")
    assert current.state == "no node"
    assert "gpu-1 is gone" in current.reason
    assert current.node is None


async def test_a_node_that_does_not_answer_still_bills(wire: Wire, cluster: Cluster) -> None:
    """A NotReady node still exists."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=UNREADY, containerStatuses=container()))
    node(wire, ready="Unknown")
    current = await cluster.condition("coder-chat")
    assert current.state == "not ready"
    assert "gpu-1 no longer responds" in current.reason
    assert current.node


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory. Threshold quantity: 100Mi."},
            "The pod was evicted: The node was low on resource: memory",
        ),
        (
            {"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."},
            "reclaimed or lost",
        ),
        ({"reason": "Preempting", "message": "Preempted in order to admit critical pod"}, "preempted"),
        ({"reason": "UnexpectedAdmissionError", "message": "no healthy devices present"}, "The node refused the pod"),
    ],
)
async def test_the_previous_pod_explains_the_new_one(
    wire: Wire, cluster: Cluster, status: dict[str, str], words: str
) -> None:
    """The old pod was evicted, preempted or shut down; the new pod waits for a node, and does not show the reason."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod("coder-chat-0", phase="Failed", **status))
    waiting = pod("coder-chat-1", conditions=[condition("PodScheduled", "False")])
    del waiting["spec"]["nodeName"]
    wire.store.create(waiting)
    wire.store.create(event("FailedScaleUp", "Node scale up failed: GCE out of resources"))
    current = await cluster.condition("coder-chat", Node.model_validate({"name": "gpu-1", "since": now()}))
    assert current.state == "no node"
    assert words in current.reason
    assert "GCE out of resources" in current.reason
    assert current.node is None


async def test_an_engine_killed_for_memory_is_crash_looping(wire: Wire, cluster: Cluster) -> None:
    """One restart is sufficient: the model loads for minutes, and people cannot use it."""
    wire.store.create(deployment(replicas=1))
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": now()}}
    loading = container(restartCount=1, lastState=last, started=False)
    wire.store.create(pod(conditions=UNREADY, containerStatuses=loading))
    node(wire)
    current = await cluster.condition("coder-chat")
    assert current.state == "crash-looping"
    assert "OOMKilled" in current.reason
    assert current.since


async def test_a_probe_that_no_longer_passes_is_reported(wire: Wire, cluster: Cluster) -> None:
    """The engine is still running, so the failed probe is the only known reason."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=UNREADY, containerStatuses=container()))
    wire.store.create(event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"))
    node(wire)
    current = await cluster.condition("coder-chat")
    assert current.state == "not ready"
    assert "statuscode: 503" in current.reason


async def test_unreadable_nodes_do_not_count_as_gone(wire: Wire, cluster: Cluster) -> None:
    """Without the right to read nodes, the condition contains nothing about the bill."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod(conditions=UNREADY, containerStatuses=container()))
    wire.forbidden = "/nodes"
    current = await cluster.condition("coder-chat")
    assert current.state == "not ready"
    assert not current.node_known


async def test_the_states_without_a_pod(wire: Wire, cluster: Cluster) -> None:
    """There is no Deployment, it has zero replicas, or its pod cannot be created."""
    assert (await cluster.condition("coder-chat")).state == "no Deployment"
    wire.store.create(deployment())
    assert (await cluster.condition("coder-chat")).state == "at zero"
    wire.store.update("Deployment", "coder-chat", "serving", lambda d: d["spec"].update(replicas=1))
    wire.store.create(event("FailedCreate", "exceeded quota: gpus", "coder-chat-5f", "ReplicaSet"))
    current = await cluster.condition("coder-chat")
    assert current.state == "no pod"
    assert "exceeded quota: gpus" in current.reason
