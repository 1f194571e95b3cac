"""Store the address of each posted message, and the time of each attempt to post one, so that no message is posted twice."""

from datetime import datetime

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.values import Message, Moment
from bot.state.records import FINISHED_KEPT, PREFIX, Records, name, redis_errors

_MESSAGE, _MOMENT = TypeAdapter(Message), TypeAdapter(Moment)


class Messages:
    """Stores messages by key for 30 days. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)

    async def intend(self, key: str, now: datetime) -> Message | datetime | None:
        """Record that a message is about to be posted.

        Returns None if this is the first attempt, the time of an earlier attempt whose result is unknown, or the
        Message if it was posted.
        """
        place = _place(key)
        with redis_errors():
            first = await self._redis.set(place, now.isoformat(), nx=True, ex=int(FINISHED_KEPT.total_seconds()))
        return None if first else await self._read(place) or now

    async def posted(self, key: str) -> Message | None:
        """The address of the message; None if it was not posted, or if the result of the attempt is unknown."""
        message = await self._read(_place(key))
        return message if isinstance(message, Message) else None

    async def _read(self, place: str) -> Message | datetime | None:
        text = await self._records.text(place)
        if name(text or "").startswith("{"):
            return await self._records.parse(_MESSAGE, text, place)
        return await self._records.parse(_MOMENT, text, place, bare=True)

    async def note(self, key: str, message: Message) -> None:
        """Record the address of a posted message."""
        with redis_errors():
            await self._redis.set(_place(key), message.model_dump_json(), ex=int(FINISHED_KEPT.total_seconds()))

    async def forget(self, key: str) -> None:
        """Delete the record of a message, so that its key can be posted again."""
        with redis_errors():
            await self._redis.delete(_place(key))


def _place(key: str) -> str:
    return f"{PREFIX}:message:{key}"
