"""Serialise the arguments of docket's tasks in Redis as JSON.

docket pickles them with cloudpickle. Reading a pickle can execute code, so anybody with write access to Redis could run
code in the bot. docket 0.27 has no setting for the serializer, so this module replaces it before the first task is read.
"""

import json
from typing import Any, cast

import docket.docket
import docket.execution
import docket.strikelist
import docket.worker
import structlog
from docket import Docket, Execution

from bot.clock import REAL_TIME, Clock

log = structlog.get_logger(__name__)

SET_ASIDE = "set_aside"
"""The name of the task in `bot.tasks` that runs instead of a message that cannot be read."""
READERS = (docket.execution, docket.strikelist, docket.worker)
"""The modules of docket that import cloudpickle; `Docket.get_execution` imports it when called."""


class _Json:
    """Replaces the functions of cloudpickle that docket uses. The arguments of Stoker's tasks are text and numbers."""

    @staticmethod
    def dumps(value: object) -> bytes:
        return json.dumps(value, allow_nan=False).encode()

    @staticmethod
    def loads(data: bytes) -> Any:
        value = json.loads(data)
        return tuple(value) if isinstance(value, list) else value


class _Results(_Json):
    """Serializer for the result or exception of a task. Nothing reads the result, so it need not be restored exactly."""

    @staticmethod
    def dumps(value: object) -> bytes:
        return json.dumps(value, default=repr).encode()


class _Strikes(_Json):
    """Serializer for docket's list of blocked tasks. Stoker does not use the list, so unreadable entries are ignored."""

    @staticmethod
    def loads(data: bytes) -> Any:
        try:
            return _Json.loads(data)
        except ValueError:
            log.error("unreadable strike in Redis ignored")
            return object()


class DataDocket(Docket):
    """A docket that stores the arguments of its tasks as JSON and schedules them by `clock`."""

    def __init__(self, clock: Clock, *args: Any, **kwargs: Any) -> None:
        self.clock = clock
        for module, serializer in zip(READERS, (_Json, _Strikes, _Results), strict=True):
            module.cloudpickle = serializer  # type: ignore[attr-defined]
        Execution.from_message = _from_message  # type: ignore[method-assign, assignment]
        super().__init__(*args, **kwargs)

    async def get_execution(self, key: str) -> Execution | None:
        """Not available, because docket's method reads a pickle. Raises NotImplementedError."""
        raise NotImplementedError(f"The task {key} can be found by its operation.")


def clock_of(docket: Docket) -> Clock:
    """The clock by which tasks are scheduled: the clock of a `DataDocket`, otherwise real time."""
    return docket.clock if isinstance(docket, DataDocket) else REAL_TIME


_read = Execution.from_message.__func__  # type: ignore[attr-defined]


async def _from_message(docket: Docket, message: dict[bytes, bytes], **options: Any) -> Execution:
    """Parse a message from Redis as a task. A message that Stoker did not write becomes the task `SET_ASIDE`, because an
    exception would stop the worker.
    """
    try:
        return cast("Execution", await _read(Execution, docket, message, **options))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        key = message.get(b"key", b"").decode(errors="replace") or "without a key"
        name = message.get(b"function", b"").decode(errors="replace")
        log.error(
            "task set aside: Stoker did not write its message in Redis", task=name, key=key, error=type(error).__name__
        )
        instead = {
            b"key": key.encode(),
            b"when": b"1970-01-01T00:00:00+00:00",
            b"function": SET_ASIDE.encode(),
            b"args": _Json.dumps([name[:100], key[:200], type(error).__name__]),
            b"kwargs": b"{}",
            b"attempt": b"1",
            b"generation": message.get(b"generation", b"0") if message.get(b"generation", b"0").isdigit() else b"0",
        }
        return cast("Execution", await _read(Execution, docket, instead, **options))
