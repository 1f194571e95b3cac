"""The two families of errors.

    StokerError
    ├── BotError       for the user: the problem, its location and its fix; a retry would not help
    │   └── …          subclasses of clients and workflows, e.g. GpuBusy, SyncFailed, BootFailed
    └── Unavailable    a system did not answer; the operation is retried
        └── Unreachable   there was no connection, so the state of the system is unknown

Errors of external systems are wrapped where the system is called, with the cause chained, so that no other package
depends on the exceptions of httpx or Kubernetes.
"""

from bot.text.mrkdwn import Mrkdwn, shown, unmarked


class StokerError(Exception):
    """Base class of Stoker's own errors. The text is plain, or markup made by `md`."""

    @property
    def shown(self) -> Mrkdwn:
        """The error in Slack's markup; plain text is escaped, because it may quote another system."""
        return shown(self.args[0] if self.args else "")

    def __str__(self) -> str:
        """The error as plain text, for terminals, logs and forms."""
        return unmarked(self.args[0] if self.args else "")


class BotError(StokerError):
    """An error for the user: one sentence with the problem and its fix.

    `details` are log lines or events for the thread, unchanged.
    """

    remedy = "Follow the instructions in the message."

    def __init__(self, message: str | Mrkdwn, details: str = "") -> None:
        super().__init__(message)
        self.message: str | Mrkdwn = message
        self.details = details


class Unavailable(StokerError):
    """A system did not answer, or is temporarily unable to; a retry may help."""

    remedy = "Wait: Stoker retries automatically, and reports it if it gives up. `stoker doctor` shows which system does not answer."

    def __init__(self, system: str, detail: str = "", *, answered: bool = False) -> None:
        reason = f": {detail.rstrip('. ')}" if detail else ""
        subject = f"T{system[1:]}" if system.startswith("the ") else system
        if answered:
            super().__init__(f"{subject} answers with an error{reason}")
        else:
            super().__init__(f"{subject} does not answer{reason}")
        self.system = system
        self.detail = detail


class Unreachable(Unavailable):
    """There is no connection to a system, or a proxy in front of it reports an outage."""

    remedy = "Wait a moment: Stoker tries again. If this continues, check that the system runs, its address in the settings, and the network policy between it and Stoker."
