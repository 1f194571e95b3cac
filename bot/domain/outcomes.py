"""The end of an operation, as values; `bot.views.outcomes` renders them.

Each outcome has the final status of the operation. It does not repeat fields of the operation, such as the model.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bot.domain.sessions import Bill
from bot.domain.status import Status
from bot.domain.values import Moment, Span, Value
from bot.text.mrkdwn import Mrkdwn

# The results of rolling back


class NothingStarted(Value):
    kind: Literal["nothing started"] = "nothing started"


class NothingRan(Value):
    kind: Literal["nothing ran"] = "nothing ran"


class Restored(Value):
    """The model that a replacement had displaced serves again."""

    kind: Literal["restored"] = "restored"
    model: str
    holder: str
    ends: Moment | None = None


class NotRestored(Value):
    """The replaced model was started again but did not become ready."""

    kind: Literal["not restored"] = "not restored"
    model: str
    holder: str
    why: Mrkdwn
    bill: Bill | None = None


class NotTakenBack(Value):
    """The replaced model is not restored, because another session has the GPU."""

    kind: Literal["not taken back"] = "not taken back"
    model: str
    holder: str
    why: Mrkdwn


Replaced = Annotated[Restored | NotRestored | NotTakenBack, Field(discriminator="kind")]


class BackAtZero(Value):
    """A bring-up was rolled back."""

    kind: Literal["back at zero"] = "back at zero"
    bill: Bill | None = None
    """None if nothing was billed."""
    replaced: Replaced | None = None
    """The result for the displaced model; None if no model was displaced, so the GPU is free."""


class SessionOver(Value):
    """The session ended because its restart failed."""

    kind: Literal["session over"] = "session over"
    bill: Bill


class JobDeleted(Value):
    kind: Literal["job deleted"] = "job deleted"
    existed: bool


class DownloadKept(Value):
    kind: Literal["download kept"] = "download kept"


class TryAgain(Value):
    """The model may still be up: bring it down again."""

    kind: Literal["try again"] = "try again"


class LeaseUnchanged(Value):
    kind: Literal["lease unchanged"] = "lease unchanged"


class LeaseUnclear(Value):
    """The lease may or may not be broken."""

    kind: Literal["lease unclear"] = "lease unclear"


class CutShort(Value):
    """The rollback repeatedly crashed the process, so it was abandoned."""

    kind: Literal["cut short"] = "cut short"
    told: Mrkdwn


class NothingMerged(Value):
    kind: Literal["nothing merged"] = "nothing merged"


class StaysMerged(Value):
    kind: Literal["stays merged"] = "stays merged"
    number: int
    url: str


class VolumeGrew(Value):
    """A claim is larger than in git, because a volume cannot shrink."""

    claim: str
    before: str
    size: str


class PullClosed(Value):
    """The pull request is closed and its branch is deleted."""

    kind: Literal["pull closed"] = "pull closed"
    number: int | None = None
    """None if there was no pull request yet."""
    grew: VolumeGrew | None = None


Undone = Annotated[
    NothingStarted
    | NothingRan
    | BackAtZero
    | SessionOver
    | JobDeleted
    | DownloadKept
    | TryAgain
    | LeaseUnchanged
    | LeaseUnclear
    | CutShort
    | NothingMerged
    | StaysMerged
    | PullClosed,
    Field(discriminator="kind"),
]

STOKER = "stoker"
"""The actor of the bot's own cancellations."""

# The outcomes


class Failed(Value):
    status: ClassVar[Status] = Status.FAILED
    kind: Literal["failed"] = "failed"
    reason: Mrkdwn
    undone: Undone | None = None
    """None if there was nothing to roll back."""


class Cancelled(Value):
    status: ClassVar[Status] = Status.CANCELLED
    kind: Literal["cancelled"] = "cancelled"
    by: str
    undone: Undone


class Denied(Value):
    status: ClassVar[Status] = Status.DENIED
    kind: Literal["denied"] = "denied"
    undone: Undone


class Expired(Value):
    """Nobody decided in time."""

    status: ClassVar[Status] = Status.EXPIRED
    kind: Literal["expired"] = "expired"
    pull_left_open: bool = False


class OfferExpired(Value):
    """The GPU was offered and not taken."""

    status: ClassVar[Status] = Status.EXPIRED
    kind: Literal["offer expired"] = "offer expired"


