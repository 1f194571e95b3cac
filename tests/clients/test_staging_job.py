"""The staging Job: its content, and where it may run."""

from datetime import timedelta
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from bot.clients.kube import Kube
from bot.clients.staging_job import manifest, name_of, weights_of
from bot.clients.volume import CannotStage, Place, Volumes
from bot.settings.config import Staging
from tests.clients.kube import Wire, connected, deployment

SHAPE = Staging(mode="on")
CLAIM = "coder-chat-model-cache"
SCRIPT = 'from huggingface_hub import snapshot_download as d\nd("Qwen/Qwen2.5-Coder-7B-Instruct-AWQ")\n'


def model(**pod: Any) -> dict[str, Any]:
    """A Deployment whose initContainer downloads the weights."""
    workload = deployment()
    init = {
        "name": "prestage-weights",
        "image": "vllm/vllm-openai@sha256:1",
        "command": ["python3", "-c", SCRIPT],
        "env": [
            {"name": "HF_HOME", "value": "/models"},
            {"name": "HF_HUB_OFFLINE", "value": "1"},
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}},
        ],
        "volumeMounts": [{"name": "cache", "mountPath": "/models"}],
        "resources": {"limits": {"cpu": "2", "memory": "6Gi"}},
    }
    workload["spec"]["template"]["spec"] |= {
        "serviceAccountName": "models",
        "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
        "nodeSelector": {"cloud.google.com/gke-nodepool": "gpu", "kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "initContainers": [init],
        "volumes": [
            {"name": "cache", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    } | pod
    return workload


def staging_job(place: Place | None = None, shape: Staging = SHAPE, **pod: Any) -> dict[str, Any]:
    return manifest("0123456789", 1, weights_of(model(**pod)), place or Place(), shape, ("a/b",), timedelta(hours=1))


def test_the_pod_is_the_models_own_staging_container_without_the_gpu() -> None:
    spec = staging_job()["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environment = {variable["name"]: variable for variable in container["env"]}
    assert container["command"][0] == "python3"
    assert container["command"][-1] == SCRIPT
    assert environment["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
    assert environment["HTTPS_PROXY"]["value"] == "http://proxy:3128"
    assert [variable["value"] for variable in container["env"] if variable["name"] == "HF_HUB_OFFLINE"] == ["0"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "6Gi"}
    assert spec["securityContext"] == {"runAsUser": 65532, "fsGroup": 65532}
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("models", False)
    assert [volume["name"] for volume in spec["volumes"]] == ["cache"]


def test_the_pod_neither_uses_nor_adds_a_gpu_node() -> None:
    """The pool of the model's selector, the taint that only GPU pods tolerate, and GPU nodes without a taint are avoided."""
    spec = staging_job()["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert spec["tolerations"] == []
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    rules = {rule["key"]: rule["operator"] for rule in required["nodeSelectorTerms"][0]["matchExpressions"]}
    assert rules["cloud.google.com/gke-accelerator"] == rules["nvidia.com/gpu.present"] == "DoesNotExist"


def test_a_volume_in_use_is_mounted_on_its_node_although_that_has_the_gpu() -> None:
    spec = staging_job(Place(node="gpu-node"))["spec"]["template"]["spec"]
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-node"]}]}
    ]
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert not any("nvidia.com/gpu" in limit for limit in spec["containers"][0]["resources"].values())


def test_the_job_is_bounded_and_one_for_each_volume() -> None:
    job = staging_job()
    assert job["metadata"]["name"] == name_of(CLAIM)
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 3600)
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "stoker"


def test_settings_choose_the_image_and_the_nodes() -> None:
    shape = Staging.model_validate(
        {
            "mode": True,
            "image": "mirror/hf@sha256:2",
            "node_selector": {"pool": "cpu"},
            "tolerations": [{"key": "cpu", "operator": "Exists"}],
        }
    )
    spec = staging_job(shape=shape)["spec"]["template"]["spec"]
    assert shape.mode == "on"
    assert spec["containers"][0]["image"] == "mirror/hf@sha256:2"
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64", "pool": "cpu"}
    assert spec["tolerations"] == [{"key": "cpu", "operator": "Exists"}]


def test_another_tools_command_is_not_changed() -> None:
    workload = model()
    workload["spec"]["template"]["spec"]["initContainers"][0]["command"] = [
        "hf",
        "download",
        "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
    ]
    job = manifest("1", 1, weights_of(workload), Place(), SHAPE, (), timedelta(hours=1))
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][0] == "hf"


def test_a_pod_that_downloads_in_the_engine_is_staged_with_the_engines_image() -> None:
    workload = model(initContainers=[])
    engine = workload["spec"]["template"]["spec"]["containers"][0]
    engine |= {
        "env": [{"name": "HF_HOME", "value": "/models"}],
        "volumeMounts": [{"name": "cache", "mountPath": "/models"}],
    }
    weights = weights_of(workload)
    assert weights.container["image"] == engine["image"]
    assert "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ" in weights.container["command"][2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"volumes": [{"name": "cache", "emptyDir": {}}]}, "has no volume claim that its staging container mounts"),
        ({"containers": [{"name": "vllm", "args": ["--model=/models/x"], "resources": {"limits": {"nvidia.com/gpu": 1}}}]}, "not a model on Hugging Face"),
        ({"containers": [{"name": "tei", "args": ["--model-id=a/b"]}]}, "runs without a GPU"),
    ],
)  # fmt: skip
def test_weights_that_no_other_pod_can_stage_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CannotStage, match=reason):
        weights_of(model(**change))


# ------------------------------------------------------------------------------------------------ placement of the pod


