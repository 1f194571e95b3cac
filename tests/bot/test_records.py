"""Unreadable records are set aside, and nothing waits for them."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, BusyLoadingError, ReadOnlyError
from redis.exceptions import ConnectionError as ConnectionLost

from bot.domain.events import AuditEvent
from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation, Operation, Status
from bot.domain.requests import BringUp
from bot.domain.sessions import Session
from bot.errors import Unavailable
from bot.state.alerts import Alerts
from bot.state.audit import AuditLog
from bot.state.bills import Bills
from bot.state.endpoint_history import EndpointHistory
from bot.state.leases import Leases
from bot.state.messages import Messages
from bot.state.operations import OperationNotFound, Operations
from bot.state.outbox import Outbox
from bot.state.questions import Questions
from bot.state.records import Records, redis_errors
from bot.state.sessions import Sessions
from bot.state.step_ledger import StepLedger

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)


def an_operation(op_id: str = "abc") -> Operation:
    request = BringUp(model="coder-chat", actor="U1", channel="C1", at=NOW)
    return BringUpOperation(id=op_id, request=request, status=Status.RUNNING, updated=NOW)


def a_lease(model: str = "coder-chat") -> Lease:
    return Lease(model=model, op="op1", holder="U1", fence=0, hold=HOUR, claimed=NOW)


GOOD = json.loads(a_lease("coder-fim").model_copy(update={"fence": 5}).model_dump_json())
INVALID = {
    "not JSON": "{",
    "nothing": "null",
    "a list": "[]",
    "empty": "",
    "not text": b"\xff\xfe",
    "deep": "[" * 100_000,
    "huge": json.dumps(GOOD | {"reason": "x" * 5_000_000}),
    "no fence": json.dumps({key: value for key, value in GOOD.items() if key != "fence"}),
    "null fence": json.dumps(GOOD | {"fence": None}),
    "400 digits": json.dumps(GOOD | {"fence": int("9" * 400)}),
    "infinite fence": json.dumps(GOOD | {"fence": float("inf")}),
    "no zone": json.dumps(GOOD | {"claimed": "2026-11-23T03:00:00"}),
    "year 9999": json.dumps(GOOD | {"ends": "9999-12-31T23:59:59Z"}),
    "endless": json.dumps(GOOD | {"hold": "P999999999D"}),
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
async def test_an_unreadable_lease_does_not_hold_the_gpu(redis: Redis, text: str | bytes) -> None:
    """Other leases stay, its slot is free, and the record is kept completely, with the reason."""
    leases = Leases(redis, slots=2)
    lease = await leases.claim(a_lease())
    await redis.hset("{stoker}:leases", "coder-fim", text)
    assert await leases.held() == (lease,)
    assert (await leases.claim(a_lease("coder-fim"))).model == "coder-fim"
    stored = await redis.hgetall("{stoker}:set-aside")
    assert (text if isinstance(text, bytes) else text.encode()) in stored.values()
    (report,) = await Records(redis).unreported()
    assert (report["key"], report["field"]) == ("{stoker}:leases", "coder-fim")
    assert report["why"]


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
async def test_a_claim_works_despite_a_record_that_lua_cannot_read(redis: Redis, text: str | bytes) -> None:
    """The claim works even if nothing has read the record before."""
    await redis.hset("{stoker}:leases", "coder-chat", text)
    assert (await Leases(redis).claim(a_lease())).fence > 0


@pytest.mark.parametrize("counter", ["inf", "nan", "1e400", "9" * 400, "-inf", "many"])
async def test_an_invalid_counter_does_not_affect_a_fence(redis: Redis, counter: str) -> None:
    """Fences continue from Redis's clock."""
    await redis.set("{stoker}:fence", counter)
    leases = Leases(redis)
    lease = await leases.claim(a_lease())
    assert 10**12 < lease.fence < 10**14
    assert await leases.held() == (lease,)


