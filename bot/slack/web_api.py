"""Client for Slack's Web API. It posts each message exactly once, and maps Slack's errors to Stoker's."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from aiohttp import ClientError
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.http_retry.response import HttpResponse
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.clock import REAL_TIME, Clock
from bot.domain.operations import Operation
from bot.domain.values import Message
from bot.errors import BotError, Unavailable
from bot.observability.logs import cleaned_texts
from bot.progress import beside_all_work
from bot.settings.config import Config
from bot.slack.block_support import BlockSupport
from bot.slack.ids import is_personal, is_user, is_user_group
from bot.state.messages import Messages
from bot.text.mrkdwn import Mrkdwn
from bot.views import View, lines
from bot.views.links import NO_LINKS, Links, Place, unknown_place
from bot.views.mentions import mentioned_in, notifying

log = structlog.get_logger(__name__)

_EVENT = "stoker_message"
_ALT = 1000
"""Maximum characters of a file's alternative text."""
_PATIENCE = 10.0
"""Maximum seconds for which a call waits if Slack limits the rate."""

# The codes are those of docs.slack.dev/reference/methods/chat.update and chat.postMessage.
_TRANSIENT = {
    "internal_error", "fatal_error", "service_unavailable", "request_timeout", "update_failed", "team_added_to_org",
    "external_channel_migrating", "message_limit_exceeded",
}  # fmt: skip
_LIMITED = {"ratelimited", "rate_limited", "accesslimited"}
"""Slack's codes for a rate limit. chat.postMessage has a different code than the other methods."""
GONE = {"message_not_found", "cant_update_message", "edit_window_closed", "block_mismatch"}
"""Codes for a message that can no longer be changed: it was deleted, or a rule of the workspace forbids the change."""
NO_THREAD = {"thread_not_found", "message_not_found", "invalid_thread_ts", "cannot_reply_to_message"}
"""Codes for a message to which no reply can be posted."""
CONTENT = {
    "msg_too_long", "msg_blocks_too_long", "invalid_blocks", "invalid_blocks_format", "no_text", "invalid_attachments",
    "too_many_attachments", "invalid_arguments", "invalid_metadata_format", "invalid_metadata_schema", "metadata_too_large",
}  # fmt: skip
"""Codes for a message whose content Slack refuses."""


class SlackRefused(BotError):
    """Slack answered with a permanent error."""

    remedy = "Compare the app with `stoker manifest`: a scope or a channel is missing. `stoker doctor` names it."

    def __init__(self, method: str, code: str) -> None:
        super().__init__(f"Slack refused {method}: {code}")
        self.code = code


class TooLate(BotError):
    """A form could not be opened in the three seconds that Slack allows."""

    remedy = "Press the button, or send the command, again."


class SlackBusy(Unavailable):
    """Slack limits the rate of requests (429)."""

    remedy = "Nothing: Stoker waits as long as Slack requires, and then sends the remaining messages."

    def __init__(self, method: str, after: float) -> None:
        super().__init__("Slack", f"{method}: ratelimited")
        self.after = after


class Patience(AsyncRateLimitErrorRetryHandler):
    """Waits a few seconds if Slack requires that. If the wait is longer, the call fails, because a user is waiting."""

    async def _can_retry_async(self, *, response: HttpResponse | None = None, **_: Any) -> bool:
        return response is not None and response.status_code == 429 and _after(response.headers) <= _PATIENCE


def _after(headers: Mapping[str, Any]) -> float:
    """Seconds of a Retry-After header; a minute if it cannot be parsed."""
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "1")
    text = str(value[0] if isinstance(value, list) else value)
    return float(text) if text.isdecimal() and len(text) < 6 else 60.0


@contextmanager
def slack_errors(method: str) -> Iterator[None]:
    """Map Slack's errors to Stoker's. A response that is not from Slack (a proxy's page, truncated JSON) raises
    Unavailable.
    """
    try:
        yield
    except SlackApiError as error:
        status, code = getattr(error.response, "status_code", 0), _code_of(error.response)
        if status == 429 or code in _LIMITED:
            raise SlackBusy(method, _after(getattr(error.response, "headers", {}))) from error
        if code in _TRANSIENT or status >= 500 or not code:
            raise Unavailable("Slack", f"{method}: {code or f'status {status}'}") from error
        raise SlackRefused(method, code) from error
    # SlackRequestError: an upload was interrupted.
    except (ClientError, SlackRequestError, TimeoutError, OSError) as error:
        raise Unavailable("Slack", f"{method}: {type(error).__name__}") from error
    # slack_sdk raises these for invalid responses.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Unavailable("Slack", f"{method}: its answer cannot be read") from error


def _code_of(response: object) -> str:
    data = getattr(response, "data", None)
    return str(data.get("error") or "") if isinstance(data, dict) else ""


