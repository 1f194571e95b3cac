"""The operation card, the same for every kind.

From top to bottom: title; state, requester and reason; result; the plan with its cost; the phases with their times;
votes; buttons; notes about the buttons.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from bot.domain.leases import Lease, Waiting
from bot.domain.operations import (
    BenchmarkOperation,
    BringUpOperation,
    ChangeOperation,
    Operation,
    Status,
    TestedOperation,
    Vote,
)
from bot.domain.plans import BringUpPlan, ChangePlan, ExtendPlan, Plan, Pull, ReleasePlan
from bot.domain.requests import hold_of
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, link, md
from bot.views.blocks import (
    Block,
    Blocks,
    View,
    actions,
    button,
    context,
    fields,
    header,
    overflow,
    section,
    trimmed_to_limits,
    with_confirmation,
)
from bot.views.decisions import APPROVE, DENY, ROLL_OUT, approve, deletes, deny
from bot.views.gpu import TAKE
from bot.views.links import NO_LINKS, Links
from bot.views.newer import container
from bot.views.next_steps import next_steps
from bot.views.outcomes import outcome_text
from bot.views.progress import progress, smoke_tests
from bot.views.text import because, clock, code, cut, inline, moment, person

CANCEL, BECAUSE = "cancel", "because"
QUEUE, LEAVE, ASK_HOLDER, REPLACE = "queue", "leave", "ask_holder", "replace"
"""The action ids of a card. `because` is the menu whose choices open a form for a reason."""

_ICON = {
    Status.REQUESTED: "⏳",
    Status.WAITING: "🎟️",
    Status.AWAITING: "✋",
    Status.APPROVED: "👍",
    Status.RUNNING: "🔥",
    Status.SUCCEEDED: "✅",
    Status.FAILED: "❌",
    Status.DENIED: "🚫",
    Status.EXPIRED: "⌛",
    Status.CANCELLED: "↩️",
    Status.REFUSED: "🚫",
}
_FIRST = (
    "Estimated cost",
    "Lease",
    "Before",
    "Downtime",
    "First",
    "Not staged before",
    "The volume grows",
    "Then",
    "Sizing",
    "Model",
    "Context",
)
"""The rows of a change that an approver reads first."""
_DETAILS = {
    "Endpoint",
    "Served name",
    "Tenant alias",
    "GPU memory utilization",
    "Application",
    "Files",
    "Commit",
    "Deploys",
}
_ROWS, _VOTES, _WARNINGS = 30, 5, 10
"""Maximum numbers of rows, votes and warnings on a card."""


def title(op: Operation) -> str:
    """The title as plain text, not escaped."""
    return op.request.kind.spec.title.format_map(vars(op.request))


def card(op: Operation, now: datetime, links: Links = NO_LINKS) -> View:
    """Render the card of an operation. `now` is the end of the phase that is running."""
    blocks: Blocks = [header(f"{_ICON[op.status]} {title(op)}"), section(_headline(op))]
    if result := outcome_text(op, links):
        blocks.append(section(cut(result, 2500)))
    if isinstance(op, BringUpOperation) and op.status is Status.WAITING and op.waiting:
        blocks.append(section(_waiting(op.waiting, op.request.actor)))
    if blocked := _blocking_action(op):
        blocks.append(section(md("⏸️ {blocked}", blocked=blocked)))
    blocks += _plan(op)
    if op.phases:
        blocks.append(progress(op, now))
    if isinstance(op, TestedOperation) and op.checks:
        blocks.append(section(smoke_tests(op.checks)))
    blocks += [context(_vote(vote)) for vote in op.votes[-_VOTES:]]
    if buttons := _buttons(op):
        blocks.append(actions(*buttons, about=title(op)))
    links_text = (links.applications(getattr(op.plan, "applications", ())), _log_of(op, links))
    blocks.append(context(*_footer(op, now), *filter(None, links_text)))
    return View(
        text=md("{title}: {status}", title=inline(title(op), 150), status=op.status), blocks=trimmed_to_limits(blocks)
    )


def _log_of(op: Operation, links: Links) -> Mrkdwn:
    """The links to the log and the dashboard of the operation's model; empty until the operation has begun."""
    if not op.phases or not isinstance(op, TestedOperation | BenchmarkOperation):
        return md("")
    return links.about(op.request.model, op.phases[0].began)


def _headline(op: Operation) -> Mrkdwn:
    state: str = op.status[:1].upper() + op.status[1:]
    if not op.status.final and op.failure:
        state = "Failed; rolling back"
    elif not op.status.final and op.cancelled_by:
        state = md("Being cancelled by {cancelled_by}", cancelled_by=person(op.cancelled_by))
    request_text = md("requested by {actor}", actor=person(op.request.actor))
    if hold := hold_of(op.request):
        request_text += md(" for {hold}", hold=show_duration(hold))
    if op.request.reason:
        request_text += md(" because {reason}", reason=inline(op.request.reason, 600))
    if not op.status.final and op.failure:
        request_text += md("\n{failure}", failure=cut(op.failure, 1000))
    return md("*{state}* · {request}", state=state, request=request_text)


