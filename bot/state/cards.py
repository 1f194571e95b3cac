"""The newest card about each model, by family of operations: older cards lose the next steps that no longer apply."""

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.state.records import PREFIX, Records, name, redis_errors

_KEY = f"{PREFIX}:cards:newest"


class Cards:
    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)

    async def newest(self, family: str, model: str) -> str:
        """The id of the operation with the newest card; empty if there is none."""
        found = await self._records.field_text(_KEY, f"{family}:{model}")
        return name(found) if found else ""

    async def note(self, family: str, model: str, op_id: str) -> None:
        with redis_errors():
            await self._redis.hset(_KEY, f"{family}:{model}", op_id)
