"""Operation lifecycle: request, approval, expiry, end, failure, and presentation."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from docket import Docket, Retry

from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.operations import AlreadyDecided, Note, Operation, Status, Vote, new_operation
from bot.domain.outcomes import Expired, Refused
from bot.domain.plans import Plan
from bot.domain.requests import AnyRequest, RequestFields, operation_id
from bot.engine.run import Run, Step
from bot.engine.task_refs import ADVANCE, ESCALATE, EXPIRE, HAND_OVER, REMIND
from bot.errors import BotError, Unavailable
from bot.policy import Verdict, time_to_decide, who_decides
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.state.operations import OperationNotFound, Operations
from bot.state.step_ledger import StepLedger
from bot.state.task_starts import TaskStarts
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code, lines, unmarked

Op = TypeVar("Op", bound=Operation)
log = structlog.get_logger(__name__)

_TURN = 5.0
"""Maximum seconds to wait for other work that a crash interrupted, before starting work that stops costs."""
OPENING = Step("opening begun", bool)
NOT_OPENED = Step("why it was not opened", Mrkdwn)
TAKEN_BACK = Step("opening taken back", bool)
"""Ledger steps of a change. After `OPENING` there may be a branch and a pull request; after `TAKEN_BACK` there is neither."""
_SILENT_ATTEMPTS = 2
"""Failed attempts before the requester of a new request is notified: a short outage needs no message."""
_VALIDATION_ATTEMPTS = 6
"""Attempts while a request is still being validated (about 30 s): the requester is waiting."""


class NotAllowed(BotError):
    """Policy refused a click or a request."""

    remedy = "Follow the message. If a role is missing, ask a person who has it: the message names them, or the setting that lists them."


class PlanMoved(BotError):
    """Stoker would now run something other than the approved content, so the approval is void."""

    remedy = "Read the new plan on the card, and approve it again."


class SetAside(BotError):
    """The bot's process crashed each time it worked on this request."""

    remedy = "Ask an admin to find the cause in the log of the bot (most likely out of memory). Then request it again."


def require(verdict: Verdict) -> None:
    """Raise NotAllowed with the verdict's reason, unless it allows the action."""
    if not verdict.allowed:
        raise NotAllowed(verdict.reason)


