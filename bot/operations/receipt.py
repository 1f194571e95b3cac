"""What sessions cost: the running total, the receipt at the end, the bill once the node is really gone, the report."""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from bot.domain import Bill, Lease, Node, cost
from bot.durations import show_duration
from bot.operations import questions
from bot.operations.life import show
from bot.report import letters, picture, weekly
from bot.services import Services
from bot.store import Forgotten
from bot.views import View, code, escape, lines, money

_LOOKS = 10
"""How many times in the usual drain is looked whether another session has taken the node over."""


_MAYBE_NODE = TypeAdapter[Node | None](Node | None)


def running_total(svc: Services, lease: Lease, node: Node | None, now: datetime) -> tuple[float, bool]:
    """US dollars that a session has cost so far, and whether that is an estimate, as its node cannot be seen."""
    began = max(lease.claimed, node.since) if node else lease.claimed
    return cost(now - began, svc.config.gpu.price(node.machine if node else "")), node is None


async def machine_of(svc: Services, op_id: str, model: str, *, session: str = "") -> Node | None:
    """The node that a model runs on, noted by the operation that ends it while it can be seen.

    `session` tells the sessions of one model apart that the same operation ends.
    """

    async def look() -> Node | None:
        return await svc.cluster.node_of(model)

    return await svc.store.once(op_id, f"node of {model}{session}", look, _MAYBE_NODE)


async def close_session(svc: Services, lease: Lease, *, op_id: str = "", node: Node | None = None) -> str:
    """Write the bill of a session whose model is down, have the end of its node watched, and word the receipt.

    Safe to repeat: the first bill of a lease stays as it is. `node` is where the model ran, if the caller knows; else
    what the watch saw is taken. `op_id` is the operation whose message gets the final bill.
    """
    bill = await svc.sessions.bill(lease.fence)
    if bill is None:
        session = await svc.sessions.of(lease.model)
        if session and session.fence != lease.fence:
            session = None
        node = node or (session.node if session else None)
        bill = Bill(
            fence=lease.fence,
            op=op_id,
            model=lease.model,
            holder=lease.holder,
            reason=lease.reason,
            approved_by=await _approvers(svc, lease),
            claimed=lease.claimed,
            ready=lease.ready,
            down=svc.clock(),
            node=node,
            drain=svc.config.gpu.drain,
            price_per_hour=svc.config.gpu.price(node.machine if node else ""),
            idle_seconds=session.idle_seconds if session else 0,
            requests=session.requests if session else 0,
            tokens=session.tokens if session else 0,
        )
        await svc.sessions.keep_bill(bill)
    await questions.settle(svc, lease.op)
    if bill.gone is None and bill.node:
        await svc.docket.add("settle_bill", key=f"bill:{bill.fence}")(bill.fence)
    return receipt(bill)


def draining(bills: Iterable[Bill], now: datetime) -> datetime | None:
    """Until about when a node bills although no model is up, which may be past; None when none is known to bill."""
    ends = [bill.ends for bill in bills if bill.node and bill.gone is None and bill.watched_until > now]
    return max(ends, default=None)


async def _approvers(svc: Services, lease: Lease) -> tuple[str, ...]:
    try:
        return tuple(vote.by for vote in (await svc.store.load(lease.op)).approvals)
    except Forgotten:  # adopted, or longer ago than operations are kept
        return ()


async def settle_bill(svc: Services, fence: int) -> None:
    """Watch the node of a closed session until it is gone, and put the true cost on the receipt. Safe to repeat."""
    bill = await svc.sessions.bill(fence)
    if bill is None or bill.node is None:
        return
    gone = bill.gone
    while gone is None and (now := svc.clock()) < bill.watched_until:
        seconds = min(bill.drain / _LOOKS, bill.watched_until - now).total_seconds()
        is_gone = await svc.cluster.wait_node_gone(bill.node.name, timeout=max(1.0, seconds))
        gone = await _taken_over(svc, bill) or (svc.clock() if is_gone else None)
    if gone is None:
        return
    estimated, bill = bill.model_copy(update={"gone": None}), bill.model_copy(update={"gone": gone})
    await svc.sessions.keep_bill(bill)
    if not bill.op:
        return
    before, after = receipt(estimated), receipt(bill)
    op = await svc.store.update(
        bill.op, lambda op: op.model_copy(update={"outcome": op.outcome.replace(before, after)})
    )
    await show(svc, op, force=True)
    if op.request.model != bill.model:
        await svc.slack.revise(displaced_key(bill), displaced(bill.model, op.request.model, after))


