"""The model servers of the sandbox: vLLM 0.32 (its answers were measured), TEI, and llama.cpp and SGLang (`other_engines`).

A server's name and model come from the arguments of its running pod, so a swap is only visible after a restart.
"""

import asyncio
import json
import re
import secrets
import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sandbox import other_engines
from sandbox.cluster import is_ready
from sandbox.command_line import CommandLine
from sandbox.objects import Object, ObjectStore

_BASE = re.compile(
    r"(?i)-base\b|(^|/)(qwen2|(meta-)?llama-[23]|codellama|starcoder|codegemma|granite-3|gemma-[23]?-?\d+b)[^/]*$"
)
"""Names of base models. In these families, only the chat models have a suffix."""
ANSWER = "Hello there, this is the model speaking ."
FINISHED = ("stop", "length", "abort", "error", "repetition")
DIMENSIONS = 768
DRIP_SECONDS = 5.0
TOKEN_SECONDS = 0.003  # between two streamed tokens
ENGINE_DEAD = {
    "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "type": "InternalServerError",
    "param": None,
    "code": 500,
}


@dataclass
class Counters:
    """Counters of one pod's /metrics since its start."""

    requests: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    running: int = 0


@dataclass
class Engine:
    """The server in one ready pod."""

    command: CommandLine
    counters: Counters = field(default_factory=Counters)

    @property
    def name(self) -> str:
        """The server's type, from the container's command."""
        signs = (("llama.cpp", r"llama[-_.]?(cpp|server)"), ("SGLang", "sglang"), ("TEI", "text-embeddings"))
        by_program = (name for name, sign in signs if re.search(sign, self.command.program, re.IGNORECASE))
        is_kserve = "huggingfaceserver" in self.command.program  # it runs vLLM
        return next(by_program, "TEI" if self.command.values("--model-id") and not is_kserve else "vLLM")

    @property
    def is_tei(self) -> bool:
        return self.name == "TEI"

    @property
    def model(self) -> str:
        flags = ("--model", "--model-id", "--model-path", "--model-dir", "-m", "-hf", "--hf-repo")
        return self.command.value(*flags) or self.command.positional() or "unknown"

    @property
    def served_names(self) -> list[str]:
        """The names that vLLM answers to and lists in /v1/models; the first one is in its answers and metrics."""
        return self.command.values("--served-model-name", "--model-name", "--alias", "-a") or [self.model]

    @property
    def served_name(self) -> str:
        return self.served_names[0]

    @property
    def has_key(self) -> bool:
        """True if the engine requires a key, because it was started with one."""
        key_variables = {"VLLM_API_KEY", "LLAMA_API_KEY"} & self.variables
        return not self.is_tei and bool(key_variables or self.command.value("--api-key"))

    @property
    def variables(self) -> set[str]:
        return {variable["name"] for variable in self.command.container.get("env") or ()}

    @property
    def context(self) -> int:
        argument = self.command.value("--max-model-len", "--context-length", "--ctx-size", "-c")
        return int(argument) if argument.isdecimal() else 4096

    @property
    def chats(self) -> bool:
        """True if the model has a chat template. llama.cpp falls back to ChatML, so every model has one there."""
        words = f"{self.model} {self.served_name}".lower()
        is_tuned = any(word in words for word in ("instruct", "chat", "-it", "-omni")) or not _BASE.search(self.model)
        return self.name == "llama.cpp" or is_tuned or self.has_flag("--tool-call-parser", "--enable-auto-tool-choice")

    def has_flag(self, *flags: str) -> bool:
        return any(word.partition("=")[0] in flags for word in self.command.words)


