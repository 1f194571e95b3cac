"""Direct requests to a model server, with the protocols of vLLM 0.32 and TEI."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from bot.clients.vllm import VLLM, Answer, fim_prompt
from bot.domain.sessions import Activity
from bot.errors import BotError, Unavailable
from tests.clients.wire import Wire, client, nobody, wire

KEY = SecretStr("vllm-key-of-this-test")
NAME = "qwen2.5-coder-7b-instruct"

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 1.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 20.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 8.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 3.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
"""

TEI_METRICS = """\
# TYPE te_request_count counter
te_request_count{method="batch"} 5
te_request_count{method="single"} 2

# TYPE te_queue_size gauge
te_queue_size 1
"""


@pytest.fixture
async def server() -> AsyncIterator[Wire]:
    async with wire() as scripted:
        yield scripted


@pytest.fixture
async def vllm() -> AsyncIterator[VLLM]:
    async with client() as http:
        yield VLLM(http, "http://{service}.{namespace}.svc:{port}")


def streams(server: Wire, path: str, *events: str, pause: float = 0.0) -> None:
    async def answer(request: web.Request, body: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY.get_secret_value()}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event}\n\n".encode())
            await asyncio.sleep(pause)
        return response

    server.answers["POST", path] = answer


def test_the_address_comes_from_the_service() -> None:
    """The fields of the URL template are the Service's name, namespace and port."""
    vllm = VLLM(client(), "http://{service}.{namespace}.svc:{port}/")
    assert vllm.url("coder-chat", "serving", 8000) == "http://coder-chat.serving.svc:8000"


async def test_health_is_yes_or_no(server: Wire, vllm: VLLM) -> None:
    """An unreachable server is not healthy: this is a result, not an error."""
    server.on("GET", "/health", text="")
    assert await vllm.health(server.url)
    server.on("GET", "/health", text="", status=503)
    assert not await vllm.health(server.url)
    async with nobody() as url:
        assert not await vllm.health(url)


async def test_models_are_listed_with_the_key(server: Wire, vllm: VLLM) -> None:
    """The key is only in the header."""
    server.on("GET", "/v1/models", {"object": "list", "data": [{"id": NAME}]})
    assert await vllm.models(server.url, KEY) == (NAME,)
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY.get_secret_value()}"


async def test_a_request_without_a_key_is_refused_or_not(server: Wire, vllm: VLLM) -> None:
    """401 is the expected answer; an outage proves nothing."""
    server.on("GET", "/v1/models", {"error": "Unauthorized"}, status=401)
    assert await vllm.refuses_keyless(server.url)
    server.on("GET", "/v1/models", {"data": []})
    assert not await vllm.refuses_keyless(server.url)
    server.on("GET", "/v1/models", {}, status=502)
    with pytest.raises(Unavailable):
        await vllm.refuses_keyless(server.url)


async def test_a_chat_answer_is_streamed_and_timed(server: Wire, vllm: VLLM) -> None:
    """The first chunk contains the role and no token, so it does not stop the clock."""
    streams(
        server,
        "/v1/chat/completions",
        '{"choices": [{"delta": {"role": "assistant", "content": ""}}]}',
        '{"choices": [{"delta": {"reasoning": "Hm. "}}]}',
        '{"choices": [{"delta": {"content": "Hello."}, "finish_reason": "stop"}]}',
        '{"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 8}}',
        "[DONE]",
        pause=0.01,
    )
    answer = await vllm.ask(server.url, KEY, NAME, "chat")
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("Hm. Hello.", 20, 8)
    assert answer.first_token_seconds is not None
    assert 0.01 <= answer.first_token_seconds < answer.seconds
    assert server.requests[0].json["model"] == NAME
    assert server.requests[0].json["stream_options"] == {"include_usage": True}


async def test_a_base_model_completes(server: Wire, vllm: VLLM) -> None:
    """It has no chat template, so the chat API is not used."""
    usage = '{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}'
    streams(server, "/v1/completions", '{"choices": [{"text": " a + b"}]}', usage, "[DONE]")
    answer = await vllm.ask(server.url, KEY, NAME, "completion")
    assert (answer.text, answer.completion_tokens) == (" a + b", 4)


async def test_an_embedding_is_counted_in_dimensions(server: Wire, vllm: VLLM) -> None:
    """There is no key for TEI, no stream and no first token."""
    server.on("POST", "/v1/embeddings", {"data": [{"embedding": [0.1] * 384}], "usage": {"prompt_tokens": 3}})
    answer = await vllm.ask(server.url, None, "bge", "embedding")
    assert (answer.text, answer.prompt_tokens, answer.first_token_seconds) == ("384 dimensions", 3, None)
    assert "Authorization" not in server.requests[0].headers


