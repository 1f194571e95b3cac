"""What is said about the GPU beside the operations' cards: offers, questions to the holder, uses without a lease."""

from datetime import datetime

from bot.domain import Lease, Operation
from bot.views.blocks import View, actions, button, section
from bot.views.reminder import BRING_DOWN
from bot.views.text import clock, code, inline, person

NOT_NOW, TAKE, PASS_ON = "not_now", "take", "pass_on"
ADOPT, END_USE = "adopt", "end_use"
"""The buttons about a use without a lease, so without an operation: their value is the workload's name."""


def free(drains: datetime | None, now: datetime) -> str:
    """Nobody has the GPU; `drains` is until about when the node of the last session still bills."""
    if drains and drains <= now:
        return (
            "The GPU is free. Nothing is running; the last node drains longer than usual, and bills until it is gone."
        )
    if drains:
        return f"The GPU is free. Nothing is running; the last node drains, and bills until about {clock(drains)}."
    return "The GPU is free. Nothing is running, nothing is billed."


def in_line(op: Operation) -> str:
    """One who waits for the GPU: with which model, and when the turn comes."""
    waiting, when = op.waiting, ""
    if waiting and waiting.offer:
        when = f", offered until {clock(waiting.offer)}"
    elif waiting and waiting.free_at:
        when = f", at about {clock(waiting.free_at)} at the latest"
    return f"{person(op.request.actor)} with {code(op.request.model)}{when}"


def offered(op: Operation, approved: bool) -> View:
    """The personal offer of the free GPU to who is next."""
    until = f" until {clock(op.waiting.offer)}" if op.waiting and op.waiting.offer else ""
    then = "It is approved, so it starts at once." if approved else "It still needs its approval."
    line = (
        f"🎟️ {person(op.request.actor)}, it is your turn: the GPU is yours for {code(op.request.model)}{until}. {then}"
    )
    buttons = [button("Take it", TAKE, op.id, "primary"), button("Pass on", PASS_ON, op.id)]
    return View(text=f"The GPU is yours for {inline(op.request.model, 100)}", blocks=[section(line), actions(*buttons)])


def please_release(op: Operation, lease: Lease, asker: str) -> View:
    """The question to the holder whether the GPU could be free earlier."""
    why = f" because {inline(op.request.reason, 300)}" if op.request.reason else ""
    line = (
        f"🙏 {person(lease.holder)}, {person(asker)} asks whether {code(lease.model)} can go down:"
        f" {code(op.request.model)} waits for the GPU{why}."
    )
    buttons = [button("Bring it down", BRING_DOWN, lease.op, "primary"), button("Not now", NOT_NOW, op.id)]
    return View(text=f"Can {inline(lease.model, 100)} go down?", blocks=[section(line), actions(*buttons)])


def unmanaged(about: str, name: str, *, ours: bool, can_adopt: bool) -> View:
    """The alert about something that uses the GPU without a lease; `ours`: Stoker may scale it."""
    line = (
        f"🚨 {code(about)} uses the GPU, and nobody holds a lease for it (was it started with kubectl?)."
        " It bills, and nothing else can come up."
    )
    buttons = [button("Adopt", ADOPT, name)] if can_adopt else []
    if can_adopt:
        line += " *Adopt* asks for its approval and gives it a lease."
    if ours:
        line += " *Bring down* ends it."
        buttons.append(button("Bring down", END_USE, name, "danger"))
    else:
        line += " It is not Stoker's to scale: whoever runs it must end it."
    return View(
        text=f"{inline(about, 150)} uses the GPU without a lease",
        blocks=[section(line), *([actions(*buttons)] if buttons else [])],
    )
