"""Messages about the GPU outside the operations' cards: offers, questions to the holder, workloads without a lease."""

from datetime import datetime

from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation
from bot.text.mrkdwn import Mrkdwn, md
from bot.views.blocks import View, actions, button, section
from bot.views.reminder import BRING_DOWN
from bot.views.text import because, clock, code, inline, person

NOT_NOW, TAKE, PASS_ON = "not_now", "take", "pass_on"
ADOPT, END_USE = "adopt", "end_use"
"""The buttons about a workload without a lease. Their value is the workload's name, because it has no operation."""


def free(drains: datetime | None, now: datetime) -> Mrkdwn:
    """The status of a free GPU; `drains` is the estimated end of billing for the last session's node."""
    if drains and drains <= now:
        return md(
            "The GPU is free. Nothing is running; the last node has been draining for longer than usual, and is billed until it is removed."
        )
    if drains:
        return md(
            "The GPU is free. Nothing is running; the last node is draining, and is billed until about {drains}.",
            drains=clock(drains),
        )
    return md("The GPU is free. Nothing is running, nothing is billed.")


def queue_entry(op: BringUpOperation) -> Mrkdwn:
    """One queue entry: requester, model, estimated start."""
    waiting, time = op.waiting, ""
    if waiting and waiting.offer:
        time = md(", offered until {offer}", offer=clock(waiting.offer))
    elif waiting and waiting.free_at:
        time = md(", by about {free_at}", free_at=clock(waiting.free_at))
    return md("{actor} with {model}{time}", actor=person(op.request.actor), model=code(op.request.model), time=time)


def requested_line(op: BringUpOperation) -> Mrkdwn:
    """The line about a bring-up that has not started, for the status of the GPU."""
    offer = op.waiting.offer if op.waiting else None
    state = md("the GPU is offered until {offer}", offer=clock(offer)) if offer else md("{status}", status=op.status)
    model, actor = code(op.request.model), person(op.request.actor)
    return md("{model} requested by {actor}: {state}.", model=model, actor=actor, state=state)


def gpu_offer(op: BringUpOperation, approved: bool) -> View:
    """The direct message that offers the free GPU to the next in the queue."""
    until = md(" by {offer}", offer=clock(op.waiting.offer)) if op.waiting and op.waiting.offer else ""
    then = "The request is already approved." if approved else "An approver decides after that."
    line = md(
        "🎟️ {actor}, it is your turn: press *Take it*{until} to bring up {model}. {then}",
        actor=person(op.request.actor),
        model=code(op.request.model),
        until=until,
        then=then,
    )
    buttons = [button("Take it", TAKE, op.shown, "primary"), button("Pass on", PASS_ON, op.shown)]
    return View(
        text=md("Your turn: take the GPU for {model}{until}", model=inline(op.request.model, 100), until=until),
        blocks=[section(line), actions(*buttons, about=op.request.model)],
    )


def release_question(op: BringUpOperation, lease: Lease, asker: str) -> View:
    """The question to the holder: can the GPU be released earlier?"""
    reason = because(op.request.reason)
    line = md(
        "🙏 {holder}, {asker} asks whether {model} can go down: {request_model} waits for the GPU{reason}.",
        holder=person(lease.holder),
        asker=person(asker),
        model=code(lease.model),
        request_model=code(op.request.model),
        reason=reason,
    )
    buttons = [button("Bring it down", BRING_DOWN, lease.op, "danger"), button("Not now", NOT_NOW, op.id)]
    return View(
        text=md("Can {model} go down?", model=inline(lease.model, 100)),
        blocks=[section(line), actions(*buttons, about=lease.model)],
    )


def unmanaged_alert(about: str, name: str, *, can_scale: bool, can_adopt: bool) -> View:
    """The alert about a workload that uses the GPU without a lease. `can_scale`: Stoker may scale it."""
    line = md(
        "🚨 {about} uses the GPU, and nobody holds a lease for it (was it started with kubectl?). It costs "
        "money, and nothing else can be brought up.",
        about=code(about),
    )
    buttons = [button("Adopt", ADOPT, name)] if can_adopt else []
    if can_adopt:
        line += md(" *Adopt* asks for an approval and then gives it a lease.")
    if can_scale:
        line += md(" *Bring down* stops it.")
        buttons.append(button("Bring down", END_USE, name, "danger"))
    else:
        line += " Stoker may not scale it: its owner must stop it."
    return View(
        text=md("{about} uses the GPU without a lease", about=inline(about, 150)),
        blocks=[section(line), *([actions(*buttons, about=about)] if buttons else [])],
    )
