"""How things look in Slack. Pure: domain values in, Block Kit out; no client and no clock.

Everything that a person or an API wrote passes `escape` on its way in, so that no `<!channel>` gets through.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from bot.domain import Check, Kind, Lease, Message, Operation, Pull, Status
from bot.durations import show_duration

Blocks = list[dict[str, Any]]

_TEXT, _BUTTON, _FIELDS = 3000, 75, 10
"""Slack's limits: characters of a section and of a button, fields of a section."""

APPROVE, DENY, CANCEL, ROLL_OUT = "approve", "deny", "cancel", "roll_out"
BRING_UP, BRING_DOWN, KEEP = "bring_up", "bring_down", "keep"


@dataclass(frozen=True)
class View:
    """What chat.postMessage takes: blocks, and the text of the notification."""

    text: str
    blocks: Blocks


def escape(text: str) -> str:
    """Slack's three control characters; bidirectional overrides, which could reorder what is read, are dropped."""
    plain = "".join(c for c in text if c not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    return "`" + escape(text).replace("`", "ˋ").replace("\n", " ") + "`"


def money(usd: float) -> str:
    return f"${usd:.2f}"


def clock(at: datetime) -> str:
    """The reader's own time of day."""
    return f"<!date^{int(at.timestamp())}^{{time}}|{at:%H:%M} UTC>"


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text, _TEXT)}}


