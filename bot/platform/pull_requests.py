"""An operation's pull request: opens it, shows its state on the card, and closes it with the operation."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from docket import Docket

from bot.clients.cluster import Cluster
from bot.clients.github import GitHub, PullRequest
from bot.clients.huggingface import HuggingFace
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.operations import ChangeOperation, Operation, Status, plan_of
from bot.domain.outcomes import Cancelled, ClosedOnGitHub, Denied, MergedElsewhere, PullClosed
from bot.domain.plans import ChangePlan, OwnChange, Pull
from bot.domain.requests import AddModel, ChangeRequest, RemoveModel, RevertChange, SwapModel, TuneModel
from bot.engine.lifecycle import (
    Lifecycle,
    NotAllowed,
    is_closing,
    require,
)
from bot.engine.run import Run, Step
from bot.engine.task_refs import FOLLOW
from bot.errors import BotError
from bot.git.complaints import PushRefused
from bot.git.repository import Repository
from bot.platform.change_planning import (
    OldWeights,
    Verb,
    look_up_model,
    plan_change,
    pull_body,
    refuse_bad_words,
    weights_of,
)
from bot.platform.endpoints import Endpoints
from bot.platform.pull_request_plan import PullRequestPlans
from bot.platform.staged_swap import StagedSwap
from bot.policy import can_be_approved, may_request
from bot.settings.config import Config
from bot.slack.directory import Directory
from bot.slack.roles import RoleMembers
from bot.state.endpoint_history import EndpointHistory
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.text.mrkdwn import link, md, person
from bot.views import code
from manifests.add import refuse_taken
from manifests.change import Change
from manifests.platform import Platform
from manifests.sizing import ModelFacts
from manifests.tree import ManifestError
from manifests.volumes import without_shrinking

log = structlog.get_logger(__name__)

FACTS, OLD_WEIGHTS = Step("facts", ModelFacts), Step("kept", OldWeights)


def branch_of(op: ChangeOperation) -> str:
    """Return the name of the operation's branch, the same for every attempt."""
    return f"stoker/{op.request.kind.spec.name}-{op.request.model}-{op.id}"


@component
class ChangeChecks:
    """Refuses changes before a pull request is opened for them."""

    operations: Operations
    leases: Leases
    cluster: Cluster
    repository: Repository
    roles: RoleMembers
    endpoints: Endpoints
    config: Config

    async def check(self, request: ChangeRequest) -> None:
        """Validate a request against the roles, the repository and the GPU. Has no side effects."""
        people = await self.roles.people()
        require(may_request(request.actor, people, self.config))
        require(can_be_approved(people))
        if isinstance(request, RevertChange):
            return
        with plain_refusals():
            refuse_bad_words(_planner(request), _hf_id(request), request.options)
        commit = await self.repository.head()
        if isinstance(request, AddModel):
            tree = await self.repository.tree(commit)
            with plain_refusals():
                await asyncio.to_thread(refuse_taken, Platform(tree, self.config.platform), request.model)
            return
        await self.endpoints.require(commit, request.model)
        if isinstance(request, RemoveModel):
            await self.refuse_if_up(request.model)

    async def refuse_if_up(self, model: str) -> None:
        """Raise NotAllowed if the endpoint holds the GPU and so must not be removed."""
        workload, lease = await self.cluster.workload(model), await self.leases.of(model)
        if lease or (workload and workload.gpus and workload.replicas):
            lease_text = md(", held by {holder}", holder=person(lease.holder)) if lease else ""
            raise NotAllowed(
                md(
                    "{model} is up{lease_text}. Bring it down first: `/gpu down {name}`.",
                    model=code(model),
                    lease_text=lease_text,
                    name=model,
                )
            )

    async def already_open(self, request: ChangeRequest) -> tuple[ChangeOperation, Pull] | None:
        """Return the open operation that makes the same change, and its pull request; None if there is none.

        Raises NotAllowed if an open pull request changes the endpoint differently.
        """
        for op in await self.operations.open(ChangeOperation, request.model):
            if op.plan is None:
                continue
            open_request, pull = op.request, op.plan.pull
            if _effect(open_request) == _effect(request):
                return op, pull
            raise NotAllowed(
                md(
                    "{model} is already in pull request {pull}, requested by {actor}: approve, deny or cancel it first.",
                    model=code(request.model),
                    pull=link(pull.url, f"#{pull.number}"),
                    actor=person(open_request.actor),
                )
            )
        return None


