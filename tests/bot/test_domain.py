"""What an operation remembers of its phases."""

from datetime import UTC, datetime, timedelta

from bot.domain import Kind, Operation, Phase, Request

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def operation() -> Operation:
    asked = Request(kind=Kind.GPU_UP, model="coder-chat", actor="U1", channel="C1", at=T0)
    return Operation(id="abc", request=asked, updated=T0)


def test_entering_a_phase_ends_the_one_before() -> None:
    """Entering it again, after a restart, keeps its start."""
    op = operation().with_phase("syncing", at(0)).with_phase("starting", at(2))
    assert op.with_phase("starting", at(9)) == op
    assert [(p.name, p.began, p.ended) for p in op.phases] == [
        ("syncing", at(0), at(2)),
        ("starting", at(2), None),
    ]


def test_phases_told_again_stand_once() -> None:
    """The cluster tells all of a boot's phases each time; those known already are brought up to date, not repeated."""
    waiting = Phase(name="waiting for a node", began=at(3), detail="pod triggered scale-up")
    op = operation().with_phase("starting", at(2)).with_phases([waiting], at(4))
    told = [
        waiting.model_copy(update={"detail": "", "ended": at(60)}),
        Phase(name="pulling the image", began=at(60), ended=at(200)),
        Phase(name="loading", began=at(200)),
    ]
    op = op.with_phases(told, at(205)).with_phases(told, at(206))
    assert [(p.name, p.began, p.ended) for p in op.phases] == [
        ("starting", at(2), at(4)),
        ("waiting for a node", at(3), at(60)),
        ("pulling the image", at(60), at(200)),
        ("loading", at(200), None),
    ]
    assert op.phases[1].detail == "pod triggered scale-up"


def test_only_the_phase_that_failed_is_marked() -> None:
    """What was done before a failure was done, and what cleans up after it is no failure."""
    op = operation().with_phase("syncing", at(0)).with_phase("starting", at(2))
    op = op.with_phases_ended(at(9), failed=True).with_phase("bringing it down again", at(9)).with_phases_ended(at(12))
    assert [(p.name, p.failed) for p in op.phases] == [
        ("syncing", False),
        ("starting", True),
        ("bringing it down again", False),
    ]
