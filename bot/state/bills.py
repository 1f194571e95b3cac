"""Store the bills of sessions for the reports."""

from datetime import datetime, timedelta
from typing import cast

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.sessions import Bill
from bot.state.records import PREFIX, Records, name, redis_errors

_BILLS, _BY_TIME = f"{PREFIX}:bills", f"{PREFIX}:bills:by-time"
_BILL = TypeAdapter(Bill)


class Bills:
    """Stores bills by the fence of their lease. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster, *, kept: timedelta) -> None:
        self._redis, self._kept = redis, kept
        self._records = Records(redis)

    async def keep(self, bill: Bill) -> None:
        """Store a bill, or replace its older version, and delete the bills that are older than `kept`."""
        oldest = (bill.down - self._kept).timestamp()
        stale = await self._records.run(_BY_TIME, "zset", lambda: self._redis.zrangebyscore(_BY_TIME, "-inf", oldest))
        await self._records.run(_BILLS, "hash", lambda: self._redis.hlen(_BILLS))
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(_BILLS, str(bill.fence), bill.model_dump_json())
                pipe.zadd(_BY_TIME, {str(bill.fence): bill.claimed.timestamp()})
                if stale:
                    pipe.hdel(_BILLS, *stale)
                    pipe.zrem(_BY_TIME, *stale)
                await pipe.execute()

    async def of(self, fence: int) -> Bill | None:
        """The bill of the lease with this fence; None if there is none."""
        return await self._records.field(_BILLS, str(fence), _BILL)

    async def since(self, since: datetime) -> tuple[Bill, ...]:
        """The bills of the sessions that were claimed since that time, oldest first."""
        first = since.timestamp()
        fences = await self._records.run(_BY_TIME, "zset", lambda: self._redis.zrangebyscore(_BY_TIME, first, "+inf"))
        names = [name(fence) for fence in cast("list[bytes]", fences)]
        return tuple([bill for fence in names if (bill := await self._records.field(_BILLS, fence, _BILL))])
