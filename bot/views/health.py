"""Messages about a session that was ready and no longer serves requests."""

from datetime import datetime

from bot.domain.leases import Lease
from bot.domain.sessions import Trouble
from bot.text.mrkdwn import Mrkdwn, clock, code, inline, md, person, with_code
from bot.views.blocks import View, actions, button, preformatted, section
from bot.views.reminder import BRING_DOWN
from bot.views.text import money

RESTART = "restart_session"
"""The button; its value is the operation that claimed the lease."""

_WORDS = {
    "no node": "without a node",
    "no pod": "without a pod",
    "booting": "booting again",
    "scaled": "scaled from outside",
    "changed": "changed from outside",
}


def in_short(trouble: Trouble) -> Mrkdwn:
    """The condition of a model, short enough for a list: `crash-looping since 3:14`."""
    return md("{state} since {since}", state=_WORDS.get(trouble.state, trouble.state), since=clock(trouble.since))


def trouble_line(trouble: Trouble) -> Mrkdwn:
    """The condition and its reason, for a status."""
    return md("⚠️ *{short}*: {reason}", short=in_short(trouble), reason=with_code(_short(trouble.reason, 600)))


def _short(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def trouble_view(lease: Lease, trouble: Trouble, *, serving: bool, price: float, ends: datetime, log: str = "") -> View:
    """The message to the holder. `price` is in US dollars per hour of the billed node, 0 without a node; `ends` is the
    time at which the session ends unless the model recovers.
    """
    state = "is up, but has been changed" if serving else "no longer serves requests"
    lines = [
        md(
            "🔴 {holder}, {model} {state}: {short}.",
            holder=person(lease.holder),
            model=code(lease.model),
            state=state,
            short=in_short(trouble),
        ),
        with_code(_short(trouble.reason, 900)),
    ]
    if trouble.remedy:
        lines.append(md("→ {remedy}", remedy=with_code(_short(trouble.remedy, 500))))
    if not serving:
        until = md(" under the same lease, until {ends}", ends=clock(lease.ends)) if lease.ends else ""
        lines.append(
            md(
                "{costs} *Restart* boots it again{until}. If the model does not recover, its session ends at {at}.",
                costs=f"The node still costs {money(price)}/h." if price else "Nothing is billed while it has no node.",
                until=until,
                at=clock(ends),
            )
        )
    blocks = [section(md("\n").join(lines))]
    if log:
        blocks.append(preformatted(log[-1500:]))
    buttons = [button("Bring down", BRING_DOWN, lease.op, "danger")]
    if trouble.state != "changed":  # a restart would run a version that nobody approved
        buttons.insert(0, button("Restart", RESTART, lease.op, "primary"))
    return View(
        text=md("{model} {state}", model=inline(lease.model, 100), state=state),
        blocks=[*blocks, actions(*buttons, about=lease.model)],
    )
