"""The defaults of Transformers' configuration classes that sizing needs, as JSON on standard output.

`config.json` omits a field that has its class's default (Gemma 3 omits the head size and the context), so sizing needs the
classes' defaults. Run with the library and without torch:
`uv run --no-project --with transformers==5.24.0 python -I tests/manifests/transformers_defaults.py > manifests/sizing/defaults.json`
"""

import dataclasses
import json
import logging
import os
import sys
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
warnings.filterwarnings("ignore")
logging.disable()

import transformers  # noqa: E402
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402

FIELDS = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size",
    "max_position_embeddings", "sliding_window", "use_sliding_window", "max_window_layers", "num_kv_shared_layers",
    "kv_lora_rank", "qk_rope_head_dim", "attn_layer_period", "attn_layer_offset", "attention_chunk_size",
    "global_head_dim", "num_global_key_value_heads", "attention_k_eq_v", "is_encoder_decoder",
    "mamba_d_state", "mamba_d_conv", "mamba_expand", "mamba_n_heads", "mamba_d_head", "mamba_n_groups",
    "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel", "state_size", "intermediate_size",
    "linear_num_value_heads", "linear_num_key_heads", "linear_key_head_dim", "linear_value_head_dim",
    "linear_conv_kernel_dim", "conv_L_cache", "multi_query", "num_kv_heads", "new_decoder_architecture",
    "d_kv", "decoder_layers", "decoder_attention_heads", "max_target_positions", "d_model",
)  # fmt: skip
PARTS = ("thinker_config", "text_config", "llm_config", "language_config")
LAYERS = 192
"""A number of layers that shows a repeating pattern of layer types: it is a multiple of 2, 3, 4, 6, 8 and 12."""


def described(cls: type) -> dict[str, object]:
    """Return the non-empty defaults by field, and how the layers of the class alternate."""
    declared = {field.name: field.default for field in dataclasses.fields(cls)}
    names = dict(getattr(cls, "attribute_map", {}))
    defaults: dict[str, object] = {}
    for field in FIELDS:
        default = declared.get(names.get(field, field))
        if isinstance(default, int | bool) and default is not False:
            defaults[field] = default
    if renamed := {field: name for field, name in names.items() if field in FIELDS}:
        defaults["names"] = dict(sorted(renamed.items()))
    if pattern := layer_types(cls):
        defaults["layer_types"] = pattern
    parts = getattr(cls, "sub_configs", {})
    for part in PARTS:
        if part in parts and (of := getattr(parts[part], "model_type", "")):
            defaults[part] = of
    return defaults


def layer_types(cls: type) -> list[str]:
    """Return the shortest list of layer types that repeats; it is empty if all layers are alike or listed one by one."""
    try:
        types = cls(num_hidden_layers=LAYERS).layer_types
    except Exception:  # a class without a number of layers has no pattern
        return []
    if not isinstance(types, list) or len(types) != LAYERS or len(set(types)) < 2:
        return []
    for length in range(2, 49):
        if all(layer_type == types[at % length] for at, layer_type in enumerate(types)):
            return types[:length]
    return []


def main() -> None:
    rows = {}
    for model_type in sorted(CONFIG_MAPPING.keys()):
        if row := described(CONFIG_MAPPING[model_type]):
            rows[model_type] = row
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    sys.stdout.write(f'{{\n"transformers": {json.dumps(transformers.__version__)},\n"models": {{\n{lines}\n}}\n}}\n')


main()
