"""From an approved pull request to what it promises: merged, the gateway and the endpoint brought to it, proven."""

import asyncio
from collections.abc import Awaitable, Callable

from bot.clients.github import BaseMoved, MergeRefused
from bot.domain import Kind, Operation, Plan, Pull, Request, Status, operation_id
from bot.errors import BotError
from bot.operations import keys
from bot.operations.down import down_request
from bot.operations.endpoints import all_endpoints
from bot.operations.life import (
    PlanMoved,
    await_approval,
    enqueue,
    enter,
    finish,
    request,
    show_progress,
    since,
    step,
    told_on,
)
from bot.operations.pulls import close, displaced_by, planned_change, refuse_if_up, seen
from bot.operations.smoke import run_smoke
from bot.services import Services
from bot.views import code
from bot.views.rollout import revert_offer
from bot.views.text import moment
from manifests.contract import ModelEndpoint
from manifests.groups import is_awaiting_generator

GATEWAY, ENDPOINT, REMOVAL = "Argo CD: the gateway", "Argo CD: the endpoint", "Argo CD: taking the endpoint down"


class _Blocked(Exception):
    """The roll-out cannot go on until somebody has done something else; `by` says what, in mrkdwn."""

    def __init__(self, by: str) -> None:
        super().__init__(by)
        self.by = by


async def roll_out(svc: Services, op: Operation) -> None:
    """Merge exactly the approved head and bring the platform to it. Safe to run again from the top."""
    if op.failure or (op.cancelled_by and op.status is Status.RUNNING):
        await _failed(svc, op)
        return
    now = svc.clock()

    def started(op: Operation) -> Operation:
        return op if op.cancelled_by or op.status is Status.RUNNING else op.moved(Status.RUNNING, now, outcome="")

    op = await svc.store.update(op.id, started, event="started")
    if op.status is not Status.RUNNING:
        await close(svc, op)
        return
    if op.plan is None or op.plan.pull is None:
        raise BotError("This request has no pull request; ask again.")
    await show_progress(svc, op)
    try:
        commit = op.plan.pull.merge_commit or await _merge(svc, op, op.plan, op.plan.pull)
    except PlanMoved as moved:
        fresh = seen(await svc.github.pull(op.plan.pull.number))
        holder, displaced = await displaced_by(svc, op)
        plan = op.plan.model_copy(update={"pull": fresh, "holder": holder, "displaced": displaced})
        await await_approval(svc, op.id, plan, note=f"⚠️ {moved.message}")
        return
    try:
        await _deploy(svc, op, commit)
    except _Blocked as blocked:
        # No task waits for a person: `sweep` comes back to the operation.
        await _set_blocked(svc, op, blocked.by)


async def _failed(svc: Services, op: Operation) -> None:
    pull = op.plan.pull if op.plan else None
    status = Status.CANCELLED if op.cancelled_by else Status.FAILED
    why = f"Cancelled by <@{op.cancelled_by}>." if op.cancelled_by else op.failure
    if op.plan is None or pull is None:
        await finish(svc, op.id, status, f"{why} Nothing was merged.")
        return
    if not pull.merge_commit:
        await svc.store.forget_step(op.id, "checked")
        note = f"⚠️ {why} Nothing was rolled out; decide again, or cancel."
        await await_approval(svc, op.id, op.plan, note=note)
        return
    if op.message and op.request.kind is not Kind.MODEL_REVERT:
        # Before the end is told, so that a crash in between does not lose the button.
        await svc.slack.post(f"{op.id}:revert", op.message.channel, revert_offer(op.id, pull), thread=op.message)
    await finish(svc, op.id, status, f"{why} <{pull.url}|Pull request #{pull.number}> is merged; revert it to undo.")


async def _merge(svc: Services, op: Operation, plan: Plan, pull: Pull) -> str:
    """The merge commit of the approved head. PlanMoved when what would be merged is no longer what was approved."""
    # Once: after the merge, the main branch would not take the change a second time.
    await svc.store.once(op.id, "checked", lambda: _refuse_if_moved(svc, op, plan), type(None))

    async def merge() -> str:
        return await svc.github.merge(pull.number, pull.head)

    try:
        commit = await step(svc, op.id, "merging", merge, str)
    except BaseMoved:
        await svc.store.forget_step(op.id, "checked")  # the next attempt looks at the new main branch first
        raise
    except MergeRefused as refused:
        await svc.store.forget_step(op.id, "checked")
        raise PlanMoved(f"{refused.message} The approval is void.") from refused
    merged = plan.model_copy(update={"pull": pull.model_copy(update={"merge_commit": commit})})
    await svc.store.update(op.id, lambda op: op.model_copy(update={"plan": merged}), event="merged")
    return commit


