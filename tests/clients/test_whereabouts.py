"""Models whose Deployment has another name or namespace, and other users of the GPU."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.clients.cluster import Cluster
from bot.clients.whereabouts import Address
from bot.clients.workload import LEASE, MODEL, gpus_in, workload_of
from bot.errors import BotError
from tests.clients.kube import Wire, connected, deployment


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as api:
        yield api


def placed(namespace: str, name: str, **changes: Any) -> dict[str, Any]:
    workload: dict[str, Any] = deployment()
    workload["metadata"] |= {"namespace": namespace, "name": name}
    workload["spec"] |= changes
    return workload


async def test_a_model_is_scaled_at_the_address_from_the_repository(wire: Wire) -> None:
    """The Deployment has another name and namespace; a Deployment with the endpoint's own name does not change."""
    wire.store.create(placed("serving", "coder-chat", replicas=0))
    wire.store.create(placed("chat", "vllm-server", replicas=0))
    async with connected(wire) as client:
        cluster = Cluster(client, "serving", "chat")
        cluster.whereabouts.update({"coder-chat": Address("chat", "vllm-server")})
        await cluster.scale("coder-chat", 1, lease="7", fence=7)
        assert [(user.endpoint, user.name) for user in await cluster.gpu_users()] == [("coder-chat", "vllm-server")]
    unchanged = wire.store.get("Deployment", "coder-chat", "serving")
    scaled = wire.store.get("Deployment", "vllm-server", "chat")
    assert unchanged
    assert scaled
    assert (unchanged["spec"]["replicas"], scaled["spec"]["replicas"]) == (0, 1)
    assert scaled["metadata"]["annotations"][LEASE] == "7"


async def test_a_model_is_stopped_by_its_name_without_the_repository(wire: Wire) -> None:
    """Stoker writes the model on the objects that it starts, so a bot that cannot read git can still stop them."""
    wire.store.create(placed("chat", "vllm-server", replicas=0))
    async with connected(wire) as client:
        first = Cluster(client, "serving", "chat")
        first.whereabouts.update({"coder-chat": Address("chat", "vllm-server")})
        await first.scale("coder-chat", 1, lease="7", fence=7)
        restarted = Cluster(client, "serving", "chat")
        assert await restarted.scale("coder-chat", 0, lease=None)
    stopped = wire.store.get("Deployment", "vllm-server", "chat")
    assert stopped
    assert stopped["spec"]["replicas"] == 0
    assert stopped["metadata"]["annotations"] == {MODEL: "coder-chat", "stoker.dev/fence": "7"}


async def test_a_namespace_without_a_role_is_named(wire: Wire) -> None:
    async with connected(wire) as client:
        cluster = Cluster(client, "serving")
        cluster.whereabouts.update({"coder-chat": Address("chat", "vllm-server")})
        with pytest.raises(BotError, match=r"runs in namespace chat.*platform\.namespaces"):
            await cluster.workload("coder-chat")


async def test_workloads_that_may_share_the_gpu_are_not_users(wire: Wire) -> None:
    wire.store.create(placed("ollama", "ollama", replicas=1))
    async with connected(wire) as client:
        assert [str(user) for user in await Cluster(client, "serving").gpu_users()] == ["Deployment ollama/ollama"]
        assert await Cluster(client, "serving", beside=("ollama/ollama",)).gpu_users() == ()


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({"nvidia.com/gpu": "2"}, 2),
        ({"nvidia.com/gpu.shared": "1"}, 1),
        ({"nvidia.com/mig-1g.10gb": 1}, 1),
        ({"nvidia.com/mig-1g.10gb.shared": 1}, 1),
        ({"amd.com/gpu": "1"}, 1),
        ({"gpu.intel.com/xe": "1", "gpu.intel.com/xe_monitoring": "1"}, 1),
        ({"gpu.intel.com/i915": "1", "gpu.intel.com/memory.max": "8Gi", "gpu.intel.com/millicores": "500"}, 1),
        ({"acme.example/npu": "1"}, 1),
        ({"cpu": "4", "memory": "16Gi", "nvidia.com/hostdev": "1"}, 0),
    ],
)
def test_resources_of_every_vendor_are_gpus(limits: dict[str, Any], count: int) -> None:
    pod = {"containers": [{"name": "engine", "resources": {"limits": limits}}]}
    assert gpus_in(pod, ("acme.example/*",)) == count


def test_a_runtime_class_gives_gpus_without_a_device() -> None:
    """Many home clusters share one card like this: the runtime gives the card to every container with the variable."""
    asks: dict[str, Any] = {"name": "a", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}
    assert gpus_in({"runtimeClassName": "nvidia", "containers": [asks]}) == 1
    assert gpus_in({"runtimeClassName": "nvidia", "containers": [{"name": "a"}]}) == 0
    assert gpus_in({"containers": [asks]}) == 0


def test_a_claim_of_dynamic_resource_allocation_is_a_gpu() -> None:
    """The scheduler allocates the device for the pod, whether a container names the claim or not."""
    claim = {"name": "gpu", "resourceClaimTemplateName": "single-gpu"}
    engine = {"name": "engine", "resources": {"claims": [{"name": "gpu"}]}}
    assert gpus_in({"containers": [engine], "resourceClaims": [claim]}) == 1
    assert gpus_in({"containers": [{"name": "engine"}], "resourceClaims": [claim, claim | {"name": "other"}]}) == 2


async def test_a_pod_that_claims_a_gpu_uses_it(wire: Wire) -> None:
    """The model's own Deployment counts, and so does a pod of somebody else."""
    spec = {"containers": [{"name": "a"}], "resourceClaims": [{"name": "gpu", "resourceClaimName": "card"}]}
    model = placed("serving", "coder-chat", replicas=1)
    model["spec"]["template"]["spec"]["resourceClaims"] = spec["resourceClaims"]
    for container in model["spec"]["template"]["spec"]["containers"]:
        container.pop("resources", None)
    wire.store.create(model)
    wire.store.create({"kind": "Pod", "metadata": {"namespace": "lab", "name": "train"}, "spec": spec, "status": {}})
    async with connected(wire) as client:
        cluster = Cluster(client, "serving")
        assert {str(user) for user in await cluster.gpu_users()} == {"Deployment serving/coder-chat", "Pod lab/train"}
        workload = await cluster.workload("coder-chat")
        assert workload
        assert workload.gpus == 1


def test_a_name_from_a_config_map_is_not_the_name_that_is_served() -> None:
    """The kubelet replaces `$(NAME)`. The bot knows only literal values; otherwise the manifests have the name."""
    args = ("$(MODEL)", "--served-model-name", "$(NAME)")
    workload = workload_of(deployment(args=args), ())
    assert (workload.names_said, workload.served_names, workload.model) == (False, (), "")
    literal = deployment(args=args)
    literal["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "NAME", "value": "coder"}]
    assert workload_of(literal, ()).served_names == ("coder",)
