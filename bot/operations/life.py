"""An operation's life around its work: asked, approved, cancelled, expired, failed, shown."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import structlog
from docket import Retry

from bot.clients import boot
from bot.domain import AlreadyDecided, Kind, Note, Operation, Phase, Plan, Request, Status, Vote, operation_id
from bot.errors import BotError, Unavailable
from bot.logs import about
from bot.policy import Verdict, is_approved, may_cancel, may_deny, may_override, may_vote, who_decides
from bot.services import Services
from bot.store import Forgotten
from bot.views import unmarked

T = TypeVar("T")
log = structlog.get_logger(__name__)

_HOME_AFTER = timedelta(seconds=1)
_ATTEMPTS_ASKED = 6
"""Of a request that is only being looked at: half a minute, since whoever asked waits for an answer."""


class NotAllowed(BotError):
    """Policy refused a click or a request."""

    remedy = "Ask somebody who may: the message names them, or the setting that says who."


class PlanMoved(BotError):
    """What was approved is no longer what would run; the approval is void."""

    remedy = "Look at the new plan on the card and approve again."


class CancelAsked(BotError):
    """Somebody cancelled an operation that is running."""

    remedy = "Nothing: what was begun is being undone."


def insist(verdict: Verdict) -> None:
    if not verdict.allowed:
        raise NotAllowed(verdict.reason)


async def request(svc: Services, wanted: Request, delivery: str) -> Operation:
    """Note a request and set it going; the same delivery again changes nothing."""
    asked = Operation(id=operation_id(delivery), request=wanted, updated=svc.clock(), deciders=who_decides(svc.config))
    op = await svc.store.create(asked)
    await enqueue(svc, op)
    return op


async def enqueue(svc: Services, op: Operation) -> None:
    """See that a task carries the operation on; a second one for the same stretch of its life is not made."""
    await svc.docket.add("advance", key=task_key(op))(op.id)


def task_key(op: Operation) -> str:
    """The key of the task that works on an operation now: at most one task has it, and one with another does not work.

    A killed task is delivered again under its old key, perhaps long after the operation went on.
    """
    if op.failure:
        stretch = "undo"
    elif op.status is Status.AWAITING:
        stretch = "close" if is_closing(op) else "present"
    elif op.status is Status.WAITING:
        stretch = "wait"
    elif op.status is Status.REQUESTED and op.request.kind.approved:
        stretch = "plan"
    else:
        stretch = "run"
    return f"{op.id}:{stretch}:{len(op.votes)}"


async def hand_over_soon(svc: Services) -> None:
    """Look at the queue now, not at the next round: a slot has become free."""
    await svc.docket.replace("hand_over", when=svc.clock(), key="hand_over")()


def is_closing(op: Operation) -> bool:
    """Whether an operation that waits for approval has been cancelled or denied and only needs tidying up."""
    return bool(op.cancelled_by) or any(not vote.approve for vote in op.votes)


async def await_approval(svc: Services, op_id: str, plan: Plan, *, note: str = "") -> Operation:
    """Ask for approval of this plan; votes given to an earlier one are void."""
    now = svc.clock()
    limit = svc.config.approvals.pull_expire_after if plan.pull else svc.config.approvals.expire_after
    op = await svc.store.update(
        op_id,
        lambda op: op.moved(
            Status.AWAITING, now, plan=plan, votes=(), phases=(), outcome=note, failure="", expires=now + limit
        ),
        event="awaiting approval" if not note else "approval void",
    )
    return await present(svc, op)


async def carry_votes(svc: Services, op: Operation) -> None:
    """Let the approval of the request that this one is a part of count for its plan; what waits keeps it anyway."""
    given, now = op.votes, svc.clock()

    def counted(op: Operation) -> Operation:
        voted = op.model_copy(update={"votes": given, "updated": now})
        if op.status is not Status.AWAITING or not is_approved(voted, svc.config):
            return op
        return voted.moved(Status.APPROVED, now, outcome="")

    if given:
        by = given[-1].by
        await _decided(svc, await svc.store.update(op.id, counted, event="approved", who=by))


async def present(svc: Services, op: Operation) -> Operation:
    """Show the card of an operation that waits, and set its expiry. Safe to repeat."""
    op = await show(svc, op, force=True)
    if op.expires:
        await svc.docket.add("expire", when=op.expires, key=f"{op.id}:expire:{op.expires.isoformat()}")(op.id)
    return op


async def show(svc: Services, op: Operation, *, force: bool = False) -> Operation:
    message = await svc.slack.show(op, now=svc.clock(), force=force)
    if force:
        await changed(svc)
    if op.message is None:
        op = await svc.store.update(op.id, lambda op: op.model_copy(update={"message": message}))
    return op


async def changed(svc: Services) -> None:
    """Home may look different now; several changes within a moment are one look."""
    await svc.docket.add("refresh_homes", when=svc.clock() + _HOME_AFTER, key="homes")()


async def vote(
    svc: Services, op_id: str, actor: str, *, approve: bool, reason: str = "", override: bool = False
) -> Operation:
    """Count one decision. Policy is asked here, at the click; AlreadyDecided says who was first.

    A request that waits for the GPU may be decided before its turn. `override`: an admin's, for the whole quorum.
    """
    people, now = await svc.people(), svc.clock()

    def counted(op: Operation) -> Operation:
        if op.status not in (Status.AWAITING, Status.WAITING) or is_closing(op):
            op.moved(Status.APPROVED, now)  # says what it is, and who decided, when it is over
            raise AlreadyDecided("This request has just been closed.")
        if override:
            insist(may_override(actor, reason, people))
        else:
            insist(may_vote(op, actor, people, svc.config) if approve else may_deny(op, actor, people))
        pull = op.plan.pull if op.plan else None
        if approve and pull and not pull.merge_commit and pull.checks not in ("success", "none"):
            raise NotAllowed(f"The checks of pull request #{pull.number} have not passed yet.")
        if approve and pull and not pull.merge_commit and pull.mergeable is False:
            raise NotAllowed(f"Pull request #{pull.number} conflicts with the main branch, so it cannot be merged.")
        said = Vote(by=actor, at=now, approve=approve, reason=reason, override=override)
        op = op.model_copy(update={"votes": (*op.votes, said), "updated": now})
        if not approve:
            return op if _open_pull(op) else op.moved(Status.DENIED, now, outcome="Nothing was started.")
        if op.status is Status.AWAITING and is_approved(op, svc.config):
            return op.moved(Status.APPROVED, now, outcome="")
        return op

    verb = "overridden" if override else "approved" if approve else "denied"
    op = await _clicked(svc, op_id, actor, counted, verb, why=reason)
    await _decided(svc, op)
    return op


async def cancel(svc: Services, op_id: str, actor: str) -> Operation:
    """Stop an operation: at once when nothing has begun, else the running task undoes what it did."""
    people, now = await svc.people(), svc.clock()

    def cancelled(op: Operation) -> Operation:
        if op.status.final:
            op.moved(Status.CANCELLED, now)
        insist(may_cancel(op, actor, people))
        if op.status is Status.RUNNING and op.request.kind.changes and not op.blocked:
            raise NotAllowed(
                "This is past the point of no return: the pull request is being merged and rolled out."
                " When that is over, revert it to undo."
            )
        stoppable = op.request.kind in (Kind.GPU_UP, Kind.MODEL_BENCH) or op.blocked
        if op.status is Status.RUNNING and not stoppable:
            raise NotAllowed("This is running already and ends by itself; there is nothing to undo.")
        op = op.model_copy(update={"cancelled_by": actor, "updated": now})
        if op.status in (Status.RUNNING, Status.APPROVED) or _open_pull(op):
            return op
        return op.moved(Status.CANCELLED, now, outcome=f"Cancelled by <@{actor}>. Nothing was started.")

    op = await _clicked(svc, op_id, actor, cancelled, "cancelled")
    await _decided(svc, op)
    return op


async def _clicked(
    svc: Services, op_id: str, actor: str, change: Callable[[Operation], Operation], event: str, why: str = ""
) -> Operation:
    """Write what a click decides; what policy refuses is in the audit log too."""
    with about(op=op_id, actor=actor):
        try:
            return await svc.store.update(op_id, change, event=event, who=actor, why=why)
        except NotAllowed as error:
            await svc.store.note_refusal(await svc.store.load(op_id), actor, event, error.message, svc.clock())
            raise


async def _decided(svc: Services, op: Operation) -> None:
    """A decision counts once it is written: a Slack that does not answer now is told later, and the click succeeds."""
    if not op.status.final:
        await enqueue(svc, op)
    elif op.waiting:  # its turn is the next one's
        await hand_over_soon(svc)
    try:
        await (tell_end(svc, op) if op.status.final else show(svc, op, force=True))
    except Unavailable as error:
        log.warning("decision not shown yet", op=op.id, model=op.request.model, error=str(error))


async def expire(svc: Services, op_id: str) -> None:
    """End a request that nobody decided in time."""
    now = svc.clock()

    def expired(op: Operation) -> Operation:
        undecided = op.status in (Status.AWAITING, Status.WAITING)
        if not undecided or op.expires is None or op.expires > now or is_closing(op):
            return op
        pull = " Its pull request is left open." if _open_pull(op) else ""
        return op.moved(
            Status.EXPIRED, now, outcome=f"Nobody decided in time, so nothing was started.{pull} Ask again."
        )

    op = await svc.store.update(op_id, expired, event="expired")
    if op.status is Status.EXPIRED:
        await tell_end(svc, op)


def _open_pull(op: Operation) -> bool:
    return bool(op.plan and op.plan.pull and not op.plan.pull.merge_commit)


async def finish(svc: Services, op_id: str, status: Status, outcome: str) -> Operation:
    """The end of an operation: written once, then shown. CancelAsked when it was cancelled at the last moment instead."""
    now = svc.clock()

    def ended(op: Operation) -> Operation:
        if op.status.final:
            return op
        if op.cancelled_by and not op.failure and status is not Status.CANCELLED:
            raise _cancelled(op)  # who cancelled was told so
        return op.with_phases_ended(now).moved(status, now, outcome=outcome)

    op = await svc.store.update(op_id, ended, event=str(status))
    await tell_end(svc, op)
    return op


def _cancelled(op: Operation) -> CancelAsked:
    return CancelAsked(f"Cancelled by <@{op.cancelled_by}>.")


async def since(svc: Services, op_id: str, name: str) -> datetime:
    """When an operation first came here, also if it was interrupted since: what a deadline counts from."""

    async def now() -> datetime:
        return svc.clock()

    return await svc.store.once(op_id, name, now, datetime)


async def enter(svc: Services, op_id: str, phase: str, detail: str = "") -> None:
    """Show what an operation is doing now, and what the system that does it says."""
    now = svc.clock()
    op = await svc.store.update(op_id, lambda op: op if op.status.final else op.with_phase(phase, now, detail))
    await show_progress(svc, op)


async def chronicle(svc: Services, op_id: str, phases: Sequence[Phase]) -> None:
    """Show phases whose times the cluster knows."""
    now = svc.clock()
    op = await svc.store.update(op_id, lambda op: op if op.status.final else op.with_phases(phases, now))
    await show_progress(svc, op)


def told_on(svc: Services, op_id: str) -> Callable[[tuple[boot.Phase, ...]], Awaitable[None]]:
    """What hears of a boot's phases and shows them, with the cluster's own times."""

    async def booted(told: tuple[boot.Phase, ...]) -> None:
        ends = [*(phase.since for phase in told[1:]), None]
        phases = [
            Phase(name=phase.name, began=phase.since, ended=end, detail=phase.detail)
            for phase, end in zip(told, ends, strict=True)
            if phase.name != "ready"
        ]
        await chronicle(svc, op_id, phases)

    return booted


async def note(svc: Services, op_id: str, title: str, text: str) -> None:
    """Put something to read into the operation's thread: log lines, a comparison, a diagnosis. Safe to repeat."""
    said = Note(title=title, text=text)

    def noted(op: Operation) -> Operation:
        return op if said in op.notes else op.model_copy(update={"notes": (*op.notes, said)})

    await show_progress(svc, await svc.store.update(op_id, noted))


