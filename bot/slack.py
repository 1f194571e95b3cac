"""Messages to Slack: each one posted exactly once, updates coalesced, errors in our words."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiohttp import ClientError
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient

from bot.domain import Message, Operation
from bot.errors import BotError, Unavailable
from bot.store import Forgotten, Store
from bot.views import View, card, lines, thread

log = structlog.get_logger(__name__)

_EVENT = "stoker_message"
_TRANSIENT = {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}


class SlackRefused(BotError):
    """Slack answered with an error that a retry will not mend."""

    remedy = "Compare the app with `stoker manifest`: a scope or a channel is missing. `stoker doctor` says which."

    def __init__(self, method: str, code: str) -> None:
        super().__init__(f"Slack refused {method}: {code}")
        self.code = code


class TooLate(BotError):
    """A form could not be opened in the three seconds that Slack allows."""

    remedy = "Press the button, or send the command, once more."


@contextmanager
def slack_errors(method: str) -> Iterator[None]:
    try:
        yield
    except SlackApiError as error:
        code = str(error.response.get("error", "unknown"))
        if code in _TRANSIENT or error.response.status_code == 429:
            raise Unavailable("Slack", f"{method}: {code}") from error
        raise SlackRefused(method, code) from error
    except (ClientError, SlackRequestError, TimeoutError, OSError) as error:  # SlackRequestError: an upload broke off
        raise Unavailable("Slack", f"{method}: {type(error).__name__}") from error


@contextmanager
def _in_time() -> Iterator[None]:
    """A form that came too late is no fault of who asked for it."""
    try:
        yield
    except SlackApiError as error:
        if str(error.response.get("error", "")).endswith("_trigger_id"):
            raise TooLate(
                "Slack lets a form open within three seconds only, and they have passed: please try again."
            ) from error
        raise


@dataclass
class _Shown:
    """How an operation's message was last written here, so that nothing is written twice or too often."""

    at: float = 0.0
    """Monotonic seconds."""
    view: View | None = None
    replies: set[str] = field(default_factory=set)
    later: asyncio.Task[None] | None = None


