"""Store the newest card about each model, by family of operations. Obsolete buttons are removed from older cards."""

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.state.records import PREFIX, Records, name, redis_errors

_KEY = f"{PREFIX}:cards:newest"


class Cards:
    """Stores ids of operations. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)

    async def newest(self, family: str, model: str) -> str:
        """The id of the operation with the newest card; empty if there is none."""
        op_id = await self._records.field_text(_KEY, f"{family}:{model}")
        return name(op_id) if op_id else ""

    async def note(self, family: str, model: str, op_id: str) -> None:
        """Record that the card of the operation is the newest one of its family and model."""
        with redis_errors():
            await self._redis.hset(_KEY, f"{family}:{model}", op_id)
