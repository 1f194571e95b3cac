"""The app's Home tab: the GPU, what waits for the reader, what the reader asked for, the endpoints, the last week.

It shows moments and not durations, so that it changes only when something happened.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot.domain import Kind, Lease, Operation, Status
from bot.durations import show_duration
from bot.report import Day
from bot.views.blocks import (
    VIEW_BLOCKS,
    Block,
    Blocks,
    View,
    actions,
    button,
    confirmed,
    context,
    divider,
    header,
    image,
    section,
)
from bot.views.card import APPROVE, DENY, ROLL_OUT, buttons_of_asker, title
from bot.views.endpoints import EndpointState, in_two_lines
from bot.views.gpu import free, in_line
from bot.views.modals import choice, modal, text_input
from bot.views.reminder import BRING_DOWN
from bot.views.text import clock, code, inline, money, person

HOME_UP, HOME_ADD, HOME_EXTEND, UP_FORM = "home_up", "home_add", "home_extend", "gpu_up"
"""The buttons of Home that open a form, and the form of the first."""

_MANY, _BAR = 25, 12
"""The most endpoints in the list; the length of the longest bar."""


@dataclass(frozen=True)
class Overview:
    """What is going on on the platform, as far as its systems answered; `silent` says which did not."""

    leases: tuple[Lease, ...] = ()
    active: dict[str, datetime] = field(default_factory=dict)
    """By model: when it was last used."""
    spent: dict[str, float] = field(default_factory=dict)
    """By model: US dollars since the lease was claimed, in steps of ten cents."""
    strangers: tuple[str, ...] = ()
    known: bool = True
    """Whether both Redis and the cluster said who uses the GPU."""
    drains: datetime | None = None
    """Until about when a node without a model still bills."""
    open: tuple[Operation, ...] = ()
    endpoints: tuple[EndpointState, ...] = ()
    week: tuple[Day, ...] = ()
    picture: str = ""
    """Slack's id of a picture of just this week; empty when there is none."""
    approvers: frozenset[str] = frozenset()
    workspace: str = ""
    """The address that links to messages begin with."""
    silent: tuple[str, ...] = ()


def home(overview: Overview, user: str, now: datetime) -> Block:
    """Home as this user sees it."""
    blocks: Blocks = [header("The GPU"), *_gpu(overview, user, now)]
    blocks += [context(*(f"⚠️ {inline(each, 300)}" for each in overview.silent[:5]))] if overview.silent else []
    if waiting := [op for op in overview.open if _may_decide(op, user, overview.approvers)]:
        blocks += [divider(), header("Waiting for your decision"), *_decisions(waiting, overview.workspace)]
    if mine := [op for op in overview.open if op.request.actor == user]:
        blocks += [divider(), header("Asked by you"), *_mine(mine, overview.workspace)]
    blocks += [divider(), header("Endpoints"), *_endpoints(overview.endpoints)]
    if overview.week:
        blocks += [divider(), header("The last week"), *_week(overview.week, overview.picture)]
    return {"type": "home", "blocks": blocks[:VIEW_BLOCKS]}


def _gpu(overview: Overview, user: str, now: datetime) -> Blocks:
    blocks: Blocks = []
    for lease in overview.leases:
        why = f" because {inline(lease.reason, 300)}" if lease.reason else ""
        lines = [
            f"🔥 *{inline(lease.model, 100)}* {'is up' if lease.ready else 'is booting'}, held by {person(lease.holder)}"
            f" since {clock(lease.claimed)}{why}"
        ]
        used = overview.active.get(lease.model)
        told = [f"last used at {clock(used)}"] if used and lease.ready else []
        told += [f"about {money(overview.spent[lease.model])} so far"] if lease.model in overview.spent else []
        told += [f"the lease ends at {clock(lease.ends)}"] if lease.ends else []
        lines += [" · ".join(told)] if told else []
        down = button("Bring down", BRING_DOWN, lease.op, "danger")
        ask = f"{code(lease.model)} goes to zero, and whoever uses it gets errors."
        blocks.append(section("\n".join(lines)))
        extend = [button("Extend …", HOME_EXTEND, lease.op)] if lease.ends else []
        blocks.append(actions(*extend, confirmed(down, "Bring it down?", ask, "Bring down")))
    blocks += [
        section(f"🚨 {code(each)} uses the GPU, and nobody holds a lease for it.") for each in overview.strangers[:5]
    ]
    if not overview.leases and not overview.strangers:
        blocks.append(
            section(free(overview.drains, now) if overview.known else "Whether the GPU is free cannot be seen now.")
        )
    ups = [op for op in overview.open if op.request.kind is Kind.GPU_UP]
    if asked := [op for op in ups if op.status is Status.AWAITING]:
        each = [f"{code(op.request.model)} by {person(op.request.actor)}" for op in asked[:10]]
        blocks.append(context(f"Asked for, and not approved yet: {', '.join(each)}"))
    queued = [
        (op.waiting.ahead, op)
        for op in ups
        if op.status is Status.WAITING and op.waiting and op.waiting.ahead is not None
    ]
    if queued:
        line = [in_line(op) for _, op in sorted(queued, key=lambda place: place[0])[:10]]
        blocks.append(section("\n".join(["*The queue*", *(f"{n}. {each}" for n, each in enumerate(line, 1))])))
    blocks.append(actions(button("Bring up …", HOME_UP, "up", "primary"), button("Add a model …", HOME_ADD, "add")))
    return blocks


