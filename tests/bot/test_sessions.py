"""What is remembered of sessions: the bot's own requests, and the bills."""

from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from bot.domain import Bill, Node, Own
from bot.operations.receipt import draining
from bot.sessions import Sessions

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
    return Sessions(redis, kept=timedelta(days=90))


async def test_the_bots_own_requests_are_summed_once_they_are_over(sessions: Sessions) -> None:
    """While they are under way nobody can tell whose the counters are; also after a crash, for ten minutes."""
    assert await sessions.own("coder-chat", NOW) == Own()
    async with sessions.asking("coder-chat", NOW) as asked:
        asked += [Own(requests=1, tokens=20), Own(requests=1, tokens=22)]
        assert await sessions.own("coder-chat", NOW) is None
        assert await sessions.own("coder-chat", NOW + 11 * MINUTE) == Own()
    assert await sessions.own("coder-chat", NOW) == Own(requests=2, tokens=42)
    assert await sessions.own("coder-fim", NOW) == Own()


async def test_two_runs_at_once_are_both_waited_for(sessions: Sessions) -> None:
    """A smoke test by hand in the middle of a roll-out's."""
    async with sessions.asking("coder-chat", NOW) as outer:
        async with sessions.asking("coder-chat", NOW) as inner:
            inner.append(Own(requests=1, tokens=1))
        assert await sessions.own("coder-chat", NOW) is None
        outer.append(Own(requests=1, tokens=1))
    assert await sessions.own("coder-chat", NOW) == Own(requests=2, tokens=2)


async def test_bills_are_kept_for_their_time_and_replaced(sessions: Sessions) -> None:
    """What is newly known of a bill replaces it; one older than ninety days goes when another comes."""
    await sessions.keep_bill(a_bill(1))
    await sessions.keep_bill(a_bill(1, gone=NOW + 2 * HOUR))
    await sessions.keep_bill(a_bill(2, claimed=NOW + HOUR, down=NOW + 3 * HOUR))
    assert [bill.fence for bill in await sessions.bills(NOW)] == [1, 2]
    assert [bill.fence for bill in await sessions.bills(NOW + HOUR)] == [2]
    first = await sessions.bill(1)
    assert first
    assert first.gone == NOW + 2 * HOUR
    later = NOW + timedelta(days=90, minutes=30)
    await sessions.keep_bill(a_bill(3, claimed=later, down=later))
    assert [bill.fence for bill in await sessions.bills(NOW)] == [2, 3]
    assert await sessions.bill(1) is None


def test_a_session_bills_from_the_creation_of_the_node_to_its_end() -> None:
    """Not from the claim, and not until the pod is gone."""
    node = Node(name="gpu-1", since=NOW + MINUTE)
    bill = a_bill(node=node, gone=NOW + HOUR + 11 * MINUTE)
    assert (bill.billed, bill.estimated) == (HOUR + 10 * MINUTE, False)
    assert bill.usd == pytest.approx(0.7)
    assert bill.up == 50 * MINUTE


def test_what_was_not_seen_is_estimated_and_marked() -> None:
    """Without a node it is from the claim; without its end it is the usual drain."""
    unseen, drains = a_bill(), a_bill(node=Node(name="gpu-1", since=NOW + 5 * MINUTE))
    assert (unseen.billed, unseen.estimated) == (HOUR + 10 * MINUTE, True)
    assert (drains.billed, drains.estimated) == (HOUR + 5 * MINUTE, True)


def test_a_node_bills_until_it_is_gone_or_nobody_waits_for_it_any_more() -> None:
    """The usual ten minutes may be over, and it still costs; after three times that it is no longer followed."""
    node = Node(name="gpu-1", since=NOW)
    bill, down = a_bill(node=node), NOW + HOUR
    assert draining([bill], down + 5 * MINUTE) == draining([bill], down + 25 * MINUTE) == down + 10 * MINUTE
    assert draining([bill], down + 31 * MINUTE) is None
    assert draining([a_bill(node=node, gone=down + 2 * MINUTE), a_bill()], down + 5 * MINUTE) is None


def test_a_node_that_was_there_before_was_paid_for_by_another() -> None:
    """No minute is billed twice."""
    assert a_bill(node=Node(name="gpu-1", since=NOW - HOUR)).begins == NOW
