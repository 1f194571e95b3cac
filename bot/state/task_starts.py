"""Find the work that crashes the process. A start is recorded before the work and removed after it.

A remaining record belongs to work that a crash interrupted. A crash interrupts all work of the process, so three rules
determine the cause. Work that has made progress since the last crash is not the cause. Work that was interrupted at a
different step or write each time is not the cause. Interrupted work does not run at the same time as other
interrupted work, so that the next crash has only one possible cause.
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
"""Numbers of crashes, and of late crashes, without progress after which work is set aside. More late crashes are allowed,
because somebody may have killed the process.
"""
_LATE_AFTER = 15.0
"""Seconds in a step after which a crash counts as late. A `config.json` of 400 MB crashed the process after about five
seconds.
"""


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
    """True if the current step or write has taken longer than `_LATE_AFTER`."""
    late_deaths: int = 0

    def next_start(self, begun: str, process: str) -> "Start":
        """The start that follows this one, which did not end.

        If `process` is another process, the previous process has crashed. If it is the same process, docket delivered
        the task again, because its hold was not renewed in time.
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
        """True if this work has crashed the process too often."""
        return self.deaths >= _DEATHS or self.late_deaths >= _LATE_DEATHS

    @property
    def ended(self) -> int:
        """The number of crashes during this work."""
        return self.deaths + self.late_deaths


_START = TypeAdapter(Start)


class TaskStarts:
    """Stores the starts of tasks. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records, self._process = redis, Records(redis), uuid.uuid4().hex
        self._apart = asyncio.Lock()
        """Held at the beginning of work that was interrupted before, so that such work does not start concurrently."""

    @asynccontextmanager
    async def watched(
        self, task: str, begun: str = "", *, forget: bool = True, patience: float | None = None
    ) -> AsyncIterator[Start]:
        """Record the work while it runs. Yields its start; if the start is `hopeless`, the work must not be done.

        `patience` is the maximum wait for other interrupted work in seconds. With `forget=False`, the record of
        hopeless work is not removed, so that the work stays hopeless.
        """
        with ExitStack() as apart:
            before = await self._records.field(STARTS, task, _START)
            start = before.next_start(begun, self._process) if before else Start(process=self._process, begun=begun)
            if start.ended and not start.hopeless:
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await self._apart.acquire()
                        apart.callback(self._apart.release)
            record = _StartRecord(self._redis, task, start)
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


class _StartRecord:
    """The record of one start in Redis."""

    def __init__(self, redis: Redis | RedisCluster, task: str, start: Start) -> None:
        self._redis, self._task, self._start = redis, task, start
        self._since = time.monotonic()
        """The start of the current step or write."""
        self.ended = False
        """Set to end `live` even if a library swallows its cancellation."""

    async def reached(self, step: str) -> None:
        """Record the next step or write. If Redis does not answer, the work continues."""
        if step != self._start.doing:
            self._since = time.monotonic()
            await self._change(doing=step, late=False)

    async def beside(self, write: str) -> None:
        """Record the write to Slack that the process makes at the same time; empty when the write has ended."""
        await self._change(beside=write)

    async def live(self, apart: ExitStack) -> None:
        """After `_LATE_AFTER` seconds, record that a crash would be late, and let other interrupted work start."""
        while not self.ended:
            await asyncio.sleep(_LATE_AFTER)
            if not self._start.late and time.monotonic() - self._since >= 0.9 * _LATE_AFTER:
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
