"""The workspace: an HTTP server for Slack's API and the page, and the actions of users in stories."""

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from aiohttp import web

from sandbox.clock import Clock
from sandbox.faults import Faults
from sandbox.slack import blocks as kit
from sandbox.slack.api import APP_TOKEN, BOT_TOKEN, WebAPI
from sandbox.slack.blocks import Control, Json
from sandbox.slack.history import (
    CHANNEL,
    CHANNEL_NAME,
    OUTSIDERS,
    PEOPLE,
    History,
    Message,
    Modal,
    Place,
    Revision,
    User,
)
from sandbox.slack.history import direct as direct_messages
from sandbox.slack.http_mode import HttpMode
from sandbox.slack.interactions import Interactions
from sandbox.slack.manifest import Manifest, everything
from sandbox.slack.notifications import Notification
from sandbox.slack.page import Outside, Page
from sandbox.slack.socket_mode import SocketMode

SIGNING_SECRET = "sandbox-signing-secret"


class NotThere(LookupError):
    """A control, message or user does not exist; the error's message lists those that exist."""


class Workspace:
    """A Slack workspace on 127.0.0.1, as an async context manager.

    Without `port` it uses a free port. Without `manifest` the app has all rights. With `request_url` the app receives
    signed requests there; otherwise it uses Socket Mode.

    `ack_within` is the time in seconds that Slack waits for an acknowledgement, and for which a trigger is valid. Slack's
    3 seconds would be too short on a machine that runs many tests (`benchmarks/ack.py` measures the bot). `patience` is
    the time in seconds that a delivery waits for an app that is restarting.
    """

    app_token = APP_TOKEN
    bot_token = BOT_TOKEN
    signing_secret = SIGNING_SECRET

    def __init__(
        self,
        faults: Faults,
        outside: Outside | None = None,
        *,
        port: int | None = None,
        manifest: Manifest | None = None,
        request_url: str = "",
        ack_within: float = 20.0,
        patience: float = 15.0,
        clock: Clock | None = None,
    ) -> None:
        manifest = manifest or everything()
        clock = clock or Clock(1)
        self._history = History(clock.date)
        self._socket = None if request_url else SocketMode(ack_within, patience)
        self._delivery = self._socket or HttpMode(request_url, SIGNING_SECRET, ack_within, patience)
        self._manifest = manifest
        self._interactions = Interactions(self._history, self._delivery, manifest, faults, trigger_valid=ack_within)
        self._api = WebAPI(self._history, self._socket, self._interactions, faults, manifest)
        self._page = Page(self._history, self._interactions, faults, manifest, outside or Outside(), clock)
        self._port = port or 0
        self._runner: web.AppRunner | None = None
        self.url = ""

    @property
    def api_url(self) -> str:
        """The app's SLACK_API_URL."""
        return f"{self.url}/api/"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 2**20)
        app.add_routes(
            [
                web.route("*", "/api/{method}", self._api.serve),
                *([web.get("/link", self._socket.serve)] if self._socket else []),
                web.post("/response/{token}", self._respond),
                web.post("/files/{id}", self._api.files.upload),
                web.get("/files/{id}", self._api.files.download, allow_head=False),
                *self._page.routes(),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = self._api.base_url = self._api.files.base_url = self._interactions.base_url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._page.close()
        await self._delivery.disconnect()
        if self._runner:
            await self._runner.cleanup()

    async def connected(self, timeout: float) -> None:
        """Wait until the app is connected in Socket Mode, or answers at its request URL."""
        await self._delivery.connected(timeout)

    async def disconnect(self) -> None:
        """Close the app's connections, as Slack does occasionally."""
        await self._delivery.disconnect()

    def deactivate(self, user: str) -> None:
        """Deactivate a user's account, so that direct messages fail."""
        self._api.closed.add(direct_messages(_person(user).id))

    def delete_card(self) -> None:
        """Delete the newest message of the app in the channel; its replies stay, as in Slack."""
        card = self._history.newest_card()
        if card is None:
            raise NotThere("There is no message of the app in the channel.")
        self._history.delete(card)

    def archive(self, *, archived: bool = True) -> None:
        """Archive or unarchive the channel. Nobody can write or click in an archived channel."""
        self._history.archived = archived
        self._history.touch()

    async def remove_bot(self) -> None:
        """Remove the app from the channel."""
        self._history.has_bot = False
        self._history.touch()

    async def invite_bot(self) -> None:
        """Add the app to the channel."""
        await self._interactions.command(PEOPLE[-1], "/invite @stoker")

    # ── actions of users ──────────────────────────────────────────────────────────────────────────────────────

    async def command(self, user: str, text: str) -> None:
        """Type a line in the channel (in a direct message if the channel is archived), and wait for the app's acknowledgement."""
        person = _person(user)
        channel = direct_messages(person.id) if self._history.archived else CHANNEL
        await self._interactions.command(person, text, channel)

    async def say(self, user: str, text: str, *, on: str = "", direct: bool = False) -> None:
        """Write a message in the channel, in the thread of the newest message with the text `on`, or (`direct`) to the app."""
        person = _person(user)
        if direct:
            if not self._manifest.messages:
                raise NotThere("Sending messages to this app has been turned off.")
            await self._interactions.command(person, text, direct_messages(person.id))
            return
        if self._history.archived:
            raise NotThere(f"#{CHANNEL_NAME} is archived: nobody can write there.")
        thread = self._message(person, on) if on else None
        await self._interactions.command(person, text, thread=(thread.thread_ts or thread.ts) if thread else None)

    async def shortcut(self, user: str, name: str, on: str) -> None:
        """Choose an entry in the ⋮ menu of the newest message that contains `on`."""
        person = _person(user)
        shortcut = self._manifest.shortcut(name, "message")
        if shortcut is None:
            names = ", ".join(f"“{s.name}”" for s in self._manifest.shortcuts if s.kind == "message") or "none"
            raise NotThere(f"There is no message shortcut “{name}”. Shortcuts there: {names}.")
        await self._interactions.shortcut(person, shortcut, self._message(person, on))

    async def click(self, user: str, label: str, timeout: float = 60.0) -> None:
        """Press the newest visible button with this label (case is ignored), and confirm its dialog if it has one."""
        person = _person(user)
        until = time.monotonic() + timeout
        while True:
            version = self._history.version
            for button, press in self._buttons(person):
                if button.casefold() == label.casefold():
                    await press()
                    return
            left = until - time.monotonic()
            if left <= 0 or not await self._history.changed(version, left):
                labels = ", ".join(f"“{button}”" for button, _ in self._buttons(person)) or "none"
                raise NotThere(f"@{user} sees no button “{label}” within {timeout:g} s. Buttons there: {labels}.")

    async def fill(self, user: str, label: str, value: str) -> None:
        """Fill the input with this label in the user's open modal, or in the Home if it is on the screen.

        For a select, choose the option with this text. An input of the Home is sent to the app, as with Enter.
        """
        person = _person(user)
        at_home = person.id in self._history.at_home and not self._history.modal(person.id)
        home = self._history.homes.get(person.id) if at_home else None
        modal = home or self._open_modal(person)
        place = Place(person.id, view=modal.view, values=modal.values)
        fields = [control for control in kit.controls(modal.view["blocks"]) if not control.pressable]
        for control in fields:
            if control.label.casefold() == label.casefold():
                break
        else:
            names = ", ".join(f"“{control.label}”" for control in fields) or "none"
            raise NotThere(f"@{user} sees no field “{label}” in the open modal. Fields there: {names}.")
        state = await self._state(place, control, value)
        modal.values.setdefault(control.block["block_id"], {})[control.element["action_id"]] = state
        self._history.touch()
        if control.block["type"] != "input" or control.block.get("dispatch_action"):
            await self._interactions.act(place, control, state)

    async def submit(self, user: str) -> None:
        """Press the submit button of the user's open modal."""
        person = _person(user)
        modal = self._open_modal(person)
        if not modal.view["submit"]:
            raise NotThere(f"The open modal of @{user} has no submit button.")
        await self._interactions.submit(person, modal)

    async def open_home(self, user: str) -> None:
        """Open the app's Home tab."""
        await self._interactions.open_home(_person(user))

    # ── visible content ──────────────────────────────────────────────────────────────────────────────────────────────────

    def visible(self, user: str, since: float) -> list[str]:
        """Return each text that became visible to this user since this `time.monotonic()` value, including each update."""
        return [revision.text for revision in self.revisions(user, since)]

    def revisions(self, user: str, since: float) -> list[Revision]:
        """Return the texts of `visible` with their sources."""
        return self._history.visible(_person(user).id, since)

    def notified(self, user: str, since: float = 0.0) -> list[Notification]:
        """Return the notifications sent to this user since this `time.monotonic()` value."""
        return self._history.notified(_person(user).id, since)

    def now_visible(self, user: str) -> list[str]:
        """Return each text that this user can see now."""
        return self._history.now_visible(_person(user).id)

    def home(self, user: str) -> str:
        """Return the content of the user's Home tab; empty if the app has published none."""
        home = self._history.homes.get(_person(user).id)
        return self._history.text_of_view(home) if home else ""

    def bookmarks(self) -> list[str]:
        """Return the titles of the bookmarks at the top of the channel."""
        return [str(bookmark["title"]) for bookmark in self._api.bookmarks.shown]

    def posted(self, channel: str, *, threads: bool = False) -> list[str]:
        """Return the current texts of the messages in a channel that all members can read, oldest first.

        With `threads`, return the messages in threads instead.
        """
        messages = [m for m in self._history.messages.values() if m.channel == channel and not m.only_for]
        messages = [message for message in messages if message.is_reply == threads]
        return [self._history.text_of(message) for message in sorted(messages, key=lambda m: m.ts)]

    @property
    def transcript(self) -> tuple[Revision, ...]:
        """All revisions, in order."""
        return tuple(self._history.revisions)

    # ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _respond(self, request: web.Request) -> web.Response:
        error = self._interactions.respond(request.match_info["token"], await request.json())
        if error:
            return web.json_response({"ok": False, "error": error}, status=404)
        return web.Response(text="ok")

    def _buttons(self, person: User) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Yield every button on the user's screen, newest first, with its action."""
        modal = self._history.modal(person.id)
        if modal and modal.view["submit"]:
            yield modal.view["submit"]["text"], lambda: self._interactions.submit(person, modal)
        if modal:
            close = modal.view["close"]["text"] if modal.view["close"] else "Cancel"
            labels = [control.label.casefold() for _, control in self._history.controls(person.id) if control.pressable]
            # Slack's own "Cancel" must not hide a button of the app with that name.
            if modal.view["close"] or close.casefold() not in labels:
                yield close, lambda: self._interactions.dismiss(person, modal)
        for place, control in self._history.controls(person.id):
            if control.pressable:
                yield control.label, lambda place=place, control=control: self._interactions.act(place, control)  # type: ignore[misc]

    def _message(self, person: User, words: str) -> Message:
        """Return the newest message in the channel that contains this text (case is ignored)."""
        for message in sorted(self._history.messages.values(), key=lambda m: m.ts, reverse=True):
            text = self._history.text_of(message) if message.channel == CHANNEL else ""
            if words.casefold() in text.casefold() and message.readable_by(person.id) and not message.only_for:
                return message
        raise NotThere(f"@{person.name} sees no message with the text “{words}”.")

    def _open_modal(self, person: User) -> Modal:
        modal = self._history.modal(person.id)
        if modal is None:
            raise NotThere(f"@{person.name} has no modal open.")
        return modal

    async def _state(self, place: Place, control: Control, value: str) -> Json:
        """Return the element's state after a user has written or chosen this value."""
        element, kind = control.element, control.element["type"]
        if kind in ("plain_text_input", "number_input", "email_text_input", "url_text_input"):
            return {"type": kind, "value": value or None}
        if kind == "users_select":
            return {"type": kind, "selected_user": _person(value.removeprefix("@")).id}
        if kind == "multi_users_select":
            names = [part.strip().removeprefix("@") for part in value.split(",") if part.strip()]
            return {"type": kind, "selected_users": [_person(name).id for name in names]}
        if kind in ("datepicker", "timepicker"):
            return {"type": kind, "selected_" + kind.removesuffix("picker"): value}
        if kind == "datetimepicker":
            return {"type": kind, "selected_date_time": _moment(value, self._history.date())}
        external = kind.endswith("external_select")
        offered = await self._interactions.suggest(place, control, value) if external else kit.options(element)
        texts = [value] if kind not in _MANY else [part.strip() for part in value.split(",") if part.strip()]
        chosen = [_option(offered, text) for text in texts]
        return (
            {"type": kind, "selected_options": chosen}
            if kind in _MANY
            else {"type": kind, "selected_option": chosen[0]}
        )


_MANY = ("checkboxes", "multi_static_select", "multi_external_select")


def _moment(value: str, now: datetime) -> int:
    """Return the Unix time of `2026-01-31 18:00` (UTC), or of `+2h` from `now`."""
    if later := re.fullmatch(r"\+(\d+)\s?(m|h|d)", value):
        return int(now.timestamp()) + int(later[1]) * {"m": 60, "h": 3600, "d": 86400}[later[2]]
    try:
        return int(datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp())
    except ValueError as e:
        raise NotThere(f"“{value}” is not a time: write 2026-01-31 18:00, or +2h.") from e


def _option(offered: list[Json], text: str) -> Json:
    for option in offered:
        if text.casefold() in (option["text"]["text"].casefold(), option["value"].casefold()):
            return option
    close = [option for option in offered if text.casefold() in option["text"]["text"].casefold()]
    if len(close) == 1:
        return close[0]
    names = ", ".join(f"“{option['text']['text']}”" for option in offered) or "none"
    raise NotThere(f"There is no option “{text}”. Options there: {names}.")


def _person(name: str) -> User:
    for person in (*PEOPLE, *OUTSIDERS):
        if name in (person.name, person.id):
            return person
    raise NotThere(
        f"There is no user @{name}. Users: {', '.join('@' + person.name for person in (*PEOPLE, *OUTSIDERS))}."
    )
