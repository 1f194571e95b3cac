"""`stoker doctor`: prints the findings as lines or as JSON."""

import json
from collections.abc import Sequence

from bot.doctor import Finding

_MARKS = {"ok": "ok     ", "warning": "WARNING", "wrong": "WRONG  "}


def report(findings: Sequence[Finding]) -> str:
    """One line per finding, with the fix below; the last line is a summary."""
    width = max(len(finding.system) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.verdict]}  {finding.system.ljust(width)}  {finding.message}")
        if finding.fix:
            lines.append(f"{' ' * (width + 11)}→ {finding.fix}")
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    warnings = sum(finding.verdict == "warning" for finding in findings)
    lines.append(f"{len(findings)} checks: {wrong} wrong, {warnings} warnings.")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """`{"ok": bool, "findings": [{"system", "verdict", "said", "fix"}]}`; `said` is the message."""
    works = all(finding.verdict != "wrong" for finding in findings)
    rows = [finding.model_dump(by_alias=True) for finding in findings]
    return json.dumps({"ok": works, "findings": rows}, indent=2, ensure_ascii=False)
