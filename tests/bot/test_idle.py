"""When a model counts as idle, and what is done about it."""

from datetime import UTC, datetime, timedelta

from bot.clients.vllm import Activity
from bot.domain import Lease, Session
from bot.idle import BringDown, Nothing, Remind, WarnEnd, decide, sampled
from bot.settings import Config

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def a_lease(**changes: object) -> Lease:
    fields: dict[str, object] = {
        "model": "coder-chat", "op": "o", "holder": "U1", "fence": 1, "hold": timedelta(hours=4),
        "claimed": NOW, "ready": NOW, "ends": NOW + timedelta(hours=4),
    }  # fmt: skip
    return Lease.model_validate(fields | changes)


def a_session(**changes: object) -> Session:
    return Session.model_validate({"fence": 1, "sampled": NOW, "active": NOW} | changes)


def activity(running: float = 0, requests: float = 0, tokens: float = 0) -> Activity:
    return Activity(running=running, waiting=0, requests=requests, prompt_tokens=tokens, generation_tokens=0)


def test_loading_is_not_idle() -> None:
    """A model that has never been ready is left alone, however long it takes."""
    booting = a_lease(ready=None, ends=None)
    assert decide(booting, a_session(), Config(), NOW + timedelta(hours=9)) == Nothing()


def test_the_reminder_comes_after_its_time_and_once() -> None:
    """Fifteen idle minutes bring one reminder, which says how long is left."""
    config = Config()
    assert decide(a_lease(), a_session(), config, NOW + 14 * MINUTE) == Nothing()
    due = decide(a_lease(), a_session(), config, NOW + 15 * MINUTE)
    assert due == Remind(idle=15 * MINUTE, down_in=45 * MINUTE)
    assert decide(a_lease(), a_session(reminders=1), config, NOW + 20 * MINUTE) == Nothing()


def test_without_an_answer_it_goes_down() -> None:
    """After an hour without traffic or an answer the model is brought down, but never unannounced."""
    assert isinstance(decide(a_lease(), a_session(reminders=1), Config(), NOW + 60 * MINUTE), BringDown)
    assert isinstance(decide(a_lease(), a_session(), Config(), NOW + 90 * MINUTE), Remind)


def test_a_keep_has_an_end() -> None:
    """Kept until an hour from now, the idle time counts again from there."""
    kept = a_lease(keep_until=NOW + 75 * MINUTE)
    assert decide(kept, a_session(), Config(), NOW + 80 * MINUTE) == Nothing()
    assert isinstance(decide(kept, a_session(), Config(), NOW + 90 * MINUTE), Remind)


def test_the_end_of_the_lease_is_warned_of_and_kept() -> None:
    """A warning before the end; at the end it goes down, busy or not."""
    end = NOW + timedelta(hours=4)
    busy = a_session(active=end - 16 * MINUTE)
    assert decide(a_lease(), busy, Config(), end - 15 * MINUTE) == WarnEnd(15 * MINUTE)
    assert isinstance(decide(a_lease(), a_session(active=end, warned=True), Config(), end), BringDown)


def test_traffic_is_the_signal() -> None:
    """A running request or a counter that moved is activity; the same numbers again are not."""
    start = sampled(None, a_lease(), activity(requests=5), NOW)
    idle = sampled(start, a_lease(), activity(requests=5), NOW + MINUTE)
    assert idle.active == NOW
    assert idle.idle_seconds == 60
    assert sampled(idle, a_lease(), activity(running=1, requests=5), NOW + 2 * MINUTE).active == NOW + 2 * MINUTE
    moved = sampled(idle, a_lease(), activity(requests=7, tokens=100), NOW + 2 * MINUTE)
    assert (moved.active, moved.requests, moved.tokens) == (NOW + 2 * MINUTE, 2, 100)


def test_unknown_counts_as_active() -> None:
    """Metrics that cannot be read never bring a model down before its lease ends."""
    start = sampled(None, a_lease(), activity(), NOW)
    assert sampled(start, a_lease(), None, NOW + MINUTE).active == NOW + MINUTE


def test_the_counters_of_a_restarted_engine_do_not_count_backwards() -> None:
    """vLLM's counters start anew with the pod; what was served before stays counted."""
    start = sampled(None, a_lease(), activity(requests=50, tokens=500), NOW)
    after = sampled(start, a_lease(), activity(requests=2, tokens=20), NOW + MINUTE)
    assert (after.requests, after.tokens) == (0, 0)


def test_a_session_belongs_to_one_lease() -> None:
    """A new lease starts with an empty memory."""
    old = a_session(fence=1, reminders=2, idle_seconds=900)
    fresh = sampled(old, a_lease(fence=2, ready=NOW + MINUTE), activity(), NOW + MINUTE)
    assert (fresh.fence, fresh.reminders, fresh.idle_seconds) == (2, 0, 0)
