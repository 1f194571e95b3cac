"""The deployers of a repository's files. Each file defines one in the constant `DEPLOYER`; there is no other list of them."""

import importlib
import pkgutil
from functools import cache

from manifests.deployers.deployer import Deployer, Deployment
from manifests.snapshot import Snapshot
from manifests.sources.field_map import FieldMap

__all__ = ["Deployer", "Deployment", "deployers", "deployment"]


@cache
def deployers() -> tuple[Deployer, ...]:
    """Every deployer, by name."""
    modules = (importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__))
    found: list[Deployer] = [module.DEPLOYER for module in modules if hasattr(module, "DEPLOYER")]
    return tuple(sorted(found, key=lambda each: each.name))


def deployment(
    platform: Snapshot, name: str, home: str, fields: FieldMap | None
) -> tuple[Deployer, Deployment] | tuple[None, None]:
    """Return the application of an endpoint, from the first deployer that has one."""
    for deployer in deployers():
        if found := deployer.deployment(platform, name, home, fields):
            return deployer, found
    return None, None
