"""What Stoker remembers."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from bot.domain import AlreadyDecided, Kind, Message, Operation, Request, Status
from bot.store import Store

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def an_operation(op_id: str = "abc", status: Status = Status.REQUESTED) -> Operation:
    request = Request(kind=Kind.GPU_UP, model="coder-chat", actor="U1", channel="C1", at=NOW)
    return Operation(id=op_id, request=request, status=status, updated=NOW)


async def test_the_same_delivery_makes_one_operation(redis: Redis) -> None:
    """A repeated delivery gets the operation that the first one made."""
    store = Store(redis)
    await store.create(an_operation())
    await store.update("abc", lambda op: op.moved(Status.AWAITING, NOW))
    assert (await store.create(an_operation())).status is Status.AWAITING
    assert len(await store.open()) == 1


async def test_of_two_clicks_one_decides(redis: Redis) -> None:
    """Approve and deny at the same instant: one is written, the other hears that it came too late."""
    store = Store(redis)
    await store.create(an_operation())
    await store.update("abc", lambda op: op.moved(Status.AWAITING, NOW))
    approved = store.update("abc", lambda op: op.moved(Status.APPROVED, NOW), "approved")
    denied = store.update("abc", lambda op: op.moved(Status.DENIED, NOW), "denied")
    results = await asyncio.gather(approved, denied, return_exceptions=True)
    assert [type(r) for r in results if isinstance(r, Exception)] == [AlreadyDecided]


async def test_an_ended_operation_is_not_open(redis: Redis) -> None:
    """The list of open operations loses one in the same step that ends it, and the audit log says so."""
    store = Store(redis)
    await store.create(an_operation())
    await store.update("abc", lambda op: op.moved(Status.REFUSED, NOW, outcome="no such model"), "refused")
    assert await store.open() == []
    logged = [entry async for entry in store.audit()]
    assert [entry["event"] for entry in logged] == ["requested", "refused"]
    assert logged[-1]["why"] == "no such model"


async def test_a_finished_step_is_not_done_again(redis: Redis) -> None:
    """The ledger gives back what the first run returned."""
    store, ran = Store(redis), []

    async def act() -> str:
        ran.append(1)
        return "merged"

    assert await store.once("abc", "merge", act, str) == "merged"
    assert await store.once("abc", "merge", act, str) == "merged"
    assert len(ran) == 1


async def test_a_step_that_failed_is_done_again(redis: Redis) -> None:
    """Nothing is noted for a step that raised."""
    store = Store(redis)

    async def fails() -> str:
        raise ConnectionError

    async def works() -> str:
        return "ok"

    with pytest.raises(ConnectionError):
        await store.once("abc", "merge", fails, str)
    assert await store.once("abc", "merge", works, str) == "ok"


async def test_a_message_has_three_states(redis: Redis) -> None:
    """Never tried, tried at some time, posted."""
    store = Store(redis)
    assert await store.intend_message("k", NOW) is None
    assert await store.intend_message("k", NOW) == NOW
    posted = Message(channel="C1", ts="1.2")
    await store.note_message("k", posted)
    assert await store.intend_message("k", NOW) == posted


async def test_the_audit_log_is_read_to_its_end(redis: Redis) -> None:
    """More entries than one page, in order and each once; steps and refused clicks are among them."""
    store = Store(redis)
    op = await store.create(an_operation("op-many"))
    for number in range(1200):
        await store.note_refusal(op, "U0DEV", "approved", f"no {number}", NOW)

    async def act() -> int:
        return 1

    await store.once(op.id, "sync", act, int)
    logged = [entry async for entry in store.audit()]
    assert [entry["why"] for entry in logged if entry["event"] == "refused"] == [f"no {n}" for n in range(1200)]
    assert (logged[0]["event"], logged[-1]["event"], logged[-1]["what"]) == ("requested", "step", "sync")


async def test_the_audit_log_forgets_what_is_older_than_it_is_kept(redis: Redis) -> None:
    """Retention is by age: an entry from before is dropped, as far as Redis trims whole nodes, and new ones stay."""
    old = int((datetime.now(UTC) - timedelta(days=400)).timestamp() * 1000)
    for number in range(1000):
        await redis.xadd("{stoker}:audit", {"entry": json.dumps({"event": "old"})}, id=f"{old}-{number}")
    await Store(redis, audit_kept=timedelta(days=365)).create(an_operation("op-new"))
    logged = [entry async for entry in Store(redis).audit()]
    assert logged[-1]["op"] == "op-new"
    assert sum(entry["event"] == "old" for entry in logged) < 200
    since = datetime.now(UTC) - timedelta(minutes=1)
    assert [entry["op"] async for entry in Store(redis).audit(since)] == ["op-new"]
