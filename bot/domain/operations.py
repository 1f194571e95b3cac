"""An operation: its status and allowed transitions, its votes, phases and outcome; one type per kind."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, Self, TypeVar

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter

from bot.domain import phases
from bot.domain.kinds import CancelRule, Kind
from bot.domain.leases import Lease, Waiting
from bot.domain.outcomes import Outcome
from bot.domain.phases import Phase
from bot.domain.plans import BringUpPlan, ChangePlan, ExtendPlan, JobPlan, Plan, Pull, ReleasePlan
from bot.domain.requests import (
    AnyRequest,
    BringDown,
    BringUp,
    ChangeRequest,
    Extend,
    Release,
    Request,
    Restart,
    RunBenchmark,
    SmokeTest,
    StageWeights,
)
from bot.domain.status import Status as Status
from bot.domain.values import Count, Message, Moment, Value
from bot.errors import BotError
from bot.text.mrkdwn import Mrkdwn, clock, md, person


class AlreadyDecided(BotError):
    """A click or an event arrived too late."""

    remedy = "Nothing: the message names the person who decided, and the time."


class Vote(Value):
    by: str
    at: Moment
    approve: bool
    reason: str = ""
    override: bool = False
    """An admin's override in an emergency: it replaces the whole quorum. The card and the audit log show it."""


class PhaseRecord(Value):
    """The time during which an operation was in a phase."""

    name: str
    """The key of the phase."""
    label: str = ""
    """Its label when it was entered; empty in records of an earlier version of Stoker."""
    began: Moment
    ended: Moment | None = None
    detail: str = ""
    failed: bool = False

    @classmethod
    def of(cls, phase: Phase, *, began: datetime, ended: datetime | None = None, detail: str = "") -> "PhaseRecord":
        return cls(name=phase.key, label=phase.label, began=began, ended=ended, detail=detail)

    @property
    def text(self) -> str:
        """The text for people."""
        return self.label or self.name


GATEWAY_CHECK = "gateway: "
"""The prefix of the smoke tests through the gateway; the alias follows."""


class Check(Value):
    """One smoke test: its result and its evidence."""

    name: str
    passed: bool
    evidence: str
    warning: bool = False
    """True if it passed but should be reviewed."""
    seconds: Count = 0
    """Duration of the test."""

    @property
    def by_gateway(self) -> bool:
        return self.name.startswith(GATEWAY_CHECK)


class SmokeRun(Value):
    """The results of smoke tests that all passed, the baseline for the next run."""

    at: Moment
    model: str
    image: str
    answer: str
    """The answer to a fixed question at temperature 0."""
    seconds: Count
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None


class SessionEnd(Value):
    """The end of the session that an operation began."""

    since: Moment | None = None
    """The time when the model became ready; None if it never did."""
    until: Moment
    receipt: Message | None = None
    """The card with its receipt."""


class Note(Value):
    """Text for the thread of an operation: log lines, events, a diagnosis. It is not escaped."""

    title: str
    text: str
    rows: tuple[tuple[str, ...], ...] = Field(default=(), repr=False)
    """A table above the text, with a header row. With a table, the text is a sentence instead of log lines."""


class SmokeOutcome(Value):
    """The result of an endpoint's last smoke tests."""

    at: Moment
    commit: str
    failed: tuple[str, ...] = ()
    """The names of the failed tests; empty if all passed."""
    hf_id: str = ""
    """The tested model; earlier versions did not record it."""


