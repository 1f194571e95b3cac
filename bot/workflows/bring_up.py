"""Bring a model up on the GPU."""

import asyncio
import posixpath
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from bot.clients.application import Application
from bot.clients.cluster import Cluster
from bot.clients.deployer import Deployer, nobody
from bot.clock import Clock
from bot.config import Config
from bot.domain import phases
from bot.domain.events import AuditEvent
from bot.domain.leases import MAYBE_LEASE, Lease
from bot.domain.operations import BringUpOperation, ChangeOperation, Status, plan_of
from bot.domain.outcomes import BackAtZero, LeftUp, NothingStarted, Started
from bot.domain.plans import BringUpPlan
from bot.domain.requests import BringUp
from bot.domain.sessions import COLD_START, cost
from bot.durations import show_duration
from bot.engine.decisions import Decisions, VotesShort
from bot.engine.lifecycle import Lifecycle, NotAllowed, PlanMoved, insist
from bot.engine.run import Run, Step
from bot.errors import BotError
from bot.gitops import Repository
from bot.gpu.availability import GpuAvailability
from bot.gpu.billing import Billing
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.queue import Queue
from bot.gpu.replacement import Replacement
from bot.gpu.stopping import Stopping, down_request
from bot.mirror import COMMIT, GitTree
from bot.mrkdwn import Mrkdwn, md, person
from bot.platform.binding import Binding, Unreadable, what_changed
from bot.platform.boot_comparison import BootComparison
from bot.platform.deploying import Applications, closeness
from bot.platform.endpoints import Endpoints
from bot.platform.smoke_tests import READY, SmokeFailed, SmokeTests
from bot.platform.staging import Staging
from bot.platform.switch import Switch
from bot.policy import can_be_approved, may_request
from bot.roles import RoleMembers
from bot.slack import Slack
from bot.state.leases import GpuBusy, GpuQueued, LeaseMoved, Leases
from bot.state.operations import OperationNotFound, Operations
from bot.views import clock, code, money
from manifests.contract import ModelEndpoint
from manifests.deployed import Bound

log = structlog.get_logger(__name__)

_LEASE_TO_UNDO = Step("lease to undo", MAYBE_LEASE)


class Unusable(BotError):
    """The endpoint's files changed after the approval, and the new ones are invalid."""

    remedy = "Correct on the main branch what the message names, then ask again."


