"""How a listener answers: at once, and in one place when something is wrong."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from bot.errors import BotError, Unavailable
from bot.services import Services
from bot.views import lines

log = structlog.get_logger(__name__)

Respond = Callable[..., Awaitable[Any]]


async def answered(respond: Respond, work: Awaitable[str | None]) -> None:
    """Do the work of a command or click and tell its sender, alone, what came of it."""
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
