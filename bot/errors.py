"""The errors, in two families by their reader.

    StokerError
    ├── BotError       for the user: the problem, its place and its fix; a retry would not help
    │   └── …          each adapter and operation adds its own, e.g. GpuBusy, SyncFailed, BootFailed
    └── Unavailable    a system did not answer; the operation is retried
        └── Unreachable   there was no connection to it, so nothing is known about the system itself

Errors of external systems are wrapped where the system is called, with the cause chained, so that no other package
depends on the exceptions of httpx or Kubernetes.
"""

from bot.text.mrkdwn import Mrkdwn, shown, unmarked


class StokerError(Exception):
    """Base class of Stoker's own errors. The text is plain, or markup made by `md`."""

    @property
    def shown(self) -> Mrkdwn:
        """The error in Slack's markup: plain text, which may quote another system, is escaped."""
        return shown(self.args[0] if self.args else "")

    def __str__(self) -> str:
        """The error for a terminal, a log or a form, which do not render markup."""
        return unmarked(self.args[0] if self.args else "")


class BotError(StokerError):
    """An error for the user: one clear sentence with the problem and its fix.

    `details` are for the thread: log lines or events, unchanged.
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
        why = f": {detail.rstrip('. ')}" if detail else ""
        name = f"T{system[1:]}" if system.startswith("the ") else system  # it begins the sentence
        if answered:
            super().__init__(f"{name} answers with an error{why}")
        else:
            super().__init__(f"{name} does not answer{why}")
        self.system = system
        self.detail = detail


class Unreachable(Unavailable):
    """No connection to a system, or a proxy in front of it reports an outage."""

    remedy = "Wait a moment: Stoker tries again. If this continues, check that the system runs, its address in the settings, and the network policy between it and Stoker."
