"""Bringing a model up on the GPU."""

from datetime import datetime, timedelta

from bot.clients import boot
from bot.domain import Kind, Lease, Node, Operation, Phase, Plan, Status, cost
from bot.durations import show_duration
from bot.errors import BotError
from bot.lease import GpuBusy
from bot.operations.down import to_zero
from bot.operations.endpoints import known_endpoint
from bot.operations.life import (
    CancelAsked,
    NotAllowed,
    PlanMoved,
    attended,
    await_approval,
    chronicle,
    enter,
    finish,
    insist,
    step,
)
from bot.operations.receipt import close_session
from bot.operations.reconcile import rebuild, renew
from bot.operations.smoke import smoke
from bot.policy import can_be_approved, may_request
from bot.services import Services
from bot.views import clock, code, escape, money


class SmokeFailed(BotError):
    """The model runs but does not answer as it should."""


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
    plan = await _plan(svc, op, hold)
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
    await await_approval(svc, op.id, plan)


async def _plan(svc: Services, op: Operation, hold: timedelta) -> Plan:
    model = op.request.model
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
    await refuse_if_taken(svc, model)
    sync = "in sync" if app.sync == "Synced" and workload else f"{app.sync}: will be synced at this commit"
    rows = [
        ("Serves", f"{endpoint.hf_id} as {endpoint.served_name}"),
        ("Commit", commit[:10]),
        ("Application", f"{endpoint.application}, {sync}"),
        ("Lease", f"{show_duration(hold)} from when it is ready"),
        (
            "Estimated cost",
            f"{money(_estimate(svc, hold))} ({money(svc.config.gpu.price_per_hour)}/h, boot and drain included)",
        ),
    ]
    return Plan(
        commit=commit,
        tree=await svc.repository.subtree_id(commit, f"{svc.config.platform.serving_dir}/{model}"),
        rows=tuple(rows),
        applications=(endpoint.application,),
        estimate_usd=_estimate(svc, hold),
    )


def _estimate(svc: Services, hold: timedelta) -> float:
    """The lease, a ten-minute cold start (platform.md) and the node's drain."""
    return cost(hold + timedelta(minutes=10) + svc.config.gpu.drain, svc.config.gpu.price_per_hour)


async def refuse_if_taken(svc: Services, model: str) -> None:
    """Refuse when the GPU is in use, by a lease or by anything else in the cluster."""
    users = await svc.cluster.gpu_users()
    strangers = await rebuild(svc, users)
    others = [lease for lease in await svc.leases.held() if lease.model != model]
    if len(others) >= svc.config.gpu.slots:
        raise GpuBusy(others[0])
    home = svc.config.platform.namespace
    strangers = tuple(user for user in strangers if (user.namespace, user.name) != (home, model))
    if len(strangers) + len(others) >= svc.config.gpu.slots:
        raise NotAllowed(
            f"The GPU is used by {code(str(strangers[0]))}, which nobody holds a lease for (was it started with kubectl?)."
            " Bring it down first, or adopt it."
        )


async def bring_up(svc: Services, op: Operation) -> None:
    """Carry an approved request to a served model; safe to run again from the top."""
    if op.failure or op.cancelled_by:
        return await _undo_up(svc, op)
    now, model, plan = svc.clock(), op.request.model, op.plan
    if plan is None:
        raise BotError("This request has no plan; ask again.")
    if op.status is Status.APPROVED:
        try:
            await refuse_if_moved(svc, op, plan)
        except PlanMoved as moved:
            fresh = await _plan(svc, op, op.request.hold or svc.config.lease.default)
            await await_approval(svc, op.id, fresh, note=f"⚠️ {moved.message}")
            return None
        op = await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now, outcome=""), event="started")
    try:
        await _light(svc, op, plan, model)
    except CancelAsked:
        await _undo_up(svc, await svc.store.load(op.id))
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
    return await svc.leases.claim(wanted, floor=await svc.cluster.highest_fence())