def _waiting(waiting: Waiting, actor: str) -> Mrkdwn:
    """The holder of the GPU, the start, end and reason of the lease, the position in the queue and the time of the
    turn.
    """
    sentences = []
    if waiting.fence:
        since = md(" since {since}", since=clock(waiting.since)) if waiting.since else ""
        until = md("until {until}", until=clock(waiting.until)) if waiting.until else "still booting"
        reason = because(waiting.reason)
        holding = md(
            "{model} is held by {holder}{since}{reason} ({until})",
            model=code(waiting.model),
            holder=person(waiting.holder),
            since=since,
            reason=reason,
            until=until,
        )
        sentences.append(md("The GPU is taken: {holding}.", holding=holding))
    if waiting.offer:
        return md(
            "{actor}, *it is your turn*: press *Take it* by {offer}.",
            actor=person(actor),
            offer=clock(waiting.offer),
        )
    free = md(" Its turn comes by about {free_at}.", free_at=clock(waiting.free_at)) if waiting.free_at else ""
    if waiting.fence and waiting.holder == actor:
        sentences.append(
            md(
                "The requester holds it: *{replace}* brings that model down and this one up, if an approver agrees.",
                replace=_replace_label(waiting, actor),
            )
        )
    elif waiting.fence and waiting.ahead is None:
        sentences.append(md("*Queue*, ask {holder}, or replace the model.", holder=person(waiting.holder)))
    elif waiting.ahead is None:
        sentences.append(md("Others are waiting."))
    if waiting.ahead is not None:
        ahead = md(", {ahead} ahead.", ahead=waiting.ahead) if waiting.ahead else md(", next.")
        sentences.append(md("*In the queue*{ahead}", ahead=ahead))
    return md(" ").join(sentences) + free


def _plan(op: Operation) -> Blocks:
    """Two columns while the operation is open; one context line after it ends."""
    plan = op.plan
    if plan is None:
        return []
    rows = [(inline(label, 60), inline(value, 300)) for label, value in plan.rows[:_ROWS]]
    pull = [_pull_text(plan.pull)] if isinstance(plan, ChangePlan) else []
    if op.status.final:
        summary = md(" · ").join(md("{label}: {value}", label=label, value=value) for label, value in rows)
        return [context(*(text for text in (cut(summary, 900), *pull) if text))] if summary or pull else []
    blocks = [section(text) for text in _affected_lease(plan)]
    if isinstance(plan, ChangePlan) and plan.displaced:  # show the outage first
        blocks.append(section(md("⚠️ {displaced}", displaced=cut(plan.displaced, 1000))))
    blocks += _rows(plan) if isinstance(plan, ChangePlan | BringUpPlan) else _fields(rows)
    blocks += [section(text) for text in pull]
    if isinstance(plan, ChangePlan) and plan.problems:
        blocks.append(section(_problem_lines(plan.problems)))
    if warnings := _warnings(plan):
        lines = [md("⚠️ {text}", text=inline(text, 350)) for text in warnings[:_WARNINGS]]
        more = len(warnings) - len(lines)
        blocks.append(section(md("\n").join([*lines, *([f"… and {more} more in the pull request"] if more else [])])))
    return blocks


def _rows(plan: ChangePlan | BringUpPlan) -> Blocks:
    """The rows of a plan, with the cost and the outage first; a changed row shows both values. Rows that are unchanged or
    irrelevant to the decision are in a collapsed container.
    """
    before = dict(plan.before) if isinstance(plan, ChangePlan) else {}
    rows = [(inline(label, 60), _change_text(value, before.get(label, ""))) for label, value in plan.rows[:_ROWS]]
    unchanged_labels = {inline(label, 60) for label, value in plan.rows if before.get(label) == value}
    minor_rows = [row for row in rows if (row[0] in _DETAILS and row[0] not in before) or row[0] in unchanged_labels]
    if len(minor_rows) < 2:
        return _fields(rows)
    main_rows = [row for row in rows if row not in minor_rows]
    main_rows.sort(key=lambda row: _FIRST.index(row[0]) if row[0] in _FIRST else len(_FIRST))
    return [
        *_fields(main_rows),
        container("Details: " + ", ".join(str(label) for label, _ in minor_rows), _fields(minor_rows)),
    ]


def _change_text(value: str, before: str) -> Mrkdwn:
    now = inline(value, 300)
    changed = before and before != value
    return md("{before} → {now}", before=inline(before, 200), now=now) if changed else now


