"""The progress of an operation on its card: the phases with their times, and the results of the smoke tests."""

from datetime import datetime, timedelta

from bot.domain.operations import Check, Operation, PhaseRecord, Status
from bot.domain.phases import Phase
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md
from bot.views.blocks import Block, context
from bot.views.newer import Task, steps
from bot.views.text import inline, plain

_PHASES = 20
"""Maximum number of phases on a card."""


def progress(op: Operation, now: datetime) -> Block:
    """Each phase with its time: done, running, pending. One line after a success."""
    if op.status is Status.SUCCEEDED:
        duration = show_duration((op.phases[-1].ended or now) - op.phases[0].began)
        course = md(" → ").join(
            md("{name} {duration}", name=inline(phase.text, 60), duration=_phase_duration(phase, now))
            for phase in op.phases[-_PHASES:]
        )
        return context(md("✔️ {duration}: {course}", duration=duration, course=course))
    phases = op.phases[-_PHASES:]
    tasks = [_step(phase, now) for phase in phases]
    if op.status is Status.RUNNING and not op.failure and not op.cancelled_by:
        tasks += [Task(phase.key, phase.label, "pending") for phase in _pending_phases(op)]
    return steps(_steps_title(op, len(op.phases) - len(phases) + len(tasks)), tasks)


def _steps_title(op: Operation, count: int) -> str:
    if phase := op.running_phase:
        return f"Step {len(op.phases)} of {count}: {phase.text}"
    failed = next((phase for phase in op.phases if phase.failed), None)
    return f"Failed: {failed.text}" if failed else f"{len(op.phases)} of {count} steps are done"


def _pending_phases(op: Operation) -> tuple[Phase, ...]:
    course = op.request.kind.spec.phases
    keys = [phase.key for phase in course]
    past = [keys.index(phase.name) for phase in op.phases if phase.name in keys]
    return course[max(past) + 1 :] if past else ()


def _step(phase: PhaseRecord, now: datetime) -> Task:
    """The phase as a step. Its detail is shown while the phase runs and if it failed."""
    name, duration = plain(phase.text)[:60], _phase_duration(phase, now)
    detail = inline(phase.detail, 200) if phase.detail else md("")
    if phase.ended is None:
        return Task(phase.name, f"{name} … {duration}", "in_progress", detail)
    done_text = f"{name} · {duration}"
    return Task(phase.name, done_text, "error", detail) if phase.failed else Task(phase.name, done_text, "complete")


def _phase_duration(phase: PhaseRecord, now: datetime) -> str:
    return show_duration(max((phase.ended or now) - phase.began, timedelta()))


def smoke_tests(results: tuple[Check, ...]) -> Mrkdwn:
    """Failed tests with their evidence, passed tests by name (their evidence is in the thread)."""
    good = [check for check in results if check.passed and not check.warning]
    rows = [_check(check) for check in results if check not in good][:10]
    if good:
        names = md(", ").join(inline(check.name, 80) for check in good[:20])
        rows.append(md("✅ {good} of {all} passed: {names}", good=len(good), all=len(results), names=names))
    return md("*Smoke tests* (evidence in the thread)\n") + md("\n").join(rows)


def _check(check: Check) -> Mrkdwn:
    icon = "❌ failed:" if not check.passed else "⚠️" if check.warning else "✅"
    return md(
        "{icon} {name} — {evidence}", icon=icon, name=inline(check.name, 80), evidence=inline(check.evidence, 500)
    )
