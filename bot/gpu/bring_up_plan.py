"""Makes the plan of a bring-up from git, the Application and the leases, and compares it with the current content."""

import asyncio
import posixpath
from datetime import timedelta

import structlog

from bot.clients.application import Application
from bot.clients.cluster import Cluster
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.plans import BringUpPlan
from bot.domain.requests import BringUp
from bot.domain.sessions import COLD_START, cost
from bot.engine.lifecycle import NotAllowed, PlanMoved
from bot.errors import BotError
from bot.git.mirror import COMMIT, GitTree
from bot.git.repository import Repository
from bot.platform.binding import Binding, Unreadable, changed_names
from bot.platform.deploying import Applications, closeness
from bot.platform.endpoints import Endpoints
from bot.platform.switch import Switch
from bot.settings.config import Config
from bot.state.leases import Leases
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import clock, code, money
from manifests.contract import ModelEndpoint
from manifests.deployed import Bound

log = structlog.get_logger(__name__)


@component
class BringUpPlans:
    """Makes the plans of bring-ups, and compares a plan with the current content."""

    leases: Leases
    cluster: Cluster
    repository: Repository
    endpoints: Endpoints
    applications: Applications
    binding: Binding
    switch: Switch
    config: Config

    def hold(self, request: BringUp) -> timedelta:
        """Return the length of the lease."""
        return request.hold or self.config.lease.default

    async def of(self, request: BringUp, displaced: Lease | None) -> BringUpPlan:
        """Return the plan of a bring-up. Raises NotAllowed for a request that cannot work. `displaced` is the lease that
        will be replaced, if any.
        """
        model, hold = request.model, self.hold(request)
        commit = await self.repository.head()
        endpoint = await self.endpoints.require(commit, model)
        if not endpoint.gpus:
            raise NotAllowed(
                md("{model} runs on CPU and is always up, so there is nothing to bring up.", model=code(model))
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
                        "{model} is already {state}: {holder} has held it since {claimed}.",
                        model=code(model),
                        state="up" if lease.ready else "booting",
                        holder=person(lease.holder),
                        claimed=clock(lease.claimed),
                    )
                )
        tree = await self.repository.tree(commit)
        bound = await self.binding.of(model, tree, (app,), gateway=False)
        in_sync = workload is not None and await self._is_in_sync(app, model, bound)
        sync = "in sync" if in_sync else "will be synced at this commit"
        rows = [
            (
                "Estimated cost",
                f"{money(self._estimate(hold))}: {show_duration(hold)} and about {show_duration(self._boot_and_drain)} of"
                f" boot and drain, at {money(self.config.gpu.price())}/h",
            ),
            ("Lease", f"{show_duration(hold)} from when it is ready"),
            ("Serves", f"{endpoint.hf_id} as {endpoint.served_name}"),
            ("Commit", commit[:10]),
            (app.word, f"{app.name}, {sync}"),
            ("Deploys", ", ".join(app.paths) or "a chart"),
        ]
        if await self.switch.is_by_commit(model):
            action = "pushes it" if self.config.switch.merge == "push" else "merges a pull request with it"
            rows.append(
                (
                    "Starts by",
                    f"a commit of `replicas: 1` to {self.config.platform.branch}: Stoker {action}, and {app.word} {app.name} applies it",
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
            warnings=(*await _elsewhere(endpoint, app, tree), *(() if in_sync else _errors(app))),
            applications=(app.name,),
            estimate_usd=self._estimate(hold),
        )

    def _not_deployed(self, endpoint: ModelEndpoint) -> Mrkdwn:
        """Return the reason why nothing can deploy the endpoint to the cluster."""
        if endpoint.application:
            return md(
                "There is no Argo CD Application `{application}` for {model}: is its pull request merged, and is its "
                "group enabled?",
                application=endpoint.application,
                model=code(endpoint.name),
            )
        if self.config.flux.namespace:
            return md(
                "No Kustomization of Flux in namespace {namespace} deploys {model}: add one, or set `flux.namespace` to its namespace.",
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

    @property
    def _boot_and_drain(self) -> timedelta:
        """The time of a typical cold start and of the node's drain, which are also billed."""
        return COLD_START + self.config.gpu.drain

    def _estimate(self, hold: timedelta) -> float:
        return cost(hold + self._boot_and_drain, self.config.gpu.price())

    async def refuse_if_moved(self, model: str, plan: BringUpPlan) -> None:
        """Raise PlanMoved if the content to deploy or the lease to replace differs from the plan."""
        await self.refuse_if_changed(model, plan)
        if plan.lease:
            holder = await self.leases.of(plan.lease.model)
            if holder is None or holder.fence != plan.lease.fence:
                raise PlanMoved(
                    md(
                        "The GPU got another holder after the approval to replace {model}, so the approval is void.",
                        model=code(plan.lease.model),
                    )
                )

    async def refuse_if_changed(self, model: str, plan: BringUpPlan) -> None:
        """Raise PlanMoved if the main branch or the Application in the cluster would start something that was not
        approved.
        """
        head = await self.repository.head()
        live = await self.binding.applications_of(plan)
        try:
            current = await self.binding.of(model, await self.repository.tree(head), live, gateway=False)
            differs = changed_names(plan.bound, current)
        except Unreadable:
            differs = md("a file can no longer be parsed")
        if differs:
            raise PlanMoved(
                md(
                    "The deployed content of {model} changed after the approval ({commit} → {head}: {differs}), so the approval"
                    " is void.",
                    model=code(model),
                    commit=plan.commit[:10],
                    head=head[:10],
                    differs=differs,
                )
            )

    async def is_deployed(self, model: str, plan: BringUpPlan) -> bool:
        """Return whether the cluster already has the content of the plan."""
        live = await self.binding.applications_of(plan)
        if not live or await self.cluster.workload(model) is None:
            return False
        return await self._is_in_sync(live[0], model, plan.bound)

    async def _is_in_sync(self, app: Application, model: str, bound: Bound) -> bool:
        """Return whether the cluster has the content in `bound`.

        Argo CD polls git every three minutes and reports the last comparison as Synced until then.
        """
        if app.sync != "Synced":
            return False
        for revision in filter(COMMIT.fullmatch, app.revisions):  # the version of a chart is not a commit
            try:
                if await self.binding.of(model, await self.repository.tree(revision), (app,), gateway=False) == bound:
                    return True
            except BotError as error:
                log.info("revision not comparable", model=model, revision=revision, error=error.message)
        return False

    async def problems_since(self, plan: BringUpPlan, model: str) -> Mrkdwn:
        """Return the errors that were added to the endpoint's files after the plan was made; empty if there are none."""
        problems = await self.endpoints.problems_since(model, plan.commit)
        return md(" ").join([md("{problem}", problem=problem) for problem in problems])


def _errors(app: Application) -> tuple[str, ...]:
    """Return a warning if the application already has an error, which would make the sync fail."""
    if not app.errors:
        return ()
    return (f"{app.word} {app.name} has an error now, and its sync fails until that is fixed: {app.errors[0][:300]}",)


async def _elsewhere(endpoint: ModelEndpoint, app: Application, tree: GitTree) -> tuple[str, ...]:
    """Return a warning if the application in the cluster does not deploy the endpoint's files."""
    if await asyncio.to_thread(closeness, app, endpoint, tree) > (0, 0):
        return ()
    home = posixpath.dirname(endpoint.files[0]) if endpoint.files else endpoint.name
    return (
        f"The {app.word} {app.name} in the cluster deploys {', '.join(app.paths) or 'a chart'}, not {home}:"
        " it would start something other than this endpoint's files in the repository.",
    )