def _fields(rows: Sequence[tuple[Mrkdwn, Mrkdwn]]) -> Blocks:
    return fields([md("*{label}*\n{value}", label=label, value=value) for label, value in rows])


def plan_in_words(op: Operation) -> Mrkdwn:
    """The plan in a few lines, for an answer outside the card."""
    plan, text_lines = op.plan, [md("*{title}*", title=inline(title(op), 200))]
    if plan is None:
        return text_lines[0]
    text_lines += [_pull_text(plan.pull)] if isinstance(plan, ChangePlan) else []
    text_lines += [md("{label}: {value}", label=inline(k, 60), value=inline(v, 300)) for k, v in plan.rows[:_ROWS]]
    text_lines += _affected_lease(plan)
    text_lines += [_problem_lines(plan.problems)] if isinstance(plan, ChangePlan) and plan.problems else []
    text_lines += [md("⚠️ {text}", text=inline(text, 350)) for text in _warnings(plan)[:_WARNINGS]]
    return md("\n").join(text_lines)


def _warnings(plan: Plan) -> tuple[str, ...]:
    return plan.warnings if isinstance(plan, BringUpPlan | ChangePlan) else ()


def _problem_lines(problems: tuple[str, ...]) -> Mrkdwn:
    lines = [md("⛔ {text}", text=inline(text, 280)) for text in problems[:_WARNINGS]]
    more = len(problems) - len(lines)
    return md("\n").join([*lines, *([md("⛔ … and {more} more in the pull request", more=more)] if more else [])])


def _affected_lease(plan: Plan) -> list[Mrkdwn]:
    """The lease that the plan affects, with the effect; empty if it affects none."""
    match plan:
        case BringUpPlan(lease=Lease() as lease):
            return [_lease_text(md("⚠️ *Displaces*"), lease)]
        case ReleasePlan(lease=lease):
            return [_lease_text(md("⚠️ *Breaks the lease on*"), lease)]
        case ExtendPlan(lease=lease):
            return [_lease_text(md("*Extends*"), lease)]
        case _:
            return []


def _lease_text(verb: Mrkdwn, lease: Lease) -> Mrkdwn:
    until = md("until {ends}", ends=clock(lease.ends)) if lease.ends else "still booting"
    reason = because(lease.reason)
    return md(
        "{verb} {model}, held by {holder}{reason} ({until})",
        verb=verb,
        model=code(lease.model),
        holder=person(lease.holder),
        reason=reason,
        until=until,
    )


def _pull_text(pull: Pull) -> Mrkdwn:
    pull_link = link(pull.url, f"Pull request #{pull.number}")
    if pull.merge_commit:
        by = md(" by {merged_by}", merged_by=inline(pull.merged_by, 60)) if pull.merged_by else ""
        return md(
            "{link} merged{by} as {merge_commit}", link=pull_link, by=by, merge_commit=code(pull.merge_commit[:10])
        )
    words = {
        "none": "no checks",
        "pending": "checks are running",
        "success": "checks passed",
        "failure": md("checks failed: {names}", names=inline(", ".join(pull.failing), 300))
        if pull.failing
        else "checks failed",
    }
    line = md(
        "{link} at {head}{into} — {checks}",
        link=pull_link,
        head=code(pull.head[:10]),
        into=md(" into {base}", base=code(pull.base)) if pull.base else "",
        checks=words.get(pull.checks, pull.checks),
    )
    if pull.approved_by:
        line += md(", approved on GitHub by {approved_by}", approved_by=inline(", ".join(pull.approved_by), 200))
    if pull.rejected_by:
        line += md(
            "\n⚠️ On GitHub {rejected_by} requested changes.", rejected_by=inline(", ".join(pull.rejected_by), 200)
        )
    if pull.unread:
        unread_names = " and ".join(pull.unread)
        line += md("\n⚠️ GitHub does not let the token read {names}, so they do not count here.", names=unread_names)
    if pull.auto_merge_by:
        user = inline(pull.auto_merge_by, 60)
        line += md("\n⚠️ {user} turned on auto-merge: GitHub merges it without an approval in Slack.", user=user)
    if pull.mergeable is False:
        line += (
            "\n⚠️ It conflicts with the main branch: resolve the conflict on GitHub, or cancel, and request it again."
        )
    elif pull.blocked and pull.checks in ("success", "none"):
        line += "\n🔒 GitHub branch rules block the merge; most likely a review is required."
    return line


def _vote(vote: Vote) -> Mrkdwn:
    reason = md(": {reason}", reason=inline(vote.reason, 300)) if vote.reason else ""
    if vote.override:
        return md(
            "🚨 Approval overridden in an emergency by {by} at {at}{reason}",
            by=person(vote.by),
            at=clock(vote.at),
            reason=reason,
        )
    return md(
        "{decided} by {by} at {at}{reason}",
        decided="👍 Approved" if vote.approve else "🚫 Denied",
        by=person(vote.by),
        at=clock(vote.at),
        reason=reason,
    )


