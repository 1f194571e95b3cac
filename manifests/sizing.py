"""Whether a model can run on the machine: the only place that knows the arithmetic of weights, cache and memory.

Four checks, each against its own limit (a model may pass three of them and still never boot):
weights against the host's memory, against the container's memory limit, against the GPU together with the KV cache,
and against the volume that caches them. Byte counts are exact; "GB" in a text is 10^9 bytes, "GiB" is 2^30.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from manifests.tree import ManifestError

GB = 10**9
GIB = 2**30

# What vLLM takes on the GPU beside weights and cache. It prints it at boot ("non_torch_memory takes …; PyTorch activation
# peak memory takes …"): 0.03 + 1.42 GiB for a 7B of the Qwen2.5 family (https://github.com/vllm-project/vllm/issues/13882),
# 0.16 + 0.94 GiB for a 16B mixture of experts (https://github.com/vllm-project/vllm/pull/13109).
GPU_OVERHEAD = 3 * GIB // 2

# What the host needs beside the weights that are staged through it: kubelet and system (GKE reserves 25 % of the first
# 4 GiB, 20 % of the next 4, 10 % of the next 8: 2.6 GiB of 16, see "Plan node sizes" in GKE's documentation).
HOST_COMFORT = 0.83

# What a file system keeps of a volume for itself (ext4: inodes and the 5 % reserved for root).
VOLUME_OVERHEAD = 1.07

# A context shorter than this is of no use for chat or code.
LEAST_CONTEXT = 2048

Verdict = Literal["fits", "tight", "does not fit"]


# Google's G2 machines with one L4: memory in GiB (compute documentation, "Accelerator-optimized machines").
_G2 = {"g2-standard-4": 16, "g2-standard-8": 32, "g2-standard-12": 48, "g2-standard-16": 64, "g2-standard-32": 128}

# The figures that sizing cannot do without, the option that gives each, and how to write it.
FIGURES = {
    "weights": ("weight_bytes", "the size of the weights", "5.6GB"),
    "layers": ("layers", "the number of layers", "28"),
    "kv-heads": ("kv_heads", "the number of KV heads", "4"),
    "head-size": ("head_size", "the size of a head", "128"),
    "max-context": ("max_context", "the longest context that the model reads", "32768"),
}


class MissingFigures(ManifestError):
    """What cannot be sized, since nobody said how large it is. `options` are the keys of `FIGURES` to ask for."""

    remedy = "Give the figures that the message lists; the form has a field for each."

    def __init__(self, hf_id: str, options: tuple[str, ...]) -> None:
        unknown = ", ".join(FIGURES[option][1] for option in options)
        given = " ".join(f"{option}={FIGURES[option][2]}" for option in options)
        super().__init__(
            f"Nobody can say whether {hf_id} fits: Hugging Face did not tell {unknown}. "
            f"Give what is in the model's config.json and file list, like {given}."
        )
        self.options = options


class ModelFacts(BaseModel, frozen=True):
    """What Hugging Face knows about a model. Zeros and None mean unknown; CPU models have no KV cache to size.

    `weight_bytes` are the files that the engine loads; `layers` are those that keep keys and values for each token;
    `hidden_size` of an embedding model is its vectors' dimension.
    """

    hf_id: str
    revision: str = ""
    weight_bytes: int = 0
    layers: int = 0
    kv_heads: int = 0
    head_size: int = 0
    hidden_size: int = 0
    dtype: str = "bfloat16"
    quantization: str | None = None
    max_context: int = 0
    gated: bool | str = False
    licence: str | None = None
    chat: bool | None = True
    architecture: str = ""
    pipeline_tag: str | None = None

    @classmethod
    def unseen(cls, hf_id: str) -> "ModelFacts":
        """A model that nobody could look up. Only what its name says by convention is taken from it: the format."""
        found = re.search(r"[-_.](awq|gptq|fp8)\b", hf_id, re.IGNORECASE)
        return cls(hf_id=hf_id, quantization=found[1].lower() if found else None, chat=None)

    def with_figures(self, given: Mapping[str, str]) -> "ModelFacts":
        """The same with figures that a person gave, by the keys of `FIGURES`; what was said wins."""
        return self.model_copy(update={FIGURES[key][0]: _figure(key, text) for key, text in given.items()})

    @property
    def gpu_bytes(self) -> int:
        """The weights on the GPU: with `--dtype auto` vLLM casts float32 to float16 (its documentation of that argument)."""
        return (
            self.weight_bytes // 2
            if self.dtype in ("float32", "float") and not self.quantization
            else self.weight_bytes
        )

    def missing(self, *, gpu: bool) -> tuple[str, ...]:
        """The figures without which sizing would be a guess."""
        needed = FIGURES if gpu else ("weights",)
        return tuple(key for key in needed if not getattr(self, FIGURES[key][0]))


class Machine(BaseModel, frozen=True):
    """The node that serves. The default is Google's g2-standard-4: 16 GB of memory and one L4.

    An L4 is sold with 24 GB, of which `nvidia-smi` shows 23034 MiB: what ECC and the driver leave.
    """

    vram_bytes: int = 23034 * 2**20
    host_memory_bytes: int = 16 * GIB
    gpu: str = "L4"
    name: str = "g2-standard-4"


class Number(BaseModel, frozen=True):
    """One row of the verdict: what is needed against what there is."""

    label: str
    value: str
    limit: str
    ok: bool


class Sizing(BaseModel, frozen=True):
    """The verdict with its numbers. `context` is what will be served, `largest_context` what would still fit."""

    verdict: Verdict
    numbers: tuple[Number, ...]
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    context: int = 0
    largest_context: int = 0
    storage: str = ""


def _figure(key: str, text: str) -> int:
    try:
        number = quantity_bytes(re.sub(r"i?B$", lambda unit: unit[0][:-1], text)) if key == "weights" else int(text)
    except ValueError:
        number = 0
    if number <= 0:
        raise ManifestError(f"{key}={text!r} cannot be read: {FIGURES[key][1]} is given like {FIGURES[key][2]}.")
    return number


def kv_bytes_per_token(facts: ModelFacts) -> int:
    """Bytes of KV cache for one token: 2 (key and value) × layers × KV heads × head size × bytes of the cache's dtype.

    Source: the PagedAttention paper (Kwon et al. 2023, section 3) with grouped-query attention, where only the KV heads
    are kept. The cache has the dtype of the activations also when the weights are quantized: 2 bytes for fp16 and bf16,
    the only ones that `--dtype auto` takes. Qwen2.5-7B: 2 × 28 × 4 × 128 × 2 = 57344 bytes.
    """
    return 2 * facts.layers * facts.kv_heads * facts.head_size * 2


def largest_context(facts: ModelFacts, machine: Machine, gpu_utilization: float) -> int:
    """The longest context whose cache fits beside the weights, at most the model's own, in whole 1024 tokens.

    vLLM refuses to start when one request of `--max-model-len` tokens has no room in the cache, so this is its limit:
    (VRAM × utilization - weights - overhead) / bytes per token.
    """
    per_token = kv_bytes_per_token(facts)
    room = _gpu_budget(machine, gpu_utilization) - facts.gpu_bytes - GPU_OVERHEAD
    if per_token == 0:
        return facts.max_context
    fitting = max(0, room // per_token)
    if facts.max_context and fitting >= facts.max_context:
        return facts.max_context
    return fitting // 1024 * 1024


def storage_for(*weights: int) -> str:
    """A volume that holds these weights side by side, with a tenth to spare, in steps of 5 GiB.

    A swap keeps the old weights in the cache until somebody clears it, so it passes both.
    """
    need = sum(weights) * 1.1 + GIB
    return f"{max(5, math.ceil(need / GIB / 5) * 5)}Gi"


def volume_need(weights: int) -> int:
    """Bytes of a volume that holds so many bytes of files."""
    return int(weights * VOLUME_OVERHEAD)


def quantity_bytes(quantity: str) -> int:
    """Bytes of a Kubernetes quantity such as `20Gi`, `500M`, `2e10` or `1073741824`; ValueError when it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,2})|([KMGTP]i|[kMGTP]))?", quantity.strip())
    if not match:
        raise ValueError(f"{quantity!r} is not a quantity like 20Gi")
    factor = 1
    if match[3]:
        power = "kMGTP".index(match[3][0].replace("K", "k")) + 1
        factor = 1024**power if match[3].endswith("i") else 1000**power
    return int(float(match[1] + (match[2] or "")) * factor)


