"""Store the deliveries that were received, because Slack delivers an event again if the answer is late."""

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.state.records import PREFIX, redis_errors

_KEPT_SECONDS = 3600
"""Seconds for which a delivery is stored. Slack retries an event immediately, after one minute and after five minutes:
https://docs.slack.dev/apis/events-api/#retries."""


class Deliveries:
    """Detects repeated deliveries. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis

    async def is_first(self, key: str) -> bool:
        """Return whether this is the first call with this key within an hour."""
        with redis_errors():
            return bool(await self._redis.set(f"{PREFIX}:first:{key}", "1", nx=True, ex=_KEPT_SECONDS))
