"""Model Deployments are read, scaled, rolled out and watched until they are removed."""

import asyncio
import base64
from typing import Any

import pytest

from bot.clients.cluster import Cluster, StaleFence
from bot.clients.kube import Forbidden
from bot.clients.rights import ENGINE_KEY, MASTER_KEY, rights
from bot.errors import BotError
from bot.settings.config import Config, SecretRef
from tests.clients.kube import (
    REFUSED,
    Object,
    Wire,
    deployment,
    hurry,
    pod,
    service,
    time_passes,
    wait_until,
)


async def test_a_workload_is_read_with_the_service_in_front_of_it(wire: Wire, cluster: Cluster) -> None:
    """The Service that selects the pods counts, with any name; its port is not the container's."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(service("other", 1))
    wire.store.create(service(port=80))
    workload = await cluster.workload("coder-chat")
    assert workload
    assert (workload.service, workload.port, workload.gpus, workload.replicas, workload.lease) == (
        "coder-chat-svc",
        80,
        1,
        1,
        None,
    )
    assert (workload.served_name, workload.kind) == ("coder-chat-7b-instruct", "chat")
    assert await cluster.workload("nobody") is None


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (("--model", "Qwen/Qwen2.5-Coder-1.5B", "--served-model-name", "qwen-coder"), "completion"),
        (("--model=google/gemma-3-4b-it",), "chat"),
        (("--model=meta/Base", "--served-model-name=my-chat"), "chat"),
        (("--model-id=BAAI/bge-base-en-v1.5", "--port=8080"), "embedding"),
        (("--model-id=BAAI/bge-reranker-base", "--port=8080"), "rerank"),
    ],
)
async def test_the_kind_is_derived_from_the_arguments(
    wire: Wire, cluster: Cluster, args: tuple[str, ...], kind: str
) -> None:
    """The kind is completion for a base model, embedding or rerank for TEI, and chat if the id or the served name shows it."""
    wire.store.create(deployment(args=args))
    workload = await cluster.workload("coder-chat")
    assert workload
    assert workload.kind == kind


async def test_the_kind_can_be_set_on_the_deployment(wire: Wire, cluster: Cluster) -> None:
    """This is for a model whose name does not show its kind."""
    base_model = deployment(args=("--model=openai/gpt-oss-20b",))
    base_model["metadata"]["labels"] = {"stoker.dev/kind": "chat"}
    wire.store.create(base_model)
    workload = await cluster.workload("coder-chat")
    assert workload
    assert workload.kind == "chat"


async def test_gpu_workloads_are_found_in_every_namespace(wire: Wire, cluster: Cluster) -> None:
    """A workload may have no Service, and may have been brought up by hand."""
    wire.store.create(deployment("asleep", replicas=0))
    wire.store.create(deployment("embeddings", replicas=1, gpus=0))
    wire.store.create(deployment("coder-chat", replicas=1))
    stranger = deployment("notebook", replicas=2)
    stranger["metadata"]["namespace"] = "research"
    wire.store.create(stranger)
    workloads = await cluster.gpu_workloads()
    assert [(w.namespace, w.name, w.replicas) for w in workloads] == [
        ("research", "notebook", 2),
        ("serving", "coder-chat", 1),
    ]


async def test_scaling_marks_the_lease_and_repeats_nothing(wire: Wire, cluster: Cluster) -> None:
    """The step may run again after a crash."""
    wire.store.create(deployment())
    for _ in range(2):
        await cluster.scale("coder-chat", 1, lease="7")
    workload = await cluster.workload("coder-chat")
    assert workload
    assert (workload.replicas, workload.lease) == (1, "7")
    assert (wire.count_requests("PATCH", "/scale"), wire.count_requests("PATCH", "")) == (1, 2)
    await cluster.scale("coder-chat", 0, lease=None)
    workload = await cluster.workload("coder-chat")
    assert workload
    assert (workload.replicas, workload.lease) == (0, None)
    with pytest.raises(BotError, match="no Deployment nobody"):
        await cluster.scale("nobody", 1, lease="7")


async def test_a_worker_with_an_older_fence_changes_nothing(wire: Wire, cluster: Cluster) -> None:
    """It changes nothing once a newer lease has scaled the Deployment, or after its own lease has ended."""
    wire.store.create(deployment())
    await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    await cluster.scale("coder-chat", 1, lease="seven", fence=7)  # the same worker again after a crash
    for replicas, lease in ((0, None), (1, "six")):
        with pytest.raises(StaleFence, match="fence 7 instead of 6"):
            await cluster.scale("coder-chat", replicas, lease=lease, fence=6)
    with pytest.raises(StaleFence):
        await cluster.mark("coder-chat", "six", 6)
    await cluster.scale("coder-chat", 0, lease=None, fence=7)
    with pytest.raises(StaleFence):
        await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    workload = await cluster.workload("coder-chat")
    assert workload
    assert (workload.replicas, workload.lease) == (0, None)
    assert await cluster.highest_fence() == 7
    await cluster.scale("coder-chat", 1, lease="eight", fence=8)


async def test_a_change_between_read_and_write_is_detected(wire: Wire, cluster: Cluster) -> None:
    """Each write contains the version that was read: a newer lease in between wins."""
    wire.store.create(deployment())

    def newer(live: Object) -> None:
        live["metadata"]["annotations"] = {"stoker.dev/fence": "8", "stoker.dev/lease": "eight"}

    wire.before_patch = lambda: wire.store.update("Deployment", "coder-chat", "serving", newer)
    with pytest.raises(StaleFence):
        await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    live = await cluster.workload("coder-chat")
    assert live
    assert (live.replicas, live.lease) == (0, "eight")


async def test_a_status_update_between_read_and_write_is_no_conflict(wire: Wire, cluster: Cluster) -> None:
    """The Deployment's controller writes all the time, so the client reads again, and writes once."""
    wire.store.create(deployment())

    def status(live: Object) -> None:
        live["status"] = {"observedGeneration": 1}

    wire.before_patch = lambda: wire.store.update("Deployment", "coder-chat", "serving", status)
    await cluster.scale("coder-chat", 1, lease="seven", fence=7)
    live = await cluster.workload("coder-chat")
    assert live
    assert (live.replicas, live.lease) == (1, "seven")


