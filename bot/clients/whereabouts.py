"""The Deployment, and its namespace, of each endpoint of the repository."""

from collections.abc import Mapping
from typing import NamedTuple

from bot.errors import BotError


class Address(NamedTuple):
    """A Deployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Whereabouts:
    """The Deployment of each endpoint, according to the repository when it was last read.

    `namespaces` are those in which Stoker may start and stop models; the first one is the home namespace. A Deployment
    there has the name of its endpoint, unless the repository contains another one.
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
    def is_taught(self) -> bool:
        """True if the repository has been read."""
        return bool(self._places)

    def learn(self, places: Mapping[str, Address], deployers: Mapping[str, str] | None = None) -> None:
        """Use the repository's current content. The place of an endpoint that was removed from it is kept, because
        the endpoint may still be up.
        """
        self._places |= places
        self._models = {place: model for model, place in self._places.items()}
        self._deployers |= {model: name for model, name in (deployers or {}).items() if name}

    def deployer_of(self, model: str) -> str:
        """The application that deploys a model, according to the repository: a Deployment that an operator creates has
        no label for it.
        """
        return self._deployers.get(model, "")

    def of(self, model: str) -> Address | None:
        """The Deployment of a model; None if the repository does not contain it."""
        return self._places.get(model)

    def require(self, model: str) -> Address:
        """The Deployment of a model, which has the model's name in the home namespace unless the repository says
        otherwise.

        Raises BotError if Stoker may do nothing in its namespace.
        """
        place = self.of(model) or Address(self.home, model)
        if place.namespace not in self.namespaces:
            raise BotError(
                f"{model} runs in namespace {place.namespace}, where Stoker has no rights: add the namespace to"
                " platform.namespaces, and give the bot its Role there (the chart does; `stoker rights` prints it)."
            )
        return place

    def model_at(self, address: Address, marked: str = "") -> str:
        """The endpoint that a Deployment serves, or empty. `marked` is the Deployment's own annotation."""
        if found := self._models.get(address):
            return found
        if address.namespace not in self.namespaces:
            return ""
        if marked:
            return marked
        is_known_elsewhere = self._places.get(address.name, address) != address
        return address.name if address.namespace == self.home and not is_known_elsewhere else ""