async def _refuse_if_moved(svc: Services, op: Operation, plan: Plan) -> None:
    """PlanMoved when the main branch no longer takes the change, or it would interrupt somebody else than was said."""
    if op.request.kind is Kind.MODEL_REMOVE:
        await refuse_if_up(svc, op.request.model)
    holder, _ = await displaced_by(svc, op)
    if holder and holder != plan.holder:
        raise PlanMoved(f"{code(op.request.model)} is up now, which the approval did not know of, so it is void.")
    head = await svc.repository.head()
    if head != plan.commit and plan.pull and plan.pull.head == plan.pushed:
        try:
            await planned_change(svc, op, head)
        except BotError as refused:
            raise PlanMoved(
                f"The main branch moved ({plan.commit[:10]} → {head[:10]}) and no longer takes the change, so the"
                f" approval is void: {refused.message}"
            ) from refused


async def _deploy(svc: Services, op: Operation, commit: str) -> None:
    """The gateway first: from the merge on it asks for the new served name. Then the endpoint."""
    model = op.request.model

    async def was_up() -> bool:
        before = await svc.cluster.workload(model)
        return bool(before and before.replicas)

    up = await svc.store.once(op.id, "was up", was_up, bool)
    await step(svc, op.id, GATEWAY, lambda: _gateway(svc, op, commit), type(None))
    endpoint = next((each for each in await all_endpoints(svc, commit) if each.name == model), None)
    if endpoint is None:
        await step(svc, op.id, REMOVAL, lambda: _removed(svc, op), type(None))
        await finish(svc, op.id, Status.SUCCEEDED, f"{code(model)} is removed, with its volume and the weights in it.")
        return
    await step(svc, op.id, ENDPOINT, lambda: _endpoint(svc, op, endpoint, commit), type(None))
    if op.plan and endpoint.alias not in {each.alias for each in await all_endpoints(svc, op.plan.commit)}:
        await keys.offer(svc, op, endpoint.alias)
    served = code(endpoint.hf_id)
    if up:
        await _proven(svc, op, endpoint, commit)
        outcome = f"{code(model)} now serves {served} and answers."
    elif endpoint.gpus and op.request.up:
        await svc.store.once(op.id, "up", lambda: _light(svc, op), type(None))
        outcome = f"{code(model)} is rolled out, serving {served}, and is being brought up: see its own message."
    elif endpoint.gpus:
        outcome = f"{code(model)} is rolled out, serving {served}, and is at zero. `/gpu up {model}` lights it."
    else:
        await _proven(svc, op, endpoint, commit)
        outcome = f"{code(model)} is rolled out, serves {served} and answers."
    await finish(svc, op.id, Status.SUCCEEDED, outcome)


async def _light(svc: Services, op: Operation) -> None:
    """Ask for the GPU on behalf of whoever asked for the change; the approval covered it."""
    wanted = Request(
        kind=Kind.GPU_UP,
        model=op.request.model,
        actor=op.request.actor,
        channel=op.request.channel,
        at=svc.clock(),
        hold=op.request.hold,
        reason="its change is rolled out",
        trial=not op.request.keep,
    )
    made = Operation(
        id=operation_id(f"{op.id}:up"), request=wanted, updated=svc.clock(), deciders=op.deciders, votes=op.approvals
    )
    await enqueue(svc, await svc.store.create(made))


async def bank(svc: Services, op_id: str) -> None:
    """Bring a trial down again once it has answered. Safe to repeat."""
    op = await svc.store.load(op_id)
    if op.request.trial and op.status is Status.SUCCEEDED:
        why = "it was brought up to prove its roll-out, and answered"
        wanted = down_request(op.request.model, op.request.actor, op.request.channel, svc.clock(), why)
        await request(svc, wanted, delivery=f"{op.id}:trial")


async def _gateway(svc: Services, op: Operation, commit: str) -> None:
    """LiteLLM at the merge commit, and its pods rolled: until then tenants are served by the old configuration."""
    gateway, limit = svc.config.litellm, svc.config.argocd.sync_limit.total_seconds()
    if await svc.argocd.get(gateway.application) is None:
        await enter(svc, op.id, GATEWAY, f"Argo CD has no Application {gateway.application}: nothing to sync")
        return
    await _to_commit(svc, op, gateway.application, commit, GATEWAY)
    await enter(svc, op.id, GATEWAY, "waiting until its pods are rolled")
    if not await svc.cluster.wait_rolled_out(gateway.deployment, namespace=gateway.namespace, timeout=limit):
        await enter(svc, op.id, GATEWAY, f"there is no Deployment {gateway.namespace}/{gateway.deployment} to wait for")