@pytest.mark.parametrize("key", ["leases", "fence", "queue", "queue:places"])
async def test_a_key_of_another_type_is_set_aside(redis: Redis, key: str) -> None:
    """Claims and the queue continue to work."""
    await redis.lpush(f"{{stoker}}:{key}", "x")
    leases = Leases(redis)
    assert await leases.held() == ()
    assert await leases.queue() == ()
    await leases.claim(a_lease())
    await leases.join("op2")
    assert await leases.queue() == ("op2",)
    assert len(await redis.keys(f"{{stoker}}:set-aside:{{stoker}}:{key}:*")) == 1


@pytest.mark.parametrize("places", ["many", "1.5", ""])
async def test_an_unreadable_counter_of_places_starts_again(redis: Redis, places: str) -> None:
    """This works even if Redis has no scripts yet, as after a restart."""
    await redis.script_flush()
    await redis.set("{stoker}:queue:places", places)
    assert await Leases(redis).join("op1") == 0


@pytest.mark.parametrize(
    "change",
    [{"status": "dreaming"}, {"updated": "yesterday"}, {"version": None}, {"phases": None}, {"votes": [{}]}],
    ids=str,
)
async def test_an_invalid_operation_is_set_aside(redis: Redis, change: dict[str, object]) -> None:
    """This includes a record of another version with an unknown kind or status. The other operations stay open."""
    operations = Operations(redis)
    good = await operations.create(an_operation("good"))
    bad = json.loads((await operations.create(an_operation("bad"))).model_dump_json())
    await redis.set("{stoker}:op:bad", json.dumps(bad | change))
    assert await operations.open() == [good]
    assert await redis.zrange("{stoker}:ops:open", 0, -1) == [b"good"]
    with pytest.raises(OperationNotFound):
        await operations.load("bad")
    assert await operations.create(an_operation("bad")) == an_operation("bad"), (
        "the same operation cannot be requested again"
    )


async def test_an_operation_of_an_unknown_kind_is_set_aside(redis: Redis) -> None:
    operations = Operations(redis)
    bad = json.loads((await operations.create(an_operation())).model_dump_json())
    bad["request"]["kind"] = "gpu defragment"
    await redis.set("{stoker}:op:abc", json.dumps(bad))
    assert await operations.open() == []


@pytest.mark.parametrize("text", ["{", "null", '"x"'])
async def test_a_request_replaces_an_unreadable_record(redis: Redis, text: str) -> None:
    """An unreadable record with the same id is set aside, not overwritten."""
    await redis.set("{stoker}:op:abc", text)
    assert await Operations(redis).create(an_operation()) == an_operation()
    assert text.encode() in (await redis.hgetall("{stoker}:set-aside")).values()


@pytest.mark.parametrize("key", ["op:abc", "ops:open", "ops", "ops:untold", "audit", "alerts", "smoke", "reconciled"])
async def test_the_store_works_despite_a_key_of_another_type(redis: Redis, key: str) -> None:
    """Values of any type are handled."""
    await redis.xadd(f"{{stoker}}:{key}", {"a": "b"}) if key != "audit" else await redis.set("{stoker}:audit", "x")
    operations = Operations(redis)
    await operations.create(an_operation())
    await operations.update("abc", lambda op: op.model_copy(update={"outcome": "?"}), event=AuditEvent.OFFERED)
    assert [op.id for op in await operations.open()] == ["abc"]
    assert await operations.undelivered_ends() == []
    assert await Alerts(redis).all() == ()
    assert await EndpointHistory(redis).smoke_tests() == {}
    assert await Alerts(redis).last_reconciled() is None
    assert (await Alerts(redis).start("x", NOW)).about == "x"
    assert [entry["event"] async for entry in AuditLog(redis).entries()][-1] == "offered"


async def test_an_invalid_step_is_done_again(redis: Redis) -> None:
    """Each step checks the state before it acts; a step without a result does not count as unreadable."""
    steps, ran = StepLedger(redis), []

    async def act() -> None:
        ran.append(1)

    await steps.once("abc", "merge", act, type(None))
    await steps.once("abc", "merge", act, type(None))
    assert len(ran) == 1
    await redis.hset("{stoker}:op:abc:steps", "merge", "{")
    await steps.once("abc", "merge", act, type(None))
    assert len(ran) == 2


