"""Bring a model up on the GPU: plan, execute, undo."""

from bot.clients.deployer import Deployer
from bot.component import component
from bot.domain import phases
from bot.domain.events import AuditEvent
from bot.domain.leases import MAYBE_LEASE, Lease
from bot.domain.operations import BringUpOperation, ChangeOperation, Status, plan_of
from bot.domain.outcomes import BackAtZero, LeftUp, NothingStarted, Started
from bot.domain.plans import BringUpPlan
from bot.engine.decisions import Decisions
from bot.engine.lifecycle import Lifecycle, NotAllowed, PlanMoved, require
from bot.engine.run import Run, Step
from bot.errors import BotError
from bot.gpu.billing import Billing
from bot.gpu.bring_up_plan import BringUpPlans
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.queue import Queue
from bot.gpu.replacement import Restoring
from bot.gpu.starting import Starting
from bot.gpu.stopping import Stopping, down_request
from bot.platform.boot_comparison import BootComparison
from bot.platform.smoke_tests import SmokeFailed, SmokeTests
from bot.platform.staging import Staging
from bot.policy import can_be_approved, may_request
from bot.settings.config import Config
from bot.slack.roles import RoleMembers
from bot.slack.web_api import Slack
from bot.state.leases import GpuBusy, GpuQueued, LeaseMoved, Leases
from bot.state.operations import OperationNotFound
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import clock, code

_LEASE_TO_UNDO = Step("lease to undo", MAYBE_LEASE)


class Unusable(BotError):
    """The endpoint's files changed after the approval, and the new ones are invalid."""

    remedy = "Correct the file that the message names, on the main branch, then request it again."


@component
class BringUpPlanning:
    """Validates a request for the GPU and asks for its approval."""

    leases: Leases
    queue: Queue
    plans: BringUpPlans
    slack: Slack
    roles: RoleMembers
    decisions: Decisions
    lifecycle: Lifecycle
    config: Config

    async def plan(self, run: Run[BringUpOperation]) -> None:
        """Validate a request for the GPU and ask for its approval."""
        op, request = run.op, run.op.request
        people = await self.roles.people()
        require(may_request(op.request.actor, people, self.config))
        require(can_be_approved(people))
        hold = self.plans.hold(request)
        if hold > self.config.lease.longest:
            raise NotAllowed(
                f"{show_duration(hold)} is longer than the longest lease ({show_duration(self.config.lease.longest)});"
                " request less and extend it later."
            )
        plan = await self.plans.of(request, None)
        same = [
            o
            for o in await run.operations.open(BringUpOperation, op.request.model)
            if o.id != op.id and o.status is not Status.REQUESTED
        ]
        if same:
            raise NotAllowed(
                md(
                    "{model} was already requested by {actor} at {at} and is {status}: {see}.",
                    see=await self.slack.card_of(same[0]),
                    model=code(op.request.model),
                    actor=person(same[0].request.actor),
                    at=clock(same[0].request.at),
                    status=same[0].status,
                )
            )
        if op.votes and not await self._is_covered(run, plan):
            op = await run.update(lambda op: op.model_copy(update={"votes": ()}), AuditEvent.APPROVAL_VOID)
        await self._ask_or_wait(op, plan)
        await self.decisions.carry_votes(op)

    async def _is_covered(self, run: Run[BringUpOperation], plan: BringUpPlan) -> bool:
        """Return whether the approval of the parent roll-out covers the content that starts now."""
        try:
            parent = await run.operations.load(run.op.request.part_of)
        except OperationNotFound:
            return False
        return isinstance(parent, ChangeOperation) and set(plan.bound) <= set(plan_of(parent).bound)

    async def _ask_or_wait(self, op: BringUpOperation, plan: BringUpPlan, note: Mrkdwn = Mrkdwn()) -> None:
        """Ask for approval, or put the request in the waiting state if the GPU is taken."""
        if plan.lease is None and await self.queue.obstacle(op):
            await self.queue.wait(op, plan, note=note)
        else:
            await self.lifecycle.await_approval(op, plan, note=note)

    async def ask_to_replace(self, op_id: str, actor: str) -> None:
        """Ask for the approval to replace the holder; the place in the queue is given up."""
        op = await self.queue.replace_instead(op_id, actor)
        holder = await self.leases.of(op.waiting.model) if op.waiting else None
        if holder is None or (op.waiting and holder.fence != op.waiting.fence):
            raise NotAllowed("The GPU has another holder now; the card will be updated in a moment.")
        plan = await self.plans.of(op.request, holder)
        await self.leases.leave(op.id)
        await self.lifecycle.await_approval(op, plan)

    async def ask_again(self, op: BringUpOperation, plan: BringUpPlan, moved: BotError) -> None:
        """Void the approval, and ask for approval of the current plan; raises Unusable if the files in git are invalid."""
        obstacle = await self.queue.obstacle(op) if plan.lease else None
        holder = await self.leases.of(obstacle.model) if obstacle else None
        try:
            fresh = await self.plans.of(op.request, holder)
        except BotError as refused:
            reason = await self.plans.problems_since(plan, op.request.model) or refused.shown
            raise Unusable(
                md("{moved} The new content cannot be brought up: {reason}", moved=moved.shown, reason=reason)
            ) from refused
        await self._ask_or_wait(op, fresh, note=md("⚠️ {moved} Please approve the new plan.", moved=moved.shown))