@dataclass(frozen=True)
class BringUpWorkflow:
    """Brings a model up on the GPU."""

    operations: Operations
    slack: Slack
    leases: Leases
    deployer: Deployer
    cluster: Cluster
    repository: Repository
    roles: RoleMembers
    endpoints: Endpoints
    applications: Applications
    binding: Binding
    switch: Switch
    staging: Staging
    smoke_tests: SmokeTests
    boot_comparison: BootComparison
    lease_marks: LeaseMarks
    stopping: Stopping
    billing: Billing
    availability: GpuAvailability
    queue: Queue
    replacement: Replacement
    decisions: Decisions
    lifecycle: Lifecycle
    config: Config
    clock: Clock

    async def plan(self, run: Run[BringUpOperation]) -> None:
        """Validate a request for the GPU and ask for its approval."""
        op, wanted = run.op, run.op.request
        people = await self.roles.people()
        insist(may_request(op.request.actor, people, self.config))
        insist(can_be_approved(people))
        hold = wanted.hold or self.config.lease.default
        if hold > self.config.lease.longest:
            raise NotAllowed(
                f"{show_duration(hold)} is longer than a lease may be ({show_duration(self.config.lease.longest)});"
                " ask for less and extend it later."
            )
        planned = await self.plan_for(wanted, None)
        twin = [
            o
            for o in await self.operations.open(BringUpOperation, op.request.model)
            if o.id != op.id and o.status is not Status.REQUESTED
        ]
        if twin:
            raise NotAllowed(
                md(
                    "{model} was already asked for by {actor} at {at} and is {status}: {see}.",
                    see=await self.slack.card_of(twin[0]),
                    model=code(op.request.model),
                    actor=person(twin[0].request.actor),
                    at=clock(twin[0].request.at),
                    status=twin[0].status,
                )
            )
        if op.votes and not await self._is_covered(wanted, planned):
            op = await run.update(lambda op: op.model_copy(update={"votes": ()}), AuditEvent.APPROVAL_VOID)
        await self._ask_or_wait(op, planned)
        await self.decisions.carry_votes(op)

    async def _is_covered(self, wanted: BringUp, plan: BringUpPlan) -> bool:
        """Whether the approval of the parent roll-out covers the content that starts now."""
        try:
            whole = await self.operations.load(wanted.part_of)
        except OperationNotFound:
            return False
        return isinstance(whole, ChangeOperation) and set(plan.bound) <= set(plan_of(whole).bound)

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
            raise NotAllowed("The GPU has changed hands meanwhile; the card will be updated in a moment.")
        plan = await self.plan_for(op.request, holder)
        await self.leases.leave(op.id)
        await self.lifecycle.await_approval(op, plan)

    async def plan_for(self, wanted: BringUp, displaced: Lease | None) -> BringUpPlan:
        """The plan of a bring-up; refuses requests that cannot work. `displaced`: the lease that will be replaced, if any."""
        model, hold = wanted.model, wanted.hold or self.config.lease.default
        commit = await self.repository.head()
        endpoint = await self.endpoints.known(commit, model)
        if not endpoint.gpus:
            raise NotAllowed(
                md("{model} runs on CPU all the time, so it needs no GPU; nothing to bring up.", model=code(model))
            )
        await self.switch.refuse_if_foreign(model, commit)
        app = await self.applications.of(endpoint, commit)
        workload = await self.cluster.workload(model)
        if app is None:
            raise NotAllowed(self._not_deployed(endpoint))
        for lease in await self.leases.held():
            if lease.model == model:
                raise NotAllowed(
                    md(
                        "{model} is already {value}: {holder} holds it since {claimed}.",
                        model=code(model),
                        value="up" if lease.ready else "booting",
                        holder=person(lease.holder),
                        claimed=clock(lease.claimed),
                    )
                )
        tree = await self.repository.tree(commit)
        bound = await self.binding.of(model, tree, (app,), gateway=False)
        sync = "in sync" if workload and await self._is_in_sync(app, model, bound) else "will be synced at this commit"
        rows = [
            ("Serves", f"{endpoint.hf_id} as {endpoint.served_name}"),
            ("Commit", commit[:10]),
            (app.word, f"{app.name}, {sync}"),
            ("Deploys", ", ".join(app.paths) or "a chart"),
            ("Lease", f"{show_duration(hold)} from when it is ready"),
            (
                "Estimated cost",
                f"{money(self._estimate(hold))} ({money(self.config.gpu.price())}/h, boot and drain included)",
            ),
        ]
        if await self.switch.is_by_commit(model):
            how = "pushes it" if self.config.switch.merge == "push" else "merges a pull request with it"
            rows.append(
                (
                    "Starts by",
                    f"a commit of `replicas: 1` to {self.config.platform.branch}: Stoker {how}, and {app.word} {app.name} applies it",
                )
            )
        if displaced:
            finish_within = show_duration(self.config.lease.finish_within)
            rows.append(
                (
                    "Before",
                    f"{displaced.model} may finish its requests within {finish_within}; it is restored if {model} fails",
                )
            )
        return BringUpPlan(
            lease=displaced,
            commit=commit,
            bound=bound,
            rows=tuple(rows),
            warnings=await _elsewhere(endpoint, app, tree),
            applications=(app.name,),
            estimate_usd=self._estimate(hold),
        )

    def _not_deployed(self, endpoint: ModelEndpoint) -> Mrkdwn:
        """Why nothing can deploy the endpoint to the cluster."""
        if endpoint.application:
            return md(
                "There is no Argo CD Application `{application}` for {model}: is its pull request merged and its "
                "group switched on?",
                application=endpoint.application,
                model=code(endpoint.name),
            )
        if self.config.flux.namespace:
            return md(
                "No Kustomization of Flux in namespace {namespace} deploys {model}: add one, or set `flux.namespace` to where it is.",
                namespace=code(self.config.flux.namespace),
                model=code(endpoint.name),
            )
        catalog = self.config.platform.path(self.config.platform.catalog_dir)
        return md(
            "No Argo CD Application in {catalog} deploys {model}, and none in the cluster has its files: add one, so that it"
            " can be synced.",
            catalog=code(catalog),
            model=code(endpoint.name),
        )

    def _estimate(self, hold: timedelta) -> float:
        """The lease, a cold start and the node's drain."""
        return cost(hold + COLD_START + self.config.gpu.drain, self.config.gpu.price())

    async def execute(self, run: Run[BringUpOperation]) -> None:
        """Execute an approved bring-up until the model serves. Idempotent."""
        op, wanted = run.op, run.op.request
        plan = plan_of(op)
        try:
            if op.status is Status.APPROVED:
                await self.staging.wait_until_staged(run)
                await self.refuse_if_moved(op, plan)
                await self.decisions.count_votes(op)
                op = await run.start(outcome="", waiting=None)
            lease = await self._claim(op, plan, wanted.hold or self.config.lease.default)
        except (PlanMoved, LeaseMoved) as moved:
            way = await self.queue.obstacle(op) if plan.lease else None
            holder = await self.leases.of(way.model) if way else None
            await self._ask_again(op, plan, holder, moved)
            return
        except VotesShort as short:
            await self.lifecycle.await_approval(op, plan, note=md("⚠️ {short}", short=short), votes=short.votes)
            return
        except (GpuBusy, GpuQueued) as busy:
            note = md("⚠️ {busy} This request waits for its turn; its approval stays valid until it expires.", busy=busy)
            await self.queue.wait(op, plan, join=True, note=note)
            return
        try:
            await self._light(run, plan, lease, keep=wanted.keep)
        except PlanMoved as moved:
            workload = await self.cluster.workload(op.request.model)
            if lease.displaced or (workload and workload.replicas):
                raise  # there is something to roll back
            await run.forget(phases.SYNC)
            await self.leases.release(lease)
            await self.lifecycle.hand_over_soon()
            await self._ask_again(op, plan, None, moved)

    async def _ask_again(self, op: BringUpOperation, plan: BringUpPlan, holder: Lease | None, moved: BotError) -> None:
        """Void the approval, and ask for approval of the current plan; raises Unusable if the files in git are invalid."""
        try:
            fresh = await self.plan_for(op.request, holder)
        except BotError as refused:
            told = [
                md("{problem}", problem=each)
                for each in await self.endpoints.problems_since(op.request.model, plan.commit)
            ]
            why = md(" ").join(told) or refused.shown
            raise Unusable(
                md("{moved} The new one cannot be brought up: {why}", moved=moved.shown, why=why)
            ) from refused
        await self._ask_or_wait(op, fresh, note=md("⚠️ {moved} Please approve the new plan.", moved=moved.shown))

    async def _claim(self, op: BringUpOperation, plan: BringUpPlan, hold: timedelta) -> Lease:
        """The operation's lease: a new one, or its existing one, even if Redis has lost it but the cluster has not."""
        model = op.request.model
        workload = await self.cluster.workload(model)
        marked = await self.lease_marks.restorable(workload.lease, model) if workload and workload.replicas else None
        if marked and marked.op == op.id:
            await self.leases.restore(marked)
        wanted = Lease(
            model=model,
            op=op.id,
            holder=op.request.actor,
            reason=op.request.reason,
            fence=0,
            commit=plan.commit,
            hold=hold,
            claimed=self.clock(),
            message=op.message,
        )
        floor = await self.cluster.highest_fence()
        if plan.lease:
            return await self.leases.replace(
                plan.lease, wanted.model_copy(update={"displaced": plan.lease}), floor=floor
            )
        return await self.leases.claim(wanted, floor=floor)

    async def _light(self, run: Run[BringUpOperation], plan: BringUpPlan, lease: Lease, *, keep: bool) -> None:
        op = run.op
        model, application = op.request.model, plan.applications[0]

        async def sync() -> None:
            await self.refuse_if_changed(model, plan)
            found = await self.deployer.get(application)
            if (
                found is None
                or await self.cluster.workload(model) is None
                or not await self._is_in_sync(found, model, plan.bound)
            ):
                await self.applications.bring_to(application, plan.commit, actor=op.request.actor, tell=nobody)

        async def scale() -> None:
            await self.availability.refuse_if_taken(model)
            await self.refuse_if_changed(model, plan)
            await self.switch.turn(model, 1, lease=lease, fence=lease.fence)
            # Two operations that both found the GPU free, because Redis lost one of their claims, detect each other now.
            await self.availability.refuse_if_taken(model)

        async def wait_ready() -> datetime:
            left = await run.first_reached("boot began") + self.config.gpu.boot_limit - self.clock()
            await self.cluster.wait_ready(
                model,
                timeout=max(1.0, self.clock.patience(left)),
                progress=run.record_boot,
                limit=self.clock.patience(self.config.gpu.boot_limit),
            )
            return self.clock()

        if lease.displaced:
            await self.replacement.make_room(run, lease, lease.displaced)
        await run.step(phases.SYNC, sync)
        await run.step(phases.START, scale)
        ready = await run.cancellable(run.once(READY, wait_ready))
        lease = await self.lease_marks.renew(lease, lambda held: held.started(ready)) or lease
        await run.enter(phases.SMOKE_TESTS)
        try:
            await self.smoke_tests.run(run, plan.commit)
        except SmokeFailed as failed:
            if not keep:
                raise SmokeFailed(
                    md(
                        "{message} `/gpu up {model} keep` would leave it up, to be looked at.",
                        message=failed.message,
                        model=model,
                    ),
                    details=failed.details,
                ) from failed
            await run.finish(LeftUp(reason=failed.shown, holder=lease.holder, ends=lease.ends))
            await self.lease_marks.renew(lease, Lease.settled)
            return
        await self.boot_comparison.compare(run, plan.commit)
        await run.finish(Started(holder=lease.holder, ends=lease.ends))
        await self.lease_marks.renew(lease, Lease.settled)

    async def _is_in_sync(self, app: Application, model: str, bound: Bound) -> bool:
        """Whether the cluster has the endpoint's files as `bound`.

        Argo CD polls git every three minutes and reports the last comparison as Synced until then.
        """
        if app.sync != "Synced":
            return False
        for revision in filter(COMMIT.fullmatch, app.revisions):  # a chart's version is skipped
            try:
                if await self.binding.of(model, await self.repository.tree(revision), (app,), gateway=False) == bound:
                    return True
            except BotError as error:
                log.info("revision not comparable", model=model, revision=revision, error=error.message)
        return False

    async def refuse_if_moved(self, op: BringUpOperation, plan: BringUpPlan) -> None:
        """Make sure that the approved content runs: the deployed content and the replaced lease are still the plan's."""
        await self.refuse_if_changed(op.request.model, plan)
        if plan.lease:
            holder = await self.leases.of(plan.lease.model)
            if holder is None or holder.fence != plan.lease.fence:
                raise PlanMoved(
                    md(
                        "The GPU changed hands after the approval to replace {model}, so it is void.",
                        model=code(plan.lease.model),
                    )
                )

    async def refuse_if_changed(self, model: str, plan: BringUpPlan) -> None:
        """Raise PlanMoved if the main branch or the Application in the cluster would start something that was not approved."""
        head = await self.repository.head()
        live = await self.binding.applications_of(plan)
        try:
            now = await self.binding.of(model, await self.repository.tree(head), live, gateway=False)
            differs = what_changed(plan.bound, now)
        except Unreadable:
            differs = md("a file does not parse any more")
        if differs:
            raise PlanMoved(
                md(
                    "What {model} deploys changed after the approval ({commit} → {head}: {differs}), so it is void.",
                    model=code(model),
                    commit=plan.commit[:10],
                    head=head[:10],
                    differs=differs,
                )
            )

    async def undo(self, run: Run[BringUpOperation]) -> None:
        """Roll back: scale to zero and release the lease, or restore the displaced one; then report the end."""
        op, model = run.op, run.model

        async def look() -> Lease | None:
            lease = await self.lease_marks.lease_on(model)
            return lease if lease and lease.op == op.id else None

        lease = await run.once(_LEASE_TO_UNDO, look)
        undone: NothingStarted | BackAtZero = NothingStarted()
        if lease:
            machine = await self.billing.machine_of(run, model)
            await run.step(phases.UNDO_BRING_UP, lambda: self.stopping.to_zero(model, lease), undoing=True)
            bill = replaced = None
            if machine or lease.ready:  # otherwise no node existed, so nothing was billed
                bill = await self.billing.close_session(lease, op_id=op.id, node=machine)
            if lease.displaced:
                replaced = await self.replacement.restore(run, lease, lease.displaced)
            else:
                await self.leases.release(lease)
            await self.lifecycle.hand_over_soon()
            undone = BackAtZero(bill=bill, replaced=replaced)
        if op.plan:
            for application in op.plan.applications:  # do not leave a running sync behind
                await self.deployer.terminate(application, op.plan.commit, op.request.actor)
        await run.finish_undone(undone)

    async def end_trial(self, run: Run[BringUpOperation]) -> None:
        """Bring a trial session down after its smoke tests pass. Idempotent."""
        op = await self.operations.load(run.op.id)
        if run.op.request.trial and op.status is Status.SUCCEEDED:
            why = "it was brought up to prove its roll-out, and answered"
            wanted = down_request(op.request.model, op.request.actor, op.request.channel, self.clock(), why)
            await self.lifecycle.request(wanted, delivery=f"{op.id}:trial")


async def _elsewhere(endpoint: ModelEndpoint, app: Application, tree: GitTree) -> tuple[str, ...]:
    """A warning if the application in the cluster does not deploy the endpoint's files."""
    if await asyncio.to_thread(closeness, app, endpoint, tree) > (0, 0):
        return ()
    home = posixpath.dirname(endpoint.files[0]) if endpoint.files else endpoint.name
    return (
        f"The {app.word} {app.name} in the cluster deploys {', '.join(app.paths) or 'a chart'}, not {home}:"
        " what starts is not what the repository says of this endpoint.",
    )
