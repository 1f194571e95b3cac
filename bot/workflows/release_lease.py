"""Break a lease: an admin requests it, another approver agrees, and the model goes down."""

from bot.component import component
from bot.domain.operations import ReleaseOperation, Status, plan_of
from bot.domain.outcomes import BootCancelled, LeaseUnchanged, LeaseUnclear
from bot.domain.plans import ReleasePlan
from bot.engine.decisions import Decisions
from bot.engine.lifecycle import Lifecycle, require
from bot.engine.run import Run
from bot.gpu.held_lease import held_lease, planned_lease
from bot.gpu.stopping import Stopping
from bot.policy import can_be_approved, may_release
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.state.leases import Leases
from bot.state.operations import OperationNotFound, Operations
from bot.text.mrkdwn import md, person
from bot.views import code, inline, lines
from bot.workflows.bring_down import BringDownWorkflow


@component
class ReleaseLeaseWorkflow:
    """Breaks somebody's lease."""

    operations: Operations
    leases: Leases
    presentation: Presentation
    roles: RoleMembers
    stopping: Stopping
    decisions: Decisions
    lifecycle: Lifecycle
    bring_down: BringDownWorkflow

    async def plan(self, run: Run[ReleaseOperation]) -> None:
        """Ask for the approval to break a lease. The reason is public, and a second approver must agree."""
        op, people = run.op, await self.roles.people()
        require(may_release(op.request.actor, op.request.reason, people))
        require(can_be_approved(people))
        lease = await held_lease(self.leases, op)
        rows = (
            ("Then", f"{lease.model} is scaled to zero, running requests are interrupted, and the GPU becomes free"),
        )
        await self.lifecycle.await_approval(op, ReleasePlan(commit=lease.commit, lease=lease, rows=rows))

    async def execute(self, run: Run[ReleaseOperation]) -> None:
        """Break the lease: cancel the bring-up if it is still booting, otherwise bring the model down with a receipt."""
        op, plan = run.op, plan_of(run.op)
        by = op.request.actor
        if op.status is Status.APPROVED:
            _, lease = await planned_lease(self.leases, plan)
            if not await self.decisions.still_approved(op):
                return
            text = md(
                "⛔ {by} breaks your lease of {model} because {reason}.",
                by=person(by),
                model=code(lease.model),
                reason=inline(op.request.reason, 600),
            )
            await self.presentation.post(f"broken:{op.id}", lease.holder, lines(text))
            op = await run.start(outcome="")
        if await self._cancel_boot(plan.lease.op, by):
            await run.finish(BootCancelled())
            return
        await self.bring_down.bring_down(run, fence=plan.lease.fence)

    async def _cancel_boot(self, op_id: str, by: str) -> bool:
        """Cancel the bring-up if the operation that claimed a lease is still booting; returns whether it was booting."""
        try:
            return await self.stopping.cancel_boot(await self.operations.load(op_id), by)
        except OperationNotFound:
            return False

    async def undo(self, run: Run[ReleaseOperation]) -> None:
        """End the operation, and report whether the lease may have changed."""
        not_begun = run.op.status is Status.APPROVED and not run.op.failure
        await run.finish_undone(LeaseUnchanged() if not_begun else LeaseUnclear())
