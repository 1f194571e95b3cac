"""Bringing a model up on the GPU."""

from datetime import datetime, timedelta

import structlog

from bot.clients.argocd import Application
from bot.domain import MAYBE_LEASE, Kind, Lease, Operation, Plan, Status, cost
from bot.durations import show_duration
from bot.errors import BotError
from bot.lease import GpuBusy, GpuQueued, LeaseMoved
from bot.mirror import COMMIT
from bot.operations.down import lease_on, to_zero
from bot.operations.endpoints import known_endpoint
from bot.operations.life import (
    CancelAsked,
    NotAllowed,
    PlanMoved,
    attended,
    await_approval,
    carry_votes,
    enter,
    finish,
    hand_over_soon,
    insist,
    since,
    step,
    told_on,
)
from bot.operations.queue import obstacle, refuse_if_taken, replace_instead, wait
from bot.operations.receipt import close_session, machine_of
from bot.operations.reconcile import renew
from bot.operations.replace import make_room, restore
from bot.operations.smoke import SmokeFailed, run_smoke
from bot.policy import can_be_approved, may_request
from bot.services import Services
from bot.views import clock, code, money

log = structlog.get_logger(__name__)


async def plan_up(svc: Services, op: Operation) -> None:
    """Validate a request for the GPU and ask for its approval."""
    people = await svc.people()
    insist(may_request(op.request.actor, people, svc.config))
    insist(can_be_approved(people))
    hold = op.request.hold or svc.config.lease.default
    if hold > svc.config.lease.longest:
        raise NotAllowed(
            f"{show_duration(hold)} is longer than a lease may be ({show_duration(svc.config.lease.longest)});"
            " ask for less and extend it later."
        )
    plan = await plan_for(svc, op, None)
    twin = [
        o
        for o in await svc.store.open(Kind.GPU_UP, op.request.model)
        if o.id != op.id and o.status is not Status.REQUESTED
    ]
    if twin:
        raise NotAllowed(
            f"{code(op.request.model)} was already asked for by <@{twin[0].request.actor}>"
            f" at {clock(twin[0].request.at)} and is {twin[0].status}: see its message."
        )
    await _ask_or_wait(svc, op, plan)
    await carry_votes(svc, op)


async def _ask_or_wait(svc: Services, op: Operation, plan: Plan, note: str = "") -> None:
    """Ask for the approval of a plan, or say who has the GPU and what can be done about it."""
    if plan.lease is None and await obstacle(svc, op):
        await wait(svc, op, plan, note=note)
    else:
        await await_approval(svc, op.id, plan, note=note)


async def ask_to_replace(svc: Services, op_id: str, actor: str) -> None:
    """Ask for the approval to push the holder aside; the place in the queue is given up for it."""
    op = await replace_instead(svc, op_id, actor)
    holder = await svc.leases.of(op.waiting.model) if op.waiting else None
    if holder is None or (op.waiting and holder.fence != op.waiting.fence):
        raise NotAllowed("The GPU has changed hands meanwhile; the card is brought up to date in a moment.")
    plan = await plan_for(svc, op, holder)
    await svc.leases.leave(op.id)
    await await_approval(svc, op.id, plan)


async def plan_for(svc: Services, op: Operation, displaced: Lease | None) -> Plan:
    """What bringing the model up means now; refuses what cannot work. `displaced`: who has to go for it."""
    model, hold = op.request.model, op.request.hold or svc.config.lease.default
    commit = await svc.repository.head()
    endpoint = await known_endpoint(svc, commit, model)
    if not endpoint.gpus:
        raise NotAllowed(f"{code(model)} runs on CPU all the time, so it needs no GPU; nothing to bring up.")
    app = await svc.argocd.get(endpoint.application)
    workload = await svc.cluster.workload(model)
    if app is None:
        raise NotAllowed(
            f"There is no Argo CD Application `{endpoint.application}` for {code(model)}: is its pull request merged and its group"
            " switched on?"
        )
    for lease in await svc.leases.held():
        if lease.model == model:
            raise NotAllowed(
                f"{code(model)} is already {'up' if lease.ready else 'booting'}: <@{lease.holder}> holds it since {clock(lease.claimed)}."
            )
    tree = await _files_of(svc, commit, model)
    sync = "in sync" if workload and await _is_in_sync(svc, app, model, tree) else "will be synced at this commit"
    rows = [
        ("Serves", f"{endpoint.hf_id} as {endpoint.served_name}"),
        ("Commit", commit[:10]),
        ("Application", f"{endpoint.application}, {sync}"),
        ("Lease", f"{show_duration(hold)} from when it is ready"),
        (
            "Estimated cost",
            f"{money(_estimate(svc, hold))} ({money(svc.config.gpu.price())}/h, boot and drain included)",
        ),
    ]
    if displaced:
        finish_within = show_duration(svc.config.lease.finish_within)
        rows.append(
            (
                "Before",
                f"{displaced.model} may finish its requests within {finish_within}; it is restored if {model} fails",
            )
        )
    return Plan(
        lease=displaced,
        commit=commit,
        tree=tree,
        rows=tuple(rows),
        applications=(endpoint.application,),
        estimate_usd=_estimate(svc, hold),
    )


