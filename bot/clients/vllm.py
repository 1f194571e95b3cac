"""Client for one model server: health, served names, trial request, usage metrics.

Uses vLLM's OpenAI-compatible API (0.32), which llama.cpp's server and SGLang also have. For CPU embeddings, it uses the
API of text-embeddings-inference (TEI). Paths and metrics of each engine are in `manifests/engines`.
"""

import math
import re
import time
from contextlib import aclosing
from typing import Any, Literal

import httpx
from pydantic import BaseModel, SecretStr

from bot.clients.http import (
    MIB,
    Limit,
    bearer,
    body,
    count,
    decoded,
    error_message,
    parse_json,
    refuse_if_busy,
    send,
    stream_lines,
    within,
)
from bot.domain.sessions import Activity
from bot.errors import BotError, Unavailable
from manifests.engines import Signal, engines

SYSTEM = "vLLM"
Kind = Literal["chat", "completion", "embedding", "rerank"]

RERANK = "/v1/rerank"
"""The path for rerankers of vLLM and of LiteLLM."""

# The first request after a start may compile kernels. Later requests take one or two seconds.
ANSWER_TIMEOUT = httpx.Timeout(10.0, read=120.0)
ANSWER_LIMIT = Limit(size=MIB, seconds=150.0)
# Enough tokens to measure the speed, and few enough for one or two seconds. At temperature 0 the answer is always the
# same for the same model, engine and machine.
_MAX_TOKENS = 48
_DETERMINISTIC = {"max_tokens": _MAX_TOKENS, "temperature": 0, "seed": 0}
_EXTRA_CHUNKS = 16
"""Maximum chunks of a stream besides one per token: the role at the beginning, the usage at the end, and a margin."""

_METRICS_LIMIT = Limit(size=4 * MIB, seconds=10.0)
"""Limit of an answer to /metrics: vLLM 0.32 writes about 100 KB. Parsing 4 MB blocks the event loop for 50 ms."""

# Fill-in-the-middle prompts of base models, by parts of their names. vLLM does not support the parameter `suffix`.
_FIM = (
    (("starcoder", "granite", "smollm"), "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"),
    (("deepseek-coder",), "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>"),
    (("codellama",), "<PRE> {prefix} <SUF>{suffix} <MID>"),
    (("codestral",), "[SUFFIX]{suffix}[PREFIX]{prefix}"),
    (("qwen2.5-coder", "qwen3-coder", "codegemma"), "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"),
)

SIGNALS: dict[str, Signal] = {name: signal for engine in engines() for name, signal in engine.signals.items()}
"""The usage signal of each sample in /metrics, for every engine."""


