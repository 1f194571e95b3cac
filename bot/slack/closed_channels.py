"""Channels that refused the last message. No message is sent to them during a pause."""

import time
from dataclasses import dataclass

from bot.errors import Unavailable

LONGEST_PAUSE = 20.0
"""Maximum seconds between two attempts."""


class ChannelClosed(Unavailable):
    """The channel refused the last message, which is retried soon."""

    remedy = "Unarchive the channel or invite Stoker to it. Stoker then shows the current state there."


@dataclass
class _Pause:
    until: float
    seconds: float


class ClosedChannels:
    """Tracks the pause of each channel. All times are in seconds."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}

    def reopen(self, channel: str) -> None:
        """End the pause of the channel."""
        self._pauses.pop(channel, None)

    def require_open(self, channel: str) -> None:
        """Raise ChannelClosed until the pause of the channel is over."""
        pause = self._pauses.get(channel)
        if pause and time.monotonic() < pause.until:
            raise ChannelClosed("Slack", f"{channel} accepts no messages")

    def close(self, channel: str) -> None:
        """Pause the channel, so that its operations do not all retry at once. Each refusal doubles the pause."""
        pause = self._pauses.get(channel)
        seconds = min(LONGEST_PAUSE, pause.seconds * 2) if pause else 1.0
        self._pauses[channel] = _Pause(time.monotonic() + seconds, seconds)
