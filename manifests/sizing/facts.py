"""Known facts about a model, from the Hub, from a person's figures, or from its name."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from manifests.sizing.cache import Cache, Layers
from manifests.sizing.observed import ModelClass, Observation
from manifests.sizing.quantities import quantity_bytes
from manifests.tree import ManifestError

Kind = Literal[
    "chat", "completion", "embeddings", "reranker", "draft", "transcription", "speech", "seq2seq", "image", "classifier"
]
"""The task of a model. Only the first four can be served."""

SERVED_KINDS: tuple[Kind, ...] = ("chat", "completion", "embeddings", "reranker")
POOLING_KINDS: tuple[Kind, ...] = ("embeddings", "reranker")

# The figures that sizing requires, the option for each, and its format.
FIGURES = {
    "weights": ("weight_bytes", "the size of the weights", "5.6GB"),
    "layers": ("layers", "the number of layers", "28"),
    "kv-heads": ("kv_heads", "the number of KV heads", "4"),
    "head-size": ("head_size", "the size of a head", "128"),
    "max-context": ("max_context", "the longest context that the model reads", "32768"),
}
_SHAPE = ("layers", "kv-heads", "head-size")


class MissingFigures(ManifestError):
    """A figure that sizing needs is missing. `options` are the keys of `FIGURES` to ask for."""

    remedy = "Give the figures that the message lists; the form has a field for each."

    def __init__(self, hf_id: str, options: tuple[str, ...], withheld: str = "") -> None:
        unknown = ", ".join(FIGURES[option][1] for option in options)
        examples = " ".join(f"{option}={FIGURES[option][2]}" for option in options)
        reason = withheld or f"{hf_id} cannot be sized: Hugging Face does not give {unknown}."
        super().__init__(
            f"{reason} Take {unknown if withheld else 'it'} from the model's config.json and file list, and write it like {examples}."
        )
        self.options = options


class ModelFacts(BaseModel, frozen=True, defer_build=True):
    """Known facts about a model. Zeros and None mean unknown.

    `weight_bytes` is the size of the files that the engine loads, `staged_bytes` the size of the downloaded files, and
    `repo_bytes` the size of the whole repository. `cache` is the memory per request, from the model's configuration; a
    person gives `layers`, `kv_heads` and `head_size` instead. `hidden_size` of an embedding model is the dimension of
    its vectors. `kind` is None for a model that was not looked up. `unservable` is a clause with the reason why no
    engine can serve the model.
    """

    hf_id: str
    revision: str = ""
    kind: Kind | None = "chat"
    weight_bytes: int = 0
    staged_bytes: int = 0
    repo_bytes: int = 0
    allow_patterns: tuple[str, ...] = ()
    gguf: Mapping[str, int] = {}
    """The repository's GGUF files, for llama.cpp: file name -> bytes."""
    cache: Cache | None = None
    layers: int = 0
    kv_heads: int = 0
    head_size: int = 0
    hidden_size: int = 0
    dtype: str = "bfloat16"
    quantization: str | None = None
    max_context: int = 0
    unlimited: bool = False
    """True if the model does not limit its context, like a state-space model."""
    multimodal: bool = False
    hears_only: bool = False
    """True if it accepts sound but no images."""
    remote_code: bool = False
    """True if its class or its only tokenizer is Python code of the repository."""
    mistral_format: bool = False
    gated: bool | str = False
    licence: str | None = None
    architecture: str = ""
    model_type: str = ""
    pipeline_tag: str | None = None
    base_model: str = ""
    unservable: str = ""
    withheld: bool = False
    """True if its files could not be read because its owner has not granted access."""
    observed: tuple[Observation, ...] = ()
    """Measurements of boots on the platform's GPU, for models of every class."""

    @classmethod
    def unseen(cls, hf_id: str) -> "ModelFacts":
        """Return the facts of a model that could not be looked up: only the format, from the name."""
        match = re.search(r"[-_.](awq|gptq|fp8)\b", hf_id, re.IGNORECASE)
        return cls(hf_id=hf_id, kind=None, quantization=match[1].lower() if match else None)

    def with_figures(self, texts: Mapping[str, str]) -> "ModelFacts":
        """Return a copy with figures from a person, by the keys of `FIGURES`, which take precedence.

        Raises ManifestError for a figure that is not a number.
        """
        figures = {FIGURES[key][0]: _figure(key, text) for key, text in texts.items()}
        shape = {"cache": None} if any(key in texts for key in _SHAPE) else {}
        staged = {"staged_bytes": figures["weight_bytes"]} if "weight_bytes" in figures else {}
        return self.model_copy(update={**figures, **shape, **staged})

    @property
    def chat(self) -> bool | None:
        """True for a chat model, False for a completion model; None for other and unknown kinds."""
        return {"chat": True, "completion": False}.get(self.kind or "")

    @property
    def pools(self) -> bool:
        """True if it returns vectors or scores instead of text."""
        return self.kind in POOLING_KINDS

    @property
    def model_class(self) -> ModelClass:
        """The class of models with comparable overhead."""
        return "pooling" if self.pools else "vision" if self.multimodal else "text"

    @property
    def staged(self) -> int:
        """Bytes that a download writes to the volume."""
        return self.staged_bytes or self.weight_bytes

    @property
    def gpu_bytes(self) -> int:
        """Bytes of the weights on the GPU: vLLM casts float32 to float16 by default (documentation of `--dtype`)."""
        return (
            self.weight_bytes // 2
            if self.dtype in ("float32", "float") and not self.quantization
            else self.weight_bytes
        )

    @property
    def kept(self) -> Cache:
        """The memory that the model needs on the GPU per request."""
        if self.cache is not None:
            return self.cache
        token = 2 * self.kv_heads * self.head_size * 2
        return Cache(layers=(Layers(count=self.layers, token_bytes=token),)) if token and self.layers else Cache()

    def missing(self, *, gpu: bool) -> tuple[str, ...]:
        """Return the keys of `FIGURES` that sizing needs and that are unknown."""
        needed = ["weights"]
        if gpu:
            needed += _SHAPE if self.cache is None else ()
            needed += () if self.unlimited else ("max-context",)
        return tuple(key for key in needed if not getattr(self, FIGURES[key][0]))


def kv_bytes_per_token(facts: ModelFacts) -> int:
    """Return the bytes of cache per token of a conversation; 0 for a model that generates no text."""
    return 0 if facts.kind in ("embeddings", "seq2seq") else facts.kept.growth


def _figure(key: str, text: str) -> int:
    try:
        number = quantity_bytes(re.sub(r"i?B$", lambda unit: unit[0][:-1], text)) if key == "weights" else int(text)
    except ValueError:
        number = 0
    if number <= 0:
        raise ManifestError(f"{key}={text!r} cannot be read: write {FIGURES[key][1]} like {FIGURES[key][2]}.")
    return number
