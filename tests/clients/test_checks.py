"""CI results are identified by App, workflow and name, and the newest result of each counts."""

from typing import Any

import pytest

from bot.clients.checks import CI, combined, has_namesakes

ACTIONS, OTHER = {"id": 15368, "slug": "github-actions"}, {"id": 7, "slug": "jenkins"}


def run(name: str, end: str | None, *, at: int, suite: int = 1, app: Any = ACTIONS) -> dict[str, Any]:
    """A check run that began at minute `at`; without an end it is still running."""
    return {
        "id": 1000 + at,
        "name": name,
        "status": "completed" if end else "in_progress",
        "conclusion": end,
        "started_at": f"2026-11-29T05:{at:02}:00Z",
        "completed_at": f"2026-11-29T06:{at:02}:00Z" if end else None,
        "app": app,
        "check_suite": {"id": suite},
    }


def status(context: str, state: str, at: int) -> dict[str, Any]:
    return {"id": at, "context": context, "state": state, "created_at": f"2026-11-29T05:{at:02}:00Z"}


@pytest.mark.parametrize("workflows_known", [True, False])
def test_a_name_that_is_red_in_one_workflow_and_green_in_another_is_red(workflows_known: bool) -> None:
    """The result is the same whether or not the token may read the workflow of a suite."""
    runs = [run("build", "success", at=2, suite=2), run("build", "failure", at=1, suite=1)]
    assert has_namesakes(runs)
    ci = combined(runs, [], {"1": "lint", "2": "test"} if workflows_known else {})
    assert (ci.verdict, ci.failing, ci.names) == ("failure", ("build",), ("build",))


def test_a_red_run_and_a_green_status_of_one_name_are_red() -> None:
    """The result is the same in the reverse order."""
    assert combined([run("ci", "failure", at=1)], [status("ci", "success", 2)], {}).verdict == "failure"
    assert combined([run("ci", "success", at=2)], [status("ci", "error", 1)], {}).verdict == "failure"


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("older", ["cancelled", "failure"])
def test_the_newest_run_of_a_workflow_counts(suite: int, older: str) -> None:
    """The order does not matter, and the run may be in the same suite or in another run of the workflow."""
    runs = [run("ci", "success", at=5, suite=suite), run("ci", older, at=1)]
    for listed in (runs, runs[::-1]):
        assert combined(listed, [], {"1": "ci", "2": "ci"}).verdict == "success"


def test_a_cancelled_run_does_not_count_beside_a_newer_one() -> None:
    """This is true even if the workflows are unknown; a cancelled run counts if it is the newest."""
    older, newer = run("ci", "cancelled", at=1, suite=1), run("ci", "success", at=2, suite=2)
    assert combined([newer, older], [], {}).verdict == "success"
    assert combined([run("ci", "cancelled", at=3, suite=3), newer], [], {}).verdict == "failure"


def test_a_check_that_runs_again_is_awaited() -> None:
    """It is awaited whether the earlier result was red or green."""
    for before in ("failure", "success"):
        runs = [run("ci", before, at=1), run("ci", None, at=2)]
        assert combined(runs, [], {}).verdict == "pending"


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        *[(end, "success") for end in ("success", "neutral", "skipped")],
        *[(end, "failure") for end in ("failure", "timed_out", "action_required", "stale", "startup_failure", "new")],
    ],
)
def test_conclusions_pass_as_on_github(end: str, verdict: str) -> None:
    """An unknown conclusion does not pass."""
    assert combined([run("ci", end, at=1)], [], {}).verdict == verdict


def test_two_apps_are_two_checks() -> None:
    """The name is not sufficient to identify a check."""
    runs = [run("ci", "success", at=2), run("ci", "failure", at=1, app=OTHER)]
    assert combined(runs, [], {}).failing == ("ci",)


def test_no_results_are_not_a_failure() -> None:
    """The newest status of a context counts, and unreadable kinds are listed."""
    assert combined([], [], {}, ("check runs",)) == CI(verdict="none", unread=("check runs",))
    states = [status("a", "failure", 1), status("a", "success", 2)]
    assert combined([], states[::-1], {}).verdict == "success"
    assert combined([], [status("a", "pending", 1)], {}).verdict == "pending"
