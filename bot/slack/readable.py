"""Write a view in a form that Slack accepts, with fewer blocks if necessary."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from bot.slack.web_api import CONTENT, SlackRefused
from bot.views import View, plain_view

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def readable(view: View, write: Callable[[View], Coroutine[Any, Any, T]]) -> T:
    """Write a view. If Slack refuses the content, write plain text with the buttons, then without buttons."""
    try:
        return await write(view)
    except SlackRefused as refused:
        if refused.code not in CONTENT:
            raise
        log.warning("message simplified", error=refused.message)
    try:
        return await write(plain_view(view, buttons=True))
    except SlackRefused as refused:
        if refused.code not in CONTENT:
            raise
    return await write(plain_view(view, buttons=False))
