"""The endpoints as the platform repo has them, and as the cluster runs them."""

import asyncio
from difflib import get_close_matches

from bot.clients.argocd import Application
from bot.clients.workload import Workload
from bot.domain import Lease
from bot.errors import BotError, Unavailable
from bot.services import Services
from bot.views import code, escape
from bot.views.endpoints import EndpointState, State
from manifests.contract import ModelEndpoint, read_endpoints
from manifests.tree import ManifestError

_NAMED = 12
"""The most endpoints that a refusal names."""


class UnknownModel(BotError):
    """No endpoint of that name."""

    remedy = "Take the name that is suggested, or one of `/model list`."


async def all_endpoints(svc: Services, commit: str) -> tuple[ModelEndpoint, ...]:
    """The endpoints at a commit; BotError when the repository does not follow the contract."""
    tree = await svc.repository.tree(commit)
    try:
        # Reading a git tree starts processes, so it is done in a thread.
        return await asyncio.to_thread(read_endpoints, tree, svc.config.platform)
    except ManifestError as error:
        raise BotError(escape(str(error))) from error


async def known_endpoint(svc: Services, commit: str, model: str) -> ModelEndpoint:
    """The endpoint as the repo has it, or UnknownModel with the nearest name."""
    found = await all_endpoints(svc, commit)
    names = [endpoint.name for endpoint in found]
    if model in names:
        return found[names.index(model)]
    near = get_close_matches(model.lower(), names, n=1)
    there_are = ", ".join(code(name) for name in names[:_NAMED]) or "none"
    more = f" and {len(names) - _NAMED} more: `/model list`" if len(names) > _NAMED else ""
    hint = f"Did you mean {code(near[0])}?" if near else f"There are: {there_are}{more}."
    raise UnknownModel(f"Unknown model {code(model[:80])}. {hint}")


async def endpoint_states(svc: Services, commit: str) -> tuple[EndpointState, ...]:
    """Every endpoint joined with the cluster; one request for each kind of thing, however many endpoints there are.

    Without Redis, the leases are those that the Deployments carry, and nothing is `remembered`.
    """
    found = await all_endpoints(svc, commit)
    applications = {app.name: app for app in await svc.argocd.list()}
    workloads = await svc.cluster.workloads()
    try:
        held = await svc.leases.held()
        pulls = {op.request.model: op.plan.pull for op in await svc.store.open() if op.plan and op.plan.pull}
        runs, remembered = await svc.store.smoke_runs(), True
    except Unavailable as error:
        if error.system != "Redis":
            raise
        marks = (Lease.of_mark(workload.lease, name) for name, workload in workloads.items() if workload.replicas)
        held, pulls, runs, remembered = tuple(mark for mark in marks if mark), {}, {}, False
    leases = {lease.model: lease for lease in held}
    return tuple(
        EndpointState(
            endpoint=endpoint,
            state=_state(workloads.get(endpoint.name)),
            sync=app.sync if (app := applications.get(endpoint.application)) else "no Application",
            drift=_drift(endpoint, app, workloads.get(endpoint.name)),
            lease=leases.get(endpoint.name),
            pull=pulls.get(endpoint.name),
            smoke=runs.get(endpoint.name),
            remembered=remembered,
        )
        for endpoint in found
    )


def _state(workload: Workload | None) -> State:
    if workload is None:
        return "not deployed"
    if not workload.replicas:
        return "down"
    return "up" if workload.ready_replicas else "booting"


def _drift(endpoint: ModelEndpoint, app: Application | None, workload: Workload | None) -> str:
    """How the cluster differs from the main branch; empty when it does not."""
    if workload and workload.served_name and workload.served_name != endpoint.served_name:
        return f"the cluster has {workload.served_name}"
    return "not synced with the main branch" if app and workload and app.sync == "OutOfSync" else ""
