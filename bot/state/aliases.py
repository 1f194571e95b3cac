"""The operations that have registered an alias at the gateway at run time."""

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.state.records import PREFIX, name, redis_errors

_ALIASES = f"{PREFIX}:aliases"


class RuntimeAliases:
    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis

    async def note(self, op_id: str) -> None:
        """Record an alias before it is registered, so that after a crash it is removed too."""
        with redis_errors():
            await self._redis.sadd(_ALIASES, op_id)

    async def all(self) -> tuple[str, ...]:
        """The operations whose aliases have not been removed yet."""
        with redis_errors():
            return tuple(sorted(map(name, await self._redis.smembers(_ALIASES))))

    async def forget(self, op_id: str) -> None:
        with redis_errors():
            await self._redis.srem(_ALIASES, op_id)
