"""Every form in which an endpoint is declared. Each file of this package with a constant `SOURCE` is one form."""

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
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    )
    found: list[EndpointSource] = [module.SOURCE for module in modules if hasattr(module, "SOURCE")]
    return tuple(sorted(found, key=lambda each: each.name))


def kinds() -> frozenset[str]:
    """The kinds of objects that may serve a model."""
    return frozenset(kind for source in sources() for kind in source.kinds)


@remembered
def candidates(tree: Tree, path: str) -> tuple[Candidate, ...]:
    """Everything in a file that serves a model, or looks like it."""
    return tuple(
        candidate
        for kind, each in objects(tree, path)
        for source in sources()
        if kind in source.kinds
        for candidate in source.candidates(tree, kind, each)
    )
