"""The memory that a model needs on the GPU per token and per request, and the longest context that it supports.

Only layers with full attention store keys and values for each token. A layer with a window stores its window, a linear
layer (Mamba, gated delta net) one state per request, and a layer that shares its keys and values with another one
stores nothing. All sizes are in bytes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from manifests.sizing.configuration import Configuration, Json

Layer = Literal["full", "window", "state", "none"]

BATCH = 2048
"""Tokens that a window's cache holds in addition to the window: one step (`SlidingWindowSpec.max_memory_usage_bytes` in
vLLM's `kv_cache_interface.py`: window - 1 + max_num_batched_tokens, whose default on an L4 is 2048).
"""

STATE_PADDING = 1.12
"""A hybrid model's blocks are as large as a state, so some stay half empty. Measured on an L4 with vLLM 0.29: 36 480
bytes per token for a model whose layers need 32 768.
"""

_LAYERS: Mapping[str, Layer] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "window",
    "local_attention": "window",
    "linear_attention": "state",
    "mamba": "state",
    "mamba2": "state",
    "conv": "state",
    "recurrent": "state",
    "hybrid": "full",
    "moe": "none",
    "mlp": "none",
}
_ENCODERS = re.compile(
    r"(bert|roberta|mpnet|electra|esm)(-v\d)?$|^(new|gte|deberta(-v\d)?|wav2vec2.*|wavlm|vit|clip|siglip\d?)$"
)
_STATE_BESIDE_ATTENTION = ("falcon_h1",)
"""Types whose layers all have attention and a state (Falcon-H1, arXiv 2507.22448, section 2)."""
_WITHOUT_ATTENTION = ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm")


class Layers(BaseModel, frozen=True, defer_build=True):
    """Identical layers: their number, the bytes that one stores per token, and its window in tokens (None: all tokens)."""

    count: int
    token_bytes: int
    window: int | None = None


class Cache(BaseModel, frozen=True, defer_build=True):
    """The memory of one request: `layers` need memory for each token; `state_bytes` do not depend on the length of the request."""

    layers: tuple[Layers, ...] = ()
    state_bytes: int = 0

    @property
    def per_token(self) -> int:
        """Bytes for each token of the context."""
        return sum(layer.count * layer.token_bytes for layer in self.layers if layer.window is None)

    @property
    def growth(self) -> int:
        """Bytes per token of the layers without a window, or of all layers if each has a window."""
        return self.per_token or sum(layer.count * layer.token_bytes for layer in self.layers)

    def window_bytes(self, context: int) -> int:
        """Return the bytes that the layers with a window store for one request of `context` tokens."""
        return sum(
            layer.count * layer.token_bytes * min(layer.window + BATCH, context)
            for layer in self.layers
            if layer.window is not None
        )

    def request_bytes(self, context: int) -> int:
        """Return the bytes of one request of `context` tokens; vLLM needs them to start with this `--max-model-len`."""
        padding = STATE_PADDING if self.state_bytes else 1
        return int(self.per_token * context * padding) + self.window_bytes(context) + self.state_bytes

    def longest(self, room: int, limit: int) -> int:
        """Return the longest context in tokens that fits into `room` bytes: `limit`, or a smaller multiple of 1024."""
        if self.request_bytes(limit) <= room:
            return limit
        low, high = 0, limit // 1024
        while low < high:
            middle = (low + high + 1) // 2
            if self.request_bytes(middle * 1024) <= room:
                low = middle
            else:
                high = middle - 1
        return low * 1024

    def __str__(self) -> str:
        parts = [
            f"{layer.count} layers × {layer.token_bytes} bytes"
            + (f" (window of {layer.window} tokens)" if layer.window is not None else "")
            for layer in self.layers
        ]
        return " + ".join(parts) or "none"


def read_cache(config: Configuration, *, bytes_each: int = 2) -> Cache | None:
    """Return the cache of a model, from its configuration; None if the configuration is incomplete.

    `bytes_each` is the width of one cached number: 2 for fp16 and bf16, 1 for FP8.
    """
    if config.whole.get("is_encoder_decoder") or config["is_encoder_decoder"]:
        return _cross_attending(config, bytes_each)
    if is_encoder(config):
        return Cache()
    kinds = layer_kinds(config)
    attention_and_state = config.model_type in _STATE_BESIDE_ATTENTION
    states = sum(kind == "state" or attention_and_state for kind in kinds) * _state_bytes(config)
    if not kinds or (states == 0 and "state" in kinds and config.model_type in _WITHOUT_ATTENTION):
        return None
    if not any(kind in ("full", "window") for kind in kinds):
        return Cache(state_bytes=states)
    if blocks := config.sequence("block_configs"):
        return _of_blocks(config, blocks, bytes_each)
    token = {kind: _token_bytes(config, kind, bytes_each) for kind in ("full", "window")}
    layers = []
    for kind in ("full", "window"):
        if count := kinds.count(kind):
            if not token[kind]:
                return None
            layers.append(
                Layers(count=count, token_bytes=token[kind], window=_window(config) if kind == "window" else None)
            )
    return Cache(layers=tuple(layers), state_bytes=states)


def is_encoder(config: Configuration) -> bool:
    """Return whether the model reads a whole text and generates none, so nothing is stored between tokens."""
    return bool(_ENCODERS.search(config.model_type.lower().replace("_", "-")))


def layer_kinds(config: Configuration) -> tuple[Layer, ...]:
    """Return the cache of each layer that has one, in order; empty if the number of layers is unknown."""
    count = config.number("num_hidden_layers")
    pattern = config.explicit("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        return tuple({"*": "full", "M": "state"}.get(symbol, "none") for symbol in pattern)  # type: ignore[misc]
    if not count:
        return ()
    crossed = config.explicit("cross_attention_layers") or ()
    kinds = tuple("none" if index in crossed else kind for index, kind in enumerate(_kinds(config, count)))
    return kinds[: count - config.number("num_kv_shared_layers")]


def read_context(config: Configuration) -> int:
    """Return the longest context of the model in tokens; 0 if the configuration does not limit it."""
    longest = config.number("max_position_embeddings")
    if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet"):
        return longest - 2  # the first two positions are padding (RoBERTa's `create_position_ids_from_input_ids`)
    return longest


def _kinds(config: Configuration, count: int) -> Sequence[Layer]:
    if config.model_type in _WITHOUT_ATTENTION:
        return ["state"] * count
    for field in ("layer_types", "layers_block_type", "layer_block_type"):
        types = config.explicit(field)
        if isinstance(types, list) and types:
            named: list[Layer] = [_LAYERS.get(str(layer_type), "full") for layer_type in types]
            return _widened(config, (named * (count // len(named) + 1))[:count])
    return _kinds_with_states(config, count) or _widened(config, _kinds_with_windows(config, count))


def _kinds_with_states(config: Configuration, count: int) -> Sequence[Layer]:
    """Return the kind of each layer of a model that mixes attention with linear layers; empty for other models."""
    explicit = config.explicit
    if indices := explicit("attn_layer_indices") or explicit("full_attn_idxs") or explicit("hybrid_layer_ids"):
        return ["full" if index in indices else "state" for index in range(count)]
    if full := config.part("linear_attn_config").get("full_attn_layers"):
        return ["full" if index + 1 in full else "state" for index in range(count)]  # Kimi Linear counts from 1
    if types := explicit("attn_type_list"):
        return ["full" if layer_type == 1 else "state" for layer_type in types]
    if period := config.number("attn_layer_period"):
        offset = config.number("attn_layer_offset")
        return ["full" if index % period == offset else "state" for index in range(count)]
    if interval := explicit("full_attention_interval"):
        return ["full" if (index + 1) % interval == 0 else "state" for index in range(count)]
    return ()


def _kinds_with_windows(config: Configuration, count: int) -> Sequence[Layer]:
    """Return the kind of each layer of a model whose layers have full attention or a window."""
    alternating = config.explicit("sliding_window_pattern") or config.explicit("_sliding_window_pattern")
    if isinstance(alternating, str) and alternating:
        return ["full" if alternating[index % len(alternating)] == "G" else "window" for index in range(count)]
    if isinstance(alternating, int) and alternating > 1:
        return ["full" if (index + 1) % alternating == 0 else "window" for index in range(count)]
    if types := config.layer_pattern:
        return [_LAYERS.get(types[index % len(types)], "full") for index in range(count)]
    # Classes with `max_window_layers` (Qwen's) have a switch for the window, which is off by default.
    switched_off = config["use_sliding_window"] is False or (
        config["max_window_layers"] is not None and not config["use_sliding_window"]
    )
    if config.explicit("sliding_window") and not switched_off:
        first = config.number("max_window_layers") if config["use_sliding_window"] else 0
        return ["full" if index < first else "window" for index in range(count)]
    return ["full"] * count


def _widened(config: Configuration, kinds: Sequence[Layer]) -> Sequence[Layer]:
    """Treat a window as full attention if it is as large as the model's context."""
    window, longest = _window(config), read_context(config)
    if window and not (longest and window + BATCH > longest >= 0 and longest <= window):
        return kinds
    return ["full" if kind == "window" else kind for kind in kinds]