class Answer(BaseModel, frozen=True, defer_build=True):
    """The model's answer to the trial request. `first_token_seconds` is None for embeddings and rankings."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    first_token_seconds: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """The speed of generation, without the first token, because its time includes reading the prompt."""
        if self.first_token_seconds is None or self.completion_tokens < 2 or self.seconds <= self.first_token_seconds:
            return None
        return (self.completion_tokens - 1) / (self.seconds - self.first_token_seconds)


class VLLM:
    """Sends requests to the model servers of the cluster. Each server is addressed by its Service."""

    def __init__(self, http: httpx.AsyncClient, url_template: str) -> None:
        self._http = http
        self._url_template = url_template

    def url(self, service: str, namespace: str, port: int) -> str:
        """The URL of one server, e.g. `http://coder-chat.serving.svc:8000`."""
        return self._url_template.format(service=service, namespace=namespace, port=port).rstrip("/")

    async def health(self, url: str, path: str = "/health") -> bool:
        """Return whether the server answers 200; an unreachable server is not healthy."""
        try:
            return (await send(self._http, SYSTEM, "GET", f"{url}{path}")).status_code == httpx.codes.OK
        except Unavailable:
            return False

    async def models(self, url: str, key: SecretStr | None) -> tuple[str, ...]:
        """The names that the server answers to."""
        response = await send(self._http, SYSTEM, "GET", f"{url}/v1/models", headers=bearer(key))
        _refuse(response)
        return model_ids(body(response))

    async def refuses_keyless(self, url: str, path: str = "/v1/models") -> bool:
        """Return whether a request without a key is refused."""
        response = await send(self._http, SYSTEM, "GET", f"{url}{path}")
        refuse_if_busy(SYSTEM, response)
        return response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)

    async def ask(
        self,
        url: str,
        key: SecretStr | None,
        model: str,
        kind: Kind,
        *,
        prompt: str | None = None,
        reranks_at: str = RERANK,
    ) -> Answer:
        """Send one small request of the endpoint's kind. Chat and completion are streamed, to time the first token.

        `prompt` replaces the fixed text to complete; `reranks_at` is the engine's path for rerankers.
        """
        path, question = trial_request(kind, model)
        if kind == "rerank" and reranks_at != RERANK:  # the API of text-embeddings-inference
            path, question = reranks_at, {"query": question["query"], "texts": question["documents"]}
        if prompt is not None:
            question |= {"prompt": prompt}
        if kind in ("embedding", "rerank"):
            return await self._ask_pooling(f"{url}{path}", key, question)
        question |= {"stream": True, "stream_options": {"include_usage": True}}
        return await self._stream(f"{url}{path}", key, question)

    async def activity(self, url: str) -> Activity:
        """The current usage signals. Raises Unavailable if they cannot be read, so that a model with unknown usage does not
        count as idle.
        """
        response = await send(
            self._http, SYSTEM, "GET", f"{url}/metrics", limit=_METRICS_LIMIT, subject="vLLM's answer to /metrics"
        )
        if response.status_code == httpx.codes.NOT_IMPLEMENTED:  # llama.cpp without --metrics
            return await self._slots(url)
        _refuse(response)
        return signals(response.text)

    async def _slots(self, url: str) -> Activity:
        """The usage signals from llama.cpp's /slots: the number of busy slots, and the id of the last task as the number
        of requests (tools/server/README.md).
        """
        response = await send(self._http, "llama.cpp", "GET", f"{url}/slots", limit=_METRICS_LIMIT, subject="/slots")
        _refuse(response)
        slots = parse_json(response.text)
        if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
            raise Unavailable("llama.cpp", "/slots is not a list of slots")
        last = max((amount("llama.cpp", "id_task", max(0, count(slot.get("id_task")))) for slot in slots), default=0.0)
        return Activity(running=sum(slot.get("is_processing") is True for slot in slots), requests=last)

    async def _ask_pooling(self, url: str, key: SecretStr | None, question: dict[str, Any]) -> Answer:
        start = time.perf_counter()
        response = await send(
            self._http,
            SYSTEM,
            "POST",
            url,
            json=question,
            headers=bearer(key),
            timeout=ANSWER_TIMEOUT,
            limit=ANSWER_LIMIT,
        )
        _refuse(response)
        answer = _rankings(response)
        return Answer(
            text=pooled(answer),
            prompt_tokens=_tokens(answer, "prompt_tokens") or _tokens(answer, "total_tokens"),
            completion_tokens=0,
            seconds=time.perf_counter() - start,
            first_token_seconds=None,
        )

    async def _stream(self, url: str, key: SecretStr | None, question: dict[str, Any]) -> Answer:
        start = time.perf_counter()
        first: float | None = None
        text = ""
        last: dict[str, Any] = {}
        options = {"json": question, "headers": bearer(key), "timeout": ANSWER_TIMEOUT}
        lines = stream_lines(
            self._http, SYSTEM, "POST", url, refuse=_refuse, limit=ANSWER_LIMIT, subject="The model's answer", **options
        )
        async with within(SYSTEM, ANSWER_LIMIT.seconds), aclosing(lines):
            chunks = 0
            async for line in lines:
                if (chunk := _event(line)) is None:
                    continue
                chunks += 1
                if chunks > _MAX_TOKENS + _EXTRA_CHUNKS:
                    raise BotError(
                        f"The model does not stop at the {_MAX_TOKENS} requested tokens (max_tokens): "
                        "its answer was cut off."
                    )
                if piece := _text_of(chunk):
                    first = first if first is not None else time.perf_counter() - start
                    text += piece
                last = chunk if chunk.get("usage") else last
        return Answer(
            text=text,
            prompt_tokens=_tokens(last, "prompt_tokens"),
            completion_tokens=_tokens(last, "completion_tokens"),
            seconds=time.perf_counter() - start,
            first_token_seconds=first,
        )


def model_ids(answer: dict[str, Any]) -> tuple[str, ...]:
    """The names in an answer to /v1/models."""
    listed = answer.get("data")
    models = listed if isinstance(listed, list) else []
    return tuple(str(model["id"])[:500] for model in models if isinstance(model, dict) and "id" in model)


def trial_request(kind: Kind, model: str) -> tuple[str, dict[str, Any]]:
    """The path and the body of the smallest request that tests an endpoint of this kind."""
    match kind:
        case "chat":
            messages = [{"role": "user", "content": "Say hello in one short sentence."}]
            return "/v1/chat/completions", {"model": model, "messages": messages} | _DETERMINISTIC
        case "completion":
            prompt = "def add(a, b):\n    return"
            return "/v1/completions", {"model": model, "prompt": prompt} | _DETERMINISTIC
        case "embedding":
            return "/v1/embeddings", {"model": model, "input": "hello"}
        case "rerank":
            documents = ["A GPU multiplies matrices.", "Bread is baked in an oven."]
            return RERANK, {"model": model, "query": "What does a GPU do?", "documents": documents}


def fim_prompt(model: str) -> str | None:
    """A prompt with a missing middle, in the tokens of the model's family; None for other families."""
    name = model.lower()
    for families, template in _FIM:
        if any(family in name for family in families):
            return template.format(prefix="def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))\n")
    return None


