"""Slack's side of Socket Mode: connections, and the delivery of each envelope until it is acknowledged."""

import asyncio
import contextlib
import itertools
import json
import secrets
import uuid
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from sandbox.slack.blocks import Json
from sandbox.slack.delivery import NotAcknowledged, NotDelivered


class _ConnectionLost(Exception):
    pass


@dataclass
class _Connection:
    socket: web.WebSocketResponse
    waiting: dict[str, asyncio.Future[Json]] = field(default_factory=dict)

    async def ask(self, envelope: Json, within: float) -> Json:
        answer = self.waiting[envelope["envelope_id"]] = asyncio.get_running_loop().create_future()
        try:
            await self.socket.send_str(json.dumps(envelope))
            return await asyncio.wait_for(answer, within)
        except TimeoutError as e:
            raise NotAcknowledged from e
        except ConnectionError as e:
            raise _ConnectionLost from e
        finally:
            del self.waiting[envelope["envelope_id"]]

    def acknowledge(self, frame: Json) -> None:
        answer = self.waiting.get(str(frame.get("envelope_id")))
        if answer and not answer.done():
            answer.set_result(frame.get("payload") or {})

    def lost(self) -> None:
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_exception(_ConnectionLost())


class SocketMode:
    """The open connections of the app.

    `ack_within` is the time in seconds that Slack waits for an acknowledgement (3, as documented), and `patience` the time
    that an envelope waits for an app that is restarting.
    """

    def __init__(self, ack_within: float = 3.0, patience: float = 15.0) -> None:
        self._ack_within = ack_within
        self._patience = patience
        self._tickets: set[str] = set()
        self._connections: list[_Connection] = []
        self._turn = itertools.count()
        self._someone = asyncio.Event()

    def ticket(self) -> str:
        """Return a new ticket, which is valid for one connection."""
        ticket = secrets.token_urlsafe(16)
        self._tickets.add(ticket)
        return ticket

    async def connected(self, timeout: float) -> None:
        """Wait until the app is connected; raises NotDelivered after `timeout` seconds."""
        try:
            await asyncio.wait_for(self._someone.wait(), timeout)
        except TimeoutError as e:
            raise NotDelivered(f"No app connected within {timeout:g} s.") from e

    async def deliver(self, kind: str, payload: Json) -> Json:
        """Send an envelope over one connection, and again if the connection closes.

        Returns the content of the acknowledgement; raises NotDelivered or NotAcknowledged.
        """
        envelope = {
            "envelope_id": str(uuid.uuid4()),
            "type": kind,
            "payload": payload,
            "accepts_response_payload": kind != "events_api",
        }
        for attempt in itertools.count():
            await self.connected(self._patience)
            connection = self._connections[next(self._turn) % len(self._connections)]
            retry = {"retry_attempt": attempt, "retry_reason": "connection_failed" if attempt else ""}
            with contextlib.suppress(_ConnectionLost):
                return await connection.ask({**envelope, **retry}, self._ack_within)
            self._drop(connection)
        raise AssertionError("itertools.count() does not end")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Handle GET /link, the WebSocket URL from `apps.connections.open`."""
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            raise web.HTTPUnauthorized(text="invalid ticket")
        self._tickets.remove(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = _Connection(socket)
        self._connections.append(connection)
        await socket.send_str(json.dumps(self._hello()))
        self._someone.set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and message.data.startswith("{"):
                    connection.acknowledge(json.loads(message.data))
        finally:
            self._drop(connection)
        return socket

    async def disconnect(self) -> None:
        """Close every connection, as Slack does when it refreshes them."""
        for connection in list(self._connections):
            await connection.socket.close(code=1001)

    def _drop(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        if not self._connections:
            self._someone.clear()
        connection.lost()

    def _hello(self) -> Json:
        return {
            "type": "hello",
            "num_connections": len(self._connections),
            "debug_info": {"host": "applink-sandbox", "build_number": 1, "approximate_connection_time": 18060},
            "connection_info": {"app_id": "A0STOKER"},
        }
