"""Check whether a model can run on the machine: compare weights, cache and memory with the limits.

There are four checks, and a model that fails one of them does not boot: the weights must fit into the host's memory,
into the container's memory limit, into the GPU (together with the cache), and into the volume.
"""

import math
from typing import Literal

from pydantic import BaseModel

from manifests.sizing.facts import ModelFacts
from manifests.sizing.flags import outdated
from manifests.sizing.machine import HOST_COMFORT, Machine, larger_machine
from manifests.sizing.observed import learned
from manifests.sizing.quantities import GIB, in_gb, in_gib, quantity_bytes

# The memory that vLLM uses on the GPU besides weights and cache: peak activations, CUDA graphs (subtracted from the cache's space
# by default since vLLM 0.21), the CUDA context. Measured on an L4: 1.9 to 2.0 GiB for text models; 2.74 GiB for a 4B
# model with vision and vLLM 0.29 (0.33 besides the checkpoint, activation peak 2.17, graphs 0.24).
TEXT_OVERHEAD = 2 * GIB
VISION_OVERHEAD = 11 * GIB // 4

# From 70 GiB of GPU memory on, vLLM profiles with 8192 tokens per step instead of 2048
# (`EngineArgs.get_batch_defaults`), so peak activations are larger.
LARGE_GPU = 70 * GIB
LARGE_GPU_FACTOR = 2

# Margin for differences between drivers, engine versions and models, as a share of the GPU's memory.
MARGIN = 0.01

# Share of a volume that the file system uses (ext4: inodes and the 5 % reserved for root).
VOLUME_OVERHEAD = 1.07

# Memory of the engine's process in addition to the weights: Python, CUDA's libraries, pinned buffers. An existing limit
# with room for the smaller figure is kept; a raised limit has room for the larger figure.
PROCESS_BYTES = 4 * GIB
LEAST_PROCESS_BYTES = 2 * GIB

# The shortest context that is useful for chat or code.
LEAST_CONTEXT = 2048

# The context if neither a person nor a template sets one.
USUAL_CONTEXT = 16384

Verdict = Literal["fits", "tight", "does not fit"]
Version = tuple[int, int]


class Number(BaseModel, frozen=True, defer_build=True):
    """One row of the verdict: a required and an available amount."""

    label: str
    value: str
    limit: str
    ok: bool


class Overhead(BaseModel, frozen=True, defer_build=True):
    """The bytes that the engine uses besides weights and cache, and the source of the figure.

    `weights_factor` is the size of the weights on the GPU relative to their files.
    """

    bytes: int
    source: str
    weights_factor: float = 1.0


class Sizing(BaseModel, frozen=True, defer_build=True):
    """The verdict with its numbers.

    `context` is the context that will be served, `largest_context` the largest that fits. `context` is 0 if the engine
    gets no argument for it; both are 0 if the model does not fit. `memory_bytes` is the container's memory limit.
    """

    verdict: Verdict
    numbers: tuple[Number, ...]
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    context: int = 0
    largest_context: int = 0
    storage: str = ""
    memory_bytes: int = 0


def overhead_of(facts: ModelFacts, machine: Machine, engine: Version | None = None) -> Overhead:
    """Return the memory that vLLM uses besides weights and cache: observed at boots on this GPU, otherwise estimated."""
    amount = VISION_OVERHEAD if facts.multimodal else TEXT_OVERHEAD
    if machine.vram_bytes >= LARGE_GPU:
        amount *= LARGE_GPU_FACTOR
    margin = int(machine.vram_bytes * MARGIN)
    version = ".".join(map(str, engine)) if engine else ""
    observed = learned(
        facts.observed, engine=version, gpu=machine.gpu, model_class=facts.model_class, weights=facts.gpu_bytes
    )
    if observed is None or (not observed.comparable and observed.overhead_bytes < amount):
        return Overhead(bytes=amount + margin, source="estimated")
    boots = "1 boot" if observed.boots == 1 else f"{observed.boots} boots"
    return Overhead(
        bytes=observed.overhead_bytes + margin,
        weights_factor=observed.weights_factor,
        source=f"observed at {boots} of vLLM {observed.engine}",
    )


def largest_context(
    facts: ModelFacts, machine: Machine, gpu_utilization: float, overhead: Overhead | None = None, limit: int = 2**20
) -> int:
    """Return the longest context whose cache fits beside the weights, at most the model's own limit (`limit` if it has none).

    vLLM refuses to start if one request of `--max-model-len` tokens does not fit into the cache, so the limit is
    (memory × utilization - weights - overhead) ≥ cache of one request, rounded down to 1024 tokens.
    """
    overhead = overhead or overhead_of(facts, machine)
    room = _budget(machine, gpu_utilization) - _gpu_weights(facts, overhead) - overhead.bytes
    if room < 0:
        return 0
    longest = facts.max_context or (limit if facts.unlimited else 0)
    return facts.kept.longest(room, longest)


