"""The model servers and the gateway from their clients' view."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandbox.cluster import Cluster, is_ready
from sandbox.faults import Faults
from sandbox.kubernetes import KubernetesAPI
from sandbox.serving import Serving
from tests.sandbox.platform_git import MemoryGit

CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
PROMPT = {"prompt": "def add(a, b):", "max_tokens": 8}


class Models:
    """The sample platform's serving, and an HTTP client in front of it."""

    def __init__(self, cluster: Cluster, serving: Serving, faults: Faults, http: httpx.AsyncClient) -> None:
        self.cluster, self.serving, self.faults, self._http = cluster, serving, faults, http

    def key(self, namespace: str, secret: str, field: str) -> str:
        manifest = self.cluster.store.get("Secret", secret, namespace)
        return b64decode(manifest["data"][field]).decode() if manifest else ""

    async def engine(self, path: str, body: Any = None, *, name: str = "coder-chat", keyed: bool = True) -> Any:
        url = self.serving.vllm_url_template.format(namespace="serving", service=name, port=8000) + path
        key = self.key("serving", "vllm-api-key", "api-key")
        headers = {"Authorization": f"Bearer {key}"} if keyed else {}
        return await self._http.request("POST" if body else "GET", url, json=body, headers=headers)

    async def gateway(self, path: str, body: Any = None, key: str = "") -> httpx.Response:
        key = key or self.key("litellm", "litellm-secrets", "PROXY_MASTER_KEY")
        url = self.serving.litellm_url + path
        headers = {"Authorization": f"Bearer {key}"}
        return await self._http.request("POST" if body else "GET", url, json=body, headers=headers)

    async def mint(self, **options: Any) -> str:
        answer = await self.gateway("/key/generate", {"models": ["coder-chat"], "duration": "5m", **options})
        return str(answer.json()["key"])

    async def up(self, name: str) -> None:
        await self.cluster.scale(name, 1)
        await self.ready(name)

    async def ready(self, name: str) -> None:
        async with asyncio.timeout(90):
            labels = f"app.kubernetes.io/name={name}"
            while not any(is_ready(pod) for pod in self.cluster.store.find("Pod", "serving", labels=labels)):
                await self.cluster.store.changed(self.cluster.store.version)


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    faults = Faults()
    async with (
        KubernetesAPI() as api,
        Cluster(api, MemoryGit(), 3000, faults) as cluster,
        Serving(cluster, faults) as serving,
        httpx.AsyncClient() as http,
    ):
        yield Models(cluster, serving, faults, http)


async def test_nothing_answers_before_the_pod_is_ready(models: Models) -> None:
    """A Service without a ready pod refuses every request."""
    assert (await models.engine("/health")).status_code == httpx.codes.SERVICE_UNAVAILABLE
    await models.up("coder-chat")
    assert (await models.engine("/health")).status_code == httpx.codes.OK


