"""The queue for the GPU: first come, first served. A free GPU is offered to the next request for a few minutes.

Redis stores the order (`bot.state.leases`), so that no claim bypasses it. This module describes the queue, makes
offers and ends them.
"""

import heapq
from datetime import datetime, timedelta

import structlog
from docket import Docket

from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.leases import Lease, Waiting
from bot.domain.operations import BringUpOperation, Status
from bot.domain.outcomes import LeftQueue, OfferExpired
from bot.domain.plans import BringUpPlan
from bot.domain.sessions import COLD_START
from bot.engine.lifecycle import Lifecycle, NotAllowed, require
from bot.engine.task_refs import HAND_OVER_AT
from bot.gpu.availability import GpuAvailability
from bot.gpu.holder_prompts import HolderPrompts
from bot.policy import approval_stands, may_cancel, may_keep
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.state.audit import AuditLog
from bot.state.leases import GpuBusy, Leases
from bot.state.operations import OperationNotFound, Operations
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import clock, code, gpu_offer, lines, release_question
from bot.views.gpu import queue_entry

log = structlog.get_logger(__name__)


@component
class Queue:
    """The queue for the GPU."""

    docket: Docket
    operations: Operations
    audit: AuditLog
    leases: Leases
    presentation: Presentation
    availability: GpuAvailability
    roles: RoleMembers
    holder_prompts: HolderPrompts
    lifecycle: Lifecycle
    config: Config
    clock: Clock

    async def obstacle(self, op: BringUpOperation) -> Waiting | None:
        """Return the reason why a request cannot have the GPU yet: a lease, or requests ahead of it."""
        try:
            await self.availability.refuse_if_taken(op.request.model)
        except GpuBusy:
            pass
        else:
            queue = await self.leases.queue()
            ahead = queue.index(op.id) if op.id in queue else len(queue)
            if await self.availability.is_left_after(ahead):
                return None
        return await self._outlook(op)

    async def _outlook(self, op: BringUpOperation) -> Waiting:
        """Return the holder who blocks the request, the number of requests ahead, and the latest time at which its turn comes."""
        leases, queue = await self.leases.held(), await self.leases.queue()
        ahead = queue.index(op.id) if op.id in queue else None
        holds = [await self._requested_hold(op_id) for op_id in queue[: len(queue) if ahead is None else ahead]]
        first = min(leases, key=lambda lease: lease.ends or lease.claimed + COLD_START + lease.hold, default=None)
        offer = op.waiting.offer if op.waiting else None
        waiting = Waiting(ahead=ahead, free_at=self._estimate_turn(leases, holds), offer=offer)
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

    def _estimate_turn(self, leases: tuple[Lease, ...], holds: list[timedelta]) -> datetime:
        """Estimate the start of the next request after the requests ahead, which hold a slot for `holds`.

        Each slot is free when its lease ends; each request ahead takes the first free slot for its full time.
        """
        now = self.clock()
        ends = [max(now, lease.ends or lease.claimed + COLD_START + lease.hold) for lease in leases]
        free = [*ends, *[now] * (self.config.gpu.slots - len(ends))]
        heapq.heapify(free)
        for hold in holds:
            heapq.heapreplace(free, free[0] + COLD_START + hold)
        return free[0].replace(second=0, microsecond=0)

    async def _requested_hold(self, op_id: str) -> timedelta:
        try:
            hold = (await self.operations.load(op_id, BringUpOperation)).request.hold
        except OperationNotFound:
            return timedelta()
        return hold or self.config.lease.default

    async def wait(
        self, op: BringUpOperation, plan: BringUpPlan, *, join: bool = False, note: Mrkdwn = Mrkdwn()
    ) -> None:
        """Put a planned request in the waiting state; its card shows the holder and the buttons. Idempotent.

        With `join` it also joins the queue.
        """
        if join:
            await self.leases.join(op.id)
        waiting, now = await self._outlook(op), self.clock()
        expires = now + self.config.approvals.expire_after

        def waits(op: BringUpOperation) -> BringUpOperation:
            if op.status is Status.WAITING:
                return op
            return op.moved(Status.WAITING, now, plan=plan, phases=(), waiting=waiting, expires=expires, outcome=note)

        op = await self.operations.update(op.id, waits, event=AuditEvent.WAITING)
        await self.lifecycle.present(op)

    async def join(self, op_id: str, actor: str) -> None:
        """Join the queue."""
        op = await self._load_waiting(op_id, actor)
        await self.leases.join(op.id)
        await self.audit.note_decision(op, actor, AuditEvent.JOINED_QUEUE, "", self.clock())
        await self._refresh(op)

    async def leave(self, op_id: str, actor: str) -> None:
        """Leave the queue, and end the request."""
        op = await self._load_waiting(op_id, actor)
        now = self.clock()
        await self.leases.leave(op.id)
        op = await self.operations.update(
            op.id,
            lambda op: op.ended(LeftQueue(by=actor), now),
            event=AuditEvent.LEFT_QUEUE,
            actor=actor,
        )
        await self._close_offer(op, "You left the queue.")
        await self.lifecycle.show(op)
        await self.lifecycle.hand_over_soon()

    async def take(self, op_id: str, actor: str) -> None:
        """Accept the offer: start if approved, otherwise ask for approval and keep the place for another offer."""
        op, now = await self._load_waiting(op_id, actor), self.clock()
        if op.waiting is None or op.waiting.offer is None or now >= op.waiting.offer:
            raise NotAllowed("The offer has expired: the GPU is no longer offered to this request.")
        offer = now + self.config.lease.offer

        def accepted(op: BringUpOperation) -> BringUpOperation:
            if approval_stands(op, self.config, now):
                return op.moved(Status.APPROVED, now, outcome="")
            still_offered = op.waiting.model_copy(update={"offer": offer}) if op.waiting else None
            expires = now + self.config.approvals.expire_after
            return op.moved(Status.AWAITING, now, waiting=still_offered, votes=(), expires=expires, outcome="")

        before = op
        op = await self.operations.update(op.id, accepted, event=AuditEvent.OFFER_TAKEN, actor=actor)
        await self._close_offer(
            before, "Accepted: it starts." if op.status is Status.APPROVED else "Accepted: it now needs an approval."
        )
        await self.lifecycle.enqueue(op)
        await self.lifecycle.show(op)

    async def replace_instead(self, op_id: str, actor: str) -> BringUpOperation:
        """Return a waiting request that is to replace the holder; the caller makes its plan and takes it out of the queue."""
        op = await self._load_waiting(op_id, actor)
        if op.waiting is None or not op.waiting.fence:
            raise NotAllowed("Nobody holds the GPU, so there is nothing to replace.")
        return op

    async def _load_waiting(self, op_id: str, actor: str) -> BringUpOperation:
        """Return the waiting request. Raises NotAllowed if `actor` may not act on it or it no longer waits."""
        op = await self.operations.load(op_id, BringUpOperation)
        verdict = may_cancel(op, actor, await self.roles.people())
        if not verdict.allowed:
            await self.audit.note_refusal(op, actor, AuditEvent.QUEUE, str(verdict.reason), self.clock())
        require(verdict)
        if op.status is not Status.WAITING:
            op.moved(Status.WAITING, self.clock())  # raises AlreadyDecided with the decision
            raise NotAllowed(f"This request is {op.status}; it no longer waits for the GPU.")
        return op

    async def ask_holder(self, op_id: str, actor: str) -> Mrkdwn:
        """Ask the holder to release the GPU earlier, in the channel and by direct message. Idempotent per request and
        lease. Returns the answer to the click.
        """
        op = await self.operations.load(op_id, BringUpOperation)
        if op.status is not Status.WAITING or op.waiting is None or not op.waiting.fence:
            raise NotAllowed("This request no longer waits for a GPU.")
        lease = await self.leases.of(op.waiting.model)
        if lease is None or lease.fence != op.waiting.fence:
            raise NotAllowed(md("{model} has another holder now; the card is updated.", model=code(op.waiting.model)))
        if lease.holder == op.request.actor:
            raise NotAllowed(
                md(
                    "The requester already holds {model}: replace it, or bring it down with `/gpu down`.",
                    model=code(lease.model),
                )
            )
        view = release_question(op, lease, actor)
        await self.holder_prompts.ask(lease, f"ask:{op.id}:{lease.fence}", op.request.channel, view)
        await self.holder_prompts.ask(lease, f"ask:{op.id}:{lease.fence}:dm", lease.holder, view)
        return md("Stoker asked {holder}, here and by direct message.", holder=person(lease.holder))

    async def not_now(self, op_id: str, actor: str) -> Mrkdwn:
        """Record that the holder declined `ask_holder`. Returns the new text of the question."""
        op = await self.operations.load(op_id, BringUpOperation)
        lease = await self.leases.of(op.waiting.model) if op.waiting else None
        if lease is None or op.waiting is None or lease.fence != op.waiting.fence:
            raise NotAllowed("That session has ended, so there is nothing to keep.")
        require(may_keep(lease.holder, actor, await self.roles.people()))
        until = md(" until {ends}", ends=clock(lease.ends)) if lease.ends else ""
        answer = md(
            "🙅 {actor} still needs {model}{until}; {request_model} waits.",
            actor=person(actor),
            model=code(lease.model),
            until=until,
            request_model=code(op.request.model),
        )
        await self.presentation.post(f"ask:{op.id}:{lease.fence}:no", op.request.actor, lines(answer))
        await self.holder_prompts.settle(
            lease.op, answer, keys=(f"ask:{op.id}:{lease.fence}", f"ask:{op.id}:{lease.fence}:dm")
        )
        return answer

    async def hand_over(self) -> None:
        """End expired offers, offer free slots to the next requests, and update the cards. Idempotent."""
        queued = [op for op in [await self._keep_or_remove(op_id) for op_id in await self.leases.queue()] if op]
        free = await self.availability.free_slots() if queued else 0
        for place, op in enumerate(queued):
            if op.status is Status.WAITING and place < free:
                await self._offer(op)
        for op in await self.operations.open(BringUpOperation):
            if op.status is Status.WAITING:
                await self._refresh(op)

    async def _keep_or_remove(self, op_id: str) -> BringUpOperation | None:
        """Return the operation if it keeps its place. Otherwise remove it from the queue: it ended, it is unknown, or
        its offer expired.
        """
        now = self.clock()
        try:
            op = await self.operations.load(op_id, BringUpOperation)
        except OperationNotFound:
            await self.leases.leave(op_id)
            return None
        offer = op.waiting.offer if op.waiting else None
        match op.status:
            case Status.APPROVED | Status.RUNNING:
                return op  # about to claim
            case Status.WAITING if offer is None or now < offer:
                return op
            case Status.AWAITING if offer and now < offer:
                return op

        def without_offer(op: BringUpOperation) -> BringUpOperation:
            if op.status is Status.WAITING:
                return op.ended(OfferExpired(), now)
            return op if op.status.final else op.model_copy(update={"waiting": None, "updated": now})

        after = await self.operations.update(op.id, without_offer, event=AuditEvent.OFFER_PASSED_ON)
        await self.leases.leave(op_id)
        match op.status:
            case Status.WAITING:
                await self._close_offer(op, "Nobody answered in time, so the offer has expired.")
            case Status.AWAITING:
                text = "Nobody approved it in time, so the offer has expired. Once the request is approved, it waits for the next offer."
                await self.presentation.post(
                    f"{_offer_key(op)}:passed",
                    op.request.actor,
                    lines(md("{model}: {text}", model=code(op.request.model), text=text)),
                )
            case _:
                await self._close_offer(op, f"This request is {op.status}, so there is no offer to take.")
        if after != op:
            await self.lifecycle.show(after)
        return None

    async def _offer(self, op: BringUpOperation) -> None:
        """Offer a free slot to this request by direct message and on its card, until the offer expires."""
        now = self.clock()
        until = now + self.config.lease.offer

        def with_offer(op: BringUpOperation) -> BringUpOperation:
            if op.status is not Status.WAITING or op.waiting is None or op.waiting.offer:
                return op
            return op.model_copy(update={"waiting": op.waiting.model_copy(update={"offer": until}), "updated": now})

        op = await self.operations.update(op.id, with_offer, event=AuditEvent.OFFERED)
        if op.waiting and op.waiting.offer and op.status is Status.WAITING:
            view = gpu_offer(op, approval_stands(op, self.config, now))
            await self.presentation.post(_offer_key(op), op.request.actor, view)  # the card also has the button
            await self.lifecycle.show(op)
            await HAND_OVER_AT.add(self.docket, when=op.waiting.offer, key=f"{_offer_key(op)}:end")()

    async def _close_offer(self, op: BringUpOperation, text: str) -> None:
        """Replace the direct message that offered the GPU, if there was one, with a text without buttons."""
        await self.presentation.revise(
            _offer_key(op), lines(md("{model}: {text}", model=code(op.request.model), text=text))
        )

    async def _refresh(self, op: BringUpOperation) -> None:
        """Update the card of a waiting request, or continue the request if it no longer has to wait."""
        now = self.clock()
        try:
            waiting = await self.obstacle(op)
        except NotAllowed:
            return  # a workload without a lease uses the GPU; the reconciliation posts an alert about it
        queued = op.id in await self.leases.queue()

        def refreshed(op: BringUpOperation) -> BringUpOperation:
            if op.status is not Status.WAITING:
                return op
            if waiting is None and not queued:
                if approval_stands(op, self.config, now):
                    return op.moved(Status.APPROVED, now, waiting=None, outcome="")
                expires = now + self.config.approvals.expire_after
                return op.moved(Status.AWAITING, now, waiting=None, expires=expires, outcome="The GPU is free now.")
            if waiting is None or waiting == op.waiting:
                return op
            until = _expiry(op, waiting, now + self.config.approvals.expire_after)
            return op.model_copy(update={"waiting": waiting, "expires": until, "updated": now})

        after = await self.operations.update(op.id, refreshed)
        if after.status is not op.status:
            await self.lifecycle.enqueue(after)
        if after != op:
            await self.lifecycle.present(after)

    async def describe(self) -> Mrkdwn:
        """Return the answer to `/gpu queue`: the queue, with estimated times."""
        entries: list[Mrkdwn] = []
        for op_id in await self.leases.queue():
            try:
                op = await self.operations.load(op_id, BringUpOperation)
            except OperationNotFound:
                continue
            approved = ", approved" if approval_stands(op, self.config, self.clock()) else ""
            entries.append(
                md("{place}. {entry}{approved}", place=len(entries) + 1, entry=queue_entry(op), approved=approved)
            )
        return md("\n").join(entries) or md("Nobody is waiting for the GPU.")


def _offer_key(op: BringUpOperation) -> str:
    offer = op.waiting.offer if op.waiting else None
    return f"offer:{op.id}:{offer.isoformat() if offer else ''}"


def _expiry(op: BringUpOperation, waiting: Waiting, at_most: datetime) -> datetime | None:
    """Return when the request expires: never (None) if it is queued, otherwise like a request for approval."""
    return None if waiting.ahead is not None else op.expires or at_most
