"""Store the operations that have registered an alias at the gateway at run time."""

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.state.records import PREFIX, name, redis_errors

_ALIASES = f"{PREFIX}:aliases"


class RuntimeAliases:
    """Stores ids of operations. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis

    async def note(self, op_id: str) -> None:
        """Record the operation before it registers its alias, so that the alias is also removed after a crash."""
        with redis_errors():
            await self._redis.sadd(_ALIASES, op_id)

    async def all(self) -> tuple[str, ...]:
        """The operations whose aliases have not been removed yet."""
        with redis_errors():
            return tuple(sorted(map(name, await self._redis.smembers(_ALIASES))))

    async def forget(self, op_id: str) -> None:
        """Delete the record, because the alias was removed."""
        with redis_errors():
            await self._redis.srem(_ALIASES, op_id)
