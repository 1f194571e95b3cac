"""The gateways through which tenants reach models. Each file defines one gateway in the constant `GATEWAY`.

Stoker changes only the routes of LiteLLM. It only recognises the other gateways: it refuses to change a name that one
of their routes contains and shows the place of the route, and `stoker init` reports these gateways.
"""

import importlib
import pkgutil
from functools import cache
from typing import NamedTuple, Protocol

from manifests.snapshot import Snapshot


class Route(NamedTuple):
    """A route to a model: the model name in the request, the Service or backend, and the place of the route.

    `alias` is "" if the route does not depend on the model name.
    """

    alias: str
    target: str
    path: str
    line: int


class Gateway(Protocol):
    """Reads the routes of one gateway from a repository; no routes if the gateway is not used."""

    @property
    def name(self) -> str:
        """The name in messages."""

    @property
    def changes(self) -> bool:
        """True if Stoker adds, changes and removes its routes."""

    def routes(self, platform: Snapshot) -> tuple[Route, ...]:
        """Every route, in file order."""


@cache
def gateways() -> tuple[Gateway, ...]:
    """Every gateway, by name."""
    modules = (
        importlib.import_module(f"{__name__}.{module_info.name}") for module_info in pkgutil.iter_modules(__path__)
    )
    all_gateways: list[Gateway] = [module.GATEWAY for module in modules]
    return tuple(sorted(all_gateways, key=lambda gateway: gateway.name))