def displaced_key(session: Lease | Bill) -> str:
    """Of the message in the thread of a session that a replacement has ended."""
    return f"receipt:{session.fence}"


def displaced(model: str, by: str, told: str) -> View:
    return lines(f"{code(model)} is down, replaced by {code(by)}.\n{told}")


async def _taken_over(svc: Services, bill: Bill) -> datetime | None:
    """When the next session took over the node while it drained: from then on that one pays."""
    # Of one slot a later session can only be the next, and one that pushed this one aside was claimed before it was down.
    since = bill.claimed if svc.config.gpu.slots == 1 else bill.down
    later = [(past.claimed, past.fence, past.node) for past in await svc.sessions.bills(since)]
    later += [
        (lease.claimed, lease.fence, await svc.cluster.node_of(lease.model))
        for lease in await svc.leases.held()
        if lease.claimed >= since
    ]
    name = bill.node.name if bill.node else ""
    return min((at for at, fence, node in later if fence > bill.fence and node and node.name == name), default=None)


def receipt(bill: Bill) -> str:
    """The receipt in Slack's words, two or three lines."""
    node = f"the node billed {show_duration(bill.billed)}"
    if bill.gone is None:
        node = f"{show_duration(bill.billed)} billed with about {show_duration(bill.drain)} of drain"
    usd = f"cost about {money(bill.usd)} (an estimate)" if bill.estimated else f"cost {money(bill.usd)}"
    idle = timedelta(seconds=bill.idle_seconds)
    share = f" ({idle / bill.up:.0%} of it)" if bill.up else ""
    each = f", {money(bill.usd / bill.tokens * 1000)} per thousand tokens" if bill.tokens else ""
    approved = ", ".join(f"<@{user}>" for user in bill.approved_by)
    return "\n".join(
        (
            f"*Receipt*: up {show_duration(bill.up)}, {node}, {usd}.",
            f"Idle {show_duration(idle)}{share}; {bill.requests:.0f} requests, {bill.tokens:.0f} tokens served{each}.",
            f"Held by <@{bill.holder}>"
            + (f" because {escape(bill.reason)}" if bill.reason else "")
            + (f", approved by {approved}." if approved else "."),
        )
    )


async def report(svc: Services, channel: str, weeks: int = 8) -> str | None:
    """Post the last weeks as a picture with their sums; returns what to say when there is nothing to draw."""
    now = svc.clock()
    bills = await svc.sessions.bills(now - timedelta(weeks=weeks))
    drawn = weekly(bills, now, weeks)
    total = sum(week.hours for week in drawn)
    if not total:
        return "No session on the GPU has ended in the last weeks, so there is nothing to report yet."
    people = letters(drawn)
    each = [
        f"{letter} <@{person}> {_hours(sum(week.by_person[person] for week in drawn))}"
        for person, letter in people.items()
    ]
    up = sum(week.up_hours for week in drawn)
    idle = f", idle {sum(week.idle_hours for week in drawn) / up:.0%} of the time up" if up else ""
    guessed = sum(bill.estimated for bill in bills)
    text = (
        f"*The GPU in the last {weeks} weeks*: {_hours(total)} in {len(bills)} session{'s' if len(bills) > 1 else ''},"
        f" {money(sum(week.usd for week in drawn))}{idle}.\n{' · '.join(each)}"
    )
    if guessed:
        text += f"\nThe cost of {guessed} of them is an estimate, as the end of their node was not seen."
    png = await asyncio.to_thread(picture, drawn)
    name = f"gpu-{now:%Y-%m-%d}.png"
    await svc.slack.upload(channel, png, name, title="The GPU, week by week", text=text)
    return None


def _hours(hours: float) -> str:
    return show_duration(timedelta(hours=hours))
