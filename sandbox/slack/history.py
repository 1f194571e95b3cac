"""The state of the workspace: people, conversations, messages, modals, Homes, and the texts that users have seen."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sandbox.clock import real_date
from sandbox.slack import blocks as kit
from sandbox.slack.blocks import Control, Json
from sandbox.slack.notifications import Notification, mentioned, pushed

TEAM = "T0SANDBOX"
APP = "A0STOKER"
BOT = "B0STOKER"
BOT_USER = "U0STOKER"
SLACKBOT = "USLACKBOT"
CHANNEL = "C0GPUOPS"
CHANNEL_NAME = "gpu-ops"


@dataclass(frozen=True)
class User:
    id: str
    name: str
    real_name: str
    is_bot: bool = False
    team: str = TEAM
    is_guest: bool = False


PEOPLE = (
    User("U0DEV", "dev", "Devi Developer"),
    User("U0LEAD", "lead", "Lea Lead"),
    User("U0ADMIN", "admin", "Ada Admin"),
)
OUTSIDERS = (
    User("U0STRANGER", "stranger", "Stan Stranger", team="T0OTHERORG"),
    User("U0GUEST", "guest", "Gus Guest", is_guest=True),
)
"""Other members of the channel: a person of another organisation (Slack Connect), and a guest of this workspace."""
USERS = {
    user.id: user
    for user in (
        *PEOPLE,
        *OUTSIDERS,
        User(BOT_USER, "stoker", "Stoker", is_bot=True),
        User(SLACKBOT, "slackbot", "Slackbot", is_bot=True),
    )
}
USERGROUPS = {"S0APPROVERS": ("U0LEAD", "U0ADMIN")}
USERGROUP_NAMES = {"S0APPROVERS": "gpu-approvers"}


def direct(user: str) -> str:
    """Return the id of the direct conversation between the app and this user."""
    return "D" + user[1:]


_IDENTITY = ("id", "team_id", "app_id", "bot_id", "app_installed_team_id", "root_view_id", "previous_view_id")
"""The keys of a view that Slack sets, and that an update does not change."""

DIRECTS = {direct(user.id): user.id for user in (*PEOPLE, *OUTSIDERS)}


@dataclass
class Message:
    """One message; an ephemeral message is visible to `only_for`."""

    channel: str
    ts: str
    user: str
    text: str
    blocks: list[Json] = field(default_factory=list)
    thread_ts: str | None = None
    metadata: Json | None = None
    only_for: str | None = None
    edited: str | None = None
    files: list[Json] = field(default_factory=list)
    state: dict[str, dict[str, Json]] = field(default_factory=dict)

    @property
    def is_reply(self) -> bool:
        return self.thread_ts is not None and self.thread_ts != self.ts

    def readable_by(self, user: str) -> bool:
        return self.only_for in (None, user) and DIRECTS.get(self.channel) in (None, user)


@dataclass
class Modal:
    """A view on a user's stack of modals, its input, and the errors that the app returned."""

    view: Json
    values: dict[str, dict[str, Json]]
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Revision:
    """Content that became visible at one time (monotonic seconds), to one `reader` or (None) to all.

    `source` is the id of the message or view. `before` is its previous content: empty for a new message or view, and for
    a Home that the user opens.
    """

    at: float
    reader: str | None
    place: str
    author: str
    text: str
    source: str
    before: str = ""


@dataclass(frozen=True)
class Place:
    """The location of a control: a message or a view."""

    user: str
    message: Message | None = None
    view: Json | None = None
    values: dict[str, dict[str, Json]] = field(default_factory=dict)


