"""References to the docket tasks, for the code that schedules them; the functions themselves are in `bot.tasks`."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypeVar

from docket import Docket

from bot.clients.payloads import SET_ASIDE as UNREADABLE
from bot.clients.payloads import clock_of
from manifests.frozen import frozen

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Awaitable[None]])


@frozen
class TaskRef(Generic[P]):
    """A reference to a task: its name, which docket stores, and the types of its arguments. Times are on the bot's
    clock.
    """

    name: str

    def add(self, docket: Docket, *, key: str, when: datetime | None = None) -> Callable[P, Awaitable[Any]]:
        """Schedule the task unless a task with this key is pending; call the result with the task's arguments."""
        return docket.add(self.name, when=clock_of(docket).real_time(when) if when else None, key=key)

    def replace(self, docket: Docket, *, key: str, when: datetime) -> Callable[P, Awaitable[Any]]:
        """Schedule the task in place of a pending task with this key; call the result with the task's arguments."""
        return docket.replace(self.name, when=clock_of(docket).real_time(when), key=key)

    def __call__(self, task: F) -> F:
        """Decorate the task's function: check that it has this name."""
        if task.__name__ != self.name:
            raise ValueError(f"docket finds a task by its function's name, and {task.__name__} is not {self.name}")
        return task


ADVANCE = TaskRef[[str]]("advance")
EXPIRE = TaskRef[[str]]("expire")
REMIND = TaskRef[[str, str]]("remind")
ESCALATE = TaskRef[[str, str]]("escalate")
FOLLOW = TaskRef[[str]]("follow")
HAND_OVER = TaskRef[[]]("hand_over")
HAND_OVER_AT = TaskRef[[]]("hand_over_at")
REFRESH_HOMES = TaskRef[[]]("refresh_homes")
SETTLE_BILL = TaskRef[[int]]("settle_bill")
DELETE_KEY = TaskRef[[str]]("delete_key")
PUBLISH_REPORT = TaskRef[[str]]("publish_report")
SHOW_PICTURE = TaskRef[[str]]("show_picture")
RECONCILE = TaskRef[[]]("reconcile")
SET_ASIDE = TaskRef[[str, str, str]](UNREADABLE)
