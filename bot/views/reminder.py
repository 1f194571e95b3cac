"""Messages to the holder of the GPU, and about them."""

from datetime import datetime

from bot.domain.leases import Lease
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md
from bot.views.blocks import View, actions, button, section
from bot.views.text import because, clock, code, inline, money, person

BRING_DOWN, KEEP, KEEP_UNTIL = "bring_down", "keep", "keep_until"
"""The buttons about a session; their value is the operation that claimed its lease."""


def busy_line(lease: Lease, now: datetime) -> Mrkdwn:
    """One line with the holder of the GPU, the model, the start, the reason, the time so far and the end."""
    reason = because(lease.reason)
    until = md("until {ends}", ends=clock(lease.ends)) if lease.ends else "still booting"
    return md(
        "{model} is held by {holder} since {claimed}{reason} ({duration} so far, {until})",
        model=code(lease.model),
        holder=person(lease.holder),
        claimed=clock(lease.claimed),
        reason=reason,
        duration=show_duration(now - lease.claimed),
        until=until,
    )


def reminder(lease: Lease, idle: str, cost_usd: float, *, down_at: Mrkdwn, last: bool, keep: str) -> View:
    """The message that asks the holder whether an idle model is still needed. The last reminder announces the bring-down.

    `keep` is the duration on the button *Keep*; empty if the session cannot be kept again.
    """
    text = md(
        "{model} has been idle for {idle} and goes down at {down_at} unless you keep it",
        model=code(lease.model),
        idle=idle,
        down_at=down_at,
    )
    line = md(
        "{holder}, {model} has been idle for {idle}, which cost {cost_usd}.",
        holder=person(lease.holder),
        model=code(lease.model),
        idle=idle,
        cost_usd=money(cost_usd),
    )
    if last:
        line = md(
            "⏳ {line}\n*It goes down at {down_at}* unless you keep it or somebody uses it.",
            line=line,
            down_at=down_at,
        )
    else:
        line = md(
            "💤 {line} It goes down at {down_at} unless you keep it or somebody uses it.", line=line, down_at=down_at
        )
    buttons = [button("Bring down", BRING_DOWN, lease.op, "danger")]
    if keep:
        buttons += [button(f"Keep {keep}", KEEP, lease.op), button("Keep until …", KEEP_UNTIL, lease.op)]
    return View(text=text, blocks=[section(line), actions(*buttons, about=lease.model)])


def metrics_unavailable(lease: Lease, since: datetime, now: datetime) -> View:
    """The message to the holder while the metrics of the model cannot be read; `since` is the time when that began."""
    ends = md(" It goes down when its lease ends, at {ends}.", ends=clock(lease.ends)) if lease.ends else ""
    line = md(
        "🙈 {holder}, the metrics of {model} have been unavailable for {duration}, so Stoker counts it as in use.{ends}",
        holder=person(lease.holder),
        model=code(lease.model),
        duration=show_duration(now - since),
        ends=ends,
    )
    text = md("{model}: metrics cannot be read", model=inline(lease.model, 100))
    return View(
        text=text,
        blocks=[section(line), actions(button("Bring down", BRING_DOWN, lease.op, "danger"), about=lease.model)],
    )


def settled_reminder(text: Mrkdwn) -> View:
    """The reminder after the answer: text without buttons."""
    return View(text=text, blocks=[section(text)])
