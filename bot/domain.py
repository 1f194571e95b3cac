"""What an operation, a plan and a lease are, and which changes they allow. Frozen values, pure functions."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bot.errors import BotError


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Kind(StrEnum):
    GPU_UP = "gpu up"
    GPU_DOWN = "gpu down"
    GPU_EXTEND = "gpu extend"
    GPU_RELEASE = "gpu release"
    MODEL_ADD = "model add"
    MODEL_SWAP = "model swap"
    MODEL_REMOVE = "model remove"
    MODEL_REVERT = "model revert"
    MODEL_SMOKE = "model smoke"
    MODEL_BENCH = "model bench"

    @property
    def changes(self) -> bool:
        """Whether it goes through a pull request."""
        return self in (Kind.MODEL_ADD, Kind.MODEL_SWAP, Kind.MODEL_REMOVE, Kind.MODEL_REVERT)

    @property
    def approved(self) -> bool:
        """Whether it may need somebody's approval before it runs."""
        return self not in (Kind.GPU_DOWN, Kind.MODEL_SMOKE, Kind.MODEL_BENCH)


class Status(StrEnum):
    """`requested → awaiting approval → approved → running → …`; the last six are final.

    `waiting for the GPU` comes before the approval, or after it when somebody else was quicker.
    `refused` is our addition to the specification: a request that could not work, told to its sender alone.
    """

    REQUESTED = "requested"
    WAITING = "waiting for the GPU"
    AWAITING = "awaiting approval"
    APPROVED = "approved"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        return self not in (Status.REQUESTED, Status.WAITING, Status.AWAITING, Status.APPROVED, Status.RUNNING)


class AlreadyDecided(BotError):
    """A click or an event came too late."""

    remedy = "Nothing: the message says who decided, and when."


class Request(_Value):
    """What a person asked for, as they said it."""

    kind: Kind
    model: str
    actor: str
    """Slack user id; empty when the bot itself asks (idle, end of lease)."""
    channel: str
    at: datetime
    hold: timedelta | None = None
    reason: str = ""
    keep: bool = False
    """Leave the model up even if its smoke tests fail, for somebody to look at."""
    hf_id: str = ""
    options: tuple[tuple[str, str], ...] = ()
    up: bool = False
    """After a roll-out: bring the endpoint up under the same approval, and down again when it has answered, but for `keep`."""
    trial: bool = False
    """A bring-up that ends in a bring-down as soon as its smoke tests have passed."""
    reverts: str = ""
    """The id of the operation whose pull request is to be reverted."""


class Pull(_Value):
    """The pull request of an operation, as last seen."""

    number: int
    url: str
    branch: str
    head: str
    checks: str = "pending"
    failing: tuple[str, ...] = ()
    mergeable: bool | None = None
    blocked: bool = False
    """Whether a rule of GitHub's, like a review that is required, does not let it be merged yet."""
    approved_by: tuple[str, ...] = ()
    rejected_by: tuple[str, ...] = ()
    """GitHub logins: whose last review there approved, or asked for changes."""
    merged_by: str = ""
    merge_commit: str = ""


class Plan(_Value):
    """What will be done: what approval is given to, and bound to."""

    commit: str
    """The commit of the main branch at which the plan was made, 40 hex digits."""
    tree: str = ""
    """Git's id of the endpoint's folder at `commit`: the plan is void when main's differs."""
    rows: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    applications: tuple[str, ...] = ()
    estimate_usd: float | None = None
    pull: Pull | None = None
    lease: "Lease | None" = None
    """Whose lease it replaces, prolongs or breaks: the plan is void when the GPU has changed hands since."""
    pushed: str = ""
    """The commit that the bot pushed for the pull request: while it is the head, nobody else has built upon it."""
    displaced: str = ""
    """Whose traffic a roll-out interrupts, as text for the card; empty when the endpoint is down."""
    holder: str = ""
    """Slack id of who holds the GPU for the endpoint that restarts, `-` when it is up and nobody does."""


