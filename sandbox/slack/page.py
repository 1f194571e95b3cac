"""The workspace's web page: sends snapshots as server-sent events, and receives actions as POST requests."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files

from aiohttp import web

from sandbox.clock import Clock
from sandbox.faults import KNOWN, Faults, UnknownFault
from sandbox.slack import blocks as kit
from sandbox.slack.blocks import Control, Json
from sandbox.slack.history import (
    BOT_USER,
    CHANNEL,
    CHANNEL_NAME,
    DIRECTS,
    PEOPLE,
    USERGROUP_NAMES,
    USERS,
    History,
    Message,
    Modal,
    Place,
    User,
)
from sandbox.slack.history import direct as direct_messages
from sandbox.slack.interactions import Interactions, message_json
from sandbox.slack.manifest import Manifest, Shortcut

COALESCE = 0.05
"""Seconds during which changes are combined into one snapshot."""

KEEP_ALIVE = 15.0
RECENT_MESSAGES = 400
"""Number of recent messages on the page."""

_TYPES = {
    "index.html": "text/html",
    **{f"{name}.js": "text/javascript" for name in ("app", "blocks", "messages", "modal", "panel", "state", "surface")},
    "style.css": "text/css",
}
# The page shows text from bots, models and APIs, so only its own scripts may run.
_POLICY = "default-src 'self'; img-src 'self' https: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _nothing() -> Json:
    return {}


@dataclass(frozen=True)
class Outside:
    """The content and actions of the panel beside the channel, which are not part of Slack.

    `panel` returns the content. `actions` are buttons without arguments. `set_speed` and `scale` are None if they are not
    available.
    """

    panel: Callable[[], Json] = _nothing
    actions: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    set_speed: Callable[[float], None] | None = None
    scale: Callable[[str, int], Awaitable[None]] | None = None


class Page:
    """The page's routes."""

    def __init__(
        self,
        history: History,
        interactions: Interactions,
        faults: Faults,
        manifest: Manifest,
        outside: Outside,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._history = history
        self._interactions = interactions
        self._faults = faults
        self._manifest = manifest
        self._outside = outside
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None] | None] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._file),
            web.get("/page/{name}", self._file),
            web.get("/stream", self._stream),
            web.post("/do/{gesture}", self._do),
            web.get("/cluster.json", self._cluster),
            web.post("/faults/{name}", self._fault),
            web.post("/actions/{name}", self._action),
            web.post("/speed", self._speed),
            web.post("/scale", self._scale),
        ]

    async def close(self) -> None:
        """Cancel running work, so that the server can stop."""
        running = [task for task in (*self._tasks, *self._streams) if task]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in _TYPES:
            raise web.HTTPNotFound
        text = files("sandbox").joinpath("page", name).read_text(encoding="utf-8")
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        return web.Response(text=text, content_type=_TYPES[name], headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        user = _person(request.query.get("user", ""))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        task = asyncio.current_task()
        self._streams.add(task)
        try:
            while True:
                version = self._history.version
                await response.write(f"data: {json.dumps(self.snapshot(user))}\n\n".encode())
                while not await self._history.changed(version, KEEP_ALIVE):
                    await response.write(b": still here\n\n")
                await asyncio.sleep(COALESCE)
        except ConnectionError:
            return response
        finally:
            self._streams.discard(task)

    def snapshot(self, user: User) -> Json:
        """Return the content of the page for one user."""
        messages = [m for m in self._history.messages.values() if m.readable_by(user.id)]
        modal, home = self._history.modal(user.id), self._history.homes.get(user.id)
        return {
            "me": user.id,
            "now": self._history.date().timestamp(),
            "speed": self._clock.speed if self._clock.shared else 1,
            "bot": BOT_USER,
            "users": {u.id: {"name": u.name, "real_name": u.real_name, "is_bot": u.is_bot} for u in USERS.values()},
            "groups": {group: {"name": name} for group, name in USERGROUP_NAMES.items()},
            "people": [u.id for u in PEOPLE],
            "channel": {"id": CHANNEL, "name": CHANNEL_NAME},
            "direct": direct_messages(user.id),
            "messages_enabled": self._manifest.messages,
            "commands": [asdict(command) for command in self._manifest.commands],
            "shortcuts": [asdict(shortcut) for shortcut in self._manifest.shortcuts if shortcut.kind == "message"],
            "notified": {u.id: [[n.channel, n.ts] for n in self._history.notified(u.id, 0)] for u in PEOPLE},
            "messages": [_message_state(m) for m in sorted(messages, key=lambda m: m.ts)[-RECENT_MESSAGES:]],
            "modal": _view_state(modal) if modal else None,
            "home": _view_state(home) if home else None,
        }

    # ── receiving ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _do(self, request: web.Request) -> web.Response:
        _refuse_other_origins(request)
        body = await request.json()
        user = _person(body.get("user", ""))
        match request.match_info["gesture"]:
            case "command":
                channel = self._channel(user, body)
                self._start(self._interactions.command(user, body["text"], channel, body.get("thread")))
            case "shortcut":
                message, shortcut = self._shortcut(user, body)
                self._start(self._interactions.shortcut(user, shortcut, message))
            case "act":
                place, control = self._control(user, body)
                self._start(self._interactions.act(place, control, body.get("chosen")))
            case "suggest":
                place, control = self._control(user, body)
                return web.json_response(await self._interactions.suggest(place, control, body.get("typed", "")))
            case "submit":
                modal = self._modal(user, body)
                modal.values |= body["values"]
                self._start(self._interactions.submit(user, modal))
            case "dismiss":
                self._start(self._interactions.dismiss(user, self._modal(user, body)))
            case "home":
                self._start(self._interactions.open_home(user))
            case _:
                raise web.HTTPNotFound
        return web.json_response({"ok": True}, status=202)

    def _start(self, work: Awaitable[None]) -> None:
        """Run `work` in the background; the page receives the result in its stream."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _channel(user: User, body: Json) -> str:
        return direct_messages(user.id) if body.get("channel") in DIRECTS else CHANNEL

    def _shortcut(self, user: User, body: Json) -> tuple[Message, Shortcut]:
        message = self._history.messages.get((str(body.get("channel")), str(body.get("ts"))))
        shortcut = self._manifest.shortcut(str(body.get("callback_id")), "message")
        if message is None or not message.readable_by(user.id) or shortcut is None:
            raise web.HTTPGone(text="This message no longer exists.")
        return message, shortcut

    def _modal(self, user: User, body: Json) -> Modal:
        modal = self._history.modal(user.id)
        if modal is None or modal.view["id"] != body.get("view_id"):
            raise web.HTTPGone(text="This modal is no longer open.")
        return modal

    def _control(self, user: User, body: Json) -> tuple[Place, Control]:
        """Find the control of a request by its message or view, block, action and, in a menu, option."""
        for place, control in self._history.controls(user.id):
            holder = place.message.ts if place.message else (place.view or {}).get("id")
            option = control.option.get("value") if control.option else None
            key = (holder, control.block["block_id"], control.element["action_id"], option)
            if key == (body.get("holder"), body.get("block_id"), body.get("action_id"), body.get("option")):
                place.values.update(body.get("values") or {})
                return place, control
        raise web.HTTPGone(text="This control no longer exists.")

    # ── the panel ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _cluster(self, request: web.Request) -> web.Response:
        faults = [
            {"name": name, "what": description, "on": name in self._faults} for name, description in KNOWN.items()
        ]
        return web.json_response({**self._outside.panel(), "faults": faults, "actions": list(self._outside.actions)})

    async def _fault(self, request: web.Request) -> web.Response:
        _refuse_other_origins(request)
        name, state = request.match_info["name"], (await request.text()).strip()
        if state not in ("on", "off"):
            raise web.HTTPBadRequest(text="The body must be on or off.")
        try:
            (self._faults.add if state == "on" else self._faults.discard)(name)
        except UnknownFault as e:
            raise web.HTTPNotFound(text=str(e)) from e
        return web.json_response({"ok": True})

    async def _action(self, request: web.Request) -> web.Response:
        _refuse_other_origins(request)
        action = self._outside.actions.get(request.match_info["name"])
        if action is None:
            raise web.HTTPNotFound
        self._start(action())
        return web.json_response({"ok": True}, status=202)

    async def _speed(self, request: web.Request) -> web.Response:
        _refuse_other_origins(request)
        if self._outside.set_speed is None:
            raise web.HTTPNotFound
        try:
            self._outside.set_speed(float(await request.text()))
        except ValueError as e:
            raise web.HTTPBadRequest(text="The body must be a number above 0.") from e
        return web.json_response({"ok": True})

    async def _scale(self, request: web.Request) -> web.Response:
        """Scale a Deployment like `kubectl scale`, without the bot."""
        _refuse_other_origins(request)
        if self._outside.scale is None:
            raise web.HTTPNotFound
        body = await request.json()
        try:
            await self._outside.scale(str(body["name"]), int(body["replicas"]))
        except LookupError as e:
            raise web.HTTPNotFound(text=str(e)) from e
        return web.json_response({"ok": True})


def _person(user: str) -> User:
    if user not in {person.id for person in PEOPLE}:
        raise web.HTTPBadRequest(text="user must be one of " + ", ".join(person.id for person in PEOPLE))
    return USERS[user]


def _refuse_other_origins(request: web.Request) -> None:
    """Raise 403 for a request from another page in the same browser."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.host}":
        raise web.HTTPForbidden(text="not from this page")


def _message_state(message: Message) -> Json:
    return message_json(message) | {
        "channel": message.channel,
        "only_for": message.only_for,
        "thread_ts": message.thread_ts,
        "edited": message.edited,
        "state": message.state,
    }


def _view_state(modal: Modal) -> Json:
    return {**modal.view, "values": modal.values or kit.initial_state(modal.view["blocks"]), "errors": modal.errors}
