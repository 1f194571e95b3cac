"""Finds the work that crashes the process: a start is recorded before the work and removed after it.

A remaining record belongs to work that a crash interrupted. A crash interrupts all work of the process, so three rules
find the cause: work that has made progress since is not the cause; work that was interrupted at a different step or
write is not the cause; and work that was interrupted once does not run at the same time as other such work, so that it
has caused the next crash.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import structlog
from pydantic import BaseModel, TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.errors import Unavailable
from bot.progress import at_work, noting
from bot.state.records import PREFIX, Records, redis_errors

log = structlog.get_logger(__name__)

STARTS = f"{PREFIX}:starts"
_DEATHS, _LATE_DEATHS = 2, 8
"""Crashes without progress after which work is set aside. Late crashes count less: somebody may have killed the
process.
"""
_SOON = 15.0
"""Seconds after which a crash is late. A `config.json` of 400 MB crashed the process after about five."""


class Start(BaseModel, frozen=True, defer_build=True):
    """The record of a start whose work has not ended."""

    process: str = ""
    """The process that does the work."""
    begun: str
    """The progress of the work when it started."""
    doing: str = ""
    """The last step or write to another system."""
    beside: str = ""
    """The write to Slack that the process is making at the same time."""
    died: str = ""
    """The step or write at the previous crash."""
    deaths: int = 0
    late: bool = False
    """True if it has been doing this for longer than `_SOON`."""
    late_deaths: int = 0

    def again(self, begun: str, process: str) -> "Start":
        """The next start, after the process crashed in this one.

        The same process has not crashed: docket delivers a task again if the process was too slow to renew its hold.
        """
        if self.process == process:
            return self.model_copy(update={"begun": begun})
        same = begun == self.begun
        if self.late:
            return Start(
                process=process,
                begun=begun,
                died=self.died,
                deaths=self.deaths if same else 0,
                late_deaths=self.late_deaths + 1 if same else 1,
            )
        place = f"{self.doing} {self.beside}".strip()
        repeated = same and place == self.died
        return Start(
            process=process,
            begun=begun,
            died=place,
            deaths=self.deaths + 1 if repeated else 1,
            late_deaths=self.late_deaths if same else 0,
        )

    @property
    def hopeless(self) -> bool:
        return self.deaths >= _DEATHS or self.late_deaths >= _LATE_DEATHS

    @property
    def ended(self) -> int:
        """The number of crashes during this work."""
        return self.deaths + self.late_deaths


_START = TypeAdapter(Start)


class TaskStarts:
    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records, self._process = redis, Records(redis), uuid.uuid4().hex
        self._apart = asyncio.Lock()
        """Held for a while by work that was interrupted before, so that such work runs one at a time."""

    @asynccontextmanager
    async def watched(
        self, task: str, begun: str = "", *, forget: bool = True, patience: float | None = None
    ) -> AsyncIterator[Start]:
        """Record the work while it runs. Yields its start; the work must not be done if it is `hopeless`.

        `patience` limits the seconds that it waits for other interrupted work. With `forget=False`, hopeless work
        stays hopeless.
        """
        with ExitStack() as apart:
            before = await self._records.field(STARTS, task, _START)
            start = before.again(begun, self._process) if before else Start(process=self._process, begun=begun)
            if start.ended and not start.hopeless:
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await self._apart.acquire()
                        apart.callback(self._apart.release)
            record = _Noted(self._redis, task, start)
            await record.keep()
            living = asyncio.create_task(record.live(apart))
            reset = noting.set(record.reached)
            at_work.add(record.beside)
            try:
                yield start
            finally:
                at_work.discard(record.beside)
                noting.reset(reset)
                record.ended = True
                living.cancel()
                await asyncio.gather(living, return_exceptions=True)
                if forget or not start.hopeless:
                    with redis_errors():
                        await self._redis.hdel(STARTS, task)


class _Noted:
    """The record of one start in Redis."""

    def __init__(self, redis: Redis | RedisCluster, task: str, start: Start) -> None:
        self._redis, self._task, self._start = redis, task, start
        self._since = time.monotonic()
        """The start of the current step or write."""
        self.ended = False
        """Set to end `live` even if a library swallows its cancellation."""

    async def reached(self, step: str) -> None:
        """Record the next step or write. If Redis does not answer, the work continues anyway."""
        if step != self._start.doing:
            self._since = time.monotonic()
            await self._change(doing=step, late=False)

    async def beside(self, write: str) -> None:
        """Record the process's activity besides this work; empty when it has ended."""
        await self._change(beside=write)

    async def live(self, apart: ExitStack) -> None:
        """Record that a crash would now be late, and let other interrupted work start, after a while."""
        while not self.ended:
            await asyncio.sleep(_SOON)
            if not self._start.late and time.monotonic() - self._since >= 0.9 * _SOON:
                await self._change(late=True)
            apart.close()

    async def _change(self, **changes: object) -> None:
        self._start = self._start.model_copy(update=changes)
        try:
            await self.keep()
        except Unavailable as error:
            log.warning("start not recorded", task=self._task, error=str(error))

    async def keep(self) -> None:
        with redis_errors():
            await self._redis.hset(STARTS, self._task, self._start.model_dump_json())
