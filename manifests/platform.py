"""A platform repository: its endpoints, their deployers, and its gateway."""

from difflib import get_close_matches
from typing import NamedTuple

from manifests.assembly import locate, outside, outsider
from manifests.deployers import argocd
from manifests.gateway import Entry, ModelList, model_list, model_lists
from manifests.objects import Located
from manifests.pieces import Pieces
from manifests.places import names, place_of
from manifests.snapshot import Snapshot
from manifests.tree import ManifestError


class Unknown(NamedTuple):
    """A model server that Stoker does not change: its name, its place, and the reason."""

    name: str
    home: str
    why: str


class Platform(Snapshot):
    """A platform repository at one point in time. It never changes: `with_changes` returns another one.

    Files are read, and documents are parsed, at most once.
    """

    def names(self) -> tuple[str, ...]:
        """The names under which endpoints may exist, also those outside the contract."""
        return names(self)

    def locate(self, name: str) -> Pieces | None:
        """The pieces of an endpoint, or None if it does not exist or is outside the contract."""
        return locate(self, name)

    def outsider(self, name: str) -> Pieces | None:
        """The pieces of a workload outside the contract: its name and its GPUs, but not its model."""
        return outsider(self, name)

    def endpoints(self) -> tuple[Pieces, ...]:
        """The pieces of every endpoint inside the contract, by name."""
        return tuple(pieces for name in self.names() if (pieces := self.locate(name)) is not None)

    def unknown(self) -> tuple[Unknown, ...]:
        """The servers that are outside the contract."""
        found = [(name, outside(self, name)) for name in self.names() if self.locate(name) is None]
        others = [
            Unknown(
                f"{endpoint.name}/{endpoint.second_engine}",
                endpoint.home,
                f"{endpoint.second_engine} is a second engine in the pod of {endpoint.name}",
            )
            for endpoint in self.endpoints()
            if endpoint.second_engine
        ]
        return (*(Unknown(name, self._home(name), why) for name, why in found if why), *others)

    def require(self, name: str) -> Pieces:
        """The pieces of an endpoint; raises ManifestError with the reason if there are none."""
        there = self.names()
        pieces = self.locate(name) if name in there else None
        if pieces is not None:
            return pieces
        inside = [each for each in there if self.locate(each)]
        known = ", ".join(inside) or "none"
        if name in there:
            why = outside(self, name) or "no Deployment there names a model (--model or --model-id)"
            raise ManifestError(
                f"{self._home(name)} is outside the contract: {why}, so change it by hand. "
                f"Endpoints that can be changed: {known}."
            )
        near = get_close_matches(name.lower(), inside, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {known}."
        where = f" in {self.layout.serving_dir}" if self.files(self.layout.serving_dir) else ""
        raise ManifestError(f"There is no endpoint {name!r}{where}. {hint}")

    def applications(self) -> tuple[Located, ...]:
        """Every Argo CD Application of the catalog; without a catalog, of the repository."""
        return argocd.applications(self)

    def model_lists(self) -> tuple[ModelList, ...]:
        """LiteLLM's lists of models."""
        return model_lists(self)

    def entries(self) -> tuple[Entry, ...]:
        """LiteLLM's entries, in file order."""
        return model_list(self)

    def _home(self, name: str) -> str:
        found = place_of(self, name)
        return found.home if found is not None else self.layout.home(name)