@contextmanager
def _in_time() -> Iterator[None]:
    """Turn an expired trigger id into a TooLate error."""
    try:
        yield
    except SlackApiError as error:
        if str(error.response.get("error", "")).endswith("_trigger_id"):
            raise TooLate(
                "The form was not opened within the three seconds that Slack allows. Please try again."
            ) from error
        raise


class CleanWebClient(AsyncWebClient):
    """A client that removes secrets, and converts blocks that the workspace does not support.

    It overrides `api_call`, which every method of the library uses.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._support = BlockSupport()

    async def api_call(self, api_method: str, **call: Any) -> AsyncSlackResponse:
        for part in ("json", "data", "params"):
            if isinstance(call.get(part), Mapping):
                call[part] = cleaned_texts(call[part])
        body = call.get("json")
        if not isinstance(body, Mapping):
            return await self._call(api_method, call)
        write = partial(self._write, api_method, call)
        return await self._support.send(body, write, _refusal)

    async def _write(self, api_method: str, call: Mapping[str, Any], body: Mapping[str, Any]) -> AsyncSlackResponse:
        return await self._call(api_method, {**call, "json": body})

    async def _call(self, api_method: str, call: Mapping[str, Any]) -> AsyncSlackResponse:
        if not api_method.startswith("chat."):
            return await super().api_call(api_method, **call)
        async with beside_all_work(api_method):
            return await super().api_call(api_method, **call)


def _refusal(error: Exception) -> str:
    return _code_of(error.response) if isinstance(error, SlackApiError) else ""


class Slack:
    """Sends and updates messages, forms and Home."""

    def __init__(
        self, client: AsyncWebClient, messages: Messages, clock: Clock = REAL_TIME, place: Place = unknown_place
    ) -> None:
        self._client, self._messages, self._clock, self._place = client, messages, clock, place
        self._address = ""
        self._names: dict[str, str] = {}

    async def post(self, key: str, channel: str, view: View, *, thread: Message | None = None) -> Message:
        """Post a message exactly once for `key`, even after crashes and retries. In a channel it notifies nobody.

        chat.postMessage has no idempotency key. Before a retry, the channel's history is therefore searched for the
        message of an interrupted attempt, by its metadata.
        """
        message, _ = await self.post_once(key, channel, view, thread=thread)
        return message

    async def post_once(
        self, key: str, channel: str, view: View, *, thread: Message | None = None, notify: Collection[str] = ()
    ) -> tuple[Message, bool]:
        """Like `post`; also returns whether this call posted it. In a channel it notifies only the people in `notify`."""
        recorded = await self._messages.intend(key, self._clock())
        if isinstance(recorded, Message):
            return recorded, False
        message = await self._find(key, channel, thread, since=recorded) if recorded else None
        fresh = message is None
        if message is None:
            if not is_personal(channel):
                view = notifying(view, notify, await self._names_of(mentioned_in(view) - set(notify)))
            with slack_errors("chat.postMessage"):
                answer = await self._client.chat_postMessage(
                    channel=channel,
                    text=view.text,
                    blocks=view.blocks,
                    thread_ts=thread.ts if thread else None,
                    metadata={"event_type": _EVENT, "event_payload": {"key": key}},
                    unfurl_links=False,
                )
                message = Message.model_validate({"channel": answer.get("channel"), "ts": answer.get("ts")})
        await self._messages.note(key, message)
        return message, fresh

    async def _names_of(self, users: Iterable[str]) -> dict[str, str]:
        """Display names by id, without users that cannot be looked up."""
        for user in set(users) - set(self._names):
            with suppress(BotError, Unavailable), slack_errors("users.info"):
                account = (await self._client.users_info(user=user)).get("user") or {}
                profile = account.get("profile") or {}
                self._names[user] = str(
                    profile.get("display_name") or account.get("real_name") or account.get("name") or ""
                )
        return self._names

    async def _find(self, key: str, channel: str, thread: Message | None, since: datetime) -> Message | None:
        channel, messages = await self._messages_since(channel, thread, since)
        for message in messages:
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == _EVENT and metadata.get("event_payload", {}).get("key") == key:
                return Message(channel=channel, ts=message["ts"])
        return None

    async def _messages_since(
        self, channel: str, thread: Message | None, since: datetime
    ) -> tuple[str, list[dict[str, Any]]]:
        """The id of the channel, and the messages since a time, in the channel or in one of its threads."""
        oldest = str((since - timedelta(minutes=1)).timestamp())
        with slack_errors("conversations.history"):
            if is_user(channel):
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
        """Replace the content of a message. Raises SlackRefused with a code of `GONE` if it was deleted."""
        with slack_errors("chat.update"):
            await self._client.chat_update(channel=message.channel, ts=message.ts, text=view.text, blocks=view.blocks)

    async def open_form(self, trigger_id: str, form: dict[str, Any]) -> str:
        """Open a form within three seconds of the click; returns its view id."""
        with slack_errors("views.open"), _in_time():
            answer = await self._client.views_open(trigger_id=trigger_id, view=form)
        return str(answer["view"]["id"])

    async def push_form(self, trigger_id: str, form: dict[str, Any]) -> None:
        """Open another page on top of the form."""
        with slack_errors("views.push"), _in_time():
            await self._client.views_push(trigger_id=trigger_id, view=form)

    async def update_form(self, view_id: str, form: dict[str, Any]) -> None:
        with slack_errors("views.update"):
            await self._client.views_update(view_id=view_id, view=form)

    async def names(self, users: Iterable[str]) -> Mapping[str, str]:
        """Display names by id; users that cannot be looked up are missing."""
        return await self._names_of(users)

    async def bookmark(self, channel: str, title: str) -> None:
        """Set the title of the bot's bookmark in the channel; add the bookmark if it is missing. It is identified by its
        link.
        """
        link = f"https://slack.com/app_redirect?channel={channel}&stoker=gpu"
        with slack_errors("bookmarks.list"):
            bookmarks = (await self._client.bookmarks_list(channel_id=channel)).get("bookmarks") or []
        bookmark = next((entry for entry in bookmarks if entry.get("link") == link), None)
        if bookmark is None:
            with slack_errors("bookmarks.add"):
                await self._client.bookmarks_add(
                    channel_id=channel, title=title, type="link", link=link, emoji=":fire:"
                )
        elif bookmark.get("title") != title:
            with slack_errors("bookmarks.edit"):
                await self._client.bookmarks_edit(
                    channel_id=channel, bookmark_id=str(bookmark.get("id")), title=title, link=link
                )

    async def attach(
        self, key: str, thread: Message, content: bytes, name: str, *, title: str, alt: str, text: Mrkdwn
    ) -> None:
        """Post a picture in a thread exactly once for `key`. The file of an interrupted attempt is found by its name. `alt`
        is the picture's alternative text.
        """
        recorded = await self._messages.intend(key, self._clock())
        if isinstance(recorded, Message):
            return
        if recorded is None or not await self._has_file(thread, name, since=recorded):
            with slack_errors("files.completeUploadExternal"):
                await self._client.files_upload_v2(
                    channel=thread.channel,
                    content=content,
                    filename=name,
                    title=title,
                    alt_txt=alt[:_ALT],
                    initial_comment=text,
                    thread_ts=thread.ts,
                )
        await self._messages.note(key, thread)

    async def _has_file(self, thread: Message, name: str, since: datetime) -> bool:
        _, replies = await self._messages_since(thread.channel, thread, since)
        return any(file.get("name") == name for reply in replies for file in reply.get("files") or ())

    async def address(self) -> str:
        """The workspace's URL, the prefix of links to its messages; cached."""
        if not self._address:
            with slack_errors("auth.test"):
                self._address = str((await self._client.auth_test()).get("url") or "")
        return self._address

    async def links(self, config: Config | None = None) -> Links:
        """The links for messages. If Slack does not answer, links to other messages are omitted."""
        links = Links.of(config, place=self._place) if config else NO_LINKS
        with suppress(BotError, Unavailable):
            return dataclasses.replace(links, workspace=await self.address())
        return links

    async def card_of(self, op: Operation) -> Mrkdwn:
        """The words "see its card", with a link."""
        return (await self.links()).message(op.message, "see its card")

    async def publish_home(self, user: str, view: dict[str, Any]) -> None:
        """Show a view in a user's Home."""
        with slack_errors("views.publish"):
            await self._client.views_publish(user_id=user, view=view)

    async def send(self, user: str, text: Mrkdwn | View) -> None:
        """Post a message without retries, in answer to a click or command. In a channel it notifies nobody."""
        view = text if isinstance(text, View) else lines(text)
        if not is_personal(user):
            view = notifying(view, (), await self._names_of(mentioned_in(view)))
        with slack_errors("chat.postMessage"):
            await self._client.chat_postMessage(channel=user, text=view.text, blocks=view.blocks)

    async def whisper(self, channel: str, user: str, text: Mrkdwn | View, *, thread: str | None = None) -> None:
        """Send an ephemeral answer. Use it only for errors and help, because Slack does not guarantee the delivery.

        If the channel does not accept the answer, it is sent as a direct message.
        """
        view = text if isinstance(text, View) else lines(text)
        try:
            with slack_errors("chat.postEphemeral"):
                await self._client.chat_postEphemeral(
                    channel=channel, user=user, text=view.text, blocks=view.blocks, thread_ts=thread
                )
        except SlackRefused as refused:
            log.info("ephemeral answer sent as a direct message", where=channel, error=refused.message)
            await self.send(user, text)

    async def members(self, ids: tuple[str, ...]) -> frozenset[str]:
        """The ids of these users, and of the members of these user groups."""
        users = {i for i in ids if not is_user_group(i)}
        for group in filter(is_user_group, ids):
            with slack_errors("usergroups.users.list"):
                answer = await self._client.usergroups_users_list(usergroup=group)
            users.update(answer.get("users") or [])
        return frozenset(users)
