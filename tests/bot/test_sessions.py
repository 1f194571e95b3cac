"""The stored sessions: the bot's own requests, and the bills."""

from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from bot.domain.leases import Lease
from bot.domain.sessions import Activity, Bill, Node, Own, Session
from bot.gpu.billing import draining
from bot.idle import with_sample
from bot.state.bills import Bills
from bot.state.records import PREFIX
from bot.state.sessions import Sessions

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def a_bill(fence: int = 1, **changes: object) -> Bill:
    fields: dict[str, object] = {
        "fence": fence, "op": "o", "model": "coder-chat", "holder": "U1", "claimed": NOW, "ready": NOW + 10 * MINUTE,
        "down": NOW + HOUR, "drain": 10 * MINUTE, "price_per_hour": 0.6,
    }  # fmt: skip
    return Bill.model_validate(fields | changes)


@pytest.fixture
def sessions(redis: Redis) -> Sessions:
    return Sessions(redis)


async def test_the_bots_own_requests_are_summed_once_they_are_over(sessions: Sessions) -> None:
    """While the requests run, and for ten minutes after a crash, the counters cannot be attributed."""
    assert await sessions.own("coder-chat", NOW) == Own()
    async with sessions.asking("coder-chat", NOW) as own_requests:
        own_requests += [Own(requests=1, tokens=20), Own(requests=1, tokens=22)]
        assert await sessions.own("coder-chat", NOW) is None
        assert await sessions.own("coder-chat", NOW + 11 * MINUTE) == Own()
    assert await sessions.own("coder-chat", NOW) == Own(requests=2, tokens=42)
    assert await sessions.own("coder-fim", NOW) == Own()


async def test_two_simultaneous_runs_are_both_waited_for(sessions: Sessions) -> None:
    """Somebody may start a smoke test during the smoke test of a roll-out."""
    async with sessions.asking("coder-chat", NOW) as outer:
        async with sessions.asking("coder-chat", NOW) as inner:
            inner.append(Own(requests=1, tokens=1))
        assert await sessions.own("coder-chat", NOW) is None
        outer.append(Own(requests=1, tokens=1))
    assert await sessions.own("coder-chat", NOW) == Own(requests=2, tokens=2)


async def test_bills_are_kept_for_their_time_and_replaced(redis: Redis) -> None:
    """A newer version of a bill replaces it; a bill older than ninety days is removed when another is stored."""
    bills = Bills(redis, kept=timedelta(days=90))
    await bills.keep(a_bill(1))
    await bills.keep(a_bill(1, gone=NOW + 2 * HOUR))
    await bills.keep(a_bill(2, claimed=NOW + HOUR, down=NOW + 3 * HOUR))
    assert [bill.fence for bill in await bills.since(NOW)] == [1, 2]
    assert [bill.fence for bill in await bills.since(NOW + HOUR)] == [2]
    first = await bills.of(1)
    assert first
    assert first.gone == NOW + 2 * HOUR
    later = NOW + timedelta(days=90, minutes=30)
    await bills.keep(a_bill(3, claimed=later, down=later))
    assert [bill.fence for bill in await bills.since(NOW)] == [2, 3]
    assert await bills.of(1) is None


def test_a_session_bills_from_the_creation_of_the_node_to_its_end() -> None:
    """The cost begins with the node, not with the claim, and ends after the pod."""
    node = Node(name="gpu-1", since=NOW + MINUTE)
    bill = a_bill(node=node, gone=NOW + HOUR + 11 * MINUTE)
    assert (bill.billed, bill.estimated) == (HOUR + 10 * MINUTE, False)
    assert bill.usd == pytest.approx(0.7)
    assert bill.up == 50 * MINUTE


def test_unobserved_costs_are_estimated_and_marked() -> None:
    """Without a node the cost begins with the claim; without the node's end it includes the usual drain."""
    unseen, drains = a_bill(), a_bill(node=Node(name="gpu-1", since=NOW + 5 * MINUTE))
    assert (unseen.billed, unseen.estimated) == (HOUR + 10 * MINUTE, True)
    assert (drains.billed, drains.estimated) == (HOUR + 5 * MINUTE, True)


def test_a_node_is_billed_until_it_is_deleted_or_the_wait_for_it_ends() -> None:
    """The node may exist for more than the usual ten minutes and still costs money; the bot stops watching after thirty minutes."""
    node = Node(name="gpu-1", since=NOW)
    bill, down = a_bill(node=node), NOW + HOUR
    assert draining([bill], down + 5 * MINUTE) == draining([bill], down + 25 * MINUTE) == down + 10 * MINUTE
    assert draining([bill], down + 31 * MINUTE) is None
    assert draining([a_bill(node=node, gone=down + 2 * MINUTE), a_bill()], down + 5 * MINUTE) is None


def test_an_existing_node_is_billed_from_the_claim() -> None:
    """No minute is billed twice."""
    assert a_bill(node=Node(name="gpu-1", since=NOW - HOUR)).begins == NOW


async def test_a_session_belongs_to_one_lease(sessions: Sessions) -> None:
    """A new lease of the same model starts with an empty record."""
    lease = Lease(model="m", op="o", holder="U1", fence=7, hold=HOUR, claimed=NOW)
    old = Session(fence=7, sampled=NOW, active=NOW, reminders=2, idle_seconds=900)
    await sessions.remember("m", old)
    assert await sessions.of(lease) == old
    assert await sessions.of(lease.model_copy(update={"fence": 8})) is None


async def test_a_session_that_was_stored_with_null_is_read(redis: Redis, sessions: Sessions) -> None:
    """Older versions stored a counter that was NaN, which is null in JSON. It is unknown: the model counts as in use
    once.
    """
    lease = Lease(model="m", op="o", holder="U1", fence=7, hold=HOUR, claimed=NOW)
    times = f'"sampled": "{NOW.isoformat()}", "active": "{NOW.isoformat()}"'
    stored = f'{{"fence": 7, {times}, "requests": null, "tokens": 5, "requests_seen": null, "idle_seconds": null}}'
    await redis.hset(f"{PREFIX}:sessions", "m", stored)
    session = await sessions.of(lease)
    assert session
    assert (session.requests, session.tokens) == (0, 5)
    after = with_sample(session, lease, Activity(requests=900), NOW + MINUTE)
    assert (after.active, after.requests) == (NOW + MINUTE, 0)
    later = with_sample(after, lease, Activity(requests=900), NOW + 2 * MINUTE)
    assert (later.active, later.idle_seconds) == (NOW + MINUTE, 60)
    await sessions.remember("m", later)
    assert await sessions.of(lease) == later