async def test_every_user_of_a_gpu_is_found(wire: Wire, cluster: Cluster) -> None:
    """Users are Deployments with replicas, and unfinished pods of StatefulSets or without owners, in any namespace."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(deployment("down"))
    wire.store.create(deployment("cpu", replicas=1, gpus=0))

    def gpu_pod(name: str, owner: tuple[str, str] | None = None, **status: Any) -> Object:
        user_pod = pod(name, **status)
        user_pod["metadata"]["namespace"] = "research"
        user_pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
        if owner:
            user_pod["metadata"]["labels"]["pod-template-hash"] = "abc"
            user_pod["metadata"]["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
        return user_pod

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
    """The error contains the verb and the resource, as a Role lists them."""
    wire.store.create(deployment())
    wire.forbidden = "/scale"
    with pytest.raises(Forbidden, match="may not patch deployments/scale in namespace serving"):
        await cluster.scale("coder-chat", 1, lease="7")


async def test_a_revoked_permission_is_reported_after_retries(wire: Wire, cluster: Cluster) -> None:
    """Retries are for a restart; a refusal by a quota or a webhook is immediate."""
    wire.store.create(deployment())
    await cluster.scale("coder-chat", 1, lease="7")
    wire.refusals = ['pods "x" is forbidden: exceeded quota: gpus']
    with pytest.raises(Forbidden, match="exceeded quota"):
        await cluster.workload("coder-chat")
    wire.refusals = [REFUSED] * 100
    reading = asyncio.create_task(cluster.workload("coder-chat"))
    await hurry(reading.done)
    with pytest.raises(Forbidden, match="cannot list"):
        await reading
    assert len(wire.refusals) < 100 - 1


async def test_a_permission_that_never_existed_is_reported_immediately(wire: Wire, cluster: Cluster) -> None:
    """A mistake in the Role is not a restart."""
    wire.refusals = [REFUSED] * 50
    with pytest.raises(Forbidden):
        await cluster.workload("coder-chat")
    assert len(wire.refusals) == 50 - 1


async def test_a_model_is_down_when_its_last_pod_is_deleted(wire: Wire, cluster: Cluster) -> None:
    """The GPU is free only then; an evicted pod that is still listed holds no GPU."""
    wire.store.create(deployment())
    wire.store.create(pod())
    wire.store.create(pod("evicted", phase="Failed"))
    staying = asyncio.create_task(cluster.wait_gone("coder-chat", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    time_passes(30)
    with pytest.raises(BotError, match="coder-chat-1 is still there"):
        await staying
    going = asyncio.create_task(cluster.wait_gone("coder-chat", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true") == 2)
    wire.store.remove("Pod", "coder-chat-1", "serving")
    await going
    await cluster.wait_gone("nobody", timeout=30)


async def test_the_node_bills_since_it_was_created(wire: Wire, cluster: Cluster) -> None:
    """The creation of the node counts, not that of the pod; the machine type determines the price."""
    wire.store.create(deployment(replicas=1))
    assert await cluster.node_of("coder-chat") is None
    wire.store.create(pod())
    assert await cluster.node_of("coder-chat") is None
    labels = {"node.kubernetes.io/instance-type": "g2-standard-4"}
    node = wire.store.create({"kind": "Node", "metadata": {"name": "gpu-1", "labels": labels}})
    billed = await cluster.node_of("coder-chat")
    assert billed
    assert billed.since.isoformat().replace("+00:00", "Z") == node["metadata"]["creationTimestamp"]
    assert (billed.name, billed.machine) == ("gpu-1", "g2-standard-4")


async def test_nodes_without_the_right_to_read_them_are_unknown(wire: Wire, cluster: Cluster) -> None:
    """The receipt is then an estimate, and does not fail."""
    wire.store.create(deployment(replicas=1))
    wire.store.create(pod())
    wire.forbidden = "/nodes"
    assert await cluster.node_of("coder-chat") is None


async def test_the_end_of_a_node_is_watched(wire: Wire, cluster: Cluster) -> None:
    """It is billed until it is gone, some time after the last pod."""
    wire.store.create({"kind": "Node", "metadata": {"name": "gpu-1"}})
    staying = asyncio.create_task(cluster.wait_node_gone("gpu-1", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    time_passes(30)
    assert not await staying
    waiting = asyncio.create_task(cluster.wait_node_gone("gpu-1", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true") >= 2)
    wire.cut()
    wire.store.remove("Node", "gpu-1")
    assert await waiting


async def test_a_secret_is_read_by_field_and_never_shown(wire: Wire, cluster: Cluster) -> None:
    """A missing Secret is named, without a value."""
    key = base64.b64encode(b"sk-1\n").decode()
    wire.store.create({"kind": "Secret", "metadata": {"name": "k", "namespace": "litellm"}, "data": {"api-key": key}})
    secret = await cluster.secret(MASTER_KEY, SecretRef(namespace="litellm", name="k", field="api-key"))
    assert secret.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(secret)
    with pytest.raises(BotError, match="Secret k in namespace serving has no field api-key"):
        await cluster.secret(ENGINE_KEY, SecretRef(namespace="serving", name="k", field="api-key"))


async def test_rights_that_the_role_lacks_are_named(wire: Wire, cluster: Cluster) -> None:
    """The API server is queried; optional rights are distinguished."""
    assert await cluster.lacking(rights(Config())) == ()
    wire.denied = {("patch", "deployments/scale"), ("watch", "nodes")}
    scale, nodes = await cluster.lacking(rights(Config()))
    assert str(scale) == "patch deployments/scale.apps in namespace serving"
    assert scale.without == ""
    assert (str(nodes), bool(nodes.without)) == ("watch nodes", True)


async def test_rights_are_checked_a_few_at_a_time(wire: Wire, cluster: Cluster) -> None:
    """The API server answers only when eight reviews are open; a ninth waits, and a refusal is still reported by name."""
    wire.reviews_together = 8
    wire.denied = {("watch", "nodes")}
    async with asyncio.timeout(10):
        lacking = await cluster.lacking(rights(Config()))
    assert [str(right) for right in lacking] == ["watch nodes"]
    assert wire.most_reviews == 8
    assert len(rights(Config())) > 16


async def test_a_failed_check_of_the_rights_is_one_error(wire: Wire, cluster: Cluster) -> None:
    """The first failure is raised with its type, and the other checks end."""
    wire.forbidden = "selfsubjectaccessreviews"
    with pytest.raises(Forbidden, match="stoker cannot do that"):
        await cluster.lacking(rights(Config()))


def rolling(wire: Wire, **status: Any) -> None:
    """Let the Deployment controller report the progress of a roll-out."""
    wire.store.update("Deployment", "coder-chat", "serving", lambda live: live.update(status=status))


async def test_a_roll_out_is_over_when_no_old_pod_is_left(wire: Wire, cluster: Cluster) -> None:
    """A status from before the change does not count, nor does a new pod while an old one exists."""
    wire.store.create(deployment(replicas=1))
    generation = (wire.store.get("Deployment", "coder-chat", "serving") or {})["metadata"]["generation"]
    before = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    rolling(wire, observedGeneration=generation - 1, **before)
    rolled = asyncio.create_task(cluster.wait_rolled_out("coder-chat", timeout=30))
    replaced = asyncio.create_task(cluster.wait_rolled_out("coder-chat", timeout=30, available=False))
    await wait_until(lambda: wire.count_requests("GET", "watch=true") >= 2)
    rolling(wire, observedGeneration=generation, replicas=2, updatedReplicas=1, availableReplicas=1)
    await asyncio.sleep(0.1)
    assert not rolled.done()
    assert not replaced.done()
    rolling(wire, observedGeneration=generation, replicas=1, updatedReplicas=1)
    assert await replaced is True
    assert not rolled.done()
    rolling(wire, observedGeneration=generation, **before)
    assert await rolled is True


async def test_a_roll_out_that_never_ends_is_reported(wire: Wire, cluster: Cluster) -> None:
    """The error names the things to check; if the Deployment does not exist, there is no wait."""
    wire.store.create(deployment(replicas=1))
    waiting = asyncio.create_task(cluster.wait_rolled_out("coder-chat", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    time_passes(30)
    with pytest.raises(BotError, match="coder-chat in namespace serving did not roll out"):
        await waiting
    assert await cluster.wait_rolled_out("litellm", namespace="litellm", timeout=30) is False


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (("--model=Org/A", "--served-model-name=a"), ("a",)),
        (("--model=Org/A", "--served-model-name", "a", "b", "--quantization=awq"), ("a", "b")),
        (("--model", "Org/A"), ("Org/A",)),
    ],
)
async def test_a_model_answers_to_all_its_names(
    wire: Wire, cluster: Cluster, args: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """vLLM accepts several names after one flag, and uses the model's id without the flag."""
    wire.store.create(deployment(args=args))
    workload = await cluster.workload("coder-chat")
    assert workload
    assert workload.served_names == names
    assert not workload.keyed


async def test_an_engine_with_a_key_is_detected(wire: Wire, cluster: Cluster) -> None:
    """The engine has a key if its variable is set from a Secret."""
    keyed = deployment()
    secret = {"secretKeyRef": {"name": "vllm-api-key", "key": "api-key"}}
    keyed["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "VLLM_API_KEY", "valueFrom": secret}]
    wire.store.create(keyed)
    workload = await cluster.workload("coder-chat")
    assert workload
    assert workload.keyed


async def test_a_model_that_another_lease_has_started_is_not_taken_over(wire: Wire, cluster: Cluster) -> None:
    """Redis lost the first claim, and two operations bring up one model: the operation that scales it first keeps it."""
    wire.store.create(deployment())
    await cluster.scale("coder-chat", 1, lease="op-1", fence=7)
    with pytest.raises(StaleFence):
        await cluster.scale("coder-chat", 1, lease="op-2", fence=8)
    await cluster.scale("coder-chat", 1, lease="op-1", fence=7)
    await cluster.scale("coder-chat", 0, lease=None, fence=7)
    await cluster.scale("coder-chat", 1, lease="op-2", fence=8)
