"""Types for the fields of records: times, durations, valid amounts, and positions of Slack messages."""

import math
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field


def _plausible(at: datetime) -> datetime:
    if not 2000 <= at.year < 2200:
        raise ValueError("the year is not plausible")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(_plausible)]
"""A time with its zone, in a range in which comparisons and additions are safe."""


Span = Annotated[timedelta, Field(ge=timedelta(days=-3650), le=timedelta(days=3650))]


Fence = Annotated[int, Field(ge=0, le=2**53)]
"""An integer that Lua can represent exactly."""


Count = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
"""A number of requests, tokens or seconds, small enough that sums stay finite."""


class Value(BaseModel):
    """A frozen record. Its validator is built at the first use, because few records are used at the start."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, defer_build=True)


class Message(Value):
    """The position of a Slack message."""

    channel: str
    ts: str


def _finite_or_zero(value: object) -> object:
    """Replace an invalid number with 0: older versions stored NaN and infinity, which JSON represents only as null."""
    return value if isinstance(value, int | float) and math.isfinite(value) else 0.0


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A measured number of requests, tokens or seconds."""


StoredAmount = Annotated[float, BeforeValidator(_finite_or_zero), Field(allow_inf_nan=False)]
"""A stored amount: an invalid number must not make a record unreadable."""