class Slack:
    """The workspace as operations see it."""

    def __init__(self, client: AsyncWebClient, store: Store, *, update_every: timedelta) -> None:
        self._client, self._store = client, store
        self._pause = update_every
        self._shown: defaultdict[str, _Shown] = defaultdict(_Shown)
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._progress = asyncio.Semaphore(2)
        """Progress of a hundred operations is written a few at a time: Slack slows a burst down, and it delays answers."""
        self._address = ""

    async def close(self) -> None:
        """Drop the updates that are still held back; the next start shows what is then true."""
        held_back = [shown.later for shown in self._shown.values() if shown.later]
        for task in held_back:
            task.cancel()
        await asyncio.gather(*held_back, return_exceptions=True)

    async def show(self, op: Operation, *, now: datetime, force: bool = False) -> Message:
        """Bring an operation's message and its thread up to date; the first time, post it.

        What is written is the newest version in the store, not the one given. Without `force`, an update that comes
        too soon after the last one is held back and written when the pause is over, so the last one always arrives.
        """
        async with self._writing[op.id]:
            shown = self._shown[op.id]
            message = op.message
            if message is None:
                view = card(op, now)
                message, fresh = await self._post(f"card:{op.id}", op.request.channel, view, None)
                if fresh:
                    shown.at, shown.view = time.monotonic(), view
            left = shown.at + self._pause.total_seconds() - time.monotonic()
            if force or left <= 0:
                await self._write(op, message, now)
            else:
                self._hold_back(op, message, now, left)
        return message

    async def _write(self, op: Operation, message: Message, now: datetime) -> None:
        """Write the newest version, and what its thread lacks.

        Two processes may write the same message: whoever wrote looks again, so the last one to write has the newest.
        """
        shown = self._shown[op.id]
        while True:
            op = await self._newest(op)
            view = card(op, now)
            if view != shown.view:
                await self.update(message, view)
                shown.at, shown.view = time.monotonic(), view
            newer = await self._newest(op)
            if newer.version == op.version:
                break
            if not newer.status.final:
                self._hold_back(newer, message, now, self._pause.total_seconds())
                break
        for key, reply in thread(op):
            if key not in shown.replies:
                await self._post(f"{op.id}:{key}", message.channel, reply, message)
                shown.replies.add(key)
        if op.status.final:
            if shown.later:
                shown.later.cancel()
            self._shown.pop(op.id, None)
            self._writing.pop(op.id, None)

    def _hold_back(self, op: Operation, message: Message, now: datetime, seconds: float) -> None:
        asked = time.monotonic()

        async def write() -> None:
            await asyncio.sleep(seconds)
            async with self._progress, self._writing[op.id]:
                self._shown[op.id].later = None
                try:
                    await self._write(op, message, now + timedelta(seconds=time.monotonic() - asked))
                except (BotError, Unavailable) as error:
                    log.warning("progress not shown", op=op.id, model=op.request.model, error=str(error))

        shown = self._shown[op.id]
        if shown.later is None:
            shown.later = asyncio.create_task(write())

    async def _newest(self, op: Operation) -> Operation:
        try:
            return await self._store.load(op.id)
        except Forgotten:  # by now: what was given is the newest that there is
            return op

    async def post(self, key: str, channel: str, view: View, *, thread: Message | None = None) -> Message:
        """Post a message exactly once for `key`, over any number of crashes and retries.

        chat.postMessage has no idempotency key, so an interrupted attempt is looked up in the channel's history
        by the metadata it carried before another is made.
        """
        message, _ = await self._post(key, channel, view, thread)
        return message

    async def nudge(self, key: str, user: str, view: View) -> bool:
        """A direct message exactly once for `key`; no for somebody who cannot be told (an account that is gone), which stops nothing."""
        try:
            await self.post(key, user, view)
        except SlackRefused as refused:
            log.warning("not told", user=user, key=key, error=refused.message)
            return False
        return True

    async def revise(self, key: str, view: View) -> None:
        """Change the message that was posted for `key`; where there is none, nothing."""
        if message := await self._store.message(key):
            await self.update(message, view)

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
        channel, messages = await self._since(channel, thread, since)
        for message in messages:
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == _EVENT and metadata.get("event_payload", {}).get("key") == key:
                return Message(channel=channel, ts=message["ts"])
        return None

    async def _since(self, channel: str, thread: Message | None, since: datetime) -> tuple[str, list[dict[str, Any]]]:
        """The messages since then, of a channel or of one thread in it, and the channel's id."""
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
        return channel, answer.get("messages") or []

    async def update(self, message: Message, view: View) -> None:
        with slack_errors("chat.update"):
            await self._client.chat_update(channel=message.channel, ts=message.ts, text=view.text, blocks=view.blocks)

    async def open_form(self, trigger_id: str, form: dict[str, Any]) -> str:
        """Open a form within three seconds of the click that it answers; returns its view id."""
        with slack_errors("views.open"), _in_time():
            answer = await self._client.views_open(trigger_id=trigger_id, view=form)
        return str(answer["view"]["id"])

    async def push_form(self, trigger_id: str, form: dict[str, Any]) -> None:
        """Lay another page over the open form."""
        with slack_errors("views.push"), _in_time():
            await self._client.views_push(trigger_id=trigger_id, view=form)

    async def update_form(self, view_id: str, form: dict[str, Any]) -> None:
        with slack_errors("views.update"):
            await self._client.views_update(view_id=view_id, view=form)

    async def upload(
        self, channel: str, content: bytes, name: str, *, title: str, text: str, thread: Message | None = None
    ) -> None:
        """Post a file with a text above it; `channel` is an id, as Slack asks here."""
        with slack_errors("files.completeUploadExternal"):
            await self._client.files_upload_v2(
                channel=channel,
                content=content,
                filename=name,
                title=title,
                alt_txt=title,
                initial_comment=text,
                thread_ts=thread.ts if thread else None,
            )

    async def upload_file(self, content: bytes, name: str, *, alt: str, note: Callable[[str], Awaitable[None]]) -> str:
        """Upload a file that `share_file` then shows; returns its id, of which `note` hears before the file is there."""
        with slack_errors("files.getUploadURLExternal"):
            begun = await self._client.files_getUploadURLExternal(filename=name, length=len(content), alt_txt=alt)
        file_id, url = str(begun["file_id"]), str(begun["upload_url"])
        await note(file_id)
        http = self._client.session
        assert http is not None  # noqa: S101  # bot.services opens the client with one
        with slack_errors("the upload of a file"):
            async with http.post(url, data=content, proxy=self._client.proxy) as answer:
                answer.raise_for_status()
        return file_id

    async def share_file(self, file_id: str, title: str, place: Message) -> None:
        """Put an uploaded file into a message's thread.

        One that is shared nowhere can be seen by the bot alone, also in blocks (docs.slack.dev/messaging/working-with-files).
        """
        with slack_errors("files.completeUploadExternal"):
            await self._client.files_completeUploadExternal(
                files=[{"id": file_id, "title": title}], channel_id=place.channel, thread_ts=place.ts
            )

    async def delete_file(self, file_id: str) -> None:
        """Delete a file of the bot's own; one that is gone already is fine."""
        try:
            with slack_errors("files.delete"):
                await self._client.files_delete(file=file_id)
        except SlackRefused as refused:
            if refused.code not in ("file_deleted", "file_not_found"):
                raise

    async def attach(self, key: str, thread: Message, content: bytes, name: str, *, title: str, text: str) -> None:
        """Post a file below a message exactly once for `key`: an interrupted attempt is looked up by the file's name."""
        noted = await self._store.intend_message(key, datetime.now(UTC))
        if isinstance(noted, Message):
            return
        if noted is None or not await self._has_file(thread, name, since=noted):
            await self.upload(thread.channel, content, name, title=title, text=text, thread=thread)
        await self._store.note_message(key, thread)

    async def _has_file(self, thread: Message, name: str, since: datetime) -> bool:
        _, replies = await self._since(thread.channel, thread, since)
        return any(file.get("name") == name for reply in replies for file in reply.get("files") or ())

    async def address(self) -> str:
        """The workspace's address, with which links to its messages begin; asked for once."""
        if not self._address:
            with slack_errors("auth.test"):
                self._address = str((await self._client.auth_test()).get("url") or "")
        return self._address

    async def publish_home(self, user: str, view: dict[str, Any]) -> None:
        with slack_errors("views.publish"):
            await self._client.views_publish(user_id=user, view=view)

    async def tell(self, user: str, text: str) -> None:
        """A direct message that nothing hangs on: the answer to a click where Slack gives no other way to answer."""
        view = lines(text)
        with slack_errors("chat.postMessage"):
            await self._client.chat_postMessage(channel=user, text=view.text, blocks=view.blocks)

    async def whisper(self, channel: str, user: str, text: str, *, thread: str | None = None) -> None:
        """An ephemeral answer: errors and help only, since Slack does not promise to deliver it.

        To somebody who is not in the channel it goes as a direct message.
        """
        view = lines(text)
        try:
            with slack_errors("chat.postEphemeral"):
                await self._client.chat_postEphemeral(
                    channel=channel, user=user, text=view.text, blocks=view.blocks, thread_ts=thread
                )
        except SlackRefused as refused:
            if refused.code not in ("user_not_in_channel", "channel_not_found", "not_in_channel"):
                raise
            await self.tell(user, text)

    async def members(self, ids: tuple[str, ...]) -> frozenset[str]:
        """Users and user groups as user ids."""
        users = {i for i in ids if not i.startswith("S")}
        for group in (i for i in ids if i.startswith("S")):
            with slack_errors("usergroups.users.list"):
                answer = await self._client.usergroups_users_list(usergroup=group)
            users.update(answer.get("users") or [])
        return frozenset(users)