def storage_for(*weights: int) -> str:
    """Return the size of a volume for all these weights, with a reserve of 10 %, in steps of 5 GiB.

    A swap keeps the old weights on the volume until somebody deletes them, so the caller passes both sizes.
    """
    need = sum(weights) * 1.1 + GIB
    return f"{max(5, math.ceil(need / GIB / 5) * 5)}Gi"


def volume_need(weights: int) -> int:
    """Return the bytes of a volume that can store this many bytes of files."""
    return int(weights * VOLUME_OVERHEAD)


def memory_for(facts: ModelFacts, machine: Machine, limit: int | None) -> int:
    """Return the container's memory limit in bytes: the template's, or more if the model needs it and the node has it.

    The weights are mapped from the volume and copied to the GPU, so they pass through the container's memory as
    reclaimable cache: if weights and process need more than the node has, a limit of the node's whole memory is
    sufficient.
    """
    least = facts.weight_bytes + (LEAST_PROCESS_BYTES if facts.kept.per_token else GIB // 4)
    if limit is not None and limit >= least:
        return limit
    need = math.ceil((facts.weight_bytes * 1.1 + (PROCESS_BYTES if facts.kept.per_token else GIB)) / GIB) * GIB
    return max(limit or 0, min(need, machine.host_memory_bytes))


def size(
    facts: ModelFacts,
    machine: Machine,
    *,
    context: int | None = None,
    longest_wanted: int | None = None,
    gpu_utilization: float = 0.9,
    memory_limit_bytes: int | None = None,
    memory_bytes: int | None = None,
    storage: str | None = None,
    kept_weight_bytes: int = 0,
    gpu: bool = True,
    overhead: Overhead | None = None,
    engine: Version | None = None,
) -> Sizing:
    """Compare a model with a machine.

    If `context` is None, the largest context that fits is selected, at most `longest_wanted`; if `storage` is None, a
    size is suggested; `kept_weight_bytes` are older weights that stay on the same volume. `memory_limit_bytes` is the
    container's current limit, which may be raised; `memory_bytes` is a requested limit. `overhead` is the observed
    overhead on this GPU, `engine` the version of vLLM.
    """
    overhead = overhead or overhead_of(facts, machine, engine)
    cap = longest_wanted or USUAL_CONTEXT
    largest = largest_context(facts, machine, gpu_utilization, overhead) if gpu else facts.max_context
    served = _served(facts, context, longest_wanted, largest, cap, gpu=gpu)
    volume = storage or storage_for(facts.staged, kept_weight_bytes)
    numbers = [_host_row(facts, machine)]
    unserved = facts.unservable or outdated(facts, engine)
    reasons = [unserved] if unserved else []
    if not numbers[0].ok and not facts.unservable:
        reasons.append(_host_reason(facts, machine))
    memory = memory_bytes or memory_for(facts, machine, memory_limit_bytes)
    if memory_bytes or memory_limit_bytes is not None:
        numbers.append(_row("Weights, container's memory limit", facts.weight_bytes, memory))
        if not numbers[-1].ok and numbers[0].ok:
            reasons.append(
                f"the weights ({in_gb(facts.weight_bytes)}) are larger than the container's memory limit "
                f"({in_gib(memory)}); ask for memory={math.ceil(facts.weight_bytes * 1.1 / GIB)}Gi"
            )
    if gpu and not facts.unservable:
        numbers.append(_gpu_row(facts, machine, gpu_utilization, served, overhead))
        reasons += _gpu_reasons(facts, machine, gpu_utilization, served, largest, overhead)
    kept_together = facts.staged + kept_weight_bytes
    numbers.append(_row("Staged files, volume", volume_need(kept_together), quantity_bytes(volume)))
    if not numbers[-1].ok:
        reasons.append(
            f"the volume of {volume} is too small for {in_gb(kept_together)} of files; "
            f"ask for storage={storage_for(facts.staged, kept_weight_bytes)}"
        )
    warnings = [] if reasons else _tightness(facts, machine, served, largest, gpu=gpu)
    if facts.unservable or not numbers[0].ok:
        served = largest = 0
    verdict: Verdict = "does not fit" if reasons else "tight" if warnings else "fits"
    return Sizing(
        verdict=verdict,
        numbers=tuple(numbers),
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        context=served,
        largest_context=largest,
        storage=volume,
        memory_bytes=memory,
    )


def _served(
    facts: ModelFacts, context: int | None, longest_wanted: int | None, largest: int, cap: int, *, gpu: bool
) -> int:
    """Return the context argument for the engine; 0 for embedding models and rerankers unless it was requested.

    Those kinds use the model's own context, because a shorter context would refuse or truncate texts.
    """
    if context is not None:
        return context
    if facts.pools or not gpu:
        return 0
    if facts.unlimited and longest_wanted is None:
        return min(largest, cap)
    return min(largest, longest_wanted) if longest_wanted else largest


def _budget(machine: Machine, gpu_utilization: float) -> int:
    return int(machine.vram_bytes * gpu_utilization)


def _gpu_weights(facts: ModelFacts, overhead: Overhead) -> int:
    return int(facts.gpu_bytes * overhead.weights_factor)


def _row(label: str, value: int, limit: int) -> Number:
    return Number(label=label, value=in_gib(value), limit=in_gib(limit), ok=value <= limit)


def _host_row(facts: ModelFacts, machine: Machine) -> Number:
    return _row(f"Weights, host memory ({machine.name})", facts.weight_bytes, machine.host_memory_bytes)


def _host_reason(facts: ModelFacts, machine: Machine) -> str:
    larger = larger_machine(machine.name, facts.weight_bytes)
    machines = f"a larger machine ({larger})" if larger else "a larger machine"
    return (
        f"{in_gb(facts.weight_bytes)} of weights pass through the host's memory, but {machine.name} has "
        f"{in_gib(machine.host_memory_bytes)}; choose a smaller or more strongly quantized model, or {machines}"
    )


def _gpu_row(facts: ModelFacts, machine: Machine, gpu_utilization: float, context: int, overhead: Overhead) -> Number:
    length = context or facts.max_context
    cache = facts.kept.request_bytes(length)
    weights = _gpu_weights(facts, overhead)
    need, budget = weights + cache + overhead.bytes, _budget(machine, gpu_utilization)
    observed = "" if overhead.source == "estimated" else f", {overhead.source}"
    return Number(
        label=f"GPU ({machine.gpu}: {in_gib(machine.vram_bytes)} × {gpu_utilization:g})",
        value=f"{in_gib(need)} (weights {in_gib(weights)}, cache for {length} tokens {in_gib(cache)}"
        f"{f' at {facts.kept.per_token} bytes' if facts.kept.per_token else ''}, "
        f"overhead {in_gib(overhead.bytes)}{observed})",
        limit=in_gib(budget),
        ok=need <= budget and length > 0,
    )


def _gpu_reasons(
    facts: ModelFacts, machine: Machine, gpu_utilization: float, context: int, largest: int, overhead: Overhead
) -> tuple[str, ...]:
    budget = _budget(machine, gpu_utilization)
    needed = _gpu_weights(facts, overhead) + overhead.bytes
    shortest = min(LEAST_CONTEXT, facts.max_context or LEAST_CONTEXT)
    if largest < shortest:
        return (
            f"weights and overhead ({in_gib(needed)}) leave no room for a cache in {in_gib(budget)} of GPU memory "
            f"({machine.gpu} × {gpu_utilization:g}); choose a smaller or quantized model",
        )
    if facts.max_context and context > facts.max_context:
        return (f"the model reads at most {facts.max_context} tokens; ask for context={largest} or less",)
    length = context or facts.max_context
    if length > largest:
        subject = "a context" if context else "its own context"
        return (
            f"{subject} of {length} tokens needs {in_gib(needed + facts.kept.request_bytes(length))} of GPU memory, "
            f"but only {in_gib(budget)} are available; ask for context={largest} or less",
        )
    return ()


def _tightness(facts: ModelFacts, machine: Machine, context: int, largest: int, *, gpu: bool) -> list[str]:
    warnings = []
    if machine.host_memory_bytes * HOST_COMFORT < facts.weight_bytes <= machine.host_memory_bytes:
        warnings.append(
            f"Host memory is tight: {in_gb(facts.weight_bytes)} of weights pass through {machine.name}'s "
            f"{in_gib(machine.host_memory_bytes)}, part of which the system uses; loading may be slow, or the process may be killed."
        )
    if gpu and 0 < largest < 1.5 * context and largest < facts.max_context:
        warnings.append(
            f"The KV cache is tight: one request of {context} tokens fills most of it (room for {largest}), "
            "so long requests run one after the other."
        )
    return warnings