def buttons_of_asker(op: Operation) -> list[Block]:
    """The card's buttons that the requester may press."""
    return [block for block in _buttons(op) if block["action_id"] not in (APPROVE, ROLL_OUT, DENY, BECAUSE)]


def _buttons(op: Operation) -> list[Block]:
    cancel = button("Cancel", CANCEL, op.shown)
    if isinstance(op, BringUpOperation) and op.status is Status.WAITING and op.waiting:
        return _choices(op, op.waiting)
    if op.status is Status.AWAITING:
        if op.lacks:
            return [deny(op), cancel, _because(op, "deny")]
        return [approve(op), deny(op), cancel, _because(op, "approve", "deny", "override")]
    if op.status.final:
        return next_steps(op)
    started = op.status in (Status.APPROVED, Status.RUNNING)
    return [cancel] if started and op.can_be_cancelled and not (op.failure or op.cancelled_by) else []


def _blocking_action(op: Operation) -> Mrkdwn:
    """The external action that the operation waits for; empty if there is none."""
    over = op.status.final or op.failure or op.cancelled_by
    return op.blocked if isinstance(op, ChangeOperation) and not over else Mrkdwn()


def _choices(op: BringUpOperation, waiting: Waiting) -> list[Block]:
    """The buttons while the GPU is taken. A requester who is the holder does not get *Ask the holder*."""
    is_own = waiting.holder == op.request.actor
    ask = [button("Ask the holder", ASK_HOLDER, op.shown_against)] if waiting.fence and not is_own else []
    replace = [
        with_confirmation(
            button(_replace_label(waiting, op.request.actor), REPLACE, op.shown_against, "danger"),
            "Replace it?",
            md(
                "If an approver agrees, {model}, held by {holder}, is brought down first.",
                model=code(waiting.model),
                holder=person(waiting.holder),
            ),
            "Ask for approval",
        )
    ]
    if waiting.ahead is None:
        queue = button("Queue", QUEUE, op.shown, "primary")
        return [queue, *ask, *(replace if waiting.fence else []), button("Cancel", CANCEL, op.shown)]
    leave = button("Leave the queue", LEAVE, op.shown)
    take = [button("Take it", TAKE, op.shown, "primary")] if waiting.offer else []
    decide = [] if op.is_approved else [button("Approve", APPROVE, op.shown)]
    decide.append(button("Deny", DENY, op.shown, "danger"))
    return [*take, *decide, *([] if waiting.offer else [*ask, *(replace if waiting.fence else [])]), leave]


def _replace_label(waiting: Waiting, actor: str) -> str:
    return f"Replace {waiting.model}" if waiting.holder == actor else "Replace"


def _because(op: Operation, *verbs: str) -> Block:
    labels = {"approve": "Approve deletion because …"} if deletes(op) else {}
    return overflow(
        BECAUSE, *((labels.get(verb, f"{verb.capitalize()} because …"), f"{verb}:{op.shown}") for verb in verbs)
    )


def _footer(op: Operation, now: datetime) -> tuple[Mrkdwn, ...]:
    if op.status.final:
        lasted = show_duration(op.updated - op.request.at)
        return (
            md("Ended at {updated}, {lasted} after the request", updated=clock(op.updated), lasted=lasted),
            md("Operation {id}", id=op.id),
        )
    if op.status is Status.AWAITING and op.expires:
        lacks = op.lacks
        hint = md("It can be approved when {lacks}.", lacks=lacks) if lacks else op.deciders
        at = clock(op.expires) if op.expires - now < timedelta(hours=12) else moment(op.expires)
        ends = md("{hint} Expires at {at}.", hint=hint, at=at).strip()
        return (ends, _possible_actions(op, op.id))
    return (md("Operation {id}", id=op.id),) if op.status is Status.REQUESTED else (_possible_actions(op, op.id),)


def _possible_actions(op: Operation, op_id: str) -> Mrkdwn:
    """The point until which *Cancel* works, or the possible actions while the operation waits."""
    if op.status is Status.WAITING:
        waiting = op.waiting if isinstance(op, BringUpOperation) else None
        queued = waiting and waiting.ahead is not None
        until = "An approver can decide now; the model starts when its turn comes" if queued else ""
        if queued and op.is_approved:
            offered = waiting and waiting.offer
            until = "Approved; starts when " + ("the offer is accepted" if offered else "its turn comes")
    elif _blocking_action(op):
        until = "Cancel ends the wait; the change stays merged"
    else:
        until = op.request.kind.spec.cancel_hint
    operation = md("Operation {id}", id=op_id)
    return md("{until} · {operation}", until=until, operation=operation) if until else operation