@component
class Lifecycle:
    """The life cycle of operations: their request, approval, expiry, failure, and card."""

    docket: Docket
    operations: Operations
    steps: StepLedger
    task_starts: TaskStarts
    presentation: Presentation
    config: Config
    clock: Clock

    def run(self, op: Op) -> Run[Op]:
        """Return the `Run` that moves this operation through its steps."""
        return Run(op, self.operations, self.steps, self.presentation, self.docket, self.clock)

    def request_fields(self, actor: str, reason: str = "") -> RequestFields:
        """Return the common fields of a request that is made now."""
        return RequestFields(actor=actor, channel=self.config.slack.channel, at=self.clock(), reason=reason)

    async def request(self, request: AnyRequest, delivery: str) -> Operation:
        """Store a request and enqueue it. Idempotent per delivery."""
        operation = new_operation(
            operation_id(delivery),
            request,
            self.clock(),
            deciders=who_decides(self.config),
            quorum=self.config.approvals.quorum,
        )
        op = await self.operations.create(operation)
        await self.enqueue(op)
        return op

    async def enqueue(self, op: Operation) -> None:
        """Enqueue a task to advance the operation. Idempotent per stage."""
        await ADVANCE.add(self.docket, key=task_key(op))(op.id)

    async def hand_over_soon(self) -> None:
        """Process the queue now instead of at the next round: a slot has become free."""
        await HAND_OVER.replace(self.docket, when=self.clock(), key="hand_over")()

    @asynccontextmanager
    async def watched(self, op: Operation) -> AsyncIterator[None]:
        """Work on an operation. Raises SetAside if this has repeatedly crashed the process at the same step.

        A changed status, a finished step and a new phase count as progress (see `bot.state.task_starts`).
        `SettingAside.cut_short` replaces a rollback that is set aside.
        """
        key, begun = task_key(op), f"{op.status} {await self.steps.finished(op.id)} {len(op.phases)}"
        patience = _TURN if op.failure or op.request.kind.spec.turns_cost_off else None
        async with self.task_starts.watched(key, begun, patience=patience) as start:
            if start.hopeless:
                raise SetAside(
                    md(
                        "Stoker crashed {deaths} times while it worked on this request, so the request is set aside. Other requests are not affected. "
                        "The cause is in the log of the bot.",
                        deaths=start.ended,
                    )
                )
            yield

    async def await_approval(self, op: Op, plan: Plan, *, note: Mrkdwn = Mrkdwn(), votes: tuple[Vote, ...] = ()) -> Op:
        """Ask for approval of this plan. Votes for an earlier plan are void; `votes` are the votes that are still valid."""
        now = self.clock()
        expires = now + time_to_decide(op, self.config)

        def awaiting(op: Op) -> Op:
            return op.moved(
                Status.AWAITING, now, plan=plan, votes=votes, phases=(), outcome=note, failure="", expires=expires
            )

        event = AuditEvent.APPROVAL_VOID if note else AuditEvent.AWAITING_APPROVAL
        op = await self.operations.update(op.id, awaiting, event=event)
        await self.present(op)
        return op

    async def present(self, op: Operation) -> None:
        """Show the card of an operation that waits, and schedule its reminder, its escalation and its expiry.
        Idempotent.
        """
        await self.show(op)
        if op.expires is None:
            return
        until = op.expires.isoformat()
        await EXPIRE.add(self.docket, when=op.expires, key=f"{op.id}:expire:{until}")(op.id)
        if op.status is Status.AWAITING:
            limit = time_to_decide(op, self.config)
            half, late = op.expires - limit / 2, op.expires - limit / 4
            if self.clock() < half:  # otherwise each presentation of the card would schedule a past reminder again
                await REMIND.add(self.docket, when=half, key=f"{op.id}:remind:{until}")(op.id, until)
            if self.clock() < late:
                await ESCALATE.add(self.docket, when=late, key=f"{op.id}:escalate:{until}")(op.id, until)

    async def show(self, op: Operation) -> None:
        await self.run(op).show()

    async def expire(self, op_id: str) -> None:
        """End a request that was not decided in time."""
        now = self.clock()

        def expired(op: Operation) -> Operation:
            undecided = op.status in (Status.AWAITING, Status.WAITING)
            if not undecided or op.expires is None or op.expires > now or is_closing(op):
                return op
            return op.ended(Expired(pull_left_open=op.open_pull is not None), now)

        op = await self.operations.update(op_id, expired, event=AuditEvent.EXPIRED)
        if op.status is Status.EXPIRED:
            await self.show(op)

    @asynccontextmanager
    async def handling_errors(self, op_id: str, retry: Retry) -> AsyncIterator[None]:
        """Turn every error into either a retry or a recorded failure.

        The failure is recorded before the rollback starts, so that a crash during the rollback resumes it.
        """
        try:
            yield
        except OperationNotFound as error:
            # Redis lost the operation, so there is nowhere to record the failure.
            log.warning("operation not in Redis", op=op_id, error=error.message)
        except Unavailable as error:
            is_new = (await self.operations.load(op_id)).status is Status.REQUESTED
            opening = is_new and await self._is_opening(op_id)
            attempts = _VALIDATION_ATTEMPTS if is_new and not opening else retry.attempts
            if attempts is None or retry.attempt < attempts:
                log.warning("will try again", op=op_id, attempt=retry.attempt, error=str(error))
                if is_new and retry.attempt == _SILENT_ATTEMPTS:
                    await self._notify_of_wait(op_id, error)
                raise
            if opening:
                # A half-opened pull request is not abandoned: `sweep` resumes it, until it is opened or closed.
                log.warning("pull request not opened yet", op=op_id, error=str(error))
                reason = md(
                    "{error}. Stoker will open your pull request when {system} answers again, or close it.",
                    error=error,
                    system=error.system,
                )
                await self._notify_requester(op_id, reason)
                return
            await self._fail(
                op_id, md("{error}. Stoker has tried {attempt} times.", error=error, attempt=retry.attempt)
            )
        except AlreadyDecided as error:
            # Another bot has taken over the task while this process was paused, and does the work.
            log.warning("another worker continues this operation", op=op_id, error=error.message)
        except BotError as error:
            await self._fail(op_id, error.shown, error.details)
        except Exception:
            error_id = uuid.uuid4().hex[:8]
            log.exception("unexpected error", op=op_id, error_id=error_id)
            await self._fail(
                op_id, md("Something unexpected went wrong. Search Stoker's log for `{error_id}`.", error_id=error_id)
            )

    async def _notify_of_wait(self, op_id: str, error: Unavailable) -> None:
        """Notify the requester once of the system that does not answer, and of the retries."""
        op = await self.operations.load(op_id)
        if op.request.actor:
            text = md(
                "⏳ Your request about {model} waits for {system}, which does not answer. Stoker tries again for about 30 s.",
                model=code(op.request.model),
                system=error.system,
            )
            await self.presentation.post(f"waits:{op_id}", op.request.actor, lines(text))

    async def _notify_requester(self, op_id: str, reason: Mrkdwn) -> None:
        """Notify the requester once of the reason why there is no card yet."""
        op = await self.operations.load(op_id)
        await self.presentation.post(f"late:{op_id}", op.request.actor, lines(reason))

    async def _is_opening(self, op_id: str) -> bool:
        """Return whether there may be a branch or a pull request of an operation that has no card yet."""
        opening = await self.steps.result(op_id, OPENING.key, bool)
        return bool(opening) and not await self.steps.result(op_id, TAKEN_BACK.key, bool)

    async def _fail(self, op_id: str, reason: Mrkdwn, details: str = "") -> None:
        op = await self.operations.load(op_id)
        if op.status is Status.REQUESTED and await self._is_opening(op_id):

            async def refusal() -> Mrkdwn:
                return reason

            await self.run(op).once(NOT_OPENED, refusal)  # `sweep` resumes it, and closes the pull request
        elif op.status is Status.REQUESTED:
            await self.refuse(op, reason)
        elif op.failure and not op.status.final:
            # The rollback also failed: `sweep` retries it, and the card shows why.
            await self._show_rollback_error(op_id, str(unmarked(reason)))
        elif not op.status.final:
            now, evidence = self.clock(), (Note(title="What was seen", text=details),) if details else ()

            def failed(op: Operation) -> Operation:
                changes = {"failure": reason, "updated": now, "notes": (*op.notes, *evidence)}
                return op.with_phases_ended(now, failed=True).model_copy(update=changes)

            op = await self.operations.update(op_id, failed)
            await self.enqueue(op)

    async def _show_rollback_error(self, op_id: str, error: str) -> None:
        now = self.clock()
        log.warning("rollback not finished yet", op=op_id, error=error)
        await self.operations.update(op_id, lambda op: op.with_detail(error, now))
        self.presentation.show(op_id)

    async def refuse(self, op: Operation, reason: Mrkdwn) -> None:
        """Reject the request with an ephemeral message; nothing is posted to the channel."""
        now = self.clock()
        op = await self.operations.update(
            op.id, lambda op: op.ended(Refused(reason=reason), now), event=AuditEvent.REFUSED
        )
        await self.show(op)


def task_key(op: Operation) -> str:
    """Task key for the current stage. At most one task per key runs; a task whose key is not the current one exits.

    A killed task is delivered again under its old key, possibly long after the operation continued.
    """
    if op.failure:
        stage = "undo"
    elif op.status is Status.AWAITING:
        stage = "close" if is_closing(op) else "present"
    elif op.status is Status.WAITING:
        stage = "wait"
    elif op.status is Status.REQUESTED and op.request.kind.spec.needs_approval:
        stage = "plan"
    else:
        stage = "run"
    return f"{op.id}:{stage}:{len(op.votes)}"


def is_closing(op: Operation) -> bool:
    """Return whether an operation that waits for approval was cancelled or denied, so that only its clean-up is left."""
    return bool(op.cancelled_by) or any(not vote.approve for vote in op.votes)
