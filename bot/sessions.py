"""What is remembered of sessions on the GPU: the watch's memory of each, what the bot itself asked, the bills, the questions.

In Redis, beside the store and under the same hash tag. Nothing here decides anything.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain import Bill, Own, Question, Session, SmokeRun
from bot.store import PREFIX, redis_errors

_OWN_LONGEST = timedelta(minutes=10)
"""A smoke test that was killed in its middle counts as under way for this long."""


_ASKED_KEPT = timedelta(days=30)


class Sessions:
    def __init__(self, redis: Redis | RedisCluster, *, kept: timedelta) -> None:
        self._redis, self._kept = redis, kept

    async def of(self, model: str) -> Session | None:
        with redis_errors():
            text = await self._redis.hget(f"{PREFIX}:sessions", model)
        return Session.model_validate_json(text) if text else None

    async def remember(self, model: str, session: Session) -> None:
        with redis_errors():
            await self._redis.hset(f"{PREFIX}:sessions", model, session.model_dump_json())

    # The bot's own requests

    async def own(self, model: str, now: datetime) -> Own | None:
        """What the bot has asked of the model so far; None while it is asking, as the counters are ahead then."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zcount(f"{PREFIX}:own:{model}:asking", now.timestamp(), "+inf")
                pipe.hgetall(f"{PREFIX}:own:{model}")
                asking, tally = await pipe.execute()
        return None if asking else Own.model_validate({key.decode(): float(n) for key, n in tally.items()})

    @asynccontextmanager
    async def asking(self, model: str, now: datetime) -> AsyncIterator[list[Own]]:
        """While the bot asks the model something; what is put into the list is counted as its own at the end."""
        run, asked = uuid.uuid4().hex, list[Own]()
        with redis_errors():
            await self._redis.zadd(f"{PREFIX}:own:{model}:asking", {run: (now + _OWN_LONGEST).timestamp()})
        try:
            yield asked
        finally:
            with redis_errors():
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.hincrbyfloat(f"{PREFIX}:own:{model}", "requests", sum(own.requests for own in asked))
                    pipe.hincrbyfloat(f"{PREFIX}:own:{model}", "tokens", sum(own.tokens for own in asked))
                    pipe.zrem(f"{PREFIX}:own:{model}:asking", run)
                    await pipe.execute()

    async def last_good_run(self, model: str) -> SmokeRun | None:
        """What the endpoint's smoke tests measured the last time that all of them passed at full speed."""
        with redis_errors():
            text = await self._redis.hget(f"{PREFIX}:good-runs", model)
        return SmokeRun.model_validate_json(text) if text else None

    async def keep_good_run(self, model: str, run: SmokeRun) -> None:
        with redis_errors():
            await self._redis.hset(f"{PREFIX}:good-runs", model, run.model_dump_json())

    # What the holder was asked

    async def note_question(self, op_id: str, key: str, question: Question) -> None:
        """Where a question about the session of this operation stands; `key` is its message's."""
        name = f"{PREFIX}:questions:{op_id}"
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(name, key, question.model_dump_json())
                pipe.expire(name, int(_ASKED_KEPT.total_seconds()))
                await pipe.execute()

    async def questions(self, op_id: str) -> dict[str, Question]:
        """Those not yet settled, by the keys of their messages."""
        with redis_errors():
            noted = await self._redis.hgetall(f"{PREFIX}:questions:{op_id}")
        return {_name(key): Question.model_validate_json(text) for key, text in noted.items()}

    async def forget_question(self, op_id: str, key: str) -> None:
        with redis_errors():
            await self._redis.hdel(f"{PREFIX}:questions:{op_id}", key)

    # The bills

    async def keep_bill(self, bill: Bill) -> None:
        """Note a bill, or what is newly known of it, and forget those older than `kept`."""
        oldest = (bill.down - self._kept).timestamp()
        with redis_errors():
            stale = await self._redis.zrangebyscore(f"{PREFIX}:bills:by-time", "-inf", oldest)
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(f"{PREFIX}:bills", str(bill.fence), bill.model_dump_json())
                pipe.zadd(f"{PREFIX}:bills:by-time", {str(bill.fence): bill.claimed.timestamp()})
                if stale:
                    pipe.hdel(f"{PREFIX}:bills", *stale)
                    pipe.zrem(f"{PREFIX}:bills:by-time", *stale)
                await pipe.execute()

    async def bill(self, fence: int) -> Bill | None:
        with redis_errors():
            text = await self._redis.hget(f"{PREFIX}:bills", str(fence))
        return Bill.model_validate_json(text) if text else None

    async def bills(self, since: datetime) -> tuple[Bill, ...]:
        """Those of the sessions claimed since then, oldest first."""
        with redis_errors():
            fences = await self._redis.zrangebyscore(f"{PREFIX}:bills:by-time", since.timestamp(), "+inf")
            texts = await self._redis.hmget(f"{PREFIX}:bills", cast("list[bytes]", fences)) if fences else []
        return tuple(Bill.model_validate_json(text) for text in texts if text)


def _name(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
