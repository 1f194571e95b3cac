"""How a listener answers: at once, and in one place when something is wrong."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog

from bot.errors import BotError, Unavailable
from bot.services import Services
from bot.views import escape, lines
from bot.views.blocks import Block
from bot.views.modals import loading, stopped

log = structlog.get_logger(__name__)

Respond = Callable[..., Awaitable[Any]]


class AcksFirst:
    """Lets acknowledgements go before work: Slack waits three seconds for the one, and nobody counts them for the other.

    One event loop does both. In a burst of commands the work of the first would delay the acknowledgement of the last,
    so work begins when no request has come for a moment, and only so much of it is done at a time.
    """

    def __init__(self, *, quiet: float = 0.02, longest: float = 1.0, at_a_time: int = 8) -> None:
        """Seconds without a request, seconds that work waits for that at most, and pieces of work at a time."""
        self._quiet, self._longest = quiet, longest
        self._arrived = 0.0
        self._working = asyncio.Semaphore(at_a_time)
        self._owed: set[asyncio.Task[Any]] = set()

    def arrived(self) -> None:
        """A request has come in."""
        self._arrived = time.monotonic()

    @contextmanager
    def owing(self) -> Iterator[None]:
        """Something was acknowledged and is not answered until the end of the block."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine runs in a task
        self._owed.add(task)
        try:
            yield
        finally:
            self._owed.discard(task)

    async def all_answered(self) -> None:
        """Wait until nobody is owed an answer: who was told that it is heard must not be forgotten at a restart."""
        while self._owed:
            await asyncio.wait(self._owed)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        waited, pause = 0.0, self._quiet
        while waited < self._longest and time.monotonic() < self._arrived + self._quiet:
            await asyncio.sleep(pause)
            waited += pause
            pause *= 2  # two hundred that look every moment would delay what they wait for
        try:
            async with asyncio.timeout(self._longest):
                await self._working.acquire()
        except TimeoutError:  # what is being done takes long, like a bring-down without Redis: no reason to wait for it
            yield
            return
        try:
            yield
        finally:
            self._working.release()


acks_first = AcksFirst()


async def answered(respond: Respond, work: Awaitable[str | None], *, urgent: bool = False) -> None:
    """Do the work of a command or click and tell its sender, alone, what came of it.

    `urgent` is what opens a form: Slack allows three seconds for that too, so it does not wait for its turn.
    """
    with acks_first.owing():
        if urgent:
            await _answered(respond, work)
            return
        async with acks_first.turn():
            await _answered(respond, work)


async def _answered(respond: Respond, work: Awaitable[str | None]) -> None:
    try:
        text = await work
    except BotError as error:
        text = error.message
    except Unavailable as error:
        text = (
            f"{error}. Nothing was started or changed: the GPU goes up only while its lease can be checked."
            " `/gpu status` says what the cluster knows, and `/gpu down NAME` works."
            if error.system == "Redis"
            else f"{error}. Nothing was changed; try again in a moment."
        )
    except Exception:
        error_id = uuid.uuid4().hex[:8]
        log.exception("unexpected error", error_id=error_id)
        text = f"Something unexpected went wrong. Search Stoker's log for `{error_id}`."
    if text:
        view = lines(text)
        await respond(text=view.text, blocks=view.blocks, response_type="ephemeral", replace_original=False)


async def open_filled(svc: Services, trigger_id: str, title: str, fill: Callable[[], Awaitable[Block]]) -> None:
    """Open a form at once, and show in it what `fill` makes of it, or why it cannot be filled."""
    view_id = await svc.slack.open_form(trigger_id, loading(title))
    try:
        form = await fill()
    except BotError as error:
        form = stopped(title, f"❌ {error.message}")
    except Unavailable as error:
        form = stopped(title, f"❌ {escape(str(error))}. Try again in a moment.")
    await svc.slack.update_form(view_id, form)


def whisperer(svc: Services, channel: str, user: str, thread: str | None = None) -> Respond:
    """How to answer the sender of a form or a mention, which have no response_url."""

    async def respond(*, text: str, **_: object) -> None:
        await svc.slack.whisper(channel, user, text, thread=thread)

    return respond


def teller(svc: Services, user: str) -> Respond:
    """How to answer a click in Home, where nothing can be shown to one person: by a direct message."""

    async def respond(*, text: str, **_: object) -> None:
        await svc.slack.tell(user, text)

    return respond
