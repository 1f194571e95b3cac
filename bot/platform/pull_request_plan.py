"""The current plan of a pull request, read from its head, its base branch and the cluster."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from bot.clients.application import Application
from bot.clients.cluster import Cluster
from bot.clients.github import GitHub, PullRequest
from bot.clients.huggingface import HuggingFace
from bot.clients.vllm import VLLM
from bot.clock import Clock
from bot.component import component
from bot.domain.operations import ChangeOperation
from bot.domain.plans import WITHOUT_LEASE, ChangePlan, Holder, Pull, stored_holder
from bot.domain.requests import AddModel, ChangeRequest, RemoveModel, SwapModel
from bot.domain.sessions import COLD_START, cost
from bot.errors import BotError, Unavailable
from bot.git.merging import MergedTree
from bot.git.mirror import GitTree
from bot.git.repository import Repository
from bot.platform import staged_swap
from bot.platform.binding import Binding, Unreadable, changed_names
from bot.platform.change_planning import look_up_model, machine
from bot.platform.deploying import Applications
from bot.platform.merge_requirements import changed_at, lacking
from bot.platform.staged_swap import StagedSwap
from bot.settings.config import Config
from bot.state.leases import Leases
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import code, money
from manifests.contract import ModelEndpoint
from manifests.deployed import Bound, digest
from manifests.platform import Platform
from manifests.reading import Reading, read_change
from manifests.sizing import size
from manifests.strays import REGULAR, Touch
from manifests.tree import Tree

_FILES = 1000
"""Maximum number of changed files in a pull request. An endpoint has about ten, and git gets the paths as arguments."""


@component
class PullRequestPlans:
    """Reads the current plan of a pull request."""

    leases: Leases
    cluster: Cluster
    vllm: VLLM
    hub: HuggingFace
    github: GitHub
    repository: Repository
    applications: Applications
    binding: Binding
    staged_swap: StagedSwap
    config: Config
    clock: Clock

    async def current(self, op: ChangeOperation, plan: ChangePlan, github_pull: PullRequest) -> ChangePlan:
        """Read the current plan from GitHub, git and the cluster. `plan` is the previous one."""
        pull = await self.as_read(plan.pull, github_pull)
        return await self.of_pull(op, plan.model_copy(update={"pull": pull}), github_pull)

    async def of_pull(self, op: ChangeOperation, plan: ChangePlan, github_pull: PullRequest) -> ChangePlan:
        """Read the current plan; `plan` is the previous one, in which the pull request is already up to date."""
        holder, displaced = await self.displaced_by(op.request)
        plan, pull = plan.model_copy(update={"holder": holder, "displaced": displaced}), plan.pull
        if (
            github_pull.base_ref != self.config.platform.branch
            or github_pull.head_repository.lower() != self._repository()
        ):
            return plan  # it cannot be merged, so its content is not read
        main, live = await self.repository.head(), await self.live_of(plan)
        inputs_digest = digest(
            [github_pull.head_sha, main, pull.merge_commit, stored_holder(holder), [app.source for app in live]]
        )
        if inputs_digest == plan.read:
            return plan
        if github_pull.changed_files > _FILES:
            problem = f"The pull request changes {github_pull.changed_files} files; Stoker reads at most {_FILES}. Close it and request it again."
            return plan.model_copy(
                update={"problems": (problem,), "read": inputs_digest, "bound": (("files", digest(inputs_digest)),)}
            )
        if pull.merge_commit:
            return await self._read_merged(op, plan, pull, main, live, inputs_digest)
        tree = await self.repository.after_merge(github_pull.head_sha, main)
        if tree is None:
            conflict = md("the conflict is resolved")
            return plan.model_copy(update={"pull": pull.model_copy(update={"mergeable": False, "lacks": conflict})})
        touched = await self.repository.changed_by(github_pull.head_sha, main, plan.pushed)
        return await self._read(op, plan, tree, await self.repository.tree(main), touched, live, inputs_digest)

    async def _read_merged(
        self,
        op: ChangeOperation,
        plan: ChangePlan,
        pull: Pull,
        main: str,
        live: tuple[Application, ...],
        inputs_digest: str,
    ) -> ChangePlan:
        """Read the plan of a merged pull request: of its merge commit, or of the main branch if the content has changed since."""
        merged = await self.repository.tree(pull.merge_commit)
        target, tree = pull.merge_commit, merged
        if main != pull.merge_commit:
            newest = await self.repository.tree(main)
            if await self._bound(op.request, merged, live) != await self._bound(op.request, newest, live):
                target, tree = main, newest
        touched = dict.fromkeys(plan.own.files, Touch(REGULAR, REGULAR, foreign=False))
        fresh = await self._read(op, plan, tree, await self.repository.tree(plan.commit), touched, live, inputs_digest)
        # The change is already merged, so its problems cannot prevent the merge.
        return fresh.model_copy(update={"target": target, "problems": ()})

    async def _read(
        self,
        op: ChangeOperation,
        plan: ChangePlan,
        tree: GitTree | MergedTree,
        before: Tree,
        touched: Mapping[str, Touch],
        live: tuple[Application, ...],
        inputs_digest: str,
    ) -> ChangePlan:
        request, pull, own_change = op.request, plan.pull, plan.own
        reading = await asyncio.to_thread(
            read_change,
            Platform(before, self.config.platform),
            Platform(tree, self.config.platform),
            request.model,
            template=own_change.template or request.model,
            removes=own_change.removes or isinstance(request, RemoveModel),
            touched=touched,
            planned=own_change.files,
        )
        is_own = pull.head == plan.pushed
        sizing, warnings, problems = own_change.sizing, own_change.warnings, reading.problems
        if not is_own:
            sizing, sized, misfit = await self._check_fit(reading)
            warnings, problems = (*_pushed_warnings(request, reading), *sized), (*problems, *misfit)
        rows = own_change.rows or reading.rows
        if own_change.rows:
            rows = (*own_change.rows, *(row for row in reading.rows if row[0] not in dict(own_change.rows)))
        all_rows = (
            *rows,
            *((("Sizing", sizing),) if sizing else ()),
            ("Files", str(len(touched))),
            *self._bring_up_rows(request, reading.endpoint),
            *_alias_rows(request, reading.endpoint),
        )
        forecast = staged_swap.Forecast(False, ())
        if not pull.merge_commit and not problems:
            forecast = await self.staged_swap.forecast(op, pull.head)
        return plan.model_copy(
            update={
                "bound": await self._bound(request, tree, live),
                "rows": (*all_rows, *forecast.rows),
                "before": () if own_change.rows else reading.before,
                "stages": forecast.stages,
                "warnings": tuple(dict.fromkeys((*reading.warnings, *warnings))),
                "problems": problems,
                "read": inputs_digest,
            }
        )

    async def _check_fit(self, reading: Reading) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Check whether the pushed model fits on the GPU. Returns the verdict, the warnings and the problems."""
        endpoint = reading.endpoint
        if endpoint is None:
            return "", (), ()
        facts = await look_up_model(self.hub, endpoint.hf_id)
        if facts.missing(gpu=endpoint.gpus > 0):
            return "unknown", (f"It is unknown whether {endpoint.hf_id} fits: its size could not be looked up.",), ()
        sizing = size(
            facts,
            machine(self.config.gpu),
            context=endpoint.context,
            gpu_utilization=endpoint.gpu_utilization or 0.9,
            memory_limit_bytes=endpoint.memory_limit_bytes,
            storage=endpoint.pvc_size or None,
            gpu=endpoint.gpus > 0,
        )
        misfit = (
            f"{self.config.platform.home(endpoint.name)}:1: {endpoint.hf_id} does not fit: {'; '.join(sizing.reasons)}."
        )
        return sizing.verdict, sizing.warnings, (misfit,) if sizing.verdict == "does not fit" else ()

    async def live_of(self, plan: ChangePlan) -> tuple[Application, ...]:
        """Return the current Applications in the cluster that the roll-out syncs: the endpoint's and the gateway's."""
        applications = await self.binding.applications_of(plan)
        gateway = await self.applications.of_gateway(plan.commit)
        return applications if gateway is None or gateway in applications else (*applications, gateway)

    async def _bound(self, request: ChangeRequest, tree: GitTree | MergedTree, live: tuple[Application, ...]) -> Bound:
        try:
            return await self.binding.of(request.model, tree, live, gateway=True)
        except Unreadable as unreadable:  # the plan lists this error as a problem, which prevents the approval
            return (("what it deploys", digest(str(unreadable))),)

    async def as_read(self, before: Pull | None, github_pull: PullRequest) -> Pull:
        """Convert a pull request from GitHub to the stored form; `before` is the result of the previous call."""
        now = self.clock()
        since = now
        if before:
            since = changed_at(before.head, before.names, github_pull, before.since, now)
        expected = await self.github.expected(github_pull.base_ref)
        merged = github_pull.merged and github_pull.base_ref == self.config.platform.branch
        return Pull(
            number=github_pull.number,
            url=github_pull.url,
            branch=github_pull.head_ref,
            head=github_pull.head_sha,
            base=github_pull.base_ref,
            checks=github_pull.ci.verdict,
            failing=github_pull.ci.failing,
            names=github_pull.ci.names,
            unread=github_pull.ci.unread,
            since=since,
            lacks=md("") if merged else lacking(github_pull, expected, self._repository(), self.config, now - since),
            looked=True,
            mergeable=github_pull.mergeable,
            blocked=github_pull.blocked,
            auto_merge_by=github_pull.auto_merge_by or "",
            approved_by=github_pull.approved_by,
            rejected_by=github_pull.rejected_by,
            merged_by=github_pull.merged_by or "",
            merge_commit=(github_pull.merge_commit or "") if merged else "",
        )

    def _repository(self) -> str:
        return self.repository.name.lower()

    def what_moved(self, before: ChangePlan, after: ChangePlan) -> Mrkdwn:
        """Return the reason why approvals of the plan `before` are not valid for `after`; empty if they are valid."""
        if before.mark == after.mark:
            return md("")
        was, now = before.pull, after.pull
        if was.base and was.base != now.base:
            base = code(now.base)
            if now.base == self.config.platform.branch:
                return md("The base of the pull request is {base} again; earlier approvals are void.", base=base)
            return md(
                "Somebody changed the base of the pull request to {base}: nothing is merged there; earlier approvals are void.",
                base=base,
            )
        if was.head != now.head:
            return md("The pull request got new commits; earlier approvals are void.")
        if was.merge_commit != now.merge_commit:
            return md(
                "The pull request is merged, so only the sync remains to be approved; earlier approvals are void."
            )
        if differs := changed_names(before.bound, after.bound):
            return md("The content to deploy has changed: {differs}; earlier approvals are void.", differs=differs)
        return md("The plan changed; earlier approvals are void.")

    def _bring_up_rows(self, request: ChangeRequest, endpoint: ModelEndpoint | None) -> tuple[tuple[str, str], ...]:
        """The row about the bring-up after the roll-out and its cost, which the approval also covers."""
        if not isinstance(request, AddModel | SwapModel) or not request.up or endpoint is None or not endpoint.gpus:
            return ()
        hold = request.hold or self.config.lease.default
        # A cold start and the node's drain are always billed.
        billed = COLD_START + self.config.gpu.drain + (hold if request.keep else timedelta())
        after = f"kept for {show_duration(hold)}" if request.keep else "back to zero"
        return (("Then", f"brought up, tested, {after}: about {money(cost(billed, self.config.gpu.price()))}"),)

    async def displaced_by(self, request: ChangeRequest) -> tuple[Holder, Mrkdwn]:
        """Return the holder of the running endpoint that the roll-out restarts, and a warning about its traffic for the
        card; (None, "") if it is not running.
        """
        model = request.model
        workload = await self.cluster.workload(model)
        if isinstance(request, AddModel) or workload is None or not workload.replicas:
            return None, md("")
        if not workload.gpus:
            if isinstance(request, RemoveModel):
                return WITHOUT_LEASE, md(
                    "{model} is running: its callers get errors after the merge.", model=code(model)
                )
            return WITHOUT_LEASE, md("{model} is running and restarts with this change.", model=code(model))
        lease = await self.leases.of(model)
        lease_text = md("{holder} holds it", holder=person(lease.holder)) if lease else "nobody holds a lease for it"
        try:
            now = await self.vllm.activity(self.vllm.url(workload.service, workload.namespace, workload.port))
            busy = f"{now.running + now.waiting:.0f} requests are running"
        except (Unavailable, BotError):
            busy = "its current traffic is unknown"
        return (
            lease.holder if lease else WITHOUT_LEASE,
            md(
                "{model} is up: {lease_text}, {busy}. Approving merges, syncs and restarts it in one step; until it is "
                "ready again, calls to it fail.",
                model=code(model),
                lease_text=lease_text,
                busy=busy,
            ),
        )


def _pushed_warnings(request: ChangeRequest, reading: Reading) -> tuple[str, ...]:
    warnings = ["Somebody else pushed to the branch; the plan shows its current content."]
    serves = reading.endpoint.hf_id if reading.endpoint else ""
    if isinstance(request, AddModel | SwapModel) and serves and serves != request.hf_id:
        warnings.insert(0, f"It now serves {serves}, not the requested {request.hf_id}.")
    return tuple(warnings)


def _alias_rows(request: ChangeRequest, endpoint: ModelEndpoint | None) -> tuple[tuple[str, str], ...]:
    if not isinstance(request, AddModel) or not request.now or endpoint is None:
        return ()
    return (("Alias now", f"{endpoint.alias} already answers, until this is merged, denied or cancelled"),)