async def test_an_unreadable_audit_entry_is_skipped(redis: Redis) -> None:
    """The entry stays in the log, which is never rewritten."""
    operations = Operations(redis)
    await operations.create(an_operation())
    await redis.xadd("{stoker}:audit", {"entry": "{"})
    await redis.xadd("{stoker}:audit", {"other": "x"})
    await AuditLog(redis).note_refusal(an_operation(), "U1", AuditEvent.APPROVED, "no", NOW)
    assert [entry["event"] async for entry in AuditLog(redis).entries()] == ["requested", "refused"]


@pytest.mark.parametrize(
    "text", ['{"fence": 1, "requests": null}', "NaN", '{"fence":1,"sampled":"2026-11-23T03:00:00"}']
)
async def test_unreadable_records_of_a_session_are_ignored(redis: Redis, text: str) -> None:
    """New records take their place."""
    sessions, bills = Sessions(redis), Bills(redis, kept=HOUR)
    for key in ("sessions", "good-runs", "bills", "questions:op1", "own:coder-chat"):
        await redis.hset(f"{{stoker}}:{key}", "coder-chat" if key in ("sessions", "good-runs") else "1", text)
    await redis.zadd("{stoker}:bills:by-time", {"1": NOW.timestamp()})
    lease = a_lease().model_copy(update={"fence": 1})
    assert await sessions.of(lease) is None
    assert await EndpointHistory(redis).last_good_run("coder-chat") is None
    assert await bills.of(1) is None
    assert await bills.since(NOW - HOUR) == ()
    assert await Questions(redis).of("op1") == {}
    assert (await sessions.own("coder-chat", NOW)) is not None
    session = Session(fence=1, sampled=NOW, active=NOW)
    await sessions.remember("coder-chat", session)
    assert await sessions.of(lease) == session


async def test_invalid_letters_are_set_aside(redis: Redis) -> None:
    await redis.hset("{stoker}:outbox", "k", "{")
    assert await Outbox(redis).waiting() == ()


async def test_an_unreadable_message_record_leads_to_a_search_for_the_message(redis: Redis) -> None:
    """The next attempt checks whether the message exists, as after a crash between the post and its record."""
    messages = Messages(redis)
    await redis.set("{stoker}:message:k", "sometime")
    assert await messages.posted("k") is None
    await redis.set("{stoker}:message:k", '{"channel": 1}')
    assert await messages.intend("k", NOW) == NOW


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ReadOnlyError("You can't write against a read only replica."), "Redis answers with an error: You can't write"),
        (AuthenticationError("NOAUTH Authentication required."), "Redis answers with an error: NOAUTH"),
        (BusyLoadingError("Redis is loading the dataset in memory"), "Redis answers with an error: Redis is loading"),
        (ConnectionLost("Error 111 connecting to 10.0.0.1:6379"), "Redis does not answer"),
    ],
)
def test_a_redis_that_answers_with_an_error_is_not_reported_as_unavailable(error: Exception, message: str) -> None:
    """The error leads people to the password or the memory of Redis, and not to the network. It contains no address."""
    with pytest.raises(Unavailable) as error_info, redis_errors():
        raise error
    assert str(error_info.value).startswith(message)
    assert "10.0.0.1" not in str(error_info.value)


async def test_a_huge_value_is_set_aside_without_being_read(redis: Redis) -> None:
    """Redis sends at most one byte more than a record may have, and everything else still works."""
    operations, huge = Operations(redis), "x" * (9 * 2**20)
    good = await operations.create(an_operation("good"))
    await operations.create(an_operation("bad"))
    await redis.set("{stoker}:op:bad", huge)
    await redis.set("{stoker}:op:lone", huge)
    await redis.hset("{stoker}:smoke", "coder-chat", huge)
    await redis.hset("{stoker}:good-runs", "coder-chat", huge)
    before = (await redis.info("stats"))["total_net_output_bytes"]
    assert await operations.open() == [good]
    with pytest.raises(OperationNotFound):
        await operations.load("lone")
    assert await EndpointHistory(redis).smoke_tests() == {}
    assert await EndpointHistory(redis).last_good_run("coder-chat") is None
    assert (await redis.info("stats"))["total_net_output_bytes"] - before < 10 * 2**20
    assert await Records(redis).set_aside_count() == 4
    assert len(await Records(redis).unreported()) == 4
