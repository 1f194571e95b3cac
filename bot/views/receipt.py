"""The cost of a session, in a few lines."""

from datetime import timedelta

from bot.domain.sessions import Bill
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views.text import money


def receipt(bill: Bill) -> Mrkdwn:
    """The receipt, in three or four lines."""
    node = f"the node billed {show_duration(bill.billed)}"
    if bill.gone is None and not bill.without_node:
        node = f"{show_duration(bill.billed)} billed with about {show_duration(bill.drain)} of drain"
    usd = f"cost about {money(bill.usd)} (an estimate)" if bill.estimated else f"cost {money(bill.usd)}"
    idle = timedelta(seconds=bill.idle_seconds)
    share = f" ({idle / bill.up:.0%} of the time up)" if bill.up else ""
    per_thousand = f", {money(bill.usd / bill.tokens * 1000)} per thousand tokens" if bill.tokens else ""
    approved = md(", ").join(person(user) for user in bill.approved_by)
    saved = timedelta(seconds=bill.staged_seconds)
    return md("\n").join(
        (
            md("*Receipt*: up {up}, {node}, {usd}.", up=show_duration(bill.up), node=node, usd=usd),
            f"Idle {show_duration(idle)}{share}; {bill.requests:.0f} requests, {bill.tokens:.0f} tokens served{per_thousand}.",
            md("Held by {holder}", holder=person(bill.holder))
            + (md(" because {reason}", reason=bill.reason) if bill.reason else "")
            + (md(", approved by {approved}.", approved=approved) if approved else md(".")),
            *(
                [
                    "The weights were staged before, without the GPU: that saved about"
                    f" {show_duration(saved)} of GPU time, {money(bill.saved_usd)} (an estimate)."
                ]
                if saved
                else []
            ),
        )
    )
