"""Bring a model down: scale it to zero, wait until its pod is gone, release its lease, post the receipt."""

from bot.clients.cluster import Cluster
from bot.component import component
from bot.domain import phases
from bot.domain.leases import Lease
from bot.domain.operations import BringDownOperation, Operation, RestartOperation, Status
from bot.domain.outcomes import BroughtDown, TryAgain
from bot.engine.lifecycle import Lifecycle, NotAllowed, PlanMoved
from bot.engine.run import Run
from bot.git.repository import Repository
from bot.gpu.billing import Billing
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.sampling import Sampler
from bot.gpu.stopping import GONE_WITHIN, LEASE, Stopping
from bot.platform.endpoints import Endpoints
from bot.policy import must_notify
from bot.slack.presentation import Presentation
from bot.slack.web_api import Slack
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code, inline, lines, person


@component
class BringDownChecks:
    """Refuses bring-downs that would change nothing. If the model is still booting, its boot is cancelled instead."""

    operations: Operations
    slack: Slack
    leases: Leases
    cluster: Cluster
    repository: Repository
    endpoints: Endpoints
    stopping: Stopping

    async def check(self, op: Operation, lease: Lease | None) -> None:
        """Raise NotAllowed if there is nothing to bring down. `lease` is the model's lease."""
        await self._cancel_boot(op)
        if lease is None:
            await self._refuse_if_replaced(op.request.model)
        await self._refuse_if_down(op.request.model, lease)

    async def refuse_if_going_down(self, model: str) -> None:
        for bring_down in await self.operations.open(BringDownOperation, model):
            if bring_down.status is Status.RUNNING:
                raise NotAllowed(
                    md(
                        "{model} is already going down, as {actor} requested: {see}.",
                        see=await self.slack.card_of(bring_down),
                        model=code(model),
                        actor=person(bring_down.request.actor),
                    )
                )

    async def _cancel_boot(self, op: Operation) -> None:
        """Cancel the bring-up or the restart that boots the model: its rollback brings it down."""
        model = op.request.model
        booting = [
            booting_op
            for booting_op in await self.operations.open(model=model)
            if booting_op.request.kind.spec.starts_model and booting_op.status in (Status.APPROVED, Status.RUNNING)
        ]
        if booting and await self.stopping.cancel_boot(booting[0], op.request.actor):
            kind = "restart" if isinstance(booting[0], RestartOperation) else "bring-up"
            raise NotAllowed(
                md(
                    "{model} is still booting; its {kind} is being cancelled: {see}.",
                    see=await self.slack.card_of(booting[0]),
                    model=code(model),
                    kind=kind,
                )
            )

    async def _refuse_if_replaced(self, model: str) -> None:
        for lease in await self.leases.held():
            if lease.displaced and lease.displaced.model == model:
                raise NotAllowed(
                    md(
                        "{model} is being replaced by {new_model}, as {holder} requested, and will go down for it. "
                        "`/gpu down {name}` cancels that; then {model} comes back.",
                        model=code(model),
                        new_model=code(lease.model),
                        holder=person(lease.holder),
                        name=lease.model,
                    )
                )

    async def _refuse_if_down(self, model: str, lease: Lease | None) -> None:
        workload = await self.cluster.workload(model)
        if workload is None and lease is None:
            await self.endpoints.require(await self.repository.head(), model)
            raise NotAllowed(md("{model} has no Deployment in the cluster, so it is down.", model=code(model)))
        if workload and workload.replicas == 0 and lease is None:
            raise NotAllowed(md("{model} is already down.", model=code(model)))
        if workload and not workload.gpus:
            raise NotAllowed(md("{model} runs on CPU and costs no GPU time; it stays up.", model=code(model)))


@component
class BringDownWorkflow:
    """Brings a model down."""

    leases: Leases
    presentation: Presentation
    cluster: Cluster
    endpoints: Endpoints
    checks: BringDownChecks
    sampler: Sampler
    lease_marks: LeaseMarks
    stopping: Stopping
    billing: Billing
    lifecycle: Lifecycle

    async def execute(self, run: Run[BringDownOperation]) -> None:
        await self.bring_down(run, fence=run.op.request.fence)

    async def bring_down(self, run: Run, *, fence: int = 0) -> None:
        """Scale to zero, wait until the pod is gone, release the lease, post the receipt. Idempotent.

        With a `fence`, only the session with this fence is ended.
        """
        op, model = run.op, run.model
        if op.status is Status.REQUESTED:
            op = await self._begin(run, fence)
        if op.status is not Status.RUNNING:
            return

        async def find_lease() -> Lease | None:
            lease = await self.lease_marks.lease_on(model)
            if fence and (lease is None or lease.fence != fence):
                raise PlanMoved(_session_over(model))
            return lease

        lease = await run.once(LEASE, find_lease)
        machine = await self.billing.record_node(run, model)

        async def scale() -> None:
            if lease:
                await self.sampler.sample_last(lease)
            await self.stopping.scale_to_zero(model, lease)

        async def gone() -> None:
            await self.cluster.wait_gone(model, timeout=GONE_WITHIN)

        await run.step(phases.SCALE_TO_ZERO, scale, undoing=True)
        await run.step(phases.WAIT_GONE, gone, undoing=True)

        bill = None
        if lease:
            bill = await self.billing.close_session(lease, op_id=op.id, node=machine)
            await self.leases.release(lease)
        await self.lifecycle.hand_over_soon()
        await run.finish(BroughtDown(bill=bill))

    async def _begin(self, run: Run, fence: int) -> Operation:
        """Start a bring-down. Needs no approval: stopping costs must always be possible."""
        op, model = run.op, run.model
        await self.endpoints.learn_places()
        await self.checks.refuse_if_going_down(model)
        lease = await self.lease_marks.lease_on(model)
        if fence and (lease is None or lease.fence != fence):
            raise NotAllowed(_session_over(model))
        await self.checks.check(op, lease)
        op = await run.start()
        if lease and must_notify(lease.holder, op.request.actor):
            ending = md(": {reason}", reason=inline(op.request.reason, 300)) if op.request.reason else "."
            text = md(
                "⬇️ {by} is bringing down your {model}{ending}",
                by=person(op.request.actor),
                model=code(model),
                ending=ending,
            )
            await self.presentation.post(f"ended:{op.id}", lease.holder, lines(text))
        return op

    async def undo(self, run: Run[BringDownOperation]) -> None:
        """End a failed bring-down. The model may still be up."""
        await run.finish_undone(TryAgain())


def _session_over(model: str) -> Mrkdwn:
    return md("This request's session of {model} has ended, so nothing was done.", model=code(model))
