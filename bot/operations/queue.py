"""Waiting for the GPU: first come, first served; the free GPU is offered to the next, for a few minutes each.

The order is Redis's (`bot.lease`), so that no claim gets past it; this module words it, makes the offers and ends them.
"""

import heapq
from datetime import datetime, timedelta

import structlog

from bot.clients.workload import GpuUser
from bot.domain import Lease, Operation, Plan, Status, Waiting
from bot.lease import GpuBusy
from bot.operations import questions
from bot.operations.life import NotAllowed, enqueue, hand_over_soon, insist, present, show, tell_end
from bot.operations.reconcile import rebuild
from bot.policy import approval_stands, may_cancel, may_keep
from bot.services import Services
from bot.slack import SlackRefused
from bot.store import Forgotten
from bot.views import clock, code, lines, offered, please_release
from bot.views.gpu import in_line

log = structlog.get_logger(__name__)

BOOT = timedelta(minutes=10)
"""A cold start, as platform.md has it."""


async def strangers(svc: Services, model: str) -> tuple[GpuUser, ...]:
    """What uses a GPU without a lease, this model aside."""
    home = svc.config.platform.namespace
    users = await rebuild(svc, await svc.cluster.gpu_users())
    return tuple(user for user in users if (user.namespace, user.name) != (home, model))


async def refuse_if_taken(svc: Services, model: str) -> None:
    """GpuBusy when the slots are held by leases; NotAllowed when something without a lease takes the last one."""
    unleased: tuple[GpuUser, ...] = ()
    others = await _others(svc, model)
    if len(others) < svc.config.gpu.slots:  # else no look at the cluster's pods is needed, for each who waits
        unleased = await strangers(svc, model)
        others = await _others(svc, model)
    if len(others) >= svc.config.gpu.slots:
        raise GpuBusy(others[0])
    if len(unleased) + len(others) >= svc.config.gpu.slots:
        raise NotAllowed(
            f"The GPU is used by {code(str(unleased[0]))}, which nobody holds a lease for (was it started with kubectl?)."
            " Bring it down first, or adopt it."
        )


async def _others(svc: Services, model: str) -> list[Lease]:
    return [lease for lease in await svc.leases.held() if lease.model != model]


async def obstacle(svc: Services, op: Operation) -> Waiting | None:
    """What stands between a request and the GPU: a lease, or those who wait already."""
    try:
        await refuse_if_taken(svc, op.request.model)
    except GpuBusy:
        pass
    else:
        queue = await svc.leases.queue()
        ahead = queue.index(op.id) if op.id in queue else len(queue)
        if len(await svc.leases.held()) + ahead < svc.config.gpu.slots:
            return None
    return await _outlook(svc, op)


async def _outlook(svc: Services, op: Operation) -> Waiting:
    """Who is in the way, how many are ahead, and when the turn comes at the latest."""
    leases, queue = await svc.leases.held(), await svc.leases.queue()
    ahead = queue.index(op.id) if op.id in queue else None
    before = [await _held_for(svc, waiting) for waiting in queue[: len(queue) if ahead is None else ahead]]
    first = min(leases, key=lambda lease: lease.ends or lease.claimed + BOOT + lease.hold, default=None)
    offer = op.waiting.offer if op.waiting else None
    waiting = Waiting(ahead=ahead, free_at=_turn(svc, leases, before), offer=offer)
    if first is None:
        return waiting
    return waiting.model_copy(
        update={
            "model": first.model,
            "holder": first.holder,
            "fence": first.fence,
            "since": first.claimed,
            "until": first.ends,
            "reason": first.reason,
        }
    )


def _turn(svc: Services, leases: tuple[Lease, ...], before: list[timedelta]) -> datetime:
    """Each slot is free when its lease ends; who is ahead takes the one that is free first, for as long as they asked."""
    now = svc.clock()
    ends = [max(now, lease.ends or lease.claimed + BOOT + lease.hold) for lease in leases]
    free = [*ends, *[now] * (svc.config.gpu.slots - len(ends))]
    heapq.heapify(free)
    for hold in before:
        heapq.heapreplace(free, free[0] + BOOT + hold)
    return free[0].replace(second=0, microsecond=0)


async def _held_for(svc: Services, op_id: str) -> timedelta:
    try:
        return (await svc.store.load(op_id)).request.hold or svc.config.lease.default
    except Forgotten:
        return timedelta()


async def wait(svc: Services, op: Operation, plan: Plan, *, join: bool = False, note: str = "") -> None:
    """Put a planned request to wait: its card says for whom, and what can be done about it. Safe to repeat."""
    if join:
        await svc.leases.join(op.id)
    waiting, now = await _outlook(svc, op), svc.clock()
    expires = now + svc.config.approvals.expire_after

    def put(op: Operation) -> Operation:
        if op.status is Status.WAITING:
            return op
        return op.moved(Status.WAITING, now, plan=plan, phases=(), waiting=waiting, expires=expires, outcome=note)

    await present(svc, await svc.store.update(op.id, put, event="waiting for the GPU"))