async def _light(svc: Services, op: Operation, plan: Plan, model: str) -> None:
    lease = await _claim(svc, op, plan, op.request.hold or svc.config.lease.default)
    application = plan.applications[0]

    async def sync() -> None:
        found = await svc.argocd.get(application)
        if found is None or found.sync != "Synced" or await svc.cluster.workload(model) is None:
            await svc.argocd.sync(
                application, plan.commit, actor=op.request.actor, timeout=svc.config.argocd.sync_limit.total_seconds()
            )

    async def scale() -> None:
        await refuse_if_taken(svc, model)
        await svc.cluster.scale(model, 1, lease=lease.mark, fence=lease.fence)
        # Two that both found the GPU free, because Redis forgot one of them in between, see each other now.
        await refuse_if_taken(svc, model)

    async def booted(told: tuple[boot.Phase, ...]) -> None:
        ends = [*(phase.since for phase in told[1:]), None]
        await chronicle(
            svc,
            op.id,
            [
                Phase(name=phase.name, began=phase.since, ended=end, detail=phase.detail)
                for phase, end in zip(told, ends, strict=True)
                if phase.name != "ready"
            ],
        )

    async def wait_ready() -> datetime:
        deadline = (await began() + svc.config.gpu.boot_limit) - svc.clock()
        await svc.cluster.wait_ready(model, timeout=max(1.0, deadline.total_seconds()), progress=booted)
        return svc.clock()

    async def began() -> datetime:
        async def at() -> datetime:
            return svc.clock()

        return await svc.store.once(op.id, "boot began", at, datetime)

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
            raise
        left = (
            f"{code(model)} is left up, as `keep` was said; <@{lease.holder}> holds the GPU{ends}. `/gpu down` ends it."
        )
        await finish(svc, op.id, Status.FAILED, f"{failed.message} {left}")
        return
    await finish(
        svc,
        op.id,
        Status.SUCCEEDED,
        f"{code(model)} is up and answers; all smoke tests passed. <@{lease.holder}> holds the GPU{ends}."
        " `/gpu down` ends it.",
    )


async def run_smoke(svc: Services, op_id: str, model: str, commit: str) -> Operation:
    """Test a running model, keep the evidence on the operation, and raise SmokeFailed if any test failed."""
    endpoint = await known_endpoint(svc, commit, model)
    workload = await svc.cluster.workload(model)
    if workload is None:
        raise BotError(f"The Deployment of {code(model)} has disappeared.")
    results = await attended(svc, op_id, smoke(svc, workload, endpoint.alias))
    op = await svc.store.update(op_id, lambda op: op.model_copy(update={"checks": results}), event="smoke tested")
    failed = [check for check in results if not check.passed]
    if failed:
        more = f" ({len(failed)} of {len(results)} failed)" if len(failed) > 1 else ""
        raise SmokeFailed(f"Smoke test failed: {escape(failed[0].name)} — {escape(failed[0].evidence)}{more}.")
    return op


async def refuse_if_moved(svc: Services, op: Operation, plan: Plan) -> None:
    """What runs is what was approved: the endpoint's files on main must still be those of the plan."""
    head = await svc.repository.head()
    tree = await svc.repository.subtree_id(head, f"{svc.config.platform.serving_dir}/{op.request.model}")
    if tree != plan.tree:
        raise PlanMoved(
            f"The files of `{op.request.model}` changed on the main branch after the approval ({plan.commit[:10]} →"
            f" {head[:10]}), so it is void. Please approve the new plan."
        )


async def _undo_up(svc: Services, op: Operation) -> None:
    """Back to zero, lease released, and said so."""
    lease = await svc.leases.of(op.request.model)
    undone = "Nothing was started."
    if lease and lease.op == op.id:

        async def node() -> Node | None:
            return await svc.cluster.node_of(op.request.model)

        machine = await svc.store.once(op.id, "node", node, Node | None)  # type: ignore[arg-type]
        await step(
            svc,
            op.id,
            "bringing it down again",
            lambda: to_zero(svc, op.request.model, lease),
            type(None),
            undoing=True,
        )
        undone = f"{code(op.request.model)} is back at zero and the GPU is free."
        if machine or lease.ready:  # else there was nothing yet that could bill
            undone += "\n" + await close_session(svc, lease, op_id=op.id, node=machine)
        await svc.leases.release(lease)
    if op.cancelled_by and not op.failure:
        await finish(svc, op.id, Status.CANCELLED, f"Cancelled by <@{op.cancelled_by}>. {undone}")
    else:
        await finish(svc, op.id, Status.FAILED, f"{op.failure} {undone}")
