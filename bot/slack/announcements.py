"""Notifications about operations. Each notification is sent once per key, even if the bot is killed in between.

`bot.domain.notifications` has the table of all notifications. The notifications in this module depend only on the
operation, so they are computed again at each check, and the outbox posts each key once.
"""

from contextlib import suppress
from typing import Protocol

from bot.domain.operations import BringUpOperation, Operation, Status, lease_to_end
from bot.domain.values import Message
from bot.errors import BotError, Unavailable
from bot.policy import to_ask
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.messages import Messages
from bot.state.step_ledger import StepLedger
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import View, lines
from bot.views.links import permalink
from bot.views.mentions import addressed
from bot.views.news import end, link_to, not_replaced, objection, requested, still_waits, to_replace

_ASKED_BY_CARD = "asked by the card"
"""The ledger step that stores the round of approval that the first text of the card asks for."""


class Post(Protocol):
    async def __call__(
        self, key: str, place: str, view: View, *, card: str = "", notify: tuple[str, ...] = (), question: str = ""
    ) -> None: ...


class Announcements:
    """Sends the notifications about operations."""

    def __init__(self, slack: Slack, messages: Messages, ledger: StepLedger, config: Config, post: Post) -> None:
        self._slack, self._messages, self._ledger, self._config, self._post = slack, messages, ledger, config, post

    async def first_text(self, op: Operation, view: View) -> tuple[View, tuple[str, ...]]:
        """The card as it is first posted, and the people whom it notifies. If the operation waits for a decision, the
        first text asks for that decision.
        """
        notified, alone = await self._deciders(op) if _waits(op) else ((), "")
        key = _round("asked", op) if notified and not alone else ""

        async def this_round() -> str:
            return key

        # Record the round before the card is posted, so that the card is posted with the same text after a crash.
        if not key or await self._ledger.once(op.id, _ASKED_BY_CARD, this_round, str) != key:
            return view, ()
        return addressed(view, notified, requested(op)), notified

    async def announce(self, op: Operation, card: Message | None) -> None:
        """Notify people of the current state of an operation, unless they were notified before."""
        if _waits(op) and card:
            key = _round("asked", op)
            if await self._ledger.result(op.id, _ASKED_BY_CARD, str) != key:
                await self._ask(op, key, await self._url(card), requested(op))
            await self._tell_holder(op, card)
        elif op.status.final and (message := end(op, await self._url(card))):
            event, user, view = message
            session = op.id if event == "ready" and isinstance(op, BringUpOperation) else ""
            await self._post(f"{event}:{op.id}", user, view, question=session)

    async def ready(self, op: Operation) -> tuple[str, View] | None:
        """The key and the text of the message that reports a ready model; None if there is no such message."""
        message = end(op, await self._url(op.message)) if op.status.final else None
        return (f"ready:{op.id}", message[2]) if message and message[0] == "ready" else None

    async def remind(self, op: Operation) -> None:
        """Remind the people who have not decided, after half of the time for the decision."""
        if _waits(op) and not op.lacks:
            await self._ask(op, _round("half", op), await self._url(op.message), still_waits(op))

    async def escalate(self, op: Operation) -> None:
        """Notify the admins, who can override, after three quarters of the time."""
        if not _waits(op):
            return
        text = md(
            "{waits} An admin can override it. {see}", waits=still_waits(op), see=link_to(await self._url(op.message))
        )
        with suppress(BotError, Unavailable):  # ignore a user group that cannot be looked up
            for admin in sorted(await self._slack.members(self._config.roles.admins)):
                if admin != op.request.actor:
                    await self._post(f"{_round('escalated', op)}:{admin}", admin, lines(text))

    async def announce_objection(self, op: Operation, by: str, reason: str) -> None:
        """Show the holder's objection below the card, and notify the approvers and the requester."""
        deciders, alone = await self._deciders(op, but=by)
        notified = tuple(dict.fromkeys((*((alone,) if alone else deciders), op.request.actor)))
        text = objection(op, by, reason)
        view = addressed(View(text=text, blocks=[]), notified, text)
        await self._post(f"objected:{op.id}:{by}", op.request.channel, view, card=op.id, notify=notified)

    def withdrawn(self, op: Operation) -> Mrkdwn | None:
        """The text that replaces the question to the holder when the request ends; None if there was no question."""
        over = op.status in (Status.DENIED, Status.EXPIRED, Status.CANCELLED)
        return not_replaced(op) if over and lease_to_end(op) else None

    async def _ask(self, op: Operation, key: str, url: str, text: Mrkdwn) -> None:
        if await self._messages.posted(key):
            return
        deciders, alone = await self._deciders(op)
        if alone:
            await self._post(
                key, alone, lines(md("✋ {text}. {see}", text=text.strip("."), see=link_to(url, "Decide on the card")))
            )
        elif deciders:
            await self._post(
                key,
                op.request.channel,
                addressed(View(text=text, blocks=[]), deciders, text),
                card=op.id,
                notify=deciders,
            )

    async def _tell_holder(self, op: Operation, card: Message) -> None:
        lease = lease_to_end(op)
        if lease and lease.holder not in ("", op.request.actor):
            view = to_replace(op, await self._url(card))
            await self._post(f"replace:{op.id}", lease.holder, view, question=lease.op)

    async def _deciders(self, op: Operation, *, but: str = "") -> tuple[tuple[str, ...], str]:
        members = {}
        for approver in self._config.roles.approvers:
            members[approver] = frozenset[str]()
            with suppress(BotError, Unavailable):  # a group that cannot be looked up is mentioned as a group
                members[approver] = await self._slack.members((approver,))
        return to_ask(op, members, but=but)

    async def _url(self, message: Message | None) -> str:
        """The address of a message; empty if there is no message, or if Slack does not answer."""
        with suppress(BotError, Unavailable):
            return permalink(await self._slack.address(), message) if message else ""
        return ""


def _waits(op: Operation) -> bool:
    """Return whether the operation is waiting for a decision."""
    return op.status is Status.AWAITING and not op.cancelled_by and all(vote.approve for vote in op.votes)


def _round(event: str, op: Operation) -> str:
    """The key of a message about one round of approval. Each time a plan is presented, a new round begins."""
    return f"{event}:{op.id}:{op.expires.isoformat() if op.expires else ''}"