def _may_decide(op: Operation, user: str, approvers: frozenset[str]) -> bool:
    decided = any(vote.by == user for vote in op.votes)
    return op.status is Status.AWAITING and user in approvers and op.request.actor != user and not decided


def _decisions(operations: list[Operation], workspace: str) -> Blocks:
    blocks: Blocks = []
    for op in operations[:10]:
        why = f" because {inline(op.request.reason, 200)}" if op.request.reason else ""
        costs = f" · about {money(op.plan.estimate_usd)}" if op.plan and op.plan.estimate_usd else ""
        blocks.append(
            section(f"*{inline(title(op), 200)}*, asked by {person(op.request.actor)}{why}{costs}{_see(op, workspace)}")
        )
        pull = op.plan.pull if op.plan else None
        merge = bool(pull and not pull.merge_commit)
        ready = pull is None or not merge or (pull.checks in ("success", "none") and pull.mergeable is not False)
        approve = (
            button("Approve & roll out", ROLL_OUT, op.id, "primary")
            if merge
            else button("Approve", APPROVE, op.id, "primary")
        )
        blocks.append(actions(*([approve] if ready else []), button("Deny", DENY, op.id, "danger")))
    return blocks


def _mine(operations: list[Operation], workspace: str) -> Blocks:
    blocks: Blocks = []
    for op in operations[:10]:
        phase = op.phases[-1] if op.phases and op.phases[-1].ended is None else None
        doing = f", {inline(phase.name, 60)} since {clock(phase.began)}" if phase else ""
        blocks.append(section(f"*{inline(title(op), 200)}* — {op.status}{doing}{_see(op, workspace)}"))
        if buttons := buttons_of_asker(op):
            blocks.append(actions(*buttons))
    return blocks


def _see(op: Operation, workspace: str) -> str:
    if op.message is None or not workspace:
        return ""
    return f" · <{workspace}archives/{op.message.channel}/p{op.message.ts.replace('.', '')}|see its message>"


def _endpoints(states: tuple[EndpointState, ...]) -> Blocks:
    if not states:
        return [section("There is none yet.")]
    rows = [in_two_lines(each) for each in states[:_MANY]]
    if len(states) > _MANY:
        rows.append(f"… and {len(states) - _MANY} more: `/model list`")
    return [section("\n".join(rows[i : i + 5])) for i in range(0, len(rows), 5)]


def _week(days: tuple[Day, ...], picture: str) -> Blocks:
    """The week as a picture; without one, a bar a day: full where the GPU worked, light where it was idle."""
    hours, up, idle, usd = (sum(getattr(day, key) for day in days) for key in ("hours", "up", "idle", "usd"))
    share = f", idle {idle / up:.0%} of the time up" if up else ""
    total = f"{_hours(hours)} on the GPU{share}, {money(usd)}."
    if picture:
        return [image(picture, week_in_words(days)), context(total)]
    most = max(day.hours for day in days) or 1.0
    rows = []
    for day in days:
        length = round(day.hours / most * _BAR)
        light = round(length * (day.idle / day.hours)) if day.hours else 0
        bar = "█" * (length - light) + "░" * light
        took = _hours(day.hours) if day.hours else "–"
        rows.append(f"{day.day:%a %d}  {bar:<{_BAR}}  {took:>11}  {money(day.usd):>7}")
    return [section("```" + "\n".join(rows) + f"```\n{total}")]


def week_in_words(days: tuple[Day, ...]) -> str:
    """What the picture of the week shows, for who cannot see it."""
    told = [
        f"{day.day:%a %d}: {_hours(day.hours)} ({_hours(day.up)} up, {_hours(day.idle)} idle), {money(day.usd)}"
        if day.hours
        else f"{day.day:%a %d}: none"
        for day in days
    ]
    return "The GPU by day (UTC): how long a node billed, and its cost. " + "; ".join(told) + "."


def _hours(hours: float) -> str:
    return show_duration(timedelta(hours=hours))


def week_thread() -> View:
    """The message whose thread holds the picture: Slack shows a file to those who can see where it is shared."""
    line = "📊 *The GPU, day by day*: the last week as a picture is in this thread, for my Home tab, and is kept up to date."
    return View(text="The GPU, day by day", blocks=[section(line)])


def up_form(names: tuple[str, ...], hold: str, longest: str) -> Block:
    """Which model to bring up, for how long and why."""
    blocks = [
        choice("model", "Model", names, names[0] if len(names) == 1 else ""),
        text_input("hold", "For", placeholder=hold, hint=f"At most {longest}, e.g. 45m, 2h, 1h30m", optional=True),
        text_input("reason", "Because", optional=True, longest=300),
    ]
    return modal(UP_FORM, "Bring up a model", blocks, submit="Ask")
