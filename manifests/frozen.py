"""The decorator of the frozen records."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make the class a dataclass whose objects are compared, hashed and shown by their fields.

    It behaves like `dataclass(frozen=True)`, except that mypy, and not Python, refuses an assignment to a field. All
    classes share these methods: Python would generate six methods for each class at each start, which takes 5 % of the
    instructions of all imports (benchmarks/start.py).
    """
    dataclass(eq=False, repr=False)(cls)
    for name, method in (("__eq__", _equal), ("__hash__", _hash), ("__repr__", _show)):
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls


def _values(record: object) -> tuple[Hashable, ...]:
    return tuple(getattr(record, name) for name in record.__dataclass_fields__)  # type: ignore[attr-defined]


def _equal(self: object, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _show(self: object) -> str:
    names = self.__dataclass_fields__  # type: ignore[attr-defined]
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"
