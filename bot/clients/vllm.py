"""A running model, asked directly: is it well, what does it serve, does it answer, is anybody using it.

Speaks vLLM's OpenAI-compatible API (0.32) and, for CPU embeddings, that of text-embeddings-inference (TEI).
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, SecretStr

from bot.clients.http import bearer, body, error_message, refuse_if_busy, send, unreachable
from bot.domain import Activity
from bot.errors import BotError, Unavailable

SYSTEM = "vLLM"
Kind = Literal["chat", "completion", "embedding"]

# The first request after a start may compile kernels; later ones answer within a second or two.
ANSWER_TIMEOUT = httpx.Timeout(10.0, read=120.0)
# Enough to tell how fast tokens come, and few enough for a second or two. At temperature 0 the answer is the same
# each time, as long as the model, the engine and the machine are.
_SAME_EACH_TIME = {"max_tokens": 48, "temperature": 0, "seed": 0}

# How base models are asked to fill in the middle, by what their names hold: vLLM's `suffix` is not for them.
_FIM = (
    (("starcoder", "granite", "smollm"), "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"),
    (("deepseek-coder",), "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>"),
    (("codellama",), "<PRE> {prefix} <SUF>{suffix} <MID>"),
    (("codestral",), "[SUFFIX]{suffix}[PREFIX]{prefix}"),
    (("qwen2.5-coder", "qwen3-coder", "codegemma"), "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"),
)

# Which samples of /metrics feed which field; the last two are TEI's. The parser ends every counter's name in `_total`.
SIGNALS = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:request_success_total": "requests",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
    "te_request_count_total": "requests",
    "te_queue_size": "waiting",
}


class Answer(BaseModel, frozen=True):
    """What the model said to the trial request. `first_token_seconds` is unknown for embeddings."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    first_token_seconds: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """The speed of generation, without the first token, which waits for the prompt to be read."""
        if self.first_token_seconds is None or self.completion_tokens < 2 or self.seconds <= self.first_token_seconds:
            return None
        return (self.completion_tokens - 1) / (self.seconds - self.first_token_seconds)


class VLLM:
    """Every model server of the cluster, found by its Service."""

    def __init__(self, http: httpx.AsyncClient, url_template: str) -> None:
        self._http = http
        self._url_template = url_template

    def url(self, service: str, namespace: str, port: int) -> str:
        """The address of one server, e.g. `http://coder-chat.serving.svc:8000`."""
        return self._url_template.format(service=service, namespace=namespace, port=port).rstrip("/")

    async def health(self, url: str) -> bool:
        """Whether /health answers 200; a server that cannot be reached is not healthy."""
        try:
            return (await send(self._http, SYSTEM, "GET", f"{url}/health")).status_code == httpx.codes.OK
        except Unavailable:
            return False

    async def models(self, url: str, key: SecretStr | None) -> tuple[str, ...]:
        """The names that the server answers to."""
        response = await send(self._http, SYSTEM, "GET", f"{url}/v1/models", headers=bearer(key))
        _refuse(response)
        return tuple(str(model["id"]) for model in body(response).get("data", []))

    async def refuses_keyless(self, url: str) -> bool:
        """Whether a request without a key is turned away."""
        response = await send(self._http, SYSTEM, "GET", f"{url}/v1/models")
        refuse_if_busy(SYSTEM, response)
        return response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)

    async def ask(
        self, url: str, key: SecretStr | None, model: str, kind: Kind, *, prompt: str | None = None
    ) -> Answer:
        """One small request of the endpoint's kind; chat and completion are streamed, to time the first token.

        `prompt` is what is to be completed instead of the fixed one.
        """
        path, question = trial_request(kind, model)
        if prompt is not None:
            question |= {"prompt": prompt}
        if kind == "embedding":
            return await self._embed(f"{url}{path}", key, question)
        question |= {"stream": True, "stream_options": {"include_usage": True}}
        return await self._stream(f"{url}{path}", key, question)

    async def activity(self, url: str) -> Activity:
        """The signals of use now. A server without any of them is Unavailable: unknown must not look idle."""
        response = await send(self._http, SYSTEM, "GET", f"{url}/metrics")
        _refuse(response)
        try:
            samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
        except ValueError as error:
            raise Unavailable(SYSTEM, "/metrics is not in Prometheus' text format") from error
        totals: dict[str, float] = {}
        for sample in samples:
            if field := SIGNALS.get(sample.name):
                totals[field] = totals.get(field, 0) + sample.value
        if not totals:
            raise Unavailable(SYSTEM, "/metrics has no request counters")
        return Activity(**totals)

    async def _embed(self, url: str, key: SecretStr | None, question: dict[str, Any]) -> Answer:
        start = time.perf_counter()
        response = await send(
            self._http, SYSTEM, "POST", url, json=question, headers=bearer(key), timeout=ANSWER_TIMEOUT
        )
        _refuse(response)
        answer = body(response)
        vectors = answer.get("data") or [{}]
        return Answer(
            text=f"{len(vectors[0].get('embedding', ()))} dimensions",
            prompt_tokens=(answer.get("usage") or {}).get("prompt_tokens", 0),
            completion_tokens=0,
            seconds=time.perf_counter() - start,
            first_token_seconds=None,
        )

    async def _stream(self, url: str, key: SecretStr | None, question: dict[str, Any]) -> Answer:
        start = time.perf_counter()
        first: float | None = None
        text = ""
        usage: dict[str, int] = {}
        try:
            async with self._http.stream(
                "POST", url, json=question, headers=bearer(key), timeout=ANSWER_TIMEOUT
            ) as response:
                if not response.is_success:
                    await response.aread()
                    _refuse(response)
                async for chunk in _events(response):
                    if said := _said(chunk):
                        first = first if first is not None else time.perf_counter() - start
                        text += said
                    usage = chunk.get("usage") or usage
        except httpx.RequestError as error:
            raise unreachable(SYSTEM, error) from error
        return Answer(
            text=text,
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            seconds=time.perf_counter() - start,
            first_token_seconds=first,
        )


def trial_request(kind: Kind, model: str) -> tuple[str, dict[str, Any]]:
    """The path and the body of the smallest request that proves an endpoint of this kind."""
    match kind:
        case "chat":
            messages = [{"role": "user", "content": "Say hello in one short sentence."}]
            return "/v1/chat/completions", {"model": model, "messages": messages} | _SAME_EACH_TIME
        case "completion":
            prompt = "def add(a, b):\n    return"
            return "/v1/completions", {"model": model, "prompt": prompt} | _SAME_EACH_TIME
        case "embedding":
            return "/v1/embeddings", {"model": model, "input": "hello"}


def fim_prompt(model: str) -> str | None:
    """A prompt whose middle is missing, in the tokens of the model's family; None for a family without any."""
    name = model.lower()
    for families, template in _FIM:
        if any(family in name for family in families):
            return template.format(prefix="def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))\n")
    return None


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to `[DONE]`."""
    async for line in response.aiter_lines():
        if not line.startswith("data:") or (payload := line.removeprefix("data:").strip()) == "[DONE]":
            continue
        try:
            event = json.loads(payload)
        except ValueError as error:
            raise Unavailable(SYSTEM, "the stream of the answer is broken") from error
        if isinstance(event, dict):
            if failure := event.get("error"):  # vLLM has sent its 200 by then
                raise BotError(f"vLLM broke off its answer: {str(failure)[:500]}.")
            yield event


def _said(chunk: dict[str, Any]) -> str:
    """The text of one chunk; a reasoning model's thoughts are tokens too."""
    choices = chunk.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return choices[0].get("text") or delta.get("content") or delta.get("reasoning") or ""


def _refuse(response: httpx.Response) -> None:
    if response.is_success:
        return
    refuse_if_busy(SYSTEM, response)
    raise BotError(f"vLLM refused the request: {error_message(response)}.")
