"""The deployers of a repository's files. Each file defines one deployer in the constant `DEPLOYER`; no other file lists them."""

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
    modules = (
        importlib.import_module(f"{__name__}.{module_info.name}") for module_info in pkgutil.iter_modules(__path__)
    )
    all_deployers: list[Deployer] = [module.DEPLOYER for module in modules if hasattr(module, "DEPLOYER")]
    return tuple(sorted(all_deployers, key=lambda deployer: deployer.name))


def deployment(
    platform: Snapshot, name: str, home: str, fields: FieldMap | None
) -> tuple[Deployer, Deployment] | tuple[None, None]:
    """The object that deploys an endpoint, with its deployer: the first deployer with such an object."""
    for deployer in deployers():
        if application := deployer.deployment(platform, name, home, fields):
            return deployer, application
    return None, None
