"""Slack's Web API: the methods that the bot uses, with Slack's responses and errors."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from sandbox.faults import Faults
from sandbox.slack import blocks as kit
from sandbox.slack import newer_blocks
from sandbox.slack.blocks import Json
from sandbox.slack.bookmarks import Bookmarks, NoBookmark
from sandbox.slack.files import Files, NoSuchFile
from sandbox.slack.history import (
    APP,
    BOT,
    BOT_USER,
    CHANNEL,
    CHANNEL_NAME,
    DIRECTS,
    OUTSIDERS,
    PEOPLE,
    TEAM,
    USERGROUPS,
    USERS,
    History,
    Message,
    Modal,
    direct,
)  # fmt: skip
from sandbox.slack.interactions import Interactions, UnusableTrigger, message_json
from sandbox.slack.manifest import METHOD_SCOPES, Manifest
from sandbox.slack.socket_mode import SocketMode

APP_TOKEN = "xapp-1-A0STOKER-sandbox"
BOT_TOKEN = "xoxb-sandbox-stoker"
TEXT_LIMIT = 40_000
RETRY_AFTER = 1
VIEW_STACK = 3
"""Maximum number of stacked views."""


class _Refused(Exception):
    """The method returns `{"ok": false, "error": …}`."""

    def __init__(self, error: str, messages: list[str] | None = None, **more: str) -> None:
        super().__init__(error)
        self.answer: Json = {"ok": False, "error": error, **more}
        if messages:
            self.answer |= {"errors": messages, "response_metadata": {"messages": [f"[ERROR] {m}" for m in messages]}}


class WebAPI:
    """Answers POST or GET /api/{method}."""

    def __init__(
        self,
        history: History,
        socket: SocketMode | None,
        interactions: Interactions,
        faults: Faults,
        manifest: Manifest,
    ) -> None:
        self._history = history
        self._socket = socket
        self._interactions = interactions
        self._manifest = manifest
        self._faults = faults
        self.files, self.bookmarks = Files(history), Bookmarks()
        self.closed: set[str] = set()
        """Direct conversations with deactivated users."""
        self.held: dict[str, asyncio.Event] = {}
        """Method name -> event that the next call of the method waits for before it takes effect."""
        self.base_url = ""
        self._methods: Mapping[str, Callable[[Json], Json]] = {
            "auth.test": self._auth_test,
            "apps.connections.open": self._connections_open,
            "chat.postMessage": self._post_message,
            "chat.postEphemeral": self._post_ephemeral,
            "chat.update": self._update,
            "chat.delete": self._delete,
            "chat.getPermalink": self._permalink,
            "conversations.open": self._conversations_open,
            "conversations.history": self._conversations_history,
            "conversations.replies": self._conversations_replies,
            "conversations.info": lambda arguments: {"channel": self._channel_json(self._channel(arguments))},
            "conversations.list": lambda _: {"channels": [self._channel_json(CHANNEL)]},
            "users.info": lambda arguments: {"user": self._user_json(self._user(arguments))},
            "users.list": lambda _: {"members": [self._user_json(user) for user in USERS]},
            "conversations.members": self._members,
            "usergroups.list": lambda _: {"usergroups": [{"id": group, "is_usergroup": True} for group in USERGROUPS]},
            "usergroups.users.list": self._usergroup,
            "views.open": self._views_open,
            "views.push": self._views_push,
            "views.update": self._views_update,
            "views.publish": self._views_publish,
            "reactions.add": self._react,
            "files.info": self._file_info,
            "files.delete": self._delete_file,
            "files.getUploadURLExternal": self._upload_url,
            "files.completeUploadExternal": self._complete_upload,
            **self.bookmarks.methods,
        }

    async def serve(self, request: web.Request) -> web.Response:
        name = request.match_info["method"]
        arguments = await _arguments(request)
        if "slack-429" in self._faults and name not in ("auth.test", "apps.connections.open"):
            refusal = {"ok": False, "error": "ratelimited"}
            return web.json_response(refusal, status=429, headers={"Retry-After": str(RETRY_AFTER)})
        try:
            self._check_token(name, request.headers.get("Authorization", ""), arguments.pop("token", ""))
            if name not in self._methods:
                raise _Refused("unknown_method")
            needed = _needed_scope(name, arguments)
            if self._manifest.lacks(needed):
                raise _Refused("missing_scope", needed=needed, provided=",".join(sorted(self._manifest.scopes)))
            if release := self.held.pop(name, None):
                await release.wait()
            answer = {"ok": True, **self._methods[name](arguments)}
        except _Refused as refused:
            answer = refused.answer
        except NoBookmark as refused:
            answer = {"ok": False, "error": str(refused)}
        scopes = {
            "x-oauth-scopes": ",".join(sorted(self._manifest.scopes)),
            "x-accepted-oauth-scopes": _needed_scope(name, arguments),
        }
        return web.json_response(answer, headers=scopes)

    @staticmethod
    def _check_token(name: str, authorization: str, field: str) -> None:
        token = authorization.removeprefix("Bearer ") or field
        if not token:
            raise _Refused("not_authed")
        if token not in (APP_TOKEN, BOT_TOKEN):
            raise _Refused("invalid_auth")
        if (name == "apps.connections.open") != (token == APP_TOKEN):
            raise _Refused("not_allowed_token_type")

    # ── the app ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _auth_test(self, _: Json) -> Json:
        return {
            "url": f"{self.base_url}/",
            "team": "Sandbox",
            "user": "stoker",
            "team_id": TEAM,
            "user_id": BOT_USER,
            "bot_id": BOT,
            "app_id": APP,
            "is_enterprise_install": False,
        }

    def _connections_open(self, _: Json) -> Json:
        if self._socket is None:
            raise _Refused("not_allowed")  # Socket Mode is off for an app that uses HTTP
        return {"url": f"ws{self.base_url.removeprefix('http')}/link?ticket={self._socket.ticket()}&app_id={APP}"}

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _post_message(self, arguments: Json) -> Json:
        message = self._new_message(arguments)
        self._history.post(message)
        return {"channel": message.channel, "ts": message.ts, "message": message_json(message, metadata=True)}

    def _post_ephemeral(self, arguments: Json) -> Json:
        message = self._new_message(arguments)
        message.only_for = arguments.get("user")
        if message.only_for not in USERS or USERS[message.only_for].is_bot:
            raise _Refused("user_not_in_channel")
        self._history.post(message)
        return {"message_ts": message.ts}

    def _new_message(self, arguments: Json) -> Message:
        channel = self._channel(arguments, by_name=True)
        if channel in self.closed:
            raise _Refused("channel_not_found")
        self._refuse_unless_open(channel)
        self._check_content(arguments)
        if not arguments.get("text") and not arguments.get("blocks"):
            raise _Refused("no_text")
        thread = arguments.get("thread_ts")
        if thread is not None and (channel, thread) not in self._history.messages:
            raise _Refused("thread_not_found")
        return Message(
            channel,
            self._history.next_ts(),
            BOT_USER,
            arguments.get("text") or "",
            arguments.get("blocks") or [],
            thread_ts=thread,
            metadata=arguments.get("metadata"),
        )

    def _refuse_unless_open(self, channel: str, *, archived: str = "is_archived", left: str = "not_in_channel") -> None:
        """Raise the error for an archived channel, or for one from which the app was removed.

        The codes are from docs.slack.dev/reference/methods. `chat.update` returns `is_inactive` for "a frozen, archived
        or deleted channel", and `channel_not_found` for a channel that the app is not in.
        """
        if channel == CHANNEL and self._history.archived:
            raise _Refused(archived)
        if channel == CHANNEL and not self._history.has_bot:
            raise _Refused(left)

    def _update(self, arguments: Json) -> Json:
        self._refuse_unless_open(self._channel(arguments), archived="is_inactive", left="channel_not_found")
        message = self._own_message(arguments, "cant_update_message")
        self._check_content(arguments)
        if not any(arguments.get(key) is not None for key in ("text", "blocks", "attachments")):
            raise _Refused("no_text")
        self._history.edit(message, arguments.get("text"), arguments.get("blocks"), arguments.get("metadata"))
        message_object = message_json(message, metadata=True)
        return {"channel": message.channel, "ts": message.ts, "text": message.text, "message": message_object}

    def _delete(self, arguments: Json) -> Json:
        message = self._own_message(arguments, "cant_delete_message")
        self._history.delete(message)
        return {"channel": message.channel, "ts": message.ts}

    def _permalink(self, arguments: Json) -> Json:
        message = self._message(arguments, "message_ts")
        return {"channel": message.channel, "permalink": f"{self.base_url}/#{message.channel}/{message.ts}"}

    def _react(self, arguments: Json) -> Json:
        self._message(arguments, "timestamp")
        return {}

    def _own_message(self, arguments: Json, otherwise: str) -> Message:
        message = self._message(arguments, "ts")
        if message.user != BOT_USER:
            raise _Refused(otherwise)
        return message

    def _message(self, arguments: Json, key: str) -> Message:
        message = self._history.messages.get((self._channel(arguments), str(arguments.get(key))))
        if message is None or message.only_for:  # an ephemeral message cannot be referenced
            raise _Refused("message_not_found")
        return message

    # ── conversations and people ────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _channel(arguments: Json, *, by_name: bool = False) -> str:
        """Return the conversation of a request; only methods that post accept a `#name` or a user's id (`by_name`)."""
        channel = str(arguments.get("channel") or arguments.get("channel_id") or "")
        if by_name:
            name = channel.removeprefix("#")
            channel = direct(name) if name.startswith("U") else CHANNEL if name == CHANNEL_NAME else channel
        if channel != CHANNEL and channel not in DIRECTS:
            raise _Refused("channel_not_found")
        return channel

    @staticmethod
    def _user(arguments: Json) -> str:
        if arguments.get("user") not in USERS:
            raise _Refused("user_not_found")
        return str(arguments["user"])

    def _user_json(self, user_id: str) -> Json:
        user = USERS[user_id]
        profile = {"real_name": user.real_name, "display_name": user.name}
        if not self._manifest.lacks("users:read.email"):
            profile["email"] = f"{user.name}@example.com"
        return {
            "id": user.id,
            # For a person of another organisation, `team_id` is that organisation's team
            # (docs.slack.dev/reference/objects/user-object).
            "team_id": user.team,
            "is_restricted": user.is_guest,
            "is_ultra_restricted": False,
            "is_stranger": False,
            "name": user.name,
            "real_name": user.real_name,
            "profile": profile,
            "is_bot": user.is_bot,
            "is_admin": user.id == "U0ADMIN",
            "deleted": False,
            "tz": "Etc/UTC",
            "tz_offset": 0,
        }

    def _conversations_open(self, arguments: Json) -> Json:
        requested = arguments.get("users") or DIRECTS.get(str(arguments.get("channel")), "")
        users = requested if isinstance(requested, list) else str(requested).split(",")
        if len(users) != 1 or direct(users[0]) not in DIRECTS:
            raise _Refused("user_not_found")
        if direct(users[0]) in self.closed:
            raise _Refused("user_disabled")
        return {"channel": {"id": direct(users[0])}}

    def _conversations_history(self, arguments: Json) -> Json:
        channel = self._channel(arguments)
        if channel == CHANNEL and not self._history.has_bot:  # archived channels are readable
            raise _Refused("not_in_channel")
        messages = [
            m for m in self._history.messages.values() if m.channel == channel and not m.is_reply and not m.only_for
        ]
        return self._page(arguments, sorted(messages, key=lambda m: m.ts, reverse=True))

    def _conversations_replies(self, arguments: Json) -> Json:
        if self._channel(arguments) == CHANNEL and not self._history.has_bot:
            raise _Refused("not_in_channel")
        parent = self._history.messages.get((self._channel(arguments), str(arguments.get("ts"))))
        if parent is None:
            raise _Refused("thread_not_found")
        replies = sorted(self._history.replies(parent), key=lambda m: m.ts)
        return self._page(arguments, [parent, *replies])

    def _page(self, arguments: Json, messages: list[Message]) -> Json:
        """Return one page of messages between `oldest` and `latest`; the cursor is an offset."""
        oldest, latest = str(arguments.get("oldest") or ""), str(arguments.get("latest") or "9")
        inclusive, metadata = _true(arguments.get("inclusive")), _true(arguments.get("include_all_metadata"))
        within = [m for m in messages if oldest < m.ts < latest or (inclusive and m.ts in (oldest, latest))]
        start, limit = int(arguments.get("cursor") or 0), int(arguments.get("limit") or 100)
        end = start + limit
        return {
            "messages": [self._with_thread(m, metadata=metadata) for m in within[start:end]],
            "has_more": end < len(within),
            "response_metadata": {"next_cursor": str(end) if end < len(within) else ""},
        }

    def _with_thread(self, message: Message, *, metadata: bool) -> Json:
        message_object = message_json(message, metadata=metadata)
        if replies := self._history.replies(message):
            latest = max(reply.ts for reply in replies)
            message_object |= {"thread_ts": message.ts, "reply_count": len(replies), "latest_reply": latest}
        return message_object

    def _members(self, arguments: Json) -> Json:
        channel = self._channel(arguments)
        people = [DIRECTS[channel]] if channel in DIRECTS else [user.id for user in (*PEOPLE, *OUTSIDERS)]
        return {"members": [*people, BOT_USER], "response_metadata": {"next_cursor": ""}}

    @staticmethod
    def _usergroup(arguments: Json) -> Json:
        if arguments.get("usergroup") not in USERGROUPS:
            raise _Refused("no_such_subteam")
        return {"users": list(USERGROUPS[arguments["usergroup"]])}

    def _channel_json(self, channel: str) -> Json:
        if channel in DIRECTS:
            return {"id": channel, "is_im": True, "user": DIRECTS[channel]}
        return {
            "id": channel,
            "name": CHANNEL_NAME,
            "is_channel": True,
            "is_archived": self._history.archived,
            "is_member": self._history.has_bot,
            "num_members": len(PEOPLE) + len(OUTSIDERS),
        }

    # ── views ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _views_open(self, arguments: Json) -> Json:
        view = self._checked_view(arguments)
        return {"view": self._history.open(self._triggering(arguments), view)}

    def _views_push(self, arguments: Json) -> Json:
        view = self._checked_view(arguments)
        user = self._triggering(arguments)
        stack = self._history.modals.get(user) or []
        if not stack:
            raise _Refused("not_found")
        if len(stack) >= VIEW_STACK:
            raise _Refused("push_limit_reached")
        return {"view": self._history.open(user, view)}

    def _triggering(self, arguments: Json) -> str:
        try:
            return self._interactions.use_trigger(str(arguments.get("trigger_id", "")))
        except UnusableTrigger as e:
            raise _Refused(str(e)) from e

    def _views_update(self, arguments: Json) -> Json:
        view = self._checked_view(arguments)
        owner_and_view = self._history.find_view(
            str(arguments.get("view_id", "")), str(arguments.get("external_id", ""))
        )
        if owner_and_view is None:
            raise _Refused("not_found")
        user, modal = owner_and_view
        if _hash_differs(arguments, modal):
            raise _Refused("hash_conflict")
        return {"view": self._history.update_view(user, modal, view)}

    def _views_publish(self, arguments: Json) -> Json:
        view = self._checked_view(arguments)
        if not self._manifest.home:
            raise _Refused("not_enabled")
        user = str(arguments.get("user_id"))
        if direct(user) not in DIRECTS:
            raise _Refused("user_not_found")
        home = self._history.homes.get(user)
        if home and _hash_differs(arguments, home):
            raise _Refused("hash_conflict")
        return {"view": self._history.publish_home(user, view)}

    # ── validation ───────────────────────────────────────────────────────────────────────────────────────────

    def _check_content(self, arguments: Json) -> None:
        if len(arguments.get("text") or "") > TEXT_LIMIT:
            raise _Refused("msg_too_long")
        if blocks := arguments.get("blocks"):
            complaints = kit.complaints(blocks) or self._unknown(blocks) or self.files.not_to_be_shown(blocks)
            if complaints:
                raise _Refused("invalid_blocks", complaints)
            if kit.characters(blocks) > kit.MESSAGE_CHARACTERS:
                raise _Refused("msg_blocks_too_long")

    def _unknown(self, blocks: list[Json]) -> list[str]:
        return newer_blocks.unknown_to_old_workspaces(blocks) if "slack-old-blocks" in self._faults else []

    def _checked_view(self, arguments: Json) -> Json:
        view: Any = arguments.get("view")
        view = json.loads(view) if isinstance(view, str) else view
        complaints = kit.view_complaints(view) or self._unknown(view["blocks"])
        if complaints := complaints or self.files.not_to_be_shown(view["blocks"]):
            raise _Refused("invalid_arguments", complaints)
        return dict(view)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _upload_url(self, arguments: Json) -> Json:
        if not arguments.get("filename") or not arguments.get("length"):
            raise _Refused("invalid_arguments")
        if len(arguments.get("alt_txt") or "") > 1000:
            raise _Refused("alt_txt_too_large")
        return self.files.begin(arguments["filename"], arguments.get("alt_txt") or "")

    def _file_info(self, arguments: Json) -> Json:
        with _existing():
            return {"file": self.files.about(str(arguments.get("file")))}

    def _delete_file(self, arguments: Json) -> Json:
        with _existing():
            self.files.delete(str(arguments.get("file")))
        return {}

    def _complete_upload(self, arguments: Json) -> Json:
        requested = arguments.get("files") or []
        if not requested:
            raise _Refused("invalid_arguments")
        channel = self._channel(arguments) if arguments.get("channel_id") else ""
        self._refuse_unless_open(channel)
        thread = arguments.get("thread_ts")
        if thread is not None and (channel, thread) not in self._history.messages:
            raise _Refused("thread_not_found")
        with _existing():
            files = [self.files.complete(file["id"], file.get("title", ""), shared=bool(channel)) for file in requested]
        if channel:
            text = arguments.get("initial_comment") or ""
            self._history.post(
                Message(channel, self._history.next_ts(), BOT_USER, text, thread_ts=thread, files=list(files))
            )
        return {"files": files}


@contextmanager
def _existing() -> Iterator[None]:
    try:
        yield
    except NoSuchFile as e:
        raise _Refused(str(e)) from e


async def _arguments(request: web.Request) -> Json:
    """Return a method's arguments from the query and the body (JSON or form); JSON text in a form is parsed."""
    arguments: Json = dict(request.query)
    if request.content_type == "application/json":
        body = await request.text()
        return arguments | (json.loads(body) if body else {})
    arguments |= {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
    for key in ("blocks", "view", "metadata", "files", "attachments"):
        if isinstance(arguments.get(key), str):
            try:
                arguments[key] = json.loads(arguments[key])
            except ValueError:
                arguments[key] = None
    return arguments


def _needed_scope(method: str, arguments: Json) -> str:
    channel = str(arguments.get("channel") or "")
    return METHOD_SCOPES.get(method, "").format(kind="im" if channel in DIRECTS else "channels")


def _hash_differs(arguments: Json, modal: Modal) -> bool:
    return bool(arguments.get("hash")) and arguments["hash"] != modal.view["hash"]


def _true(value: object) -> bool:
    return value in (True, "true", "1", 1)
