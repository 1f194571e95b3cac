"""The gateways through which tenants reach models. Each file defines one in the constant `GATEWAY`; there is no other list of them.

Stoker changes the routes of LiteLLM. The others are recognised: a change of a name that one of their routes has is
refused with the place, and `stoker init` reports them.
"""

import importlib
import pkgutil
from functools import cache
from typing import NamedTuple, Protocol

from manifests.snapshot import Snapshot


class Route(NamedTuple):
    """A route to a model: the model name in the request ("" if the route does not depend on it), the Service or backend that it
    leads to, and its place.
    """

    alias: str
    target: str
    path: str
    line: int


class Gateway(Protocol):
    """Reads the routes of one gateway from a repository; no route if the gateway is not used there."""

    @property
    def name(self) -> str:
        """Its name for people."""

    @property
    def changes(self) -> bool:
        """True if Stoker adds, changes and removes its routes."""

    def routes(self, platform: Snapshot) -> tuple[Route, ...]:
        """Every route, in file order."""


@cache
def gateways() -> tuple[Gateway, ...]:
    """Every gateway, by name."""
    modules = (importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__))
    found: list[Gateway] = [module.GATEWAY for module in modules]
    return tuple(sorted(found, key=lambda each: each.name))
