"""Comments that accept a finding: `# stoker: ignore RULE: reason`, on the line of the finding or above it.

In Markdown the comment is `<!-- stoker: ignore RULE: reason -->`. Several rules are separated by commas.
"""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from manifests.rules.finding import Finding
from manifests.rules.table import RULES
from manifests.tree import Tree

_MARK = "stoker: ignore"
_COMMENT = re.compile(r"(?:#|<!--|//)\s*stoker: ignore(?![\w-])(?P<rules>[^:\n]*)(?::(?P<reason>.*))?$")
_OWN = "suppression"


class _Suppression(NamedTuple):
    path: str
    line: int
    covers: range
    rules: tuple[str, ...]
    reason: str


def suppressed(tree: Tree, findings: Collection[Finding], *, complete: bool) -> list[Finding]:
    """Return the findings that no comment accepts, and one finding for each wrong comment.

    A comment without a matching finding is reported only if all endpoints were checked (`complete`).
    """
    every = [suppression for path in tree.grep(_MARK) for suppression in _suppressions(path, tree.read(path) or "")]
    remaining: list[Finding] = []
    used: set[_Suppression] = set()
    for finding in findings:
        accepting = [
            suppression
            for suppression in every
            if suppression.path == finding.path
            and finding.line in suppression.covers
            and finding.rule in suppression.rules
            and suppression.reason
        ]
        used |= set(accepting)
        if not accepting:
            remaining.append(finding)
    return remaining + [
        Finding(rule=_OWN, path=suppression.path, line=suppression.line, message=problem[0], fix=problem[1])
        for suppression in every
        if (problem := _problem(suppression, complete and suppression not in used))
    ]


def _suppressions(path: str, text: str) -> Iterator[_Suppression]:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _COMMENT.search(line)
        if match is None:
            continue
        last = number
        if not line[: match.start()].strip():  # a comment alone on its line applies to the next line
            while last + 1 < len(lines) and (last == number or _is_comment(lines[last])):
                last += 1
        rules = tuple(rule for rule in re.split(r"[\s,]+", match["rules"].strip()) if rule)
        reason = (match["reason"] or "").removesuffix("-->").strip()
        yield _Suppression(path, number + 1, range(number + 1, last + 2), rules, reason)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("#", "<!--", "//"))


def _problem(suppression: _Suppression, unused: bool) -> tuple[str, str] | None:
    example = f"# {_MARK} RULE: reason"
    unknown = [rule for rule in suppression.rules if rule not in RULES]
    if not suppression.rules:
        return "this comment names no rule", example
    if unknown:
        return f"{', '.join(unknown)} is not a rule", "name a rule of docs/contract.md"
    if not suppression.reason:
        return f"{', '.join(suppression.rules)} is ignored without a reason", example
    if unused:
        return f"there is no finding of {', '.join(suppression.rules)} on this line", "remove the comment"
    return None
