"""The one message of an operation, designed once and used for every kind, and what goes into its thread.

From top to bottom: what; in which state, who and why; how it ended; the plan with its cost; the phases with their
times; who decided; the buttons; what one must know before pressing them.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import assert_never

from bot.domain import Check, Kind, Lease, Operation, Phase, Pull, Status, Vote, Waiting
from bot.durations import show_duration
from bot.views.blocks import (
    Block,
    Blocks,
    View,
    actions,
    button,
    confirmed,
    context,
    fields,
    fitted,
    header,
    overflow,
    preformatted,
    section,
)
from bot.views.gpu import TAKE
from bot.views.text import clock, code, cut, escape, inline, moment, person

APPROVE, DENY, CANCEL, ROLL_OUT, BECAUSE = "approve", "deny", "cancel", "roll_out", "because"
QUEUE, LEAVE, ASK_HOLDER, REPLACE = "queue", "leave", "ask_holder", "replace"
"""The actions of a card. `because` is the menu that asks for a reason first."""

COURSE: Mapping[Kind, tuple[str, ...]] = {
    Kind.GPU_UP: (
        "syncing",
        "starting",
        "waiting for a node",
        "pulling the image",
        "staging weights",
        "loading",
        "smoke tests",
    ),
    Kind.GPU_DOWN: ("scaling to zero", "waiting until the pod is gone"),
    Kind.GPU_RELEASE: ("scaling to zero", "waiting until the pod is gone"),
    Kind.MODEL_ADD: ("merging", "Argo CD: the gateway", "Argo CD: the endpoint"),
    Kind.MODEL_SWAP: ("merging", "Argo CD: the gateway", "Argo CD: the endpoint"),
    Kind.MODEL_REMOVE: ("merging", "Argo CD: the gateway", "Argo CD: taking the endpoint down"),
    Kind.MODEL_SMOKE: ("smoke tests",),
    Kind.MODEL_BENCH: ("starting the Job", "measuring"),
}
"""The phases that an operation usually goes through, as the operations name them: those to come are shown too."""

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
_ROWS, _PHASES, _VOTES, _WARNINGS = 20, 20, 5, 6
"""The most of each that a card shows; the pull request and the thread have the rest."""


def title(op: Operation) -> str:
    """What is asked for, as plain text: not escaped."""
    model = op.request.model
    match op.request.kind:
        case Kind.GPU_UP:
            return f"Bring up {model}"
        case Kind.GPU_DOWN:
            return f"Bring down {model}"
        case Kind.GPU_EXTEND:
            return f"Extend {model}"
        case Kind.GPU_RELEASE:
            return f"Break the lease of {model}"
        case Kind.MODEL_ADD:
            return f"Add {model}, serving {op.request.hf_id}"
        case Kind.MODEL_SWAP:
            return f"Swap {model} to {op.request.hf_id}"
        case Kind.MODEL_REMOVE:
            return f"Remove {model}"
        case Kind.MODEL_REVERT:
            return f"Revert the last change of {model}"
        case Kind.MODEL_SMOKE:
            return f"Smoke-test {model}"
        case Kind.MODEL_BENCH:
            return f"Benchmark {model}"
        case _:
            assert_never(op.request.kind)


def card(op: Operation, now: datetime) -> View:
    """The message as it should look now."""
    blocks: Blocks = [header(f"{_ICON[op.status]} {title(op)}"), section(_headline(op))]
    if op.outcome:
        blocks.append(section(cut(op.outcome, 2500)))
    if op.status is Status.WAITING and op.waiting:
        blocks.append(section(_waiting(op.waiting, op.request.actor)))
    if _is_blocked(op):
        blocks.append(section(f"⏸️ {op.blocked}"))
    blocks += _plan(op)
    if op.phases:
        blocks.append(_progress(op, now))
    if op.checks:
        blocks.append(section(_smoke(op.checks)))
    blocks += [context(_vote(vote)) for vote in op.votes[-_VOTES:]]
    if buttons := _buttons(op):
        blocks.append(actions(*buttons))
    blocks.append(context(*_footer(op, now)))
    return View(text=f"{inline(title(op), 150)}: {op.status}", blocks=fitted(blocks))


def thread(op: Operation) -> tuple[tuple[str, View], ...]:
    """What belongs below the card, once each, by a key that is new when the content is: evidence, logs, diagnosis."""
    posts = []
    if op.checks:
        passed = all(check.passed for check in op.checks)
        blocks = [section(f"*Smoke tests: {'all passed' if passed else 'not all passed'}*")]
        blocks += [section(_check(check)) for check in op.checks[:40]]
        posts.append((f"smoke:{_digest(op.checks)}", View(text="Smoke tests", blocks=fitted(blocks))))
    for note in op.notes[:20]:
        blocks = [section(f"*{inline(note.title, 200)}*"), preformatted(note.text)]
        posts.append((f"note:{_digest(note)}", View(text=inline(note.title, 200), blocks=fitted(blocks))))
    return tuple(posts)


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "replace")).hexdigest()[:12]


def _headline(op: Operation) -> str:
    state = op.status[:1].upper() + op.status[1:]
    if not op.status.final and op.failure:
        state = "Being undone, because it went wrong"
    elif not op.status.final and op.cancelled_by:
        state = f"Being cancelled by {person(op.cancelled_by)}"
    asked = f"asked by {person(op.request.actor)}"
    if op.request.hold:
        asked += f" for {show_duration(op.request.hold)}"
    if op.request.reason:
        asked += f" because {inline(op.request.reason, 600)}"
    if not op.status.final and op.failure:
        asked += f"\n{cut(op.failure, 1000)}"
    return f"*{state}* · {asked}"


def _waiting(waiting: Waiting, actor: str) -> str:
    """Who has the GPU, since when, until when and for what; the place in the queue, and when its turn comes."""
    told = []
    if waiting.fence:
        since = f" since {clock(waiting.since)}" if waiting.since else ""
        until = f"until {clock(waiting.until)}" if waiting.until else "still booting"
        why = f" because {inline(waiting.reason, 300)}" if waiting.reason else ""
        whose = f"{code(waiting.model)} is held by {person(waiting.holder)}{since}{why} ({until})"
        told.append(f"The GPU is taken: {whose}.")
    if waiting.offer:
        return f"{person(actor)}, *it is your turn*: the GPU is offered to this request until {clock(waiting.offer)}."
    free = f" Its turn comes at about {clock(waiting.free_at)} at the latest." if waiting.free_at else ""
    if waiting.ahead is None:
        told.append(
            f"*Queue*, ask {person(waiting.holder)}, or replace it." if waiting.fence else "Others are waiting."
        )
    elif waiting.ahead:
        told.append(f"*In the queue*, {waiting.ahead} ahead.")
    else:
        told.append("*In the queue*, next.")
    return " ".join(told) + free


def _plan(op: Operation) -> Blocks:
    """While it matters, in two columns; after the end, one quiet line."""
    plan = op.plan
    if plan is None:
        return []
    rows = [(inline(label, 60), inline(value, 300)) for label, value in plan.rows[:_ROWS]]
    pull = [_pull(plan.pull)] if plan.pull else []
    if op.status.final:
        told = " · ".join(f"{label}: {value}" for label, value in rows)
        return [context(*(text for text in (cut(told, 900), *pull) if text))] if told or pull else []
    blocks = [section(_whose(op.request.kind, plan.lease))] if plan.lease else []
    blocks += fields([f"*{label}*\n{value}" for label, value in rows])
    blocks += [section(text) for text in pull]
    if plan.displaced:
        blocks.append(section(f"⚠️ {cut(plan.displaced, 1000)}"))
    if plan.warnings:
        shown = [f"⚠️ {inline(text, 350)}" for text in plan.warnings[:_WARNINGS]]
        more = len(plan.warnings) - len(shown)
        blocks.append(section("\n".join([*shown, *([f"… and {more} more in the pull request"] if more else [])])))
    return blocks


def _whose(kind: Kind, lease: Lease) -> str:
    """Whose lease the plan is about, and what becomes of it."""
    verb = {Kind.GPU_UP: "⚠️ *Displaces*", Kind.GPU_RELEASE: "⚠️ *Breaks the lease on*"}.get(kind, "*Prolongs*")
    until = f"until {clock(lease.ends)}" if lease.ends else "still booting"
    why = f" because {inline(lease.reason, 300)}" if lease.reason else ""
    return f"{verb} {code(lease.model)}, held by {person(lease.holder)}{why} ({until})"


def _pull(pull: Pull) -> str:
    link = f"<{pull.url}|Pull request #{pull.number}>"
    if pull.merge_commit:
        by = f" by {inline(pull.merged_by, 60)}" if pull.merged_by else ""
        return f"{link} merged{by} as {code(pull.merge_commit[:10])}"
    words = {
        "none": "no checks",
        "pending": "checks are running",
        "success": "checks passed",
        "failure": "checks failed" + (f": {inline(', '.join(pull.failing), 300)}" if pull.failing else ""),
    }
    line = f"{link} at {code(pull.head[:10])} — {words.get(pull.checks, pull.checks)}"
    if pull.approved_by:
        line += f", approved on GitHub by {inline(', '.join(pull.approved_by), 200)}"
    if pull.rejected_by:
        line += f"\n⚠️ On GitHub {inline(', '.join(pull.rejected_by), 200)} asked for changes."
    if pull.mergeable is False:
        line += "\n⚠️ It conflicts with the main branch: resolve the conflict on GitHub, or cancel and ask again."
    elif pull.blocked and pull.checks in ("success", "none"):
        line += "\n🔒 A rule of GitHub's does not let it be merged yet: a review that is required, most likely."
    return line


def _progress(op: Operation, now: datetime) -> Block:
    """Each phase with its time: done, running, to come. After a good end, in one line."""
    if op.status is Status.SUCCEEDED:
        took = show_duration((op.phases[-1].ended or now) - op.phases[0].began)
        told = " → ".join(f"{inline(p.name, 60)} {_took(p, now)}" for p in op.phases[-_PHASES:])
        return context(f"✔️ {took}: {told}")
    shown = op.phases[-_PHASES:]
    rows = [f"… {len(op.phases) - len(shown)} earlier"] if len(op.phases) > len(shown) else []
    rows += [_phase(phase, now) for phase in shown]
    if op.status is Status.RUNNING and not op.failure and not op.cancelled_by:
        rows += [f"▫️ {escape(name)}" for name in _to_come(op)]
    return section("\n".join(rows))


def _to_come(op: Operation) -> tuple[str, ...]:
    course = COURSE.get(op.request.kind, ())
    past = [course.index(phase.name) for phase in op.phases if phase.name in course]
    return course[max(past) + 1 :] if past else ()


def _phase(phase: Phase, now: datetime) -> str:
    """What a system says of a phase is of interest while it runs, and when it was the last word."""
    detail = f" — {inline(phase.detail, 200)}" if phase.detail else ""
    if phase.ended is None:
        return f"🔸 *{inline(phase.name, 60)}* … {_took(phase, now)}{detail}"
    done = f"{inline(phase.name, 60)} · {_took(phase, now)}"
    return f"✖️ {done}{detail}" if phase.failed else f"✔️ {done}"


def _took(phase: Phase, now: datetime) -> str:
    return show_duration(max((phase.ended or now) - phase.began, timedelta()))


def _smoke(results: tuple[Check, ...]) -> str:
    """What failed with its evidence; what passed by name, for its evidence is in the thread."""
    good = [check for check in results if check.passed and not check.warning]
    rows = [_check(check) for check in results if check not in good][:10]
    if good:
        names = ", ".join(inline(check.name, 80) for check in good[:20])
        rows.append(f"✅ {len(good)} of {len(results)} passed: {names}")
    return "*Smoke tests* (evidence in the thread)\n" + "\n".join(rows)


def _check(check: Check) -> str:
    icon = "❌ failed:" if not check.passed else "⚠️" if check.warning else "✅"
    return f"{icon} {inline(check.name, 80)} — {inline(check.evidence, 500)}"


def _vote(vote: Vote) -> str:
    why = f": {inline(vote.reason, 300)}" if vote.reason else ""
    if vote.override:
        return f"🚨 Approval overridden in an emergency by {person(vote.by)} at {clock(vote.at)}{why}"
    return f"{'👍 Approved' if vote.approve else '🚫 Denied'} by {person(vote.by)} at {clock(vote.at)}{why}"


def buttons_of_asker(op: Operation) -> list[Block]:
    """What who asked may press, of the buttons that the card has."""
    return [each for each in _buttons(op) if each["action_id"] not in (APPROVE, ROLL_OUT, DENY, BECAUSE)]


def _buttons(op: Operation) -> list[Block]:
    cancel = button("Cancel", CANCEL, op.id)
    if op.status is Status.WAITING and op.waiting:
        return _choices(op, op.waiting)
    if op.status is Status.AWAITING:
        pull = op.plan.pull if op.plan else None
        deny = button("Deny", DENY, op.id, "danger")
        approve = button("Approve", APPROVE, op.id, "primary")
        if pull and not pull.merge_commit:
            approve = button("Approve & roll out", ROLL_OUT, op.id, "primary")
            if _not_yet(op):
                return [deny, cancel, _because(op, "deny")]
        return [approve, deny, cancel, _because(op, "approve", "deny", "override")]
    stoppable = op.request.kind in (Kind.GPU_UP, Kind.MODEL_BENCH)
    if op.status in (Status.APPROVED, Status.RUNNING) and stoppable and not op.failure:
        return [cancel] if not op.cancelled_by else []
    if _is_blocked(op):
        return [cancel]
    return []


def _not_yet(op: Operation) -> str:
    """What a pull request lacks before it can be approved; empty when it lacks nothing."""
    pull = op.plan.pull if op.plan else None
    if pull is None or pull.merge_commit:
        return ""
    if pull.mergeable is False:
        return "the conflict is resolved"
    return "" if pull.checks in ("success", "none") else "its checks have passed"


def _is_blocked(op: Operation) -> bool:
    """Whether it waits for somebody to do something else first."""
    return bool(op.blocked) and not (op.status.final or op.failure or op.cancelled_by)


def _choices(op: Operation, waiting: Waiting) -> list[Block]:
    """What one can do while somebody else has the GPU."""
    ask = [button("Ask the holder", ASK_HOLDER, op.id)] if waiting.fence else []
    replace = [
        confirmed(
            button("Replace", REPLACE, op.id, "danger"),
            "Replace it?",
            f"{code(waiting.model)} of {person(waiting.holder)} goes down for it, once an approver agrees.",
            "Ask for approval",
        )
    ]
    if waiting.ahead is None:
        queue = button("Queue", QUEUE, op.id, "primary")
        return [queue, *ask, *(replace if waiting.fence else []), button("Cancel", CANCEL, op.id)]
    leave = button("Leave the queue", LEAVE, op.id)
    take = [button("Take it", TAKE, op.id, "primary")] if waiting.offer else []
    approve = [button("Approve", APPROVE, op.id), button("Deny", DENY, op.id, "danger")]
    return [*take, *approve, *([] if waiting.offer else [*ask, *(replace if waiting.fence else [])]), leave]


def _because(op: Operation, *verbs: str) -> Block:
    return overflow(BECAUSE, *((f"{verb.capitalize()} because …", f"{verb}:{op.id}") for verb in verbs))


def _footer(op: Operation, now: datetime) -> tuple[str, ...]:
    if op.status.final:
        lasted = show_duration(op.updated - op.request.at)
        return (f"Ended at {clock(op.updated)}, {lasted} after it was asked", f"Operation {op.id}")
    if op.status is Status.AWAITING and op.expires:
        lacks = _not_yet(op)
        hint = f"It can be approved when {lacks}." if lacks else op.deciders
        left = op.expires - now
        at = clock(op.expires) if left < timedelta(hours=12) else moment(op.expires)
        return (f"{hint} Expires {at}, in {show_duration(left)}.".strip(), _no_return(op, op.id))
    return (f"Operation {op.id}",) if op.status is Status.REQUESTED else (_no_return(op, op.id),)


def _no_return(op: Operation, op_id: str) -> str:
    """Until when `Cancel` works, or what can be done while it waits."""
    match op.request.kind:
        case _ if op.status is Status.WAITING:
            queued = op.waiting and op.waiting.ahead is not None
            until = "An approver can decide already; approved, it starts at its turn" if queued else ""
        case Kind.GPU_UP:
            until = "Cancel works while it boots; after that, `/gpu down`"
        case _ if _is_blocked(op):
            until = "Cancel stops waiting; the change stays merged"
        case Kind.MODEL_BENCH:
            until = "Cancel works until the table is there"
        case kind if kind.changes:
            until = "Cancel works until the merge; after that, a revert"
        case _:
            until = ""
    return f"{until} · Operation {op_id}".removeprefix(" · ")