async def test_a_reranker_of_tei_has_its_own_path(server: Wire, vllm: VLLM) -> None:
    """The request has other field names than vLLM's, and the answer is a list."""
    server.on("POST", "/rerank", [{"index": 0, "score": 0.99}, {"index": 1, "score": 0.01}])
    answer = await vllm.ask(server.url, None, "bge", "rerank", reranks_at="/rerank")
    assert answer.text == "2 texts ranked"
    assert server.requests[0].json.keys() == {"query", "texts"}
    server.on("POST", "/v1/rerank", {"results": [{"index": 0, "relevance_score": 0.9}], "usage": {"total_tokens": 5}})
    answer = await vllm.ask(server.url, KEY, "bge", "rerank")
    assert (answer.text, answer.prompt_tokens) == ("1 texts ranked", 5)


async def test_the_models_error_message_is_reported(server: Wire, vllm: VLLM) -> None:
    """It is reported before the stream and during the stream, and never contains the key."""
    error = {"message": "The model `nope` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
    server.on("POST", "/v1/chat/completions", {"error": error}, status=404)
    with pytest.raises(BotError, match=r"`nope` does not exist") as refusal:
        await vllm.ask(server.url, KEY, "nope", "chat")
    assert KEY.get_secret_value() not in str(refusal.value)
    streams(server, "/v1/chat/completions", '{"error": {"message": "EngineCore died"}}')
    with pytest.raises(BotError, match="EngineCore died"):
        await vllm.ask(server.url, KEY, NAME, "chat")


async def test_an_outage_is_unavailable(server: Wire, vllm: VLLM) -> None:
    """An outage is a temporary status, a closed port, or a stream that is cut in the middle of a line."""
    server.on("POST", "/v1/chat/completions", {}, status=503)
    with pytest.raises(Unavailable, match="503"):
        await vllm.ask(server.url, KEY, NAME, "chat")
    streams(server, "/v1/chat/completions", '{"choices": [')
    with pytest.raises(Unavailable, match="broken"):
        await vllm.ask(server.url, KEY, NAME, "chat")
    async with nobody() as url:
        with pytest.raises(Unavailable):
            await vllm.ask(url, KEY, NAME, "chat")


async def test_activity_adds_up_every_engine(server: Wire, vllm: VLLM) -> None:
    """Engines and finish reasons are summed; gauges with only a similar name are ignored."""
    server.on("GET", "/metrics", text=METRICS)
    activity = await vllm.activity(server.url)
    assert activity == Activity(running=3, waiting=4, requests=5, prompt_tokens=20, generation_tokens=8)
    server.on("GET", "/metrics", text=TEI_METRICS)
    assert await vllm.activity(server.url) == Activity(requests=7, waiting=1)


@pytest.mark.parametrize("text", ["", "<html>", "up 1\n", "vllm:num_requests_running{ 1"])
async def test_metrics_without_the_signals_do_not_look_idle(server: Wire, vllm: VLLM, text: str) -> None:
    """Unknown is not zero."""
    server.on("GET", "/metrics", text=text)
    with pytest.raises(Unavailable):
        await vllm.activity(server.url)


def test_the_speed_counts_the_tokens_after_the_first() -> None:
    """The time of the first token includes reading the prompt; with fewer than two tokens there is no speed."""
    answer = Answer(text="", prompt_tokens=5, completion_tokens=11, seconds=1.5, first_token_seconds=0.5)
    assert answer.tokens_per_second == 10
    assert answer.model_copy(update={"completion_tokens": 1}).tokens_per_second is None
    assert answer.model_copy(update={"first_token_seconds": None}).tokens_per_second is None


@pytest.mark.parametrize(
    ("model", "begins"),
    [
        ("Qwen/Qwen2.5-Coder-1.5B", "<|fim_prefix|>def add"),
        ("bigcode/starcoder2-3b", "<fim_prefix>def add"),
        ("deepseek-ai/deepseek-coder-1.3b-base", "<｜fim▁begin｜>def add"),
        ("codellama/CodeLlama-7b-hf", "<PRE> def add"),
    ],
)
def test_each_family_fills_in_the_middle_in_its_own_tokens(model: str, begins: str) -> None:
    """A family without such tokens gets no such request."""
    prompt = fim_prompt(model)
    assert prompt
    assert prompt.startswith(begins)
    assert fim_prompt("meta-llama/Llama-3-8B") is None