@pytest.fixture
async def wire() -> Any:
    async with Wire() as server:
        yield server


@pytest.fixture
async def api(wire: Wire) -> Any:
    async with connected(wire) as client:
        yield client


def claim(mode: str = "ReadWriteOnce", *, bound: bool = False, storage_class: str | None = None) -> dict[str, Any]:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": "20Gi"}}}
    spec |= {"storageClassName": storage_class} if storage_class else {}
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": "serving"},
        "spec": spec,
        "status": {"phase": "Bound" if bound else "Pending"},
    }


def storage_class(
    name: str = "rwo", provisioner: str = "pd.csi.storage.gke.io", mode: str = "WaitForFirstConsumer"
) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": provisioner,
        "volumeBindingMode": mode,
    }


def node(name: str, zone: str = "", **capacity: str) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "status": {"capacity": capacity}}


def user(*, ready: bool, on: str = "gpu-node", app: str = "coder-chat") -> dict[str, Any]:
    """A pod that mounts the claim."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "kind": "Pod",
        "metadata": {"name": f"{app}-1", "namespace": "serving", "labels": {"app.kubernetes.io/name": app}},
        "spec": {
            "containers": [],
            "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": CLAIM}}],
            **({"nodeName": on} if on else {}),
        },
        "status": {"phase": "Running", "conditions": conditions},
    }


async def place(wire: Wire, api: ApiClient, *objects: dict[str, Any], shape: Staging = SHAPE, **pod: Any) -> Place:
    for created in objects:
        wire.store.create(created)
    return await Volumes(Kube(api), "serving").place(CLAIM, model(**pod), shape)


async def test_a_bound_volume_without_users_restricts_no_node(wire: Wire, api: ApiClient) -> None:
    """Kubernetes itself keeps the pod in the volume's zone."""
    assert await place(wire, api, claim(bound=True)) == Place()


async def test_a_volume_in_use_is_mounted_beside_its_user(wire: Wire, api: ApiClient) -> None:
    assert await place(wire, api, claim(bound=True), user(ready=True)) == Place(node="gpu-node")


async def test_a_shared_volume_can_be_mounted_on_any_node(wire: Wire, api: ApiClient) -> None:
    assert await place(wire, api, claim("ReadWriteMany", bound=True), user(ready=True)) == Place(shared=True)


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], "no volume claim"),
        ([claim(bound=True), user(ready=False)], "is starting or stopping"),
        ([claim("ReadWriteOncePod", bound=True), user(ready=True)], "ReadWriteOncePod allows no second pod"),
        ([claim(bound=True), user(ready=True, on="", app="other")], "will soon use the claim"),
        ([claim("ReadOnlyMany", bound=True)], "can only be read"),
        ([claim()], "there is no default storage class"),
        ([claim(storage_class="gone"), storage_class()], "storage class gone does not exist"),
        ([claim(), storage_class(provisioner="rancher.io/local-path")], "creates volumes on a single node"),
        ([claim(), storage_class(), node("cpu", "a")], "the zone of the GPU is unknown"),
    ],
)
async def test_the_reason_why_a_volume_cannot_be_staged_is_reported(
    wire: Wire, api: ApiClient, objects: list[dict[str, Any]], reason: str
) -> None:
    with pytest.raises(CannotStage, match=reason):
        await place(wire, api, *objects)


@pytest.mark.parametrize(
    "pod",
    [
        {"nodeSelector": {"topology.kubernetes.io/zone": "b"}},
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]}
                                ]
                            }
                        ]
                    }
                }
            }
        },
    ],
    ids=["node selector", "node affinity"],
)
async def test_an_unbound_volume_is_created_in_the_zone_of_the_models_pod(
    wire: Wire, api: ApiClient, pod: dict[str, Any]
) -> None:
    chosen = await place(wire, api, claim(), storage_class(), node("cpu", "a"), **pod)
    assert chosen.zones == ("b",)
    rules = staging_job(chosen, **pod)["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    assert {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]} in rules[
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"][0]["matchExpressions"]


async def test_an_unbound_volume_is_created_in_the_zone_of_a_gpu_node(wire: Wire, api: ApiClient) -> None:
    chosen = await place(
        wire, api, claim(), storage_class(), node("cpu", "a"), node("gpu", "c", **{"nvidia.com/gpu": "1"})
    )
    assert chosen.zones == ("c",)


async def test_an_unbound_volume_is_created_in_the_zone_of_another_gpu_model(wire: Wire, api: ApiClient) -> None:
    used, other_model = claim(bound=True), deployment("coder-fim")
    used["metadata"]["name"] = "fim-cache"
    used["spec"]["volumeName"] = "pv-1"
    other_model["spec"]["template"]["spec"]["volumes"] = [
        {"name": "c", "persistentVolumeClaim": {"claimName": "fim-cache"}}
    ]
    rule = {"key": "topology.gke.io/zone", "operator": "In", "values": ["d"]}
    volume = {
        "kind": "PersistentVolume",
        "metadata": {"name": "pv-1"},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}}},
    }
    chosen = await place(wire, api, claim(), storage_class(), node("cpu", "a"), used, other_model, volume)
    assert chosen.zones == ("d",)


async def test_a_setting_names_the_zone(wire: Wire, api: ApiClient) -> None:
    shape = Staging(mode="on", zones=("e",))
    assert (await place(wire, api, claim(), storage_class(), node("cpu", "a"), shape=shape)).zones == ("e",)


async def test_a_cluster_without_zones_needs_no_zone(wire: Wire, api: ApiClient) -> None:
    assert await place(wire, api, claim(), storage_class(), node("cpu")) == Place()
