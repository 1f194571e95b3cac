"""Show operations and sessions in Slack. This runs in the background, so operations never wait for Slack.

There are two kinds of messages. The *card* of an operation and its thread are rendered from the operation's newest
state after each change. Other messages are *letters* in the outbox. Failed attempts are retried, and a deleted card is
posted again. If a channel accepts no messages, the people concerned and the admins get one direct message per operation,
until the channel accepts messages again.
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
"""Maximum time for which a message is retried."""
_ATTEMPT = 10.0
"""Timeout in seconds of one attempt to write a letter."""
_CUTS = 20
"""Maximum cancellations of a task in `close`, half a second apart, so that no task uses Redis afterwards."""
_OUTBOX_CHECK = 15.0
"""Maximum seconds between two reads of the outbox."""
_REWRITE_AFTER = 300.0
"""Seconds after which an unchanged card is written again, because somebody may have deleted it."""
_FORGET_AFTER = 900.0
"""Seconds without a change after which the state of a card is dropped from memory."""
_PERSONAL_ATTEMPTS = 3


@dataclass
class _Card:
    """The last state of an operation's card that this process wrote."""

    due: asyncio.Event = field(default_factory=asyncio.Event)
    urgent: asyncio.Event = field(default_factory=asyncio.Event)
    reopened: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the card's channel accepts messages again, so that the next attempt is made immediately."""
    at: float = 0.0
    view: View | None = None
    replies: set[str] = field(default_factory=set)
    posted_again: int = 0
    post_again_at: float = 0.0
    task: asyncio.Task[None] | None = None


