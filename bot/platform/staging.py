"""Puts weights on the volume before the GPU starts: on request, after a roll-out, and before the cut-over of a swap.

A staging Job does not use the GPU, so it needs no approval. While Hugging Face answers 429, the operation waits without a
Job, so that other pods can mount the volume.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import assert_never

import structlog
from pydantic import BaseModel

from bot.clients.staging import Attempt, CannotStage, Progress, Stager, StagingFailed, StagingTaken, Weights
from bot.clock import Clock
from bot.component import component
from bot.domain import phases
from bot.domain.events import AuditEvent
from bot.domain.operations import Operation, StageOperation, Status, new_operation
from bot.domain.outcomes import STOKER
from bot.domain.phases import Phase
from bot.domain.requests import StageWeights, operation_id
from bot.domain.sessions import Staged
from bot.engine.lifecycle import Lifecycle
from bot.engine.run import Run, Step
from bot.settings.config import Config
from bot.state.endpoint_history import EndpointHistory
from bot.state.operations import Operations
from bot.text.durations import show_duration
from bot.text.mrkdwn import md, time_stamp
from bot.views.text import size

log = structlog.get_logger(__name__)

_INTERRUPTIONS = 5
"""Maximum number of interruptions (an evicted pod, a broken connection); the staging fails after the next one."""


class _AttemptRecord(BaseModel, frozen=True, defer_build=True):
    """One attempt, as stored in the operation's ledger."""

    ended: Attempt
    resume: datetime
    """The time at which the next attempt may start."""