class Operation(Value):
    """The fields and the life cycle that all kinds of operation have in common. `new_operation` creates an operation."""

    id: str
    request: Request
    status: Status = Status.REQUESTED
    version: int = 0
    updated: Moment
    plan: Plan | None = None
    votes: tuple[Vote, ...] = ()
    phases: tuple[PhaseRecord, ...] = ()
    notes: tuple[Note, ...] = ()
    result: Outcome | None = None
    """The outcome."""
    outcome: Mrkdwn = Mrkdwn()
    """The last event while the operation waits, in mrkdwn. Earlier versions of Stoker also stored the result here."""
    failure: Mrkdwn = Mrkdwn()
    """The reason for the failure. It is set before the rollback starts, so that a restart continues the rollback."""
    cancelled_by: str = ""
    expires: Moment | None = None
    message: Message | None = None
    deciders: Mrkdwn = Mrkdwn()
    """A description of who may decide."""
    quorum: int = Field(default=0, ge=0, le=1000)
    """The number of approvals that it needed when it was requested; 0 in records of an earlier version of Stoker."""
    obsolete: tuple[str, ...] = ()
    """The actions of the next-step buttons that its card no longer shows."""

    def moved(self, status: Status, now: datetime, **changes: object) -> Self:
        """The operation in its next status. Raises AlreadyDecided if it has ended or the transition is not allowed."""
        if status not in _NEXT.get(self.status, ()):
            raise AlreadyDecided(md("This request is already {status}{by}.", status=self.status, by=_by_whom(self)))
        return self.model_copy(update={"status": status, "updated": now, **changes})

    def ended(self, outcome: Outcome, now: datetime) -> Self:
        """The operation in its final status, with the outcome. Raises AlreadyDecided if it has already ended."""
        return self.with_phases_ended(now).moved(outcome.status, now, result=outcome, outcome=md(""))

    def was_requested_before(self, other: "Operation") -> bool:
        """Return whether this request came first; ids decide between requests at the same time."""
        return (self.request.at, self.id) < (other.request.at, other.id)

    def with_phase(self, phase: Phase, now: datetime, detail: str = "") -> Self:
        """Enter a phase and end the previous one. If it is already in this phase, only the detail changes."""
        last = self.running_phase
        if last and last.name == phase.key:
            return self.with_detail(detail or last.detail, now)
        entered = (*self.with_phases_ended(now).phases, PhaseRecord.of(phase, began=now, detail=detail))
        return self.model_copy(update={"phases": entered, "updated": now})

    def with_detail(self, detail: str, now: datetime) -> Self:
        """Set the detail of the running phase, if there is one."""
        if self.running_phase is None or self.running_phase.detail == detail:
            return self
        changed = self.running_phase.model_copy(update={"detail": detail})
        return self.model_copy(update={"phases": (*self.phases[:-1], changed), "updated": now})

    @property
    def running_phase(self) -> PhaseRecord | None:
        return self.phases[-1] if self.phases and self.phases[-1].ended is None else None

    def with_phases(self, reported: Sequence[PhaseRecord], now: datetime) -> Self:
        """Add the phases that the cluster reported, with the cluster's times; a phase that is already recorded is
        updated.
        """
        new_phases = {(phase.name, phase.began): phase for phase in reported}
        updated = []
        for phase in self.with_phases_ended(now).phases:
            newer = new_phases.pop((phase.name, phase.began), None)
            updated.append(newer.model_copy(update={"detail": newer.detail or phase.detail}) if newer else phase)
        return self.model_copy(update={"phases": (*updated, *new_phases.values()), "updated": now})

    def with_phases_ended(self, now: datetime, *, failed: bool = False) -> Self:
        """End all phases; `failed` applies only to running phases."""
        update = {"ended": now, "failed": failed}
        ended = tuple(p if p.ended else p.model_copy(update=update) for p in self.phases)
        return self.model_copy(update={"phases": ended})

    @property
    def can_be_cancelled(self) -> bool:
        """True if *Cancel* works now: before the operation starts, and afterwards if its kind allows it."""
        if self.status is not Status.RUNNING:
            return not self.status.final
        match self.request.kind.spec.cancel:
            case CancelRule.BEFORE_START:
                return False
            case CancelRule.WHILE_RUNNING:
                return True
            case CancelRule.UNTIL_MERGE:
                return self.waits_before_merge

    @property
    def waits_before_merge(self) -> bool:
        """True if it waits before the merge, or for a person, so that it can still be cancelled."""
        return False

    @property
    def open_pull(self) -> Pull | None:
        """Its pull request, if it is not merged yet: the operation merges it or closes it."""
        return None

    @property
    def lacks(self) -> Mrkdwn:
        """The missing conditions for an approval, in words that follow "when"; empty if it may be approved."""
        return Mrkdwn()

    @property
    def approvals(self) -> tuple[Vote, ...]:
        return tuple(vote for vote in self.votes if vote.approve)

    @property
    def is_approved(self) -> bool:
        """True if it has as many approvals as were required when it was requested; the policy counts them again at the start."""
        approvals = self.approvals
        return any(vote.override for vote in approvals) or 0 < self.quorum <= len(approvals)

    @property
    def shown(self) -> str:
        """The value of a button: the operation's id and the hash of the plan on the card."""
        return f"{self.id}.{self.plan.mark}" if self.plan else self.id