class Presentation:
    """Shows operations in Slack. Each method returns immediately and never fails because of Slack."""

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
        self._unshown: dict[str, Status] = {}
        """The status that the direct messages about an operation show, while its channel accepts no messages."""
        self._retries: dict[str, tuple[int, float]] = {}
        self._progress = asyncio.Semaphore(2)
        """Limits concurrent progress updates: Slack rate-limits bursts, which would delay replies."""
        self._sending, self._wake = asyncio.Semaphore(4), asyncio.Event()
        self._delivery: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop writing. The next process shows the newest state."""
        self._is_closed = True
        tasks = {task for task in (self._delivery, *(state.task for state in self._cards.values())) if task}
        for _ in range(_CUTS):  # a library may swallow a cancellation
            for task in tasks:
                task.cancel()
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=0.5)

    # ── cards ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def show(self, op_id: str, *, now: bool = False) -> None:
        """Update an operation's card and thread in the background until they show its stored state.

        Several changes within `slack.update_every` become one update, unless `now` is set.
        """
        state = self._cards.setdefault(op_id, _Card())
        if now:
            state.urgent.set()
        state.due.set()
        if state.task is None and not self._is_closed:
            state.task = asyncio.create_task(self._keep_updated(op_id, state))

    async def _keep_updated(self, op_id: str, state: _Card) -> None:
        failures = 0
        try:
            while not self._is_closed:
                async with asyncio.timeout(_FORGET_AFTER):
                    await state.due.wait()
                left = state.at + self._config.slack.update_every.total_seconds() - time.monotonic()
                if left > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await state.urgent.wait()
                urgent = state.urgent.is_set()
                state.due.clear()
                state.urgent.clear()
                state.reopened.clear()
                try:
                    if urgent:
                        over = await self._write(op_id, state)
                    else:
                        async with self._progress:
                            over = await self._write(op_id, state)
                except (BotError, Unavailable) as error:
                    failures += 1
                    log.warning("not shown yet", op=op_id, attempt=failures, error=str(error))
                    state.due.set()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_delay(failures, error)):
                            await state.reopened.wait()
                    continue
                failures = 0
                if over and not state.due.is_set():
                    return
        except (OperationNotFound, TimeoutError):
            return
        except Exception:
            log.exception("card lost", op=op_id)  # the next change, or the sweep, starts the update again
        finally:
            if self._cards.get(op_id) is state:
                del self._cards[op_id]

    async def _write(self, op_id: str, state: _Card) -> bool:
        """Show the newest state; returns whether the operation has ended and everything is shown."""
        try:
            op = await self._operations.load(op_id)
        except OperationNotFound:
            return True
        if op.status is Status.REFUSED:
            await self._refuse(op)
            return True
        try:
            self._closed.require_open(op.request.channel)
            op = await self._draw(op, state)
        except (SlackRefused, ChannelClosed) as error:
            if isinstance(error, SlackRefused):
                self._closed.close(op.request.channel)
                await self._audit.note_unshown(op, error.code, self._clock())
            await self._send_direct_messages(op, error.code if isinstance(error, SlackRefused) else "")
            await self._announce(op, op.message)
            raise
        self._closed.reopen(op.request.channel)
        if op.id in self._unshown:
            await self._replace_direct_messages(op)
        newer = await self._operations.load(op_id)
        if newer.version != op.version:
            state.due.set()
            if newer.status.final:
                state.urgent.set()
            return False
        if op.status.final:
            await self._operations.mark_delivered(op.id)
        return op.status.final

    async def _draw(self, op: Operation, state: _Card) -> Operation:
        view = card(op, self._clock(), await self._slack.links(self._config))
        message, fresh = (op.message, False) if op.message else await self._post_first(op, view)
        unchanged = view == state.view and time.monotonic() - state.at < _REWRITE_AFTER
        while not fresh and not unchanged:
            try:
                await readable(view, partial(self._slack.update, message))
                break
            except SlackRefused as refused:
                if refused.code not in GONE:
                    raise
                message, fresh = await self._post_again(op, state, message, view)
        for older in () if state.view else await self._newest_cards.note(op):
            self.show(older)
        state.at, state.view = time.monotonic(), view
        if op.message != message:
            now_at = message
            op = await self._operations.update(op.id, lambda op: op.model_copy(update={"message": now_at}))
        for key, reply in thread(op):
            if key not in state.replies:
                await self._reply(op, state, f"{op.id}:{key}", reply, message)
                state.replies.add(key)
        await self._announce(op, message)
        return op

    async def _post_first(self, op: Operation, view: View) -> tuple[Message, bool]:
        first, notified = await self.announcements.first_text(op, view)
        post = partial(self._slack.post_once, f"card:{op.id}", op.request.channel, notify=notified)
        return await readable(first, post)

    async def _announce(self, op: Operation, message: Message | None) -> None:
        await self.announcements.announce(op, message)
        if text := self.announcements.withdrawn(op):
            await self.revise(f"replace:{op.id}", lines(text))

    async def _post_again(self, op: Operation, state: _Card, deleted: Message, view: View) -> tuple[Message, bool]:
        """Post a card that replaces a deleted one. The key contains the deleted message, so that only one bot posts it."""
        if time.monotonic() < state.post_again_at:
            raise Unavailable("Slack", "the card was deleted again")
        key = f"card:{op.id}:{deleted.ts}"
        posted = await readable(view, partial(self._slack.post_once, key, op.request.channel))
        state.post_again_at = time.monotonic() + min(600.0, 15.0 * 2**state.posted_again)
        state.posted_again += 1
        log.info("card posted again", op=op.id, model=op.request.model)
        return posted

    async def _reply(self, op: Operation, state: _Card, key: str, view: View, parent: Message) -> None:
        try:
            await readable(view, partial(self._slack.post, key, parent.channel, thread=parent))
        except SlackRefused as refused:
            if refused.code not in NO_THREAD:
                raise
            state.view = None  # so that the next attempt writes the card first, and posts it again if it was deleted
            raise Unavailable("Slack", f"the card of {op.id} is gone") from refused

    async def _refuse(self, op: Operation) -> None:
        """Notify only the requester. If Slack refuses the message, record the refusal, and do not retry."""
        if op.request.actor:
            try:
                await self._slack.whisper(op.request.channel, op.request.actor, outcome_text(op))
            except SlackRefused as refused:
                await self._audit.note_unshown(op, refused.code, self._clock())
        await self._operations.mark_delivered(op.id)

    async def _send_direct_messages(self, op: Operation, error_code: str) -> None:
        """Send one direct message per operation to the people concerned and the admins. It is updated with the status."""
        if self._unshown.get(op.id) is op.status:
            return
        warning = section(
            md(
                "⚠️ Slack accepts no messages from Stoker in <#{channel}>{value}. The work continues, and its state is shown here "
                "until the channel accepts messages again.",
                channel=op.request.channel,
                value=md(" ({why})", why=code(error_code)) if error_code else "",
            )
        )
        drawn = card(op, self._clock(), await self._slack.links(self._config))
        view = View(text=drawn.text, blocks=[warning, *drawn.blocks][:50])
        for user in await self._concerned(op):
            key = f"unshown:{op.id}:{user}"
            await (self.revise(key, view) if await self._messages.posted(key) else self.post(key, user, view))
        self._unshown[op.id] = op.status

    async def _replace_direct_messages(self, op: Operation) -> None:
        """Replace the direct messages by a link to the channel, which accepts messages again."""
        model, channel = code(op.request.model), op.request.channel
        view = lines(md("✅ {model}: this is shown in <#{channel}> again.", model=model, channel=channel))
        for user in await self._concerned(op):
            await self.revise(f"unshown:{op.id}:{user}", view)
        self._unshown.pop(op.id, None)

    async def _concerned(self, op: Operation) -> tuple[str, ...]:
        holder = op.request.holder if isinstance(op.request, BringDown) else ""
        people = (op.request.actor, holder, *await self._admins())
        return tuple(dict.fromkeys(filter(None, people)))

    async def _admins(self) -> tuple[str, ...]:
        admins = self._config.roles.admins
        with suppress(BotError, Unavailable):  # ignore a user group that cannot be looked up
            admins = tuple(sorted(await self._slack.members(admins)))
        return tuple(user for user in admins if not is_user_group(user))

    # ── channels that accept no messages ──────────────────────────────────────────────────────────────────────────────

    def reopen(self, channel: str) -> None:
        """Retry immediately, because the bot was invited or the channel was unarchived."""
        self._closed.reopen(channel)
        self._retries.clear()
        self._wake.set()
        for state in self._cards.values():
            state.reopened.set()

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
        """Post a message once for `key`: in a channel, to a user, below an operation's `card`, or in a `thread`.

        In a channel, the message notifies only the people in `notify` whom it mentions: see `bot.domain.notifications`.
        """
        if await self._messages.posted(key) is None:
            await self._put("post", key, view, place=place, card=card, thread=thread, notify=notify, question=question)

    async def notify_admins(self, key: str, view: View) -> None:
        """Notify each admin once, or the channel if there are no admins."""
        for user in await self._admins() or (self._config.slack.channel,):
            await self.post(f"{key}:{user}", user, view)

    async def edit(self, message: Message, view: View) -> None:
        """Replace the text of a posted message."""
        await self._put("edit", edit_key(message), view, at=message)

    async def revise(self, key: str, view: View) -> None:
        """Update the message that was or will be posted for `key`, if any."""
        waiting = await self._outbox.get(key)
        if waiting and waiting.what == "post":
            changed = {"text": view.text, "blocks": tuple(view.blocks), "question": ""}
            await self._outbox.put(waiting.model_copy(update=changed))
        elif await self._messages.posted(key):
            await self._put("revise", key, view)

    async def withdraw(self, question: str, keys: tuple[str, ...] = (), replacement: View | None = None) -> None:
        """Drop the unposted questions about an operation's session, or replace them by `replacement`."""
        for letter in await self._outbox.waiting():
            if letter.question == question and (not keys or letter.key in keys):
                await (self.revise(letter.key, replacement) if replacement else self._outbox.drop(letter.name))

    async def waiting(self) -> int:
        """The number of letters that are not written yet."""
        return len(await self._outbox.waiting())

    async def _put(self, action: Literal["post", "edit", "revise"], key: str, view: View, **more: Any) -> None:
        now = self._clock()
        text, blocks = view.text, tuple(view.blocks)
        await self._outbox.put(
            Letter(what=action, key=key, text=text, blocks=blocks, written=now, until=now + _KEPT, **more)
        )
        self.wake()

    def wake(self) -> None:
        """Process the outbox now, including the letters of an earlier process."""
        self._wake.set()
        if not self._is_closed and (self._delivery is None or self._delivery.done()):
            self._delivery = asyncio.create_task(self._deliver())

    async def _deliver(self) -> None:
        while not self._is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_next_check()):
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

    def _seconds_to_next_check(self) -> float:
        due = [at - time.monotonic() for _, at in self._retries.values()]
        return max(0.05, min([_OUTBOX_CHECK, *due]))

    def _is_due(self, letter: Letter) -> bool:
        return time.monotonic() >= self._retries.get(letter.name, (0, 0.0))[1]

    async def _attempt(self, letter: Letter) -> None:
        async with self._sending:
            attempts = self._retries.get(letter.name, (0, 0.0))[0] + 1
            try:
                if not await self._outbox.reserve(letter.name):
                    return  # another process is writing it
                try:
                    async with asyncio.timeout(_ATTEMPT):
                        await self._send(letter, attempts)
                finally:
                    await self._outbox.release(letter.name)
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
                    raise
        await self._outbox.mark_written(letter)

    async def _send_post(self, letter: Letter, attempts: int) -> None:
        self._closed.require_open(letter.place)
        parent = letter.thread
        if letter.card:
            with suppress(OperationNotFound):
                parent = (await self._operations.load(letter.card)).message
                if parent is None and attempts <= _PERSONAL_ATTEMPTS:
                    raise Unavailable("Slack", f"the card of {letter.card} is not shown yet")
        try:
            message = await self._post_letter(letter, parent)
        except SlackRefused as refused:
            if parent is None or refused.code not in NO_THREAD:
                raise
            message = await self._post_letter(letter, None)  # its thread is gone
        if letter.question:
            plain = without_buttons(letter.view)
            question = Question(message=message, text=plain.text, blocks=tuple(plain.blocks))
            await self._questions.note(letter.question, letter.key, question)
        now = await self._outbox.get(letter.name)
        if now is None and letter.question:  # withdrawn in the meantime
            await self._questions.forget(letter.question, letter.key)
            await self.edit(message, without_buttons(letter.view))
        elif now and now.view != letter.view:
            if letter.question and not now.question:  # answered in the meantime
                await self._questions.forget(letter.question, letter.key)
            await self.edit(message, now.view)
        if now:
            await self._outbox.mark_written(now)
        if (op_id := letter.question or letter.card) in self._unshown and not is_user(letter.place):
            with suppress(OperationNotFound):
                await self._replace_direct_messages(await self._operations.load(op_id))

    async def _post_letter(self, letter: Letter, parent: Message | None) -> Message:
        place = parent.channel if parent else letter.place
        post = partial(self._slack.post_once, letter.key, place, thread=parent, notify=letter.notify)
        message, fresh = await readable(letter.view, post)
        if not fresh:  # a process that was killed posted it, and the letter may have changed since
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
            if op_id := letter.question or letter.card:
                with suppress(OperationNotFound):
                    op = await self._operations.load(op_id)
                    await self._audit.note_unshown(op, refused.code, self._clock())
                    await self._send_direct_messages(op, refused.code)
        hopeless = refused and (is_personal(place) or refused.code in CONTENT) and attempts >= _PERSONAL_ATTEMPTS
        if hopeless or self._clock() > letter.until:
            log.warning("message given up", key=letter.key, where=place, error=str(error))
            await self._outbox.drop(letter.name)


def _delay(attempts: int, error: Exception) -> float:
    """Seconds until the next attempt. They increase with each attempt, and are not less than Slack requires."""
    requested = error.after if isinstance(error, SlackBusy) else 0.0
    return max(requested, min(LONGEST_PAUSE, 0.5 * 2.0 ** min(attempts, 10)))
