"""Notifications about an operation: the news, the people concerned, and what to do next."""

from datetime import datetime

from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation, Operation, Status, estimate, lease_in_plan
from bot.domain.outcomes import ClosedOnGitHub, MergedElsewhere, ServesAgain, Started
from bot.domain.plans import BringUpPlan
from bot.domain.requests import BringDown, BringUp, Restart, SmokeTest, hold_of
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, link, md
from bot.views.blocks import Block, View, actions, button, section
from bot.views.card import title
from bot.views.next_steps import of_session
from bot.views.outcomes import outcome_text
from bot.views.reminder import BRING_DOWN
from bot.views.text import because, clock, code, cut, inline, money, person

OBJECT = "object"
"""The button for the holder's objection to a replacement; its value is the operation and its plan."""


def link_to(url: str, label: str = "See the card") -> Mrkdwn:
    """Return a link; empty without an address."""
    return link(url, label) if url else Mrkdwn()


def requested(op: Operation) -> Mrkdwn:
    """One sentence with the requester, the request, its duration, its cost and its reason."""
    request, usd = op.request, estimate(op)
    subject = (
        md("{model}", model=code(request.model))
        if isinstance(request, BringUp)
        else md("“{title}”", title=inline(title(op), 150))
    )
    duration = hold_of(request)
    hold = md(" for {hold}", hold=show_duration(duration)) if duration else ""
    costs = md(", about {usd}", usd=money(usd)) if usd else ""
    replaced = _replaced_lease(op)
    instead = md(", in place of {model}", model=code(replaced.model)) if replaced else ""
    reason = md(", because {reason}", reason=inline(request.reason, 300)) if request.reason else ""
    return md(
        "{actor} requests {subject}{hold}{costs}{instead}{reason}",
        actor=person(request.actor),
        subject=subject,
        hold=hold,
        costs=costs,
        instead=instead,
        reason=reason,
    )


def still_waits(op: Operation) -> Mrkdwn:
    """The reminder for approvers that a request is undecided."""
    expires = md(" It expires at {expires}.", expires=clock(op.expires)) if op.expires else ""
    return md("Nobody has decided yet: {requested}.{expires}", requested=requested(op), expires=expires)


def to_replace(op: Operation, url: str) -> View:
    """The message to the holder while an approver decides about a request for their GPU."""
    lease = lease_in_plan(op)
    model = lease.model if lease else op.request.model
    reason = because(op.request.reason)
    action = (
        md("replace your session of {model} with {new_model}", model=code(model), new_model=code(op.request.model))
        if _replaced_lease(op)
        else md("end your session of {model}", model=code(model))
    )
    text = md("{actor} asks to {action}{reason}", actor=person(op.request.actor), action=action, reason=reason)
    line = md("🔁 {text}. An approver decides. {see}", text=text, see=link_to(url))
    buttons = [button("Object", OBJECT, op.shown)]
    if lease:
        buttons.append(button("Bring it down", BRING_DOWN, lease.op, "danger"))
    return View(text=text, blocks=[section(line), actions(*buttons, about=title(op))])


def not_replaced(op: Operation) -> Mrkdwn:
    """The text that replaces the message of `to_replace` if the request ends without a replacement."""
    return md("↩️ {title} is {status}: your session continues.", title=inline(title(op), 150), status=op.status)


def objection(op: Operation, by: str, reason: str) -> Mrkdwn:
    because = md(": {reason}", reason=inline(reason, 600)) if reason else ""
    return md("✋ {by} objects to “{title}”{because}", by=person(by), title=inline(title(op), 150), because=because)


