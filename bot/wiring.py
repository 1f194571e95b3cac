"""Constructs the objects of the bot, each with the dependencies in its constructor: clients, records, and other
objects.
"""

from typing import Any, TypeVar, cast, get_type_hints

from bot.services import Services

T = TypeVar("T")

_PACKAGES = ("bot.", "commands.")


class Wiring:
    """The objects of one running bot: one of each class, constructed when it is first used.

    The types in a class's constructor determine its arguments: a field of `Services`, or another class of the bot.
    Nothing is configured here: a class that needs another object only adds its type to the constructor.
    """

    def __init__(self, svc: Services) -> None:
        fields = get_type_hints(type(svc))
        self._objects: dict[object, object] = {hint: getattr(svc, name) for name, hint in fields.items()}
        if len(self._objects) < len(fields):
            raise TypeError(
                "two fields of Services have the same type, so a constructor cannot name the one that it takes"
            )

    def of(self, cls: type[T]) -> T:
        """The object of this class. Raises TypeError if its constructor takes something else."""
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
            raise TypeError(
                f"{cls.__name__} needs itself: move the part that it shares with the others into another class"
            ) from None
