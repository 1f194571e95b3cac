"""Autoscalers that start and stop an endpoint. Each file defines one in the constant `SCALER`; there is no other list of them."""

import importlib
import pkgutil
from functools import cache
from typing import Protocol

from manifests.pieces import Pieces
from manifests.platform import Platform


class Scaler(Protocol):
    """Something that sets the replicas of an endpoint, so that Stoker must not."""

    @property
    def name(self) -> str:
        """Its name for people."""

    def place(self, platform: Platform, pieces: Pieces) -> str:
        """The place in the repository that makes it scale this endpoint, as `FILE` or `FILE:LINE`; empty if it does not."""


@cache
def scalers() -> tuple[Scaler, ...]:
    """Every scaler, by name."""
    modules = (importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__))
    found: list[Scaler] = [module.SCALER for module in modules]
    return tuple(sorted(found, key=lambda each: each.name))