def _estimate(svc: Services, hold: timedelta) -> float:
    """The lease, a ten-minute cold start (platform.md) and the node's drain."""
    return cost(hold + timedelta(minutes=10) + svc.config.gpu.drain, svc.config.gpu.price())


async def bring_up(svc: Services, op: Operation) -> None:
    """Carry an approved request to a served model; safe to run again from the top."""
    if op.failure or op.cancelled_by:
        return await _undo_up(svc, op)
    now, plan = svc.clock(), op.plan
    if plan is None:
        raise BotError("This request has no plan; ask again.")
    try:
        if op.status is Status.APPROVED:
            await refuse_if_moved(svc, op, plan)
            op = await svc.store.update(
                op.id, lambda op: op.moved(Status.RUNNING, now, outcome="", waiting=None), event="started"
            )
        lease = await _claim(svc, op, plan, op.request.hold or svc.config.lease.default)
    except (PlanMoved, LeaseMoved) as moved:
        way = await obstacle(svc, op) if plan.lease else None
        holder = await svc.leases.of(way.model) if way else None
        await _ask_or_wait(svc, op, await plan_for(svc, op, holder), note=f"⚠️ {moved.message}")
        return None
    except (GpuBusy, GpuQueued) as busy:
        note = f"⚠️ {busy.message} This request waits for its turn; its approval stays valid until it expires."
        await wait(svc, op, plan, join=True, note=note)
        return None
    try:
        await _light(svc, op, plan, lease)
    except CancelAsked:
        cut = svc.clock()
        await _undo_up(svc, await svc.store.update(op.id, lambda op: op.with_phases_ended(cut, failed=True)))
    return None


async def _claim(svc: Services, op: Operation, plan: Plan, hold: timedelta) -> Lease:
    """The operation's lease: a new one, or the one that it has; also when Redis has lost it and the cluster has not."""
    model = op.request.model
    workload = await svc.cluster.workload(model)
    marked = Lease.of_mark(workload.lease, model) if workload and workload.replicas else None
    if marked and marked.op == op.id:
        await svc.leases.restore(marked)
    wanted = Lease(
        model=model,
        op=op.id,
        holder=op.request.actor,
        reason=op.request.reason,
        fence=0,
        commit=plan.commit,
        hold=hold,
        claimed=svc.clock(),
        message=op.message,
    )
    floor = await svc.cluster.highest_fence()
    if plan.lease:
        return await svc.leases.replace(plan.lease, wanted.model_copy(update={"displaced": plan.lease}), floor=floor)
    return await svc.leases.claim(wanted, floor=floor)


