"""Add, swap, tune or remove an endpoint, or revert such a change: propose a pull request, then merge exactly the approved
content and roll it out.
"""

from typing import NoReturn

from bot.clients.github import BaseMoved, GitHub, MergeRefused
from bot.component import component
from bot.domain import phases
from bot.domain.events import AuditEvent
from bot.domain.operations import ChangeOperation, Status, Vote, plan_of
from bot.domain.outcomes import Cancelled, Failed, NothingMerged, StaysMerged
from bot.domain.plans import ChangePlan, Pull
from bot.domain.requests import RemoveModel
from bot.engine.decisions import Decisions, VotesShort
from bot.engine.lifecycle import (
    NOT_OPENED,
    OPENING,
    TAKEN_BACK,
    Lifecycle,
    NotAllowed,
    PlanMoved,
)
from bot.engine.run import NOTHING, Run, Step
from bot.errors import BotError
from bot.git.complaints import PushRefused
from bot.git.repository import Repository
from bot.platform.binding import Binding, changed_names, in_git
from bot.platform.pull_request_plan import PullRequestPlans
from bot.platform.pull_requests import (
    ChangeChecks,
    Changes,
    PullRequests,
    PullRequestWatch,
    branch_of,
)
from bot.platform.roll_out import Blocked, RollOut, set_blocked
from bot.platform.runtime_aliases import GatewayAliases
from bot.platform.staged_swap import StagedSwap
from bot.platform.staging import Staging
from bot.settings.config import Config
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import code

_CHECKED, _MATCHED = Step("checked", NOTHING), Step("matched", NOTHING)
_BASE = Step("base", str)


@component
class ChangePlanning:
    """Proposes a pull request, and asks for the approval of its roll-out."""

    github: GitHub
    repository: Repository
    gateway_aliases: GatewayAliases
    change_checks: ChangeChecks
    changes: Changes
    pull_requests: PullRequests
    pull_request_watch: PullRequestWatch
    pull_request_plans: PullRequestPlans
    lifecycle: Lifecycle

    async def plan(self, run: Run[ChangeOperation]) -> None:
        """Check, size, commit, push, open the pull request, and ask for the approval of the roll-out. Idempotent.

        If GitHub refuses a step after the push, Stoker closes the pull request and deletes the branch, so that neither
        remains without an operation.
        """
        if refused := await run.result(NOT_OPENED):
            await self._take_back(run, refused)
        try:
            first_plan = await self._open(run)
        except BotError as error:
            if not await run.result(OPENING):
                raise
            await self._take_back(run, error.shown)
        await self.pull_request_watch.look_again(await self.lifecycle.await_approval(run.op, first_plan))

    async def _open(self, run: Run[ChangeOperation]) -> ChangePlan:
        op = run.op
        await self.change_checks.check(op.request)
        await self._refuse_second(run)
        commit = await run.once(_BASE, self.repository.head)
        change = await self.changes.of(op, commit)
        await self.gateway_aliases.register(
            op, change
        )  # before the push: if an alias cannot be registered, no pull request is opened
        await run.once(OPENING, _yes)
        try:
            pushed = await self.pull_requests.push(op, change, commit)
        except PushRefused:
            await run.forget(OPENING)  # neither the branch nor the pull request exists
            raise
        pull = await self.pull_requests.open(op, change)
        return await self.pull_requests.first_plan(op, change, commit, pushed, pull)

    async def _take_back(self, run: Run[ChangeOperation], reason: Mrkdwn) -> NoReturn:
        """Close the pull request and delete the branch, then refuse the request. Idempotent."""

        async def refusal() -> Mrkdwn:
            return reason

        reason = await run.once(NOT_OPENED, refusal)
        branch, branch_error = branch_of(run.op), md("")
        try:
            await self.github.withdraw(branch)
        except BotError as error:
            branch_error = md(
                " The branch {branch} could not be deleted: {error} Delete it on GitHub.",
                branch=code(branch),
                error=error,
            )
        await run.once(TAKEN_BACK, _yes)
        raise NotAllowed(md("{reason}{branch_error}", reason=reason, branch_error=branch_error))

    async def _refuse_second(self, run: Run[ChangeOperation]) -> None:
        """Refuse the request if an earlier one targets the same endpoint: only the earlier one opens a pull request."""
        op = run.op
        if opened := await self.change_checks.already_open(op.request):
            _, pull = opened
            raise NotAllowed(f"This is already open: <{pull.url}|pull request #{pull.number}>.")
        for change_op in await run.operations.open(ChangeOperation, op.request.model):
            if change_op.plan is None and change_op.was_requested_before(op):
                raise NotAllowed(
                    md(
                        "A pull request for {model} is already being prepared, as {actor} requested. Try again when it "
                        "is open.",
                        model=code(op.request.model),
                        actor=person(change_op.request.actor),
                    )
                )

    async def ask_again(self, run: Run[ChangeOperation], reason: Mrkdwn, votes: tuple[Vote, ...] = ()) -> None:
        """Void the approval, and show the current plan in the same card."""
        op = run.op
        before = plan_of(op)
        await run.forget(_CHECKED, _MATCHED, phases.SYNC_GATEWAY, phases.SYNC_ENDPOINT, phases.REMOVE_ENDPOINT)
        # After a failure read everything again: a volume may be unable to grow.
        previous = before.model_copy(update={"read": ""}) if op.failure else before
        plan = await self.pull_request_plans.current(op, previous, await self.github.pull(before.pull.number))
        valid_votes = votes if plan.mark == before.mark else ()
        op = await self.lifecycle.await_approval(op, plan, note=md("⚠️ {reason}", reason=reason), votes=valid_votes)
        await self.pull_request_watch.look_again(op)


