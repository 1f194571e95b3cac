"""The decorator of the classes that `bot.wiring` constructs."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def component(cls: type[T]) -> type[T]:
    """Make the class a dataclass of the clients, records and other components that it uses.

    There is one object of each class, which is never compared or printed, so the class gets only `__init__`. mypy
    checks that nothing assigns to its fields. Python would generate the methods of a frozen dataclass at each start: 7
    % of the instructions of all imports (benchmarks/start.py).
    """
    return dataclass(eq=False, repr=False)(cls)
