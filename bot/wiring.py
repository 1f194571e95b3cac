"""Constructs the objects of the bot with their dependencies: clients, records, and other objects."""

from typing import Any, TypeVar, cast, get_type_hints

from bot.services import Services

T = TypeVar("T")

_PACKAGES = ("bot.", "commands.")


class Wiring:
    """The objects of one running bot: one object of each class, constructed at its first use.

    The types in the constructor of a class determine its arguments: a field of `Services`, or another class of the bot.
    To use another object, a class adds a parameter of its type to the constructor; nothing is configured here.
    """

    def __init__(self, svc: Services) -> None:
        fields = get_type_hints(type(svc))
        self._objects: dict[object, object] = {hint: getattr(svc, name) for name, hint in fields.items()}
        if len(self._objects) < len(fields):
            raise TypeError(
                "two fields of Services have the same type, so the type does not determine the argument of a constructor"
            )

    def of(self, cls: type[T]) -> T:
        """Return the object of this class. Raises TypeError if its constructor has another type of parameter."""
        if cls not in self._objects:
            self._objects[cls] = self._construct(cls)
        return cast("T", self._objects[cls])

    def _construct(self, cls: Any) -> object:
        if not getattr(cls, "__module__", "").startswith(_PACKAGES):
            raise TypeError(f"{cls} is neither in Services nor a class of the bot")
        takes = get_type_hints(cls.__init__)
        takes.pop("return", None)
        try:
            return cls(**{name: self.of(hint) for name, hint in takes.items()})
        except RecursionError:
            raise TypeError(f"{cls.__name__} depends on itself: move the shared part into another class") from None
