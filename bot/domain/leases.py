"""A model's lease on the GPU, and the queue."""

from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from bot.domain.values import Fence, Message, Moment, Span, Value
from bot.text.mrkdwn import Mrkdwn


class Lease(Value):
    """One model's lease on the GPU. It does not expire automatically: the watch brings the model down at its end."""

    model: str
    op: str
    holder: str
    reason: str = ""
    fence: Fence
    revision: Fence = 0
    """Increased by every change under the same fence. Of two copies of a lease, the one with the higher number is newer."""
    commit: str = ""
    hold: Span
    claimed: Moment
    ready: Moment | None = None
    """The time when the model became ready. The time of the lease counts from then, because nobody can use the model while it boots."""
    ends: Moment | None = None
    keeps: int = 0
    keep_until: Moment | None = None
    message: Message | None = None
    displaced: "Lease | None" = None
    """The lease that this one replaces. It is restored if the new model does not answer, and dropped if it does."""

    @property
    def mark(self) -> str:
        """The lease as JSON, for the annotation of its Deployment, from which a lease that Redis lost is rebuilt."""
        return self.model_dump_json(exclude_none=True, exclude={"displaced"})

    def channel(self, default: str) -> str:
        """The channel of the session's card; `default` if the card has not been posted."""
        return self.message.channel if self.message else default

    def started(self, ready: datetime) -> "Lease":
        """The lease with its ready time and its end; unchanged if it already has them."""
        return self if self.ready else self.model_copy(update={"ready": ready, "ends": ready + self.hold})

    def settled(self) -> "Lease":
        """The lease without the displaced one, which will not be restored."""
        return self.model_copy(update={"displaced": None})


class Waiting(Value):
    """The reason why a request cannot have the GPU yet, as of the last check."""

    model: str = ""
    holder: str = ""
    fence: Fence = 0
    """The fence of the blocking lease; 0 if only other requests are ahead."""
    since: Moment | None = None
    until: Moment | None = None
    reason: str = ""
    ahead: int | None = None
    """The number of requests ahead of this one; None if it does not queue."""
    free_at: Moment | None = None
    """The latest time at which its turn comes, unless a lease is extended."""
    offer: Moment | None = None
    """The end of the offer of the GPU to this request."""


class Question(Value):
    """A question to the holder of the GPU: the message, and its text without buttons."""

    message: Message
    text: Mrkdwn
    blocks: tuple[dict[str, Any], ...]


MAYBE_LEASE = TypeAdapter[Lease | None](Lease | None)
"""Adapter for the result of a step that may have no lease."""
