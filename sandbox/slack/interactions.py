"""Deliveries of users' actions to the app (commands, clicks, submissions, events), and the effects of its answers."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from sandbox.faults import Faults
from sandbox.slack import blocks as kit
from sandbox.slack import newer_blocks
from sandbox.slack.blocks import Control, Json
from sandbox.slack.delivery import Delivery, NotAcknowledged, NotDelivered
from sandbox.slack.history import (
    APP,
    BOT,
    BOT_USER,
    CHANNEL,
    CHANNEL_NAME,
    DIRECTS,
    TEAM,
    USERS,
    History,
    Message,
    Modal,
    Place,
    User,
    direct,
)  # fmt: skip
from sandbox.slack.manifest import Manifest, Shortcut

RESPONSE_URL_SECONDS = 1800.0
RESPONSE_URL_USES = 5


class UnusableTrigger(Exception):
    """The trigger_id cannot open a view; the message is Slack's error code."""


@dataclass
class _ResponseURL:
    user: str
    channel: str
    message: Message | None
    born: float = field(default_factory=time.monotonic)
    uses: int = 0


class Interactions:
    """Sends the actions that the app's manifest registers, and applies the app's answers."""

    def __init__(
        self, history: History, delivery: Delivery, manifest: Manifest, faults: Faults, *, trigger_valid: float
    ) -> None:
        """`trigger_valid` is the time in seconds for which a trigger can be used."""
        self._history, self._trigger_valid = history, trigger_valid
        self._faults = faults
        self._delivery = delivery
        self._manifest = manifest
        self._triggers: dict[str, tuple[str, float]] = {}
        self._response_urls: dict[str, _ResponseURL] = {}
        self.base_url = ""

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────

    async def command(self, user: User, text: str, channel: str = CHANNEL, thread: str | None = None) -> None:
        """Send a line that the user types in a conversation or thread: a slash command, or a message."""
        self._history.at_home.discard(user.id)
        if not text.startswith("/"):
            await self._say(user, text, channel, thread)
            return
        command, _, arguments = text.partition(" ")
        if command == "/invite":
            await self._invite(user, arguments, channel)
            return
        if command not in {registered.command for registered in self._manifest.commands}:
            self._history.whisper(user.id, channel, f"{command} is not a valid command.", thread=thread)
            return
        if thread:
            self._history.whisper(user.id, channel, f"{command} is not supported in threads. Sorry!", thread=thread)
            return
        payload = {
            "token": "verification",
            "team_id": user.team,
            "team_domain": "sandbox" if user.team == TEAM else "other-org",
            "channel_id": channel,
            "channel_name": _name_of(channel),
            "user_id": user.id,
            "user_name": user.name,
            "command": command,
            "text": arguments.strip(),
            "api_app_id": APP,
            "is_enterprise_install": "false",
            "response_url": self._response_url(user.id, channel, None),
            "trigger_id": self._trigger(user.id),
        }
        answer = await self._deliver("slash_commands", payload, user.id, channel, command)
        if answer and (answer.get("text") or answer.get("blocks")):
            self._respond(_ResponseURL(user.id, channel, None), answer)

    async def act(self, place: Place, control: Control, chosen: Json | None = None) -> None:
        """Press a button, or choose in a select; `chosen` is the element's new state."""
        element = control.element
        action: Json = {
            "type": element["type"],
            "action_id": element["action_id"],
            "block_id": control.block["block_id"],
            "action_ts": self._history.next_ts(),
        }
        action |= {key: element[key] for key in ("text", "value", "url", "style") if key in element}
        if control.option:
            action["selected_option"] = control.option
        if chosen:
            place.values.setdefault(action["block_id"], {})[action["action_id"]] = chosen
            action |= chosen
        channel = place.message.channel if place.message else direct_or_channel(place)
        await self._deliver("interactive", self._block_actions(place, action), place.user, channel, "The app")

    async def submit(self, user: User, modal: Modal) -> None:
        """Press the submit button of a modal. Slack itself refuses an empty required input."""
        empty = {
            control.block["block_id"]: "Please complete this required field."
            for control in kit.controls(modal.view["blocks"])
            if control.block["type"] == "input"
            and not control.block.get("optional")
            and kit.empty(modal.values[control.block["block_id"]][control.element["action_id"]])
        }
        if empty:
            self._history.refuse(user.id, modal, empty)
            return
        payload = {
            "type": "view_submission",
            **self._who(user.id),
            "trigger_id": self._trigger(user.id),
            "view": self._view_with_state(modal.view, modal.values),
            "response_urls": [],
        }
        try:
            answer = await self._delivery.deliver("interactive", payload)
        except (NotAcknowledged, NotDelivered):
            self._history.refuse(user.id, modal, {"": "We had some trouble connecting. Try again?"})
            return
        self._settle(user.id, modal, answer)

    async def dismiss(self, user: User, modal: Modal) -> None:
        """Close a modal without submitting it."""
        self._history.close(user.id)
        if modal.view["notify_on_close"]:
            view = self._view_with_state(modal.view, modal.values)
            payload = {"type": "view_closed", **self._who(user.id), "view": view, "is_cleared": False}
            await self._deliver("interactive", payload, user.id, CHANNEL, "The app")

    async def suggest(self, place: Place, control: Control, typed: str) -> list[Json]:
        """Return the options that the app offers in an external select; none if it does not answer."""
        payload = self._block_actions(place, {}) | {
            "type": "block_suggestion",
            "action_id": control.element["action_id"],
            "block_id": control.block["block_id"],
            "value": typed,
        }
        del payload["actions"]
        try:
            answer = await self._delivery.deliver("interactive", payload)
        except (NotAcknowledged, NotDelivered):
            return []
        return kit.options(answer)

    async def open_home(self, user: User) -> None:
        """Open the app's Home tab."""
        self._history.open_home(user.id)
        home = self._history.homes.get(user.id)
        event: Json = {"type": "app_home_opened", "user": user.id, "channel": direct(user.id), "tab": "home"}
        await self._event("app_home_opened", event | ({"view": home.view} if home else {}))

    async def shortcut(self, user: User, shortcut: Shortcut, message: Message | None = None) -> None:
        """Choose an entry in a message's ⋮ menu, or in the shortcuts menu."""
        payload: Json = {
            "type": "message_action" if message else "shortcut",
            **self._who(user.id),
            "callback_id": shortcut.callback_id,
            "trigger_id": self._trigger(user.id),
            "action_ts": self._history.next_ts(),
        }
        if message:
            payload |= {
                "message_ts": message.ts,
                "message": message_json(message),
                "channel": {"id": message.channel, "name": _name_of(message.channel)},
                "response_url": self._response_url(user.id, message.channel, message),
            }
        await self._deliver("interactive", payload, user.id, message.channel if message else CHANNEL, shortcut.name)

    async def _invite(self, user: User, invitee: str, channel: str) -> None:
        """Handle `/invite @stoker`, which adds the app to the channel."""
        if invitee.strip().lstrip("@").casefold() != "stoker" or channel in DIRECTS:
            self._history.whisper(
                user.id, channel, f"There is nobody called {invitee.strip() or 'that'} to invite here."
            )
            return
        self._history.has_bot = True
        text = f"<@{BOT_USER}> was added to #{CHANNEL_NAME} by <@{user.id}>."
        self._history.post(Message(channel, self._history.next_ts(), BOT_USER, text))
        joined = {"type": "member_joined_channel", "user": BOT_USER, "channel": channel, "channel_type": "C"}
        await self._event("member_joined_channel", {**joined, "team": TEAM, "inviter": user.id})

    async def _say(self, user: User, text: str, channel: str, thread: str | None) -> None:
        mention = f"<@{BOT_USER}>"
        for name in ("@Stoker", "@stoker"):
            text = text.replace(name, mention)
        message = self._history.post(Message(channel, self._history.next_ts(), user.id, text, thread_ts=thread))
        event: Json = {"user": user.id, "text": text, "ts": message.ts, "channel": channel, "event_ts": message.ts}
        event |= {"team": user.team, "thread_ts": thread} if thread else {"team": user.team}
        # Events about a person of another organisation contain these fields (docs.slack.dev/apis/slack-connect).
        if user.team != TEAM:
            event |= {"user_team": user.team, "source_team": user.team, "user_profile": {"team": user.team}}
        if channel in DIRECTS:
            await self._event("message.im", {**event, "type": "message", "channel_type": "im"})
            return
        if not self._history.has_bot:  # Slack sends no events from channels that the app is not in
            return
        if mention in text:
            await self._event("app_mention", {**event, "type": "app_mention"})
        await self._event("message.channels", {**event, "type": "message", "channel_type": "channel"})

    async def _event(self, subscription: str, event: Json) -> None:
        """Send an event to the app if its manifest subscribes to it. `subscription` includes the conversation type."""
        if subscription not in self._manifest.events:
            return
        payload = {
            "token": "verification",
            "team_id": TEAM,
            "api_app_id": APP,
            "event": {"event_ts": self._history.next_ts(), **event},
            "type": "event_callback",
            "event_id": self._history.next_id("Ev"),
            "event_time": int(self._history.date().timestamp()),
            "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True, "is_enterprise_install": False}],
        }
        try:
            await self._delivery.deliver("events_api", payload)
        except (NotAcknowledged, NotDelivered):
            return  # Slack does not report undelivered events to anybody

    # ── the app's answers ────────────────────────────────────────────────────────────────────────────────────────

    def use_trigger(self, trigger_id: str) -> str:
        """Return the user of this trigger; raises UnusableTrigger if it was used before, or has expired."""
        if trigger_id not in self._triggers:
            raise UnusableTrigger("invalid_trigger_id")
        user, born = self._triggers[trigger_id]
        if not user:
            raise UnusableTrigger("exchanged_trigger_id")
        if time.monotonic() - born > self._trigger_valid:
            raise UnusableTrigger("expired_trigger_id")
        self._triggers[trigger_id] = ("", born)
        return user

    def respond(self, token: str, body: Json) -> str | None:
        """Handle a POST to a response_url; returns Slack's error, or None."""
        target = self._response_urls.get(token)
        if target is None or time.monotonic() - target.born > RESPONSE_URL_SECONDS:
            return "expired_url"
        if target.uses >= RESPONSE_URL_USES:
            return "used_url"
        blocks = body.get("blocks") or []
        if kit.complaints(blocks) or self._unknown(blocks):
            return "invalid_blocks"
        target.uses += 1
        self._respond(target, body)
        return None

    def _unknown(self, blocks: list[Json]) -> list[str]:
        return newer_blocks.unknown_to_old_workspaces(blocks) if "slack-old-blocks" in self._faults else []

    def _respond(self, target: _ResponseURL, body: Json) -> None:
        text, blocks, original = body.get("text", ""), body.get("blocks") or [], target.message
        if original and body.get("delete_original"):
            self._history.delete(original)
        elif original and body.get("replace_original"):
            self._history.edit(original, text, blocks, None)
        else:
            only_for = None if body.get("response_type") == "in_channel" else target.user
            thread = body.get("thread_ts")
            ts = self._history.next_ts()
            self._history.post(Message(target.channel, ts, BOT_USER, text, blocks, thread_ts=thread, only_for=only_for))

    def _settle(self, user: str, modal: Modal, answer: Json) -> None:
        """Apply the app's answer to a submitted modal."""
        match answer.get("response_action"):
            case "errors":
                self._history.refuse(user, modal, answer["errors"])
            case "update":
                self._history.update_view(user, modal, answer["view"])
            case "push":
                self._history.open(user, answer["view"])
            case "clear":
                self._history.close(user, whole_stack=True)
            case _:
                self._history.close(user)

    async def _deliver(self, kind: str, payload: Json, user: str, channel: str, subject: str) -> Json | None:
        try:
            return await self._delivery.deliver(kind, payload)
        except NotAcknowledged:
            self._history.whisper(user, channel, f'{subject} failed with the error "operation_timeout"')
        except NotDelivered:
            self._history.whisper(user, channel, f'{subject} failed with the error "dispatch_failed"')
        return None

    # ── payloads ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _block_actions(self, place: Place, action: Json) -> Json:
        payload: Json = {
            "type": "block_actions",
            **self._who(place.user),
            "trigger_id": self._trigger(place.user),
            "actions": [action],
        }
        message = place.message
        if message is None:
            view = self._view_with_state(place.view or {}, place.values)
            return payload | {"container": {"type": "view", "view_id": view["id"]}, "view": view}
        payload |= {
            "container": {
                "type": "message",
                "message_ts": message.ts,
                "channel_id": message.channel,
                "is_ephemeral": message.only_for is not None,
                **({"thread_ts": message.thread_ts} if message.thread_ts else {}),
            },
            "channel": {"id": message.channel, "name": _name_of(message.channel)},
            "state": {"values": place.values},
            "response_url": self._response_url(place.user, message.channel, message),
        }
        return payload if message.only_for else payload | {"message": message_json(message)}

    def _who(self, user_id: str) -> Json:
        user = USERS[user_id]
        return {
            "team": {"id": TEAM, "domain": "sandbox"},
            "user": {"id": user.id, "username": user.name, "name": user.name, "team_id": user.team},
            "api_app_id": APP,
            "token": "verification",
            "enterprise": None,
            "is_enterprise_install": False,
        }

    @staticmethod
    def _view_with_state(view: Json, values: dict[str, dict[str, Json]]) -> Json:
        return {**view, "state": {"values": values}}

    def _trigger(self, user: str) -> str:
        trigger = f"{secrets.randbelow(10**10)}.{secrets.randbelow(10**10)}.{secrets.token_hex(16)}"
        self._triggers[trigger] = (user, time.monotonic())
        return trigger

    def _response_url(self, user: str, channel: str, message: Message | None) -> str:
        token = secrets.token_urlsafe(16)
        self._response_urls[token] = _ResponseURL(user, channel, message)
        return f"{self.base_url}/response/{token}"


def _name_of(channel: str) -> str:
    return "directmessage" if channel in DIRECTS else CHANNEL_NAME


def direct_or_channel(place: Place) -> str:
    """Return the conversation in which Slackbot reports an error in a view."""
    return CHANNEL if place.view and place.view.get("type") == "modal" else direct(place.user)


def message_json(message: Message, *, metadata: bool = False) -> Json:
    """Return a message in the format of the Web API and of interaction payloads."""
    message_object: dict[str, Any] = {
        "type": "message",
        "user": message.user,
        "ts": message.ts,
        "text": message.text,
        "team": TEAM,
        "blocks": message.blocks,
    }
    if USERS[message.user].is_bot:
        message_object |= {"bot_id": BOT, "app_id": APP}
    if message.thread_ts:
        message_object["thread_ts"] = message.thread_ts
    if message.edited:
        message_object["edited"] = {"user": message.user, "ts": message.edited}
    if message.metadata and metadata:
        message_object["metadata"] = message.metadata
    if message.files:
        message_object["files"] = message.files
    return message_object
