"""The records of a session: usage, health, billed nodes, and the bill."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from bot.domain.values import Amount, Fence, Moment, Span, StoredAmount, Value

COLD_START = timedelta(minutes=10)
"""The estimated time of a cold start, measured with an L4 on GKE, including its node."""


class Alert(Value):
    """A problem in the cluster that the bot did not cause, reported once while it lasts."""

    about: str
    since: Moment

    @property
    def key(self) -> str:
        """The key of its message. It contains the start, so that a new problem gets a new message."""
        return f"alert:{self.about}:{int(self.since.timestamp())}"


class Activity(Value):
    """The usage signals: two gauges, and three counters since the server started."""

    running: Amount = 0
    waiting: Amount = 0
    requests: Amount = 0
    prompt_tokens: Amount = 0
    generation_tokens: Amount = 0

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.generation_tokens


class Own(Value):
    """Requests that the bot itself made (smoke tests); they do not count as usage."""

    requests: StoredAmount = 0
    tokens: StoredAmount = 0


class Session(Value):
    """The usage of one lease. The idle watch updates it; a last sample is taken before the model is brought down."""

    fence: Fence
    sampled: Moment
    active: Moment
    """The time of the last use of the model, according to the samples."""
    requests: StoredAmount = 0
    tokens: StoredAmount = 0
    requests_seen: Annotated[float | None, Field(allow_inf_nan=False)] = 0
    """The engine's own counter at the last sample; it restarts with the pod. None if the stored value is invalid."""
    tokens_seen: Annotated[float | None, Field(allow_inf_nan=False)] = 0
    own: Own = Own()
    idle_seconds: StoredAmount = 0
    reminders: int = 0
    reminded: Moment | None = None
    announced: Moment | None = None
    """The announced time of the bring-down."""
    down_at: Moment | None = None
    warned: Moment | None = None
    """The end of the lease for which a warning was sent; after an extension there is another warning."""
    unknown_since: Moment | None = None
    told_unknown: bool = False
    asked_down: Moment | None = None
    node: "Node | None" = None


class Staged(Value):
    """Weights that a Job has staged on an endpoint's volume, and the duration of that Job."""

    hf_id: str
    at: Moment
    seconds: StoredAmount
    bytes: int = 0
    fence: int = 0
    """The fence of the first session after the staging, in which the time was saved; 0 before that session."""


class Node(Value):
    """The billed machine of a session."""

    name: str
    since: Moment
    machine: str = ""
    """The machine type, e.g. g2-standard-4, from the cloud's label."""


class NodeSpan(Value):
    """The billed time of a session's earlier node."""

    name: str
    begun: Moment
    ended: Moment

    @property
    def length(self) -> timedelta:
        return max(timedelta(), self.ended - self.begun)


class Trouble(Value):
    """The reason why a session that was ready does not serve."""

    state: str
    since: Moment
    reason: str
    remedy: str = ""
    told: bool = False
    """True if the holder has been notified."""


class Health(Value):
    """The condition of a session that was ready: its problem, and its billed nodes."""

    fence: Fence
    trouble: Trouble | None = None
    node: Node | None = None
    """The currently billed node; None while no node is billed."""
    spans: tuple[NodeSpan, ...] = ()
    template: str = ""
    """A digest of the Deployment's template when the model was last known to be unchanged."""
    image: str = ""

    def billing(self, node: Node | None, claimed: datetime, now: datetime) -> "Health":
        """The record with the node as just read. A previous node was billed until now."""
        if (node and node.name) == (self.node and self.node.name):
            return self
        spans = self.spans
        if self.node:
            spans = (*spans, NodeSpan(name=self.node.name, begun=max(claimed, self.node.since), ended=now))
        return self.model_copy(update={"node": node, "spans": spans})


class Bill(Value):
    """One session, from the claim of the GPU to the end of the node; the basis of the receipt and the report."""

    fence: Fence
    op: str
    """The operation that brought the model down; empty if somebody brought it down without Stoker."""
    model: str
    holder: str
    reason: str = ""
    approved_by: tuple[str, ...] = ()
    claimed: Moment
    ready: Moment | None = None
    down: Moment
    """The time when the last pod was gone and the GPU free."""
    node: Node | None = None
    earlier: tuple[NodeSpan, ...] = ()
    """The nodes that were removed before the session ended."""
    gone: Moment | None = None
    """The time when the node was removed, or taken over by the next session."""
    drain: Span
    """The assumed time from `down` to `gone`, which is used until `gone` is known."""
    price_per_hour: float
    idle_seconds: StoredAmount = 0
    requests: StoredAmount = 0
    tokens: StoredAmount = 0
    staged_seconds: StoredAmount = 0
    """Seconds of download that staging saved in this session."""

    @property
    def begins(self) -> datetime:
        """The start of the billed time: a node that is older than the claim was billed to the previous session."""
        return self.earlier[0].begun if self.earlier else self._last_began

    @property
    def _last_began(self) -> datetime:
        return max(self.claimed, self.node.since) if self.node else self.claimed

    @property
    def ends(self) -> datetime:
        if self.without_node:
            return self.earlier[-1].ended
        return self.gone or self.down + self.drain

    @property
    def without_node(self) -> bool:
        """True if the last node was removed before the model went down: nothing drains, and nothing is estimated."""
        return self.node is None and bool(self.earlier)

    @property
    def watched_until(self) -> datetime:
        """The time until which the node is watched: three times the usual drain. If the node still exists then, the bill
        remains an estimate.
        """
        return self.down + 3 * self.drain

    @property
    def estimated(self) -> bool:
        return not self.without_node and (self.node is None or self.gone is None)

    @property
    def billed(self) -> timedelta:
        """The billed time of all nodes: time without a node is not billed."""
        before = sum((span.length for span in self.earlier), timedelta())
        return before if self.without_node else before + max(timedelta(), self.ends - self._last_began)

    @property
    def up(self) -> timedelta:
        return self.down - self.ready if self.ready else timedelta()

    @property
    def usd(self) -> float:
        return cost(self.billed, self.price_per_hour)

    @property
    def saved_usd(self) -> float:
        """The estimated GPU cost of the download that staging saved."""
        return cost(timedelta(seconds=self.staged_seconds), self.price_per_hour)


def cost(duration: timedelta, price_per_hour: float) -> float:
    """The cost in US dollars of a GPU node for `duration`."""
    return duration.total_seconds() / 3600 * price_per_hour
