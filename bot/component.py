"""The decorator of the classes that `bot.wiring` constructs."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def component(cls: type[T]) -> type[T]:
    """Make the class a dataclass of the clients, records and other components that it uses.

    The class gets only `__init__`, because its one object is never compared or printed. mypy checks that nothing assigns
    to its fields. Generating the methods of frozen dataclasses at each start would take 7 % of the instructions of all
    imports (benchmarks/start.py).
    """
    return dataclass(eq=False, repr=False)(cls)
