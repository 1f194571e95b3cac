"""Figures that engines logged at boot: compared with the estimate, and used for the next estimate.

An engine logs the memory of the model, the memory left for the cache, and the resulting number of tokens
(`Engine.loading`). Impossible figures are ignored, so that no log can distort the next estimate.
"""

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field

from manifests.engines import LoadingLog, engines
from manifests.sizing.quantities import GIB

ModelClass = Literal["text", "vision", "pooling"]

KEPT = 5
"""Number of recent boots that are considered per engine version, GPU and class of models."""

_OVERHEAD_GIB = (0.3, 12.0)
_ALIKE = 1.5
_WEIGHTS_FACTOR = (0.9, 1.35)


class Report(BaseModel, frozen=True, defer_build=True):
    """Figures in GiB that one engine logged; `tokens` is 0 if it logged none."""

    model_gib: float
    available_gib: float
    tokens: int = 0
    version: str = ""


class Observation(BaseModel, frozen=True, defer_build=True):
    """Result of one boot: the engine's overhead besides weights and cache, and the weights relative to their files."""

    hf_id: str = Field(max_length=200)
    engine: str = Field(max_length=20)
    gpu: str = Field(max_length=60)
    model_class: ModelClass
    weight_bytes: int = Field(gt=0, lt=2**46)
    overhead_bytes: int = Field(gt=0, lt=2**40)
    weights_factor: float = Field(gt=0, lt=10)

    @property
    def key(self) -> str:
        """The group of comparable boots: same engine version, same GPU, same class of models."""
        return f"{self.engine}|{self.gpu}|{self.model_class}"


class Learned(BaseModel, frozen=True, defer_build=True):
    """The maximum of the results of several comparable boots.

    `comparable` is true if they include a model of this size or larger: activations grow with the model, so the
    overhead of a small model does not lower the estimate for a large one.
    """

    overhead_bytes: int
    weights_factor: float
    boots: int
    engine: str
    comparable: bool


def read_report(log: str) -> Report | None:
    """Return the figures of the last boot in an engine's log; None if one of them is missing."""
    return next((report for engine in engines() if engine.loading and (report := _read(log, engine.loading))), None)


def _read(log: str, patterns: LoadingLog) -> Report | None:
    model, cache, tokens, version = (
        matches[-1] if (matches := pattern.findall(log)) else ""
        for pattern in (patterns.model, patterns.cache, patterns.tokens, patterns.version)
    )
    if not model or not cache:
        return None
    return Report(
        model_gib=float(model), available_gib=float(cache), tokens=int(tokens.replace(",", "") or 0), version=version
    )


def observe(
    report: Report, *, hf_id: str, gpu: str, budget: int, weights: int, model_class: ModelClass, engine: str
) -> Observation | None:
    """Return the result of a boot; None if its figures are impossible. `budget` is GPU memory × utilization in bytes."""
    overhead = budget / GIB - report.model_gib - report.available_gib
    factor = report.model_gib * GIB / weights if weights else 0.0
    if not _OVERHEAD_GIB[0] <= overhead <= _OVERHEAD_GIB[1] or not _WEIGHTS_FACTOR[0] <= factor <= _WEIGHTS_FACTOR[1]:
        return None
    return Observation(
        hf_id=hf_id,
        engine=report.version or engine,
        gpu=gpu,
        model_class=model_class,
        weight_bytes=weights,
        overhead_bytes=int(overhead * GIB),
        weights_factor=round(max(1.0, factor), 3),
    )


def learned(
    observed: Iterable[Observation], *, engine: str, gpu: str, model_class: ModelClass, weights: int
) -> Learned | None:
    """Return the results of comparable boots, for a model with `weights` bytes.

    If `engine` is empty, the newest engine on this GPU is used. Returns None if there is no such boot.
    """
    alike = [
        observation for observation in observed if (observation.gpu, observation.model_class) == (gpu, model_class)
    ]
    newest = max((observation.engine for observation in alike), key=_order, default="")
    counted = [observation for observation in alike if observation.engine == (engine or newest)][-KEPT:]
    if not counted:
        return None
    return Learned(
        overhead_bytes=max(observation.overhead_bytes for observation in counted),
        weights_factor=max(observation.weights_factor for observation in counted),
        boots=len(counted),
        engine=counted[0].engine,
        comparable=any(observation.weight_bytes * _ALIKE >= weights for observation in counted),
    )


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