class History:
    """The state of the workspace. Every change increases `version` and is stored as a revision."""

    def __init__(self, date: Callable[[], datetime] = real_date) -> None:
        self.date = date
        self.messages: dict[tuple[str, str], Message] = {}
        self.modals: dict[str, list[Modal]] = {}
        self.homes: dict[str, Modal] = {}
        self.at_home: set[str] = set()
        """Users whose screen shows the app's Home instead of a conversation."""
        self.archived = False
        """True if the channel is archived, so that nobody can write or click there."""
        self.has_bot = True
        """True if the app is a member of the channel."""
        self.revisions: list[Revision] = []
        self.notifications: list[Notification] = []
        self._shown: dict[str, str] = {}
        """The current text of each message and view."""
        self.version = 0
        self._changed = asyncio.Event()
        self._last_ts = 0
        self._serial = itertools.count(1)

    # ── time and change ─────────────────────────────────────────────────────────────────────────────────────────────

    def next_ts(self) -> str:
        """Return a new timestamp, later than all others, in the form `1700000000.000100`."""
        self._last_ts = max(int(self.date().timestamp() * 1_000_000), self._last_ts + 100)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def next_id(self, prefix: str) -> str:
        return f"{prefix}0{next(self._serial):07d}"

    def touch(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, since: int, timeout: float) -> bool:
        """Wait until `version` differs from `since`; returns False after `timeout` seconds without a change."""
        if self.version != since:
            return True
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except TimeoutError:
            return False
        return True

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────

    def post(self, message: Message) -> Message:
        message.blocks = kit.with_ids(message.blocks)
        message.state = kit.initial_state(message.blocks)
        self.messages[message.channel, message.ts] = message
        self._notify(message)
        self._reveal_message(message)
        return message

    def edit(self, message: Message, text: str | None, blocks: list[Json] | None, metadata: Json | None) -> None:
        """Change the content of a message; fields that are None stay."""
        message.text = message.text if text is None else text
        message.metadata = metadata or message.metadata
        if blocks is not None:
            message.blocks = kit.with_ids(blocks)
            message.state = kit.initial_state(message.blocks)
        message.edited = self.next_ts()
        self._reveal_message(message)

    def delete(self, message: Message) -> None:
        del self.messages[message.channel, message.ts]
        self.touch()

    def newest_card(self) -> Message | None:
        """Return the newest message of the app in the channel, outside threads."""
        cards = [m for m in self.messages.values() if m.channel == CHANNEL and m.user == BOT_USER and m.blocks]
        return max((m for m in cards if not m.is_reply and not m.only_for), key=lambda m: m.ts, default=None)

    def whisper(self, user: str, channel: str, text: str, *, thread: str | None = None) -> None:
        """Post a message of Slackbot that only one user can see."""
        self.post(Message(channel, self.next_ts(), SLACKBOT, text, thread_ts=thread, only_for=user))

    def replies(self, parent: Message) -> list[Message]:
        return [
            message
            for message in self.messages.values()
            if message.channel == parent.channel
            and message.is_reply
            and message.thread_ts == parent.ts
            and not message.only_for
        ]

    def name(self, target: str) -> str:
        """Return the name of a user, group or channel."""
        if target in USERS:
            return USERS[target].name
        if target in USERGROUPS:
            return USERGROUP_NAMES[target]
        return CHANNEL_NAME if target == CHANNEL else target

    def text_of(self, message: Message) -> str:
        """Return the visible text of a message; its fallback text only if it has no blocks."""
        body = kit.visible_text(message.blocks, self.name) if message.blocks else kit.readable(message.text, self.name)
        return "\n".join([body, *(f"[file {file['title']}]" for file in message.files)])

    # ── views ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def new_view(self, user: str, view: Json, previous: Json | None = None) -> Json:
        """Return the view as Slack stores and returns it."""
        view_id = self.next_id("V")
        return self._stored(
            {
                "id": view_id,
                "team_id": TEAM,
                "app_id": APP,
                "bot_id": BOT,
                "app_installed_team_id": TEAM,
                "root_view_id": previous["root_view_id"] if previous else view_id,
                "previous_view_id": previous["id"] if previous else None,
                "external_id": "",
            },
            view,
        )

    def open(self, user: str, view: Json) -> Json:
        """Push a view onto the user's modals and return it."""
        stack = self.modals.setdefault(user, [])
        stored = self.new_view(user, view, stack[-1].view if stack else None)
        stack.append(Modal(stored, kit.initial_state(stored["blocks"])))
        self._reveal_modal(user, stack[-1])
        return stored

    def update_view(self, user: str, modal: Modal, view: Json) -> Json:
        """Replace the content of a modal or Home. The input of an element stays if its block and action ids stay."""
        modal.view = self._stored(modal.view, view)
        old_values, new_values = modal.values, kit.initial_state(modal.view["blocks"])
        for block_id, actions in new_values.items():
            actions.update(
                {
                    k: v
                    for k, v in old_values.get(block_id, {}).items()
                    if k in actions and v["type"] == actions[k]["type"]
                }
            )
        modal.values, modal.errors = new_values, {}
        self._reveal_modal(user, modal)
        return modal.view

    def refuse(self, user: str, modal: Modal, errors: dict[str, str]) -> None:
        """Show errors beside the inputs of a modal."""
        modal.errors = errors
        self._reveal_modal(user, modal)

    def close(self, user: str, *, whole_stack: bool = False) -> None:
        stack = self.modals.get(user, [])
        del stack[0 if whole_stack else -1 :]
        self.touch()

    def publish_home(self, user: str, view: Json) -> Json:
        home = self.homes.get(user)
        if home is None:
            stored = self.new_view(user, view)
            home = self.homes[user] = Modal(stored, kit.initial_state(stored["blocks"]))
        else:
            home.view = self._stored(home.view, view)
            home.values = kit.initial_state(home.view["blocks"])
        if user in self.at_home:
            self.reveal_home(user)
        self.touch()
        return home.view

    def find_view(self, view_id: str, external_id: str) -> tuple[str, Modal] | None:
        """Return the modal or Home with this id, and its user; None if there is none."""
        places = [(user, modal) for user, stack in self.modals.items() for modal in stack]
        for user, modal in [*places, *self.homes.items()]:
            if modal.view["id"] == view_id or (external_id and modal.view["external_id"] == external_id):
                return user, modal
        return None

    def modal(self, user: str) -> Modal | None:
        """Return the topmost modal, which is the visible one; None if no modal is open."""
        stack = self.modals.get(user)
        return stack[-1] if stack else None

    def text_of_view(self, modal: Modal) -> str:
        view = modal.view
        buttons = [f"[{view[key]['text']}]" for key in ("submit", "close") if view.get(key)]
        title = (view.get("title") or {}).get("text", "")
        return "\n".join(
            [title, kit.visible_text(view["blocks"], self.name), *modal.errors.values(), " ".join(buttons)]
        )

    # ── visible content ────────────────────────────────────────────────────────────────────────────────────────────

    def visible(self, user: str, since: float) -> list[Revision]:
        """Return the content that became visible to this user at or after this time (monotonic seconds)."""
        return [r for r in self.revisions if r.at >= since and r.reader in (None, user)]

    def now_visible(self, user: str) -> list[str]:
        """Return the texts of the messages and of the modal that this user can read now."""
        texts = [self.text_of(message) for message in self.messages.values() if message.readable_by(user)]
        modal = self.modal(user)
        return [*texts, *([self.text_of_view(modal)] if modal else [])]

    def controls(self, user: str) -> Iterator[tuple[Place, Control]]:
        """Yield all controls that this user can use now.

        The order is: the open modal; the Home, if it is on the screen; messages from the newest; otherwise the Home.
        """
        modal, home = self.modal(user), self.homes.get(user)
        for view in filter(None, (modal, home if user in self.at_home else None)):
            yield from self._controls(Place(user, view=view.view, values=view.values), view.view["blocks"])
        for message in sorted(self.messages.values(), key=lambda m: m.ts, reverse=True):
            if message.readable_by(user) and not (self.archived and message.channel == CHANNEL):
                yield from self._controls(Place(user, message=message, values=message.state), message.blocks)
        for view in [home] if home and user not in self.at_home else []:
            yield from self._controls(Place(user, view=view.view, values=view.values), view.view["blocks"])

    @staticmethod
    def _controls(place: Place, blocks: list[Json]) -> Iterator[tuple[Place, Control]]:
        return ((place, control) for control in kit.controls(blocks))

    def notified(self, user: str, since: float) -> list[Notification]:
        """Return the notifications sent to this user at or after this time (monotonic seconds)."""
        return [n for n in self.notifications if n.user == user and n.at >= since]

    def _notify(self, message: Message) -> None:
        if message.only_for:
            return
        if reader := DIRECTS.get(message.channel):
            people, kind = {reader}, "direct message"
        else:
            members = [user.id for user in (*PEOPLE, *OUTSIDERS)]
            people, kind = mentioned(message.text, message.blocks, members, USERGROUPS), "mention"
        text = pushed(message.text, message.blocks, self.name)
        key = str(((message.metadata or {}).get("event_payload") or {}).get("key") or "")
        now = time.monotonic()
        self.notifications += [
            Notification(now, user, kind, text, message.channel, message.ts, key)
            for user in sorted(people - {message.user})
        ]

    # ── revisions ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _reveal_message(self, message: Message) -> None:
        reader = message.only_for or DIRECTS.get(message.channel)
        place = "thread" if message.is_reply else "direct" if message.channel in DIRECTS else f"#{CHANNEL_NAME}"
        self._reveal(reader, place, USERS[message.user].name, self.text_of(message), message.ts)

    def open_home(self, user: str) -> None:
        """Open the Home of a user, whose content counts as new."""
        self.at_home.add(user)
        if home := self.homes.get(user):
            self._shown.pop(home.view["id"], None)
        self.reveal_home(user)

    def reveal_home(self, user: str) -> None:
        """Record that the current Home is visible to its user."""
        if home := self.homes.get(user):
            self._reveal(user, "home", USERS[BOT_USER].name, self.text_of_view(home), home.view["id"])

    def _reveal_modal(self, user: str, modal: Modal) -> None:
        self._reveal(user, "modal", USERS[BOT_USER].name, self.text_of_view(modal), modal.view["id"])

    def _reveal(self, reader: str | None, place: str, author: str, text: str, source: str) -> None:
        before = self._shown.get(source, "")
        self._shown[source] = text
        self.revisions.append(Revision(time.monotonic(), reader, place, author, text, source, before))
        self.touch()

    def _stored(self, old: Json, new: Json) -> Json:
        defaults: dict[str, Any] = {
            "private_metadata": "", "callback_id": "", "close": None, "submit": None, "title": None,
            "clear_on_close": False, "notify_on_close": False, "external_id": old["external_id"],
        }  # fmt: skip
        identity = {key: old[key] for key in _IDENTITY}
        return {**defaults, **new, **identity, "blocks": kit.with_ids(new.get("blocks", [])), "hash": self.next_ts()}
