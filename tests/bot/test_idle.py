"""The decision that a model is idle, and its consequences."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain.leases import Lease
from bot.domain.sessions import Activity, Own, Session
from bot.idle import (
    BringDown,
    Decision,
    MetricsUnreadable,
    Nothing,
    Remind,
    WarnEnd,
    after_decision,
    decide,
    is_quiet,
    with_sample,
)
from bot.settings.config import Idle, LeaseLimits

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)  # a Monday
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
END = NOW + timedelta(hours=4)


def a_lease(**changes: object) -> Lease:
    fields: dict[str, object] = {
        "model": "coder-chat", "op": "o", "holder": "U1", "fence": 1, "hold": timedelta(hours=4),
        "claimed": NOW, "ready": NOW, "ends": END,
    }  # fmt: skip
    return Lease.model_validate(fields | changes)


def a_session(**changes: object) -> Session:
    return Session.model_validate({"fence": 1, "sampled": NOW, "active": NOW} | changes)


def activity(running: float = 0, requests: float = 0, tokens: float = 0) -> Activity:
    return Activity(running=running, waiting=0, requests=requests, prompt_tokens=tokens, generation_tokens=0)


def decision_at(
    at: timedelta, session: Session | None = None, lease: Lease | None = None, *, waiting: int = 0, **policy: object
) -> Decision:
    """Return the decision at this time after the model was ready and last used."""
    idle = Idle.model_validate(policy)
    return decide(lease or a_lease(), session or a_session(), waiting, NOW + at, idle, LeaseLimits())


def decisions_of_unused_model(
    hours: float, lease: Lease | None = None, *, waiting: int = 0, **policy: object
) -> list[tuple[float, Decision]]:
    """Return the actions and their minutes for an unused model, sampled every minute until it is down."""
    lease, done = lease or a_lease(), list[tuple[float, Decision]]()
    session = with_sample(None, lease, activity(), NOW)
    for minute in range(1, int(hours * 60) + 1):
        now = NOW + minute * MINUTE
        session = with_sample(session, lease, activity(), now)
        decision = decide(lease, session, waiting, now, Idle.model_validate(policy), LeaseLimits())
        session = after_decision(session, decision, lease, now)
        if not isinstance(decision, Nothing):
            done.append((minute, decision))
        if isinstance(decision, BringDown):
            break
    return done


def test_loading_is_not_idle() -> None:
    """Nothing happens to a model that has never been ready, for any length of time."""
    assert decision_at(timedelta(hours=9), lease=a_lease(ready=None, ends=None)) == Nothing()


def test_an_idle_model_gets_reminders_an_announcement_and_goes_down() -> None:
    """There is a reminder at 15, 30 and 45 minutes and an announcement at 55, and the model goes down at 60."""
    down = NOW + 60 * MINUTE
    assert decisions_of_unused_model(2) == [
        (15, Remind(15 * MINUTE, down, last=False)),
        (30, Remind(30 * MINUTE, down, last=False)),
        (45, Remind(45 * MINUTE, down, last=False)),
        (55, Remind(55 * MINUTE, down, last=True)),
        (60, BringDown("idle for 1 h and nobody answered")),
    ]


def test_the_reminder_comes_at_its_time_and_not_before() -> None:
    """The limits are exact to the second."""
    assert decision_at(15 * MINUTE - SECOND) == Nothing()
    assert isinstance(decision_at(15 * MINUTE), Remind)
    reminded = a_session(reminders=1, reminded=NOW + 15 * MINUTE)
    assert decision_at(30 * MINUTE - SECOND, reminded) == Nothing()
    assert isinstance(decision_at(30 * MINUTE, reminded), Remind)


def test_nothing_goes_down_unannounced() -> None:
    """A bot that was unavailable for hours announces the end first, and then waits for the usual time."""
    due = decision_at(180 * MINUTE)
    assert due == Remind(180 * MINUTE, NOW + 185 * MINUTE, last=True)
    announced_at = NOW + 180 * MINUTE
    announced = a_session(announced=announced_at, reminded=announced_at, down_at=announced_at + 5 * MINUTE)
    assert decision_at(185 * MINUTE - SECOND, announced) == Nothing()
    assert isinstance(decision_at(185 * MINUTE, announced), BringDown)


def test_traffic_after_the_announcement_cancels_it() -> None:
    """One request resets the idle time."""
    announced = a_session(announced=NOW + 55 * MINUTE, reminded=NOW + 55 * MINUTE, requests_seen=5)
    used = with_sample(announced, a_lease(), activity(requests=6), NOW + 58 * MINUTE)
    assert decision_at(72 * MINUTE, used) == Nothing()
    assert decision_at(73 * MINUTE, used) == Remind(15 * MINUTE, NOW + 118 * MINUTE, last=False)


def test_a_keep_has_an_end() -> None:
    """The idle time restarts at the end of the keep, and earlier reminders count as answered."""
    kept_lease = a_lease(keep_until=NOW + 75 * MINUTE)
    session = a_session(reminders=1, reminded=NOW + 15 * MINUTE, announced=NOW + 14 * MINUTE)
    assert decision_at(90 * MINUTE - SECOND, session, kept_lease) == Nothing()
    assert decision_at(90 * MINUTE, session, kept_lease) == Remind(90 * MINUTE, NOW + 135 * MINUTE, last=False)


def test_the_end_of_the_lease_is_announced_and_enforced() -> None:
    """There is a warning before the end; at the end the model goes down, even if it is busy or kept."""
    busy = a_session(active=END - 16 * MINUTE)
    at = END - NOW
    assert decision_at(at - 15 * MINUTE - SECOND, busy) == Nothing()
    assert decision_at(at - 15 * MINUTE, busy) == WarnEnd(15 * MINUTE)
    assert decision_at(at - SECOND, a_session(active=END, warned=END)) == Nothing()
    kept_lease = a_lease(keep_until=END + timedelta(hours=1))
    assert decision_at(at, a_session(active=END, warned=END), kept_lease) == BringDown("the lease has ended")


def test_an_extended_lease_gets_another_warning() -> None:
    """The earlier warning was for another end of the lease."""
    extended = a_lease(ends=END + timedelta(hours=1))
    busy = a_session(active=END + 44 * MINUTE, warned=END)
    assert decision_at(timedelta(hours=4, minutes=45), busy, extended) == WarnEnd(15 * MINUTE)


def test_a_lease_shorter_than_the_warning_has_none() -> None:
    """The warning would be sent immediately."""
    short = a_lease(hold=10 * MINUTE, ends=NOW + 10 * MINUTE)
    assert decision_at(MINUTE, lease=short) == Nothing()


def test_idle_limits_are_shorter_while_somebody_waits() -> None:
    """By default the reminder comes after 5 minutes and the end after 15; without a queue they come after 15 and 60."""
    assert decisions_of_unused_model(1, waiting=1) == [
        (5, Remind(5 * MINUTE, NOW + 15 * MINUTE, last=False)),
        (10, Remind(10 * MINUTE, NOW + 15 * MINUTE, last=True)),
        (15, BringDown("idle for 15 min and nobody answered")),
    ]


def test_a_new_request_in_the_queue_does_not_skip_the_announcement() -> None:
    """After half an hour of idle time the end is announced, and the model goes down five minutes later."""
    reminded = a_session(reminders=1, reminded=NOW + 15 * MINUTE)
    assert decision_at(29 * MINUTE, reminded, waiting=1) == Remind(29 * MINUTE, NOW + 34 * MINUTE, last=True)


def test_the_announcement_is_void_when_the_queue_is_empty() -> None:
    """The announced time is too early now: the reminders continue, and there is another announcement."""
    announced_at = NOW + 10 * MINUTE
    announced = a_session(reminders=2, reminded=announced_at, announced=announced_at, down_at=announced_at + 5 * MINUTE)
    assert decision_at(24 * MINUTE, announced) == Nothing()
    assert decision_at(25 * MINUTE, announced) == Remind(25 * MINUTE, NOW + 60 * MINUTE, last=False)
    assert decision_at(60 * MINUTE, announced) == Remind(60 * MINUTE, NOW + 65 * MINUTE, last=True)


def test_nothing_goes_down_before_the_announced_time() -> None:
    """The announced time stays even if somebody joins the queue in the meantime."""
    announced_at = NOW + 30 * MINUTE
    announced = a_session(
        reminders=2, reminded=announced_at, announced=announced_at, down_at=announced_at + 30 * MINUTE
    )
    assert decision_at(60 * MINUTE - SECOND, announced, waiting=1, announce_before="30m") == Nothing()
    assert isinstance(decision_at(60 * MINUTE, announced, waiting=1, announce_before="30m"), BringDown)


def test_longer_times_for_the_queue_do_not_lengthen_anything() -> None:
    """The shorter of the two limits applies."""
    assert isinstance(decision_at(15 * MINUTE, waiting=1, queue_remind_after="20m", queue_down_after="2h"), Remind)


def test_nobody_is_asked_in_quiet_hours() -> None:
    """An idle model goes down after the time of the first reminder; a busy or kept model stays up."""
    night = "20:00-07:00"
    assert decision_at(15 * MINUTE - SECOND, quiet_hours=night) == Nothing()
    assert decision_at(15 * MINUTE, quiet_hours=night) == BringDown("idle for 15 min in quiet hours")
    assert decision_at(15 * MINUTE, lease=a_lease(keep_until=NOW + 20 * MINUTE), quiet_hours=night) == Nothing()
    assert isinstance(decision_at(15 * MINUTE, quiet_hours="04:00-07:00"), Remind)


@pytest.mark.parametrize(
    ("at", "quiet"),
    [
        ("2026-11-23T18:59:59+00:00", False),  # 19:59:59 in Berlin
        ("2026-11-23T19:00:00+00:00", True),
        ("2026-11-24T05:59:59+00:00", True),
        ("2026-11-24T06:00:00+00:00", False),
        ("2026-11-27T22:59:59+00:00", True),  # Friday night
        ("2026-11-28T11:00:00+00:00", True),  # Saturday noon
        ("2026-11-29T22:59:59+00:00", True),  # Sunday, 23:59:59
        ("2026-11-30T06:00:00+00:00", False),  # Monday, 07:00
        ("2026-10-23T04:59:59+00:00", True),  # Friday, 06:59:59 by summer time
        ("2026-10-23T05:00:00+00:00", False),
        ("2026-10-26T05:00:00+00:00", True),  # Monday, 06:00, the clocks went back
        ("2026-10-26T06:00:00+00:00", False),
    ],
)
def test_quiet_hours_follow_the_local_clock(at: str, quiet: bool) -> None:
    """The quiet hours begin in the evening and end on the next morning."""
    policy = Idle.model_validate(
        {"quiet_hours": "20:00-07:00", "quiet_days": ["sat", "sun"], "timezone": "Europe/Berlin"}
    )
    assert is_quiet(datetime.fromisoformat(at), policy) is quiet


def test_traffic_counts_as_activity() -> None:
    """A running request or a counter that moved is activity; the same numbers again are not."""
    start = with_sample(None, a_lease(), activity(requests=5), NOW)
    idle = with_sample(start, a_lease(), activity(requests=5), NOW + MINUTE)
    assert (idle.active, idle.idle_seconds) == (NOW, 60)
    assert with_sample(idle, a_lease(), activity(running=1, requests=5), NOW + 2 * MINUTE).active == NOW + 2 * MINUTE
    moved = with_sample(idle, a_lease(), activity(requests=7, tokens=100), NOW + 2 * MINUTE)
    assert (moved.active, moved.requests, moved.tokens) == (NOW + 2 * MINUTE, 2, 100)


def test_the_bots_own_requests_do_not_count_as_use() -> None:
    """A smoke test increases the counters by its own requests; one more request counts as use."""
    start = with_sample(None, a_lease(), activity(requests=5, tokens=50), NOW)
    own_requests = Own(requests=3, tokens=30)
    smoked = with_sample(start, a_lease(), activity(requests=8, tokens=80), NOW + MINUTE, own_requests)
    assert (smoked.active, smoked.requests, smoked.tokens) == (NOW, 0, 0)
    used = with_sample(smoked, a_lease(), activity(requests=9, tokens=90), NOW + 2 * MINUTE, own_requests)
    assert (used.active, used.requests, used.tokens) == (NOW + 2 * MINUTE, 1, 10)


def test_unknown_usage_counts_as_active_and_is_reported() -> None:
    """Metrics that cannot be read bring nothing down before the lease ends, and the holder is notified once."""
    lease, session = a_lease(), with_sample(None, a_lease(), activity(), NOW)
    decisions = []
    for minute in range(1, 241):
        now = NOW + minute * MINUTE
        session = with_sample(session, lease, None, now)
        decision = decide(lease, session, 0, now, Idle(), LeaseLimits())
        session = after_decision(session, decision, lease, now)
        if not isinstance(decision, Nothing):
            decisions.append((minute, decision))
    blind = MetricsUnreadable(NOW + MINUTE)
    assert decisions == [(16, blind), (225, WarnEnd(15 * MINUTE)), (240, BringDown("the lease has ended"))]
    back = with_sample(session, lease, activity(), END)
    assert (back.unknown_since, back.told_unknown) == (None, False)


def test_the_counters_of_a_restarted_engine_start_again() -> None:
    """Requests before the restart stay counted, and those of the new engine are added."""
    start = with_sample(None, a_lease(), activity(requests=50, tokens=500), NOW)
    after = with_sample(start, a_lease(), activity(requests=2, tokens=20), NOW + MINUTE)
    assert (after.requests, after.tokens) == (2, 20)


def test_lost_data_does_not_count_as_idle_time() -> None:
    """If Redis has lost its data, the earlier use is unknown: the model may have been in use all the time."""
    now = NOW + timedelta(hours=3)
    fresh = with_sample(None, a_lease(), activity(requests=500), now)
    assert (fresh.active, fresh.idle_seconds) == (now, 0)
    assert decide(a_lease(), fresh, 0, now, Idle(), LeaseLimits()) == Nothing()


MINUTES = st.integers(1, 300)


@settings(deadline=None, max_examples=50)
@given(
    remind=MINUTES, down=MINUTES, every=MINUTES, announce=MINUTES, waiting=st.integers(0, 1), hold=st.integers(1, 12)
)
def test_under_any_policy_an_unused_model_is_announced_and_goes_down(
    remind: int, down: int, every: int, announce: int, waiting: int, hold: int
) -> None:
    """A model goes down after a reminder and an announcement, or at the end of its lease, and never late."""
    policy = {
        "remind_after": remind * 60, "down_after": (remind + down) * 60, "remind_every": every * 60,
        "announce_before": announce * 60,
    }  # fmt: skip
    lease = a_lease(hold=timedelta(hours=hold), ends=NOW + timedelta(hours=hold))
    done = decisions_of_unused_model(hold, lease, waiting=waiting, **policy)
    minute, last = done[-1]
    assert isinstance(last, BringDown)
    assert minute <= hold * 60
    if last.reason != "the lease has ended":
        announced = [at for at, decision in done if isinstance(decision, Remind) and decision.last]
        assert len(announced) == 1
        assert minute >= announced[0] + min(announce, down, 10)
