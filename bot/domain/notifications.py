"""All notifications in Slack as one table: the event, the people to notify, the kind of notification, and how often.

Slack notifies of a mention in a new message and of a direct message. An edit notifies nobody. `docs/slack.md` shows
this table, and tests compare it with every notification of the sandbox's Slack.
"""

from collections.abc import Mapping
from pathlib import Path

from manifests.frozen import frozen

MENTION, DIRECT = "mention", "direct message"


@frozen
class Rule:
    """One row: an event, the notified people, the kinds of notification, and how often it is sent."""

    event: str
    people: str
    channels: tuple[str, ...]
    frequency: str


TABLE: Mapping[str, Rule] = {
    "card": Rule(
        "a request waits for approval",
        "the approvers: their user groups by name, or each of them; never the requester",
        (MENTION,),
        "once, in the card's first text",
    ),
    "asked": Rule(
        "a request waits for approval, and only one person may decide, or its card is older: after a void approval, or when"
        " the request's turn comes",
        "the approvers who have not decided",
        (MENTION, DIRECT),
        "once for each round: a reply below the card, or a direct message if there is only one such approver",
    ),
    "half": Rule(
        "half of the time for the decision has passed",
        "the approvers who have not decided",
        (MENTION, DIRECT),
        "once for each round, as above",
    ),
    "escalated": Rule(
        "three quarters of this time have passed",
        "the admins, who can override; not the requester",
        (DIRECT,),
        "once for each round",
    ),
    "ready": Rule("a model is ready", "the requester", (DIRECT,), "once"),
    "done": Rule(
        "any other request has succeeded (except a bring-down or a smoke test, which take only moments: they only update their card)",
        "the requester",
        (DIRECT,),
        "once",
    ),
    "failed": Rule("a request has failed", "the requester", (DIRECT,), "once"),
    "denied": Rule("a request is denied", "the requester", (DIRECT,), "once"),
    "expired": Rule("nobody decided, or accepted an offer, in time", "the requester", (DIRECT,), "once"),
    "cancelled": Rule("somebody else cancels a request", "the requester", (DIRECT,), "once"),
    "closed": Rule(
        "the pull request of a request is closed on GitHub, or merged into another branch",
        "the requester",
        (DIRECT,),
        "once",
    ),
    "waits": Rule("a system does not answer, so a request waits for it", "the requester", (DIRECT,), "once"),
    "late": Rule("a pull request cannot be opened yet", "the requester", (DIRECT,), "once"),
    "replace": Rule(
        "somebody requests to replace a session, or to break its lease",
        "the holder, with *Object* and *Bring it down*",
        (DIRECT,),
        "once for each round of approval",
    ),
    "objected": Rule("the holder objects", "the approvers who have not decided, and the requester", (MENTION,), "once"),
    "displaced": Rule("the replacement begins", "the holder", (DIRECT,), "once"),
    "restored": Rule("the replacement failed", "the holder of the restored model", (DIRECT,), "once"),
    "broken": Rule("an admin breaks a lease", "the holder", (DIRECT,), "once"),
    "restarted": Rule("somebody else restarts a model", "the holder", (DIRECT,), "once"),
    "ended": Rule("somebody else stops a session, with a reason", "the holder", (DIRECT,), "once"),
    "warn": Rule("a lease ends soon", "the holder", (DIRECT,), "once for each end of the lease"),
    "stopped": Rule(
        "Stoker stops a session: its lease has ended, quiet hours have begun, or the model did not serve again",
        "the holder",
        (DIRECT,),
        "once",
    ),
    "idle": Rule(
        "a model is idle",
        "the holder",
        (DIRECT,),
        "for the session's first reminder and for each announcement of the bring-down; other reminders update these messages,"
        " until the model is down",
    ),
    "blind": Rule("the metrics cannot be read", "the holder", (DIRECT,), "once for each outage"),
    "trouble": Rule("a model that was up no longer serves", "the holder", (DIRECT,), "once for each outage"),
    "ask": Rule(
        "somebody asks the holder for the GPU; the holder answers *Not now*",
        "the holder; the person who waits",
        (DIRECT,),
        "once for each request and session",
    ),
    "offer": Rule(
        "the free GPU is offered to the next in the queue, or the offer ends without an approval",
        "the requester",
        (DIRECT,),
        "once for each offer",
    ),
    "alert": Rule("something uses the GPU without a lease", "the approvers", (MENTION,), "once for each workload"),
    "set-aside": Rule("a record or a task is set aside", "the admins", (DIRECT,), "once"),
    "setup": Rule(
        "the settings of the repository's `.stoker.yaml` are in use, or cannot be used",
        "the admins",
        (DIRECT,),
        "once for each text, and for each reason",
    ),
    "cut short": Rule("a rollback is given up", "the admins", (DIRECT,), "once"),
    "": Rule(
        "an answer to a click in Home, or in a place where Slack shows no private answers; without Redis, the end of a lease",
        "the person who clicked; the holder",
        (DIRECT,),
        "once",
    ),
    "mention": Rule("an answer to a command by direct message", "its sender", (DIRECT,), "once"),
    "unshown": Rule(
        "a channel accepts no messages", "the requester, the holder and the admins", (DIRECT,), "once for each request"
    ),
}
"""The rules by the first part of a message's key, up to the colon. Other messages notify nobody."""


_BEGIN, _END = "<!-- notifications: generated by `make docs` -->", "<!-- end of notifications -->"


def reference() -> str:
    """The table as Markdown."""
    rows = [
        f"| {rule.event} | {rule.people} | {' or '.join(rule.channels)} | {rule.frequency} |" for rule in TABLE.values()
    ]
    return "\n".join(["| event | who | how | how often |", "| --- | --- | --- | --- |", *rows])


def with_reference(text: str) -> str:
    """The document with the current table between its two markers."""
    before, _, after_begin = text.partition(_BEGIN)
    _, _, after = after_begin.partition(_END)
    return f"{before}{_BEGIN}\n\n{reference()}\n\n{_END}{after}"


def document(path: str) -> None:
    """Write the table into the document at `path`."""
    file = Path(path)
    file.write_text(with_reference(file.read_text(encoding="utf-8")), encoding="utf-8")
