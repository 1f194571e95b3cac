"""The app's Home tab: the GPU, decisions for the reader, the reader's requests, the endpoints, the last week.

Shows absolute times, not durations, so that rendering again gives the same view until something changes.
"""

from dataclasses import field
from datetime import datetime

from bot.analysis.report import Day
from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation, Operation, Status, estimate
from bot.domain.sessions import Trouble
from bot.text.mrkdwn import Mrkdwn, link, md
from bot.views.blocks import (
    VIEW_BLOCKS,
    Block,
    Blocks,
    actions,
    button,
    context,
    divider,
    header,
    section,
)
from bot.views.card import buttons_of_asker, title
from bot.views.decisions import approve, deny
from bot.views.endpoint_list import Search, in_home
from bot.views.endpoints import EndpointState
from bot.views.gpu import free, queue_entry
from bot.views.health import RESTART, in_short, trouble_line
from bot.views.links import NO_LINKS, Links, permalink
from bot.views.modals import choice, modal, text_input
from bot.views.newer import chart
from bot.views.next_steps import of_lease
from bot.views.setup import SetupNeeded, setup_needed
from bot.views.text import because, clock, code, hours_text, inline, money, person
from manifests.frozen import frozen

HOME_UP, HOME_ADD, UP_FORM = "home_up", "home_add", "gpu_up"
"""The buttons of Home that open a form, and the form that the first button opens."""

_EVERYTHING = Search()


