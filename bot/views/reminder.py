"""What is said to the holder of the GPU, and about them."""

from datetime import datetime

from bot.domain import Lease
from bot.durations import show_duration
from bot.views.blocks import View, actions, button, section
from bot.views.text import clock, code, inline, money, person

BRING_UP, BRING_DOWN, KEEP = "bring_up", "bring_down", "keep"


def busy_line(lease: Lease, now: datetime) -> str:
    why = f" because {inline(lease.reason, 300)}" if lease.reason else ""
    until = f", until {clock(lease.ends)}" if lease.ends else ", still booting"
    since = f"{clock(lease.claimed)} ({show_duration(now - lease.claimed)})"
    return f"{code(lease.model)} is held by {person(lease.holder)} since {since}{until}{why}"


def reminder(lease: Lease, idle: str, cost_usd: float, down_in: str, can_keep: bool) -> View:
    text = f"{inline(lease.model, 100)} has been idle for {idle}"
    line = (
        f"💤 {person(lease.holder)} {code(lease.model)} has been idle for {idle}; that cost {money(cost_usd)}."
        f" Without an answer I bring it down in {down_in}."
    )
    buttons = [button("Bring down", BRING_DOWN, lease.model, "primary")]
    if can_keep:
        buttons.append(button("Keep 1 h", KEEP, f"{lease.model}:{lease.fence}"))
    return View(text=text, blocks=[section(line), actions(*buttons)])


def settled_reminder(text: str) -> View:
    return View(text=text, blocks=[section(text)])