def tokens(text: str) -> int | None:
    """A number of tokens as vLLM reads `--max-model-len`: 16384, 16k (thousands), 16K (1024 each); None for no number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmKM]?)", text.strip())
    if not match or ("." in match[1] and not match[2]):
        return None
    return int(float(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}[match[2]])


def estimated_weights(hf_id: str) -> int | None:
    """A guess of a model's size in bytes from its name, for weights that nobody looked up (the old ones in a swap).

    Parameters × bytes each, with a tenth for embeddings that stay unquantized and for names that round down
    ("7B" has 7.6 billion). Checked: 7B-AWQ 5.6 GB, 14B-AWQ 10 GB, 7B 15.2 GB. None when the name tells no size.
    """
    match = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)[Bb](?![a-z])", hf_id)
    if not match:
        return None
    name = hf_id.lower()
    if re.search(r"awq|gptq|int4|4bit|w4a16", name):
        width = 0.72
    elif re.search(r"fp8|int8|8bit|w8a8", name):
        width = 1.0
    else:
        width = 2.0
    return int(float(match[1]) * GB * width * 1.1)


def size(
    facts: ModelFacts,
    machine: Machine,
    *,
    context: int | None = None,
    gpu_utilization: float = 0.9,
    memory_limit_bytes: int | None = None,
    storage: str | None = None,
    kept_weight_bytes: int = 0,
    gpu: bool = True,
) -> Sizing:
    """Weigh a model against a machine.

    `context` None asks for the largest that fits; `storage` None for a suggestion; `kept_weight_bytes` are older
    weights that stay in the same volume.
    """
    largest = largest_context(facts, machine, gpu_utilization) if gpu else facts.max_context
    served = largest if context is None else context
    volume = storage or storage_for(facts.weight_bytes, kept_weight_bytes)
    numbers = [_host_row(facts, machine)]
    reasons = [] if numbers[0].ok else [_host_reason(facts, machine)]
    if memory_limit_bytes is not None:
        numbers.append(_row("Weights, container's memory limit", facts.weight_bytes, memory_limit_bytes))
        if not numbers[-1].ok:
            reasons.append(
                f"the weights ({_gb(facts.weight_bytes)}) pass the container's memory limit "
                f"({_gib(memory_limit_bytes)}); raise resources.limits.memory"
            )
    if gpu:
        numbers.append(_gpu_row(facts, machine, gpu_utilization, served))
        reasons += _gpu_reasons(facts, machine, gpu_utilization, served, largest)
    kept_together = facts.weight_bytes + kept_weight_bytes
    numbers.append(_row("Weights, volume", volume_need(kept_together), quantity_bytes(volume)))
    if not numbers[-1].ok:
        reasons.append(
            f"the volume of {volume} does not hold {_gb(kept_together)} of weights; "
            f"ask for storage={storage_for(facts.weight_bytes, kept_weight_bytes)}"
        )
    warnings = _tightness(facts, machine, served, largest, gpu)
    verdict: Verdict = "does not fit" if reasons else "tight" if warnings else "fits"
    return Sizing(
        verdict=verdict,
        numbers=tuple(numbers),
        reasons=tuple(reasons),
        warnings=(*warnings, *_terms(facts)),
        context=served,
        largest_context=largest,
        storage=volume,
    )


def _gpu_budget(machine: Machine, gpu_utilization: float) -> int:
    return int(machine.vram_bytes * gpu_utilization)


def _row(label: str, value: int, limit: int) -> Number:
    return Number(label=label, value=_gib(value), limit=_gib(limit), ok=value <= limit)


def _host_row(facts: ModelFacts, machine: Machine) -> Number:
    return _row(f"Weights, host memory ({machine.name})", facts.weight_bytes, machine.host_memory_bytes)


def _host_reason(facts: ModelFacts, machine: Machine) -> str:
    larger = next((name for name, gib in _G2.items() if gib * GIB * HOST_COMFORT >= facts.weight_bytes), None)
    machines = f"a larger machine ({larger})" if larger and machine.name in _G2 else "a larger machine"
    return (
        f"{_gb(facts.weight_bytes)} of weights are staged through the host's memory, and {machine.name} has "
        f"{_gib(machine.host_memory_bytes)}; take a smaller or more strongly quantized model, or {machines}"
    )


def _gpu_row(facts: ModelFacts, machine: Machine, gpu_utilization: float, context: int) -> Number:
    cache = kv_bytes_per_token(facts) * context
    need = facts.gpu_bytes + cache + GPU_OVERHEAD
    budget = _gpu_budget(machine, gpu_utilization)
    return Number(
        label=f"GPU ({machine.gpu} × {gpu_utilization:g})",
        value=f"{_gib(need)} (weights {_gib(facts.gpu_bytes)}, cache for {context} tokens {_gib(cache)}, "
        f"overhead {_gib(GPU_OVERHEAD)})",
        limit=_gib(budget),
        ok=need <= budget and context > 0,
    )


def _gpu_reasons(
    facts: ModelFacts, machine: Machine, gpu_utilization: float, context: int, largest: int
) -> tuple[str, ...]:
    budget = _gpu_budget(machine, gpu_utilization)
    needed = facts.gpu_bytes + GPU_OVERHEAD
    shortest = min(LEAST_CONTEXT, facts.max_context or LEAST_CONTEXT)
    if largest < shortest:
        return (
            f"weights and overhead ({_gib(needed)}) leave no room for a cache in {_gib(budget)} of GPU memory "
            f"({machine.gpu} × {gpu_utilization:g}); take a smaller or quantized model",
        )
    if facts.max_context and context > facts.max_context:
        return (f"the model reads at most {facts.max_context} tokens; ask for context={largest} or less",)
    if context > largest:
        return (
            f"a context of {context} tokens needs {_gib(needed + kv_bytes_per_token(facts) * context)} of GPU memory, "
            f"and there are {_gib(budget)}; ask for context={largest} or less",
        )
    return ()


def _tightness(facts: ModelFacts, machine: Machine, context: int, largest: int, gpu: bool) -> list[str]:
    found = []
    if machine.host_memory_bytes * HOST_COMFORT < facts.weight_bytes <= machine.host_memory_bytes:
        found.append(
            f"Host memory is tight: {_gb(facts.weight_bytes)} of weights pass through {machine.name}'s "
            f"{_gib(machine.host_memory_bytes)}, part of which the system keeps; loading may be slow or be killed."
        )
    if gpu and 0 < largest < 2 * context and largest < facts.max_context:
        found.append(
            f"The KV cache is tight: one request of {context} tokens fills most of it (room for {largest}), "
            "so long requests run one after the other."
        )
    return found


def _terms(facts: ModelFacts) -> list[str]:
    """Warnings that are not about size: who may use the weights."""
    found = []
    if facts.gated:
        found.append(f"{facts.hf_id} is gated: accept its terms on Hugging Face and give the pod a token, or stage it.")
    licence = (facts.licence or "").lower()
    if any(word in licence for word in ("-nc", "non-commercial", "noncommercial", "research")):
        found.append(f"The licence of {facts.hf_id} ({facts.licence}) does not allow commercial use.")
    return found


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"


def _gb(number: int) -> str:
    return f"{number / GB:.1f} GB ({_gib(number)})"
