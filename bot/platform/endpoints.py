"""The endpoints in the platform repository, and their state in the cluster."""

import asyncio
from difflib import get_close_matches

import structlog

from bot.clients.application import Application
from bot.clients.cluster import Cluster
from bot.clients.deployer import Deployer
from bot.clients.whereabouts import Address
from bot.clients.workload import Workload
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.marks import read_mark
from bot.domain.operations import ChangeOperation, SmokeOutcome
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.platform.deploying import deploys
from bot.settings.config import Config
from bot.state.endpoint_history import EndpointHistory
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.sessions import Sessions
from bot.text.mrkdwn import md
from bot.views import code
from bot.views.endpoints import EndpointState, State
from manifests.contract import ModelEndpoint, read_endpoints
from manifests.platform import Platform
from manifests.reading import read_change
from manifests.tree import ManifestError

log = structlog.get_logger(__name__)

_NAMED = 12
"""Maximum number of endpoints that a refusal names."""


class UnknownModel(BotError):
    """There is no endpoint with that name."""

    remedy = "Use the suggested name, or one from `/model list`."


@component
class Endpoints:
    """The endpoints in the platform repository."""

    cluster: Cluster
    repository: Repository
    config: Config

    async def all(self, commit: str) -> tuple[ModelEndpoint, ...]:
        """Return the endpoints at a commit; raises BotError if the repository cannot be read."""
        tree = await self.repository.tree(commit)
        try:
            # In a thread, because reading a git tree starts processes.
            endpoints = await asyncio.to_thread(read_endpoints, Platform(tree, self.config.platform))
        except ManifestError as error:
            raise BotError(str(error)) from error
        if commit == self.repository.newest:
            self.cluster.whereabouts.update(
                {endpoint.name: Address(endpoint.namespace, endpoint.workload) for endpoint in endpoints},
                {endpoint.name: endpoint.application or endpoint.deployed_by for endpoint in endpoints},
            )
        return endpoints

    async def learn_places(self) -> None:
        """Give the cluster client the Deployment of each endpoint, if the client has none yet and the repository is readable."""
        if self.cluster.whereabouts.is_loaded:
            return
        try:
            await self.all(await self.repository.head())
        except (BotError, Unavailable) as error:
            log.warning("the Deployments of the endpoints are unknown", error=str(error))

    async def problems_since(self, model: str, commit: str) -> tuple[str, ...]:
        """Return the problems in an endpoint's files that did not exist at the commit, each with its file and line."""
        trees = await self.repository.tree(commit), await self.repository.tree(await self.repository.head())
        before, now = (Platform(tree, self.config.platform) for tree in trees)
        reading = await asyncio.to_thread(
            read_change, before, now, model, template=model, removes=False, touched={}, planned=()
        )
        return reading.problems

    async def require(self, commit: str, model: str) -> ModelEndpoint:
        """Return an endpoint; raises UnknownModel with the most similar name."""
        endpoints = await self.all(commit)
        names = [endpoint.name for endpoint in endpoints]
        if model in names:
            return endpoints[names.index(model)]
        similar = get_close_matches(model.lower(), names, n=1)
        names_text = md(", ").join(code(name) for name in names[:_NAMED]) or "none"
        more = md(" and {count} more: `/model list`", count=len(names) - _NAMED) if len(names) > _NAMED else ""
        hint = (
            md("Did you mean {similar}?", similar=code(similar[0]))
            if similar
            else md("There are: {names}{more}.", names=names_text, more=more)
        )
        raise UnknownModel(md("Unknown model {model}. {hint}", model=code(model[:80]), hint=hint))


@component
class EndpointStates:
    """The endpoints, combined with their state in the cluster."""

    operations: Operations
    leases: Leases
    sessions: Sessions
    endpoint_history: EndpointHistory
    deployer: Deployer
    cluster: Cluster
    repository: Repository
    endpoints: Endpoints

    async def now(self) -> tuple[EndpointState, ...]:
        """Every endpoint of the main branch, combined with its state in the cluster."""
        return await self.at(await self.repository.head())

    async def at(self, commit: str) -> tuple[EndpointState, ...]:
        """Return every endpoint with its state in the cluster. Makes one request per kind of object.

        If Redis does not answer, the leases are read from the Deployments, and `remembered` is False.
        """
        endpoints = await self.endpoints.all(commit)
        tree, listed = await self.repository.tree(commit), await self.deployer.list()
        repository = self.repository.name

        def match_applications() -> dict[str, Application | None]:
            return {endpoint.name: deploys(listed, endpoint, tree, repository) for endpoint in endpoints}

        applications = await asyncio.to_thread(match_applications)
        workloads = await self.cluster.workloads()
        try:
            held_leases = await self.leases.held()
            pulls = {op.request.model: op.plan.pull for op in await self.operations.open(ChangeOperation) if op.plan}
            runs, remembered = await self.endpoint_history.smoke_tests(), True
            troubles = {
                lease.model: health.trouble for lease in held_leases if (health := await self.sessions.health(lease))
            }
        except Unavailable as error:
            if error.system != "Redis":
                raise
            marks = (read_mark(workload.lease, name) for name, workload in workloads.items() if workload.replicas)
            held_leases, pulls, runs, remembered = tuple(mark for mark in marks if mark), {}, {}, False
            troubles = {}
        leases = {lease.model: lease for lease in held_leases}
        return tuple(
            EndpointState(
                endpoint=endpoint,
                state=_state(workloads.get(endpoint.name), leases.get(endpoint.name)),
                trouble=troubles.get(endpoint.name),
                sync=app.sync if (app := applications[endpoint.name]) else "no Application",
                drift=_drift(endpoint, app, workloads.get(endpoint.name)),
                lease=leases.get(endpoint.name),
                pull=pulls.get(endpoint.name),
                smoke=_smoke(runs.get(endpoint.name), endpoint),
                remembered=remembered,
            )
            for endpoint in endpoints
        )


def _smoke(run: SmokeOutcome | None, endpoint: ModelEndpoint) -> SmokeOutcome | None:
    """Return the last smoke tests, unless they tested the model before a swap."""
    return run if run and run.hf_id == endpoint.hf_id else None


def _state(workload: Workload | None, lease: Lease | None) -> State:
    if workload is None:
        return "not deployed"
    if not workload.replicas:
        return "down"
    if workload.ready_replicas:
        return "up"
    return "not serving" if lease and lease.ready else "booting"


def _drift(endpoint: ModelEndpoint, app: Application | None, workload: Workload | None) -> str:
    """The difference between the cluster and the main branch; empty if there is none."""
    if workload and workload.names_said and endpoint.served_name and endpoint.served_name not in workload.served_names:
        return f"the cluster has {workload.served_name}"
    return "not synced with the main branch" if app and workload and app.sync == "OutOfSync" else ""
