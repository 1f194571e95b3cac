"""The step ledger stores the finished steps of operations, and their results."""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from opentelemetry import trace
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.clock import REAL_TIME
from bot.domain.events import AuditEvent
from bot.progress import going_to
from bot.state.audit import AUDIT
from bot.state.records import FINISHED_KEPT, PREFIX, Records, redis_errors

T = TypeVar("T")
_tracer = trace.get_tracer("stoker")


class StepLedger:
    """Stores the results of steps by operation. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster, clock: Callable[[], datetime] = REAL_TIME) -> None:
        self._redis, self._records, self._clock = redis, Records(redis), clock

    async def once(
        self, op_id: str, step: str, act: Callable[[], Awaitable[T]], returns: type[T] | TypeAdapter[T]
    ) -> T:
        """Run a step of an operation, or return its stored result if an earlier run finished it.

        `returns` is the type of the result, or an adapter if the type is a union. If the bot crashes after `act` and
        before the result is stored, `act` runs again, so it must be idempotent.
        """
        key = _steps(op_id)
        adapter = _adapter(returns)
        text = await self._records.field_text(key, step)
        if recorded := await self._records.parse_in_tuple(adapter, text, key, step):
            return recorded[0]
        await going_to(step)
        with _tracer.start_as_current_span(step, attributes={"stoker.op": op_id}):
            result = await act()
        entry = {
            "at": self._clock().isoformat(),
            "event": AuditEvent.STEP,
            "op": op_id,
            "what": step,
            "who": "stoker",
        }
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, step, adapter.dump_json(result))
                pipe.xadd(AUDIT, {"entry": json.dumps(entry)})
                pipe.expire(key, int(FINISHED_KEPT.total_seconds()))
                await pipe.execute()
        return result

    async def finished(self, op_id: str) -> int:
        """The number of finished steps."""
        key = _steps(op_id)
        return int(await self._records.run(key, "hash", lambda: self._redis.hlen(key)))

    async def result(self, op_id: str, step: str, returns: type[T] | TypeAdapter[T]) -> T | None:
        """The result of a finished step; None if the step is not finished, or its record was deleted."""
        return await self._records.field(_steps(op_id), step, _adapter(returns))

    async def forget(self, op_id: str, step: str) -> None:
        """Delete the result of a step, so that it runs again."""
        with redis_errors():
            await self._redis.hdel(_steps(op_id), step)


def _adapter(returns: type[T] | TypeAdapter[T]) -> TypeAdapter[T]:
    return returns if isinstance(returns, TypeAdapter) else TypeAdapter(returns)


def _steps(op_id: str) -> str:
    return f"{PREFIX}:op:{op_id}:steps"
