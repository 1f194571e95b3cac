"""Bringing a model down: to zero, until its pod is gone, the lease released, a receipt."""

from datetime import datetime

from bot.clients.workload import Workload
from bot.domain import MAYBE_LEASE, Kind, Lease, Operation, Request, Status
from bot.operations.endpoints import known_endpoint
from bot.operations.life import NotAllowed, PlanMoved, finish, hand_over_soon, step
from bot.operations.receipt import close_session, machine_of
from bot.operations.sampling import sample_last
from bot.services import Services
from bot.views import code, person

GONE_WITHIN = 300.0
"""Seconds that a pod may take to end; vLLM's grace period is 30."""


def down_request(model: str, actor: str, channel: str, at: datetime, reason: str) -> Request:
    return Request(kind=Kind.GPU_DOWN, model=model, actor=actor, channel=channel, at=at, reason=reason)


async def lease_on(svc: Services, model: str) -> Lease | None:
    """The lease of a model, also when Redis has forgotten it and the cluster has not."""
    lease = await svc.leases.of(model)
    if lease is None and (workload := await svc.cluster.workload(model)) and workload.replicas:
        lease = Lease.of_mark(workload.lease, model)
    return lease


async def cancel_boot(svc: Services, up: Operation, by: str) -> bool:
    """Have a bring-up that is under way undone; no when it has ended before. Safe to repeat."""
    now = svc.clock()

    def cancelled(up: Operation) -> Operation:
        return up if up.status.final else up.model_copy(update={"cancelled_by": by or "stoker", "updated": now})

    up = await svc.store.update(up.id, cancelled, event="cancelled", who=by)
    return up.cancelled_by == (by or "stoker")


async def request_down(svc: Services, op: Operation) -> None:
    """Begin a bring-down: no approval, since turning cost off must always be possible."""
    model = op.request.model
    for going in await svc.store.open(Kind.GPU_DOWN, model):
        if going.status is Status.RUNNING:
            raise NotAllowed(
                f"{code(model)} goes down already, as {person(going.request.actor)} asked: see its message."
            )
    lease = await lease_on(svc, model)
    booting = [o for o in await svc.store.open(Kind.GPU_UP, model) if o.status in (Status.APPROVED, Status.RUNNING)]
    if booting and await cancel_boot(svc, booting[0], op.request.actor):
        raise NotAllowed(f"{code(model)} is still booting; its bring-up is being cancelled: see its message.")
    pushing = next((held for held in await svc.leases.held() if held.displaced and held.displaced.model == model), None)
    if pushing and lease is None:
        raise NotAllowed(
            f"{code(model)} is being replaced by {code(pushing.model)}, as <@{pushing.holder}> asked, and goes down for it."
            f" `/gpu down {pushing.model}` cancels that; then {code(model)} comes back."
        )
    workload = await svc.cluster.workload(model)
    if workload is None and lease is None:
        await known_endpoint(svc, await svc.repository.head(), model)
        raise NotAllowed(f"{code(model)} has no Deployment in the cluster, so it is down.")
    if workload and workload.replicas == 0 and lease is None:
        raise NotAllowed(f"{code(model)} is already down.")
    if workload and not workload.gpus:
        raise NotAllowed(f"{code(model)} runs on CPU and costs no GPU time; it stays up.")
    now = svc.clock()
    await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now), event="started")


async def bring_down(svc: Services, op: Operation) -> None:
    """Scale to zero, wait until the pod is gone, release the lease, post the receipt. Safe to repeat."""
    model = op.request.model
    if op.failure:
        await finish(svc, op.id, Status.FAILED, f"{op.failure} Try `/gpu down {model}` again.")
        return
    if op.status is Status.REQUESTED:
        await request_down(svc, op)
        op = await svc.store.load(op.id)
    if op.status is not Status.RUNNING:
        return

    async def look() -> Lease | None:
        lease, planned = await lease_on(svc, model), op.plan.lease if op.plan else None
        if planned and (lease is None or lease.fence != planned.fence):
            raise PlanMoved(f"The session of {code(model)} that this was about is over, so nothing was done.")
        return lease

    lease = await svc.store.once(op.id, "lease", look, MAYBE_LEASE)
    machine = await machine_of(svc, op.id, model)

    async def scale() -> None:
        if lease:
            await sample_last(svc, lease)
        await scale_to_zero(svc, model, lease)

    async def gone() -> None:
        await svc.cluster.wait_gone(model, timeout=GONE_WITHIN)

    await step(svc, op.id, "scaling to zero", scale, type(None), undoing=True)
    await step(svc, op.id, "waiting until the pod is gone", gone, type(None), undoing=True)

    receipt = "Nobody held a lease, so there is no receipt."
    if lease:
        receipt = await close_session(svc, lease, op_id=op.id, node=machine)
        await svc.leases.release(lease)
    await hand_over_soon(svc)
    await finish(svc, op.id, Status.SUCCEEDED, f"{code(model)} is down and the GPU is free.\n{receipt}")


async def scale_to_zero(svc: Services, model: str, lease: Lease | None) -> None:
    """Under the lease's fence, so that a late worker does not end somebody else's session; without a lease, in any case."""
    if await svc.cluster.workload(model) is not None:
        await svc.cluster.scale(model, 0, lease=None, fence=lease.fence if lease else None)


async def to_zero(svc: Services, model: str, lease: Lease | None) -> None:
    """Down and gone."""
    await scale_to_zero(svc, model, lease)
    await svc.cluster.wait_gone(model, timeout=GONE_WITHIN)


async def bring_down_without_redis(svc: Services, model: str) -> str:
    """Turning cost off works with the cluster alone: no record, no lease, no card."""
    workload: Workload | None = await svc.cluster.workload(model)
    if workload is None or not workload.gpus:
        return f"There is no GPU model {code(model)} in the cluster."
    await to_zero(svc, model, None)
    if svc.config.bench.image:
        await svc.jobs.delete_all(model)  # which keeps the node, and whose operation cannot see to it now
    return (
        f"{code(model)} is down. Redis does not answer, so there is no receipt; the lease is closed when Redis is back."
    )
