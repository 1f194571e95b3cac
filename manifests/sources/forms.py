"""Every form of an endpoint's declaration. Each file of this package with a constant `SOURCE` defines one form."""

import importlib
import pkgutil
from functools import cache

from manifests import sources as package
from manifests.memory import remembered
from manifests.objects import objects
from manifests.sources.candidate import Candidate
from manifests.sources.source import EndpointSource
from manifests.tree import Tree


@cache
def sources() -> tuple[EndpointSource, ...]:
    """Every form, by name."""
    modules = (
        importlib.import_module(f"{package.__name__}.{module_info.name}")
        for module_info in pkgutil.iter_modules(package.__path__)
    )
    all_sources: list[EndpointSource] = [module.SOURCE for module in modules if hasattr(module, "SOURCE")]
    return tuple(sorted(all_sources, key=lambda source: source.name))


def kinds() -> frozenset[str]:
    """The kinds of objects that may serve a model."""
    return frozenset(kind for source in sources() for kind in source.kinds)


@remembered
def candidates(tree: Tree, path: str) -> tuple[Candidate, ...]:
    """Every server, or possible server, in a file."""
    return tuple(
        candidate
        for kind, located in objects(tree, path)
        for source in sources()
        if kind in source.kinds
        for candidate in source.candidates(tree, kind, located)
    )
