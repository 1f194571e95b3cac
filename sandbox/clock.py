"""The platform's clock, whose speed relative to real time can change while tasks sleep.

In a demonstration everything uses it: the bot, Slack, GitHub and the objects in the cluster. Otherwise only the boots,
syncs and bills of the platform are fast, and all dates are real.
"""

import asyncio
import time
from datetime import UTC, datetime


def real_date() -> datetime:
    return datetime.now(UTC)


class Clock:
    """Counts the platform's seconds, of which `speed` pass in one real second.

    If it is `shared`, the bot, Slack and GitHub use it too, and its speed cannot change.
    """

    def __init__(self, speed: float, *, shared: bool = False) -> None:
        self.shared = shared
        self.began = real_date()
        self._speed = speed
        self._since = time.monotonic()
        self._before = 0.0
        self._changed = asyncio.Event()

    @property
    def speed(self) -> float:
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        """Set the speed, including that of sleeps in progress; raises ValueError for a shared clock or a speed of 0 or less."""
        if speed <= 0:
            raise ValueError(f"A clock's speed must be above 0, not {speed:g}.")
        if self.shared:
            raise ValueError("The bot uses the same clock and cannot change its speed.")
        self._before, self._since, self._speed = self.now(), time.monotonic(), speed
        self._changed.set()
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Return the platform's seconds since the start."""
        return self._before + (time.monotonic() - self._since) * self._speed

    def date(self) -> datetime:
        """Return the date and time for messages, objects and pull requests."""
        if not self.shared:
            return real_date()
        return self.began + (real_date() - self.began) * self._speed

    def for_the_bot(self) -> dict[str, str]:
        """Return the environment variables with which the bot uses this clock; empty for a clock that is not shared."""
        return {"STOKER_CLOCK": f"{self._speed:g}x since {self.began.isoformat()}"} if self.shared else {}

    async def sleep(self, seconds: float) -> None:
        until = self.now() + seconds
        while (left := until - self.now()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left / self._speed)
            except TimeoutError:
                return
