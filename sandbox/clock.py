"""The platform's clock: how much faster than life it runs, and how that is changed while things wait."""

import asyncio
import time


class Clock:
    """Seconds of the platform; `speed` of them pass in one of ours."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._since = time.monotonic()
        self._before = 0.0
        self._changed = asyncio.Event()

    @property
    def speed(self) -> float:
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        """Every sleep under way goes on at the new speed."""
        if speed <= 0:
            raise ValueError(f"A clock's speed is above 0, not {speed:g}.")
        self._before, self._since, self._speed = self.now(), time.monotonic(), speed
        self._changed.set()
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Seconds of the platform since the start."""
        return self._before + (time.monotonic() - self._since) * self._speed

    async def sleep(self, seconds: float) -> None:
        until = self.now() + seconds
        while (left := until - self.now()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left / self._speed)
            except TimeoutError:
                return