async def test_a_chat_model_answers_only_with_the_key(models: Models) -> None:
    """The served name is listed and answers; without a key, or with another name, the request is refused as by a real vLLM."""
    await models.up("coder-chat")

    listed = (await models.engine("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["qwen2.5-coder-7b-instruct"]
    answer = await models.engine("/v1/chat/completions", CHAT | {"model": "qwen2.5-coder-7b-instruct"})
    assert answer.json()["usage"]["completion_tokens"] == 8
    keyless = await models.engine("/v1/models", keyed=False)
    assert (keyless.status_code, keyless.json()) == (401, {"error": "Unauthorized"})
    unknown = await models.engine("/v1/chat/completions", CHAT | {"model": "nope"})
    assert unknown.status_code == httpx.codes.NOT_FOUND
    assert unknown.json()["error"]["type"] == "NotFoundError"


async def test_a_stream_ends_with_its_usage(models: Models) -> None:
    """With `include_usage` the last event before [DONE] counts the tokens."""
    await models.up("coder-chat")
    options = {"model": "qwen2.5-coder-7b-instruct", "stream": True, "stream_options": {"include_usage": True}}

    lines = (await models.engine("/v1/chat/completions", CHAT | options)).text.split("\n\n")

    assert lines[-2] == "data: [DONE]"
    assert '"completion_tokens": 8' in lines[-3]


async def test_only_completions_move_the_counters(models: Models) -> None:
    """A completion is activity; /health and /v1/models are not."""
    await models.up("coder-chat")
    await models.engine("/v1/models")
    success = 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="qwen2.5-coder-7b-instruct"}'
    assert f"{success} 0.0" in (await models.engine("/metrics", keyed=False)).text

    await models.engine("/v1/completions", PROMPT | {"model": "qwen2.5-coder-7b-instruct"})

    assert f"{success} 1.0" in (await models.engine("/metrics", keyed=False)).text


async def test_a_base_model_does_not_chat(models: Models) -> None:
    """The FIM model answers completions, and refuses a chat with 400."""
    await models.up("coder-fim")
    name = {"model": "qwen2.5-coder-1.5b"}
    assert (await models.engine("/v1/completions", PROMPT | name, name="coder-fim")).status_code == httpx.codes.OK
    refused = await models.engine("/v1/chat/completions", CHAT | name, name="coder-fim")
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert "chat template" in refused.json()["error"]["message"]


async def test_embeddings_answer_without_a_key(models: Models) -> None:
    """The CPU model runs on TEI, which needs no key and returns vectors, but no chat."""
    await models.ready("embeddings")
    answer = await models.engine("/v1/embeddings", {"input": "hello", "model": "x"}, name="embeddings", keyed=False)
    assert len(answer.json()["data"][0]["embedding"]) == 768


@pytest.mark.parametrize(
    ("fault", "path", "status"), [("smoke-fails", "/v1/completions", 500), ("metrics-down", "", 503)]
)
async def test_faults_of_an_engine(models: Models, fault: str, path: str, status: int) -> None:
    """A broken engine answers 500 to completions, and broken metrics answer 503; /health still answers 200."""
    await models.up("coder-chat")
    models.faults.add(fault)
    body = PROMPT | {"model": "qwen2.5-coder-7b-instruct"}
    broken = await (models.engine(path, body) if path else models.engine("/metrics"))
    assert broken.status_code == status
    assert (await models.engine("/health")).status_code == httpx.codes.OK


async def test_a_virtual_key_calls_its_alias_and_pays(models: Models) -> None:
    """A request with a new key gets an answer with its cost, and the key's spend increases shortly after."""
    await models.up("coder-chat")
    key = await models.mint(max_budget=0.01)

    answer = await models.gateway("/v1/chat/completions", CHAT | {"model": "coder-chat"}, key)

    usage, cost = answer.json()["usage"], float(answer.headers["x-litellm-response-cost"])
    assert cost == pytest.approx(usage["prompt_tokens"] * 0.0000005 + usage["completion_tokens"] * 0.0000015)
    assert answer.json()["model"] == "coder-chat"
    async with asyncio.timeout(90):
        while not (await models.gateway("/key/info", key=key)).json()["info"]["spend"]:
            await asyncio.sleep(0.05)


async def test_a_key_reaches_no_other_alias_and_not_beyond_its_budget(models: Models) -> None:
    """Another alias gets 403, an exceeded budget 400, and a deleted key 401."""
    await models.up("coder-chat")
    key, poor = await models.mint(), await models.mint(max_budget=0)

    refused = await models.gateway("/v1/completions", PROMPT | {"model": "coder-fim"}, key)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "key_model_access_denied")
    spent = await models.gateway("/v1/chat/completions", CHAT | {"model": "coder-chat"}, poor)
    assert (spent.status_code, spent.json()["error"]["type"]) == (400, "budget_exceeded")
    await models.gateway("/key/delete", {"keys": [key]})
    deleted = await models.gateway("/v1/chat/completions", CHAT | {"model": "coder-chat"}, key)
    assert deleted.status_code == httpx.codes.UNAUTHORIZED


async def test_a_gateway_that_is_down_answers_nothing(models: Models) -> None:
    """With the fault litellm-down, even /health/liveliness does not answer."""
    assert (await models.gateway("/health/liveliness")).status_code == httpx.codes.OK
    models.faults.add("litellm-down")
    assert (await models.gateway("/health/liveliness")).status_code == httpx.codes.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("name", "counter"), [("coder-chat", "vllm:request_success_total"), ("embeddings", "te_request")]
)
async def test_traffic_increases_the_counters(models: Models, name: str, counter: str) -> None:
    """Traffic goes through the gateway to the engine, whose counters move."""
    await (models.up(name) if name == "coder-chat" else models.ready(name))
    await models.serving.traffic(name, 100, 0.05)
    metrics = (await models.engine("/metrics", name=name)).text
    assert any(line.startswith(counter) and line.endswith((" 5.0", " 5")) for line in metrics.splitlines())
    with pytest.raises(LookupError, match="has no alias nobody"):
        await models.serving.traffic("nobody", 1, 1)