class LeftQueue(Value):
    status: ClassVar[Status] = Status.CANCELLED
    kind: Literal["left the queue"] = "left the queue"
    by: str


class ReplacedWhileBooting(Value):
    status: ClassVar[Status] = Status.CANCELLED
    kind: Literal["replaced while booting"] = "replaced while booting"
    model: str
    by: str


class ClosedOnGitHub(Value):
    status: ClassVar[Status] = Status.CANCELLED
    kind: Literal["closed on GitHub"] = "closed on GitHub"
    number: int
    by: str = ""
    """A GitHub login."""


class MergedElsewhere(Value):
    """Somebody merged the pull request into another branch."""

    status: ClassVar[Status] = Status.CANCELLED
    kind: Literal["merged elsewhere"] = "merged elsewhere"
    number: int
    by: str = ""
    base: str


class Refused(Value):
    """The request could not be carried out; only the requester sees this."""

    status: ClassVar[Status] = Status.REFUSED
    kind: Literal["refused"] = "refused"
    reason: Mrkdwn


class Started(Value):
    """The model is up and answers."""

    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["started"] = "started"
    holder: str
    ends: Moment | None = None


class LeftUp(Value):
    """The smoke tests failed, and the model stays up because the request has `keep`."""

    status: ClassVar[Status] = Status.FAILED
    kind: Literal["left up"] = "left up"
    reason: Mrkdwn
    holder: str
    ends: Moment | None = None


class BroughtDown(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["brought down"] = "brought down"
    bill: Bill | None = None
    """None if nobody held a lease."""


class BootCancelled(Value):
    """A lease was broken while its model was booting: the bring-up rolls back."""

    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["boot cancelled"] = "boot cancelled"


class ServesAgain(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["serves again"] = "serves again"
    holder: str
    ends: Moment | None = None
    took: Span


class Extended(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["extended"] = "extended"
    holder: str
    ends: Moment | None = None


class SmokeTested(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["smoke tested"] = "smoke tested"


class Benchmarked(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["benchmarked"] = "benchmarked"
    tokens_per_second: float
    concurrency: int
    first_token_ms: float


class WeightsStaged(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["weights staged"] = "weights staged"
    hf_id: str
    bytes: int


class RolledOut(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["rolled out"] = "rolled out"
    serves: str
    """The model's id on the Hub."""
    then: Literal["answers", "restarted", "being brought up", "at zero"]
    downtime: Span | None = None
    """The time from the merge until it answered, if it was up before."""
    staging: bool = False
    """True if a separate operation is staging its weights."""
    drifts: tuple[Mrkdwn, ...] = ()
    """Remaining differences from git."""


class Removed(Value):
    status: ClassVar[Status] = Status.SUCCEEDED
    kind: Literal["removed"] = "removed"


Outcome = Annotated[
    Failed
    | Cancelled
    | Denied
    | Expired
    | OfferExpired
    | LeftQueue
    | ReplacedWhileBooting
    | ClosedOnGitHub
    | MergedElsewhere
    | Refused
    | Started
    | LeftUp
    | BroughtDown
    | BootCancelled
    | ServesAgain
    | Extended
    | SmokeTested
    | Benchmarked
    | WeightsStaged
    | RolledOut
    | Removed,
    Field(discriminator="kind"),
]


def with_bill(outcome: Outcome, bill: Bill) -> Outcome:
    """The outcome with a newer version of its bill; unchanged if the bill belongs to another session."""

    def is_same(before: Bill | None) -> bool:
        return before is not None and before.fence == bill.fence

    match outcome:
        case BroughtDown(bill=before) if is_same(before):
            return outcome.model_copy(update={"bill": bill})
        case Failed(undone=undone) | Cancelled(undone=undone):
            match undone:
                case BackAtZero(bill=before) | SessionOver(bill=before) if is_same(before):
                    pass
                case BackAtZero(replaced=NotRestored(bill=before) as replaced) if is_same(before):
                    undone = undone.model_copy(update={"replaced": replaced.model_copy(update={"bill": bill})})
                    return outcome.model_copy(update={"undone": undone})
                case _:
                    return outcome
            return outcome.model_copy(update={"undone": undone.model_copy(update={"bill": bill})})
        case _:
            return outcome