async def join(svc: Services, op_id: str, actor: str) -> None:
    """Take a place in the queue."""
    op = await _waiting(svc, op_id, actor)
    await svc.leases.join(op.id)
    await _refresh(svc, op)


async def leave(svc: Services, op_id: str, actor: str) -> None:
    """Give up the place, and with it the request."""
    op = await _waiting(svc, op_id, actor)
    now = svc.clock()
    await svc.leases.leave(op.id)
    op = await svc.store.update(
        op.id,
        lambda op: op.moved(Status.CANCELLED, now, outcome=f"<@{actor}> left the queue. Nothing was started."),
        event="left the queue",
        who=actor,
    )
    await _offer_is_over(svc, op, "You left the queue.")
    await tell_end(svc, op)
    await hand_over_soon(svc)


async def take(svc: Services, op_id: str, actor: str) -> None:
    """Accept the offer: approved, it starts; else its approval is asked for, and the place is kept for another while."""
    op, now = await _waiting(svc, op_id, actor), svc.clock()
    if op.waiting is None or op.waiting.offer is None or now >= op.waiting.offer:
        raise NotAllowed("The GPU is not offered to this request (any more); see its card.")
    offer = now + svc.config.lease.offer

    def taken(op: Operation) -> Operation:
        if approval_stands(op, svc.config, now):
            return op.moved(Status.APPROVED, now, outcome="")
        kept = op.waiting.model_copy(update={"offer": offer}) if op.waiting else None
        expires = now + svc.config.approvals.expire_after
        return op.moved(Status.AWAITING, now, waiting=kept, votes=(), expires=expires, outcome="")

    before = op
    op = await svc.store.update(op.id, taken, event="took the offer", who=actor)
    await _offer_is_over(
        svc, before, "Taken: it starts." if op.status is Status.APPROVED else "Taken: now it is approved."
    )
    await enqueue(svc, op)
    await show(svc, op, force=True)


async def replace_instead(svc: Services, op_id: str, actor: str) -> Operation:
    """A waiting request that is to push the holder aside, given up as a place in the queue; its plan is the caller's."""
    op = await _waiting(svc, op_id, actor)
    if op.waiting is None or not op.waiting.fence:
        raise NotAllowed("Nobody holds the GPU, so there is nothing to replace.")
    return op


async def _waiting(svc: Services, op_id: str, actor: str) -> Operation:
    op = await svc.store.load(op_id)
    insist(may_cancel(op, actor, await svc.people()))
    if op.status is not Status.WAITING:
        op.moved(Status.WAITING, svc.clock())  # says what it is, and who decided
        raise NotAllowed(f"This request is {op.status}; it no longer waits for the GPU.")
    return op


async def ask_holder(svc: Services, op_id: str, actor: str) -> str:
    """Ask, once per request and lease, in the channel and personally, whether the GPU could be free earlier."""
    op = await svc.store.load(op_id)
    if op.status is not Status.WAITING or op.waiting is None or not op.waiting.fence:
        raise NotAllowed("This request does not wait for anybody's GPU any more.")
    lease = await svc.leases.of(op.waiting.model)
    if lease is None or lease.fence != op.waiting.fence:
        raise NotAllowed(f"{code(op.waiting.model)} has changed hands meanwhile; the card is brought up to date.")
    view = please_release(op, lease, actor)
    await questions.ask(svc, lease, f"ask:{op.id}:{lease.fence}", op.request.channel, view)
    try:
        await questions.ask(svc, lease, f"ask:{op.id}:{lease.fence}:dm", lease.holder, view)
    except SlackRefused:
        return f"<@{lease.holder}> is asked here; no direct message reaches them."
    return f"<@{lease.holder}> is asked, here and personally."


async def not_now(svc: Services, op_id: str, actor: str) -> str:
    """The holder's answer to `ask_holder`: no. Returns what the question becomes."""
    op = await svc.store.load(op_id)
    lease = await svc.leases.of(op.waiting.model) if op.waiting else None
    if lease is None or op.waiting is None or lease.fence != op.waiting.fence:
        raise NotAllowed("That session is over; there is nothing to keep.")
    insist(may_keep(lease.holder, actor, await svc.people()))
    until = f" until {clock(lease.ends)}" if lease.ends else ""
    said = f"🙅 <@{actor}> still needs {code(lease.model)}{until}; {code(op.request.model)} waits."
    await svc.slack.nudge(f"ask:{op.id}:{lease.fence}:no", op.request.actor, lines(said))
    await questions.settle(svc, lease.op, said, keys=(f"ask:{op.id}:{lease.fence}", f"ask:{op.id}:{lease.fence}:dm"))
    return said


async def hand_over(svc: Services) -> None:
    """End the offers that nobody took, offer what is free to the next, and bring the cards up to date. Safe to repeat."""
    queued = [op for op in [await _queued(svc, op_id) for op_id in await svc.leases.queue()] if op]
    free = svc.config.gpu.slots - len(await svc.leases.held())
    if queued and free > 0:
        free -= len(await strangers(svc, ""))
    for place, op in enumerate(queued):
        if op.status is Status.WAITING and place < free:
            await _offer(svc, op)
    for op in await svc.store.open():
        if op.status is Status.WAITING:
            await _refresh(svc, op)


