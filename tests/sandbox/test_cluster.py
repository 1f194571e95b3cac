"""The simulated cluster, seen with the official Kubernetes client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes.aio import client, config, watch

from sandbox.cluster import Cluster
from sandbox.faults import Faults
from sandbox.kubernetes import KubernetesAPI
from tests.sandbox.platform_git import MemoryGit

SPEED = 3000
WATCH: Any = watch.Watch
CONFIG: Any = config


class Platform:
    """A cluster of the sample platform, and its clients."""

    def __init__(self, cluster: Cluster, git: MemoryGit, faults: Faults, api: client.ApiClient) -> None:
        self.cluster, self.git, self.faults = cluster, git, faults
        self.core: Any = client.CoreV1Api(api)
        self.apps: Any = client.AppsV1Api(api)
        self.custom: Any = client.CustomObjectsApi(api)

    async def application(self, name: str) -> dict[str, Any]:
        live = await self.custom.get_namespaced_custom_object("argoproj.io", "v1alpha1", "argocd", "applications", name)
        return dict(live)

    async def patch(self, name: str, body: dict[str, Any]) -> None:
        await self.custom.patch_namespaced_custom_object(
            "argoproj.io",
            "v1alpha1",
            "argocd",
            "applications",
            name,
            body,
            _content_type="application/merge-patch+json",
        )

    async def refresh(self, name: str) -> None:
        await self.patch(name, {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}})

    async def sync(self, name: str, revision: str) -> None:
        options = ["RespectIgnoreDifferences=true"]
        sync = {"revision": revision, "syncOptions": options}
        await self.patch(name, {"operation": {"initiatedBy": {"username": "stoker"}, "sync": sync}})

    async def pods(self, name: str) -> list[Any]:
        pods = await self.core.list_namespaced_pod("serving", label_selector=f"app.kubernetes.io/name={name}")
        return list(pods.items)

    async def reasons(self) -> dict[str, str]:
        events = await self.core.list_namespaced_event("serving")
        return {event.reason: event.message for event in events.items}

    async def ready(self, name: str) -> bool:
        return any(c.type == "Ready" and c.status == "True" for p in await self.pods(name) for c in p.status.conditions)

    async def scale(self, name: str, replicas: int) -> None:
        await self.apps.patch_namespaced_deployment_scale(name, "serving", {"spec": {"replicas": replicas}})


async def wait_until(condition: Callable[[], Any], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    git, faults = MemoryGit(), Faults()
    async with KubernetesAPI() as api, Cluster(api, git, SPEED, faults) as cluster:
        configuration = client.Configuration(host=api.url, api_key={"BearerToken": f"Bearer {api.token}"})
        async with client.ApiClient(configuration) as connection:
            yield Platform(cluster, git, faults, connection)


async def test_everything_is_synced_at_the_first_commit(platform: Platform) -> None:
    """At the start each Application is Synced at main, the CPU models run, and the GPU models are at zero."""
    applications = await platform.custom.list_namespaced_custom_object(
        "argoproj.io", "v1alpha1", "argocd", "applications"
    )
    sync = {app["metadata"]["name"]: app["status"]["sync"] for app in applications["items"]}

    assert {state["status"] for state in sync.values()} == {"Synced"}
    assert sync["coder-chat"]["revision"] == platform.git.head
    assert sync["litellm"]["revisions"][-1] == platform.git.head
    assert await platform.pods("coder-chat") == []
    await wait_until(lambda: platform.ready("embeddings"))


async def test_a_gpu_model_boots_through_every_phase(platform: Platform) -> None:
    """After a scale to one, a node is provisioned, the image is pulled, the weights are staged, and the model is loaded."""
    await platform.scale("coder-chat", 1)
    await wait_until(lambda: platform.ready("coder-chat"))

    [pod] = await platform.pods("coder-chat")
    assert pod.spec.node_name.startswith("gke-ai-dev-gpu-")
    assert pod.status.init_container_statuses[0].state.terminated.exit_code == 0
    assert {"TriggeredScaleUp", "Pulling", "Pulled", "Started", "Scheduled"} <= set(await platform.reasons())
    deployment = await platform.apps.read_namespaced_deployment("coder-chat", "serving")
    assert deployment.status.ready_replicas == 1


async def test_the_second_gpu_pod_waits_for_the_first(platform: Platform) -> None:
    """There is one GPU: the other model's pod stays Pending with the scheduler's event, and boots when the first is gone."""
    await platform.scale("coder-chat", 1)
    await wait_until(lambda: platform.ready("coder-chat"))
    await platform.cluster.scale("coder-fim", 1)

    async def refused() -> bool:
        return "NotTriggerScaleUp" in await platform.reasons()

    await wait_until(refused)
    [pod] = await platform.pods("coder-fim")
    assert pod.status.phase == "Pending"
    assert "Insufficient nvidia.com/gpu" in (await platform.reasons())["FailedScheduling"]

    await platform.scale("coder-chat", 0)
    await wait_until(lambda: platform.ready("coder-fim"))
    assert await platform.pods("coder-chat") == []


async def test_the_node_is_removed_after_the_last_pod(platform: Platform) -> None:
    """A GPU node bills until it is drained, minutes after its last pod."""
    await platform.scale("coder-chat", 1)
    await wait_until(lambda: platform.ready("coder-chat"))
    await platform.scale("coder-chat", 0)

    async def drained() -> bool:
        return not any("gpu" in node.metadata.name for node in (await platform.core.list_node()).items)

    await wait_until(drained)
    panel = platform.cluster.panel()
    assert (panel["node"], panel["holder"]) == (None, None)
    assert panel["cost_usd"] > 0


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("no-stock", "FailedScaleUp", "GCE out of resources"),
        ("hf-429", "BackOff", "prestage-weights"),
        ("never-ready", "Killing", "failed startup probe"),
    ],
)
async def test_faults_show_as_events(platform: Platform, fault: str, reason: str, words: str) -> None:
    """Faults are reported as in a real cluster."""
    platform.faults.add(fault)
    await platform.scale("coder-chat", 1)

    async def event_appeared() -> bool:
        return words in (await platform.reasons()).get(reason, "")

    await wait_until(event_appeared)
    assert not await platform.ready("coder-chat")


async def test_a_failed_staging_leaves_its_log(platform: Platform) -> None:
    """The init container's log quotes Hugging Face's 429."""
    platform.faults.add("hf-429")
    await platform.scale("coder-chat", 1)

    async def crashed() -> bool:
        return "BackOff" in await platform.reasons()

    await wait_until(crashed)
    [pod] = await platform.pods("coder-chat")
    log = await platform.core.read_namespaced_pod_log(pod.metadata.name, "serving", container="prestage-weights")
    assert "429 Client Error: Too Many Requests for url: https://huggingface.co/" in log


async def test_a_manual_application_waits_for_its_sync(platform: Platform) -> None:
    """A change on main makes it OutOfSync; a requested operation applies it, and a running pod restarts with it."""
    await platform.scale("coder-chat", 1)
    await wait_until(lambda: platform.ready("coder-chat"))
    [before] = await platform.pods("coder-chat")
    commit = platform.git.edit("serving/coder-chat/deployment.yaml", "--max-model-len=16384", "--max-model-len=8192")
    await platform.refresh("coder-chat")

    async def out_of_sync() -> bool:
        return bool((await platform.application("coder-chat"))["status"]["sync"]["status"] == "OutOfSync")

    await wait_until(out_of_sync)
    await platform.sync("coder-chat", commit)

    async def synced() -> bool:
        status = (await platform.application("coder-chat"))["status"]
        return bool(status["operationState"]["phase"] == "Succeeded" and status["sync"]["status"] == "Synced")

    await wait_until(synced)
    assert "operation" not in await platform.application("coder-chat")

    async def restarted() -> bool:
        pods = await platform.pods("coder-chat")
        return [p.metadata.name for p in pods] != [before.metadata.name] and await platform.ready("coder-chat")

    await wait_until(restarted)
    [pod] = await platform.pods("coder-chat")
    assert "--max-model-len=8192" in pod.spec.containers[0].args


async def test_a_failed_sync_has_the_reason(platform: Platform) -> None:
    """The fault sync-fails ends an operation as Failed, with the admission webhook's message."""
    platform.faults.add("sync-fails")
    await platform.sync("coder-chat", platform.git.head)

    async def failed() -> bool:
        return bool((await platform.application("coder-chat"))["status"]["operationState"]["phase"] == "Failed")

    await wait_until(failed)
    message = (await platform.application("coder-chat"))["status"]["operationState"]["message"]
    assert "denied the request" in message


