"""The names of the events in the audit log. Entries store these names, so they never change."""

from enum import StrEnum


class AuditEvent(StrEnum):
    REQUESTED = "requested"
    WAITING = "waiting for the GPU"
    AWAITING_APPROVAL = "awaiting approval"
    APPROVAL_VOID = "approval void"
    APPROVED = "approved"
    OVERRIDDEN = "overridden"
    STARTED = "started"
    MERGED = "merged"
    SMOKE_TESTED = "smoke tested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    OBJECTED = "objected"
    REFUSED = "refused"

    JOINED_QUEUE = "joined the queue"
    LEFT_QUEUE = "left the queue"
    OFFERED = "offered"
    OFFER_TAKEN = "took the offer"
    OFFER_PASSED_ON = "offer passed on"
    QUEUE = "queue"

    REMINDED = "reminded"
    METRICS_UNREACHABLE = "metrics unreachable"
    END_WARNED_OF = "end warned of"
    KEPT = "kept"
    PROLONGED = "prolonged"
    SERVES_AGAIN = "serves again"

    REPORT_KEPT = "report kept"
    ALIAS_REGISTERED = "alias registered"
    KEY_LET_IN = "key let in"
    SET_UP = "set up"
    NOT_SHOWN = "not shown"
    SET_ASIDE = "set aside"
    STEP = "step"
