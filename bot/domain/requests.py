"""Requests from people and from the bot: one type per kind of operation."""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Literal, TypedDict

from pydantic import Field

from bot.domain.kinds import Kind
from bot.domain.values import Moment, Span, Value


class RequestFields(TypedDict):
    """The common fields of every request, except for the model."""

    actor: str
    channel: str
    at: datetime
    reason: str


class _Request(Value):
    model: str
    actor: str
    """Slack user id; empty if the bot itself makes the request (idle, end of lease)."""
    channel: str
    at: Moment
    reason: str = ""


class BringUp(_Request):
    kind: Literal[Kind.GPU_UP] = Kind.GPU_UP
    hold: Span | None = None
    """The requested time on the GPU; None for the default in the settings."""
    keep: bool = False
    """Leave the model up even if its smoke tests fail, so that somebody can investigate."""
    trial: bool = False
    """Bring the model down again as soon as its smoke tests have passed."""
    part_of: str = ""
    """The id of the roll-out whose approval also covers this bring-up, as long as the deployed content is the same."""


class BringDown(_Request):
    kind: Literal[Kind.GPU_DOWN] = Kind.GPU_DOWN
    holder: str = ""
    """The holder of the session that the bot itself ends; the holder is also notified."""
    fence: int = 0
    """The fence of that session; if it has already ended, nothing is brought down. 0 for any session."""
    announced: bool = False
    """True if the holder was already notified of the time; the holder is then not notified again."""


class Restart(_Request):
    kind: Literal[Kind.GPU_RESTART] = Kind.GPU_RESTART


class Extend(_Request):
    kind: Literal[Kind.GPU_EXTEND] = Kind.GPU_EXTEND
    hold: Span
    """The additional time."""


class Release(_Request):
    kind: Literal[Kind.GPU_RELEASE] = Kind.GPU_RELEASE


class _Change(_Request):
    options: tuple[tuple[str, str], ...] = ()
    """The options as typed; unknown options of the kind of change are refused."""


class _NewModel(_Change):
    hf_id: str
    up: bool = False
    """Bring the endpoint up after the roll-out, under the same approval, and down again after its smoke tests unless
    `keep` is set.
    """
    keep: bool = False
    hold: Span | None = None
    """The time for which the endpoint is kept up."""


class AddModel(_NewModel):
    kind: Literal[Kind.MODEL_ADD] = Kind.MODEL_ADD
    now: bool = False
    """Register the alias at run time, until the pull request that adds it is merged."""


class SwapModel(_NewModel):
    kind: Literal[Kind.MODEL_SWAP] = Kind.MODEL_SWAP


class TuneModel(_Change):
    kind: Literal[Kind.MODEL_TUNE] = Kind.MODEL_TUNE


class RemoveModel(_Change):
    kind: Literal[Kind.MODEL_REMOVE] = Kind.MODEL_REMOVE


class RevertChange(_Request):
    kind: Literal[Kind.MODEL_REVERT] = Kind.MODEL_REVERT
    reverts: str
    """The id of the operation whose pull request should be reverted."""


class SmokeTest(_Request):
    kind: Literal[Kind.MODEL_SMOKE] = Kind.MODEL_SMOKE


class RunBenchmark(_Request):
    kind: Literal[Kind.MODEL_BENCH] = Kind.MODEL_BENCH


class StageWeights(_Request):
    kind: Literal[Kind.MODEL_STAGE] = Kind.MODEL_STAGE


ChangeRequest = AddModel | SwapModel | TuneModel | RemoveModel | RevertChange
"""The requests that become a pull request."""

AnyRequest = (
    BringUp | BringDown | Restart | Extend | Release | ChangeRequest | SmokeTest | RunBenchmark | StageWeights
)  # fmt: skip
Request = Annotated[AnyRequest, Field(discriminator="kind")]
"""The stored form. A record of an earlier version of Stoker has fields that its kind does not have."""


def hold_of(request: AnyRequest) -> timedelta | None:
    """The requested time on the GPU, if the request has one."""
    match request:
        case BringUp(hold=hold) | Extend(hold=hold) | AddModel(hold=hold) | SwapModel(hold=hold):
            return hold
        case _:
            return None


def operation_id(delivery: str) -> str:
    """The operation id for a delivery: a repeated delivery gives the same id."""
    return hashlib.sha256(delivery.encode()).hexdigest()[:10]
