"""The wiring constructs every object of the bot from the types that its constructor names."""

from dataclasses import dataclass, fields
from typing import Any

import pytest

from bot.engine.decisions import Decisions
from bot.engine.lifecycle import Lifecycle
from bot.gpu.guard import Guard
from bot.services import Services
from bot.tasks import all_tasks
from bot.web import HttpPort
from bot.wiring import Wiring
from commands.gate import Gate
from commands.listeners import LISTENERS, Responders


def wiring() -> Wiring:
    """Return the wiring of services that are never called."""
    anything: Any = object()
    return Wiring(Services(**{field.name: anything for field in fields(Services)}))


@pytest.mark.parametrize("cls", [*LISTENERS, Gate, Responders, Guard, HttpPort])
def test_every_part_of_the_bot_can_be_constructed(cls: type[object]) -> None:
    assert isinstance(wiring().of(cls), cls)


def test_every_task_has_its_own_name() -> None:
    names = [task.__name__ for task in all_tasks(wiring())]
    assert len(set(names)) == len(names) > 15


def test_there_is_one_object_of_each_class() -> None:
    objects = wiring()
    assert objects.of(Decisions).lifecycle is objects.of(Lifecycle)


def test_a_class_that_needs_an_unknown_value_is_refused() -> None:
    """A default must never take the place of a missing service."""

    @dataclass(frozen=True)
    class Counting:
        limit: int

    Counting.__module__ = "bot.counting"
    with pytest.raises(TypeError, match=r"int.* is neither in Services nor a class of the bot"):
        wiring().of(Counting)


def test_a_class_that_needs_itself_is_refused() -> None:
    class Circle:
        def __init__(self, circle: "Circle") -> None: ...

    Circle.__module__ = "bot.circle"
    Circle.__init__.__annotations__["circle"] = Circle
    with pytest.raises(TypeError, match="Circle depends on itself"):
        wiring().of(Circle)
