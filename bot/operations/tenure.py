"""A lease before its end: prolonging it, and breaking it."""

from datetime import timedelta

from bot.domain import Lease, Operation, Plan, Status, cost
from bot.durations import show_duration
from bot.errors import BotError
from bot.operations.down import bring_down, cancel_boot
from bot.operations.life import NotAllowed, PlanMoved, await_approval, finish, insist
from bot.operations.reconcile import renew
from bot.policy import can_be_approved, may_keep, may_release
from bot.services import Services
from bot.store import Forgotten
from bot.views import clock, code, inline, lines, money


async def plan_extend(svc: Services, op: Operation) -> None:
    """Within the limit a lease is prolonged at once; over it, an approval is asked for."""
    lease, people = await _held(svc, op), await svc.people()
    insist(may_keep(lease.holder, op.request.actor, people))
    if lease.ready is None or lease.ends is None:
        raise NotAllowed(f"{code(lease.model)} is still booting: its time starts when it answers. Extend it then.")
    more = op.request.hold or timedelta()
    total, longest = lease.ends + more - lease.ready, svc.config.lease.longest
    now = svc.clock()
    plan = Plan(
        commit=lease.commit,
        lease=lease,
        rows=(
            ("Ends", f"{lease.ends + more:%H:%M} UTC instead of {lease.ends:%H:%M}"),
            ("In all", f"{show_duration(total)}; the limit is {show_duration(longest)}"),
            ("Estimated cost", f"{money(cost(more, svc.config.gpu.price()))} more"),
        ),
        estimate_usd=cost(more, svc.config.gpu.price()),
    )
    if total > longest:
        insist(can_be_approved(people))
        await await_approval(svc, op.id, plan)
        return
    await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now, plan=plan), event="started")
    await extend(svc, await svc.store.load(op.id))


async def extend(svc: Services, op: Operation) -> None:
    """Move the end of the lease to what the plan says, and so its approval. Safe to repeat: it is a moment, not a duration."""
    if op.failure:
        await finish(svc, op.id, Status.FAILED, f"Failed: {op.failure} The lease ends as before.")
        return
    planned, lease = await _as_planned(svc, op)
    now, end = svc.clock(), (planned.ends or svc.clock()) + (op.request.hold or timedelta())
    if op.status is Status.APPROVED:
        op = await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now, outcome=""), event="started")
    held = await renew(svc, lease, lambda held: held.model_copy(update={"ends": max(held.ends or end, end)}))
    if held is None:
        raise PlanMoved(f"The session of {code(lease.model)} ended meanwhile.")
    until = f" until {clock(held.ends)}" if held.ends else ""
    await finish(svc, op.id, Status.SUCCEEDED, f"{code(lease.model)} is held by <@{lease.holder}>{until}.")


async def plan_release(svc: Services, op: Operation) -> None:
    """An admin wants to break somebody's lease: why is public, and another approver agrees."""
    people = await svc.people()
    insist(may_release(op.request.actor, op.request.reason, people))
    insist(can_be_approved(people))
    lease = await _held(svc, op)
    rows = (("Then", f"{lease.model} goes to zero, running requests end, the GPU is free"),)
    await await_approval(svc, op.id, Plan(commit=lease.commit, lease=lease, rows=rows))


async def release(svc: Services, op: Operation) -> None:
    """Break the lease: a bring-up that is under way is cancelled, anything else is brought down with a receipt."""
    now, by = svc.clock(), op.request.actor
    if op.failure:
        await finish(svc, op.id, Status.FAILED, f"{op.failure} See `/gpu status`.")
        return
    if op.status is Status.APPROVED:
        _, lease = await _as_planned(svc, op)
        text = f"⛔ <@{by}> breaks your lease of {code(lease.model)} because {inline(op.request.reason, 600)}."
        await svc.slack.nudge(f"broken:{op.id}", lease.holder, lines(text))
        op = await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now, outcome=""), event="started")
    if op.plan and op.plan.lease and await _boot_cancelled(svc, op.plan.lease.op, by):
        await finish(svc, op.id, Status.SUCCEEDED, "It was still booting; its bring-up is being cancelled.")
        return
    await bring_down(svc, op)


async def _boot_cancelled(svc: Services, op_id: str, by: str) -> bool:
    """Whether the operation that claimed a lease is still bringing its model up, and so is to be undone."""
    try:
        return await cancel_boot(svc, await svc.store.load(op_id), by)
    except Forgotten:
        return False


async def _held(svc: Services, op: Operation) -> Lease:
    lease = await svc.leases.of(op.request.model)
    if lease is None:
        raise NotAllowed(f"Nobody holds a lease on {code(op.request.model)}; see `/gpu status`.")
    return lease


async def _as_planned(svc: Services, op: Operation) -> tuple[Lease, Lease]:
    """The lease that the plan is about, as it was and as it is now; PlanMoved when the GPU has changed hands since."""
    planned = op.plan.lease if op.plan else None
    if planned is None:
        raise BotError("This request has no plan; ask again.")
    lease = await svc.leases.of(planned.model)
    if lease is None or lease.fence != planned.fence:
        raise PlanMoved(f"The session of {code(planned.model)} that this was about is over, so nothing was done.")
    return planned, lease
