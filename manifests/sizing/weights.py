"""Select the files of a repository that the engine loads, and those that a volume must hold.

A repository often contains its weights several times: in the publisher's own format (`original/`, `consolidated*`), as
PyTorch pickles, for ONNX, in another precision. vLLM loads one of these sets. Staging downloads only that set and the
small files next to it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from functools import partial

GB = 10**9

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.model.v*", "*.tiktoken", "*.py")
"""Configuration, tokenizer and chat template, as patterns of `huggingface_hub.snapshot_download`.

`*` matches a slash there too (it uses `fnmatch`), so these include `1_Pooling/config.json`.
"""

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?P<format>safetensors|bin)")
# Another precision of the same weights: `model.fp16.safetensors`, `model.fp32-00001-of-00002.safetensors`.
_VARIANT = re.compile(r"\.(fp16|bf16|fp32|f16|f32|int8|non_ema|ema)(?=[.-])")
# Pickles that belong to the trainer, not to the model.
_OF_THE_TRAINER = re.compile(r"(training_args|optimizer|scheduler|rng_state|trainer_state|scaler)[^/]*\.(bin|pt|pth)")
_OTHER_WEIGHTS = r"[^/]+\.(pt|pth|nemo)"
"""Files such as weights of heads and of speech models, which vLLM does not load."""
_HF_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tiktoken.model")

Files = Mapping[str, int]
"""Path in the repository -> bytes."""


def loaded_files(files: Files, index: Collection[str] = ()) -> tuple[str, ...]:
    """Return the weights that the engine loads, in order; empty if it can load none.

    `index` contains the files in `model.safetensors.index.json`: if there is an index, vLLM loads exactly these
    (`filter_duplicate_safetensors_files` in vLLM's `weight_utils.py`). Otherwise it prefers safetensors to pickles, and
    pickles to `.pt` (`DefaultModelLoader._prepare_weights`).
    """
    root = [name for name in files if "/" not in name]
    if in_mistral_format(files):
        return _consolidated(root)
    named = tuple(sorted(name for name in index if name in files))
    if named:
        return named
    attempts: tuple[Callable[[list[str]], tuple[str, ...]], ...] = (
        partial(_set_of, kind="safetensors", stem="model"),
        partial(_set_of, kind="bin", stem="pytorch_model"),
        _consolidated,
        _pickles,
    )
    return next((selected for attempt in attempts if (selected := attempt(root))), ())


def in_mistral_format(files: Collection[str]) -> bool:
    """Return whether vLLM has to read the repository in Mistral's own format (`params.json`, `consolidated*.safetensors`).

    If a repository has both formats, the format of Transformers is staged if its tokenizer exists, because every
    version of the engine loads it without further arguments.
    """
    if "params.json" not in files or not _consolidated(files):
        return False
    return "config.json" not in files or not any(name in files for name in _HF_TOKENIZER)


def is_gguf(files: Collection[str]) -> bool:
    """Return whether the repository contains only llama.cpp's files."""
    return any(name.endswith(".gguf") for name in files) and not any(
        name.endswith((".safetensors", ".bin", ".pt")) for name in files
    )


def stored_weights(files: Files, index: Collection[str] = ()) -> tuple[str, ...]:
    """Return the files with the weights, including those that vLLM cannot load (GGUF, adapters, diffusers)."""
    nested = [name for name in files if name.endswith(".safetensors") and not _VARIANT.search(name)]
    if "model_index.json" in files:  # a pipeline's parts are in folders; files beside them are copies
        return tuple(sorted(name for name in nested if "/" in name)) or tuple(sorted(nested))
    if loaded := loaded_files(files, index):
        return loaded
    if adapters := tuple(sorted(name for name in files if re.fullmatch(r"adapter_model\.(safetensors|bin)", name))):
        return adapters[-1:]
    if gguf := tuple(sorted(name for name in files if name.endswith(".gguf"))):
        return gguf
    return tuple(sorted(nested)) or tuple(sorted(name for name in files if re.fullmatch(_OTHER_WEIGHTS, name)))


def allow_patterns(files: Files, index: Collection[str] = ()) -> tuple[str, ...]:
    """Return the `allow_patterns` of `snapshot_download` that select the files that the engine loads."""
    return (*SMALL_FILES, *_weight_patterns(files, stored_weights(files, index)))


def staged_files(files: Files, index: Collection[str] = ()) -> tuple[str, ...]:
    """Return the files that a download with `allow_patterns` writes to the volume."""
    patterns = allow_patterns(files, index)
    return tuple(name for name in files if any(fnmatchcase(name, pattern) for pattern in patterns))


def total(files: Files, names: Collection[str]) -> int:
    """Return the total bytes of these files."""
    return sum(files[name] for name in names)


def estimated_weights(hf_id: str) -> int | None:
    """Estimate a model's size in bytes from its name, for weights that were not looked up (the old ones in a swap).

    The estimate is parameters × bytes, plus 10 % for embeddings that stay unquantized and for names that round down
    ("7B" has 7.6 billion). Checked: 7B-AWQ 5.6 GB, 14B-AWQ 10 GB, 7B 15.2 GB. None if the name contains no size.
    """
    match = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)[Bb](?![a-z])", hf_id)
    if not match:
        return None
    name = hf_id.lower()
    if match_gguf := re.search(r"(?<![a-z0-9])i?q(\d)(?=_|[^a-z0-9]|$)", name):
        width = (int(match_gguf[1]) + 0.8) / 8  # Q4_K_M has 4.8 bits for each parameter
    elif "gguf" in name:
        return None
    elif re.search(r"awq|gptq|int4|4-?bit|w4a16|fp4", name):
        width = 0.72
    elif re.search(r"fp8|int8|8bit|w8a8", name):
        width = 1.0
    else:
        width = 2.0
    return int(float(match[1]) * GB * width * 1.1)