async def test_litellm_is_synced_automatically(platform: Platform) -> None:
    """An automated Application syncs without a request, and its config has the values at that commit."""
    platform.git.edit("platform/litellm/values.yaml", "model_name: coder-chat", "model_name: coder-talk")
    await platform.refresh("litellm")

    async def synced() -> bool:
        config = await platform.core.read_namespaced_config_map("litellm-config", "litellm")
        return "coder-talk" in config.data["config"]

    await wait_until(synced)


async def test_applications_come_and_go_with_their_files(platform: Platform) -> None:
    """A new file in the catalog becomes an OutOfSync Application; if the file is removed, the Application and its objects are deleted."""
    catalog = "clusters/ai-dev/catalog/coding-assistant"
    text = (await platform.git.files_at(platform.git.head, catalog))[f"{catalog}/coder-chat.yaml"]
    platform.git.add(f"{catalog}/coder-mini.yaml", text.replace("coder-chat", "coder-mini"))
    platform.git.remove(f"{catalog}/coder-fim.yaml")
    await platform.refresh("coder-chat")

    async def applications_changed() -> bool:
        applications = await platform.custom.list_namespaced_custom_object(
            "argoproj.io", "v1alpha1", "argocd", "applications"
        )
        names = {app["metadata"]["name"] for app in applications["items"]}
        return "coder-mini" in names and "coder-fim" not in names

    await wait_until(applications_changed)
    with pytest.raises(client.exceptions.ApiException, match="404"):
        await platform.apps.read_namespaced_deployment("coder-fim", "serving")