def _window(config: Configuration) -> int:
    return config.number("sliding_window", "attention_chunk_size", "local_attention")


def _token_bytes(config: Configuration, kind: str, bytes_each: int) -> int:
    """Return the bytes that one layer stores per token: 2 (key and value) × KV heads × head size × bytes.

    Source: the PagedAttention paper (Kwon et al. 2023, section 3) with grouped-query attention. Latent attention stores
    one compressed vector and the rotary part of the key (DeepSeek-V2, arXiv 2405.04434, section 2.1).
    """
    rank = config.number("kv_lora_rank")
    if rank and config.model_type != "minicpm3":  # vLLM caches full keys and values for this type
        indexer = config.number("index_head_dim") + 4 if config.number("index_topk") else 0
        return (rank + config.number("qk_rope_head_dim")) * bytes_each + indexer
    heads, size = kv_heads(config), head_size(config)
    if kind == "full":
        heads = config.number("num_global_key_value_heads") or heads
        size = config.number("global_head_dim") or size
    return 2 * heads * size * bytes_each


def kv_heads(config: Configuration) -> int:
    """Return the number of KV heads: fewer than query heads with grouped-query attention, 1 with multi-query attention."""
    if config["multi_query_attention"] and (groups := config.number("multi_query_group_num")):
        return groups
    if config["multi_query"] and not config["new_decoder_architecture"]:
        return 1
    configured = config.explicit("num_key_value_heads")
    if isinstance(configured, list):
        return int(max(configured))
    attention = config.part("attn_config").get("kv_n_heads")
    if isinstance(attention, int):
        return attention
    heads = config.number("num_attention_heads")
    # A default above the model's own number of heads belongs to another model size of the same class.
    return min(config.number("num_key_value_heads") or heads, heads or 2**20)


