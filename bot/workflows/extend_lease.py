"""Extend a lease: immediately up to the limit, with an approval beyond it."""

from contextlib import suppress

from bot.clock import Clock
from bot.component import component
from bot.domain.operations import ExtendOperation, Status, plan_of
from bot.domain.outcomes import Extended, LeaseUnchanged
from bot.domain.plans import ExtendPlan
from bot.domain.sessions import cost
from bot.engine.decisions import Decisions
from bot.engine.lifecycle import Lifecycle, NotAllowed, PlanMoved, require
from bot.engine.run import Run
from bot.gpu import session_cards
from bot.gpu.held_lease import held_lease, planned_lease
from bot.gpu.holder_prompts import HolderPrompts
from bot.gpu.lease_marks import LeaseMarks
from bot.policy import can_be_approved, may_keep
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.state.leases import Leases
from bot.state.operations import OperationNotFound, Operations
from bot.text.durations import show_duration
from bot.text.mrkdwn import md, time_stamp
from bot.views import code, money


@component
class ExtendLeaseWorkflow:
    """Extends a lease."""

    leases: Leases
    roles: RoleMembers
    lease_marks: LeaseMarks
    holder_prompts: HolderPrompts
    decisions: Decisions
    lifecycle: Lifecycle
    operations: Operations
    presentation: Presentation
    config: Config
    clock: Clock

    async def plan(self, run: Run[ExtendOperation]) -> None:
        """Extend the lease immediately if its total stays within the limit; otherwise ask for approval."""
        op = run.op
        lease, people = await held_lease(self.leases, op), await self.roles.people()
        require(may_keep(lease.holder, op.request.actor, people))
        if lease.ready is None or lease.ends is None:
            raise NotAllowed(
                md(
                    "{model} is still booting: its time starts when it answers. Extend it then.",
                    model=code(lease.model),
                )
            )
        extension = op.request.hold
        total, longest = lease.ends + extension - lease.ready, self.config.lease.longest
        plan = ExtendPlan(
            commit=lease.commit,
            lease=lease,
            rows=(
                ("Ends", f"{time_stamp(lease.ends + extension)} instead of {time_stamp(lease.ends)}"),
                ("Total", f"{show_duration(total)}; the limit is {show_duration(longest)}"),
                ("Estimated cost", f"{money(cost(extension, self.config.gpu.price()))} more"),
            ),
            estimate_usd=cost(extension, self.config.gpu.price()),
        )
        if total > longest:
            require(can_be_approved(people))
            await self.lifecycle.await_approval(op, plan)
            return
        await run.start(plan=plan)
        await self.execute(run)

    async def execute(self, run: Run[ExtendOperation]) -> None:
        """Set the end of the lease to the plan's end. Idempotent: the plan holds an absolute end time."""
        op = run.op
        planned, lease = await planned_lease(self.leases, plan_of(op))
        end = (planned.ends or self.clock()) + op.request.hold
        if op.status is Status.APPROVED:
            if not await self.decisions.still_approved(op):
                return
            op = await run.start(outcome="")
        extended = await self.lease_marks.renew(
            lease, lambda extended: extended.model_copy(update={"ends": max(extended.ends or end, end)})
        )
        if extended is None:
            raise PlanMoved(md("The session of {model} has ended.", model=code(lease.model)))
        await session_cards.show_new_end(self.operations, self.presentation, extended)
        with suppress(OperationNotFound):  # the lease was adopted, or Redis no longer has its operation
            await self.holder_prompts.correct_ready(await self.operations.load(extended.op))
        await run.finish(Extended(holder=lease.holder, ends=extended.ends))

    async def undo(self, run: Run[ExtendOperation]) -> None:
        """End the operation; the lease is unchanged."""
        await run.finish_undone(LeaseUnchanged())