@frozen
class Overview:
    """The state of the platform, from the systems that answered. `silent` has a message for each system that did not answer."""

    leases: tuple[Lease, ...] = ()
    active: dict[str, datetime] = field(default_factory=dict)
    """Time of the last use, by model."""
    spent: dict[str, float] = field(default_factory=dict)
    """US dollars since the claim of the lease, in steps of ten cents, by model."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """The reason why a session that was ready does not serve, by model."""
    strangers: tuple[str, ...] = ()
    users_known: bool = True
    """True if both Redis and the cluster answered, so that the users of the GPU are known."""
    drains: datetime | None = None
    """Estimated end of billing for a node without a model."""
    open: tuple[Operation, ...] = ()
    endpoints: tuple[EndpointState, ...] = ()
    week: tuple[Day, ...] = ()
    approvers: frozenset[str] = frozenset()
    links: Links = NO_LINKS
    silent: tuple[str, ...] = ()
    setup: SetupNeeded | None = None
    """The survey of the repository, if the settings do not describe it."""


def home(overview: Overview, user: str, now: datetime, search: Search = _EVERYTHING) -> Block:
    """Home for this user, with the endpoints that match their search."""
    blocks: Blocks = [*setup_needed(overview.setup, user).blocks, divider()] if overview.setup else []
    blocks += [header("The GPU"), *_gpu(overview, user, now)]
    blocks += (
        [context(*(md("⚠️ {error}", error=inline(error, 300)) for error in overview.silent[:5]))]
        if overview.silent
        else []
    )
    if waiting := [op for op in overview.open if _may_decide(op, user, overview.approvers)]:
        blocks += [divider(), header("Waiting for your decision"), *_decisions(waiting, overview.links)]
    if mine := [op for op in overview.open if op.request.actor == user]:
        blocks += [divider(), header("Your requests"), *_own_requests(mine, overview.links)]
    blocks += [divider(), header("Endpoints"), *in_home(overview.endpoints, search)]
    if overview.week:
        blocks += [divider(), header("The last week"), *_week(overview.week)]
    return {"type": "home", "blocks": blocks[:VIEW_BLOCKS]}


def _gpu(overview: Overview, user: str, now: datetime) -> Blocks:
    blocks: Blocks = []
    for lease in overview.leases:
        reason = because(lease.reason)
        trouble = overview.troubles.get(lease.model)
        lines = [
            md(
                "🔥 *{model}* {value}, held by {holder} since {claimed}{reason}",
                model=inline(lease.model, 100),
                value=_state(lease, trouble),
                holder=person(lease.holder),
                claimed=clock(lease.claimed),
                reason=reason,
            )
        ]
        used = overview.active.get(lease.model)
        details = [md("last used at {used}", used=clock(used))] if used and lease.ready else []
        details += (
            [md("about {spent} so far", spent=money(overview.spent[lease.model]))]
            if lease.model in overview.spent
            else []
        )
        details += [md("the lease ends at {ends}", ends=clock(lease.ends))] if lease.ends else []
        lines += [md(" · ").join(details)] if details else []
        lines += [trouble_line(trouble)] if trouble else []
        blocks.append(section(md("\n").join(lines)))
        restart = [button("Restart", RESTART, lease.op, "primary")] if trouble else []
        blocks.append(actions(*restart, *of_lease(lease), about=lease.model))
        if pages := overview.links.about(lease.model, lease.claimed):
            blocks.append(context(pages))
    blocks += [
        section(md("🚨 {workload} uses the GPU, and nobody holds a lease for it.", workload=code(workload)))
        for workload in overview.strangers[:5]
    ]
    if not overview.leases and not overview.strangers:
        blocks.append(
            section(
                free(overview.drains, now) if overview.users_known else md("It is unknown whether the GPU is free.")
            )
        )
    ups = [op for op in overview.open if isinstance(op, BringUpOperation)]
    if unapproved := [op for op in ups if op.status is Status.AWAITING]:
        requests = [
            md("{model} by {actor}", model=code(op.request.model), actor=person(op.request.actor))
            for op in unapproved[:10]
        ]
        blocks.append(context(md("Not approved yet: {requests}", requests=md(", ").join(requests))))
    queued = [
        (op.waiting.ahead, op)
        for op in ups
        if op.status is Status.WAITING and op.waiting and op.waiting.ahead is not None
    ]
    if queued:
        queue = [queue_entry(op) for _, op in sorted(queued, key=lambda place: place[0])[:10]]
        blocks.append(
            section(
                md("\n").join(
                    [md("*The queue*"), *(md("{n}. {entry}", n=n, entry=entry) for n, entry in enumerate(queue, 1))]
                )
            )
        )
    forms = (button("Bring up …", HOME_UP, "up", "primary"), button("Add a model …", HOME_ADD, "add"))
    blocks.append(actions(*forms, about="opens a form"))
    return blocks


def refusal(reason: Mrkdwn) -> Block:
    """The tab for a person who may not use the bot."""
    return {"type": "home", "blocks": [section(reason)]}


def _state(lease: Lease, trouble: Trouble | None) -> Mrkdwn:
    if trouble:
        return md("is {trouble}", trouble=in_short(trouble))
    return md("is up") if lease.ready else md("is booting")


def _may_decide(op: Operation, user: str, approvers: frozenset[str]) -> bool:
    decided = any(vote.by == user for vote in op.votes)
    return op.status is Status.AWAITING and user in approvers and op.request.actor != user and not decided


def _decisions(operations: list[Operation], links: Links) -> Blocks:
    blocks: Blocks = []
    for op in operations[:10]:
        reason = because(op.request.reason, 200)
        usd = estimate(op)
        costs = f" · about {money(usd)}" if usd else ""
        blocks.append(
            section(
                md(
                    "*{title}*, requested by {actor}{reason}{costs}{card_link}",
                    title=inline(title(op), 200),
                    actor=person(op.request.actor),
                    reason=reason,
                    costs=costs,
                    card_link=_card_link(op, links),
                )
            )
        )
        blocks.append(actions(*([] if op.lacks else [approve(op)]), deny(op), about=title(op)))
    return blocks


def _own_requests(operations: list[Operation], links: Links) -> Blocks:
    blocks: Blocks = []
    for op in operations[:10]:
        phase = op.running_phase
        phase_text = (
            md(", {name} since {began}", name=inline(phase.text, 60), began=clock(phase.began)) if phase else ""
        )
        blocks.append(
            section(
                md(
                    "*{title}* — {status}{phase_text}{card_link}",
                    title=inline(title(op), 200),
                    status=op.status,
                    phase_text=phase_text,
                    card_link=_card_link(op, links),
                )
            )
        )
        if buttons := buttons_of_asker(op):
            blocks.append(actions(*buttons, about=title(op)))
    return blocks


def _card_link(op: Operation, links: Links) -> Mrkdwn:
    address = permalink(links.workspace, op.message)
    return md(" · {link}", link=link(address, "see its card")) if address else Mrkdwn()


def _week(days: tuple[Day, ...]) -> Blocks:
    """A chart of the GPU hours of each day, by use, and the total hours and cost."""
    hours, up, idle, usd = (sum(getattr(day, key) for day in days) for key in ("hours", "up", "idle", "usd"))
    share = f", idle {idle / up:.0%} of the time up" if up else ""
    total = md("{hours} on the GPU{share}, {usd}.", hours=hours_text(hours), share=share, usd=money(usd))
    parts = {
        "in use": [day.up - day.idle for day in days],
        "idle": [day.idle for day in days],
        "boot and drain": [day.hours - day.up for day in days],
    }
    return [chart("GPU hours by day (UTC)", [f"{day.day:%a %d}" for day in days], parts, "hours"), context(total)]


def up_form(names: tuple[str, ...], hold: str, longest: str) -> Block:
    """The form to bring up a model. `hold` is the default duration, `longest` the maximum."""
    blocks = [
        choice("model", "Model", names, names[0] if len(names) == 1 else ""),
        text_input("hold", "For", placeholder=hold, hint=f"At most {longest}, e.g. 45m, 2h, 1h30m", optional=True),
        text_input("reason", "Because", optional=True, longest=300),
    ]
    return modal(UP_FORM, "Bring up a model", blocks, submit="Request")