@component
class ApprovedMerge:
    """Merges exactly the approved change."""

    github: GitHub
    repository: Repository
    binding: Binding
    change_checks: ChangeChecks
    changes: Changes
    pull_request_plans: PullRequestPlans
    config: Config

    async def merge(self, run: Run[ChangeOperation], plan: ChangePlan) -> ChangePlan:
        """Merge the approved head, and return the plan with the commit to deploy. Raises PlanMoved if the merge commit
        contains something else.
        """
        op = run.op
        # Check this only once: after the merge the change no longer applies to main.
        await run.once(_CHECKED, lambda: self.refuse_if_moved(op, plan))
        if not plan.target:
            commit = await self._merge_head(run, plan.pull)
            merged = {"pull": plan.pull.model_copy(update={"merge_commit": commit}), "target": commit}
            plan = plan.model_copy(update=merged)
            await run.operations.update(op.id, lambda op: op.model_copy(update={"plan": plan}), event=AuditEvent.MERGED)
        await run.once(_MATCHED, lambda: self._refuse_if_merge_differs(op, plan))
        return plan

    async def _merge_head(self, run: Run[ChangeOperation], pull: Pull) -> str:
        """Merge the approved head into the branch that Argo CD follows, and return the merge commit."""

        async def merge() -> str:
            return await self.github.merge(pull.number, pull.head, self.config.platform.branch)

        try:
            return await run.step(phases.MERGE, merge, str)
        except BaseMoved:
            await run.forget(_CHECKED)  # the next attempt checks the new main branch first
            raise
        except MergeRefused as refused:
            raise PlanMoved(md("{refused} The approval is void.", refused=refused)) from refused

    async def refuse_if_moved(self, op: ChangeOperation, plan: ChangePlan) -> None:
        """Raise PlanMoved if the plan is no longer the approved one, or may not be merged now."""
        if isinstance(op.request, RemoveModel):
            await self.change_checks.refuse_if_up(op.request.model)
        pull = await self.github.pull(plan.pull.number)
        fresh = await self.pull_request_plans.current(op, plan, pull)
        if fresh.holder is not None and fresh.holder != plan.holder:
            raise PlanMoved(
                md(
                    "{model} was down at the time of the approval and is up now, so the approval is void.",
                    model=code(op.request.model),
                )
            )
        if reason := self.pull_request_plans.what_moved(plan.model_copy(update={"holder": fresh.holder}), fresh):
            raise PlanMoved(reason)
        if fresh.lacks:
            raise PlanMoved(
                md(
                    "Pull request #{number} can be merged when {lacks}. The approval is void.",
                    number=pull.number,
                    lacks=fresh.lacks,
                )
            )
        head = await self.repository.head()
        if head != plan.commit and pull.head_sha == plan.pushed and not pull.merged:
            try:
                await self.changes.of(op, head)
            except BotError as refused:
                raise PlanMoved(
                    md(
                        "The main branch moved ({old} → {new}) and now conflicts with the change, so the approval is void: {error}",
                        old=plan.commit[:10],
                        new=head[:10],
                        error=refused,
                    )
                ) from refused

    async def _refuse_if_merge_differs(self, op: ChangeOperation, plan: ChangePlan) -> None:
        """Raise PlanMoved if the merge deploys something that was not approved: main may have changed at the same time."""
        tree, live = await self.repository.tree(plan.target), await self.pull_request_plans.live_of(plan)
        merged = await self.binding.of(op.request.model, tree, live, gateway=True)
        if differs := changed_names(in_git(plan.bound), in_git(merged)):
            raise PlanMoved(
                md(
                    "The merge commit {commit} does not deploy what was approved: {differs}. Nothing was synced."
                    " The approval is void.",
                    commit=code(plan.target[:10]),
                    differs=differs,
                )
            )


