"""A platform repository: its endpoints, their deployers, and its gateway."""

from difflib import get_close_matches
from typing import NamedTuple

from manifests.assembly import locate, outsider, reason_outside
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
    reason: str


class Platform(Snapshot):
    """A platform repository at one point in time. It is immutable: `with_changes` returns a new one.

    Each file is read and parsed at most once.
    """

    def names(self) -> tuple[str, ...]:
        """The names of all possible endpoints, including those outside the contract."""
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
        reasons = [(name, reason_outside(self, name)) for name in self.names() if self.locate(name) is None]
        second_engines = [
            Unknown(
                f"{endpoint.name}/{endpoint.second_engine}",
                endpoint.home,
                f"{endpoint.second_engine} is a second engine in the pod of {endpoint.name}",
            )
            for endpoint in self.endpoints()
            if endpoint.second_engine
        ]
        return (*(Unknown(name, self._home(name), reason) for name, reason in reasons if reason), *second_engines)

    def require(self, name: str) -> Pieces:
        """The pieces of an endpoint; raises ManifestError with the reason if it does not exist or is outside the contract."""
        names = self.names()
        pieces = self.locate(name) if name in names else None
        if pieces is not None:
            return pieces
        changeable = [candidate for candidate in names if self.locate(candidate)]
        choices = ", ".join(changeable) or "none"
        if name in names:
            reason = reason_outside(self, name) or "no Deployment there names a model (--model or --model-id)"
            raise ManifestError(
                f"{self._home(name)} is outside the contract: {reason}, so change it by hand. "
                f"Endpoints that can be changed: {choices}."
            )
        matches = get_close_matches(name.lower(), changeable, n=1)
        hint = f"Did you mean {matches[0]}?" if matches else f"There are: {choices}."
        place = f" in {self.layout.serving_dir}" if self.files(self.layout.serving_dir) else ""
        raise ManifestError(f"There is no endpoint {name!r}{place}. {hint}")

    def applications(self) -> tuple[Located, ...]:
        """Every Argo CD Application in the catalog, or in the whole repository if there is no catalog."""
        return argocd.applications(self)

    def model_lists(self) -> tuple[ModelList, ...]:
        """LiteLLM's lists of models."""
        return model_lists(self)

    def entries(self) -> tuple[Entry, ...]:
        """LiteLLM's entries, in file order."""
        return model_list(self)

    def _home(self, name: str) -> str:
        place = place_of(self, name)
        return place.home if place is not None else self.layout.home(name)