@component
class Staging:
    """Stages weights on the volumes of endpoints."""

    operations: Operations
    endpoint_history: EndpointHistory
    stager: Stager
    lifecycle: Lifecycle
    config: Config
    clock: Clock

    async def under_way(self, model: str, *, but: str = "") -> Operation | None:
        """Return the operation that is staging weights for the endpoint or will do so next, except the operation `but`."""
        for op in await self.operations.open(model=model):
            running = op.running_phase
            staging = running and running.name in {phase.key for phase in phases.STAGING}
            requested = isinstance(op, StageOperation) and op.status in (Status.REQUESTED, Status.RUNNING)
            if op.id != but and (staging or requested):
                return op
        return None

    async def fill(self, run: Run, weights: Weights) -> Staged:
        """Put the weights on the volume, with as many attempts as `staging.limit` allows. Idempotent.

        Raises CannotStage or StagingFailed with the reason.
        """
        shape, began = self.config.staging, await run.first_reached(f"staging of {weights.hf_id}")
        until, delay = began + shape.limit, shape.retry_after
        seconds, interruptions = 0.0, 0
        for number in itertools.count(1):
            time_left = until - self.clock()
            if time_left <= timedelta():
                break
            attempt = partial(self._attempt, run, weights, number, time_left, delay)
            try:
                record = await run.cancellable(
                    run.once(Step(f"staging {weights.hf_id} {number}", _AttemptRecord), attempt)
                )
            except StagingFailed:
                # `end_all` cancels the operation and then deletes its Job. In this case, report the cancellation, not the failure.
                await run.cancellable(asyncio.sleep(0))
                raise
            result, seconds = record.ended, seconds + record.ended.seconds
            match result.outcome:
                case "staged":
                    return await self._record_staged(run, weights, result, seconds)
                case "turned away":
                    delay = min(2 * delay, shape.longest_wait)
                    reason = "Hugging Face answers 429 (too many requests)"
                case "taken" | "moved":
                    reason = result.why
                case "interrupted":
                    interruptions += 1
                    reason = f"the download was interrupted: {result.why.rstrip('.')}"
                case _:
                    assert_never(result.outcome)
            if interruptions > _INTERRUPTIONS:
                raise StagingFailed(f"The download was interrupted {interruptions} times; the last time {result.why}.")
            if record.resume > self.clock():
                next_step = f"the next attempt is at {time_stamp(record.resume)}; no GPU runs, so nothing is billed"
                await run.enter(phases.WAIT_FOR_HUB, f"{reason}; {next_step}")
                await run.cancellable(self.clock.sleep_until(record.resume))
        raise StagingFailed(
            md(
                "The weights of {hf_id} could not be staged within {limit} (`staging.limit`).",
                hf_id=weights.hf_id,
                limit=show_duration(shape.limit),
            )
        )

    async def _attempt(
        self, run: Run, weights: Weights, number: int, time_left: timedelta, delay: timedelta
    ) -> _AttemptRecord:
        shape = self.config.staging
        await run.enter(phases.START_STAGING)
        try:
            ended = await self.stager.attempt(run.op.id, number, weights, shape, limit=time_left, progress=_teller(run))
        except StagingTaken as taken:
            ended = Attempt(outcome="taken", why=taken.message)
        wait = timedelta() if ended.outcome in ("staged", "moved") else delay
        if ended.retry_after is not None:
            wait = min(timedelta(seconds=ended.retry_after), shape.limit)
        return _AttemptRecord(ended=ended, resume=self.clock() + wait)

    async def _record_staged(self, run: Run, weights: Weights, ended: Attempt, seconds: float) -> Staged:
        """Record the staged weights for the next session's receipt, which shows the GPU time that they saved."""
        staged = Staged(hf_id=weights.hf_id, at=self.clock(), seconds=seconds, bytes=ended.bytes)
        await self.endpoint_history.keep_staged(weights.endpoint, staged)
        if ended.removed:
            removed = "\n".join(ended.removed)
            await run.add_note("Removed from the volume for more space, because no endpoint serves them", removed)
        return staged

    async def delete_job(self, op: Operation) -> None:
        """Delete the operation's staging Job, if it exists."""
        await self.stager.delete_jobs_of(op.id)

    async def stage_after(self, op: Operation, model: str) -> bool:
        """Stage the endpoint's weights after a roll-out, in a separate operation. Returns whether it was started."""
        if self.config.staging.mode != "auto":
            return False
        await self.end_all(model)  # they stage weights for the previous model
        try:
            await self.stager.weights(model)
        except CannotStage as error:
            log.info("not staged", op=op.id, model=model, why=error.message)
            return False
        request = StageWeights(
            model=model,
            actor=op.request.actor,
            channel=op.request.channel,
            at=self.clock(),
            reason="its change is rolled out",
        )
        operation = new_operation(operation_id(f"{op.id}:stage"), request, self.clock())
        await self.lifecycle.enqueue(await self.operations.create(operation))
        return True

    async def end_all(self, model: str) -> None:
        """Cancel all stagings for the endpoint, and delete their Jobs so that its volume is free. Idempotent."""
        now = self.clock()

        def cancelled(op: StageOperation) -> StageOperation:
            return (
                op
                if op.status.final or op.cancelled_by
                else op.model_copy(update={"cancelled_by": STOKER, "updated": now})
            )

        for staging in await self.operations.open(StageOperation, model):
            ended = await self.operations.update(staging.id, cancelled, event=AuditEvent.CANCELLED)
            await self.lifecycle.enqueue(ended)
            await self.delete_job(staging)

    async def wait_until_staged(self, run: Run) -> None:
        """Wait for the end of a running staging before the endpoint's pod starts. Nothing is billed during the wait.

        Without the wait, the pod could not mount a volume that only one node can mount, or would also download the
        weights.
        """
        while staging := await self.under_way(run.model, but=run.op.id):
            phase = staging.phases[-1] if staging.phases else None
            phase_text = f"{phase.text} {phase.detail}".strip() if phase else phases.START_STAGING.label
            await run.enter(phases.WAIT_FOR_WEIGHTS, f"{phase_text}. Cancel the staging to start without it")
            await run.cancellable(asyncio.sleep(2))


def _teller(run: Run) -> Callable[[Progress], Awaitable[None]]:
    """Return a function that shows the progress of a Job on the card if it has changed."""
    last: tuple[Phase, str] | None = None

    async def tell(progress: Progress) -> None:
        nonlocal last
        downloading = progress.doing == "downloading"
        text = (
            phases.DOWNLOAD if downloading else phases.START_STAGING,
            _share(progress) if downloading else progress.detail,
        )
        if text != last:
            last = text
            await run.enter(*text)

    return tell


def _share(progress: Progress) -> str:
    if progress.bytes is None or not progress.of:
        return ""
    return f"{size(progress.bytes)} of {size(progress.of)} ({progress.bytes / progress.of:.0%})"
