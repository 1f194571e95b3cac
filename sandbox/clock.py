"""The platform's clock: its speed relative to real time, which can change while tasks sleep.

In a demonstration it is the clock of everything: the bot's, Slack's, GitHub's, and that of the objects in the cluster.
Otherwise only the boots, syncs and bills of the platform are fast, and everything has the real date.
"""

import asyncio
import time
from datetime import UTC, datetime


def real_date() -> datetime:
    return datetime.now(UTC)


class Clock:
    """Seconds of the platform; `speed` of them pass in one real second.

    `shared`: it is the clock of everything, and its speed cannot change.
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
        """Every running sleep continues at the new speed."""
        if speed <= 0:
            raise ValueError(f"A clock's speed is above 0, not {speed:g}.")
        if self.shared:
            raise ValueError("The bot has the same clock, and cannot change its speed.")
        self._before, self._since, self._speed = self.now(), time.monotonic(), speed
        self._changed.set()
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Seconds of the platform since the start."""
        return self._before + (time.monotonic() - self._since) * self._speed

    def date(self) -> datetime:
        """The date and time that messages, objects and pull requests get."""
        if not self.shared:
            return real_date()
        return self.began + (real_date() - self.began) * self._speed

    def for_the_bot(self) -> dict[str, str]:
        """The environment variables that give the bot this clock."""
        return {"STOKER_CLOCK": f"{self._speed:g}x since {self.began.isoformat()}"} if self.shared else {}

    async def sleep(self, seconds: float) -> None:
        until = self.now() + seconds
        while (left := until - self.now()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left / self._speed)
            except TimeoutError:
                return
