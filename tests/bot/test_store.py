"""What Stoker remembers."""

import asyncio
from datetime import UTC, datetime

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
    assert [entry["event"] for entry in await store.audit()] == ["requested", "refused"]
    assert (await store.audit())[-1]["why"] == "no such model"


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
