"""The sandbox's Hugging Face: the Hub's model API and the small files of a few models, with their real figures.

The shapes are from each model's config.json, the sizes from its weights (rounded to a megabyte for AWQ); the commit ids
are invented. Errors for unknown and gated models and for rate limits have the Hub's messages.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]

HUGE = 400 * 2**20

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Model:
    """A repository on the Hub: its API response, and the two files that describe it."""

    id: str
    weights: Mapping[str, int]
    """File name -> bytes."""
    parameters: Mapping[str, int]
    """Data type -> count, summed over the safetensors headers; packed 4-bit weights count as I32."""
    config: Json
    licence: str
    pipeline_tag: str = "text-generation"
    licence_name: str | None = None
    gated: str | bool = False
    chat_template: str | None = _CHATML

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.id.encode(), usedforsecurity=False).hexdigest()

    @property
    def tokenizer_config(self) -> Json:
        template = {"chat_template": self.chat_template} if self.chat_template else {}
        return {"model_max_length": self.config["max_position_embeddings"], **template}

    def listing(self) -> Json:
        """Return the model as in a search result."""
        return {
            "id": self.id,
            "modelId": self.id,
            "private": False,
            "gated": self.gated,
            "pipeline_tag": self.pipeline_tag,
            "tags": ["transformers", "safetensors", self.pipeline_tag, f"license:{self.licence}"],
            "library_name": "transformers",
            "downloads": 100_000,
        }

    def details(self, *, blobs: bool) -> Json:
        """Return a single model. As on the Hub, file sizes are only included with `blobs`."""
        files = {**self.weights, "config.json": 700, "tokenizer_config.json": 7_300, "README.md": 5_000}
        card = {"license": self.licence} | ({"license_name": self.licence_name} if self.licence_name else {})
        fields = ("architectures", "model_type", "quantization_config")
        return {
            **self.listing(),
            "sha": self.sha,
            "disabled": False,
            "cardData": card,
            "config": {key: self.config[key] for key in fields if key in self.config},
            "safetensors": {"parameters": dict(self.parameters), "total": sum(self.parameters.values())},
            "siblings": [{"rfilename": name, **({"size": size} if blobs else {})} for name, size in files.items()],
        }


@dataclass(frozen=True)
class QwenShape:
    """One size of Qwen2.5-Coder, from its config.json and its technical report (arXiv 2409.12186)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    parameters: int
    shards: int
    awq_megabytes: int
    awq_shards: int

    @property
    def linear_parameters(self) -> int:
        """The parameters that AWQ packs into 4 bits: the matrices of attention and MLP."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.kv_heads * (self.hidden // self.heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


QWEN_CODER: Mapping[str, QwenShape] = MappingProxyType(
    {
        "0.5B": QwenShape(24, 896, 14, 2, 4864, 151936, True, 494_032_768, 1, 731, 1),
        "1.5B": QwenShape(28, 1536, 12, 2, 8960, 151936, True, 1_543_714_304, 1, 1_614, 1),
        "3B": QwenShape(36, 2048, 16, 2, 11008, 151936, True, 3_085_938_688, 2, 2_686, 1),
        "7B": QwenShape(28, 3584, 28, 4, 18944, 152064, False, 7_615_616_512, 4, 5_571, 2),
        "14B": QwenShape(48, 5120, 40, 8, 13824, 152064, False, 14_770_033_664, 6, 9_976, 3),
        "32B": QwenShape(64, 5120, 40, 8, 27648, 152064, False, 32_763_876_352, 14, 19_326, 5),
    }
)


def _qwen_coder(size: str, shape: QwenShape) -> Iterable[Model]:
    """Yield the base model, the instruct model, and its AWQ version, as published by Qwen."""
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": shape.tied,
        "vocab_size": shape.vocabulary,
        "torch_dtype": "bfloat16",
    }
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
    # Only the 3B models are under Qwen's research licence.
    licence, licence_name = ("other", "qwen-research") if size == "3B" else ("apache-2.0", None)
    full = _shards(2 * shape.parameters, shape.shards)
    for suffix in ("", "-Instruct"):
        name = f"Qwen/Qwen2.5-Coder-{size}{suffix}"
        yield Model(name, full, {"BF16": shape.parameters}, config, licence, licence_name=licence_name)
    packed = shape.linear_parameters // 8
    unpacked = shape.linear_parameters // 128 + 2 * shape.vocabulary * shape.hidden
    yield Model(
        f"Qwen/Qwen2.5-Coder-{size}-Instruct-AWQ",
        _shards(shape.awq_megabytes * 10**6, shape.awq_shards),
        {"I32": packed + packed // 128, "F16": unpacked},
        {**config, "torch_dtype": "float16", "quantization_config": awq},
        licence,
        licence_name=licence_name,
    )


def _bge(name: str, hidden: int, parameters: int, weight_bytes: int, *, ranks: bool = False) -> Model:
    config = {
        "architectures": ["XLMRobertaForSequenceClassification" if ranks else "BertModel"],
        "model_type": "xlm-roberta" if ranks else "bert",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "vocab_size": 30522,
        "torch_dtype": "float32",
    }
    return Model(
        f"BAAI/{name}",
        {"model.safetensors": weight_bytes, "pytorch_model.bin": weight_bytes + 45_000},
        {"F32": parameters},
        config,
        "mit",
        pipeline_tag="text-ranking" if ranks else "feature-extraction",
        chat_template=None,
    )


def _llama() -> Model:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
    }
    parameters = 8_030_261_248
    weights = _shards(2 * parameters, 4)
    return Model("meta-llama/Llama-3.1-8B-Instruct", weights, {"BF16": parameters}, config, "llama3.1", gated="manual")


def _shards(total: int, count: int) -> dict[str, int]:
    if count == 1:
        return {"model.safetensors": total}
    shard_bytes = total // count
    names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    return {**dict.fromkeys(names[:-1], shard_bytes), names[-1]: total - shard_bytes * (count - 1)}


def _models() -> dict[str, Model]:
    models = [
        *(model for size, shape in QWEN_CODER.items() for model in _qwen_coder(size, shape)),
        _bge("bge-base-en-v1.5", 768, 109_482_240, 437_955_512),
        _bge("bge-small-en-v1.5", 384, 33_360_000, 133_466_304),
        _bge("bge-reranker-base", 768, 278_044_417, 1_112_205_008, ranks=True),
        _llama(),
    ]
    return {model.id: model for model in models}


class Hub:
    """The Hub on a loopback port: `async with Hub(faults) as hub: hub.url`."""

    def __init__(self, faults: set[str], *, port: int = 0) -> None:
        self.url = ""
        self.models = _models()
        self._faults = faults
        self._port = port

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._rate_limited])
        app.add_routes(
            [
                web.get("/api/models", self._search),
                web.get("/api/whoami-v2", self._whoami),
                web.get("/api/models/{org}/{name}", self._model),
                web.get("/{org}/{name}/resolve/{revision}/{file}", self._file),
            ]
        )
        runner = self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _rate_limited(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if "hf-429" in self._faults:
            return _error(429, "We had to rate limit your IP. To continue using our service, create a HF account.")
        return await handler(request)

    async def _whoami(self, _: web.Request) -> web.Response:
        """Refuse every token: the sandbox's Hub has no accounts."""
        return web.json_response({"error": "Invalid credentials in Authorization header"}, status=401)

    async def _search(self, request: web.Request) -> web.Response:
        search_text = request.query.get("search", "").lower()
        limit = int(request.query.get("limit", "20"))
        matches = [model.listing() for model in self.models.values() if search_text in model.id.lower()]
        return web.json_response(matches[:limit])

    async def _model(self, request: web.Request) -> web.Response:
        model = self._model_of(request)
        if model is None:
            return _unknown(request)
        return web.json_response(model.details(blobs=request.query.get("blobs", "").lower() in ("true", "1")))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        model = self._model_of(request)
        if model is None:
            return _unknown(request)
        if model.gated:
            return _refuse_gated(request, model)
        if request.match_info["revision"] not in ("main", model.sha):
            return _error(404, "Invalid rev id", code="RevisionNotFound")
        files = {"config.json": model.config, "tokenizer_config.json": model.tokenizer_config}
        content = files.get(request.match_info["file"])
        if content is None:
            return _error(404, "Entry not found", code="EntryNotFound")
        if "hub-huge" in self._faults:
            return await _huge(request)
        return web.json_response(content, headers={"X-Repo-Commit": model.sha})

    def _model_of(self, request: web.Request) -> Model | None:
        return self.models.get(f"{request.match_info['org']}/{request.match_info['name']}")


async def _huge(request: web.Request) -> web.StreamResponse:
    """Send a file of `HUGE` bytes of valid JSON in chunks. Anybody could upload such a file to the Hub."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    piece = b" " * 2**20
    try:
        await response.write(b"{")
        for _ in range(HUGE // len(piece)):
            await response.write(piece)
        await response.write(b"}")
    except ConnectionError:
        pass  # the client disconnected
    return response


def _unknown(request: web.Request) -> web.Response:
    """Return the error for a missing repository. Without a token, the Hub does not reveal whether it is private."""
    if "Authorization" in request.headers:
        return _error(404, "Repository not found", code="RepoNotFound")
    return _error(401, "Invalid username or password.")


def _refuse_gated(request: web.Request, model: Model) -> web.Response:
    if "Authorization" in request.headers:
        message = f"Access to model {model.id} is restricted and you are not in the authorized list."
        return _error(403, message, code="GatedRepo")
    message = f"Access to model {model.id} is restricted. You must have access to it and be authenticated to access it."
    return _error(401, message, code="GatedRepo")


def _error(status: int, message: str, *, code: str | None = None) -> web.Response:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return web.json_response({"error": message}, status=status, headers=headers)
