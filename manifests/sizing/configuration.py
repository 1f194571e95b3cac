"""Read the fields of a model's `config.json` under all their names, with the defaults that the file omits.

`config.json` contains only differences from the defaults of its configuration class. Those defaults are in
`defaults.json`, which `tests/manifests/transformers_defaults.py` generates from Transformers' classes; a test keeps
them equal. Custom classes of a repository (`auto_map`) are not included: their fields are found by the usual names.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

Json = Mapping[str, Any]

TEXT_PARTS = ("thinker_config", "text_config", "llm_config", "language_config", "text_model_config", "decoder_config")
"""Keys of the language part in models with vision or audio; a part may contain another one."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_layers", "n_layer", "n_layers", "decoder_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "decoder_attention_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "n_kv_heads", "num_query_groups"),
    "head_dim": ("kv_channels", "attention_head_dim", "head_size", "d_kv"),
    "hidden_size": ("n_embd", "n_embed", "d_model", "dim", "model_dim"),
    "max_position_embeddings": (
        "n_positions",
        "seq_length",
        "max_seq_len",
        "max_sequence_length",
        "model_max_length",
        "n_ctx",
        "max_target_positions",
    ),
    "mamba_d_state": ("ssm_state_size", "state_size"),
    "mamba_n_heads": ("mamba_num_heads",),
    "mamba_d_head": ("mamba_head_dim",),
    "mamba_d_conv": ("conv_kernel",),
    "mamba_n_groups": ("n_groups",),
}
"""Other names of a field, from classes of vLLM and of the repositories' own models (ChatGLM, GPT-2, Falcon, MPT,
Mistral's params.json …).
"""


@cache
def _library() -> dict[str, dict[str, Any]]:
    table = json.loads(files(__package__).joinpath("defaults.json").read_text())
    models: dict[str, dict[str, Any]] = table["models"]
    return models


def known_to_transformers(model_type: str) -> bool:
    """Return whether Transformers has a configuration class of this type."""
    return model_type in _library()


class Configuration:
    """The language part of one `config.json`; fields without a value and without a class default are None."""

    def __init__(self, config: Json) -> None:
        self.whole = config
        fields, model_type = dict(config), str(config.get("model_type") or "")
        while True:
            owner = _library().get(model_type, {})
            inside = next((part for part in TEXT_PARTS if isinstance(fields.get(part), Mapping) or part in owner), None)
            if inside is None:
                break
            part = fields.pop(inside, None) or {}
            fields |= {key: value for key, value in part.items() if value is not None or key not in fields}
            model_type = str(part.get("model_type") or owner.get(inside) or model_type)
            if inside not in owner and not part:
                break
        self._given = fields
        self.model_type = model_type
        self._defaults = _library().get(model_type, {})

    def __getitem__(self, field: str) -> Any:
        """Return the value in the file, under any name, otherwise the class's default. A null in the file is returned as None."""
        for name in self._named(field):
            if name in self._given:
                return self._given[name]
        return self._defaults.get(field)

    def explicit(self, field: str) -> Any:
        """Return the value that the file itself contains, under any name; None if it contains none."""
        return next((self._given[name] for name in self._named(field) if name in self._given), None)

    def number(self, *fields: str) -> int:
        """Return the first of these fields that is a positive number, otherwise 0."""
        for field in fields:
            value = self[field]
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**40:
                return int(value)
        return 0

    def sequence(self, field: str) -> Sequence[Any]:
        value = self[field]
        return value if isinstance(value, list | tuple) else ()

    def part(self, field: str) -> Json:
        value = self._given.get(field)
        return value if isinstance(value, Mapping) else {}

    @property
    def layer_pattern(self) -> Sequence[str]:
        """The class's pattern of alternating layers, for files that do not define one."""
        return self._defaults.get("layer_types") or ()

    @property
    def architecture(self) -> str:
        architectures = self.whole.get("architectures")
        return str(architectures[0]) if isinstance(architectures, list) and architectures else ""

    @property
    def quantization(self) -> Json:
        for holder in (self.whole, self._given):
            if isinstance(method := holder.get("quantization_config"), Mapping):
                return method
        return {}

    @property
    def dtype(self) -> str:
        return str(self._given.get("torch_dtype") or self._given.get("dtype") or "")

    @property
    def sees_or_hears(self) -> bool:
        """True if the model has a part for images or sound, which needs additional memory."""
        parts = (
            "vision_config",
            "audio_config",
            "vision_encoder",
            "visual",
            "vit_config",
            "speech_config",
            "embd_layer",
        )
        if any(self.whole.get(part) for part in parts):
            return True
        thinker = self.whole.get("thinker_config")
        return isinstance(thinker, Mapping) and any(thinker.get(part) for part in parts)

    @property
    def hears_only(self) -> bool:
        """True if the model's only part besides text is for sound, as in Voxtral and Qwen2-Audio."""
        seeing = ("vision_config", "vision_encoder", "visual", "vit_config", "embd_layer", "thinker_config")
        return bool(self.whole.get("audio_config")) and not any(self.whole.get(part) for part in seeing)

    def _named(self, field: str) -> tuple[str, ...]:
        class_field = self._defaults.get("names", {}).get(field)
        return ((class_field,) if class_field else ()) + (field, *NAMES.get(field, ()))


def from_mistral(params: Json) -> dict[str, Any]:
    """Convert `params.json` to the fields of `config.json`, as vLLM's `MistralConfigParser` does.

    Source: vLLM, `transformers_utils/configs/mistral.py` (`adapt_config_dict`); the context is 128 000 if neither
    `max_position_embeddings` nor `max_seq_len` is given.
    """
    text = dict(params.get("text_config") or params)
    names = {
        "dim": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "n_kv_heads": "num_key_value_heads",
        "hidden_dim": "intermediate_size",
    }
    config = {names.get(key, key): value for key, value in text.items()}
    config.setdefault("max_position_embeddings", text.get("max_seq_len") or 128_000)
    config["model_type"] = "mistral"
    config["architectures"] = [
        "PixtralForConditionalGeneration" if "vision_encoder" in params else "MistralForCausalLM"
    ]
    quantization = params.get("quantization")
    if isinstance(quantization, Mapping) and str(quantization.get("qformat_weight", "")).startswith("fp8"):
        config["quantization_config"] = {"quant_method": "fp8"}
    if "vision_encoder" in params:
        config["vision_config"] = params["vision_encoder"]
    if isinstance(params.get("multimodal"), Mapping):
        config["audio_config"] = params["multimodal"]
    return config
