"""The CI results of a commit: check runs (Actions, Apps) and commit statuses (older CI). Pure: JSON in, values out.

A name does not identify a check: two workflows, or two Apps, may have a check of the same name. The list also contains
the older runs of a check that ran again. Results are therefore identified by App, workflow and name, and only the
newest result of each check counts (https://docs.github.com/en/rest/checks/runs,
https://docs.github.com/en/rest/commits/statuses).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

PASSED = frozenset({"success", "neutral", "skipped"})
"""Conclusions with which a required check passes; GitHub does not merge with any other conclusion
(https://docs.github.com/en/pull-requests/collaborating-with-pull-requests/collaborating-on-repositories-with-code-quality-features/about-status-checks).
"""
_SUPERSEDED = frozenset({"cancelled", "stale"})
"""Conclusions of a run that was replaced by a newer one, or abandoned by GitHub."""

Json = Mapping[str, Any]
Verdict = Literal["none", "pending", "success", "failure"]
_Key = tuple[str, str, str]


class CI(BaseModel, frozen=True, defer_build=True):
    """The combined checks of a commit. `names` are the names of all checks. `unread` are the kinds of checks that the
    token may not read.
    """

    verdict: Verdict
    failing: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


class Expected(BaseModel, frozen=True, defer_build=True):
    """The checks that a pull request should have: required by rules, or present on all recent pull requests."""

    required: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()


def required(branch: Json, rules: Iterable[Json]) -> tuple[str, ...]:
    """The checks that a branch's protection and its rulesets require, by name."""
    protection = branch.get("protection") or {}
    protected = (protection.get("required_status_checks") or {}) if protection.get("enabled") else {}
    names = {
        *map(str, protected.get("contexts") or ()),
        *(str(check["context"]) for check in protected.get("checks") or ()),
    }
    for rule in rules:
        if rule.get("type") == "required_status_checks":
            checks = (rule.get("parameters") or {}).get("required_status_checks") or ()
            names |= {str(check["context"]) for check in checks}
    return tuple(sorted(names))


def combined(
    runs: Iterable[Json], statuses: Iterable[Json], workflows: Mapping[str, str], unread: tuple[str, ...] = ()
) -> CI:
    """Combine the newest results of all checks. `workflows` maps a check suite to its workflow, if known.

    A suite with an unknown workflow counts as a separate workflow, and its cancelled runs are ignored if a newer run
    has the same App and name.
    """
    listed = list(runs)
    newest: dict[_Key, Json] = {}
    for run in listed:
        key = _key(run, workflows)
        if key not in newest or _age(run) >= _age(newest[key]):
            newest[key] = run
    current = [run for run in newest.values() if not _is_superseded(run, listed, workflows)]
    results = [(str(run["name"]), _result(run)) for run in current]
    contexts: dict[str, Json] = {}
    for status in statuses:
        newest_status = contexts.get(status["context"])
        if newest_status is None or _age(status) >= _age(newest_status):
            contexts[status["context"]] = status
    results += [(name, _state(status)) for name, status in contexts.items()]
    failing = tuple(sorted({name for name, result in results if result == "failure"}))
    names = tuple(sorted({name for name, _ in results}))
    verdict: Verdict = "success" if results else "none"
    if failing:
        verdict = "failure"
    elif any(result == "pending" for _, result in results):
        verdict = "pending"
    return CI(verdict=verdict, failing=failing, names=names, unread=unread)


def has_namesakes(runs: Iterable[Json]) -> bool:
    """Return whether several check suites have a check of the same name, so that their workflows must be read."""
    suites: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        suites.setdefault((_app(run), str(run["name"])), set()).add(_suite(run))
    return any(len(suite_ids) > 1 for suite_ids in suites.values())


def _key(run: Json, workflows: Mapping[str, str]) -> _Key:
    return _app(run), workflows.get(_suite(run)) or f"suite {_suite(run)}", str(run["name"])


def _app(run: Json) -> str:
    app = run.get("app") or {}
    return str(app.get("id") or app.get("slug") or "")


def _suite(run: Json) -> str:
    return str((run.get("check_suite") or {}).get("id") or "")


def _is_superseded(run: Json, runs: Iterable[Json], workflows: Mapping[str, str]) -> bool:
    if run.get("conclusion") not in _SUPERSEDED or _suite(run) in workflows:
        return False
    return any(
        _app(candidate) == _app(run) and candidate["name"] == run["name"] and _age(candidate) > _age(run)
        for candidate in runs
    )


def _age(result: Json) -> tuple[float, int]:
    """A sort key: the start time and the id of a result. A run that has not started counts as the newest."""
    began = result.get("started_at") or result.get("created_at") or result.get("completed_at") or ""
    try:
        started = datetime.fromisoformat(str(began)).timestamp()
    except ValueError:
        started = float("inf") if result.get("status") not in ("completed", None) else 0.0
    return started, int(result.get("id") or 0)


def _result(run: Json) -> Verdict:
    if run.get("status") != "completed":
        return "pending"
    return "success" if run.get("conclusion") in PASSED else "failure"


def _state(status: Json) -> Verdict:
    match status.get("state"):
        case "success":
            return "success"
        case "pending":
            return "pending"
        case _:
            return "failure"