def signals(metrics: str) -> Activity:
    """The usage signals in Prometheus' text format; raises Unavailable if a signal is not a valid number.

    Only the required lines are parsed: the whole text of a server with many adapters would take seconds.
    """
    series: dict[str, float] = {}
    for line in metrics.split("\n"):
        if not line.startswith(_PREFIXES) or (sample := _SAMPLE.match(line, 0, _LINE)) is None:
            continue
        name, labels, text = sample.groups()
        if name in SIGNALS:
            series[f"{name}{labels}"] = amount(SYSTEM, name, text)  # a repeated series counts once
    if not series:
        raise Unavailable(SYSTEM, "/metrics has no request counters")
    totals: dict[str, float] = {}
    for labelled_name, value in series.items():
        field = SIGNALS[labelled_name.partition("{")[0]]
        totals[field] = totals.get(field, 0) + value
    return Activity(**totals)


_PREFIXES = tuple(SIGNALS)
_LINE = 16 * 1024
# name{label="value",…} number [time]; a label's value may contain any character, escaped (prometheus.io/docs: text
# format).
_SAMPLE = re.compile(r"""([a-z_:]+)(|\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})[ \t]+([^ \t]+)(?:[ \t]+-?\d+)?[ \t]*$""")


def amount(system: str, name: str, value: object) -> float:
    """Parse the value of a gauge or counter. Raises Unavailable if it is not between zero and 2^53, the largest exact
    integer of a float.
    """
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 2**53:
        raise Unavailable(system, f"its {name} is {str(value)[:40]}, which is not a number of requests or tokens")
    return number


def _event(line: str) -> dict[str, Any] | None:
    """The JSON object in a line of a stream of server-sent events; None for other lines and for `[DONE]`."""
    if not line.startswith("data:") or (payload := line.removeprefix("data:").strip()) == "[DONE]":
        return None
    try:
        event = parse_json(payload)
    except ValueError as error:
        raise Unavailable(SYSTEM, "the stream of the answer is broken") from error
    if not isinstance(event, dict):
        return None
    if failure := event.get("error"):  # vLLM has already sent status 200
        raise BotError(f"vLLM's answer was interrupted: {str(failure)[:500]}.")
    return event


def _tokens(answer: dict[str, Any], field: str) -> int:
    usage = answer.get("usage")
    return count(usage.get(field)) if isinstance(usage, dict) else 0


def _rankings(response: httpx.Response) -> dict[str, Any]:
    """The answer as an object with `results`, even if text-embeddings-inference returns a list (`[{"index": 0, "score":
    0.9}]`).
    """
    listed = decoded(SYSTEM, response)
    return {"results": listed} if isinstance(listed, list) else body(response)


def pooled(answer: dict[str, Any]) -> str:
    """A description of an embedding or a ranking."""
    results = answer.get("results")
    if isinstance(results, list):
        return f"{len(results)} texts ranked"
    return dimensions(answer)


def dimensions(answer: dict[str, Any]) -> str:
    """A description of an embedding."""
    data = answer.get("data")
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    return f"{len(vector) if isinstance(vector, list) else 0} dimensions"


def _text_of(chunk: dict[str, Any]) -> str:
    """The text of one chunk, including the reasoning of a reasoning model."""
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return ""
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    return str(choice.get("text") or delta.get("content") or delta.get("reasoning") or "")


def _refuse(response: httpx.Response) -> None:
    if response.is_success:
        return
    refuse_if_busy(SYSTEM, response)
    raise BotError(f"vLLM refused the request: {error_message(response)}.")
