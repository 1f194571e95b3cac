"""This version finishes an operation that an earlier version of Stoker has started.

`written_by_an_earlier_version.json` is what the version at 55ea100 wrote to Redis, on the sandbox's platform: a record of
each kind in each state and phase that it went through, with the mark of its plan, and Redis at four moments.
"""

import asyncio
import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bot.domain.operations import Operation
from tests.operations.platform import Platform
from tests.operations.platform import platform as opened

WRITTEN: dict[str, Any] = json.loads(
    Path(__file__).with_name("written_by_an_earlier_version.json").read_text(encoding="utf-8")
)
RECORD = re.compile(r"\{stoker\}:op:[0-9a-f]+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")


def records(dump: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(value) for key, (_, value) in dump.items() if RECORD.fullmatch(key)]


async def earlier_version_left(it: Platform, moment: str) -> str:
    """Restore the state of Redis at that moment, with current times; returns the id of the operation in progress."""
    dump = WRITTEN["moments"][moment]
    (record,) = records(dump)
    late = datetime.now(UTC) - datetime.fromisoformat(record["updated"])
    text = TIME.sub(lambda at: (datetime.fromisoformat(at[0]) + late).isoformat(), json.dumps(dump))
    text = text.replace(record["plan"]["commit"], await it.github.main_commit())  # each platform has its own
    for key, (kind, value) in json.loads(text).items():
        match kind:
            case "string":
                await it.redis.set(key, value)
            case "hash":
                await it.redis.hset(key, mapping=value)
            case _:
                await it.redis.zadd(key, value)
    return str(record["id"])


async def ended(it: Platform, op_id: str) -> dict[str, Any]:
    """The operation's record once its end is written."""
    async with asyncio.timeout(it.patience):
        while True:
            record: dict[str, Any] = json.loads(await it.redis.get(f"{{stoker}}:op:{op_id}") or "{}")
            if record["status"] in ("succeeded", "failed", "cancelled"):
                return record
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("written", WRITTEN["records"])
def test_a_record_is_read(written: dict[str, Any]) -> None:
    """The hash of its plan is also the same: the buttons of its card contain it."""
    op = Operation.model_validate_json(json.dumps(written["record"]))
    assert (op.plan.mark if op.plan else "") == written["mark"]
    assert op.request.kind == written["record"]["request"]["kind"]
    known, earlier = op.request.model_dump(mode="json"), written["record"]["request"]
    assert {name: known[name] for name in earlier if name in known} == {
        name: earlier[name] for name in earlier if name in known
    }
    assert known.keys() - earlier.keys() <= {"announced", "fence"}, "the fields that are newer than the records"


@pytest.mark.parametrize(
    ("moment", "status", "told", "done_before"),
    [
        ("starting", "succeeded", "coder-chat is up and answers", "syncing"),
        ("undoing", "failed", "Bring up coder-chat", "starting"),
        ("releasing", "succeeded", "coder-chat is down and the GPU is free", ""),
    ],
)
async def test_an_operation_in_progress_goes_on(
    tmp_path: Path, redis_url: str, moment: str, status: str, told: str, done_before: str
) -> None:
    """It is finished, and no step in its ledger is done, or shown, a second time."""
    async with opened(tmp_path, redis_url, started=False) as it:
        op_id = await earlier_version_left(it, moment)
        await it.start()
        try:
            record = await ended(it, op_id)
            assert record["status"] == status
            await it.sees(told)
            shown = Counter(phase["name"] for phase in record["phases"])
            assert not done_before or shown[done_before] == 1
        finally:
            await it.stop()


async def test_an_approval_that_was_asked_for_is_given(tmp_path: Path, redis_url: str) -> None:
    async with opened(tmp_path, redis_url, started=False) as it:
        op_id = await earlier_version_left(it, "awaiting")
        await it.start()
        try:
            await it.click("lead", "Approve")
            assert (await ended(it, op_id))["status"] == "succeeded"
        finally:
            await it.stop()
