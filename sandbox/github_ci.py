"""CI of the sandbox's repository: check runs with their suites and workflows, and commit statuses.

The formats follow https://docs.github.com/en/rest/checks/runs, https://docs.github.com/en/rest/actions/workflow-runs
and https://docs.github.com/en/rest/commits/statuses. As on GitHub, each run of a workflow has its own check suite,
two workflows may have a check of the same name, and a restarted run leaves the older one in the list.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sandbox.clock import real_date

Json = dict[str, Any]
Conclusion = Literal[
    "success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required", "stale", "startup_failure"
]
State = Literal["success", "failure", "error", "pending"]

APP = {"id": 15368, "slug": "github-actions", "name": "GitHub Actions"}
"""The App of GitHub Actions, with its real id."""
CHECK, WORKFLOW = "ci", "ci.yaml"
"""The repository's default check, and its workflow."""


@dataclass
class CheckRun:
    """One check of a commit: in progress until it has a conclusion."""

    id: int
    name: str
    suite: int
    workflow: str
    started_at: str
    conclusion: Conclusion | None = None
    completed_at: str | None = None


@dataclass(frozen=True)
class CommitStatus:
    """A commit status of an older CI, under its own context."""

    id: int
    context: str
    state: State
    created_at: str


@dataclass
class CI:
    """The check runs and statuses of every commit."""

    address: str = ""
    """The URL of the repository's page, for links."""
    appears: bool = True
    """True if the head of a pull request gets a check run."""
    date: Callable[[], datetime] = real_date
    _runs: dict[str, list[CheckRun]] = field(default_factory=dict)
    _statuses: dict[str, list[CommitStatus]] = field(default_factory=dict)
    _ids: int = 1000

    def now(self) -> str:
        """Return the current time in GitHub's format."""
        return self.date().strftime("%Y-%m-%dT%H:%M:%SZ")

    def start(self, sha: str) -> bool:
        """Start the default check of a commit if it has none; returns whether it was started."""
        if not self.appears or self._runs.get(sha):
            return False
        self.add(sha)
        return True

    def add(
        self,
        sha: str,
        name: str = CHECK,
        conclusion: Conclusion | None = None,
        *,
        workflow: str = WORKFLOW,
        suite: int | None = None,
    ) -> CheckRun:
        """Add a run of a check and return it. Without `suite`, it is a workflow run with a suite of its own."""
        self._ids += 1
        at = self.now()
        ended = at if conclusion else None
        run = CheckRun(
            self._ids, name, self._ids + 500_000 if suite is None else suite, workflow, at, conclusion, ended
        )
        self._runs.setdefault(sha, []).append(run)
        return run

    def forget(self, sha: str) -> None:
        """Remove all checks of this commit."""
        self._runs.pop(sha, None)

    def complete(self, sha: str, conclusion: Conclusion) -> CheckRun:
        """Complete the newest run of the default check; if there is none, start it first."""
        runs = [run for run in self._runs.get(sha, []) if run.name == CHECK]
        run = runs[-1] if runs else self.add(sha)
        run.conclusion, run.completed_at = conclusion, self.now()
        return run

    def state(self, sha: str, context: str, state: State) -> None:
        """Set a commit status, as an older CI does; the newest of each context counts."""
        self._ids += 1
        self._statuses.setdefault(sha, []).append(CommitStatus(self._ids, context, state, self.now()))

    def is_running(self, sha: str) -> bool:
        return any(run.conclusion is None for run in self._runs.get(sha, []))

    def verdict(self, sha: str) -> Literal["success", "failure", "pending"]:
        """Return the result of all runs as one word, for the page."""
        ends = [run.conclusion for run in self._runs.get(sha, [])]
        if not ends or None in ends:
            return "pending"
        return "success" if set(ends) <= {"success", "neutral", "skipped"} else "failure"

    # JSON

    def runs(self, sha: str) -> list[Json]:
        """Return the runs as JSON, newest first, as GitHub lists them."""
        return [self.run_json(sha, run) for run in reversed(self._runs.get(sha, []))]

    def run_json(self, sha: str, run: CheckRun) -> Json:
        return {
            "id": run.id,
            "name": run.name,
            "head_sha": sha,
            "status": "completed" if run.conclusion else "in_progress",
            "conclusion": run.conclusion,
            "started_at": run.started_at,
            "completed_at": run.completed_at,
            "html_url": f"{self.address}/runs/{run.id}",
            "details_url": f"{self.address}/actions/runs/{run.suite - 400_000}/job/{run.id}",
            "check_suite": {"id": run.suite},
            "app": APP,
            "pull_requests": [],
        }

    def workflow_runs(self, sha: str) -> list[Json]:
        """Return the workflow runs as JSON, one per suite."""
        suites = {run.suite: run for run in self._runs.get(sha, [])}
        return [
            {
                "id": run.suite - 400_000,
                "name": run.workflow.partition(".")[0],
                "path": f".github/workflows/{run.workflow}",
                "workflow_id": sum(run.workflow.encode()),
                "check_suite_id": run.suite,
                "head_sha": sha,
                "event": "pull_request",
                "run_attempt": 1,
                "status": "completed" if run.conclusion else "in_progress",
                "conclusion": run.conclusion,
            }
            for run in reversed(suites.values())
        ]

    def combined(self, sha: str) -> Json:
        """Return the combined status: the newest of each context. Without any, GitHub returns pending with a count of 0."""
        newest = {status.context: status for status in self._statuses.get(sha, [])}
        states = {status.state for status in newest.values()}
        state = "failure" if states & {"failure", "error"} else "success" if states == {"success"} else "pending"
        statuses = [
            {"id": status.id, "context": status.context, "state": status.state, "created_at": status.created_at}
            for status in newest.values()
        ]
        return {"state": state, "sha": sha, "total_count": len(statuses), "statuses": statuses}