def context(*texts: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": _cut(text, _TEXT)} for text in texts[:10]]}


def button(label: str, action: str, value: str, style: str | None = None) -> dict[str, Any]:
    made = {
        "type": "button",
        "text": {"type": "plain_text", "text": _cut(label, _BUTTON)},
        "action_id": action,
        "value": value,
    }
    return made | ({"style": style} if style else {})


def actions(*buttons: dict[str, Any]) -> dict[str, Any]:
    return {"type": "actions", "elements": list(buttons)}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


_ICON = {
    Status.REQUESTED: "⏳",
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


def title(op: Operation) -> str:
    model = code(op.request.model)
    match op.request.kind:
        case Kind.GPU_UP:
            return f"Bring up {model}"
        case Kind.GPU_DOWN:
            return f"Bring down {model}"
        case Kind.MODEL_ADD:
            return f"Add {model}, serving {code(op.request.hf_id)}"
        case Kind.MODEL_SWAP:
            return f"Swap {model} to {code(op.request.hf_id)}"
        case _:
            assert_never(op.request.kind)


def card(op: Operation, now: datetime) -> View:
    """The one message of an operation: what, who, why, plan, cost, progress, outcome, and who may act."""
    headline = f"{_ICON[op.status]} *{title(op)}* — {op.status}"
    asked = f"Asked by <@{op.request.actor}>" if op.request.actor else "By Stoker"
    if op.request.hold:
        asked += f" for {show_duration(op.request.hold)}"
    if op.request.reason:
        asked += f" because {escape(op.request.reason)}"
    blocks: Blocks = [section(f"{headline}\n{_cut(asked, 1000)}")]
    if op.plan:
        blocks += _rows(op.plan.rows)
        if op.plan.pull:
            blocks.append(section(_pull(op.plan.pull)))
        if op.plan.warnings and not op.status.final:
            blocks.append(section("\n".join(f"⚠️ {escape(text)}" for text in op.plan.warnings)))
    if op.phases:
        blocks.append(
            section(
                "\n".join(_phase_line(op, index, now) for index in range(max(0, len(op.phases) - 20), len(op.phases)))
            )
        )
    if op.checks:
        blocks.append(section("*Smoke tests*\n" + checks(op.checks)))
    if op.outcome:
        blocks.append(section(_cut(op.outcome, _TEXT)))
    for vote in op.votes:
        why = f": {escape(vote.reason)}" if vote.reason else ""
        blocks.append(context(f"{'Approved' if vote.approve else 'Denied'} by <@{vote.by}> at {clock(vote.at)}{why}"))
    buttons = _buttons(op)
    if buttons:
        blocks.append(actions(*buttons))
    if op.status is Status.AWAITING and op.expires:
        blocks.append(context(f"An approver decides, not who asked. Expires at {clock(op.expires)}. · {op.id}"))
    elif op.status.final:
        blocks.append(context(f"Ended at {clock(op.updated)} · {op.id}"))
    else:
        blocks.append(context(f"Operation {op.id}"))
    return View(text=f"{op.request.kind} {escape(op.request.model)}: {op.status}", blocks=blocks)


def _buttons(op: Operation) -> list[dict[str, Any]]:
    cancel = button("Cancel", CANCEL, op.id)
    if op.status is Status.AWAITING:
        pull = op.plan.pull if op.plan else None
        deny = button("Deny", DENY, op.id, "danger")
        if pull and not pull.merge_commit:
            ready = pull.checks in ("success", "none") and pull.mergeable is not False
            approve = [button("Approve & roll out", ROLL_OUT, op.id, "primary")] if ready else []
            return [*approve, deny, cancel]
        return [button("Approve", APPROVE, op.id, "primary"), deny, cancel]
    if op.status in (Status.APPROVED, Status.RUNNING) and op.request.kind is Kind.GPU_UP and not op.failure:
        return [cancel] if not op.cancelled_by else []
    return []


def _rows(rows: tuple[tuple[str, str], ...]) -> Blocks:
    fields = [{"type": "mrkdwn", "text": f"*{escape(label)}*\n{_cut(escape(value), 1900)}"} for label, value in rows]
    return [{"type": "section", "fields": fields[i : i + _FIELDS]} for i in range(0, len(fields), _FIELDS)]


def _pull(pull: Pull) -> str:
    checks_words = {
        "none": "no checks",
        "pending": "checks are running",
        "success": "checks passed",
        "failure": "checks failed" + (f": {escape(', '.join(pull.failing))}" if pull.failing else ""),
    }
    line = f"<{pull.url}|Pull request #{pull.number}> at {code(pull.head[:10])} — {checks_words[pull.checks]}"
    if pull.merge_commit:
        by = f" by {escape(pull.merged_by)}" if pull.merged_by else ""
        return f"<{pull.url}|Pull request #{pull.number}> merged{by} as {code(pull.merge_commit[:10])}"
    if pull.mergeable is False:
        line += "\n⚠️ It conflicts with the main branch: resolve the conflict on GitHub, or cancel and ask again."
    return line


def _phase_line(op: Operation, index: int, now: datetime) -> str:
    phase = op.phases[index]
    over = phase.ended is not None
    took = show_duration((phase.ended or now) - phase.began)
    failed = over and index == len(op.phases) - 1 and op.status in (Status.FAILED, Status.CANCELLED)
    icon = "✖️" if failed else "✔️" if over else "🔸"
    detail = f" — {escape(phase.detail)}" if phase.detail else ""
    return f"{icon} {escape(phase.name)}{' …' if not over else ''} _{took}_{_cut(detail, 300)}"


def checks(results: tuple[Check, ...]) -> str:
    return "\n".join(
        f"{'✅ passed' if c.passed else '❌ failed'}: {escape(c.name)} — {_cut(escape(c.evidence), 250)}"
        for c in results
    )


def busy_line(lease: Lease, now: datetime) -> str:
    why = f" because {escape(lease.reason)}" if lease.reason else ""
    until = f", until {clock(lease.ends)}" if lease.ends else ", still booting"
    return f"{code(lease.model)} is held by <@{lease.holder}> since {clock(lease.claimed)} ({show_duration(now - lease.claimed)}){until}{why}"


def reminder(lease: Lease, idle: str, cost_usd: float, down_in: str, can_keep: bool) -> View:
    text = f"{lease.model} has been idle for {idle}"
    line = (
        f"💤 <@{lease.holder}> {code(lease.model)} has been idle for {idle}; that cost {money(cost_usd)}."
        f" Without an answer I bring it down in {down_in}."
    )
    buttons = [button("Bring down", BRING_DOWN, lease.model, "primary")]
    if can_keep:
        buttons.append(button("Keep 1 h", KEEP, f"{lease.model}:{lease.fence}"))
    return View(text=text, blocks=[section(line), actions(*buttons)])


def settled_reminder(text: str) -> View:
    return View(text=text, blocks=[section(text)])


def lines(text: str) -> View:
    """A plain answer."""
    return View(text=_cut(text, _TEXT), blocks=[section(part) for part in _paragraphs(text)][:50])


def _paragraphs(text: str) -> list[str]:
    """Cut at line ends into pieces that fit a section."""
    parts, current = [], ""
    for line in text.split("\n"):
        if len(current) + len(line) + 1 > _TEXT - 100:
            parts.append(current)
            current = ""
        current += ("\n" if current else "") + line
    return [*parts, current]


def add_form(name: str, channel: str, template: str) -> dict[str, Any]:
    """The modal of `/model add NAME` without a model."""

    def field(block: str, label: str, *, optional: bool, placeholder: str) -> dict[str, Any]:
        return {
            "type": "input",
            "block_id": block,
            "optional": optional,
            "label": {"type": "plain_text", "text": label},
            "element": {
                "type": "plain_text_input",
                "action_id": "value",
                "placeholder": {"type": "plain_text", "text": placeholder},
            },
        }

    return {
        "type": "modal",
        "callback_id": "model_add",
        "private_metadata": f"{channel} {name}",
        "title": {"type": "plain_text", "text": "Add a model"},
        "submit": {"type": "plain_text", "text": "Open pull request"},
        "close": {"type": "plain_text", "text": "Cancel"},
        "blocks": [
            section(f"A new endpoint {code(name)}, made like {code(template)}."),
            field("hf_id", "Model on Hugging Face", optional=False, placeholder="Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"),
            field("context", "Context", optional=True, placeholder="the largest that fits, at most the template's"),
            field("served", "Served name", optional=True, placeholder="from the model's name"),
        ],
    }


def link(message: Message) -> str:
    return f"<#{message.channel}>"
