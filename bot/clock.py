"""The bot's clock: real time, or faster in a demonstration, where leases, idle limits and costs pass faster with it.

Network timeouts and Slack's rate limits are real at every speed.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)x since (\S+)")
_SYSTEMS = timedelta(seconds=20)
"""Minimum real time for a stand-in in a demonstration, because it runs at the machine's speed."""
_SHORTEST = timedelta(seconds=1)
"""Minimum real time between two runs of periodic work, because its reads are real requests."""


@dataclass(frozen=True)
class Clock:
    """A clock on which `speed` seconds pass in one real second, and which equals the real time at `since`."""

    speed: float = 1.0
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `60x since 2026-11-29T12:00:00+00:00`; an empty text is real time. Raises ValueError."""
        if not text:
            return cls()
        written = _WRITTEN.fullmatch(text)
        try:
            speed, since = float(written[1]) if written else 0, datetime.fromisoformat(written[2]) if written else None
        except ValueError:
            speed, since = 0, None
        if since is None or since.tzinfo is None or not 1 <= speed <= 3600:
            raise ValueError(
                "this is not a clock; write, for example, 60x since 2026-11-29T12:00:00+00:00 (1x to 3600x)"
            )
        return cls(speed, since)

    def __call__(self) -> datetime:
        """The current time."""
        now = datetime.now(UTC)
        return now if self.speed == 1 else self.since + (now - self.since) * self.speed

    def real_time(self, moment: datetime) -> datetime:
        """The real time at which this clock shows `moment`."""
        return moment if self.speed == 1 else self.since + (moment - self.since) / self.speed

    def real(self, duration: timedelta) -> timedelta:
        """Return the real time that this clock's `duration` takes."""
        return duration / self.speed

    def passed_in(self, real: timedelta) -> timedelta:
        """Return the time that passes on this clock during `real` time, for actions of people and of Slack."""
        return real * self.speed

    def period(self, every: timedelta) -> timedelta:
        """The real time between two runs of periodic work."""
        return max(self.real(every), min(every, _SHORTEST))

    def patience(self, limit: timedelta) -> float:
        """The timeout in real seconds of another system, for `limit` on this clock."""
        return max(self.real(limit), min(limit, _SYSTEMS)).total_seconds()

    async def sleep_until(self, moment: datetime) -> None:
        await asyncio.sleep(max(0.0, self.real(moment - self()).total_seconds()))


REAL_TIME = Clock()