async def _light(svc: Services, op: Operation, plan: Plan, lease: Lease) -> None:
    model, application = op.request.model, plan.applications[0]

    async def sync() -> None:
        found = await svc.argocd.get(application)
        if (
            found is None
            or await svc.cluster.workload(model) is None
            or not await _is_in_sync(svc, found, model, plan.tree)
        ):
            await svc.argocd.sync(
                application, plan.commit, actor=op.request.actor, timeout=svc.config.argocd.sync_limit.total_seconds()
            )

    async def scale() -> None:
        await refuse_if_taken(svc, model)
        await svc.cluster.scale(model, 1, lease=lease.mark, fence=lease.fence)
        # Two that both found the GPU free, because Redis forgot one of them in between, see each other now.
        await refuse_if_taken(svc, model)

    async def wait_ready() -> datetime:
        left = await since(svc, op.id, "boot began") + svc.config.gpu.boot_limit - svc.clock()
        await svc.cluster.wait_ready(model, timeout=max(1.0, left.total_seconds()), progress=told_on(svc, op.id))
        return svc.clock()

    if lease.displaced:
        await make_room(svc, op, lease, lease.displaced)
    await step(svc, op.id, "syncing", sync, type(None))
    await step(svc, op.id, "starting", scale, type(None))
    ready = await attended(svc, op.id, svc.store.once(op.id, "ready", wait_ready, datetime))
    lease = await renew(svc, lease, lambda held: held.started(ready)) or lease
    await enter(svc, op.id, "smoke tests")
    ends = f" until {clock(lease.ends)}" if lease.ends else ""
    try:
        await run_smoke(svc, op.id, model, plan.commit)
    except SmokeFailed as failed:
        if not op.request.keep:
            raise SmokeFailed(
                f"{failed.message} `/gpu up {model} keep` would leave it up, to be looked at."
            ) from failed
        left = (
            f"{code(model)} is left up, as `keep` was said; <@{lease.holder}> holds the GPU{ends}. `/gpu down` ends it."
        )
        await finish(svc, op.id, Status.FAILED, f"{failed.message} {left}")
        await renew(svc, lease, Lease.settled)
        return
    await finish(
        svc,
        op.id,
        Status.SUCCEEDED,
        f"{code(model)} is up and answers; all smoke tests passed. <@{lease.holder}> holds the GPU{ends}."
        " `/gpu down` ends it.",
    )
    await renew(svc, lease, Lease.settled)


async def _files_of(svc: Services, commit: str, model: str) -> str:
    """git's id of the endpoint's folder at a commit."""
    return await svc.repository.subtree_id(commit, f"{svc.config.platform.serving_dir}/{model}")


async def _is_in_sync(svc: Services, app: Application, model: str, tree: str) -> bool:
    """Whether the cluster has the endpoint's files as they are in `tree`.

    Argo CD looks at git every three minutes, and calls what it compared last Synced meanwhile.
    """
    if app.sync != "Synced":
        return False
    for revision in filter(COMMIT.fullmatch, app.revisions):  # not the version of a chart
        try:
            if await _files_of(svc, revision, model) == tree:
                return True
        except BotError as error:
            log.info("revision not comparable", model=model, revision=revision, error=error.message)
    return False


async def refuse_if_moved(svc: Services, op: Operation, plan: Plan) -> None:
    """What runs is what was approved: the endpoint's files on main, and whoever is displaced, are still the plan's."""
    head = await svc.repository.head()
    if await _files_of(svc, head, op.request.model) != plan.tree:
        raise PlanMoved(
            f"The files of `{op.request.model}` changed on the main branch after the approval ({plan.commit[:10]} →"
            f" {head[:10]}), so it is void. Please approve the new plan."
        )
    if plan.lease:
        holder = await svc.leases.of(plan.lease.model)
        if holder is None or holder.fence != plan.lease.fence:
            raise PlanMoved(
                f"The GPU changed hands after the approval to replace {code(plan.lease.model)}, so it is void."
                " Please decide again."
            )


async def _undo_up(svc: Services, op: Operation) -> None:
    """Back to zero and the lease released, or given back to whom it was taken from; and said so."""
    model = op.request.model

    async def look() -> Lease | None:
        lease = await lease_on(svc, model)
        return lease if lease and lease.op == op.id else None

    lease = await svc.store.once(op.id, "lease to undo", look, MAYBE_LEASE)
    undone = "Nothing was started."
    if lease:
        machine = await machine_of(svc, op.id, model)
        await step(svc, op.id, "bringing it down again", lambda: to_zero(svc, model, lease), type(None), undoing=True)
        undone = f"{code(model)} is back at zero."
        if machine or lease.ready:  # else there was nothing yet that could bill
            undone += "\n" + await close_session(svc, lease, op_id=op.id, node=machine)
        if lease.displaced:
            undone += "\n" + await restore(svc, op, lease, lease.displaced)
        else:
            await svc.leases.release(lease)
            undone = undone.replace("back at zero.", "back at zero and the GPU is free.", 1)
        await hand_over_soon(svc)
    if op.cancelled_by and not op.failure:
        await finish(svc, op.id, Status.CANCELLED, f"Cancelled by <@{op.cancelled_by}>. {undone}")
    else:
        await finish(svc, op.id, Status.FAILED, f"{op.failure} {undone}")