class TestedOperation(Operation):
    """An operation that smoke-tests its endpoint."""

    __test__ = False  # pytest must not collect this class

    checks: tuple[Check, ...] = ()


class BringUpOperation(TestedOperation):
    request: BringUp
    plan: BringUpPlan | None = None
    waiting: Waiting | None = None
    """The reason why it cannot have the GPU yet; None if it need not wait."""
    session_end: SessionEnd | None = None
    """The end of the session that it began; None until the session is over."""

    @property
    def shown_against(self) -> str:
        """`shown` for a button that also depends on the holder of the GPU: it includes the fence of the holder's lease."""
        return f"{self.shown}.{self.waiting.fence if self.waiting else 0}"


class BringDownOperation(Operation):
    request: BringDown
    plan: None = None


class RestartOperation(TestedOperation):
    request: Restart
    plan: None = None


class ExtendOperation(Operation):
    request: Extend
    plan: ExtendPlan | None = None


class ReleaseOperation(Operation):
    request: Release
    plan: ReleasePlan | None = None


class ChangeOperation(TestedOperation):
    """A pull request and its roll-out."""

    request: Annotated[ChangeRequest, Field(discriminator="kind")]
    plan: ChangePlan | None = None
    blocked: Mrkdwn = Mrkdwn()
    """The external action that the roll-out is waiting for, in mrkdwn. The operation can be cancelled while it is set."""

    @property
    def waits_before_merge(self) -> bool:
        return bool(self.blocked) or self.stages_before_merge

    @property
    def stages_before_merge(self) -> bool:
        """True if it is still staging weights before the merge. The merge itself cannot be cancelled."""
        unmerged = self.plan and self.plan.stages and not self.plan.pull.merge_commit
        return bool(unmerged) and not any(phase.name == phases.MERGE.key for phase in self.phases)

    @property
    def open_pull(self) -> Pull | None:
        return self.plan.pull if self.plan and not self.plan.pull.merge_commit else None

    @property
    def lacks(self) -> Mrkdwn:
        return self.plan.lacks if self.plan else Mrkdwn()


class SmokeTestOperation(TestedOperation):
    request: SmokeTest
    plan: None = None


class BenchmarkOperation(Operation):
    request: RunBenchmark
    plan: JobPlan | None = None


class StageOperation(Operation):
    request: StageWeights
    plan: JobPlan | None = None


OPERATIONS: Mapping[Kind, type[Operation]] = {
    Kind.GPU_UP: BringUpOperation,
    Kind.GPU_DOWN: BringDownOperation,
    Kind.GPU_RESTART: RestartOperation,
    Kind.GPU_EXTEND: ExtendOperation,
    Kind.GPU_RELEASE: ReleaseOperation,
    Kind.MODEL_ADD: ChangeOperation,
    Kind.MODEL_SWAP: ChangeOperation,
    Kind.MODEL_TUNE: ChangeOperation,
    Kind.MODEL_REMOVE: ChangeOperation,
    Kind.MODEL_REVERT: ChangeOperation,
    Kind.MODEL_SMOKE: SmokeTestOperation,
    Kind.MODEL_BENCH: BenchmarkOperation,
    Kind.MODEL_STAGE: StageOperation,
}


