"""How what people do reaches the app: over Socket Mode, or by signed requests to its address."""

from typing import Protocol

from sandbox.slack.blocks import Json


class NotDelivered(Exception):
    """The app has no connection, and none came back in time."""


class NotAcknowledged(Exception):
    """The app took the delivery, but did not acknowledge it in time."""


class Delivery(Protocol):
    """One of Slack's two ways to an app."""

    async def connected(self, timeout: float) -> None:
        """Wait until the app can be reached; NotDelivered if it cannot in time."""

    async def deliver(self, kind: str, payload: Json) -> Json:
        """Hand over a payload of a `kind` (slash_commands, interactive, events_api); returns what the ack carried."""

    async def disconnect(self) -> None:
        """Close every connection, as Slack does when it refreshes them."""
