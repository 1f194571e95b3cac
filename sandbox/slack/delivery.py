"""The protocol of the two ways to deliver users' actions to the app: Socket Mode and signed HTTP requests."""

from typing import Protocol

from sandbox.slack.blocks import Json


class NotDelivered(Exception):
    """The app did not connect in time."""


class NotAcknowledged(Exception):
    """The app received the delivery, but did not acknowledge it in time."""


class Delivery(Protocol):
    """One of Slack's two delivery methods."""

    async def connected(self, timeout: float) -> None:
        """Wait until the app is reachable; raises NotDelivered after `timeout` seconds."""

    async def deliver(self, kind: str, payload: Json) -> Json:
        """Deliver a payload of a `kind` (slash_commands, interactive, events_api).

        Returns the content of the acknowledgement; raises NotDelivered or NotAcknowledged.
        """

    async def disconnect(self) -> None:
        """Close every connection, as Slack does when it refreshes them."""
