"""Shows operations and sessions in Slack. It runs in the background: operations never wait for Slack.

There are two kinds of messages. The *card* of an operation and its thread are rendered from the operation's newest
state, as often as necessary. Other messages are *letters* in the outbox. Failed attempts are retried: a card that
somebody deleted is posted again once; a channel that accepts no messages is retried until it does, and in the meantime
the people concerned and the admins get one direct message per operation.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import structlog

from bot.domain.leases import Question
from bot.domain.operations import Operation, Status
from bot.domain.requests import BringDown
from bot.domain.values import Message
from bot.errors import BotError, Unavailable
from bot.settings.config import Config
from bot.slack.announcements import Announcements
from bot.slack.closed_channels import LONGEST_PAUSE, ChannelClosed, ClosedChannels
from bot.slack.ids import is_personal, is_user, is_user_group
from bot.slack.newest_cards import NewestCards
from bot.slack.readable import readable
from bot.slack.web_api import CONTENT, GONE, NO_THREAD, Slack, SlackBusy, SlackRefused
from bot.state.audit import AuditLog
from bot.state.cards import Cards
from bot.state.messages import Messages
from bot.state.operations import OperationNotFound, Operations
from bot.state.outbox import Letter, Outbox, edit_key
from bot.state.questions import Questions
from bot.state.step_ledger import StepLedger
from bot.text.mrkdwn import md
from bot.views import View, card, code, lines, section, thread, without_buttons
from bot.views.outcomes import outcome_text

log = structlog.get_logger(__name__)

_KEPT = timedelta(days=1)
"""A message that Slack has refused for this long is dropped."""
_ATTEMPT = 10.0
"""Timeout in seconds of one attempt to write a letter."""
_CUTS = 20
"""Maximum cancellations of a task at the stop, half a second apart. A task that outlives `close` would use Redis again."""
_LOOK_EVERY = 15.0
_LOOK_AGAIN = 300.0
"""Seconds after which an open card is written again without a change: somebody may have deleted it."""
_FORGET_AFTER = 900.0
_PERSONAL_ATTEMPTS = 3


@dataclass
class _Card:
    """The last state of an operation's card that this process wrote."""

    due: asyncio.Event = field(default_factory=asyncio.Event)
    urgent: asyncio.Event = field(default_factory=asyncio.Event)
    reopened: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its channel accepts messages again, so that the next attempt is made immediately."""
    at: float = 0.0
    view: View | None = None
    replies: set[str] = field(default_factory=set)
    posted_again: int = 0
    post_again_at: float = 0.0
    task: asyncio.Task[None] | None = None


class Presentation:
    """Slack for operations: each method returns immediately and never fails because of Slack."""

    def __init__(
        self,
        slack: Slack,
        operations: Operations,
        audit: AuditLog,
        messages: Messages,
        ledger: StepLedger,
        outbox: Outbox,
        questions: Questions,
        cards: Cards,
        config: Config,
        clock: Callable[[], datetime],
    ) -> None:
        self._slack, self._operations, self._audit, self._messages = slack, operations, audit, messages
        self._outbox, self._questions, self._newest_cards = outbox, questions, NewestCards(operations, cards)
        self._config, self._clock = config, clock
        self.announcements = Announcements(slack, messages, ledger, config, self.post)
        self._cards: dict[str, _Card] = {}
        self._closed, self._is_closed = ClosedChannels(), False
        self._told: dict[str, Status] = {}
        """The status in the direct messages about an operation, while its channel accepts no messages."""
        self._retries: dict[str, tuple[int, float]] = {}
        self._progress = asyncio.Semaphore(2)
        """Limits concurrent progress updates: Slack rate-limits bursts, which would delay replies."""
        self._sending, self._wake = asyncio.Semaphore(4), asyncio.Event()
        self._postman: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop writing; the next start shows the state at that time."""
        self._is_closed = True
        tasks = {task for task in (self._postman, *(each.task for each in self._cards.values())) if task}
        for _ in range(_CUTS):  # a library may swallow a cancellation
            for task in tasks:
                task.cancel()
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=0.5)

    # ── cards ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def show(self, op_id: str, *, now: bool = False) -> None:
        """Make sure that an operation's card, its thread, and finally its end are shown as stored.

        Several changes within `slack.update_every` become one update, unless `now` is set.
        """
        shown = self._cards.setdefault(op_id, _Card())
        if now:
            shown.urgent.set()
        shown.due.set()
        if shown.task is None and not self._is_closed:
            shown.task = asyncio.create_task(self._keep(op_id, shown))

    async def _keep(self, op_id: str, shown: _Card) -> None:
        failures = 0
        try:
            while not self._is_closed:
                async with asyncio.timeout(_FORGET_AFTER):
                    await shown.due.wait()
                left = shown.at + self._config.slack.update_every.total_seconds() - time.monotonic()
                if left > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await shown.urgent.wait()
                urgent = shown.urgent.is_set()
                shown.due.clear()
                shown.urgent.clear()
                shown.reopened.clear()
                try:
                    if urgent:
                        over = await self._write(op_id, shown)
                    else:
                        async with self._progress:
                            over = await self._write(op_id, shown)
                except (BotError, Unavailable) as error:
                    failures += 1
                    log.warning("not shown yet", op=op_id, attempt=failures, error=str(error))
                    shown.due.set()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_delay(failures, error)):
                            await shown.reopened.wait()
                    continue
                failures = 0
                if over and not shown.due.is_set():
                    return
        except (OperationNotFound, TimeoutError):
            return
        except Exception:
            log.exception("card lost", op=op_id)  # the next change, or the sweep, starts it again
        finally:
            if self._cards.get(op_id) is shown:
                del self._cards[op_id]

    async def _write(self, op_id: str, shown: _Card) -> bool:
        """Show the newest version; returns whether the operation has ended and everything is shown."""
        try:
            op = await self._operations.load(op_id)
        except OperationNotFound:
            return True
        if op.status is Status.REFUSED:
            await self._refuse(op)
            return True
        try:
            self._closed.require_open(op.request.channel)
            op = await self._draw(op, shown)
        except (SlackRefused, ChannelClosed) as error:
            if isinstance(error, SlackRefused):
                self._closed.close(op.request.channel)
                await self._audit.note_unshown(op, error.code, self._clock())
            await self._tell_elsewhere(op, error.code if isinstance(error, SlackRefused) else "")
            await self._announce(op, op.message)
            raise
        self._closed.reopen(op.request.channel)
        if op.id in self._told:
            await self._take_back(op)
        newer = await self._operations.load(op_id)
        if newer.version != op.version:
            shown.due.set()
            if newer.status.final:
                shown.urgent.set()
            return False
        if op.status.final:
            await self._operations.mark_delivered(op.id)
        return op.status.final

    async def _draw(self, op: Operation, shown: _Card) -> Operation:
        view = card(op, self._clock(), await self._slack.links(self._config))
        message, fresh = (op.message, False) if op.message else await self._first(op, view)
        unchanged = view == shown.view and time.monotonic() - shown.at < _LOOK_AGAIN
        while not fresh and not unchanged:
            try:
                await readable(view, partial(self._slack.update, message))
                break
            except SlackRefused as refused:
                if refused.code not in GONE:
                    raise
                message, fresh = await self._post_again(op, shown, message, view)
        for older in () if shown.view else await self._newest_cards.note(op):
            self.show(older)
        shown.at, shown.view = time.monotonic(), view
        if op.message != message:
            now_at = message
            op = await self._operations.update(op.id, lambda op: op.model_copy(update={"message": now_at}))
        for key, reply in thread(op):
            if key not in shown.replies:
                await self._reply(op, shown, f"{op.id}:{key}", reply, message)
                shown.replies.add(key)
        await self._announce(op, message)
        return op

    async def _first(self, op: Operation, view: View) -> tuple[Message, bool]:
        first, whom = await self.announcements.first_text(op, view)
        post = partial(self._slack.posted, f"card:{op.id}", op.request.channel, notify=whom)
        return await readable(first, post)

    async def _announce(self, op: Operation, message: Message | None) -> None:
        await self.announcements.announce(op, message)
        if said := self.announcements.withdrawn(op):
            await self.revise(f"replace:{op.id}", lines(said))

    async def _post_again(self, op: Operation, shown: _Card, gone: Message, view: View) -> tuple[Message, bool]:
        """Post the card that replaces a deleted one. Its key contains the deleted one, so that only one bot posts it."""
        if time.monotonic() < shown.post_again_at:
            raise Unavailable("Slack", "the card was deleted again")
        key = f"card:{op.id}:{gone.ts}"
        posted = await readable(view, partial(self._slack.posted, key, op.request.channel))
        shown.post_again_at = time.monotonic() + min(600.0, 15.0 * 2**shown.posted_again)
        shown.posted_again += 1
        log.info("card posted again", op=op.id, model=op.request.model)
        return posted

    async def _reply(self, op: Operation, shown: _Card, key: str, view: View, below: Message) -> None:
        try:
            await readable(view, partial(self._slack.post, key, below.channel, thread=below))
        except SlackRefused as refused:
            if refused.code not in NO_THREAD:
                raise
            shown.view = None  # so that the existing card is searched for
            raise Unavailable("Slack", f"the card of {op.id} is gone") from refused

    async def _refuse(self, op: Operation) -> None:
        """Notify only the requester. If that is not possible, log it, and do not retry."""
        if op.request.actor:
            try:
                await self._slack.whisper(op.request.channel, op.request.actor, outcome_text(op))
            except SlackRefused as refused:
                await self._audit.note_unshown(op, refused.code, self._clock())
        await self._operations.mark_delivered(op.id)

    async def _tell_elsewhere(self, op: Operation, why: str) -> None:
        """Send one direct message per operation to the people concerned and the admins; it changes with the status."""
        if self._told.get(op.id) is op.status:
            return
        warning = section(
            md(
                "⚠️ Slack accepts no messages from Stoker in <#{channel}>{value}. The work continues, and its state is shown here "
                "until the channel accepts messages again.",
                channel=op.request.channel,
                value=md(" ({why})", why=code(why)) if why else "",
            )
        )
        drawn = card(op, self._clock(), await self._slack.links(self._config))
        view = View(text=drawn.text, blocks=[warning, *drawn.blocks][:50])
        for user in await self._concerned(op):
            key = f"unshown:{op.id}:{user}"
            await (self.revise(key, view) if await self._messages.posted(key) else self.post(key, user, view))
        self._told[op.id] = op.status

    async def _take_back(self, op: Operation) -> None:
        """Update the direct messages with a link to the channel, which accepts messages again."""
        view = lines(
            md(
                "✅ {model}: this is shown in <#{channel}> again.",
                model=code(op.request.model),
                channel=op.request.channel,
            )
        )
        for user in await self._concerned(op):
            await self.revise(f"unshown:{op.id}:{user}", view)
        self._told.pop(op.id, None)

    async def _concerned(self, op: Operation) -> tuple[str, ...]:
        holder = op.request.holder if isinstance(op.request, BringDown) else ""
        people = (op.request.actor, holder, *await self._admins())
        return tuple(dict.fromkeys(filter(None, people)))

    async def _admins(self) -> tuple[str, ...]:
        admins = self._config.roles.admins
        with suppress(BotError, Unavailable):  # a user group that cannot be looked up
            admins = tuple(sorted(await self._slack.members(admins)))
        return tuple(user for user in admins if not is_user_group(user))

    # ── channels that accept no messages ──────────────────────────────────────────────────────────────────────────────

    def reopen(self, channel: str) -> None:
        """Retry immediately, because the bot was invited or the channel was unarchived."""
        self._closed.reopen(channel)
        self._retries.clear()
        self._wake.set()
        for shown in self._cards.values():
            shown.reopened.set()

    # ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def post(
        self,
        key: str,
        place: str,
        view: View,
        *,
        card: str = "",
        thread: Message | None = None,
        notify: tuple[str, ...] = (),
        question: str = "",
    ) -> None:
        """Post a message once for `key`, in a channel or to a user, or below an operation's `card` or a message's
        `thread`. In a channel it notifies only the people in `notify` that it mentions; `bot.domain.notifications` has
        the table.
        """
        if await self._messages.posted(key) is None:
            await self._put("post", key, view, place=place, card=card, thread=thread, notify=notify, question=question)

    async def tell_admins(self, key: str, view: View) -> None:
        """Notify each admin once, or the channel if there are no admins."""
        for user in await self._admins() or (self._config.slack.channel,):
            await self.post(f"{key}:{user}", user, view)

    async def edit(self, message: Message, view: View) -> None:
        await self._put("edit", edit_key(message), view, at=message)

    async def revise(self, key: str, view: View) -> None:
        """Update the message that was or will be posted for `key`, if any."""
        waiting = await self._outbox.get(key)
        if waiting and waiting.what == "post":
            changed = {"text": view.text, "blocks": tuple(view.blocks), "question": ""}
            await self._outbox.put(waiting.model_copy(update=changed))
        elif await self._messages.posted(key):
            await self._put("revise", key, view)

    async def withdraw(self, question: str, keys: tuple[str, ...] = (), said: View | None = None) -> None:
        """Drop the unposted questions about an operation's session, or post them as `said`."""
        for letter in await self._outbox.waiting():
            if letter.question == question and (not keys or letter.key in keys):
                await (self.revise(letter.key, said) if said else self._outbox.drop(letter.name))

    async def waiting(self) -> int:
        """The number of letters that are not written yet."""
        return len(await self._outbox.waiting())

    async def _put(self, what: Literal["post", "edit", "revise"], key: str, view: View, **more: Any) -> None:
        now = self._clock()
        text, blocks = view.text, tuple(view.blocks)
        await self._outbox.put(
            Letter(what=what, key=key, text=text, blocks=blocks, written=now, until=now + _KEPT, **more)
        )
        self.wake()

    def wake(self) -> None:
        """Process the outbox now, including letters of an earlier process."""
        self._wake.set()
        if not self._is_closed and (self._postman is None or self._postman.done()):
            self._postman = asyncio.create_task(self._deliver())

    async def _deliver(self) -> None:
        while not self._is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_look()):
                    await self._wake.wait()
            self._wake.clear()
            try:
                letters = await self._outbox.waiting()
            except Unavailable as error:
                log.warning("outbox not read", error=str(error))
                await asyncio.sleep(1)
                continue
            self._retries = {name: tried for name, tried in self._retries.items() if name in {e.name for e in letters}}
            await asyncio.gather(*(self._attempt(letter) for letter in letters if self._is_due(letter)))

    def _next_look(self) -> float:
        due = [at - time.monotonic() for _, at in self._retries.values()]
        return max(0.05, min([_LOOK_EVERY, *due]))

    def _is_due(self, letter: Letter) -> bool:
        return time.monotonic() >= self._retries.get(letter.name, (0, 0.0))[1]

    async def _attempt(self, letter: Letter) -> None:
        async with self._sending:
            attempts = self._retries.get(letter.name, (0, 0.0))[0] + 1
            try:
                if not await self._outbox.take(letter.name):
                    return  # another process is writing it
                try:
                    async with asyncio.timeout(_ATTEMPT):
                        await self._send(letter, attempts)
                finally:
                    await self._outbox.give_back(letter.name)
            except (BotError, Unavailable, TimeoutError) as error:
                log.warning("message not written yet", key=letter.key, attempt=attempts, error=str(error))
                self._retries[letter.name] = (attempts, time.monotonic() + _delay(attempts, error))
                with suppress(Unavailable):
                    await self._give_up_if_hopeless(letter, attempts, error)
            except Exception:
                log.exception("message lost", key=letter.key)
                with suppress(Unavailable):
                    await self._outbox.drop(letter.name)

    async def _send(self, letter: Letter, attempts: int) -> None:
        if letter.what == "post":
            await self._send_post(letter, attempts)
            return
        message = letter.at if letter.what == "edit" else await self._messages.posted(letter.key)
        if message:
            self._closed.require_open(message.channel)
            try:
                await readable(letter.view, partial(self._slack.update, message))
            except SlackRefused as refused:
                if refused.code not in GONE:
                    raise  # somebody deleted the message, so it needs no update
        await self._outbox.written(letter)

    async def _send_post(self, letter: Letter, attempts: int) -> None:
        self._closed.require_open(letter.place)
        below = letter.thread
        if letter.card:
            with suppress(OperationNotFound):
                below = (await self._operations.load(letter.card)).message
                if below is None and attempts <= _PERSONAL_ATTEMPTS:
                    raise Unavailable("Slack", f"the card of {letter.card} is not shown yet")
        try:
            message = await self._posted(letter, below)
        except SlackRefused as refused:
            if below is None or refused.code not in NO_THREAD:
                raise
            message = await self._posted(letter, None)
        if letter.question:
            kept = without_buttons(letter.view)
            asked = Question(message=message, text=kept.text, blocks=tuple(kept.blocks))
            await self._questions.note(letter.question, letter.key, asked)
        now = await self._outbox.get(letter.name)
        if now is None and letter.question:  # withdrawn in the meantime
            await self._questions.forget(letter.question, letter.key)
            await self.edit(message, without_buttons(letter.view))
        elif now and now.view != letter.view:
            if letter.question and not now.question:  # answered in the meantime
                await self._questions.forget(letter.question, letter.key)
            await self.edit(message, now.view)
        if now:
            await self._outbox.written(now)
        if (about := letter.question or letter.card) in self._told and not is_user(letter.place):
            with suppress(OperationNotFound):
                await self._take_back(await self._operations.load(about))

    async def _posted(self, letter: Letter, below: Message | None) -> Message:
        place = below.channel if below else letter.place
        post = partial(self._slack.posted, letter.key, place, thread=below, notify=letter.notify)
        message, fresh = await readable(letter.view, post)
        if not fresh:  # posted by a process that was killed, and possibly changed since
            try:
                await readable(letter.view, partial(self._slack.update, message))
            except SlackRefused as refused:
                if refused.code not in GONE:
                    raise
        return message

    async def _give_up_if_hopeless(self, letter: Letter, attempts: int, error: Exception) -> None:
        refused = error if isinstance(error, SlackRefused) else None
        place = letter.at.channel if letter.at else letter.place
        if refused and not is_personal(place) and place:
            self._closed.close(place)
            if about := letter.question or letter.card:
                with suppress(OperationNotFound):
                    op = await self._operations.load(about)
                    await self._audit.note_unshown(op, refused.code, self._clock())
                    await self._tell_elsewhere(op, refused.code)
        hopeless = refused and (is_personal(place) or refused.code in CONTENT) and attempts >= _PERSONAL_ATTEMPTS
        if hopeless or self._clock() > letter.until:
            log.warning("message given up", key=letter.key, where=place, error=str(error))
            await self._outbox.drop(letter.name)


def _delay(attempts: int, error: Exception) -> float:
    """Seconds until the next attempt: increasing, and at least as long as Slack asks for."""
    asked = error.after if isinstance(error, SlackBusy) else 0.0
    return max(asked, min(LONGEST_PAUSE, 0.5 * 2.0 ** min(attempts, 10)))
