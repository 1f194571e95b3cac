"""The statuses of an operation."""

from enum import StrEnum


class Status(StrEnum):
    """`requested → awaiting approval → approved → running → …`; the last six are final.

    `waiting for the GPU` comes before the approval, or after it if another request was faster. A `refused` request was
    rejected during validation; only the requester is notified.
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
