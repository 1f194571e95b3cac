"""The bot's own clients read the sandbox like a real platform: the same objects, events, answers and errors."""

import re
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from kubernetes.aio import client
from pydantic import SecretStr

from bot.clients.argocd import ArgoCD
from bot.clients.boot import BootFailed, BootPhase
from bot.clients.cluster import Cluster as ClusterClient
from bot.clients.deployer import SyncFailed
from bot.clients.litellm import LiteLLM
from bot.clients.rights import ENGINE_KEY, MASTER_KEY
from bot.clients.vllm import VLLM
from bot.errors import BotError
from bot.settings.config import Config
from sandbox.cluster import Cluster
from sandbox.faults import Faults
from sandbox.kubernetes import KubernetesAPI
from sandbox.serving import Serving
from tests.clients.kube import time_passes
from tests.sandbox.platform_git import MemoryGit

SPEED = 1500
LONG = 60.0
"""Seconds; at this speed a boot takes about half a second on an idle machine."""


@dataclass(frozen=True)
class Platform:
    """The sandbox's platform, and the bot's clients in front of it."""

    sandbox: Cluster
    git: MemoryGit
    faults: Faults
    cluster: ClusterClient
    argocd: ArgoCD
    vllm: VLLM
    litellm: LiteLLM

    async def boot(self, name: str, *, stays: str = "", stays_with: str = "") -> tuple[BootPhase, ...]:
        """Return the phases of a boot. The boot takes the whole time limit in the phase `stays`, or with the problem `stays_with`."""

        async def progress(phases: tuple[BootPhase, ...]) -> None:
            if phases[-1].phase.key == stays or (stays_with and re.search(stays_with, phases[-1].detail)):
                time_passes(LONG)

        await self.cluster.scale(name, 1, lease="op-1")
        return await self.cluster.wait_ready(name, timeout=LONG, progress=progress)

    async def is_up(self, name: str) -> bool:
        workload = await self.cluster.workload(name)
        return workload is not None and workload.ready_replicas == 1

    def url(self, name: str) -> str:
        return self.vllm.url(name, "serving", 8000)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    git, faults = MemoryGit(), Faults()
    async with (
        KubernetesAPI() as api,
        Cluster(api, git, SPEED, faults) as sandbox,
        Serving(sandbox, faults) as serving,
        httpx.AsyncClient() as http,
        client.ApiClient(
            client.Configuration(host=api.url, api_key={"BearerToken": f"Bearer {api.token}"})
        ) as connection,
    ):
        cluster = ClusterClient(connection, "serving")

        async def master_key() -> SecretStr:
            return await cluster.secret(MASTER_KEY, Config().litellm.master_key)

        yield Platform(
            sandbox, git, faults, cluster, ArgoCD(connection, "argocd", "acme/llm-platform"),
            VLLM(http, serving.vllm_url_template), LiteLLM(http, serving.litellm_url, master_key),
        )  # fmt: skip


async def test_a_boot_shows_its_phases_in_order(platform: Platform) -> None:
    """The bot shows node, image, weights and load from the pod's own conditions and events."""
    phases = await platform.boot("coder-chat")
    assert [boot_phase.phase.key for boot_phase in phases][:4] == [
        "waiting for a node", "pulling the image", "staging weights", "loading",
    ]  # fmt: skip
    workload = await platform.cluster.workload("coder-chat")
    assert workload is not None
    assert (workload.lease, workload.ready_replicas, workload.kind) == ("op-1", 1, "chat")
    assert await platform.cluster.node_of("coder-chat") is not None


async def test_a_boot_without_a_gpu_names_the_holder(platform: Platform) -> None:
    """The scheduler's event only reports that there is no GPU; the bot's client finds the holder."""
    await platform.boot("coder-chat")
    with pytest.raises(BootFailed, match="coder-chat"):
        await platform.boot("coder-fim")
    await platform.cluster.scale("coder-chat", 0, lease=None)
    await platform.cluster.wait_gone("coder-chat", timeout=LONG)
    await platform.boot("coder-fim")
    assert await platform.is_up("coder-fim")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no-stock", "out of resources|no stock|stock"),
        ("no-quota", "quota"),
        ("image-missing", "image"),
        ("hf-429", "429"),
        ("hf-gated", "gated|401|licence"),
        ("oom", "OOM|memory"),
        ("crash", "KV cache"),
    ],
)
async def test_a_boot_that_cannot_succeed_is_diagnosed(platform: Platform, fault: str, words: str) -> None:
    """Each fault looks as it does on a real cluster, so the bot names it, at its time limit at the latest."""
    platform.faults.add(fault)
    with pytest.raises(BootFailed, match=f"(?i){words}"):
        await platform.boot("coder-chat", stays_with=f"(?i){words}")


