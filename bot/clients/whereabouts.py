"""The Deployment of each endpoint in the repository, with its namespace."""

from collections.abc import Mapping
from typing import NamedTuple

from bot.errors import BotError


class Address(NamedTuple):
    """The namespace and the name of a Deployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Whereabouts:
    """Maps endpoints to Deployments, according to the repository when it was last read.

    `namespaces` are those in which Stoker may start and stop models; the first one is the home namespace. An endpoint
    that the repository does not contain has a Deployment with its name in the home namespace.
    """

    def __init__(self, *namespaces: str) -> None:
        self.namespaces = tuple(dict.fromkeys(namespaces))
        self._places: dict[str, Address] = {}
        self._models: dict[Address, str] = {}
        self._deployers: dict[str, str] = {}

    @property
    def home(self) -> str:
        return self.namespaces[0]

    @property
    def is_loaded(self) -> bool:
        """True if the repository has been read."""
        return bool(self._places)

    def update(self, places: Mapping[str, Address], deployers: Mapping[str, str] | None = None) -> None:
        """Add the repository's current content. Endpoints that were removed from the repository are kept, because they
        may still be up.
        """
        self._places |= places
        self._models = {place: model for model, place in self._places.items()}
        self._deployers |= {model: name for model, name in (deployers or {}).items() if name}

    def deployer_of(self, model: str) -> str:
        """The application that deploys a model, according to the repository; empty if unknown. This is needed for a
        Deployment that an operator creates, because it has no label with the application.
        """
        return self._deployers.get(model, "")

    def of(self, model: str) -> Address | None:
        """The Deployment of a model; None if the repository does not contain it."""
        return self._places.get(model)

    def require(self, model: str) -> Address:
        """The Deployment of a model: the Deployment in the repository, otherwise the Deployment with the model's name
        in the home namespace.

        Raises BotError if Stoker has no rights in its namespace.
        """
        place = self.of(model) or Address(self.home, model)
        if place.namespace not in self.namespaces:
            raise BotError(
                f"{model} runs in namespace {place.namespace}, where Stoker has no rights: add the namespace to"
                " platform.namespaces, and give the bot its Role there (the chart does; `stoker rights` prints it)."
            )
        return place

    def model_at(self, address: Address, marked: str = "") -> str:
        """The endpoint that a Deployment serves, or empty. `marked` is the value of the Deployment's annotation."""
        if endpoint := self._models.get(address):
            return endpoint
        if address.namespace not in self.namespaces:
            return ""
        if marked:
            return marked
        is_known_elsewhere = self._places.get(address.name, address) != address
        return address.name if address.namespace == self.home and not is_known_elsewhere else ""