@component
class Changes:
    """Plans the changes of requests, on top of a commit of the main branch."""

    operations: Operations
    endpoint_history: EndpointHistory
    hub: HuggingFace
    github: GitHub
    repository: Repository
    endpoints: Endpoints
    lifecycle: Lifecycle
    config: Config

    async def of(self, op: ChangeOperation, commit: str) -> Change:
        """Plan the change on top of a commit of the main branch."""
        request = op.request
        if isinstance(request, RevertChange):
            return await self._reversal(request, commit)
        tree = await self.repository.tree(commit)
        facts, old_weights = None, None
        if isinstance(request, AddModel | SwapModel):
            hf_id, observed = request.hf_id, await self.endpoint_history.observations()
            facts = await self.lifecycle.run(op).once(FACTS, lambda: look_up_model(self.hub, hf_id, observed))
        if isinstance(request, SwapModel):
            before = await self.endpoints.require(commit, request.model)
            # Stored in the step ledger like the facts, so that a retry produces the same commit.
            old_weights = await self.lifecycle.run(op).once(OLD_WEIGHTS, lambda: weights_of(self.hub, before.hf_id))
        with plain_refusals():
            # In a thread, because reading a git tree starts processes.
            return await asyncio.to_thread(
                plan_change, tree, self.config, _planner(request), request.model, request.options, facts, old_weights
            )

    async def _reversal(self, request: RevertChange, commit: str) -> Change:
        reverted = await self.operations.load(request.reverts)
        pull = reverted.plan.pull if isinstance(reverted, ChangeOperation) and reverted.plan else None
        if pull is None or not pull.merge_commit:
            raise NotAllowed("That change was never merged, so there is nothing to revert.")
        series = await self.github.commits(pull.number)
        with plain_refusals():
            changes = await self.repository.reversal(pull.merge_commit, commit, series)
            tree = await self.repository.tree(commit)
            changes, warnings = await asyncio.to_thread(without_shrinking, tree, changes)
        if not changes.files:
            raise NotAllowed(f"Pull request <{pull.url}|#{pull.number}> has already been reverted.")
        return Change(
            changes=changes,
            title=f"revert: {reverted.request.kind.spec.name} {request.model} (#{pull.number})",
            intent=f"Reverts #{pull.number}. Later changes are kept.",
            summary=(
                ("Endpoint", request.model),
                ("Reverts", f"pull request #{pull.number}, {pull.merge_commit[:10]}"),
            ),
            warnings=warnings,
        )


@component
class PullRequests:
    """Opens the pull requests of changes, and closes them."""

    github: GitHub
    repository: Repository
    endpoints: Endpoints
    pull_request_plans: PullRequestPlans
    staged_swap: StagedSwap
    directory: Directory
    config: Config

    async def push(self, op: ChangeOperation, change: Change, base: str, replaces: str = "") -> str:
        """Push the change to the operation's branch, on top of `base`; returns the commit. `replaces` is the commit that
        the branch has now.
        """
        message = f"{change.title}\n\nRequested-by: {op.request.actor}\nOperation: {op.id}\n"
        return await self.repository.push(
            change.changes, base=base, branch=branch_of(op), message=message, when=op.request.at, replaces=replaces
        )

    async def open(self, op: ChangeOperation, change: Change) -> PullRequest:
        """Open the pull request of the pushed branch, or return it if an earlier attempt opened it."""
        return await self.github.open_pull(
            branch_of(op),
            self.config.platform.branch,
            change.title,
            await self._body(op, change),
            self.config.github.labels,
        )

    async def _body(self, op: ChangeOperation, change: Change) -> str:
        requested_by = f"Requested in Slack by {await self.directory.signature(op.request.actor)}"
        return pull_body(change, origin=requested_by, reason=op.request.reason, operation=op.id)

    async def first_plan(
        self, op: ChangeOperation, change: Change, commit: str, pushed: str, pull: PullRequest
    ) -> ChangePlan:
        """Return the plan for a new pull request; `pushed` is its head, `commit` is the base of the change."""
        endpoints = await self.endpoints.all(commit) if change.endpoint is None else (change.endpoint,)
        rows = () if change.endpoint and not isinstance(op.request, RevertChange) else change.summary
        home = f"{self.config.platform.home(op.request.model)}/"
        files = [text for path, text in change.changes.files.items() if path.startswith(home)]
        own_change = OwnChange(
            files=tuple(change.changes.files),
            template=change.template or op.request.model,
            rows=rows,
            warnings=change.warnings,
            sizing=change.sizing.verdict if change.sizing else "",
            removes=bool(files) and not any(files),
        )
        plan = ChangePlan(
            commit=commit,
            pull=await self.pull_request_plans.as_read(None, pull),
            applications=tuple(endpoint.application for endpoint in endpoints if endpoint.name == op.request.model),
            pushed=pushed,
            own=own_change,
        )
        return await self.pull_request_plans.of_pull(op, plan, pull)

    async def describe(self, op: ChangeOperation, change: Change, pull: PullRequest) -> None:
        """Replace the title and the text of the pull request."""
        await self.github.describe(pull.number, change.title, await self._body(op, change))

    async def close(self, run: Run[ChangeOperation]) -> None:
        """Close the pull request of a cancelled or denied change, delete its branch, and finish the operation. Idempotent."""
        op = run.op
        pull = op.plan.pull if op.plan else None
        if pull:
            await self.github.close(pull.number)
            await self.github.delete_branch(pull.branch)
        closed = PullClosed(number=pull.number if pull else None, grew=await self.staged_swap.growth_left(op))
        if any(not vote.approve for vote in op.votes):
            await run.finish(Denied(undone=closed))
        else:
            await run.finish(Cancelled(by=op.cancelled_by, undone=closed))


