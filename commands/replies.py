"""Sends the answers of listeners: results and error messages."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog

from bot.errors import BotError, Unavailable
from bot.slack.web_api import Slack
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import View, lines
from bot.views.blocks import Block, Blocks
from bot.views.modals import loading, unfillable_form
from bot.views.older import newer_in, older

log = structlog.get_logger(__name__)

Respond = Callable[..., Awaitable[Any]]
Answer = Mrkdwn | View | None
"""The text or the message for the sender; None for no answer."""


class AcksFirst:
    """Gives acknowledgements priority over work, because Slack requires an acknowledgement within three seconds.

    Both run in one event loop. In a burst of commands, the work for the first would delay the acknowledgement of the
    last, so work begins when no request has arrived for a moment, and only a few requests are worked on at a time.
    """

    def __init__(self, *, quiet: float = 0.02, longest: float = 1.0, at_a_time: int = 8) -> None:
        """`quiet`: seconds without a request before work begins. `longest`: maximum seconds for which work waits.
        `at_a_time`: maximum number of requests that are worked on at a time.
        """
        self._quiet, self._longest = quiet, longest
        self._arrived = 0.0
        self._working = asyncio.Semaphore(at_a_time)
        self._owed: set[asyncio.Future[None]] = set()

    def arrived(self) -> None:
        """Record the arrival of a request."""
        self._arrived = asyncio.get_running_loop().time()

    @contextmanager
    def owing(self) -> Iterator[None]:
        """Track an acknowledged request until its answer has been sent."""
        answer = asyncio.get_running_loop().create_future()
        self._owed.add(answer)
        try:
            yield
        finally:
            self._owed.discard(answer)
            answer.set_result(None)

    async def wait_until_answered(self) -> None:
        """Wait until every acknowledged request is answered, so that a restart does not lose an answer."""
        while self._owed:
            await asyncio.wait(self._owed)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until work may begin."""
        waited, pause = 0.0, self._quiet
        while waited < self._longest and asyncio.get_running_loop().time() < self._arrived + self._quiet:
            await asyncio.sleep(pause)
            waited += pause
            pause *= 2  # exponential back-off, so that 200 waiters do not starve the event loop
        try:
            async with asyncio.timeout(self._longest):
                await self._working.acquire()
        except TimeoutError:  # do not wait for long work, such as a bring-down without Redis
            yield
            return
        try:
            yield
        finally:
            self._working.release()


acks_first = AcksFirst()


async def send_answer(
    respond: Respond, work: Awaitable[Answer], *, urgent: bool = False, replace: bool = False
) -> None:
    """Do the work of a command or click, and send the result to the user only.

    With `replace`, a View replaces the clicked message; a text is always a new message. `urgent` work does not wait for
    its turn: it opens a form, for which Slack allows three seconds.
    """
    with acks_first.owing():
        if urgent:
            await _send_answer(respond, work, replace)
            return
        async with acks_first.turn():
            await _send_answer(respond, work, replace)


async def _send_answer(respond: Respond, work: Awaitable[Answer], replace: bool) -> None:
    text: Answer
    try:
        text = await work
    except BotError as error:
        text = error.shown
    except Unavailable as error:
        text = (
            md(
                "{error}. Your request may have been stored: look for a card before you repeat it. No model is brought up until "
                "Redis answers. `/gpu status` shows the state of the cluster, and `/gpu down NAME` works.",
                error=error,
            )
            if error.system == "Redis"
            else md("{error}. Nothing was changed; try again in a moment.", error=error)
        )
    except Exception:
        error_id = uuid.uuid4().hex[:8]
        log.exception("unexpected error", error_id=error_id)
        text = md("Something unexpected went wrong. Search Stoker's log for `{error_id}`.", error_id=error_id)
    if text:
        view = text if isinstance(text, View) else lines(text)
        replace = replace and isinstance(text, View)
        await respond(text=view.text, blocks=view.blocks, response_type="ephemeral", replace_original=replace)


def with_older_blocks(respond: Respond) -> Respond:
    """Return a responder that answers with older blocks if Slack refuses the newer ones."""

    async def answer(**message: Any) -> None:
        response = await respond(**message)
        blocks = message.get("blocks") or []
        if newer_in(blocks) and getattr(response, "status_code", 200) != 200:
            await respond(**{**message, "blocks": older(blocks)})

    return answer


async def open_and_fill(slack: Slack, trigger_id: str, title: str, fill: Callable[[], Awaitable[Block]]) -> None:
    """Open a form immediately, then show the result of `fill` in it, or the reason why it cannot be filled."""
    view_id = await slack.open_form(trigger_id, loading(title))
    try:
        form = await fill()
    except BotError as error:
        form = unfillable_form(title, md("{error}", error=error))
    except Unavailable as error:
        form = unfillable_form(title, md("{error}. Try again in a moment.", error=error))
    await slack.update_form(view_id, form)


def card_reference(asked_in: str | None, channel: str) -> Mrkdwn | None:
    """Return the answer to a request: a reference to the card, or None if the request was made in the card's channel."""
    return elsewhere(asked_in, channel, md("Requested: the card is in"))


def elsewhere(asked_in: str | None, channel: str, text: Mrkdwn) -> Mrkdwn | None:
    """Return the text with the channel, or None if the request was made in that channel."""
    return None if asked_in == channel else md("{text} <#{channel}>.", text=text, channel=channel)


def read_value(value: str) -> tuple[str, str]:
    """Parse the value of a card's button: the operation's id, and the hash of the plan for which it was rendered.

    The hash is empty on a card of an earlier version of Stoker.
    """
    op_id, _, mark = value.partition(".")
    return op_id, mark


def ephemeral_responder(slack: Slack, channel: str, user: str, thread: str | None = None) -> Respond:
    """Return a responder for a form or a mention, which have no response_url."""

    async def respond(*, text: Mrkdwn, blocks: Blocks | None = None, **_: object) -> None:
        await slack.whisper(channel, user, View(text=text, blocks=blocks) if blocks else text, thread=thread)

    return respond


def dm_responder(slack: Slack, user: str) -> Respond:
    """Return a responder for clicks in Home, where ephemeral messages are not possible: it sends a direct message."""

    async def respond(*, text: Mrkdwn, blocks: Blocks | None = None, **_: object) -> None:
        await slack.send(user, View(text=text, blocks=blocks) if blocks else text)

    return respond