class Vote(_Value):
    by: str
    at: datetime
    approve: bool
    reason: str = ""
    override: bool = False
    """An admin's, in an emergency: it stands for the whole quorum, and is marked wherever it is told."""


class Phase(_Value):
    name: str
    began: datetime
    ended: datetime | None = None
    detail: str = ""
    failed: bool = False


class Check(_Value):
    """One smoke test: passed or not, with its evidence."""

    name: str
    passed: bool
    evidence: str
    warning: bool = False
    """Passed, but somebody should look at it."""
    seconds: float = 0
    """How long the test itself took."""


class SmokeRun(_Value):
    """A good run of an endpoint's smoke tests: what the next one is compared with."""

    at: datetime
    model: str
    image: str
    answer: str
    """To a fixed question at temperature 0."""
    seconds: float
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None


class Note(_Value):
    """Something to read in an operation's thread: log lines, events, a diagnosis; as it came, not escaped."""

    title: str
    text: str


class SmokeOutcome(_Value):
    """The outcome of an endpoint's last smoke tests."""

    at: datetime
    commit: str
    failed: tuple[str, ...] = ()
    """The names of the tests that failed; empty: all passed."""


class Message(_Value):
    """Where a Slack message is."""

    channel: str
    ts: str


class Operation(_Value):
    id: str
    request: Request
    status: Status = Status.REQUESTED
    version: int = 0
    updated: datetime
    plan: Plan | None = None
    votes: tuple[Vote, ...] = ()
    phases: tuple[Phase, ...] = ()
    checks: tuple[Check, ...] = ()
    notes: tuple[Note, ...] = ()
    outcome: str = ""
    """How it ended, or what happened meanwhile, in mrkdwn: whoever writes it escapes what is foreign."""
    failure: str = ""
    """Set before the undoing starts, so that a restart goes on undoing instead of trying again."""
    cancelled_by: str = ""
    expires: datetime | None = None
    message: Message | None = None
    waiting: "Waiting | None" = None
    deciders: str = ""
    """Who may decide, in words."""
    blocked: str = ""
    """What somebody else has to do before a roll-out goes on, in mrkdwn; it may be cancelled as long."""

    def moved(self, status: Status, now: datetime, **changes: object) -> "Operation":
        """The operation in its next status; AlreadyDecided when it is over or the step is not allowed."""
        if status not in _NEXT.get(self.status, ()):
            raise AlreadyDecided(f"This request is already {self.status}{_by_whom(self)}.")
        return self.model_copy(update={"status": status, "updated": now, **changes})

    def with_phase(self, name: str, now: datetime, detail: str = "") -> "Operation":
        """Enter a phase, ending the one before; the same phase again keeps its start and takes the new detail."""
        last = self.phases[-1] if self.phases else None
        if last and last.name == name and last.ended is None:
            if last.detail == (detail or last.detail):
                return self
            told = last.model_copy(update={"detail": detail})
            return self.model_copy(update={"phases": (*self.phases[:-1], told), "updated": now})
        entered = (*self.with_phases_ended(now).phases, Phase(name=name, began=now, detail=detail))
        return self.model_copy(update={"phases": entered, "updated": now})

    def with_phases(self, told: Sequence[Phase], now: datetime) -> "Operation":
        """Phases that somebody else keeps the time of, as told so far; the ones told before are brought up to date."""
        new = {(phase.name, phase.began): phase for phase in told}
        kept = []
        for phase in self.with_phases_ended(now).phases:
            again = new.pop((phase.name, phase.began), None)
            kept.append(again.model_copy(update={"detail": again.detail or phase.detail}) if again else phase)
        return self.model_copy(update={"phases": (*kept, *new.values()), "updated": now})

    def with_phases_ended(self, now: datetime, *, failed: bool = False) -> "Operation":
        """No phase runs any more; `failed` is said of those that ran, not of what was done before."""
        update = {"ended": now, "failed": failed}
        ended = tuple(p if p.ended else p.model_copy(update=update) for p in self.phases)
        return self.model_copy(update={"phases": ended})

    @property
    def approvals(self) -> tuple[Vote, ...]:
        return tuple(vote for vote in self.votes if vote.approve)


