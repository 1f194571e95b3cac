"""The thread below a card: the evidence of smoke tests, log lines, comparisons, diagnoses."""

import hashlib
from collections.abc import Sequence

from bot.domain.operations import Check, Note, Operation, TestedOperation
from bot.text.mrkdwn import Mrkdwn, md
from bot.views.blocks import Blocks, View, preformatted, section, trimmed_to_limits
from bot.views.newer import table
from bot.views.text import inline


def thread(op: Operation) -> tuple[tuple[str, View], ...]:
    """The messages of the thread by key. A message is posted once per key, which changes with the content."""
    posts = []
    if isinstance(op, TestedOperation) and op.checks:
        blocks = [section(md("*Smoke tests: {summary}*", summary=_summary(op.checks)))]
        blocks.append(table(("Test", "Result", "Evidence"), [_result(check) for check in op.checks[:40]]))
        posts.append((f"smoke:{_digest(op.checks)}", View(text=md("Smoke tests"), blocks=trimmed_to_limits(blocks))))
    for note in op.notes[:20]:
        blocks = [section(md("*{title}*", title=inline(note.title, 200))), *_note_blocks(note)]
        posts.append((f"note:{_digest(note)}", View(text=inline(note.title, 200), blocks=trimmed_to_limits(blocks))))
    return tuple(posts)


def _note_blocks(note: Note) -> Blocks:
    """Log lines without markup, or a table with a sentence below it."""
    if not note.rows:
        return [preformatted(note.text)]
    header, *rows = note.rows
    return [table(header, rows, right=range(1, len(header))), section(inline(note.text, 1000))]


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "replace")).hexdigest()[:12]


def _summary(checks: Sequence[Check]) -> str:
    """The summary of the tests. A warning may mean that the result is unknown, so it does not count as passed."""
    warned = sum(check.passed and check.warning for check in checks)
    if not all(check.passed for check in checks):
        return "not all passed"
    return f"{len(checks) - warned} of {len(checks)} passed, {warned} with a warning" if warned else "all passed"


def _result(check: Check) -> tuple[Mrkdwn, Mrkdwn, Mrkdwn]:
    """A row of the table of smoke tests."""
    result = md("❌ failed") if not check.passed else md("⚠️ warning") if check.warning else md("✅ passed")
    return inline(check.name, 80), result, inline(check.evidence, 500)
