"""Messages to Slack: each one posted exactly once, updates coalesced, errors in our words."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiohttp import ClientError
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.domain import Message, Operation
from bot.errors import BotError, Unavailable
from bot.store import Store
from bot.views import View, card

log = structlog.get_logger(__name__)

_EVENT = "stoker_message"
_TRANSIENT = {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}


class SlackRefused(BotError):
    """Slack answered with an error that a retry will not mend."""


@contextmanager
def slack_errors(method: str) -> Iterator[None]:
    try:
        yield
    except SlackApiError as error:
        code = str(error.response.get("error", "unknown"))
        if code in _TRANSIENT or error.response.status_code == 429:
            raise Unavailable("Slack", f"{method}: {code}") from error
        raise SlackRefused(f"Slack refused {method}: {code}") from error
    except (ClientError, TimeoutError, OSError) as error:
        raise Unavailable("Slack", f"{method}: {type(error).__name__}") from error


class Slack:
    """The workspace as operations see it."""

    def __init__(self, client: AsyncWebClient, store: Store, *, update_every: timedelta) -> None:
        self._client, self._store = client, store
        self._pause = update_every.total_seconds()
        self._shown: dict[str, tuple[float, int, View]] = {}
        """Per operation: when its message was last written (monotonic seconds), which version, and how it looked."""
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def show(self, op: Operation, *, now: datetime, force: bool = False) -> Message:
        """Bring an operation's message up to date; the first time, post it.

        Without `force`, an update that comes too soon after the last one is left to the next call. Writes of one
        message follow each other, and an older version never overwrites a newer one.
        """
        async with self._writing[op.id]:
            view = card(op, now)
            message = op.message
            if message is None:
                message, fresh = await self._post(f"card:{op.id}", op.request.channel, view, None)
                if fresh:
                    self._shown[op.id] = (time.monotonic(), op.version, view)
            since, version, last = self._shown.get(op.id, (0.0, -1, None))
            soon = not force and time.monotonic() - since < self._pause
            if last != view and not soon and op.version >= version:
                await self.update(message, view)
                self._shown[op.id] = (time.monotonic(), op.version, view)
        if op.status.final:
            self._shown.pop(op.id, None)
            self._writing.pop(op.id, None)
        return message

    async def post(self, key: str, channel: str, view: View, *, thread: Message | None = None) -> Message:
        """Post a message exactly once for `key`, over any number of crashes and retries.

        chat.postMessage has no idempotency key, so an interrupted attempt is looked up in the channel's history
        by the metadata it carried before another is made.
        """
        message, _ = await self._post(key, channel, view, thread)
        return message

    async def _post(self, key: str, channel: str, view: View, thread: Message | None) -> tuple[Message, bool]:
        """The message, and whether it was posted just now."""
        noted = await self._store.intend_message(key, datetime.now(UTC))
        if isinstance(noted, Message):
            return noted, False
        found = await self._find(key, channel, thread, since=noted) if noted else None
        fresh = found is None
        if found is None:
            with slack_errors("chat.postMessage"):
                answer = await self._client.chat_postMessage(
                    channel=channel,
                    text=view.text,
                    blocks=view.blocks,
                    thread_ts=thread.ts if thread else None,
                    metadata={"event_type": _EVENT, "event_payload": {"key": key}},
                    unfurl_links=False,
                )
            found = Message(channel=str(answer["channel"]), ts=str(answer["ts"]))
        await self._store.note_message(key, found)
        return found, fresh

    async def _find(self, key: str, channel: str, thread: Message | None, since: datetime) -> Message | None:
        oldest = str((since - timedelta(minutes=1)).timestamp())
        with slack_errors("conversations.history"):
            if channel.startswith(("U", "W")):
                opened = await self._client.conversations_open(users=channel)
                channel = opened["channel"]["id"]
            if thread:
                answer = await self._client.conversations_replies(
                    channel=thread.channel, ts=thread.ts, oldest=oldest, include_all_metadata=True, limit=200
                )
            else:
                answer = await self._client.conversations_history(
                    channel=channel, oldest=oldest, include_all_metadata=True, limit=200
                )
        messages: list[dict[str, Any]] = answer.get("messages") or []
        for message in messages:
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == _EVENT and metadata.get("event_payload", {}).get("key") == key:
                return Message(channel=channel, ts=message["ts"])
        return None

    async def update(self, message: Message, view: View) -> None:
        with slack_errors("chat.update"):
            await self._client.chat_update(channel=message.channel, ts=message.ts, text=view.text, blocks=view.blocks)

    async def whisper(self, channel: str, user: str, text: str) -> None:
        """An ephemeral answer: errors and help only, since Slack does not promise to deliver it."""
        with slack_errors("chat.postEphemeral"):
            await self._client.chat_postEphemeral(channel=channel, user=user, text=text)

    async def members(self, ids: tuple[str, ...]) -> frozenset[str]:
        """Users and user groups as user ids."""
        users = {i for i in ids if not i.startswith("S")}
        for group in (i for i in ids if i.startswith("S")):
            with slack_errors("usergroups.users.list"):
                answer = await self._client.usergroups_users_list(usergroup=group)
            users.update(answer.get("users") or [])
        return frozenset(users)