async def _endpoint(svc: Services, op: Operation, endpoint: ModelEndpoint, commit: str) -> None:
    """The endpoint's Application, which its ApplicationSet may have to make first, at the merge commit."""
    limit = svc.config.argocd.sync_limit.total_seconds()
    await _refresh_group(svc, endpoint.group)
    if await svc.argocd.get(endpoint.application) is None:
        await _refuse_if_blocked(svc, op, endpoint)
        await enter(svc, op.id, ENDPOINT, "waiting until its ApplicationSet has made the Application")
        await svc.argocd.wait_for(endpoint.application, timeout=limit, until=lambda _: True)
    await _set_blocked(svc, op, "")
    await _to_commit(svc, op, endpoint.application, commit, ENDPOINT)


async def _refuse_if_blocked(svc: Services, op: Operation, endpoint: ModelEndpoint) -> None:
    """_Blocked while the generated list has the endpoint's group off, which its generator has to be run for."""
    layout, group = svc.config.platform, endpoint.group
    tree = await svc.repository.tree(await svc.repository.head())
    if not await asyncio.to_thread(is_awaiting_generator, tree, layout, group):
        return
    blocked = await since(svc, op.id, "blocked since")
    until, generated = blocked + svc.config.approvals.pull_expire_after, code(layout.path(layout.groups_file))
    if svc.clock() > until:
        raise BotError(
            f"The group {code(group)} is still off in {generated}, so Argo CD never made {code(endpoint.application)}:"
            " run the generator of that file, merge what it writes, then bring the endpoint up."
        )
    raise _Blocked(
        f"The group {code(group)} is off in {generated}, so Argo CD does not make {code(endpoint.application)}. Run the"
        f" generator of that file and merge what it writes: the roll-out then goes on by itself, until {moment(until)}."
    )


async def _set_blocked(svc: Services, op: Operation, by: str) -> None:
    """Show what the operation waits for; "": for nothing any more."""
    op = await svc.store.update(op.id, lambda op: op if op.blocked == by else op.model_copy(update={"blocked": by}))
    await show_progress(svc, op)


async def _removed(svc: Services, op: Operation) -> None:
    """The Application goes, and with it by its finalizer the Deployment, the Service and the volume."""
    model, limit = op.request.model, svc.config.argocd.sync_limit.total_seconds()
    before = await all_endpoints(svc, op.plan.commit) if op.plan else ()
    for endpoint in (each for each in before if each.name == model and each.application):
        await _refresh_group(svc, endpoint.group)
        await svc.argocd.wait_gone(endpoint.application, timeout=limit)
    if await svc.cluster.workload(model):
        raise BotError(
            f"The Application of {code(model)} is gone, but its Deployment is still there: it had no finalizer."
            f" Delete it: kubectl -n {svc.config.platform.namespace} delete deployment {model}."
        )


async def _refresh_group(svc: Services, group: str) -> None:
    """The Application of the group makes and prunes those of its endpoints, where a platform has one."""
    name = svc.config.argocd.group_application.format(group=group)
    if await svc.argocd.get(name):
        await svc.argocd.refresh(name)


async def _proven(svc: Services, op: Operation, endpoint: ModelEndpoint, commit: str) -> None:
    """Its new pods come up and answer."""
    model, limit = op.request.model, svc.config.gpu.boot_limit.total_seconds()

    async def restarted() -> None:
        await svc.cluster.wait_rolled_out(model, timeout=limit, available=not endpoint.gpus)
        if endpoint.gpus:
            await svc.cluster.wait_ready(model, timeout=limit, progress=told_on(svc, op.id))

    async def tested() -> None:
        await run_smoke(svc, op.id, model, commit)

    await step(svc, op.id, "restarting", restarted, type(None))
    await step(svc, op.id, "smoke tests", tested, type(None))


async def _to_commit(svc: Services, op: Operation, application: str, commit: str, phase: str) -> None:
    """Bring an Application to the commit: one that syncs by itself is refreshed and waited for, another is synced."""
    limit, tell = svc.config.argocd.sync_limit.total_seconds(), _teller(svc, op.id, phase)

    async def includes(revision: str) -> bool:
        return await svc.repository.includes(revision, commit)

    found = await svc.argocd.get(application)
    if found is None or not found.automated:
        await svc.argocd.sync(application, commit, actor=op.request.actor, timeout=limit, tell=tell)
        return
    await svc.argocd.refresh(application)
    await svc.argocd.wait_synced(application, includes=includes, timeout=limit, tell=tell)


def _teller(svc: Services, op_id: str, phase: str) -> Callable[[str], Awaitable[None]]:
    async def tell(message: str) -> None:
        await enter(svc, op_id, phase, message)

    return tell
