"""What is said to the holder of the GPU, and about them."""

from datetime import datetime

from bot.domain import Lease
from bot.durations import show_duration
from bot.views.blocks import View, actions, button, section
from bot.views.text import clock, code, inline, money, person

BRING_DOWN, KEEP, KEEP_UNTIL = "bring_down", "keep", "keep_until"
"""The buttons about a session; their value is the operation that claimed its lease."""


def busy_line(lease: Lease, now: datetime) -> str:
    """Who holds the GPU: with which model, since when, why, for how long so far, until when."""
    why = f" because {inline(lease.reason, 300)}" if lease.reason else ""
    until = f"until {clock(lease.ends)}" if lease.ends else "still booting"
    spell = f"{show_duration(now - lease.claimed)} so far, {until}"
    return f"{code(lease.model)} is held by {person(lease.holder)} since {clock(lease.claimed)}{why} ({spell})"


def reminder(lease: Lease, idle: str, cost_usd: float, *, down_in: str, down_at: str, last: bool, keep: str) -> View:
    """The question whether a model is still needed; the last one announces the bring-down.

    `keep` is how long the button keeps it; empty when it has been kept as often as it may be.
    """
    text = f"{inline(lease.model, 100)} has been idle for {idle}"
    line = f"{person(lease.holder)}, {code(lease.model)} has been idle for {idle}; that cost {money(cost_usd)}."
    if last:
        line = f"⏳ {line}\n*It goes down at {down_at}*, in {down_in}, unless you keep it or somebody uses it."
    else:
        line = f"💤 {line} Without an answer I bring it down in {down_in}."
    buttons = [button("Bring down", BRING_DOWN, lease.op, "primary")]
    if keep:
        buttons += [button(f"Keep {keep}", KEEP, lease.op), button("Keep until …", KEEP_UNTIL, lease.op)]
    return View(text=text, blocks=[section(line), actions(*buttons)])


def blind(lease: Lease, since: datetime, now: datetime) -> View:
    """Nobody can tell whether the model is used."""
    ends = f" It goes down when its lease ends, at {clock(lease.ends)}." if lease.ends else ""
    line = (
        f"🙈 {person(lease.holder)}, the metrics of {code(lease.model)} cannot be read for {show_duration(now - since)},"
        f" so I cannot tell whether anybody uses it and count it as in use.{ends}"
    )
    text = f"{inline(lease.model, 100)}: metrics cannot be read"
    return View(text=text, blocks=[section(line), actions(button("Bring down", BRING_DOWN, lease.op, "primary"))])


def settled_reminder(text: str) -> View:
    return View(text=text, blocks=[section(text)])
