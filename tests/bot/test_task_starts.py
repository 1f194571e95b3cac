"""Work that ends the process is distinguished from other work that was running when the process ended."""

import asyncio
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, Redis

from bot.progress import beside_all_work, going_to
from bot.state import task_starts
from bot.state.task_starts import Start, TaskStarts


class StoppableRedis(Redis):
    """A connection that writes nothing after its process was killed."""

    dead = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.dead:
            raise ConnectionError
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class Process:
    def __init__(self, redis_url: str) -> None:
        self._redis = StoppableRedis(connection_pool=ConnectionPool.from_url(redis_url))
        self._starts = TaskStarts(self._redis)
        self._works: list[asyncio.Task[None]] = []

    async def begin(self, task: str, begun: str = "", doing: str = "") -> Start:
        """Start work that does not end, as soon as it may run."""
        start = asyncio.get_running_loop().create_future()

        async def work() -> None:
            async with self._starts.watched(task, begun) as watched_start:
                if doing:
                    await going_to(doing)
                start.set_result(watched_start)
                await asyncio.Event().wait()

        work_task = asyncio.create_task(work())
        self._works.append(work_task)
        await asyncio.wait({start, work_task}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            work_task.result()  # fails if the task could not start
        result: Start = await start
        return result

    async def die(self) -> None:
        self._redis.dead = True
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        await self._redis.aclose(close_connection_pool=True)


async def deadly(redis_url: str, task: str, begun: str = "", doing: str = "", *, late: bool = False) -> Start:
    """Start work that does not end in a new process, kill the process, and return the start."""
    process = Process(redis_url)
    start = await process.begin(task, begun, doing)
    async with Redis.from_url(redis_url) as redis:
        while late and b'"late":true' not in (await redis.hget(task_starts.STARTS, task) or b""):
            await asyncio.sleep(0.02)
    await process.die()
    return start


@pytest.mark.usefixtures("redis")
async def test_work_that_crashes_the_process_twice_in_one_step_is_hopeless(redis_url: str) -> None:
    starts = [await deadly(redis_url, "op", "running 3", "PATCH deployments") for _ in range(3)]
    assert [start.hopeless for start in starts] == [False, False, True]
    assert starts[-1].ended == 2


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    "places",
    [
        [("running 3", f"step {number}") for number in range(6)],
        [(f"running {number}", "the same step") for number in range(6)],
        [("running 3", f"write {number % 2}") for number in range(6)],
    ],
    ids=["another step", "further", "to and fro"],
)
async def test_work_that_is_at_another_step_at_each_crash_continues(
    redis_url: str, places: list[tuple[str, str]]
) -> None:
    """The test simulates a bot that is killed after each of its writes."""
    assert not any([(await deadly(redis_url, "op", *place)).hopeless for place in places])


async def test_work_that_ended_is_forgotten(redis: Redis) -> None:
    for _ in range(4):
        async with TaskStarts(redis).watched("op") as start:
            assert not start.hopeless


@pytest.mark.usefixtures("redis")
async def test_work_that_only_ran_during_a_crash_is_not_given_up(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A boot and a swap wait together with a request that ends the process at each start; only that request is set aside."""
    monkeypatch.setattr(task_starts, "_LATE_AFTER", 1.0)  # each start waits that long for the previous start
    hopeless: set[str] = set()

    async def work(process: Process, task: str) -> bool:
        start = await process.begin(task)
        if start.hopeless:
            hopeless.add(task)
        return task == "poison" and not start.hopeless

    for _ in range(6):
        process = Process(redis_url)
        works = [
            asyncio.create_task(work(process, task)) for task in ("boot", "poison", "swap") if task not in hopeless
        ]
        died = False
        for ended in asyncio.as_completed(works):
            if died := await ended:
                break
        await process.die()
        for task in works:
            task.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        if not died:
            break
    assert hopeless == {"poison"}


@pytest.mark.usefixtures("redis")
async def test_a_crash_during_a_write_to_slack_does_not_count_against_the_work(redis_url: str) -> None:
    """After a crash at the post of the card, and one at its update, the work continues; after another one at the update, it is given up."""
    writes = ("chat.postMessage", "chat.update", "chat.update", "")
    hopeless = []
    for write in writes:
        process = Process(redis_url)
        hopeless.append((await process.begin("op", "running 3", "staging")).hopeless)
        async with beside_all_work(write) if write else nullcontext():
            await process.die()
    assert hopeless == [False, False, False, True]


async def test_work_that_is_delivered_twice_has_not_crashed(redis: Redis) -> None:
    """A process that was too slow to renew its hold on a task gets the task again during the first run."""
    process = TaskStarts(redis)
    works = [process.watched("op", "running 3") for _ in range(3)]
    async with works[0], works[1], works[2] as third:
        assert third.ended == 0


class DeafRedis(Redis):
    """A connection that swallows a cancellation during a write, as some libraries do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.deaf, self.writes = False, asyncio.Event()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.deaf and args[0] == "HSET":
            self.writes.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return 0
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("redis")
async def test_work_ends_although_a_cancellation_is_swallowed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the work would never end: its record would be renewed forever."""
    monkeypatch.setattr(task_starts, "_LATE_AFTER", 0.1)
    redis = DeafRedis(connection_pool=ConnectionPool.from_url(redis_url))
    async with asyncio.timeout(60):
        async with TaskStarts(redis).watched("op"):
            redis.deaf = True
            await redis.writes.wait()
    await redis.aclose(close_connection_pool=True)


@pytest.mark.usefixtures("redis")
async def test_late_crashes_count_too(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bot that waits for a long time may be killed repeatedly; work without progress is given up eventually."""
    monkeypatch.setattr(task_starts, "_LATE_AFTER", 0.1)
    started = [await deadly(redis_url, "op", "running 3", "waiting", late=True) for _ in range(9)]
    assert [start.hopeless for start in started] == [False] * 8 + [True]