def end(op: Operation, url: str) -> tuple[str, str, View] | None:
    """For an operation that has ended, return the event, the people to notify and the message; None if nobody
    must be notified.
    """
    request, name, outcome = op.request, inline(title(op), 150), outcome_text(op)
    if isinstance(request, BringDown) and not request.actor:
        return _stop_message(op, request, url)
    if not request.actor:
        return None
    match op.status:
        case Status.SUCCEEDED if isinstance(request, BringDown | SmokeTest):
            return None  # it ends within seconds, while the requester still sees the card
        case Status.SUCCEEDED if isinstance(request, BringUp) and request.trial:
            return None
        case Status.SUCCEEDED if isinstance(request, BringUp | Restart):
            ends = op.result.ends if isinstance(op.result, Started | ServesAgain) else None
            until = md(" until {ends}", ends=clock(ends)) if ends else ""
            event, text = "ready", md("{model} is ready{until}", model=code(request.model), until=until)
            icon = "✅"
        case Status.SUCCEEDED:
            event, icon, text = "done", "✅", md("{name}: done", name=name)
        case Status.FAILED:
            event, icon, text = "failed", "❌", md("{name} failed: {reason}", name=name, reason=_first_line(outcome))
        case Status.DENIED:
            event, icon, text = "denied", "🚫", _denial(op)
        case Status.EXPIRED:
            event, icon, text = (
                "expired",
                "⌛",
                md("{name} has expired: {reason}", name=name, reason=_first_line(outcome)),
            )
        case Status.CANCELLED if op.cancelled_by not in ("", request.actor):
            event, icon = "cancelled", "↩️"
            text = md("{by} has cancelled “{name}”", by=person(op.cancelled_by), name=name)
        case Status.CANCELLED if isinstance(op.result, ClosedOnGitHub | MergedElsewhere):
            event, icon, text = "closed", "↩️", md("{name}: {reason}", name=name, reason=_first_line(outcome))
        case _:
            return None
    details = (
        [] if event in ("failed", "expired", "closed") else [section(cut(outcome, 1500))] if outcome.strip() else []
    )
    line = section(md("{icon} {text}. {see}", icon=icon, text=text.strip("."), see=link_to(url)))
    buttons = _next(op, event)
    return (
        event,
        request.actor,
        View(text=text, blocks=[line, *details, *([actions(*buttons, about=title(op))] if buttons else [])]),
    )


def _next(op: Operation, event: str) -> list[Block]:
    return of_session(op.request.model, op.id) if event == "ready" and isinstance(op, BringUpOperation) else []


def _stop_message(op: Operation, request: BringDown, url: str) -> tuple[str, str, View] | None:
    """The message to the holder after Stoker has stopped a session automatically."""
    if not request.holder or request.announced or op.status not in (Status.SUCCEEDED, Status.FAILED):
        return None
    model, reason, outcome = code(op.request.model), inline(op.request.reason, 300), outcome_text(op)
    text = md("{model} is down: {reason}", model=model, reason=reason)
    if op.status is Status.FAILED:
        text = md(
            "{model} could not be brought down ({reason}): {error}",
            model=model,
            reason=reason,
            error=_first_line(outcome),
        )
    blocks = [section(md("⬇️ {text}. {see}", text=text.strip("."), see=link_to(url))), section(cut(outcome, 1500))]
    return "stopped", request.holder, View(text=text, blocks=blocks)


def _denial(op: Operation) -> Mrkdwn:
    vote = next((vote for vote in reversed(op.votes) if not vote.approve), None)
    by = person(vote.by) if vote else "An approver"
    reason = md(": {reason}", reason=inline(vote.reason, 300)) if vote and vote.reason else ""
    return md("{by} has declined “{name}”{reason}", by=by, name=inline(title(op), 150), reason=reason)


def _replaced_lease(op: Operation) -> Lease | None:
    """The lease that the operation replaces; None if it replaces none."""
    return op.plan.lease if isinstance(op.plan, BringUpPlan) else None


def _first_line(outcome: Mrkdwn) -> Mrkdwn:
    return cut(md("{line}", line=(outcome.strip().splitlines() or [""])[0]), 400)


def was_up(model: str, since: datetime | None, until: datetime, cost: Mrkdwn) -> Mrkdwn:
    """The text that replaces the messages about a session when it is over."""
    began = md(" from {since}", since=clock(since)) if since else ""
    return md(
        "⬇️ {model} was up{began} to {until}. {cost}", model=code(model), began=began, until=clock(until), cost=cost
    )
