"""Store data about sessions on the GPU: the idle watch's observations, the health, and the bot's own requests."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.leases import Lease
from bot.domain.sessions import Health, Own, Session
from bot.domain.values import Count
from bot.state.records import PREFIX, Records, redis_errors

_OWN_LONGEST = timedelta(minutes=10)
"""Maximum time for which a smoke test that was interrupted by a crash counts as running."""

_SESSION, _HEALTH = TypeAdapter(Session), TypeAdapter(Health)
_COUNT = TypeAdapter[float](Count)


class Sessions:
    """Stores data by model. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)

    async def of(self, lease: Lease) -> Session | None:
        """The session of this lease; None if only an earlier session of the model is stored."""
        session = await self._records.field(f"{PREFIX}:sessions", lease.model, _SESSION)
        return session if session and session.fence == lease.fence else None

    async def remember(self, model: str, session: Session) -> None:
        """Store the session of a model."""
        key, text = f"{PREFIX}:sessions", session.model_dump_json()
        await self._records.run(key, "hash", lambda: self._redis.hset(key, model, text))

    async def health(self, lease: Lease) -> Health | None:
        """The health record of this lease's session; None if only the record of an earlier session is stored."""
        stored = await self._records.field(f"{PREFIX}:health", lease.model, _HEALTH)
        return stored if stored and stored.fence == lease.fence else None

    async def keep_health(self, model: str, health: Health) -> None:
        """Store the health record of a model's session."""
        key, text = f"{PREFIX}:health", health.model_dump_json()
        await self._records.run(key, "hash", lambda: self._redis.hset(key, model, text))

    async def forget_template(self, lease: Lease) -> None:
        """Delete the stored digest of the Deployment's template, because an approved roll-out has changed the template."""
        if health := await self.health(lease):
            await self.keep_health(lease.model, health.model_copy(update={"template": "", "image": ""}))

    # The bot's own requests

    async def own(self, model: str, now: datetime) -> Own | None:
        """The number of the bot's own requests to the model, and their tokens. None while the bot is making a request,
        because the engine may count the request before it is recorded here.
        """
        key, first = f"{PREFIX}:own:{model}:asking", now.timestamp()
        if await self._records.run(key, "zset", lambda: self._redis.zcount(key, first, "+inf")):
            return None
        tally = await self._records.fields(f"{PREFIX}:own:{model}", _COUNT)
        return Own(requests=tally.get("requests", 0), tokens=tally.get("tokens", 0))

    @asynccontextmanager
    async def asking(self, model: str, now: datetime) -> AsyncIterator[list[Own]]:
        """Record that the bot is making requests to the model. The caller adds the requests to the yielded list."""
        run, requests = uuid.uuid4().hex, list[Own]()
        with redis_errors():
            await self._redis.zadd(f"{PREFIX}:own:{model}:asking", {run: (now + _OWN_LONGEST).timestamp()})
        try:
            yield requests
        finally:
            with redis_errors():
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.hincrbyfloat(f"{PREFIX}:own:{model}", "requests", sum(own.requests for own in requests))
                    pipe.hincrbyfloat(f"{PREFIX}:own:{model}", "tokens", sum(own.tokens for own in requests))
                    pipe.zrem(f"{PREFIX}:own:{model}:asking", run)
                    await pipe.execute()