@component
class BringUpExecution:
    """Starts the approved model, and smoke-tests it."""

    planning: BringUpPlanning
    plans: BringUpPlans
    staging: Staging
    starting: Starting
    smoke_tests: SmokeTests
    boot_comparison: BootComparison
    queue: Queue
    lease_marks: LeaseMarks
    decisions: Decisions

    async def execute(self, run: Run[BringUpOperation]) -> None:
        """Execute an approved bring-up until the model serves. Idempotent."""
        op = run.op
        plan = plan_of(op)
        try:
            if op.status is Status.APPROVED:
                await self.staging.wait_until_staged(run)
                await self.plans.refuse_if_moved(op.request.model, plan)
                if not await self.decisions.still_approved(op):
                    return
                op = await run.start(outcome="", waiting=None)
            lease = await self.starting.claim(op, plan)
        except (PlanMoved, LeaseMoved) as moved:
            await self.planning.ask_again(op, plan, moved)
            return
        except (GpuBusy, GpuQueued) as busy:
            note = md("⚠️ {busy} This request waits for its turn; its approval stays valid until it expires.", busy=busy)
            await self.queue.wait(op, plan, join=True, note=note)
            return
        try:
            lease = await self.starting.start(run, plan, lease)
        except PlanMoved as moved:
            if not await self.starting.give_back(run, lease):
                raise
            await self.planning.ask_again(op, plan, moved)
            return
        await self._smoke_test(run, plan, lease)

    async def _smoke_test(self, run: Run[BringUpOperation], plan: BringUpPlan, lease: Lease) -> None:
        """End the operation with the result of the smoke tests. With `keep`, a model that failed the tests stays up."""
        await run.enter(phases.SMOKE_TESTS)
        try:
            await self.smoke_tests.run(run, plan.commit)
        except SmokeFailed as failed:
            if not run.op.request.keep:
                raise SmokeFailed(
                    md(
                        "{message} {log}`/gpu up {model} keep` leaves it up, so that you can investigate.",
                        message=failed.message,
                        log="The thread has the engine's log. " if failed.details else "",
                        model=run.model,
                    ),
                    details=failed.details,
                ) from failed
            await run.finish(LeftUp(reason=failed.shown, holder=lease.holder, ends=lease.ends))
        else:
            await self.boot_comparison.compare(run, plan.commit)
            await run.finish(Started(holder=lease.holder, ends=lease.ends))
        await self.lease_marks.renew(lease, Lease.settled)


@component
class BringUpRollback:
    """Rolls back a failed or cancelled bring-up."""

    leases: Leases
    lease_marks: LeaseMarks
    deployer: Deployer
    billing: Billing
    stopping: Stopping
    restoring: Restoring
    lifecycle: Lifecycle

    async def undo(self, run: Run[BringUpOperation]) -> None:
        """Roll back: scale to zero, release the lease or restore the lease that it displaced, and report the end."""
        op, model = run.op, run.model

        async def find_lease() -> Lease | None:
            lease = await self.lease_marks.lease_on(model)
            return lease if lease and lease.op == op.id else None

        lease = await run.once(_LEASE_TO_UNDO, find_lease)
        undone: NothingStarted | BackAtZero = NothingStarted()
        if lease:
            machine = await self.billing.record_node(run, model)
            await run.step(phases.UNDO_BRING_UP, lambda: self.stopping.to_zero(model, lease), undoing=True)
            bill = replaced = None
            if machine or lease.ready:  # otherwise no node existed, so nothing was billed
                bill = await self.billing.close_session(lease, op_id=op.id, node=machine)
            if lease.displaced:
                replaced = await self.restoring.restore(run, lease, lease.displaced)
            else:
                await self.leases.release(lease)
            await self.lifecycle.hand_over_soon()
            undone = BackAtZero(bill=bill, replaced=replaced)
        if op.plan:
            for application in op.plan.applications:  # do not leave a running sync behind
                await self.deployer.terminate(application, op.plan.commit, op.request.actor)
        await run.finish_undone(undone)


@component
class BringUpWorkflow:
    """The planning, the execution and the rollback of a bring-up, and the end of a trial."""

    planning: BringUpPlanning
    execution: BringUpExecution
    rollback: BringUpRollback
    lifecycle: Lifecycle

    async def end_trial(self, run: Run[BringUpOperation]) -> None:
        """Bring a trial session down after its smoke tests pass. Idempotent."""
        op = await run.operations.load(run.op.id)
        if run.op.request.trial and op.status is Status.SUCCEEDED:
            reason = "it was brought up to test the roll-out, and answered"
            request = down_request(op.request.model, op.request.actor, op.request.channel, run.clock(), reason)
            await self.lifecycle.request(request, delivery=f"{op.id}:trial")
