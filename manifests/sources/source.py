"""The interface of a form in which endpoints are declared."""

from collections.abc import Callable, Iterator

from manifests.frozen import frozen
from manifests.objects import Located
from manifests.sources.candidate import Candidate
from manifests.tree import Tree


@frozen
class EndpointSource:
    """One form: the kinds of its objects, and a function that yields the servers, or possible servers, in such an object.

    A candidate has the places (`Site`) of the values that may be changed. Other text in the object is never changed.
    """

    name: str
    kinds: frozenset[str]
    candidates: Callable[[Tree, str, Located], Iterator[Candidate]]
