"""Write access to Redis does not allow running code in the bot: the arguments of its tasks are data."""

import inspect
import json
import os
from pathlib import Path

import cloudpickle
import docket
import pytest
from docket import Docket

from bot.clients import payloads
from bot.clients.payloads import DataDocket
from bot.clock import REAL_TIME
from bot.services import Services
from bot.state.records import PREFIX
from bot.tasks import all_tasks
from bot.wiring import Wiring
from tests.commands.conftest import hf_endpoint, manifest, svc, workspace
from tests.operations.platform import Platform

__all__ = ["hf_endpoint", "manifest", "svc", "workspace"]


class MakesDirectory:
    """Makes a directory when it is read from a pickle."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def message(**changed: bytes) -> dict[bytes, bytes]:
    """A message as docket writes it."""
    fields = {
        "key": b"forged",
        "when": b"2026-01-01T00:00:00+00:00",
        "function": b"advance",
        "args": b'["0123456789"]',
        "kwargs": b"{}",
        "attempt": b"1",
        "generation": b"0",
    } | changed
    return {name.encode(): value for name, value in fields.items()}


async def set_aside(platform: Platform) -> list[str]:
    """The reasons of the set-aside tasks in the audit log."""
    rows = await platform.redis.xrange(f"{PREFIX}:audit") or []
    entries = [json.loads((fields or {})[b"entry"]) for _, fields in rows]
    return [f"{entry['what']}: {entry['why']}" for entry in entries if entry["event"] == "set aside"]


@pytest.mark.parametrize("field", ["args", "kwargs"])
async def test_a_forged_pickle_is_not_executed(platform: Platform, tmp_path: Path, field: str) -> None:
    """The message is set aside and recorded, and the bot continues."""
    marker = tmp_path / "marker"
    cloudpickle.loads(cloudpickle.dumps(MakesDirectory(tmp_path / "control")))
    assert (tmp_path / "control").exists(), "the pickle has no effect, so the test shows nothing"
    forged = message(**{field: cloudpickle.dumps(MakesDirectory(marker))})
    await platform.redis.xadd("stoker:stream", forged)  # type: ignore[arg-type]

    await platform.until_true(lambda: set_aside(platform))
    assert "task advance (forged)" in (await set_aside(platform))[0]
    assert not marker.exists()
    await platform.say("dev", "/gpu up coder-chat")
    await platform.sees("Approve")


@pytest.mark.parametrize(
    "forged",
    [
        {b"key": b"k"},
        message(when=b"never"),
        message(args=b"[" * 20000),
        message(args=b"\xff"),
    ],
    ids=["fields missing", "no time", "deeply nested", "not text"],
)
async def test_an_invalid_message_does_not_stop_the_worker(platform: Platform, forged: dict[bytes, bytes]) -> None:
    """Otherwise one such message would end the worker at each start."""
    await platform.redis.xadd("stoker:stream", forged)  # type: ignore[arg-type]
    await platform.until_true(lambda: set_aside(platform))
    await platform.say("dev", "/gpu up coder-chat")
    await platform.sees("Approve")


async def test_a_forged_strike_is_not_executed(platform: Platform, tmp_path: Path) -> None:
    """Every worker reads docket's list of tasks that it must not run, also at its start."""
    marker = tmp_path / "marker"
    strike = {
        "direction": "strike",
        "parameter": "op_id",
        "operator": "==",
        "value": cloudpickle.dumps(MakesDirectory(marker)),
    }
    await platform.redis.xadd("stoker:strikes", strike)  # type: ignore[arg-type]
    await platform.stop()
    await platform.start()
    await platform.say("dev", "/gpu up coder-chat")
    await platform.sees("Approve")
    assert not marker.exists()


async def test_the_tasks_in_redis_are_text(platform: Platform) -> None:
    """These are the arguments of tasks that the bot schedules, for now and for later."""
    await platform.say("dev", "/gpu up coder-chat")
    await platform.sees("Approve")
    arguments = [
        fields[name]
        for key in await platform.redis.keys("stoker:*")
        if await platform.redis.type(key) == b"hash" and (fields := await platform.redis.hgetall(key))
        for name in (b"args", b"kwargs")
        if name in fields
    ]
    assert arguments
    assert any(json.loads(text) for text in arguments)


async def test_docket_s_method_to_read_a_task_is_disabled() -> None:
    """docket's own method to read one task reads a pickle, so it is disabled."""
    with pytest.raises(NotImplementedError):
        await DataDocket(REAL_TIME, name="stoker", url="memory://").get_execution("k")


def test_docket_reads_pickles_nowhere_else() -> None:
    """If a new version of docket does, this test fails, and `bot.clients.payloads` has to cover it."""
    sources = Path(docket.__file__).parent.glob("*.py")
    using = {source.stem for source in sources if "pickle.loads" in source.read_text("utf-8")}
    covered = {module.__name__.rpartition(".")[2] for module in payloads.READERS}
    assert using <= covered | {Docket.__module__.rpartition(".")[2]}


def test_every_task_takes_text_and_numbers(svc: Services) -> None:
    """JSON preserves these types; a value of another type would be read as a different one, or not at all."""
    for task in all_tasks(Wiring(svc)):
        parameters = [
            parameter
            for parameter in inspect.signature(task).parameters.values()
            if parameter.default is inspect.Parameter.empty
        ]
        assert {parameter.annotation for parameter in parameters} <= {str, int, bool}, task.__name__