@component
class PullRequestWatch:
    """Updates the cards of changes from their pull requests."""

    docket: Docket
    operations: Operations
    github: GitHub
    repository: Repository
    lifecycle: Lifecycle
    changes: Changes
    pull_requests: PullRequests
    pull_request_plans: PullRequestPlans
    config: Config
    clock: Clock

    async def look_again(self, op: ChangeOperation) -> None:
        """Schedule a look at the pull request for the time at which no further CI checks are expected, because no event
        reports that time.
        """
        pull = plan_of(op).pull
        if pull.lacks and pull.since:
            due = pull.since + self.config.approvals.checks_grace
            if due > self.clock():
                await FOLLOW.add(self.docket, when=due, key=f"{op.id}:grace:{due.isoformat()}")(op.id)

    async def follow(self, op: Operation) -> None:
        """Update the card from its pull request: new commits, checks, conflicts, a merge or a close on GitHub."""
        if op.status is not Status.AWAITING or not isinstance(op, ChangeOperation):
            return
        plan = plan_of(op)
        pull = await self.github.pull(plan.pull.number)
        if pull.closed_unmerged:
            if is_closing(await self.operations.load(op.id)):
                return  # the bot closed it and reports the end itself
            await self.github.delete_branch(plan.pull.branch)
            await self.lifecycle.run(op).finish(ClosedOnGitHub(number=pull.number, by=pull.closed_by or ""))
            return
        if pull.merged and pull.base_ref != self.config.platform.branch:
            elsewhere = MergedElsewhere(number=pull.number, by=pull.merged_by or "", base=pull.base_ref)
            await self.lifecycle.run(op).finish(elsewhere)
            return
        if pull.mergeable is False and pull.head_sha == plan.pushed and await self._rebase(op, plan):
            return
        fresh, now = await self.pull_request_plans.current(op, plan, pull), self.clock()
        void_reason = self.pull_request_plans.what_moved(plan, fresh)

        def updated(op: ChangeOperation) -> ChangeOperation:
            if op.status is not Status.AWAITING or op.plan != plan or fresh == plan:
                return op
            changes: dict[str, object] = {"plan": fresh, "updated": now}
            return op.model_copy(
                update=changes
                | ({"votes": (), "outcome": md("⚠️ {void_reason}", void_reason=void_reason)} if void_reason else {})
            )

        after = await self.operations.update(
            op.id, updated, event=AuditEvent.APPROVAL_VOID if void_reason and op.votes else None
        )
        if after != op:
            await self.look_again(after)
            await self.lifecycle.present(after)

    async def _rebase(self, op: ChangeOperation, plan: ChangePlan) -> bool:
        """Make the change again on top of the main branch, with which it conflicts. Returns False if that is not possible."""
        commit = await self.repository.head()
        try:
            change = await self.changes.of(op, commit)
            pushed = await self.pull_requests.push(op, change, commit, replaces=plan.pushed)
        except (NotAllowed, PushRefused, BotError) as refused:
            log.warning("not rebased", op=op.id, model=op.request.model, why=refused.message)
            return False
        pull = await self.pull_requests.open(op, change)
        await self.pull_requests.describe(op, change, pull)
        fresh = await self.pull_requests.first_plan(op, change, commit, pushed, await self.github.pull(pull.number))
        note = md("⚠️ The main branch moved, so the change was made again on top of it; earlier approvals are void.")
        now = self.clock()

        def moved(op: Operation) -> Operation:
            if op.status is not Status.AWAITING:
                return op
            return op.model_copy(update={"plan": fresh, "votes": (), "outcome": note, "updated": now})

        await self.lifecycle.present(await self.operations.update(op.id, moved, event=AuditEvent.APPROVAL_VOID))
        return True


def _hf_id(request: AddModel | SwapModel | TuneModel | RemoveModel) -> str:
    """The requested model; empty if the request has none."""
    return request.hf_id if isinstance(request, AddModel | SwapModel) else ""


def _planner(request: AddModel | SwapModel | TuneModel | RemoveModel) -> Verb:
    match request:
        case AddModel():
            return "add"
        case RemoveModel():
            return "remove"
        case TuneModel():
            return "tune"
        case SwapModel():
            return "swap"


@contextmanager
def plain_refusals() -> Iterator[None]:
    """Escape errors of `manifests` for Slack: they are plain text and may quote what a person typed."""
    try:
        yield
    except (ManifestError, BotError) as error:
        raise BotError(str(error)) from error


def _effect(request: ChangeRequest) -> tuple[object, ...]:
    """The effect of a request on the repository, to compare requests."""
    match request:
        case AddModel() | SwapModel():
            return request.kind, request.hf_id, request.options
        case TuneModel() | RemoveModel():
            return request.kind, request.options
        case RevertChange():
            return (request.kind,)
