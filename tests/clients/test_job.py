"""The benchmark's Job: its content, created once, followed to its end, and deleted with its pod."""

import json
from datetime import timedelta
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from bot.clients.job import BenchFailed, Jobs, Load, manifest, name_of
from bot.clients.whereabouts import Address, Whereabouts
from bot.domain.phases import Phase
from bot.errors import BotError
from bot.settings.config import Bench, SecretRef
from tests.clients.kube import Wire, caching, connected, deployment

IMAGE = f"registry.example/guidellm@sha256:{'5a' * 32}"
SHAPE = Bench(image=IMAGE, concurrency=(1, 8))
KEY = SecretRef(namespace="serving", name="vllm-api-key", field="api-key")
LOAD = Load(
    model="coder-chat", target="http://coder-chat:8000", served_name="qwen; rm -rf /", tokenizer="Qwen/X", chat=True
)
OP = "0123456789"


def bench_job(workload: dict[str, Any] | None = None) -> dict[str, Any]:
    return manifest(OP, LOAD, SHAPE, KEY, workload or caching(deployment()))


def test_the_command_is_a_list_of_arguments() -> None:
    """No shell interprets the arguments, so characters have no special meaning; no argument contains the key."""
    measures, prints = (
        bench_job()["spec"]["template"]["spec"]["initContainers"][0],
        bench_job()["spec"]["template"]["spec"]["containers"][0],
    )
    assert "command" not in measures
    assert json.loads(measures["args"][measures["args"].index("--backend") + 1])["model"] == "qwen; rm -rf /"
    assert measures["args"][measures["args"].index("--override") :][:3] == ["--override", "profile.streams", "1,8"]
    assert prints["command"] == ["cat", "/results/benchmarks.csv"]
    key = next(variable for variable in measures["env"] if "valueFrom" in variable)
    assert key["valueFrom"] == {"secretKeyRef": {"name": "vllm-api-key", "key": "api-key"}}


def test_an_engine_without_a_key_needs_no_secret() -> None:
    job = manifest(OP, LOAD, SHAPE, SecretRef(), caching(deployment()))
    environment = job["spec"]["template"]["spec"]["initContainers"][0]["env"]
    assert all("valueFrom" not in variable for variable in environment)


def test_the_pod_reads_the_weights_beside_the_model() -> None:
    """The pod runs on the model's node, as the same user and without a GPU, and no Service or Deployment selects it."""
    job = bench_job()
    spec, labels = job["spec"]["template"]["spec"], job["spec"]["template"]["metadata"]["labels"]
    rule = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert rule["labelSelector"]["matchLabels"] == {"app.kubernetes.io/name": "coder-chat"}
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert labels["app.kubernetes.io/name"] != "coder-chat"
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert spec["initContainers"][0]["volumeMounts"][0] == {
        "name": "model-cache",
        "mountPath": "/models",
        "readOnly": True,
    }
    environment = {variable["name"]: variable.get("value") for variable in spec["initContainers"][0]["env"]}
    assert (environment["HF_HOME"], environment["HF_HUB_OFFLINE"], environment["NVIDIA_VISIBLE_DEVICES"]) == (
        "/models",
        "1",
        "void",
    )


def test_weights_that_no_second_pod_can_read_are_reported() -> None:
    with pytest.raises(BenchFailed, match="is not on a volume claim, so the benchmark has no tokenizer"):
        bench_job(deployment())


@pytest.fixture
async def api(wire: Wire) -> Any:
    async with connected(wire) as client:
        yield client


async def ignore(_: Phase) -> None:
    """Ignore the phase."""


async def test_a_job_is_created_once_and_deleted_with_its_pod(wire: Wire, api: ApiClient) -> None:
    """A second creation changes nothing; a second deletion is ignored; a Job's pods are not orphaned."""
    wire.store.create(caching(deployment()))
    jobs = Jobs(api, Whereabouts("serving"))
    for _ in range(2):
        await jobs.start(OP, LOAD, SHAPE, KEY)
    assert wire.count_requests("POST", "/jobs") == 1
    assert await jobs.delete(OP)
    assert not await jobs.delete(OP)
    assert wire.count_requests("DELETE", f"/jobs/{name_of(OP)}?propagationPolicy=Background") == 1


async def test_a_job_runs_in_the_namespace_of_the_model(wire: Wire, api: ApiClient) -> None:
    """The Job runs in the namespace of its volume; its Deployment may have another name."""
    engine = caching(deployment())
    engine["metadata"] |= {"namespace": "chat", "name": "vllm-server"}
    wire.store.create(engine)
    whereabouts = Whereabouts("serving", "chat")
    whereabouts.update({LOAD.model: Address("chat", "vllm-server")})
    jobs = Jobs(api, whereabouts)
    assert await jobs.obstacle(LOAD.model, SHAPE, KEY) == ""
    await jobs.start(OP, LOAD, SHAPE, KEY)
    assert wire.store.get("Job", name_of(OP), "chat")
    assert await jobs.delete(OP)
    await jobs.start(OP, LOAD, SHAPE, KEY)
    restarted = Jobs(api, Whereabouts("serving", "chat"))
    await restarted.delete_all(LOAD.model)  # without the repository
    assert wire.store.get("Job", name_of(OP), "chat") is None


async def test_a_model_in_a_namespace_without_a_role_has_no_job(api: ApiClient) -> None:
    whereabouts = Whereabouts("serving")
    whereabouts.update({LOAD.model: Address("chat", "vllm-server")})
    with pytest.raises(BotError, match=r"runs in namespace chat.*platform\.namespaces"):
        await Jobs(api, whereabouts).start(OP, LOAD, SHAPE, KEY)


@pytest.mark.parametrize(
    ("status", "conditions", "message"),
    [
        ({}, [{"type": "Failed", "reason": "DeadlineExceeded", "message": "too long"}], "failed .DeadlineExceeded: too long"),
        (
            {"initContainerStatuses": [{"name": "guidellm", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
            [{"type": "Failed", "reason": "BackoffLimitExceeded", "message": ""}],
            "exit code 137 .OOMKilled",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no node has room"}]},
            [{"type": "Failed", "reason": "DeadlineExceeded", "message": ""}],
            "No node takes its pod: no node has room",
        ),
        (
            {"initContainerStatuses": [{"name": "guidellm", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]},
            [],
            "cannot be pulled .ImagePullBackOff.: not found",
        ),
    ],
)  # fmt: skip
async def test_the_reason_for_a_missing_result_is_reported(
    wire: Wire, api: ApiClient, status: dict[str, Any], conditions: list[dict[str, str]], message: str
) -> None:
    job = wire.store.create(bench_job() | {"metadata": bench_job()["metadata"] | {"namespace": "serving"}})
    wire.store.update(
        "Job",
        job["metadata"]["name"],
        "serving",
        lambda live: live.update(status={"conditions": [c | {"status": "True"} for c in conditions]}),
    )
    labels = bench_job()["spec"]["template"]["metadata"]["labels"]
    wire.store.create(
        {
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "serving", "labels": labels},
            "spec": {"containers": []},
            "status": status,
        }
    )
    with pytest.raises(BenchFailed, match=message):
        await Jobs(api, Whereabouts("serving")).result(OP, LOAD.model, limit=timedelta(seconds=20), progress=ignore)


async def test_a_deleted_job_is_not_awaited(wire: Wire, api: ApiClient) -> None:
    with pytest.raises(BenchFailed, match="Job is gone"):
        await Jobs(api, Whereabouts("serving")).result(OP, LOAD.model, limit=timedelta(seconds=20), progress=ignore)
