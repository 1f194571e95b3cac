"""The phases of an operation."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.domain import phases
from bot.domain.kinds import Kind
from bot.domain.operations import BringUpOperation, ChangeOperation, Operation, PhaseRecord, Status
from bot.domain.plans import ChangePlan, OwnChange, Pull
from bot.domain.requests import BringUp
from bot.text.mrkdwn import md
from tests.bot.view_examples import an_operation

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
PULL = Pull(number=1, url="https://example.com/1", branch="b", head="b" * 40)
STAGES = ChangePlan(commit="a" * 40, stages=True, pull=PULL, pushed=PULL.head, own=OwnChange())


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def operation() -> Operation:
    request = BringUp(model="coder-chat", actor="U1", channel="C1", at=T0)
    return BringUpOperation(id="abc", request=request, updated=T0)


def test_entering_a_phase_ends_the_one_before() -> None:
    """If an operation enters a phase again after a restart, the phase keeps its start time."""
    op = operation().with_phase(phases.SYNC, at(0)).with_phase(phases.START, at(2))
    assert op.with_phase(phases.START, at(9)) == op
    assert [(p.name, p.began, p.ended) for p in op.phases] == [
        ("syncing", at(0), at(2)),
        ("starting", at(2), None),
    ]


def test_phases_that_are_reported_again_are_recorded_once() -> None:
    """The cluster reports all of a boot's phases each time; known ones are updated, not repeated."""
    waiting = PhaseRecord(name="waiting for a node", began=at(3), detail="pod triggered scale-up")
    op = operation().with_phase(phases.START, at(2)).with_phases([waiting], at(4))
    records = [
        waiting.model_copy(update={"detail": "", "ended": at(60)}),
        PhaseRecord(name="pulling the image", began=at(60), ended=at(200)),
        PhaseRecord(name="loading", began=at(200)),
    ]
    op = op.with_phases(records, at(205)).with_phases(records, at(206))
    assert [(p.name, p.began, p.ended) for p in op.phases] == [
        ("starting", at(2), at(4)),
        ("waiting for a node", at(3), at(60)),
        ("pulling the image", at(60), at(200)),
        ("loading", at(200), None),
    ]
    assert op.phases[1].detail == "pod triggered scale-up"


def test_only_the_phase_that_failed_is_marked() -> None:
    """Phases that ended before a failure stay successful, and the clean-up does not count as failed."""
    op = operation().with_phase(phases.SYNC, at(0)).with_phase(phases.START, at(2))
    op = op.with_phases_ended(at(9), failed=True).with_phase(phases.UNDO_BRING_UP, at(9)).with_phases_ended(at(12))
    assert [(p.name, p.failed) for p in op.phases] == [
        ("syncing", False),
        ("starting", True),
        ("bringing it down again", False),
    ]


@pytest.mark.parametrize(
    ("kind", "changes", "stoppable"),
    [
        (Kind.GPU_UP, {}, True),
        (Kind.GPU_DOWN, {}, False),
        (Kind.MODEL_BENCH, {}, True),
        (Kind.MODEL_SWAP, {}, False),
        (Kind.MODEL_SWAP, {"blocked": md("somebody has to run the generator")}, True),
        (Kind.MODEL_SWAP, {"plan": STAGES}, True),
        (Kind.MODEL_SWAP, {"plan": STAGES, "phases": (PhaseRecord(name="merging", began=T0),)}, False),
    ],
)
def test_until_when_a_running_operation_can_be_cancelled(
    kind: Kind, changes: dict[str, object], stoppable: bool
) -> None:
    """A change can be cancelled while it stages weights, and after its merge while it waits for a person."""
    op = an_operation(Status.RUNNING, kind).model_copy(update={"plan": None, "phases": ()})
    if isinstance(op, ChangeOperation):
        op = op.model_copy(update={"blocked": md(""), **changes})
    assert op.can_be_cancelled is stoppable


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("status", [status for status in Status if status is not Status.RUNNING])
def test_an_operation_that_does_not_run_can_be_cancelled_until_it_ends(status: Status, kind: Kind) -> None:
    assert an_operation(status, kind).can_be_cancelled is not status.final
