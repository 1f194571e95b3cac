"""A repository on Hugging Face, described by its listing and its small files, and the facts derived from them."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from manifests.sizing.cache import Cache, head_size, kv_heads, read_cache, read_context
from manifests.sizing.configuration import Configuration, from_mistral, known_to_transformers
from manifests.sizing.facts import SERVED_KINDS, ModelFacts
from manifests.sizing.kind import Evidence, has_template, judge
from manifests.sizing.weights import (
    allow_patterns,
    in_mistral_format,
    loaded_files,
    staged_files,
    stored_weights,
    total,
)

_SEES_OR_HEARS = (
    "image-text-to-text",
    "audio-text-to-text",
    "video-text-to-text",
    "any-to-any",
    "visual-question-answering",
)


_FOREIGN_METHODS = ("exl2", "exl3", "quanto", "eetq", "spqr", "vptq", "higgs")
"""Quantizations that ExLlama or Transformers load and vLLM does not (its list is `QUANTIZATION_METHODS`)."""


class Repository(BaseModel, frozen=True, defer_build=True):
    """One revision on the Hub.

    `files` are paths and bytes. `config`, `params` (Mistral's) and `quant` (`hf_quant_config.json`) are None if there
    is no such file; `base_config` is the configuration of the base model, for formats without their own. `template` is
    true if `tokenizer_config.json` contains a chat template, `tokenizer_code` if it names a class of the repository.
    """

    hf_id: str
    revision: str = ""
    files: Mapping[str, int]
    index: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None
    params: Mapping[str, Any] | None = None
    quant: Mapping[str, Any] | None = None
    base_config: Mapping[str, Any] | None = None
    template: bool = False
    tokenizer_code: bool = False
    pipeline_tag: str = ""
    library: str = ""
    tags: tuple[str, ...] = ()
    gated: bool | str = False
    licence: str | None = None
    base_model: str = ""
    withheld: bool = False

    @property
    def needs_index(self) -> bool:
        """True if only the index determines which of several sets of weights is loaded."""
        if "model.safetensors.index.json" not in self.files:
            return False
        root = [name for name in self.files if "/" not in name and name.endswith(".safetensors")]
        return len(root) > len(loaded_files(self.files))

    def facts(self) -> ModelFacts:
        """Return the facts for sizing, flags and the pull request."""
        config = self._configuration()
        judged = judge(self._evidence(), config)
        cache = self._cache(config) if config else None
        loaded = loaded_files(self.files, self.index)
        unservable = judged.unservable or self._unloadable(loaded, config)
        unlimited = cache is not None and not cache.layers and cache.state_bytes > 0
        return ModelFacts(
            hf_id=self.hf_id,
            revision=self.revision,
            kind=judged.kind,
            weight_bytes=total(self.files, stored_weights(self.files, self.index)),
            staged_bytes=total(self.files, staged_files(self.files, self.index)),
            repo_bytes=sum(self.files.values()),
            allow_patterns=allow_patterns(self.files, self.index),
            gguf={plain(name, "/"): size for name, size in self.files.items() if name.endswith(".gguf")},
            cache=cache if cache is not None or judged.kind in SERVED_KINDS else Cache(),
            layers=config.number("num_hidden_layers") if config else 0,
            kv_heads=kv_heads(config) if config else 0,
            head_size=head_size(config) if config else 0,
            hidden_size=config.number("hidden_size") if config else 0,
            dtype=plain(config.dtype if config else "") or "bfloat16",
            quantization=plain(_method(config)) or ("gguf" if "GGUF" in unservable else None),
            max_context=read_context(config) if config else 0,
            unlimited=unlimited,
            multimodal=judged.kind == "chat"
            and (self.pipeline_tag in _SEES_OR_HEARS or (config is not None and config.sees_or_hears)),
            hears_only=config.hears_only if config else False,
            remote_code=self._runs_code(config),
            mistral_format=self.mistral_format,
            gated=self.gated,
            licence=self.licence,
            architecture=plain(config.architecture if config else ""),
            model_type=plain(config.model_type if config else ""),
            pipeline_tag=self.pipeline_tag or None,
            base_model=self.base_model,
            unservable=unservable,
            withheld=self.withheld,
        )

    def _runs_code(self, config: Configuration | None) -> bool:
        """Return whether the engine has to run Python code of the repository, for the model or for its only tokenizer."""
        if config is None:
            return False
        own_model = config.whole.get("auto_map") and not known_to_transformers(
            str(config.whole.get("model_type") or "")
        )
        return bool(own_model) or (
            self.tokenizer_code and "tokenizer.json" not in self.files and not self.mistral_format
        )

    @property
    def mistral_format(self) -> bool:
        return in_mistral_format(self.files)

    def _configuration(self) -> Configuration | None:
        if self.config is not None:
            return Configuration(self.config)
        if self.params is not None:
            return Configuration(from_mistral(self.params))
        if self.base_config is not None:
            return Configuration(self.base_config)
        return None

    def _evidence(self) -> Evidence:
        return Evidence(
            hf_id=self.hf_id,
            files=frozenset(self.files),
            pipeline_tag=self.pipeline_tag,
            library=self.library,
            tags=frozenset(self.tags),
            template=self.template or has_template(self.files),
            base_model=self.base_model,
        )

    def _cache(self, config: Configuration) -> Cache | None:
        if config.architecture.startswith(("T5", "MT5", "UMT5")):
            return Cache()  # vLLM has no such class, so nothing is cached
        return read_cache(config, bytes_each=1 if self._caches_in_fp8(config) else 2)

    def _caches_in_fp8(self, config: Configuration) -> bool:
        """Return whether vLLM stores the cache in 8 bits by default.

        It reads `kv_cache_quant_algo` of ModelOpt's `hf_quant_config.json`, or the scheme in `config.json` that
        ModelOpt and compressed-tensors write (`get_kv_cache_quant_algo_string` in vLLM's `torch_utils.py`).
        """
        of_modelopt = (self.quant or {}).get("quantization")
        for section in (of_modelopt, self.quant, config.quantization):
            if not isinstance(section, Mapping):
                continue
            scheme = section.get("kv_cache_scheme")
            if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8:
                return True
            if any(
                str(section.get(key) or "").upper() in ("FP8", "NVFP4")
                for key in ("kv_cache_quant_algo", "kv_cache_scheme")
            ):
                return True
        return False

    def _unloadable(self, loaded: tuple[str, ...], config: Configuration | None) -> str:
        if not loaded:
            return "it holds no safetensors or PyTorch weights that an engine can load: choose a repository that does"
        if config is None and self.withheld:
            return ""  # the file exists, but is not readable here
        if config is None:
            looked_for = "params.json" if self.params is None and "params.json" in self.files else "config.json"
            return f"its {looked_for} is missing or cannot be read, so no engine can load it"
        return _foreign(config)


def _foreign(config: Configuration) -> str:
    """Return why vLLM cannot load the architecture or the format of the weights; "" if it can."""
    if config.model_type.startswith(("rwkv", "xlstm", "recurrent_gemma")):
        return f"its architecture ({plain(config.model_type)}) is one that vLLM does not serve"
    if not _method(config) and isinstance(mlx := config.whole.get("quantization"), Mapping) and "bits" in mlx:
        return "its weights are quantized for MLX, which only Apple's processors run: use an AWQ, GPTQ or FP8 form"
    if _method(config) in _FOREIGN_METHODS:
        return (
            f"its weights are quantized with {_method(config)}, which vLLM does not load: use an AWQ, GPTQ or FP8 form"
        )
    return ""


def plain(text: object, more: str = "") -> str:
    """Return text from the Hub, restricted to characters that are safe in a manifest or a pull request."""
    return re.sub(rf"[^\w.{more}-]", "", str(text or ""))[:80]


def _method(config: Configuration | None) -> str:
    return str(config.quantization.get("quant_method") or "") if config else ""
