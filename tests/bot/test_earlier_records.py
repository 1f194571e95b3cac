"""This version reads everything that an earlier version of Stoker stored in Redis, and sets nothing aside.

`stored_by_an_earlier_version.json` has the data that the classes of the version at c420f96 wrote: an operation of each kind
and in each status, each result in the step ledger, and a record of each other type.
"""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from redis.asyncio import Redis

from bot.clients.staging import Attempt
from bot.domain.kinds import Kind
from bot.domain.leases import MAYBE_LEASE, Lease
from bot.domain.operations import OPERATIONS, Operation, Status
from bot.domain.sessions import Node
from bot.domain.values import Message
from bot.engine.run import NOTHING
from bot.gpu.stopping import LEASE
from bot.platform.pull_requests import FACTS, OLD_WEIGHTS
from bot.platform.smoke_tests import READY
from bot.state.alerts import Alerts
from bot.state.audit import AuditLog
from bot.state.bills import Bills
from bot.state.deliveries import Deliveries
from bot.state.endpoint_history import EndpointHistory
from bot.state.home import HomeState
from bot.state.leases import Leases
from bot.state.messages import Messages
from bot.state.operations import Operations
from bot.state.questions import Questions
from bot.state.records import Records
from bot.state.sessions import Sessions
from bot.state.step_ledger import StepLedger

STORED: dict[str, list[Any]] = json.loads(
    Path(__file__).with_name("stored_by_an_earlier_version.json").read_text(encoding="utf-8")
)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SHA = "a" * 40
NEWER = {Kind.GPU_RESTART, Kind.MODEL_TUNE, Kind.MODEL_STAGE}
"""The kinds that the earlier version did not have."""


@pytest.fixture
async def earlier(redis: Redis) -> AsyncIterator[Redis]:
    """Redis as the earlier version left it; after the test, nothing is set aside."""
    for key, (kind, value) in STORED.items():
        match kind:
            case "string":
                await redis.set(key, value)
            case "hash":
                await redis.hset(key, mapping=value)
            case "set":
                await redis.sadd(key, *value)
            case "stream":
                for entry in value:
                    await redis.xadd(key, entry)
            case _:
                await redis.zadd(key, value)
    yield redis
    assert await Records(redis).unreported() == ()


async def test_operations(earlier: Redis) -> None:
    operations = Operations(earlier, audit_kept=HOUR)
    ids = [key.rpartition(":")[2] for key in STORED if key.startswith("{stoker}:op:") and not key.endswith(":steps")]
    loaded: list[Operation] = [await operations.load(op_id) for op_id in ids]
    assert {op.request.kind for op in loaded} == set(Kind) - NEWER
    assert {op.status for op in loaded} == set(Status)
    assert all(type(op) is OPERATIONS[op.request.kind] for op in loaded)
    planned = [op for op in loaded if op.request.kind.spec.needs_approval and op.status is not Status.REQUESTED]
    assert all(op.plan for op in planned)
    assert {op.id for op in await operations.open()} == {op.id for op in loaded if not op.status.final}
    assert {op.id for op in await operations.undelivered_ends()} == {op.id for op in loaded if op.status.final}


@pytest.mark.parametrize(
    ("op_id", "key", "returns", "result"),
    [
        ("op-up", "boot began", datetime, NOW),
        ("op-up", READY.key, READY.returns, NOW),
        (
            "op-up",
            "node of coder-chat",
            TypeAdapter(Node | None),
            Node(name="gpu-1", since=NOW, machine="g2-standard-4"),
        ),
        ("op-up", "waiting for doc-chat", str, "it broke"),
        ("op-down", LEASE.key, MAYBE_LEASE, None),
        ("op-swap", "base", str, SHA),
        ("op-swap", "merging", str, SHA),
        ("op-swap", "was up", bool, True),
        ("op-bench", "fence", int, 3),
    ],
)
async def test_results_of_steps(earlier: Redis, op_id: str, key: str, returns: Any, result: object) -> None:
    assert await StepLedger(earlier).result(op_id, key, returns) == result