async def _queued(svc: Services, op_id: str) -> Operation | None:
    """The operation, if its place is still kept; who is done, unknown or did not answer in time leaves the queue."""
    now = svc.clock()
    try:
        op = await svc.store.load(op_id)
    except Forgotten:
        await svc.leases.leave(op_id)
        return None
    offer = op.waiting.offer if op.waiting else None
    match op.status:
        case Status.APPROVED | Status.RUNNING:
            return op  # about to claim
        case Status.WAITING if offer is None or now < offer:
            return op
        case Status.AWAITING if offer and now < offer:
            return op

    def passed(op: Operation) -> Operation:
        if op.status is Status.WAITING:
            outcome = f"<@{op.request.actor}> did not take the GPU in time, so the offer is over. Ask again."
            return op.moved(Status.EXPIRED, now, outcome=outcome)
        return op if op.status.final else op.model_copy(update={"waiting": None, "updated": now})

    after = await svc.store.update(op.id, passed, event="offer passed on")
    await svc.leases.leave(op_id)
    match op.status:
        case Status.WAITING:
            await _offer_is_over(svc, op, "Nobody answered in time, so the offer is over.")
        case Status.AWAITING:
            text = "Nobody approved it in time, so the offer is over. Once it is approved, it waits for the next."
            await svc.slack.nudge(
                f"{_offer_key(op)}:passed", op.request.actor, lines(f"{code(op.request.model)}: {text}")
            )
        case _:
            await _offer_is_over(svc, op, f"This request is {op.status}, so there is nothing to take any more.")
    if after != op:
        await (tell_end(svc, after) if after.status.final else show(svc, after, force=True))
    return None


async def _offer(svc: Services, op: Operation) -> None:
    """Tell the next that it is their turn; the first who is free to answer starts it."""
    now = svc.clock()
    until = now + svc.config.lease.offer

    def offer(op: Operation) -> Operation:
        if op.status is not Status.WAITING or op.waiting is None or op.waiting.offer:
            return op
        return op.model_copy(update={"waiting": op.waiting.model_copy(update={"offer": until}), "updated": now})

    op = await svc.store.update(op.id, offer, event="offered")
    if op.waiting and op.waiting.offer and op.status is Status.WAITING:
        view = offered(op, approval_stands(op, svc.config, now))
        await svc.slack.nudge(_offer_key(op), op.request.actor, view)  # the card has the button too
        await show(svc, op, force=True)
        await svc.docket.add("hand_over_at", when=op.waiting.offer, key=f"{_offer_key(op)}:end")()


def _offer_key(op: Operation) -> str:
    offer = op.waiting.offer if op.waiting else None
    return f"offer:{op.id}:{offer.isoformat() if offer else ''}"


async def _offer_is_over(svc: Services, op: Operation, text: str) -> None:
    """Take the buttons off the personal offer, if there was one."""
    await svc.slack.revise(_offer_key(op), lines(f"{code(op.request.model)}: {text}"))


async def _refresh(svc: Services, op: Operation) -> None:
    """Bring a waiting request's card up to date; one that need not wait any more goes on by itself."""
    now = svc.clock()
    try:
        waiting = await obstacle(svc, op)
    except NotAllowed:
        return  # something without a lease is in the way: the alert tells of it
    queued = op.id in await svc.leases.queue()

    def refreshed(op: Operation) -> Operation:
        if op.status is not Status.WAITING:
            return op
        if waiting is None and not queued:
            if approval_stands(op, svc.config, now):
                return op.moved(Status.APPROVED, now, waiting=None, outcome="")
            expires = now + svc.config.approvals.expire_after
            return op.moved(Status.AWAITING, now, waiting=None, expires=expires, outcome="The GPU is free now.")
        if waiting is None or waiting == op.waiting:
            return op
        until = _until(op, waiting, now + svc.config.approvals.expire_after)
        return op.model_copy(update={"waiting": waiting, "expires": until, "updated": now})

    after = await svc.store.update(op.id, refreshed)
    if after.status is not op.status:
        await enqueue(svc, after)
    if after != op:
        await present(svc, after)


def _until(op: Operation, waiting: Waiting, at_most: datetime) -> datetime | None:
    """Who queues waits as long as it takes; who has not decided what to do is asked to, for as long as an approval is."""
    return None if waiting.ahead is not None else op.expires or at_most


async def describe(svc: Services) -> str:
    """`/gpu queue`: who is next, and when."""
    said: list[str] = []
    for op_id in await svc.leases.queue():
        try:
            op = await svc.store.load(op_id)
        except Forgotten:
            continue
        approved = ", approved" if approval_stands(op, svc.config, svc.clock()) else ""
        said.append(f"{len(said) + 1}. {in_line(op)}{approved}")
    return "\n".join(said) or "Nobody is waiting for the GPU."
