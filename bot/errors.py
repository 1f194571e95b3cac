"""What can go wrong, in two families worded for their reader.

    StokerError
    ├── BotError       tell the human: what is wrong, where, how to mend it; a retry would not help
    │   └── …          each adapter and operation adds its own, e.g. GpuBusy, SyncFailed, BootFailed
    └── Unavailable    a system did not answer; the operation is tried again

Vendor errors are wrapped where the vendor is called, with the cause chained, so that no other room knows
what an httpx or a kubernetes exception looks like.
"""


class StokerError(Exception):
    """Anything that Stoker raises on purpose."""


class BotError(StokerError):
    """Something that a person must be told: one clear sentence saying what is wrong and how to mend it.

    `details` are for the thread: log lines or events, many lines, as they came.
    """

    remedy = "Do what the message says."

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Unavailable(StokerError):
    """A system did not answer, or answered that it cannot now; trying again may help."""

    remedy = "Wait a moment: it is tried again by itself, and the message says so when that was in vain. `stoker doctor` tells what does not answer."

    def __init__(self, system: str, detail: str = "") -> None:
        super().__init__(f"{system} does not answer" + (f": {detail.rstrip('. ')}" if detail else ""))
        self.system = system
        self.detail = detail
