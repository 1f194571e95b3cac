"""The plans to which approvals are bound: one type per kind of operation.

The stored fields have the names of earlier versions of Stoker, which had one type for all kinds, so that both versions
can read the records.
"""

import hashlib
from datetime import datetime
from enum import Enum
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from bot.domain.leases import Lease
from bot.domain.values import Value
from bot.text.mrkdwn import Mrkdwn, md


class Pull(Value):
    """The pull request of an operation, as last read."""

    number: int
    url: str
    branch: str
    head: str
    base: str = ""
    """The base branch."""
    checks: str = "pending"
    failing: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """The names of the checks."""
    unread: tuple[str, ...] = ()
    """The kinds of CI results that the token may not read."""
    since: datetime | None = None
    """The time when its head or its checks last changed."""
    lacks: Mrkdwn = Mrkdwn()
    """The missing conditions for an approval, in words that follow "when"; empty if nothing is missing."""
    looked: bool = False
    """True if `lacks` was determined; False in records of an earlier version of Stoker."""
    auto_merge_by: str = ""
    """The user who enabled auto-merge on GitHub."""
    mergeable: bool | None = None
    blocked: bool = False
    """True if a GitHub rule (e.g. a required review) blocks the merge."""
    approved_by: tuple[str, ...] = ()
    rejected_by: tuple[str, ...] = ()
    """GitHub logins of the people whose last review approved (`approved_by`) or requested changes (`rejected_by`)."""
    merged_by: str = ""
    merge_commit: str = ""


class OwnChange(Value):
    """The change that the bot pushed: the baseline if somebody else pushes to the branch."""

    files: tuple[str, ...] = ()
    template: str = ""
    """The endpoint with which the change is compared: the endpoint itself, or the template of a new one."""
    rows: tuple[tuple[str, str], ...] = ()
    """The rows that describe a change without an endpoint: a removal, a revert."""
    warnings: tuple[str, ...] = ()
    sizing: str = ""
    removes: bool = False
    """True if it removes the endpoint: a removal, or the revert of an addition."""


class WithoutLease(Enum):
    """The endpoint runs, and nobody holds the GPU for it."""

    WITHOUT_LEASE = "-"


WITHOUT_LEASE = WithoutLease.WITHOUT_LEASE


def _read_holder(value: object) -> object:
    return {"": None, WITHOUT_LEASE.value: WITHOUT_LEASE}.get(value, value) if isinstance(value, str) else value


def stored_holder(holder: str | WithoutLease | None) -> str:
    """The holder as a string, for records and digests."""
    return holder.value if isinstance(holder, WithoutLease) else holder or ""


Holder = Annotated[str | WithoutLease | None, BeforeValidator(_read_holder), PlainSerializer(stored_holder)]
"""The Slack id of the endpoint's holder; None if the endpoint is down. It is stored as a string."""


class _Plan(Value):
    commit: str
    """The commit of the main branch for which the plan was made, 40 hex digits."""
    rows: tuple[tuple[str, str], ...] = ()
    """The rows of the card: label and text."""

    @property
    def mark(self) -> str:
        """A short hash of the plan on the card, for its buttons.

        It does not include the state of checks and traffic, which changes often and is checked again before the work.
        """
        return _mark(self.rows)


class BringUpPlan(_Plan):
    bound: tuple[tuple[str, str], ...] = ()
    """The content to deploy: the name of each part (a file, an Application) and its digest. If one differs, the plan is
    void.
    """
    warnings: tuple[str, ...] = ()
    applications: tuple[str, ...]
    estimate_usd: float
    lease: Lease | None = None
    """The lease that it replaces: the plan is void if another session has the GPU now."""

    @property
    def mark(self) -> str:
        return _mark(
            self.rows, bound=self.bound, warnings=self.warnings, applications=self.applications, lease=self.lease
        )


class ExtendPlan(_Plan):
    lease: Lease
    """The lease that it extends: the plan is void if another session has the GPU now."""
    estimate_usd: float

    @property
    def mark(self) -> str:
        return _mark(self.rows, lease=self.lease)


class ReleasePlan(_Plan):
    lease: Lease
    """The lease that it breaks: the plan is void if another session has the GPU now."""

    @property
    def mark(self) -> str:
        return _mark(self.rows, lease=self.lease)


class ChangePlan(_Plan):
    """The plan of a pull request and its roll-out."""

    bound: tuple[tuple[str, str], ...] = ()
    """The content to deploy after the merge: the name of each part (a file, the gateway's entry, an Application) and its
    digest. If one differs, the plan is void.
    """
    warnings: tuple[str, ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    """The rows of the endpoint on the main branch, if it exists there: the card shows the differences."""
    applications: tuple[str, ...] = ()
    pull: Pull
    pushed: str
    """The commit that the bot pushed. If the head is another commit, somebody else has pushed."""
    own: Annotated[OwnChange, BeforeValidator(lambda own: own or OwnChange())] = OwnChange()
    """The bot's own change, before anybody else pushed to its branch; empty in records of an earlier version of Stoker."""
    problems: tuple[str, ...] = ()
    """Violations of the contract on the branch, with file and line: they block the merge."""
    read: str = ""
    """The head, main branch and Applications from which the rows were read."""
    target: str = ""
    """The commit to deploy, after the pull request is merged."""
    holder: Holder = None
    """The holder of the GPU for the endpoint that restarts; None if nothing restarts."""
    displaced: Mrkdwn = Mrkdwn()
    """A warning about the traffic that the roll-out interrupts, for the card; empty if the endpoint is down."""
    stages: bool = False
    """True if the new weights are staged before the merge, so that the cut-over needs no download."""

    @property
    def lacks(self) -> Mrkdwn:
        """The missing conditions for an approval, in words that follow "when"; empty if nothing is missing."""
        if self.pull.merge_commit:
            return md("")
        if self.problems:
            return md("its branch contains only the change, and follows the contract")
        if self.pull.looked:
            return self.pull.lacks
        if self.pull.mergeable is False:
            return md("the conflict is resolved")
        return md("") if self.pull.checks in ("success", "none") else md("its checks have passed")

    @property
    def mark(self) -> str:
        pull = self.pull
        return _mark(
            self.rows,
            bound=self.bound,
            warnings=self.warnings,
            problems=self.problems,
            applications=self.applications,
            holder=stored_holder(self.holder),
            pull=(pull.number, pull.base, pull.branch, pull.head, pull.merge_commit),
        )


class JobPlan(_Plan):
    """The plan of a Job in the cluster: a benchmark, or the staging of weights."""


Plan = BringUpPlan | ExtendPlan | ReleasePlan | ChangePlan | JobPlan


def _mark(
    rows: tuple[tuple[str, str], ...],
    *,
    bound: tuple[tuple[str, str], ...] = (),
    warnings: tuple[str, ...] = (),
    problems: tuple[str, ...] = (),
    applications: tuple[str, ...] = (),
    holder: str = "",
    pull: tuple[object, ...] | None = None,
    lease: Lease | None = None,
) -> str:
    """Compute the hash of a plan. It must not change between versions of Stoker: the buttons of posted cards contain
    it.
    """
    lease_part = lease and (lease.model, lease.op, lease.fence, str(lease.ends))
    parts = (bound, rows, warnings, problems, applications, holder, pull, lease_part)
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()[:10]