@component
class ChangeModelWorkflow:
    """Proposes a pull request, merges it and rolls it out."""

    planning: ChangePlanning
    merging: ApprovedMerge
    staging: Staging
    staged_swap: StagedSwap
    pull_requests: PullRequests
    roll_out: RollOut
    decisions: Decisions
    config: Config

    async def execute(self, run: Run[ChangeOperation]) -> None:
        """Merge exactly the approved head and deploy it. Idempotent."""
        op = run.op
        if op.status is Status.APPROVED and not op.cancelled_by:
            try:
                await self.decisions.count_votes(op)
            except VotesShort as short:
                await self.planning.ask_again(run, short.shown, short.votes)
                return
        now = run.clock()

        def started(op: ChangeOperation) -> ChangeOperation:
            return op if op.cancelled_by or op.status is Status.RUNNING else op.moved(Status.RUNNING, now, outcome="")

        op = await run.update(started, event=AuditEvent.STARTED)
        if op.status is not Status.RUNNING:
            await self.pull_requests.close(run)
            return
        plan = plan_of(op)
        run.presentation.show(op.id)
        if isinstance(op.request, RemoveModel) and self.config.staging.enabled:
            await self.staging.end_all(op.request.model)  # its pod would block the deletion of the volume
        try:
            if plan.stages and not plan.target:
                await self._stage_first(run, plan)
            await self.roll_out.deploy(run, await self.merging.merge(run, plan))
        except PlanMoved as moved:
            run.op = await run.operations.load(op.id, ChangeOperation)
            await self.planning.ask_again(run, moved.shown)
        except Blocked as blocked:
            # No task waits for a person: `sweep` resumes the operation.
            await set_blocked(run, blocked.by)

    async def _stage_first(self, run: Run[ChangeOperation], plan: ChangePlan) -> None:
        """Stage the weights of the approved content only: the Job's script is part of the pull request."""

        async def stage() -> None:
            await self.merging.refuse_if_moved(run.op, plan)
            await self.staged_swap.stage_first(run, plan.pull.head)

        # The check is part of the step: after a crash during the merge, Stoker's own merge would void the approval.
        await run.once(Step(f"staged {plan.pull.head}", NOTHING), stage)

    async def undo(self, run: Run[ChangeOperation]) -> None:
        """Close an unmerged pull request; a merged one stays, with the offer to revert it. After a failure before the
        merge, ask for approval again.
        """
        op = run.op
        if op.status is Status.AWAITING:
            await self.pull_requests.close(run)
            return
        if op.plan is None:
            await _end_failed(run, NothingMerged())
            return
        pull = op.plan.pull
        if op.plan.stages:
            await self.staging.delete_job(op)
        if not pull.merge_commit and op.cancelled_by and not op.failure:
            await self.pull_requests.close(run)
            return
        if not pull.merge_commit:
            reason = _cancelled(op) if op.cancelled_by else op.failure
            await self.planning.ask_again(
                run, md("{reason} Nothing was rolled out; decide again, or cancel.", reason=reason)
            )
            return
        await _end_failed(run, StaysMerged(number=pull.number, url=pull.url))


async def _yes() -> bool:
    return True


async def _end_failed(run: Run[ChangeOperation], undone: NothingMerged | StaysMerged) -> None:
    op = run.op
    if op.cancelled_by:
        await run.finish(Cancelled(by=op.cancelled_by, undone=undone))
    else:
        await run.finish(Failed(reason=op.failure, undone=undone))


def _cancelled(op: ChangeOperation) -> Mrkdwn:
    return md("Cancelled by {cancelled_by}.", cancelled_by=person(op.cancelled_by))
