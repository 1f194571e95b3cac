"""Runs one operation: moves it through its steps, shows each step on the card, and ends the operation."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, cast, overload

from docket import Docket
from pydantic import TypeAdapter
from typing_extensions import TypeVar

from bot.clients.boot import BootPhase
from bot.clients.payloads import clock_of
from bot.clock import Clock
from bot.domain import phases
from bot.domain.events import AuditEvent
from bot.domain.operations import Note, Operation, PhaseRecord, Status
from bot.domain.outcomes import Cancelled, Failed, Outcome, Undone
from bot.domain.phases import Phase
from bot.engine.task_refs import REFRESH_HOMES
from bot.errors import BotError
from bot.slack.presentation import Presentation
from bot.state.operations import Operations
from bot.state.step_ledger import StepLedger
from bot.text.mrkdwn import md, person
from manifests.frozen import frozen

T = TypeVar("T")
Op_co = TypeVar("Op_co", bound=Operation, default=Operation, covariant=True)
NOTHING = TypeAdapter[None](None)
"""The result of a step that returns nothing."""
_HOME_DELAY = timedelta(seconds=1)
"""Delay of a Home refresh, so that several changes cause only one refresh."""


class CancelRequested(BotError):
    """A running operation was cancelled."""

    remedy = "Nothing: Stoker rolls the operation back."


@frozen
class Step(Generic[T]):
    """A step without a phase on the card: its key in the ledger, which never changes, and its result's type."""

    key: str
    returns: type[T] | TypeAdapter[T]


