"""Autoscalers that start and stop an endpoint. Each file defines one autoscaler in the constant `SCALER`; no other file lists them."""

import importlib
import pkgutil
from functools import cache
from typing import Protocol

from manifests.pieces import Pieces
from manifests.platform import Platform


class Scaler(Protocol):
    """A system that sets the replicas of an endpoint, so that Stoker must not set them."""

    @property
    def name(self) -> str:
        """The name in messages."""

    def place(self, platform: Platform, pieces: Pieces) -> str:
        """The place in the repository that makes the system scale this endpoint: `FILE` or `FILE:LINE`; "" if there is none."""


@cache
def scalers() -> tuple[Scaler, ...]:
    """Every scaler, by name."""
    modules = (
        importlib.import_module(f"{__name__}.{module_info.name}") for module_info in pkgutil.iter_modules(__path__)
    )
    all_scalers: list[Scaler] = [module.SCALER for module in modules]
    return tuple(sorted(all_scalers, key=lambda scaler: scaler.name))
