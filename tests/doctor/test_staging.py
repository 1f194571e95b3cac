"""The doctor's checks of staging: a node for the Job, volumes that can grow, and rights."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.clients.cluster import Cluster
from bot.clients.staging import Stager
from bot.clients.whereabouts import Whereabouts
from bot.doctor import Finding, platform
from bot.doctor.staging import staging
from bot.settings.config import Config
from manifests.contract import ModelEndpoint
from tests.clients.kube import Object, Wire, connected
from tests.clients.test_staging_job import claim, model, storage_class

HF_ID = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"
ENDPOINT = ModelEndpoint(name="coder-chat", kind="gpu-chat", hf_id=HF_ID, served_name="coder", gpus=1, pvc_size="20Gi")
ZONE = "topology.kubernetes.io/zone"
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def node(*taints: dict[str, str], **labels: str) -> Object:
    return {"kind": "Node", "metadata": {"name": "n", "labels": {"kubernetes.io/arch": "amd64"} | labels}, "spec": {"taints": list(taints)}}  # fmt: skip


def bound_volume(size: str, *, expands: bool) -> tuple[Object, ...]:
    """A bound volume of this size, and its class."""
    bound = claim(bound=True)
    bound["status"]["capacity"] = bound["spec"]["resources"]["requests"] = {"storage": size}
    return bound, storage_class() | {"allowVolumeExpansion": expands}


def in_zone(zone: str, size: str = "20Gi") -> tuple[Object, ...]:
    """A bound volume in a zone."""
    bound, kind = bound_volume(size, expands=True)
    bound["spec"]["volumeName"] = "pv-1"
    rule = {"key": "topology.gke.io/zone", "operator": "In", "values": [zone]}
    term = {"required": {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}}
    return bound, kind, {"kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": {"nodeAffinity": term}}


OK = bound_volume("20Gi", expands=True)
NO_NODE = "takes a staging Job → Set `staging.node_selector` and `staging.tolerations` to a pool"
FINDINGS: list[tuple[str, tuple[Object, ...], dict[str, Any], str]] = [
    ("a CPU node", (*OK, node()), {}, ""),
    ("no node", OK, {}, f"No node without a GPU with kubernetes.io/arch=amd64 {NO_NODE}"),
    ("only a GPU node", (*OK, node(**{"nvidia.com/gpu.present": "true"})), {}, NO_NODE),
    ("a GPU node with only a taint", (*OK, node(GPU_TAINT)), {}, NO_NODE),
    ("another architecture", (*OK, node(**{"kubernetes.io/arch": "arm64"})), {}, NO_NODE),
    ("a selector that matches nothing", (*OK, node(pool="web")), {"node_selector": {"pool": "batch"}}, "pool=batch takes"),
    ("a selector that matches", (*OK, node(pool="batch")), {"node_selector": {"pool": "batch"}}, ""),
    ("a taint", (*OK, node({"key": "batch", "effect": "NoSchedule"})), {}, NO_NODE),
    ("a taint that is only a preference", (*OK, node({"key": "batch", "effect": "PreferNoSchedule"})), {}, ""),
    ("a tolerated taint", (*OK, node({"key": "batch", "effect": "NoSchedule"})),
     {"tolerations": [{"key": "batch", "operator": "Exists"}]}, ""),
    ("a taint of another value", (*OK, node({"key": "team", "value": "a", "effect": "NoSchedule"})),
     {"tolerations": [{"key": "team", "value": "b"}]}, NO_NODE),
    ("another zone", (*in_zone("a"), node(**{ZONE: "b"})), {}, f"in zone a {NO_NODE}"),
    ("the volume's zone", (*in_zone("a"), node(**{ZONE: "a"})), {}, ""),
    ("no volume", (node(),), {}, "The cluster has no volume claim coder-chat-model-cache: sync the"),
    ("too small for git, and cannot grow", (*bound_volume("10Gi", expands=False), node()), {},
     "has to grow from 10Gi to 20Gi, and its storage class rwo does not allow that (allowVolumeExpansion) → Use a storage"),
    ("too small for git, and can grow", (*bound_volume("10Gi", expands=True), node()), {}, ""),
    ("large enough, and cannot grow", (*bound_volume("20Gi", expands=False), node()), {}, ""),
    ("no class", (bound_volume("10Gi", expands=True)[0], node()), {}, "its storage class (there is none) does not allow that"),
]  # fmt: skip


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as wire:
        wire.store.create(model())
        yield wire


async def findings(wire: Wire, shape: dict[str, Any], *endpoints: ModelEndpoint) -> list[Finding]:
    config = Config.model_validate({"staging": {"mode": "on"} | shape})
    async with connected(wire) as api:
        return [
            finding async for finding in staging(config, Stager(api, Whereabouts("serving")), endpoints or (ENDPOINT,))
        ]


@pytest.mark.parametrize(
    ("objects", "shape", "expected"), [row[1:] for row in FINDINGS], ids=[row[0] for row in FINDINGS]
)
async def test_each_obstacle_to_staging_is_named(
    wire: Wire, objects: tuple[Object, ...], shape: dict[str, Any], expected: str
) -> None:
    for manifest in objects:
        wire.store.create(manifest)
    (finding,) = await findings(wire, shape)
    assert finding.verdict == ("warning" if expected else "ok")
    assert expected in f"{finding.message} → {finding.fix}"


async def test_a_volume_with_space_for_one_model_has_to_grow_for_a_swap(wire: Wire) -> None:
    """The volume has the size in git, but a swap needs space for two models of this size."""
    for manifest in (*bound_volume("8Gi", expands=False), node()):
        wire.store.create(manifest)
    (finding,) = await findings(wire, {}, ENDPOINT.model_copy(update={"pvc_size": "8Gi"}))
    assert "has to grow from 8Gi to 15Gi" in finding.message


async def test_staging_that_is_off_and_a_missing_deployment_have_no_findings(wire: Wire) -> None:
    """Argo CD's part of the diagnosis reports an endpoint that is not deployed."""
    assert [finding.message for finding in await findings(wire, {"mode": "off"})] == ["no staging: staging.mode is off"]
    undeployed = ENDPOINT.model_copy(update={"name": "coder-mini"})
    assert [finding.verdict for finding in await findings(wire, {}, undeployed)] == ["ok"]


@pytest.mark.parametrize(
    ("verb", "resource", "right"),
    [
        ("create", "jobs", "create jobs.batch in namespace serving"),
        ("patch", "persistentvolumeclaims", "patch persistentvolumeclaims in namespace serving"),
        ("get", "persistentvolumes", "get persistentvolumes"),
        ("list", "storageclasses", "list storageclasses.storage.k8s.io"),
    ],
)
async def test_a_right_that_staging_needs_is_named_with_its_setting(
    wire: Wire, verb: str, resource: str, right: str
) -> None:
    """The chart grants it only if its own values have `staging.mode`. A forbidden request is reported once."""
    for manifest in (*in_zone("a", "10Gi"), node(**{ZONE: "a"})):
        wire.store.create(manifest)
    wire.denied = {(verb, resource)}
    wire.forbidden = f"/{resource}"
    config = Config.model_validate({"staging": {"mode": "auto"}})
    async with connected(wire) as api:
        checked = [finding async for finding in platform.cluster(config, Cluster(api, "serving"))]
        checked += [finding async for finding in staging(config, Stager(api, Whereabouts("serving")), (ENDPOINT,))]
    (finding,) = [finding for finding in checked if "staging" in finding.message]
    assert finding.verdict == "wrong"
    assert finding.message == f"the bot may not {right}, which staging needs (staging.mode is auto)"
    assert "chart's values" in finding.fix