def head_size(config: Configuration) -> int:
    hidden, heads = config.number("hidden_size"), config.number("num_attention_heads")
    if config.model_type == "minicpm3":
        return config.number("qk_nope_head_dim") + config.number("qk_rope_head_dim")
    return config.number("head_dim") or (hidden // heads if heads else 0)


def _state_bytes(config: Configuration) -> int:
    """Return the bytes of a linear layer's state per request, with the inputs of its convolution.

    Source: vLLM's `MambaStateShapeCalculator`.
    """
    if value_heads := config.number("linear_num_value_heads"):
        keys = config.number("linear_num_key_heads") * config.number("linear_key_head_dim")
        values = value_heads * config.number("linear_value_head_dim")
        convolution = (2 * keys + values) * (max(1, config.number("linear_conv_kernel_dim") or 4) - 1)
        return 2 * (
            value_heads * config.number("linear_key_head_dim") * config.number("linear_value_head_dim") + convolution
        )
    state, kernel = config.number("mamba_d_state"), config.number("mamba_d_conv") or 4
    inner = (config.number("mamba_expand") or 2) * config.number("hidden_size")
    if config.model_type in _WITHOUT_ATTENTION:
        inner = config.number("intermediate_size") or inner
    if heads := config.number("mamba_n_heads") if config.model_type != "jamba" else 0:
        inner = heads * config.number("mamba_d_head") if config.number("mamba_d_head") else inner
        convolution = (inner + 2 * max(1, config.number("mamba_n_groups")) * state) * (kernel - 1)
        return 2 * (inner * state + convolution)
    return 2 * inner * (state + kernel)


def _cross_attending(config: Configuration, bytes_each: int) -> Cache | None:
    """Return the cache of an encoder-decoder model: the decoder's layers per token, plus the encoder's output once."""
    layers = config.number("decoder_layers", "num_decoder_layers", "num_hidden_layers")
    heads = config.number("decoder_attention_heads", "num_attention_heads")
    hidden = config.number("d_model", "hidden_size")
    if not (layers and heads and hidden):
        return None
    token = 2 * hidden * bytes_each
    attended = config.number("max_source_positions") * layers * token
    return Cache(layers=(Layers(count=layers, token_bytes=token),), state_bytes=attended)


def _of_blocks(config: Configuration, blocks: Sequence[Any], bytes_each: int) -> Cache:
    """Return the cache of a pruned model (DeciLM, Nemotron-NAS), whose blocks have different numbers of KV heads."""
    heads, size = config.number("num_attention_heads"), head_size(config)
    counts: dict[int, int] = {}
    for block in blocks:
        attention: Json = block.get("attention") or {} if isinstance(block, Mapping) else {}
        group = attention.get("n_heads_in_group")
        kv_heads = attention.get("num_key_value_heads") or (heads // group if group else 0)
        if kv_heads and not attention.get("no_op") and not attention.get("replace_with_linear"):
            counts[kv_heads] = counts.get(kv_heads, 0) + 1
    return Cache(
        layers=tuple(
            Layers(count=count, token_bytes=2 * kv_heads * size * bytes_each)
            for kv_heads, count in sorted(counts.items())
        )
    )