class Engines:
    """Routes `/vllm/{namespace}/{service}/…` to the ready pod behind a Service."""

    def __init__(self, store: ObjectStore, faults: Set[str]) -> None:
        self._store, self._faults = store, faults
        self._counters: defaultdict[str, Counters] = defaultdict(Counters)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        root = "/vllm/{namespace}/{service}"
        router.add_get(root + "/health", self._health)
        router.add_get(root + "/health_generate", self._health_generate)
        router.add_get(root + "/props", self._props)
        router.add_get(root + "/slots", self._slots)
        router.add_get(root + "/metrics", self._metrics)
        router.add_get(root + "/v2/health/ready", self._health)
        for prefix in ("", "/openai"):
            router.add_get(f"{root}{prefix}/v1/models", self._models)
            router.add_post(f"{root}{prefix}/v1/chat/completions", self._chat)
            router.add_post(f"{root}{prefix}/v1/completions", self._complete)
            router.add_post(f"{root}{prefix}/v1/embeddings", self._embed)
            router.add_post(f"{root}{prefix}/v1/rerank", self._rank)
        router.add_post(f"{root}/rerank", self._rank_texts)

    def _engine(self, request: web.Request) -> Engine:
        namespace, name = request.match_info["namespace"], request.match_info["service"].split(".")[0]
        service = self._store.get("Service", name, namespace)
        selector = (service or {"spec": {}})["spec"].get("selector") or {}
        for pod in self._store.stored("Pod", namespace) if selector else ():
            if is_ready(pod) and selector.items() <= (pod["metadata"].get("labels") or {}).items():
                engine = Engine(CommandLine(self._store, pod), self._counters[pod["metadata"]["uid"]])
                _refuse_other_paths(request, engine)
                return engine
        raise web.HTTPServiceUnavailable(text=f"connection refused: {name}.{namespace} has no ready pod\n")

    def _check_key(self, request: web.Request, engine: Engine) -> None:
        """Check the key, as vLLM does before anything else. All engines have the same key."""
        secret = self._store.get("Secret", "vllm-api-key", "serving")
        key = b64decode(secret["data"]["api-key"]).decode() if secret else ""
        if engine.has_key and request.headers.get("Authorization") != f"Bearer {key}":
            raise web.HTTPUnauthorized(text=json.dumps({"error": "Unauthorized"}), content_type="application/json")

    async def _health(self, request: web.Request) -> web.Response:
        engine = self._engine(request)
        return web.json_response({"status": "ok"}) if engine.name == "llama.cpp" else web.Response()

    async def _health_generate(self, request: web.Request) -> web.Response:
        """Answer SGLang's health check, which generates one token first."""
        if self._require_engine(request, "SGLang") and "smoke-fails" in self._faults:
            raise web.HTTPServiceUnavailable
        return web.Response()

    async def _props(self, request: web.Request) -> web.Response:
        return web.json_response(other_engines.llama_props(self._require_engine(request, "llama.cpp")))

    async def _slots(self, request: web.Request) -> web.Response:
        engine = self._require_engine(request, "llama.cpp")
        self._check_key(request, engine)
        return web.json_response(other_engines.llama_slots(engine))

    def _require_engine(self, request: web.Request, name: str) -> Engine:
        engine = self._engine(request)
        if engine.name != name:
            raise web.HTTPNotFound(text='{"detail":"Not Found"}', content_type="application/json")
        return engine

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        engine = self._engine(request)
        if "metrics-down" in self._faults:
            raise web.HTTPServiceUnavailable(text="upstream connect error\n")
        text = _METRICS[engine.name](engine)
        if "metrics-nan" in self._faults:  # a mean of zero requests, and a rate over zero seconds
            text = re.sub(r"^(vllm:num_requests_running.*|te_queue_size) \S+$", r"\1 NaN", text, flags=re.MULTILINE)
            text = re.sub(r"^(vllm:prompt_tokens_total.*) \S+$", r"\1 +Inf", text, flags=re.MULTILINE)
        if "metrics-drip" in self._faults:
            return await _endless(request, text[:1].encode(), DRIP_SECONDS)
        if "metrics-huge" in self._faults:
            return await _endless(request, text.encode() * 50)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def _models(self, request: web.Request) -> web.Response:
        engine = self._engine(request)
        if engine.name == "llama.cpp":  # llama.cpp lists its models without a key
            return web.json_response(other_engines.llama_models(engine))
        self._check_key(request, engine)
        if engine.is_tei:
            raise web.HTTPNotFound(text="")
        if engine.name == "SGLang":
            return web.json_response(other_engines.sglang_models(engine))
        description = {
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": engine.model,
            "parent": None,
            "max_model_len": engine.context,
        }
        return web.json_response(
            {"object": "list", "data": [{"id": name} | description for name in engine.served_names]}
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        engine, body = await self._parse_request(request, generates=True)
        if not engine.chats:
            message = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a "
            message += "chat template if the tokenizer does not define one."
            raise _bad(400, "BadRequestError", message)
        prompt = " ".join(str(message.get("content", "")) for message in body.get("messages") or [])
        return await self._generate(request, engine, body, prompt, chat=True)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        engine, body = await self._parse_request(request, generates=True)
        return await self._generate(request, engine, body, str(body.get("prompt", "")), chat=False)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        engine, body = await self._parse_request(request)
        if engine.is_tei and "rerank" in engine.model.lower():
            raise web.HTTPFailedDependency(text=json.dumps({"error": "model is not an embedding model"}))
        if not engine.is_tei and "embed" not in engine.model.lower():
            raise _bad(400, "BadRequestError", "The model does not support Embeddings API")
        inputs = body.get("input")
        texts = inputs if isinstance(inputs, list) else [inputs]
        tokens = sum(_tokens(str(text)) for text in texts)
        engine.counters.requests += 1
        engine.counters.prompt_tokens += tokens
        vectors = [{"object": "embedding", "index": n, "embedding": [0.01] * DIMENSIONS} for n in range(len(texts))]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        name = engine.model if engine.is_tei else engine.served_name
        return web.json_response({"object": "list", "model": name, "data": vectors, "usage": usage})

    async def _rank(self, request: web.Request) -> web.StreamResponse:
        """Answer like vLLM with `--runner=pooling`, which scores pairs; other models do not have this path."""
        engine, body = await self._parse_request(request)
        if "rerank" not in engine.model.lower() or engine.is_tei:
            raise web.HTTPNotFound(text=json.dumps({"detail": "Not Found"}), content_type="application/json")
        documents = body.get("documents")
        texts = [str(text) for text in documents] if isinstance(documents, list) else []
        tokens = sum(_tokens(f"{body.get('query')} {text}") for text in texts)
        engine.counters.requests += 1
        engine.counters.prompt_tokens += tokens
        results = [
            {"index": n, "document": {"text": text}, "relevance_score": 1 / (n + 2)} for n, text in enumerate(texts)
        ]
        return web.json_response(
            {"id": "score-1", "model": engine.served_name, "usage": {"total_tokens": tokens}, "results": results}
        )

    async def _rank_texts(self, request: web.Request) -> web.StreamResponse:
        """Answer TEI's own API for rerankers; vLLM ranks below `/v1`."""
        engine, body = self._engine(request), await request.json()
        if not engine.is_tei or "rerank" not in engine.model.lower():
            raise web.HTTPFailedDependency(text=json.dumps({"error": "model is not a re-ranker model"}))
        texts = [str(text) for text in body["texts"]]
        engine.counters.requests += 1
        engine.counters.prompt_tokens += sum(_tokens(f"{body['query']} {text}") for text in texts)
        return web.json_response([{"index": n, "score": 1 / (n + 2)} for n in range(len(texts))])

    async def _parse_request(self, request: web.Request, *, generates: bool = False) -> tuple[Engine, Object]:
        engine = self._engine(request)
        if generates and engine.is_tei:
            raise web.HTTPNotFound(text="")
        self._check_key(request, engine)
        try:
            body: Object = await request.json()
        except ValueError as e:
            raise _bad(400, "BadRequestError", f"Invalid JSON: {e}") from e
        if "smoke-fails" in self._faults:
            raise _refusal(500, {"error": ENGINE_DEAD})
        if engine.name == "vLLM" and body.get("model") not in engine.served_names:
            aliases = f"Valid aliases: {engine.served_name}."
            raise _bad(404, "NotFoundError", f"The model `{body.get('model')}` does not exist. {aliases}", "model")
        return engine, body

    async def _generate(
        self, request: web.Request, engine: Engine, body: Object, prompt: str, *, chat: bool
    ) -> web.StreamResponse:
        limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        words = ANSWER.split()[:limit]
        prompt_tokens = _tokens(prompt) + (12 if chat else 0)  # the tokens of the chat template
        usage = {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + len(words),
            "completion_tokens": len(words),
            "prompt_tokens_details": None,
        }
        reply = _Reply(engine.served_name, chat, "length" if len(words) == limit else "stop", usage)
        engine.counters.running += 1
        try:
            if body.get("stream"):
                response = await self._stream(request, reply, words, body, self._faults)
            else:
                await asyncio.sleep(TOKEN_SECONDS * len(words))
                response = web.json_response(reply.whole(" ".join(words)))
        finally:
            engine.counters.running -= 1
        engine.counters.requests += 1
        engine.counters.prompt_tokens += prompt_tokens
        engine.counters.generation_tokens += len(words)
        return response

    @staticmethod
    async def _stream(
        request: web.Request, reply: "_Reply", words: list[str], body: Object, faults: Set[str]
    ) -> web.StreamResponse:
        if "completion-endless" in faults:  # no end-of-sequence token, and an engine plugin that ignores the limit
            return await _endless(request, _sse(reply.chunk("again ", last=False)), TOKEN_SECONDS)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, word in enumerate(words):
            await asyncio.sleep(TOKEN_SECONDS)
            ends = number == len(words) - 1
            await response.write(_sse(reply.chunk(word if ends else f"{word} ", last=ends)))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(_sse(reply.closing_usage()))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


@dataclass(frozen=True)
class _Reply:
    """One answer in the format of its API."""

    model: str
    chat: bool
    finish_reason: str
    usage: Object
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def whole(self, text: str) -> Object:
        content: Object = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": self.finish_reason, "stop_reason": None}
        return self._envelope("chat.completion") | {"choices": [choice], "usage": self.usage}

    def chunk(self, text: str, *, last: bool) -> Object:
        content: Object = {"delta": {"content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": self.finish_reason if last else None}
        return self._envelope("chat.completion.chunk") | {"choices": [choice]}

    def closing_usage(self) -> Object:
        return self._envelope("chat.completion.chunk") | {"choices": [], "usage": self.usage}

    def _envelope(self, kind: str) -> Object:
        prefix, kind = ("chatcmpl", kind) if self.chat else ("cmpl", "text_completion")
        fingerprint = "vllm-0.32.0-7e4adcb7"
        created = int(time.time())
        envelope = {"id": f"{prefix}-{self.id}", "object": kind, "created": created, "model": self.model}
        return envelope | {"system_fingerprint": fingerprint}


async def _endless(request: web.Request, piece: bytes, pause: float = 0.0) -> web.StreamResponse:
    """Repeat the same bytes, in chunks without a length, until the reader disconnects."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    try:
        while True:
            await response.write(piece)
            await asyncio.sleep(pause)
    except ConnectionError:
        return response


def _sse(event: Object) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _tokens(text: str) -> int:
    return max(1, len(text) // 4)


def _bad(code: int, kind: str, message: str, param: str | None = None) -> web.HTTPException:
    return _refusal(code, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def _refusal(code: int, body: Any) -> web.HTTPException:
    classes = {400: web.HTTPBadRequest, 404: web.HTTPNotFound, 500: web.HTTPInternalServerError}
    refusal: web.HTTPException = classes[code](text=json.dumps(body), content_type="application/json")
    return refusal


def _vllm_metrics(engine: Engine) -> str:
    counters = engine.counters
    labels = f'engine="0",model_name="{engine.served_name}"'
    lines: list[str] = []

    def metric(name: str, kind: str, samples: dict[str, float]) -> None:
        lines.append(f"# HELP vllm:{name} {name.replace('_', ' ').capitalize()}.")
        lines.append(f"# TYPE vllm:{name} {kind}")
        lines.extend(f"vllm:{name}{{{sample_labels}}} {float(value)}" for sample_labels, value in samples.items())

    metric("num_requests_running", "gauge", {labels: counters.running})
    metric("num_requests_waiting", "gauge", {labels: 0})
    waiting = {f'{labels},reason="{reason}"': 0.0 for reason in ("capacity", "deferred")}
    metric("num_requests_waiting_by_reason", "gauge", waiting)
    metric("kv_cache_usage_perc", "gauge", {labels: min(1.0, counters.running / 16)})
    metric("prompt_tokens_total", "counter", {labels: counters.prompt_tokens})
    metric("generation_tokens_total", "counter", {labels: counters.generation_tokens})
    finished = {reason: counters.requests if reason == "stop" else 0 for reason in FINISHED}
    name = f'model_name="{engine.served_name}"'
    samples = {f'engine="0",finished_reason="{reason}",{name}': count for reason, count in finished.items()}
    metric("request_success_total", "counter", {label: float(count) for label, count in samples.items()})
    return "\n".join(lines) + "\n"


def _tei_metrics(engine: Engine) -> str:
    requests = engine.counters.requests
    return (
        "# TYPE te_request_count counter\n"
        f'te_request_count{{method="batch"}} {requests}\n'
        "# TYPE te_queue_size gauge\nte_queue_size 0\n"
    )


_METRICS = {
    "vLLM": _vllm_metrics,
    "TEI": _tei_metrics,
    "llama.cpp": other_engines.llama_metrics,
    "SGLang": other_engines.sglang_metrics,
}


def _refuse_other_paths(request: web.Request, engine: Engine) -> None:
    """Refuse `/openai` and `/v2` unless the server is KServe's, which has only these paths."""
    path = request.path.removeprefix(f"/vllm/{request.match_info['namespace']}/{request.match_info['service']}")
    if path != "/metrics" and path.startswith(("/openai", "/v2")) != ("huggingfaceserver" in engine.command.program):
        raise web.HTTPNotFound(text='{"detail":"Not Found"}', content_type="application/json")
