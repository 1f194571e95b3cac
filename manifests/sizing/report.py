"""The requirements of a model, shown before a pull request is opened: one row per model."""

from typing import Literal

from pydantic import BaseModel

from manifests.sizing.facts import Kind, ModelFacts, kv_bytes_per_token
from manifests.sizing.fit import USUAL_CONTEXT, Number, Overhead, Sizing, size, storage_for
from manifests.sizing.flags import KERNELS, Version, flags_for, needs_remote_code, on_cpu
from manifests.sizing.licence import terms
from manifests.sizing.machine import Machine
from manifests.sizing.quantities import quantity_bytes


class Wish(BaseModel, frozen=True, defer_build=True):
    """The request for a report. A field that is None is derived, or taken from the template.

    Without a `template_context`, the context is 16384 tokens, enough for chat and code. `template_context` and
    `template_memory_bytes` are the values of the endpoint from which the new endpoint is copied.
    """

    context: int | None = None
    gpu_utilization: float | None = None
    quantization: str | None = None
    storage: str | None = None
    memory_bytes: int | None = None
    template_context: int | None = None
    template_memory_bytes: int | None = None
    template_gpu_utilization: float | None = None
    engine: Version | None = None


class Fit(BaseModel, frozen=True, defer_build=True):
    """The result of `fit`, in bytes and tokens.

    `context` is the value that Stoker would write as `--max-model-len`; 0 if it writes none, so that the model's own
    context applies. `max_context` is the largest context of this model on this machine; None if neither limits it; 0
    if the model does not fit.
    """

    hf_id: str
    kind: Kind | None
    weights_bytes: int
    repo_bytes: int
    staged_bytes: int
    kv_bytes_per_token: int
    context: int
    max_context: int | None
    verdict: Literal["fits", "tight", "refused"]
    reasons: tuple[str, ...]
    flags: tuple[str, ...]
    storage_bytes: int
    memory_bytes: int
    licence: str | None
    warnings: tuple[str, ...]


class Account(BaseModel, frozen=True, defer_build=True):
    """A fit with the numbers behind it."""

    fit: Fit
    numbers: tuple[Number, ...]
    cache: str


def account(facts: ModelFacts, machine: Machine, wish: Wish, overhead: Overhead | None = None) -> Account:
    """Return the requirements of a model on this machine, and whether it fits."""
    gpu = not on_cpu(facts)
    sizing = size(
        facts,
        machine,
        context=wish.context,
        longest_wanted=wish.template_context or USUAL_CONTEXT,
        gpu_utilization=wish.gpu_utilization or wish.template_gpu_utilization or 0.9,
        memory_limit_bytes=wish.template_memory_bytes if gpu else None,
        memory_bytes=wish.memory_bytes,
        storage=wish.storage or storage_for(facts.staged, facts.staged),
        gpu=gpu,
        overhead=overhead,
        engine=wish.engine,
    )
    derived = flags_for(facts, wish.engine)
    warnings = [*sizing.warnings, *derived.warnings, *terms(facts)]
    if needs_remote_code(facts):
        warnings.append(
            f"{facts.hf_id} runs Python code from its own repository: read the code, and allow it with "
            "arg=--trust-remote-code."
        )
    return Account(
        fit=Fit(
            hf_id=facts.hf_id,
            kind=facts.kind,
            weights_bytes=facts.weight_bytes,
            repo_bytes=facts.repo_bytes or facts.weight_bytes,
            staged_bytes=facts.staged,
            kv_bytes_per_token=kv_bytes_per_token(facts),
            context=sizing.context,
            max_context=_longest(facts, sizing),
            verdict="refused" if sizing.verdict == "does not fit" else sizing.verdict,
            reasons=sizing.reasons,
            flags=(*_quantization(facts, wish, gpu=gpu), *derived.all),
            storage_bytes=quantity_bytes(sizing.storage),
            memory_bytes=sizing.memory_bytes,
            licence=facts.licence,
            warnings=tuple(warnings),
        ),
        numbers=sizing.numbers,
        cache=str(facts.kept),
    )


def _longest(facts: ModelFacts, sizing: Sizing) -> int | None:
    return None if facts.unlimited and sizing.verdict != "does not fit" else sizing.largest_context


def _quantization(facts: ModelFacts, wish: Wish, *, gpu: bool) -> tuple[str, ...]:
    chosen = wish.quantization or KERNELS.get(facts.quantization or "", "none")
    return (f"--quantization={chosen}",) if gpu and chosen != "none" and not facts.unservable else ()