async def show_progress(svc: Services, op: Operation) -> None:
    """Like `show`, but a Slack that does not answer must not stop the work; the end is shown for sure."""
    try:
        await show(svc, op)
    except Unavailable as error:
        log.warning("progress not shown", op=op.id, model=op.request.model, error=str(error))


async def step(
    svc: Services, op_id: str, phase: str, act: Callable[[], Awaitable[T]], returns: type[T], *, undoing: bool = False
) -> T:
    """Do one step of an operation, shown as a phase of its card.

    What an earlier run finished is neither done nor shown again; its result is given back.
    """

    async def shown() -> T:
        await enter(svc, op_id, phase)
        return await act()

    return await attended(svc, op_id, svc.store.once(op_id, phase, shown, returns), undoing=undoing)


async def attended(
    svc: Services,
    op_id: str,
    work: Coroutine[Any, Any, T],
    *,
    undoing: bool = False,
    still: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Do long work while keeping the card's times fresh; CancelAsked stops it, unless it is the undoing itself.

    Work that was over before it could be stopped is cancelled all the same: who cancelled was told so.

    `still` is asked every second whether the work is still wanted, and stops it by raising.
    """
    task = asyncio.ensure_future(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=1)
            result = task.result() if done else None
            op = await svc.store.load(op_id)
            if op.cancelled_by and not undoing:
                raise _cancelled(op)
            if done:
                return cast("T", result)
            if still:
                await still()
            await show_progress(svc, op)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def settled(svc: Services, op_id: str, retry: Retry) -> AsyncIterator[None]:
    """Turn whatever goes wrong into either another attempt or a noted failure.

    The failure is noted before anything is undone, so that a crash in the middle goes on undoing.
    """
    try:
        yield
    except Forgotten as error:
        log.warning(
            "operation lost", op=op_id, error=error.message
        )  # with Redis's data: there is nothing to note it on
    except Unavailable as error:
        asked = (await svc.store.load(op_id)).status is Status.REQUESTED
        attempts = _ATTEMPTS_ASKED if asked else retry.attempts
        if attempts is None or retry.attempt < attempts:
            log.warning("will try again", op=op_id, attempt=retry.attempt, error=str(error))
            raise
        await _fail(svc, op_id, f"{error}. Tried {retry.attempt} times.")
    except BotError as error:
        await _fail(svc, op_id, error.message, error.details)
    except Exception:
        error_id = uuid.uuid4().hex[:8]
        log.exception("unexpected error", op=op_id, error_id=error_id)
        await _fail(svc, op_id, f"Something unexpected went wrong. Search Stoker's log for `{error_id}`.")


async def _fail(svc: Services, op_id: str, why: str, details: str = "") -> None:
    op = await svc.store.load(op_id)
    if op.status is Status.REQUESTED:
        await refuse(svc, op, why)
    elif op.failure and not op.status.final:
        # Even the undoing goes wrong: `sweep` comes back to it, and the card says meanwhile what is in its way.
        await _tell_hindrance(svc, op_id, unmarked(why))
    elif not op.status.final:
        now, seen = svc.clock(), (Note(title="What was seen", text=details),) if details else ()

        def failed(op: Operation) -> Operation:
            noted = {"failure": why, "updated": now, "notes": (*op.notes, *seen)}
            return op.with_phases_ended(now, failed=True).model_copy(update=noted)

        op = await svc.store.update(op_id, failed)
        await enqueue(svc, op)


async def _tell_hindrance(svc: Services, op_id: str, why: str) -> None:
    now = svc.clock()

    def told(op: Operation) -> Operation:
        running = op.phases[-1] if op.phases and op.phases[-1].ended is None else None
        return op.with_phase(running.name, now, why) if running else op

    log.warning("not undone yet", op=op_id, error=why)
    await show_progress(svc, await svc.store.update(op_id, told))


async def refuse(svc: Services, op: Operation, why: str) -> None:
    """Tell the sender alone that it cannot work; the channel is not bothered."""
    now = svc.clock()
    op = await svc.store.update(op.id, lambda op: op.moved(Status.REFUSED, now, outcome=why), event="refused")
    await tell_end(svc, op)


async def tell_end(svc: Services, op: Operation) -> None:
    """See that an operation's end has reached Slack; until it has, `sweep` comes back to it."""
    if op.status is not Status.REFUSED:
        await show(svc, op, force=True)
    elif op.request.actor:
        await svc.slack.whisper(op.request.channel, op.request.actor, op.outcome)
    await svc.store.note_told(op.id)
