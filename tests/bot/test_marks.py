"""Anybody with kubectl can write a Deployment's annotations: they are validated, and restored only within policy."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from bot.clients.workload import fence_of
from bot.domain.leases import Lease
from bot.domain.marks import bounded, read_mark, with_longer_end
from bot.domain.values import Message

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)
LEASE = Lease(
    model="coder-chat", op="op1", holder="U0DEV", fence=1_800_000_000_000, hold=HOUR, claimed=NOW - HOUR / 2,
    ready=NOW - HOUR / 4, ends=NOW + HOUR, message=Message(channel="C0GPUOPS", ts="1.2"),
)  # fmt: skip
MARK = json.loads(LEASE.mark)


def test_a_mark_by_stoker_is_read_unchanged() -> None:
    assert read_mark(LEASE.mark, "coder-chat") == LEASE
    assert bounded(LEASE, NOW, 12 * HOUR, "C0GPUOPS") == LEASE
    assert read_mark(json.dumps(MARK | {"of_a_later_version": 1}), "coder-chat") == LEASE


@pytest.mark.parametrize(
    "mark",
    [
        None, "", "{", "null", "[]", "NaN", "{}", "[" * 100_000, "x" * 100_000,
        *(json.dumps(MARK | change) for change in (
            {"fence": 10**400}, {"fence": -1}, {"fence": 0}, {"fence": 10**15}, {"fence": "many"}, {"fence": None},
            {"revision": -1}, {"revision": 10**400},
            {"ends": "2999-01-01T00:00:00Z"}, {"ends": "2030-01-01T00:00:00"}, {"ends": "soon"},
            {"ends": "2026-11-22T00:00:00Z"}, {"ready": "2020-01-01T00:00:00Z"},
            {"claimed": "2030-01-01T00:00:00Z"}, {"claimed": "1970-01-01T00:00:00Z"},
            {"hold": "-PT1H"}, {"hold": "P999999D"}, {"hold": "PT0S"},
            {"holder": ""}, {"holder": "U1> <!channel>"}, {"holder": "x" * 100}, {"holder": ["U1"]},
            {"model": "coder-fim"}, {"reason": "x" * 20_000},
        )),
        json.dumps(MARK | {"fence": float("inf")}),
    ],
    ids=lambda mark: str(mark)[-60:],
)  # fmt: skip
def test_an_implausible_annotation_is_ignored(mark: str | None) -> None:
    assert read_mark(mark, "coder-chat") is None


def test_policy_limits_a_restored_lease() -> None:
    """The end, the requested time and the message addresses of an annotation are limited to the values that anybody may have."""
    greedy = LEASE.model_copy(
        update={
            "hold": 900 * HOUR,
            "ends": NOW + 900 * HOUR,
            "keep_until": NOW + 900 * HOUR,
            "message": Message(channel="CELSEWHERE", ts="1.2"),
        }
    )
    limited = bounded(greedy, NOW, 12 * HOUR, "C0GPUOPS")
    assert limited
    assert limited.ready
    assert (limited.hold, limited.ends, limited.message) == (12 * HOUR, limited.ready + 12 * HOUR, None)
    assert limited.keep_until == limited.ends


@pytest.mark.parametrize("change", [{"claimed": NOW + HOUR}, {"ready": NOW + HOUR, "ends": NOW + 2 * HOUR}], ids=str)
def test_a_lease_from_the_future_is_not_restored(change: dict[str, datetime]) -> None:
    assert bounded(LEASE.model_copy(update=change), NOW, 12 * HOUR, "C0GPUOPS") is None


LATER = {"revision": 2, "ends": NOW + 3 * HOUR, "keeps": 1, "keep_until": NOW + 2 * HOUR}


@pytest.mark.parametrize(
    "lost",
    [LATER, {"revision": 1, "ends": NOW + 3 * HOUR}, {"revision": 1, "keeps": 1, "keep_until": NOW + HOUR / 2}],
    ids=str,
)
def test_a_keep_or_an_extension_that_redis_lost_counts(lost: dict[str, object]) -> None:
    """The Deployment has a later state of the same lease, which is used except for the addresses of the messages."""
    elsewhere = {"message": Message(channel="CELSEWHERE", ts="1.2")}
    merged_lease = with_longer_end(LEASE, LEASE.model_copy(update=lost | elsewhere), 8 * HOUR)
    assert merged_lease == LEASE.model_copy(update=lost | {"revision": LEASE.revision})


@pytest.mark.parametrize(
    "change",
    [
        {"revision": 0}, {"ends": NOW + 8 * HOUR}, {"ends": NOW + HOUR / 2}, {"ends": None}, {"fence": LEASE.fence + 1},
        {"op": "op2"}, {"holder": "U0LEAD"}, {"hold": 2 * HOUR}, {"ready": NOW}, {"reason": "mine"}, {"commit": "c0ffee"},
        {"keeps": -1}, {"keep_until": NOW + 4 * HOUR}, {"ends": LEASE.ends, "keeps": 0, "keep_until": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_mark_adds_nothing_else_to_a_lease(change: dict[str, object]) -> None:
    """The holder gets no more than is possible without an approval, and nothing from another lease."""
    assert with_longer_end(LEASE, LEASE.model_copy(update=LATER | change), 8 * HOUR) is None


@pytest.mark.parametrize(
    ("text", "fence"),
    [
        ("1800000000000", 1_800_000_000_000), ("7", 7), ("0", 0), ("", 0), ("-5", 0), ("inf", 0), ("nan", 0), ("1e3", 0),
        ("9" * 400, 0), ("9" * 5000, 0), ("9" * 13, 0), ("٣", 0), ("²", 0), (" 7", 0), ("7.0", 0), ("0x10", 0),
    ],
)  # fmt: skip
def test_a_fence_is_a_plain_number_of_this_age(text: str, fence: int) -> None:
    """Other values are ignored, because they would prevent a claim."""
    assert fence_of({"metadata": {"annotations": {"stoker.dev/fence": text}}}) == fence
