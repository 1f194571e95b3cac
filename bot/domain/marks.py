"""The lease annotation of a Deployment, validated, because anybody with kubectl can write it."""

import re
from datetime import datetime, timedelta

from pydantic import ValidationError

from bot.domain.leases import Lease

_LONGEST_MARK = 16_384
_FENCES = 10**13
"""Maximum fence, in the year 2286: a fence is at least the number of milliseconds since 1970."""
_USER = re.compile(r"[UW][A-Z0-9]{1,30}")
_SKEW = timedelta(minutes=5)
"""Tolerance for another machine's clock."""


def read_mark(mark: str | None, model: str) -> Lease | None:
    """The lease of a Deployment; None if it has no annotation, or an invalid one."""
    if not mark or len(mark) > _LONGEST_MARK:
        return None
    try:
        lease = Lease.model_validate_json(mark)
    except (ValidationError, RecursionError):
        return None
    times = [at for at in (lease.claimed, lease.ready, lease.ends) if at]
    meant = lease.model == model and 0 < lease.fence < _FENCES and times == sorted(times) and lease.hold > timedelta()
    return lease if meant and _USER.fullmatch(lease.holder) else None


def bounded(lease: Lease, now: datetime, longest: timedelta, channel: str) -> Lease | None:
    """The part of an annotated lease that may be restored: at most what the policy allows; None if it is from the
    future.
    """
    if max(lease.claimed, lease.ready or lease.claimed) > now + _SKEW:
        return None
    ends = min(lease.ends, lease.ready + longest) if lease.ends and lease.ready else None
    return lease.model_copy(
        update={
            "hold": min(lease.hold, longest),
            "ready": lease.ready if ends else None,
            "ends": ends,
            "keep_until": min(lease.keep_until, ends) if lease.keep_until and ends else None,
            "message": lease.message if lease.message and lease.message.channel == channel else None,
            "displaced": None,
        }
    )


def prolonged(lease: Lease, marked: Lease, longest: timedelta) -> Lease | None:
    """The lease with the *keep* or the extension that Redis has lost, from its annotation; None if the annotation
    is not a later state.

    People rely on the time that they were shown. The annotation may only add what the holder can have without an
    approval.
    """
    if lease.ready is None or lease.ends is None or marked.ends is None or marked.revision <= lease.revision:
        return None
    added = {"revision": lease.revision, "ends": lease.ends, "keeps": lease.keeps, "keep_until": lease.keep_until}
    if marked.model_copy(update={**added, "message": lease.message, "displaced": lease.displaced}) != lease:
        return None
    ends, keep_until = marked.ends, marked.keep_until
    allowed = lease.ends <= ends <= max(lease.ends, lease.ready + longest) and marked.keeps >= lease.keeps
    if not allowed or (keep_until and keep_until > ends) or (lease.keep_until and not keep_until):
        return None
    changes = {"ends": ends, "keeps": marked.keeps, "keep_until": keep_until}
    changed = lease.model_copy(update=changes)
    return changed if changed != lease else None
