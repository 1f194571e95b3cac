"""The stored state of Stoker."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from bot.domain.events import AuditEvent
from bot.domain.operations import AlreadyDecided, BringUpOperation, Operation, Status
from bot.domain.requests import BringUp
from bot.domain.values import Message
from bot.state.audit import AuditLog
from bot.state.messages import Messages
from bot.state.operations import Operations
from bot.state.step_ledger import StepLedger

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def an_operation(op_id: str = "abc", status: Status = Status.REQUESTED) -> Operation:
    request = BringUp(model="coder-chat", actor="U1", channel="C1", at=NOW)
    return BringUpOperation(id=op_id, request=request, status=status, updated=NOW)


async def test_the_same_delivery_makes_one_operation(redis: Redis) -> None:
    """A repeated delivery gets the operation that the first one made."""
    operations = Operations(redis)
    await operations.create(an_operation())
    await operations.update("abc", lambda op: op.moved(Status.AWAITING, NOW))
    assert (await operations.create(an_operation())).status is Status.AWAITING
    assert len(await operations.open()) == 1


async def test_of_two_clicks_one_decides(redis: Redis) -> None:
    """Of two simultaneous clicks on approve and deny, one is stored; the answer to the other is that it came too late."""
    operations = Operations(redis)
    await operations.create(an_operation())
    await operations.update("abc", lambda op: op.moved(Status.AWAITING, NOW))

    async def decided(status: Status, event: AuditEvent) -> Operation:
        return await operations.update("abc", lambda op: op.moved(status, NOW), event)

    approved, denied = decided(Status.APPROVED, AuditEvent.APPROVED), decided(Status.DENIED, AuditEvent.DENIED)
    results = await asyncio.gather(approved, denied, return_exceptions=True)
    assert [type(r) for r in results if isinstance(r, Exception)] == [AlreadyDecided]


async def test_an_ended_operation_is_not_open(redis: Redis) -> None:
    """The list of open operations changes in the same step that ends one, and the audit log records it."""
    operations = Operations(redis)
    await operations.create(an_operation())
    await operations.update(
        "abc", lambda op: op.moved(Status.REFUSED, NOW, outcome="no such model"), AuditEvent.REFUSED
    )
    assert await operations.open() == []
    logged = [entry async for entry in AuditLog(redis).entries()]
    assert [entry["event"] for entry in logged] == ["requested", "refused"]
    assert logged[-1]["why"] == "no such model"


async def test_a_finished_step_is_not_done_again(redis: Redis) -> None:
    """The ledger returns the result of the first run."""
    steps, ran = StepLedger(redis), []

    async def act() -> str:
        ran.append(1)
        return "merged"

    assert await steps.once("abc", "merge", act, str) == "merged"
    assert await steps.once("abc", "merge", act, str) == "merged"
    assert len(ran) == 1


async def test_a_step_that_failed_is_done_again(redis: Redis) -> None:
    """Nothing is recorded for a step that raised."""
    steps = StepLedger(redis)

    async def fails() -> str:
        raise ConnectionError

    async def works() -> str:
        return "ok"

    with pytest.raises(ConnectionError):
        await steps.once("abc", "merge", fails, str)
    assert await steps.once("abc", "merge", works, str) == "ok"


async def test_a_message_has_three_states(redis: Redis) -> None:
    """A post was never tried, was tried, or has succeeded."""
    messages = Messages(redis)
    assert await messages.intend("k", NOW) is None
    assert await messages.intend("k", NOW) == NOW
    posted = Message(channel="C1", ts="1.2")
    await messages.note("k", posted)
    assert await messages.intend("k", NOW) == posted


async def test_the_audit_log_is_read_to_its_end(redis: Redis) -> None:
    """Entries on several pages are read in order and once, including steps and refused clicks."""
    operations = Operations(redis)
    op = await operations.create(an_operation("op-many"))
    for number in range(1200):
        await AuditLog(redis).note_refusal(op, "U0DEV", AuditEvent.APPROVED, f"no {number}", NOW)

    async def act() -> int:
        return 1

    await StepLedger(redis).once(op.id, "sync", act, int)
    logged = [entry async for entry in AuditLog(redis).entries()]
    assert [entry["why"] for entry in logged if entry["event"] == "refused"] == [f"no {n}" for n in range(1200)]
    assert (logged[0]["event"], logged[-1]["event"], logged[-1]["what"]) == ("requested", "step", "sync")


async def test_old_audit_entries_are_removed(redis: Redis) -> None:
    """Entries are removed by age; some old entries stay, because Redis trims only whole nodes."""
    old = int((datetime.now(UTC) - timedelta(days=400)).timestamp() * 1000)
    for number in range(1000):
        await redis.xadd("{stoker}:audit", {"entry": json.dumps({"event": "old"})}, id=f"{old}-{number}")
    await Operations(redis, audit_kept=timedelta(days=365)).create(an_operation("op-new"))
    logged = [entry async for entry in AuditLog(redis).entries()]
    assert logged[-1]["op"] == "op-new"
    assert sum(entry["event"] == "old" for entry in logged) < 200
    since = datetime.now(UTC) - timedelta(minutes=1)
    assert [entry["op"] async for entry in AuditLog(redis).entries(since)] == ["op-new"]