_OVER = (Status.FAILED, Status.CANCELLED)
_NEXT: dict[Status, tuple[Status, ...]] = {
    Status.REQUESTED: (Status.AWAITING, Status.WAITING, Status.RUNNING, Status.REFUSED, *_OVER),
    Status.WAITING: (Status.AWAITING, Status.APPROVED, Status.DENIED, Status.EXPIRED, *_OVER),
    Status.AWAITING: (Status.APPROVED, Status.DENIED, Status.EXPIRED, *_OVER),
    Status.APPROVED: (Status.RUNNING, Status.AWAITING, Status.WAITING, *_OVER),
    Status.RUNNING: (Status.SUCCEEDED, Status.AWAITING, Status.WAITING, *_OVER),
}


def _by_whom(op: Operation) -> str:
    if op.votes and op.status not in (Status.AWAITING, Status.REQUESTED, Status.WAITING):
        vote = op.votes[-1]
        return f", {'approved' if vote.approve else 'denied'} by <@{vote.by}> at {vote.at:%H:%M} UTC"
    return ""


def operation_id(delivery: str) -> str:
    """The id of the operation that a delivery asks for: a repeated delivery gives the same one."""
    return hashlib.sha256(delivery.encode()).hexdigest()[:10]


class Lease(_Value):
    """One model's hold on the GPU. Its end is acted on, it never just expires."""

    model: str
    op: str
    holder: str
    reason: str = ""
    fence: int
    revision: int = 0
    """Grows with every change under one fence: of two copies of a lease, the higher one is the newer."""
    commit: str = ""
    hold: timedelta
    claimed: datetime
    ready: datetime | None = None
    """The lease's time starts here, not when it was claimed: nobody can use a model that is booting."""
    ends: datetime | None = None
    keeps: int = 0
    keep_until: datetime | None = None
    message: Message | None = None
    displaced: "Lease | None" = None
    """Whom a replacement pushed aside, until the new model answers: what is restored when it does not."""

    @property
    def mark(self) -> str:
        """The lease as its Deployment carries it: enough to rebuild it when Redis has lost it."""
        return self.model_dump_json(exclude_none=True, exclude={"displaced"})

    @classmethod
    def of_mark(cls, mark: str | None, model: str) -> "Lease | None":
        """The lease that a Deployment carries; None for no mark, and for one that is not ours or not this model's."""
        try:
            lease = cls.model_validate_json(mark) if mark else None
        except ValidationError:
            return None
        return lease if lease and lease.model == model and lease.fence > 0 else None

    def started(self, ready: datetime) -> "Lease":
        """The lease once its model is ready; the first time counts."""
        return self if self.ready else self.model_copy(update={"ready": ready, "ends": ready + self.hold})

    def settled(self) -> "Lease":
        """The lease of a model that stays: whom it pushed aside is not coming back."""
        return self.model_copy(update={"displaced": None})


class Waiting(_Value):
    """What stands between a request and the GPU, as last looked at."""

    model: str = ""
    holder: str = ""
    fence: int = 0
    """The lease that is in the way; 0 when it is only the others who wait."""
    since: datetime | None = None
    until: datetime | None = None
    reason: str = ""
    ahead: int | None = None
    """How many wait before this one; None: it does not queue."""
    free_at: datetime | None = None
    """When its turn comes at the latest, unless somebody extends."""
    offer: datetime | None = None
    """The GPU is offered to this request until then."""


class Question(_Value):
    """What the holder of the GPU was asked: the message, and what it says without its buttons."""

    message: Message
    text: str
    blocks: tuple[dict[str, Any], ...]


