"""Replace the model that holds the GPU, and restore the old one if the new one fails.

The slot changes hands in one step before anything else happens (`Leases.replace`), and the new lease contains the old
one until the new model answers. So exactly one operation owns the GPU at any time, even after a crash.
"""

import asyncio

from bot.clients.cluster import Cluster
from bot.clients.vllm import VLLM
from bot.clock import Clock
from bot.component import component
from bot.domain import phases
from bot.domain.leases import Lease
from bot.domain.outcomes import NotRestored, NotTakenBack, Replaced, ReplacedWhileBooting, Restored
from bot.engine.lifecycle import Lifecycle
from bot.engine.run import NOTHING, Run, Step
from bot.errors import BotError, Unavailable
from bot.gpu import session_cards
from bot.gpu.billing import Billing, replaced_session_key, replaced_session_view
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.sampling import Sampler
from bot.gpu.stopping import Stopping
from bot.platform.switch import Switch
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.state.leases import LeaseMoved, Leases
from bot.state.operations import Operations
from bot.text.durations import show_duration
from bot.text.mrkdwn import escape, md, person
from bot.views import code, inline, lines
from bot.views.outcomes import replaced_text

_HOLDER_NOTIFIED, _RECEIPT = Step("told the holder", NOTHING), Step("receipt of the old", NOTHING)
_GIVEN_BACK = Step("lease given back", Lease)
_READ_TIMEOUT = 5.0
"""Timeout in seconds for one read of the metrics."""
_CHECK_EVERY = 1.0
"""Seconds between two checks of the requests that a model is still answering."""


@component
class MakingRoom:
    """Brings down the model that holds the GPU, in order to start another model."""

    operations: Operations
    presentation: Presentation
    cluster: Cluster
    vllm: VLLM
    billing: Billing
    lifecycle: Lifecycle
    sampler: Sampler
    stopping: Stopping
    config: Config
    clock: Clock

    async def make_room(self, run: Run, lease: Lease, old: Lease) -> None:
        """Notify the holder, unless it is the requester; let running requests finish; bring the old model down; post its
        receipt.

        `old` is the lease that `lease` replaced.
        """
        op, model = run.op, code(old.model)

        async def notify_holder() -> None:
            limit = show_duration(self.config.lease.finish_within)
            text = md(
                "🔁 Your session of {model} is being replaced by {request_model}, requested by {actor}{reason}. Running "
                "requests may finish within {limit}. If {request_model} does not start, your session is restored.",
                model=model,
                request_model=code(op.request.model),
                actor=person(op.request.actor),
                reason=md(" because {reason}", reason=inline(op.request.reason, 300)) if op.request.reason else "",
                limit=limit,
            )
            if old.holder != op.request.actor:
                await self.presentation.post(f"displaced:{lease.fence}", old.holder, lines(text))

        async def drain() -> None:
            deadline = await run.first_reached("drain began") + self.config.lease.finish_within
            while await self._is_answering(old.model):
                if self.clock() >= deadline:
                    return
                await asyncio.sleep(_CHECK_EVERY)

        async def down() -> None:
            await self.sampler.sample_last(old)
            await self.stopping.to_zero(old.model, lease)

        async def receipt() -> None:
            view = replaced_session_view(
                old.model, op.request.model, await self.billing.close_session(old, op_id=op.id, node=machine)
            )
            channel = old.channel(op.request.channel)
            await self.presentation.post(replaced_session_key(old), channel, view, card=old.op)

        # If the old model is still booting, end its bring-up; the task of the bring-up sees the final status and exits.
        if await self.operations.is_open(old.op):
            booting = self.lifecycle.run(await self.operations.load(old.op))
            await booting.finish(ReplacedWhileBooting(model=run.model, by=op.request.actor))
        await run.once(_HOLDER_NOTIFIED, notify_holder)
        machine = await self.billing.record_node(run, old.model)
        await run.step(phases.FINISH_REQUESTS.of(old.model), drain)
        await run.step(phases.BRING_DOWN_OLD.of(old.model), down)
        await run.once(_RECEIPT, receipt)

    async def _is_answering(self, model: str) -> bool:
        workload = await self.cluster.workload(model)
        if workload is None or not workload.ready_replicas:
            return False
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                activity = await self.vllm.activity(self.vllm.url(workload.service, workload.namespace, workload.port))
        except (Unavailable, BotError, TimeoutError):
            return True  # unknown: assume that it is busy, until the deadline
        return activity.running > 0 or activity.waiting > 0


@component
class Restoring:
    """Restores the replaced model if the new one does not start."""

    operations: Operations
    leases: Leases
    presentation: Presentation
    cluster: Cluster
    billing: Billing
    lease_marks: LeaseMarks
    stopping: Stopping
    switch: Switch
    config: Config
    clock: Clock

    async def restore(self, run: Run, lease: Lease, old: Lease) -> Replaced:
        """Bring the old model up again, under a new fence and for its remaining time; return the result."""
        op = run.op

        async def take_back() -> Lease:
            time_left = old.ends - lease.claimed if old.ends else old.hold
            restored = {
                "op": op.id,
                "hold": time_left,
                "claimed": self.clock(),
                "ready": None,
                "ends": None,
                "displaced": None,
            }
            floor = await self.cluster.highest_fence()
            return await self.leases.replace(lease, old.model_copy(update=restored), floor=floor)

        try:
            back = await run.once(_GIVEN_BACK, take_back)
        except LeaseMoved as moved:
            outcome: Replaced = NotTakenBack(model=old.model, holder=old.holder, why=moved.shown)
        else:
            outcome = await self._boot_old(run, old, back)
        text = md(
            "↩️ {model} did not take over. {outcome}", model=code(op.request.model), outcome=replaced_text(outcome)
        )
        await self.presentation.post(f"restored:{old.fence}", old.holder, lines(text))
        return outcome

    async def _boot_old(self, run: Run, old: Lease, back: Lease) -> Replaced:
        """Boot the old model under its restored lease `back`; if that fails, bring it down and bill it."""
        model = old.model

        async def up() -> None:
            await self.switch.turn(model, 1, lease=back, fence=back.fence)

        async def ready() -> str:
            time_left = await run.first_reached("restore began") + self.config.gpu.boot_limit - self.clock()
            try:
                await self.cluster.wait_ready(
                    model,
                    timeout=max(1.0, self.clock.patience(time_left)),
                    progress=_ignore_progress,
                    waits=self.config.gpu.boot_limit,
                )
            except BotError as error:
                return error.message
            now = self.clock()
            await self.lease_marks.renew(back, lambda current: current.started(now).model_copy(update={"op": old.op}))
            await session_cards.resume(self.operations, self.presentation, old.op)
            return ""

        await run.step(phases.RESTORE.of(model), up, undoing=True)
        failed = await run.step(phases.WAIT_FOR_RESTORED.of(model), ready, str, undoing=True)
        if not failed:
            current = await self.leases.of(model)
            return Restored(model=model, holder=old.holder, ends=current.ends if current else None)
        machine = await self.billing.record_node(run, model, session=", restored")
        await run.step(phases.UNDO_RESTORE.of(model), lambda: self.stopping.to_zero(model, back), undoing=True)
        bill = await self.billing.close_session(back, op_id=run.op.id, node=machine) if machine else None
        await self.leases.release(back)
        return NotRestored(model=model, holder=old.holder, why=escape(failed), bill=bill)


async def _ignore_progress(_: object) -> None:
    """Ignore the phases of the boot: the card shows one phase for the whole restart."""
