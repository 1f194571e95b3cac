"""Formats the findings of `stoker model check` as text, JSON and GitHub annotations, and the rules for docs/contract.md."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from manifests.contract import Finding
from manifests.rules import reference

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}


NotChecked = Sequence[tuple[str, str]]
"""Directories that are not checked: the path and the reason."""


def as_plain(names: Sequence[str], findings: Sequence[Finding], not_checked: NotChecked = ()) -> str:
    """One finding per line, in the format of compilers, then the suggestions, the unchecked directories and a summary."""
    faults, advice = _parted(findings)
    lines = [
        f"{finding.path}:{finding.line}: {_rule(finding)}: {finding.message}. Fix: {finding.fix}"
        for finding in (*faults, *advice)
    ]
    lines += [f"{path}: not checked: {reason}." for path, reason in not_checked]
    result = _count(len(faults), "finding") if faults else "all files agree"
    more = f" {_count(len(advice), 'suggestion')} for faster starts." if advice else ""
    return "\n".join([*lines, f"{_count(len(names), 'endpoint')}: {result}.{more}"])


def _parted(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """The problems, and the suggestions for faster starts."""
    faults = [finding for finding in findings if not finding.is_advice]
    return faults, [finding for finding in findings if finding.is_advice]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _rule(finding: Finding) -> str:
    return finding.rule if finding.severity == "error" else f"{finding.severity}: {finding.rule}"


def as_json(names: Sequence[str], findings: Sequence[Finding], not_checked: NotChecked = ()) -> str:
    """A JSON object: the endpoints' names, `findings`, `advice` (each {rule, severity, path, line, message, fix}) and `not_checked`."""
    faults, advice = ([finding.model_dump() for finding in part] for part in _parted(findings))
    answer = {"endpoints": list(names), "findings": faults, "advice": advice, "not_checked": dict(not_checked)}
    return json.dumps(answer, indent=2)


def as_github(findings: Sequence[Finding], checkout: Path) -> str:
    """Annotations of a workflow run ("Workflow commands for GitHub Actions"). Paths are relative to the run's directory."""
    prefix = Path(os.path.relpath(checkout))
    return "".join(
        f"::{_LEVELS[finding.severity]} file={_property((prefix / finding.path).as_posix())},line={finding.line},"
        f"title={_property(f'stoker: {finding.rule}')}::{_data(f'{finding.message}. Fix: {finding.fix}')}\n"
        for finding in findings
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def document(path: str) -> None:
    """Replace the table of rules between its two markers in a Markdown file."""
    file = Path(path)
    text = file.read_text(encoding="utf-8")
    head, _, old_table = text.partition("<!-- rules -->\n")
    _, marker, tail = old_table.partition("<!-- end of rules -->")
    file.write_text(f"{head}<!-- rules -->\n{reference()}{marker}{tail}", encoding="utf-8")