class Alert(_Value):
    """Something in the cluster that the bot did not do, told once for as long as it lasts."""

    about: str
    since: datetime

    @property
    def key(self) -> str:
        """The key of its message: the same thing wrong again later is another message."""
        return f"alert:{self.about}:{int(self.since.timestamp())}"


class Activity(_Value):
    """The signals of use: two gauges, and three counters since the server started."""

    running: float = 0
    waiting: float = 0
    requests: float = 0
    prompt_tokens: float = 0
    generation_tokens: float = 0

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.generation_tokens


class Own(_Value):
    """What the bot itself has asked of a model so far: its smoke tests are nobody's use of it."""

    requests: float = 0
    tokens: float = 0


MAYBE_LEASE = TypeAdapter[Lease | None](Lease | None)
"""Reads what a step noted that may have found no lease."""


class Session(_Value):
    """What is remembered of one lease's use; written by the watch, and once more when the model goes down."""

    fence: int
    sampled: datetime
    active: datetime
    """When the model last worked, as far as the samples tell."""
    requests: float = 0
    tokens: float = 0
    requests_seen: float = 0
    """The engine's own counter at the last sample; it starts anew when the pod does."""
    tokens_seen: float = 0
    own: Own = Own()
    idle_seconds: float = 0
    reminders: int = 0
    reminded: datetime | None = None
    announced: datetime | None = None
    """When the bring-down was announced, and for which moment."""
    down_at: datetime | None = None
    warned: datetime | None = None
    """The end of the lease that was warned of; another one, after an extension, is warned of again."""
    unknown_since: datetime | None = None
    told_unknown: bool = False
    asked_down: datetime | None = None
    node: "Node | None" = None


class Node(_Value):
    """The machine that bills for a session."""

    name: str
    since: datetime
    machine: str = ""
    """Its type, e.g. g2-standard-4, as the cloud labels it."""


class Bill(_Value):
    """One session, from the claim of the GPU to the end of the node; what the receipt and the report are made of."""

    fence: int
    op: str
    """The operation that brought the model down; empty when somebody else did."""
    model: str
    holder: str
    reason: str = ""
    approved_by: tuple[str, ...] = ()
    claimed: datetime
    ready: datetime | None = None
    down: datetime
    """When the last pod was gone and the GPU free."""
    node: Node | None = None
    gone: datetime | None = None
    """When the node was seen to be gone, or was taken over by the next session."""
    drain: timedelta
    """What is assumed to pass from `down` to `gone` as long as that is not known."""
    price_per_hour: float
    idle_seconds: float = 0
    requests: float = 0
    tokens: float = 0

    @property
    def begins(self) -> datetime:
        """A node older than the claim was paid for by the session before."""
        return max(self.claimed, self.node.since) if self.node else self.claimed

    @property
    def ends(self) -> datetime:
        return self.gone or self.down + self.drain

    @property
    def watched_until(self) -> datetime:
        """A node that outlives three times the usual drain is not ours to wait for: the estimate stays, marked as such."""
        return self.down + 3 * self.drain

    @property
    def estimated(self) -> bool:
        return self.node is None or self.gone is None

    @property
    def billed(self) -> timedelta:
        return max(timedelta(), self.ends - self.begins)

    @property
    def up(self) -> timedelta:
        return self.down - self.ready if self.ready else timedelta()

    @property
    def usd(self) -> float:
        return cost(self.billed, self.price_per_hour)


class WeekPicture(_Value):
    """The last week as a file in Slack, for Home."""

    digest: str
    """Of the figures that it shows."""
    file: str = ""
    """Slack's id of it; empty when the last attempt to make it failed."""
    at: datetime


def cost(duration: timedelta, price_per_hour: float) -> float:
    """US dollars that a GPU node bills for `duration`."""
    return duration.total_seconds() / 3600 * price_per_hour
