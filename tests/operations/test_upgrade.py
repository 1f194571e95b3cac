"""This version finishes an operation that an earlier version of Stoker has started.

`written_by_an_earlier_version.json` has the data that the version at 55ea100 wrote to Redis on the sandbox: a record of
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
from tests.operations.platform import Platform, open_platform

WRITTEN: dict[str, Any] = json.loads(
    Path(__file__).with_name("written_by_an_earlier_version.json").read_text(encoding="utf-8")
)
RECORD = re.compile(r"\{stoker\}:op:[0-9a-f]+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")


def records(dump: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(value) for key, (_, value) in dump.items() if RECORD.fullmatch(key)]


async def earlier_version_left(platform: Platform, moment: str) -> str:
    """Restore the state of Redis at that moment, with current times; return the id of the operation in progress."""
    dump = WRITTEN["moments"][moment]
    (record,) = records(dump)
    late = datetime.now(UTC) - datetime.fromisoformat(record["updated"])
    text = TIME.sub(lambda at: (datetime.fromisoformat(at[0]) + late).isoformat(), json.dumps(dump))
    text = text.replace(record["plan"]["commit"], await platform.github.main_commit())  # each platform has its own
    for key, (kind, value) in json.loads(text).items():
        match kind:
            case "string":
                await platform.redis.set(key, value)
            case "hash":
                await platform.redis.hset(key, mapping=value)
            case _:
                await platform.redis.zadd(key, value)
    return str(record["id"])


async def record_at_end(platform: Platform, op_id: str) -> dict[str, Any]:
    """Return the operation's record once its end is stored."""
    async with asyncio.timeout(platform.patience):
        while True:
            record: dict[str, Any] = json.loads(await platform.redis.get(f"{{stoker}}:op:{op_id}") or "{}")
            if record["status"] in ("succeeded", "failed", "cancelled"):
                return record
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("earlier_version", WRITTEN["records"])
def test_a_record_is_read(earlier_version: dict[str, Any]) -> None:
    """The hash of its plan is also the same: the buttons of its card contain it."""
    op = Operation.model_validate_json(json.dumps(earlier_version["record"]))
    assert (op.plan.mark if op.plan else "") == earlier_version["mark"]
    assert op.request.kind == earlier_version["record"]["request"]["kind"]
    request, earlier = op.request.model_dump(mode="json"), earlier_version["record"]["request"]
    assert {name: request[name] for name in earlier if name in request} == {
        name: earlier[name] for name in earlier if name in request
    }
    assert request.keys() - earlier.keys() <= {"announced", "fence"}, "add the new fields of the request to this list"


@pytest.mark.parametrize(
    ("moment", "status", "message", "done_before"),
    [
        ("starting", "succeeded", "coder-chat is up and answers", "syncing"),
        ("undoing", "failed", "Bring up coder-chat", "starting"),
        ("releasing", "succeeded", "coder-chat is down and the GPU is free", ""),
    ],
)
async def test_an_operation_in_progress_continues(
    tmp_path: Path, redis_url: str, moment: str, status: str, message: str, done_before: str
) -> None:
    """It is finished, and no step in its ledger is done, or shown, a second time."""
    async with open_platform(tmp_path, redis_url, started=False) as platform:
        op_id = await earlier_version_left(platform, moment)
        await platform.start()
        try:
            record = await record_at_end(platform, op_id)
            assert record["status"] == status
            await platform.sees(message)
            phases = Counter(phase["name"] for phase in record["phases"])
            assert not done_before or phases[done_before] == 1
        finally:
            await platform.stop()


async def test_a_pending_approval_can_be_given(tmp_path: Path, redis_url: str) -> None:
    async with open_platform(tmp_path, redis_url, started=False) as platform:
        op_id = await earlier_version_left(platform, "awaiting")
        await platform.start()
        try:
            await platform.click("lead", "Approve")
            assert (await record_at_end(platform, op_id))["status"] == "succeeded"
        finally:
            await platform.stop()