@dataclass
class Run(Generic[Op_co]):
    """Runs one operation. `op` is the operation as last read by `update` or the caller."""

    op: Op_co
    operations: Operations
    ledger: StepLedger
    presentation: Presentation
    docket: Docket
    clock: Clock

    @property
    def model(self) -> str:
        return self.op.request.model

    async def update(self, change: Callable[[Op_co], Operation], event: AuditEvent | None = None) -> Op_co:
        """Apply a pure change to the newest version of the operation, and continue with the result."""
        pure = cast("Callable[[Op_co], Op_co]", change)  # a copy of an operation has the operation's type
        self.op = await self.operations.update(self.op.id, pure, event=event)
        return self.op

    async def start(self, **changes: object) -> Op_co:
        """Mark the operation as running."""
        now = self.clock()

        def started(op: Operation) -> Operation:
            return op.moved(Status.RUNNING, now, **changes)

        return await self.update(started, AuditEvent.STARTED)

    # Steps

    async def once(self, step: Step[T], act: Callable[[], Awaitable[T]]) -> T:
        """Run a step, unless it is already finished, and return its result."""
        return await self.ledger.once(self.op.id, step.key, act, step.returns)

    async def result(self, step: Step[T]) -> T | None:
        """Return the result of a finished step; None if it is not finished."""
        return await self.ledger.result(self.op.id, step.key, step.returns)

    async def forget(self, *steps: Step[Any] | Phase) -> None:
        """Delete the results of these steps, so that they run again."""
        for step in steps:
            await self.ledger.forget(self.op.id, step.key)

    async def first_reached(self, key: str) -> datetime:
        """Return the time when the operation first reached this point. It is stored, because deadlines count from it."""

        async def now() -> datetime:
            return self.clock()

        return await self.once(Step(key, datetime), now)

    @overload
    async def step(self, phase: Phase, act: Callable[[], Awaitable[None]], *, undoing: bool = ...) -> None: ...

    @overload
    async def step(
        self, phase: Phase, act: Callable[[], Awaitable[T]], returns: type[T] | TypeAdapter[T], *, undoing: bool = ...
    ) -> T: ...

    async def step(
        self, phase: Phase, act: Callable[[], Awaitable[Any]], returns: Any = NOTHING, *, undoing: bool = False
    ) -> Any:
        """Run one step, shown as a phase of the card.

        A step that an earlier run finished is neither run nor shown again; its result is returned.
        """

        async def shown() -> Any:
            await self.enter(phase)
            return await act()

        return await self.cancellable(self.once(Step(phase.key, returns), shown), undoing=undoing)

    async def cancellable(
        self,
        work: Coroutine[Any, Any, T],
        *,
        undoing: bool = False,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Run long work, and update the times on the card every second. A cancellation stops the work with
        CancelRequested, even if the work has just finished. A rollback (`undoing`) is not stopped.

        `check` is called every second; an error that it raises stops the work.
        """
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=1)
                result = task.result() if done else None
                op = await self.operations.load(self.op.id)
                if op.cancelled_by and not undoing:
                    raise _cancelled(op)
                if done:
                    return cast("T", result)
                if check:
                    await check()
                self.presentation.show(op.id)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    # The card

    async def enter(self, phase: Phase, detail: str = "") -> None:
        """Show the current phase of the operation, with a detail."""
        now = self.clock()
        await self._show(lambda op: op.with_phase(phase, now, detail))

    async def record_boot(self, booted: tuple[BootPhase, ...]) -> None:
        """Show the phases of a boot, with the cluster's own times."""
        ends, now = [*(boot_phase.since for boot_phase in booted[1:]), None], self.clock()
        records = [
            PhaseRecord.of(boot_phase.phase, began=boot_phase.since, ended=end, detail=boot_phase.detail)
            for boot_phase, end in zip(booted, ends, strict=True)
            if boot_phase.phase is not phases.READY
        ]
        await self._show(lambda op: op.with_phases(records, now))

    async def _show(self, change: Callable[[Operation], Operation]) -> None:
        op = await self.operations.update(self.op.id, lambda op: op if op.status.final else change(op))
        self.presentation.show(op.id)

    async def add_note(self, title: str, text: str, rows: Sequence[tuple[str, ...]] = ()) -> None:
        """Post text in the operation's thread: log lines, a comparison, a diagnosis. Idempotent."""
        note = Note(title=title, text=text, rows=tuple(rows))

        def with_note(op: Operation) -> Operation:
            return op if note in op.notes else op.model_copy(update={"notes": (*op.notes, note)})

        await self.operations.update(self.op.id, with_note)
        self.presentation.show(self.op.id)

    async def show(self) -> None:
        """Show the current state of the operation on its card and on Home, in the background."""
        self.presentation.show(self.op.id, now=True)
        await refresh_home_soon(self.docket, self.clock())

    # The end

    async def mark_interrupted(self) -> Op_co:
        """Mark the phase that was cut short by a cancellation as failed."""
        now = self.clock()

        def interrupted(op: Operation) -> Operation:
            return op.with_phases_ended(now, failed=True)

        return await self.update(interrupted)

    async def finish(self, outcome: Outcome) -> Op_co:
        """End the operation: store the outcome once, then show it. Raises CancelRequested if it was cancelled just before."""
        now = self.clock()

        def ended(op: Operation) -> Operation:
            if op.status.final:
                return op
            if op.cancelled_by and not op.failure and outcome.status is not Status.CANCELLED:
                raise _cancelled(op)  # the person who cancelled was already notified
            return op.ended(outcome, now)

        await self.update(ended, event=AuditEvent(outcome.status))
        await self.show()
        return self.op

    async def finish_undone(self, undone: Undone) -> Op_co:
        """End an operation whose work was rolled back, because it failed or was cancelled."""
        if self.op.cancelled_by and not self.op.failure:
            return await self.finish(Cancelled(by=self.op.cancelled_by, undone=undone))
        return await self.finish(Failed(reason=self.op.failure, undone=undone))


def _cancelled(op: Operation) -> CancelRequested:
    return CancelRequested(md("Cancelled by {cancelled_by}.", cancelled_by=person(op.cancelled_by)))


async def refresh_home_soon(docket: Docket, now: datetime) -> None:
    """Schedule a Home refresh (debounced)."""
    await REFRESH_HOMES.add(docket, when=now + clock_of(docket).passed_in(_HOME_DELAY), key="homes")()