async def test_the_facts_of_a_change_are_kept(earlier: Redis) -> None:
    """A retry makes the same commit from the stored facts."""
    ledger = StepLedger(earlier)
    facts = await ledger.result("op-swap", FACTS.key, FACTS.returns)
    assert facts
    assert (facts.hf_id, facts.weight_bytes, facts.quantization, facts.max_context) == ("a/b", 9 * 10**9, "awq", 32768)
    old = await ledger.result("op-swap", OLD_WEIGHTS.key, OLD_WEIGHTS.returns)
    assert old
    assert old.weight_bytes == 7 * 10**9


async def test_finished_steps_are_not_done_again(earlier: Redis) -> None:
    async def again() -> None:
        raise AssertionError("done again")

    ledger = StepLedger(earlier)
    for op_id, key in (
        ("op-up", "syncing"),
        ("op-up", "receipt of the old"),
        ("op-swap", "checked"),
        ("op-swap", "up"),
    ):
        await ledger.once(op_id, key, again, NOTHING)
    assert isinstance(await ledger.result("op-up", "lease given back", Lease), Lease)


async def test_the_lease_and_the_queue(earlier: Redis) -> None:
    leases = Leases(earlier, slots=1)
    (lease,) = await leases.held()
    assert (lease.op, lease.holder, lease.ends, lease.keeps) == ("op-up", "U0DEV", NOW + 2 * HOUR, 1)
    assert lease.displaced
    assert lease.displaced.model == "doc-chat"
    assert await leases.queue() == ("op-queued",)


async def test_the_session_its_bills_and_its_questions(earlier: Redis) -> None:
    sessions = Sessions(earlier)
    (lease,) = await Leases(earlier, slots=1).held()
    session = await sessions.of(lease)
    assert session
    assert (session.requests, session.reminders, session.down_at) == (5, 1, NOW + HOUR)
    own_requests = await sessions.own("coder-chat", NOW)
    assert own_requests
    assert (own_requests.requests, own_requests.tokens) == (3, 33)
    assert [bill.estimated for bill in await Bills(earlier, kept=HOUR).since(NOW - 10 * HOUR)] == [True, False]
    assert list(await Questions(earlier).of("op-up")) == ["idle:3"]


def test_an_attempt_of_staging() -> None:
    """Each attempt is in the step ledger with its reason."""
    stored = '{"outcome": "interrupted", "seconds": 3.0, "why": "its pod is gone"}'
    assert Attempt.model_validate_json(stored).why == "its pod is gone"
    assert Attempt(outcome="interrupted", why="its pod is gone", seconds=3).model_dump(
        exclude_defaults=True
    ).keys() == {*json.loads(stored)}


async def test_everything_else(earlier: Redis) -> None:
    history, home, messages = EndpointHistory(earlier), HomeState(earlier), Messages(earlier)
    good = await history.last_good_run("coder-chat")
    assert good
    assert good.tokens_per_second == 40
    assert (await history.smoke_tests())["coder-chat"].failed == ("streaming",)
    alerts = Alerts(earlier)
    assert [alert.about for alert in await alerts.all()] == ["vllm/stranger"]
    assert await alerts.last_reconciled() == NOW
    assert await home.viewers(NOW, HOUR) == ("U0DEV",)
    assert not await home.is_changed("U0DEV", "x")
    assert not await Deliveries(earlier).is_first("click:1")
    assert await messages.posted("card:op-up") == Message(channel="C0GPUOPS", ts="1.2")
    assert await messages.intend("card:op-add", NOW + HOUR) == NOW, "it must stay unknown whether the card was posted"
    events = {entry["event"] async for entry in AuditLog(earlier).entries()}
    assert {"requested", "step", "refused", "kept"} <= events
