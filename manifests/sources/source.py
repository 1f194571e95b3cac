"""The interface of a form in which endpoints are declared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from manifests.objects import Located
from manifests.sources.candidate import Candidate
from manifests.tree import Tree


@dataclass(frozen=True)
class EndpointSource:
    """One form: the kinds of objects that it reads, and a function that yields a candidate for each thing in an object of
    these kinds that serves a model, or looks like it.

    A candidate has the places (`Site`) of the values that may be changed; every other text in the object is not changed.
    """

    name: str
    kinds: frozenset[str]
    candidates: Callable[[Tree, str, Located], Iterator[Candidate]]
