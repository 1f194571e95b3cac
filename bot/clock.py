"""The bot's clock: real time, or faster in a demonstration.

Leases, idle limits and costs follow this clock. Network timeouts and Slack's rate limits are always in real time.
"""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Self

from manifests.frozen import frozen

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)x since (\S+)")
_SYSTEMS = timedelta(seconds=20)
"""Minimum timeout in real time for a simulated system in a demonstration: the system cannot run faster than the machine."""
_SHORTEST = timedelta(seconds=1)
"""Minimum real time between two runs of periodic work, because each run sends requests."""


@frozen
class Clock:
    """A clock on which `speed` seconds pass in one real second, and which equals the real time at `since`."""

    speed: float = 1.0
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `60x since 2026-11-29T12:00:00+00:00`. An empty text is real time. Raises ValueError for other texts."""
        if not text:
            return cls()
        match = _WRITTEN.fullmatch(text)
        try:
            speed, since = float(match[1]) if match else 0, datetime.fromisoformat(match[2]) if match else None
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
        """Return the real duration of `duration` on this clock."""
        return duration / self.speed

    def passed_in(self, real: timedelta) -> timedelta:
        """Return the duration on this clock of a `real` duration, for actions of people and of Slack, which take real time."""
        return real * self.speed

    def period(self, every: timedelta) -> timedelta:
        """Return the real interval of periodic work whose interval on this clock is `every`."""
        return max(self.real(every), min(every, _SHORTEST))

    def patience(self, limit: timedelta) -> float:
        """Return the timeout in real seconds for another system that may take as long as `limit` on this clock."""
        return max(self.real(limit), min(limit, _SYSTEMS)).total_seconds()

    async def sleep_until(self, moment: datetime) -> None:
        await asyncio.sleep(max(0.0, self.real(moment - self()).total_seconds()))


REAL_TIME = Clock()
