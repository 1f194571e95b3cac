"""Store the viewers of Home, their searches, and a digest of the view that each of them sees."""

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.state.records import PREFIX, Records, name, redis_errors

_VIEWERS, VIEWERS_KEPT = 100, timedelta(days=7)
"""Maximum number of people whose Home is updated, and the time for which it is updated after they last opened it."""
_VIEWERS_KEY, _SHOWN = f"{PREFIX}:home:viewers", f"{PREFIX}:home:shown"
_SEARCHES = f"{PREFIX}:home:searches"


class HomeState:
    """Stores data by user. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def turn(self, user: str) -> asyncio.Lock:
        """The lock for reading and publishing a user's Home, so that no older state replaces a newer one."""
        return self._turns[user]

    async def note_viewer(self, user: str, now: datetime) -> None:
        """Record that a user has opened Home."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(_VIEWERS_KEY, {user: now.timestamp()})
                pipe.hdel(_SHOWN, user)
                pipe.hdel(_SEARCHES, user)
                await pipe.execute()

    async def note_search(self, user: str, search: str) -> None:
        """Record a user's search in Home. It is valid until the user opens Home again."""
        with redis_errors():
            await self._redis.hset(_SEARCHES, user, search)

    async def search(self, user: str) -> str:
        """A user's search; empty if there is no search."""
        search = await self._records.field_text(_SEARCHES, user)
        return name(search) if search else ""

    async def viewers(self, now: datetime, within: timedelta = VIEWERS_KEPT) -> tuple[str, ...]:
        """The users who opened Home less than `within` before `now`, the most recent first. Deletes the records of
        users who have not opened it for a week.
        """
        oldest = (now - VIEWERS_KEPT).timestamp()
        await self._records.run(
            _VIEWERS_KEY, "zset", lambda: self._redis.zremrangebyscore(_VIEWERS_KEY, "-inf", oldest)
        )
        with redis_errors():
            since = (now - within).timestamp()
            users = await self._redis.zrevrangebyscore(_VIEWERS_KEY, "+inf", since, start=0, num=_VIEWERS)
        return tuple(map(name, users))

    async def is_changed(self, user: str, digest: str) -> bool:
        """Record the digest of a user's Home; returns whether it differs from the previous one."""
        before = await self._records.field_text(_SHOWN, user)
        with redis_errors():
            await self._redis.hset(_SHOWN, user, digest)
        return before is None or name(before) != digest