def _set_of(root: list[str], *, kind: str, stem: str) -> tuple[str, ...]:
    """Return the files of one set in this format, as one file or numbered; the usual name takes precedence."""
    candidates = [
        name
        for name in root
        if name.endswith(f".{kind}")
        and not _VARIANT.search(name)
        and not name.startswith(("consolidated", "adapter_"))
        and not _OF_THE_TRAINER.fullmatch(name)
    ]
    shards = defaultdict[tuple[str, str], list[str]](list)
    single = []
    for name in candidates:
        if match := _SHARD.fullmatch(name):
            shards[match["stem"], match["count"]].append(name)
        else:
            single.append(name)
    # gpt-oss counts its three files from 0: 00000-of-00002 to 00002-of-00002.
    whole = {key: names for key, names in shards.items() if len(names) in (int(key[1]), int(key[1]) + 1)}
    usual = next((names for (name, _), names in sorted(whole.items()) if name == stem), None)
    if f"{stem}.{kind}" in single and not (usual and f"{stem}.{kind}.index.json" in root):
        return (f"{stem}.{kind}",)
    if usual:
        return tuple(sorted(usual))
    if whole:
        return tuple(sorted(next(iter(whole.values()))))
    return tuple(sorted(single))


def _consolidated(names: Collection[str]) -> tuple[str, ...]:
    consolidated = sorted(name for name in names if re.fullmatch(r"consolidated[^/]*\.safetensors", name))
    whole = "consolidated.safetensors"
    return (whole,) if whole in consolidated else tuple(consolidated)


def _pickles(root: list[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in root if re.fullmatch(r"(consolidated|model)[^/]*\.(pt|pth)", name)))


def _weight_patterns(files: Files, loaded: tuple[str, ...]) -> tuple[str, ...]:
    """Return these files as patterns: one pattern for a numbered set, if it matches no other file."""
    patterns: dict[str, None] = {}
    for name in loaded:
        match = _SHARD.fullmatch(name)
        pattern = f"{match['stem']}-*-of-{match['count']}.{match['format']}" if match else name
        only = all(file in loaded for file in files if fnmatchcase(file, pattern))
        patterns[pattern if only else name] = None
    return tuple(patterns)