async def test_a_boot_that_never_gets_ready_ends_at_its_limit(platform: Platform) -> None:
    """The startup probe fails forever; the bot's limit ends it and reports the phase."""
    platform.faults.add("never-ready")
    with pytest.raises(BootFailed, match="loading"):
        await platform.boot("coder-chat", stays="loading")


async def test_weights_in_the_cache_need_no_hub(platform: Platform) -> None:
    """Only a cold cache asks Hugging Face: a second boot succeeds while Hugging Face answers 429."""
    await platform.boot("coder-chat")
    await platform.cluster.scale("coder-chat", 0, lease=None)
    await platform.cluster.wait_gone("coder-chat", timeout=LONG)
    platform.faults.add("hf-429")
    await platform.boot("coder-chat")
    assert await platform.is_up("coder-chat")


async def test_a_sync_is_at_the_requested_commit(platform: Platform) -> None:
    """Main has newer commits; the approved commit is synced, not the newest."""
    path = "serving/coder-chat/deployment.yaml"
    approved = platform.git.edit(path, "--max-model-len=16384", "--max-model-len=8192")
    platform.git.edit(path, "--max-model-len=8192", "--max-model-len=4096")
    await platform.argocd.sync("coder-chat", approved, actor="stoker", timeout=LONG)
    deployment = platform.sandbox.store.get("Deployment", "coder-chat", "serving")
    assert deployment is not None
    assert "--max-model-len=8192" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]


async def test_a_failed_sync_has_argo_cds_message(platform: Platform) -> None:
    """The complete message of an admission webhook reaches the bot, and after a fix the same sync succeeds."""
    commit = platform.git.edit("serving/coder-chat/deployment.yaml", "--max-model-len=16384", "--max-model-len=8192")
    platform.faults.add("sync-fails")
    with pytest.raises(SyncFailed, match="denied the request"):
        await platform.argocd.sync("coder-chat", commit, actor="stoker", timeout=LONG)
    platform.faults.discard("sync-fails")
    synced = await platform.argocd.sync("coder-chat", commit, actor="stoker", timeout=LONG)
    assert synced.synced_at(commit)


async def test_the_cost_gate_is_read_from_the_applications(platform: Platform) -> None:
    """GPU models wait for a requested sync; the CPU model and the gateway follow main."""
    automated = {app.name: app.automated for app in await platform.argocd.list()}
    assert automated == {"coder-chat": False, "coder-fim": False, "embeddings": True, "litellm": True}


async def test_vllm_answers_the_bots_questions(platform: Platform) -> None:
    """It reports its health and the served name, refuses a request without a key, and counts a completion."""
    await platform.boot("coder-chat")
    url, key = platform.url("coder-chat"), await platform.cluster.secret(ENGINE_KEY, Config().vllm.api_key)
    assert await platform.vllm.health(url)
    assert await platform.vllm.models(url, key) == ("qwen2.5-coder-7b-instruct",)
    assert await platform.vllm.refuses_keyless(url)
    before: Any = await platform.vllm.activity(url)
    answer = await platform.vllm.ask(url, key, "qwen2.5-coder-7b-instruct", "chat")
    after: Any = await platform.vllm.activity(url)
    assert answer.completion_tokens > 0
    assert after != before


async def nobody(_: str) -> None:
    """Ignore a key that remains."""


async def test_a_virtual_key_is_deleted_after_its_use(platform: Platform) -> None:
    """A key is created, used for an alias with a price, and deleted; then it is invalid."""
    await platform.boot("coder-chat")
    async with platform.litellm.virtual_key("coder-chat", budget=0.01, duration="10m", on_undeleted=nobody) as key:
        answer = await platform.litellm.ask(key, "coder-chat", "chat")
    assert answer.cost is not None
    assert answer.cost > 0
    with pytest.raises(BotError, match="Invalid proxy server token"):
        await platform.litellm.ask(key, "coder-chat", "chat")


async def test_the_bot_reads_the_key_that_vllm_checks(platform: Platform) -> None:
    """The key in the cluster's Secret is the key that vLLM checks."""
    secret = platform.sandbox.store.get("Secret", "vllm-api-key", "serving")
    assert secret is not None
    key = await platform.cluster.secret(ENGINE_KEY, Config().vllm.api_key)
    assert key.get_secret_value() == b64decode(secret["data"]["api-key"]).decode()
