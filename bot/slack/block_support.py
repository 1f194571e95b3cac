"""Convert Slack's newer blocks for workspaces that do not support them.

Slack answers `invalid_blocks` (`invalid_arguments` for a view) if a workspace or an Enterprise grid does not support a
block. The same content is then sent as older blocks, and the refused types are not tried again for an hour, because
otherwise every update of a card would take two calls.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog

from bot.views.blocks import MESSAGE_BLOCKS, VIEW_BLOCKS, Block
from bot.views.older import newer_in, older

T = TypeVar("T")
Body = Mapping[str, Any]
log = structlog.get_logger(__name__)

REFUSALS = frozenset({"invalid_blocks", "invalid_blocks_format", "invalid_arguments"})
_REMEMBERED = 3600.0
"""Seconds for which a refused type is not tried again."""


class BlockSupport:
    """Remembers the types of blocks that the workspace has refused, and converts them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[str, float] = {}

    async def send(self, body: Body, write: Callable[[Body], Awaitable[T]], refusal: Callable[[Exception], str]) -> T:
        """Write a message or a view. `refusal` returns Slack's error code for an exception that `write` raised."""
        body = _converted(body, {kind for kind, until in self._refused.items() if self._clock() < until})
        left = newer_in(_blocks(body))
        try:
            return await write(body)
        except Exception as error:
            if not left or refusal(error) not in REFUSALS:
                raise
        answer = await write(_converted(body, left))
        log.info("newer blocks refused", types=sorted(left))
        self._refused |= dict.fromkeys(left, self._clock() + _REMEMBERED)
        return answer


def _blocks(body: Body) -> list[Block]:
    view = body.get("view")
    blocks = view.get("blocks") if isinstance(view, Mapping) else body.get("blocks")
    return [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list | tuple) else []


def _converted(body: Body, types: set[str]) -> Body:
    blocks, view = _blocks(body), body.get("view")
    if not newer_in(blocks) & types:
        return body
    if isinstance(view, Mapping):
        return {**body, "view": {**view, "blocks": older(blocks, types, VIEW_BLOCKS)}}
    return {**body, "blocks": older(blocks, types, MESSAGE_BLOCKS)}
