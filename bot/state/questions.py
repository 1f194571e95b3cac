"""Store the questions to the holder of the GPU, whose buttons must be removed later."""

from datetime import timedelta

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.leases import Question
from bot.state.records import PREFIX, Records, redis_errors

_KEPT = timedelta(days=30)
_QUESTION = TypeAdapter(Question)


class Questions:
    """Stores questions by operation. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)

    async def note(self, op_id: str, key: str, question: Question) -> None:
        """Record a question about the session of this operation. `key` is the key of the question's message."""
        place = _place(op_id)
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(place, key, question.model_dump_json())
                pipe.expire(place, int(_KEPT.total_seconds()))
                await pipe.execute()

    async def of(self, op_id: str) -> dict[str, Question]:
        """The questions that still have their buttons, by the keys of their messages."""
        return await self._records.fields(_place(op_id), _QUESTION)

    async def forget(self, op_id: str, key: str) -> None:
        """Delete the record of a question, because its buttons were removed."""
        with redis_errors():
            await self._redis.hdel(_place(op_id), key)


def _place(op_id: str) -> str:
    return f"{PREFIX}:questions:{op_id}"
