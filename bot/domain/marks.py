"""Reads and validates the lease annotation of a Deployment, which anybody with kubectl can write."""

import re
from datetime import datetime, timedelta

from pydantic import ValidationError

from bot.domain.leases import Lease

_LONGEST_MARK = 16_384
_FENCES = 10**13
"""Upper limit of a fence. A fence is at least the time in milliseconds since 1970, which reaches this limit in 2286."""
_USER = re.compile(r"[UW][A-Z0-9]{1,30}")
_SKEW = timedelta(minutes=5)
"""Tolerated clock skew of another machine."""


def read_mark(mark: str | None, model: str) -> Lease | None:
    """The lease in the annotation of a Deployment; None if there is no annotation, or an invalid one."""
    if not mark or len(mark) > _LONGEST_MARK:
        return None
    try:
        lease = Lease.model_validate_json(mark)
    except (ValidationError, RecursionError):
        return None
    times = [at for at in (lease.claimed, lease.ready, lease.ends) if at]
    is_valid = (
        lease.model == model and 0 < lease.fence < _FENCES and times == sorted(times) and lease.hold > timedelta()
    )
    return lease if is_valid and _USER.fullmatch(lease.holder) else None


def bounded(lease: Lease, now: datetime, longest: timedelta, channel: str) -> Lease | None:
    """The annotated lease, limited to what the policy allows, so that it can be restored; None if it is in the future."""
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


def with_longer_end(lease: Lease, marked: Lease, longest: timedelta) -> Lease | None:
    """The lease with the *keep* or the extension that Redis has lost, from its annotation; None if the annotation is not
    a later version of the lease.

    People rely on the end that they were shown. The annotation may only add a keep or an extension that needs no
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