def new_operation(
    op_id: str,
    request: AnyRequest,
    now: datetime,
    *,
    deciders: Mrkdwn = Mrkdwn(),
    quorum: int = 0,
    votes: tuple[Vote, ...] = (),
) -> Operation:
    """Return a new operation with the status *requested*, of the type that belongs to its kind."""
    of_kind = OPERATIONS[request.kind]
    return of_kind(id=op_id, request=request, updated=now, deciders=deciders, quorum=quorum, votes=votes)


def _type_of(record: Any) -> str | None:
    """The name of the type of a stored operation; None if its kind is unknown."""
    try:
        return OPERATIONS[Kind(record["request"]["kind"])].__name__
    except (TypeError, LookupError, ValueError):
        return None


OPERATION = TypeAdapter[Operation](
    Annotated[
        Annotated[BringUpOperation, Tag("BringUpOperation")]
        | Annotated[BringDownOperation, Tag("BringDownOperation")]
        | Annotated[RestartOperation, Tag("RestartOperation")]
        | Annotated[ExtendOperation, Tag("ExtendOperation")]
        | Annotated[ReleaseOperation, Tag("ReleaseOperation")]
        | Annotated[ChangeOperation, Tag("ChangeOperation")]
        | Annotated[SmokeTestOperation, Tag("SmokeTestOperation")]
        | Annotated[BenchmarkOperation, Tag("BenchmarkOperation")]
        | Annotated[StageOperation, Tag("StageOperation")],
        Discriminator(
            _type_of, custom_error_type="unknown_kind", custom_error_message="an operation of an unknown kind"
        ),
    ],
    config=ConfigDict(defer_build=True),
)
"""Adapter that reads a stored operation as the type of its kind."""

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


class NotPlanned(BotError):
    """The operation has no plan, so its work cannot start."""

    remedy = "Request it again: its record was changed from outside."


class _Planned(Protocol[P_co]):
    @property
    def plan(self) -> P_co | None: ...


def plan_of(op: _Planned[P]) -> P:
    """The plan of an operation that has been approved or started. Raises NotPlanned if it has none."""
    if op.plan is None:
        raise NotPlanned("This request has no plan; request it again.")
    return op.plan


def estimate(op: Operation) -> float | None:
    """The estimated cost in dollars; None if its kind has no estimate, or it has no plan yet."""
    return op.plan.estimate_usd if isinstance(op.plan, BringUpPlan | ExtendPlan) else None


def lease_to_end(op: Operation) -> Lease | None:
    """The lease that the operation replaces or breaks; None if it ends no lease."""
    return None if isinstance(op, ExtendOperation) else lease_in_plan(op)


def lease_in_plan(op: Operation) -> Lease | None:
    """The lease that the operation replaces, extends or breaks; None if its plan has no lease."""
    match op.plan:
        case BringUpPlan(lease=lease) | ExtendPlan(lease=lease) | ReleasePlan(lease=lease):
            return lease
        case _:
            return None


_OVER = (Status.FAILED, Status.CANCELLED)


_NEXT: dict[Status, tuple[Status, ...]] = {
    Status.REQUESTED: (Status.AWAITING, Status.WAITING, Status.RUNNING, Status.REFUSED, *_OVER),
    Status.WAITING: (Status.AWAITING, Status.APPROVED, Status.DENIED, Status.EXPIRED, *_OVER),
    Status.AWAITING: (Status.APPROVED, Status.DENIED, Status.EXPIRED, *_OVER),
    Status.APPROVED: (Status.RUNNING, Status.AWAITING, Status.WAITING, *_OVER),
    Status.RUNNING: (Status.SUCCEEDED, Status.AWAITING, Status.WAITING, *_OVER),
}


def _by_whom(op: Operation) -> Mrkdwn:
    if op.votes and op.status not in (Status.AWAITING, Status.REQUESTED, Status.WAITING):
        vote = op.votes[-1]
        return md(
            ", {decision} by {by} at {at}",
            decision="approved" if vote.approve else "denied",
            by=person(vote.by),
            at=clock(vote.at),
        )
    return Mrkdwn()