async def test_a_watch_resumes_and_expires(platform: Platform) -> None:
    """A watch continues from a resource version, and a forgotten one is answered with 410."""
    listed = await platform.apps.list_namespaced_deployment("serving")
    version = listed.metadata.resource_version
    await platform.scale("coder-chat", 1)
    async with WATCH() as stream:
        source = platform.apps.list_namespaced_deployment
        async for event in stream.stream(source, "serving", resource_version=version, timeout_seconds=5):
            assert event["object"].metadata.name == "coder-chat"
            break

    platform.cluster.store.compact()
    async with WATCH() as stream:
        source = platform.apps.list_namespaced_deployment
        with pytest.raises(client.exceptions.ApiException, match="410"):
            async for _ in stream.stream(source, "serving", resource_version=version, timeout_seconds=5):
                pass


async def test_a_write_with_an_old_version_conflicts(platform: Platform) -> None:
    """If two clients write one object, the second one, which has the old version, is refused with 409."""
    stale = await platform.apps.read_namespaced_deployment("coder-chat", "serving")
    await platform.scale("coder-chat", 1)
    with pytest.raises(client.exceptions.ApiException, match="409"):
        await platform.apps.replace_namespaced_deployment("coder-chat", "serving", stale)


async def test_requests_without_a_token_are_refused(platform: Platform) -> None:
    """Without the token every request gets 401; a kubeconfig's address contains the token, because kubectl sends none over HTTP."""
    api = platform.cluster.api
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{api.url}/api/v1/pods")).status_code == httpx.codes.UNAUTHORIZED
        assert (await http.get(f"{api.url}/as/wrong/api/v1/pods")).status_code == httpx.codes.UNAUTHORIZED
        pods = (await http.get(f"{api.url}/as/{api.token}/api/v1/pods")).json()
        assert pods["kind"] == "PodList"


async def test_the_kubeconfig_opens_the_api(platform: Platform, tmp_path: Path) -> None:
    """The official client needs only the kubeconfig to read the cluster."""
    api = await CONFIG.new_client_from_config(str(platform.cluster.kubeconfig(tmp_path / "kubeconfig")))
    async with api:
        assert (await client.AppsV1Api(api).list_namespaced_deployment("serving")).items
        review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
        answer: Any = await client.AuthorizationV1Api(api).create_self_subject_access_review(review)
        assert answer.status.allowed


async def test_a_claim_never_shrinks(platform: Platform) -> None:
    """A sync that would make a PVC smaller fails with the API server's message."""
    commit = platform.git.edit("serving/coder-chat/pvc.yaml", "storage: 20Gi", "storage: 1Gi")
    await platform.sync("coder-chat", commit)

    async def failed() -> bool:
        return bool((await platform.application("coder-chat"))["status"]["operationState"]["phase"] == "Failed")

    await wait_until(failed)
    message = (await platform.application("coder-chat"))["status"]["operationState"]["message"]
    assert "can not be less than status.capacity" in message


async def test_a_key_of_the_settings_is_in_the_secret_that_the_sample_has_too() -> None:
    """The settings may name another field of the usual Secret, because LiteLLM's documentation names both fields."""
    keys = {"master": {"namespace": "litellm", "name": "litellm-secrets", "field": "LITELLM_MASTER_KEY"}}
    async with KubernetesAPI() as api, Cluster(api, MemoryGit(), SPEED, Faults(), keys=keys) as cluster:
        data = (cluster.store.get("Secret", "litellm-secrets", "litellm") or {})["data"]
    assert data["LITELLM_MASTER_KEY"] == data["PROXY_MASTER_KEY"]


async def test_a_job_of_the_platform_completes_unless_it_is_suspended(platform: Platform) -> None:
    """The template of the Job needs no metadata and no deadline."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "train", "image": "acme/train"}]}}
    for name, suspend in (("train", False), ("later", True)):
        meta = {"name": name, "namespace": "serving"}
        platform.cluster.store.create(
            {"kind": "Job", "metadata": meta, "spec": {"suspend": suspend, "template": template}}
        )

    async def completed() -> bool:
        return bool((platform.cluster.store.get("Job", "train", "serving") or {}).get("status", {}).get("succeeded"))

    await wait_until(completed)
    assert not (platform.cluster.store.get("Job", "later", "serving") or {}).get("status")
