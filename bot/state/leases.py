"""The single place that decides who holds the GPU.

One hash in Redis, a field per model that holds a slot, so that N slots are N fields; a sorted set with the queue; and a
counter that gives each claim an increasing fencing number (at least the milliseconds of Redis's clock). Every change is
one script and contains its fence: a stale fence is rejected.

Data that Redis may lose (a restart, a flush, a failover to a replica that missed a write) is also in the Deployment's
annotation; `restore` puts it back, and `floor` keeps the counter above every fence that was ever issued.
"""

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError, ResponseError

from bot.domain.leases import Lease
from bot.errors import BotError
from bot.state.records import PREFIX, Records, name, redis_errors, unavailable
from bot.text.mrkdwn import clock, md, person

_NEXT_FENCE = """
-- A number above every fence that was ever given: above the counter, above the highest one in the cluster, and not below the
-- time, so that a claim which a failover lost, before its Deployment was marked, does not have its number given again.
local function next_fence(counter, floor)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local counted = tonumber(redis.call('GET', counter) or 0)
  if not counted or counted ~= counted or counted >= 9007199254740992 then counted = 0 end  -- spoilt: no number of ours
  local fence = math.max(counted + 1, tonumber(floor) + 1, now)
  redis.call('SET', counter, string.format('%.0f', fence))
  return string.format('%.0f', fence)
end
"""

_CLAIM = """
-- Claims a slot for a model, or returns the lease or the queue that prevents it.
-- Re-entrant: the operation that holds the model's lease gets it back as it is.
-- First come, first served: a free slot goes to the head of the queue; a request outside the queue comes last.
-- KEYS: leases, fence counter, queue.
-- ARGV: model, op, slots, lease JSON with "fence":0, floor (the highest fence in the cluster).
-- Answer: {'granted', fence} | {'held', lease that it has} | {'busy', lease of the holder} | {'queued', operation that is first}
local own = redis.call('HGET', KEYS[1], ARGV[1])
if own then
  if cjson.decode(own).op == ARGV[2] then return {'held', own} end
  return {'busy', own}
end
local held = redis.call('HLEN', KEYS[1])
if held >= tonumber(ARGV[3]) then return {'busy', redis.call('HVALS', KEYS[1])[1]} end
local ahead = redis.call('ZRANK', KEYS[3], ARGV[2]) or redis.call('ZCARD', KEYS[3])
if held + ahead >= tonumber(ARGV[3]) then return {'queued', redis.call('ZRANGE', KEYS[3], 0, 0)[1]} end
local fence = next_fence(KEYS[2], ARGV[5])
local lease = string.gsub(ARGV[4], '"fence":0', '"fence":' .. fence, 1)
redis.call('HSET', KEYS[1], ARGV[1], lease)
redis.call('ZREM', KEYS[3], ARGV[2])
return {'granted', fence}
"""

_RENEW = """
-- Writes a changed lease over the one that was read, and over no other.
-- KEYS: leases. ARGV: model, fence, revision that was read, new JSON.
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found then return 0 end
local lease = cjson.decode(found)
if lease.fence ~= tonumber(ARGV[2]) then return 0 end
if lease.revision ~= tonumber(ARGV[3]) then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return 1
"""

_RELEASE = """
-- Gives the slot back, if it is still held under this fence.
-- KEYS: leases. ARGV: model, fence.
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found or cjson.decode(found).fence ~= tonumber(ARGV[2]) then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

_REPLACE = """
-- Hands a slot from one model to another in one step, so that nobody gets in between. Re-entrant, like a claim.
-- KEYS: leases, fence counter. ARGV: old model, old fence, new model, new op, new lease JSON with "fence":0, floor.
-- Answer: {'held', lease} | {'moved', the lease in the way, or ''}
local own = redis.call('HGET', KEYS[1], ARGV[3])
if own and cjson.decode(own).op == ARGV[4] then return {'held', own} end
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old or cjson.decode(old).fence ~= tonumber(ARGV[2]) then return {'moved', old or ''} end
if own and ARGV[1] ~= ARGV[3] then return {'moved', own} end
local fence = next_fence(KEYS[2], ARGV[6])
local lease = string.gsub(ARGV[5], '"fence":0', '"fence":' .. fence, 1)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[3], lease)
return {'held', lease}
"""

_RESTORE = """
-- Puts back a lease that Redis has lost, from the copy that the Deployment carries. One that Redis has stays as it is:
-- people with kubectl can write the copy.
-- KEYS: leases, fence counter. ARGV: model, fence, slots, lease JSON.
-- Answer: 1 put back, 0 nothing to do, -1 somebody else holds the slot.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return -1 end
local counted = tonumber(redis.call('GET', KEYS[2]) or 0)
if not counted or counted ~= counted or counted >= 9007199254740992 or counted < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return 1
"""

_JOIN = """
-- Takes a place at the end of the queue. An operation that is in the queue keeps its place.
-- KEYS: queue, counter of places. ARGV: op. Answer: how many are ahead.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[2]), ARGV[1])
end
return redis.call('ZRANK', KEYS[1], ARGV[1])
"""


_LEASE = TypeAdapter(Lease)


class GpuBusy(BotError):
    """Somebody else holds the GPU."""

    remedy = "Queue, ask the holder, or ask for a replacement: the card has a button for each."

    def __init__(self, holder: Lease) -> None:
        super().__init__(
            md(
                "The GPU is taken: `{model}` is held by {holder} since {claimed}{value}. Ask them, or wait "
                "until it is down (`/gpu status`).",
                model=holder.model,
                holder=person(holder.holder),
                claimed=clock(holder.claimed),
                value=" for “" + holder.reason + "”" if holder.reason else "",
            )
        )
        self.holder = holder


class GpuQueued(BotError):
    """The GPU is free, but other requests are ahead in the queue."""

    remedy = "Join the queue; the card shows when your turn comes."

    def __init__(self, first: str) -> None:
        super().__init__(md("The GPU is free, but other requests are ahead in the queue: join it (`/gpu queue`)."))
        self.first = first


class LeaseMoved(BotError):
    """The lease to replace is no longer the one that the plan names."""

    remedy = "See who holds the GPU now (`/gpu status`), then request it again."


class Leases:
    """The leases and the queue. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster, slots: int = 1) -> None:
        self._redis, self.slots = redis, slots
        self._claim, self._renew = redis.register_script(_NEXT_FENCE + _CLAIM), redis.register_script(_RENEW)
        self._release, self._replace = redis.register_script(_RELEASE), redis.register_script(_NEXT_FENCE + _REPLACE)
        self._restore, self._join = redis.register_script(_RESTORE), redis.register_script(_JOIN)
        self._records = Records(redis)
        self._leases, self._fence = f"{PREFIX}:leases", f"{PREFIX}:fence"
        self._queue, self._places = f"{PREFIX}:queue", f"{PREFIX}:queue:places"

    async def claim(self, new: Lease, *, floor: int = 0) -> Lease:
        """Take a slot for `new.model` with a new fence above `floor`. Raises GpuBusy with the holder."""
        keys = [self._leases, self._fence, self._queue]
        args = [new.model, new.op, self.slots, _unfenced(new), floor]
        verdict, text = await self._run(self._claim, keys, args)
        if verdict != b"granted":
            await self.held()  # sets unreadable records aside: they do not count as holders
            verdict, text = await self._run(self._claim, keys, args)
        if verdict == b"granted":
            return new.model_copy(update={"fence": int(text), "revision": 0})
        if verdict == b"queued":
            raise GpuQueued(text.decode())
        lease = Lease.model_validate_json(text)
        if verdict == b"busy":
            raise GpuBusy(lease)
        return lease

    async def held(self) -> tuple[Lease, ...]:
        leases = await self._records.fields(self._leases, _LEASE)
        return tuple(sorted(leases.values(), key=lambda lease: lease.fence))

    async def of(self, model: str) -> Lease | None:
        return await self._records.field(self._leases, model, _LEASE)

    async def of_operation(self, op_id: str) -> Lease | None:
        """The lease that this operation claimed, while it is held."""
        return next((lease for lease in await self.held() if lease.op == op_id), None)

    async def change(self, lease: Lease, change: Callable[[Lease], Lease]) -> Lease | None:
        """Renew the lease with this fence; None if it is no longer held under it."""
        while True:  # terminates: a failed round means that another write succeeded
            current = await self.of(lease.model)
            if current is None or current.fence != lease.fence:
                return None
            changed = change(current)
            if changed == current:
                return current
            changed = changed.model_copy(update={"revision": current.revision + 1})
            verdict = await self._run(
                self._renew, [self._leases], [lease.model, lease.fence, current.revision, changed.model_dump_json()]
            )
            if verdict == 1:
                return changed
            if verdict == 0:
                return None

    async def release(self, lease: Lease) -> bool:
        """Release the slot, if it is still held under this fence."""
        return bool(await self._run(self._release, [self._leases], [lease.model, lease.fence]))

    async def replace(self, old: Lease, new: Lease, *, floor: int = 0) -> Lease:
        """Transfer the slot of `old` to `new` in one step; raises LeaseMoved if `old` is no longer held under its
        fence.
        """
        verdict, text = await self._run(
            self._replace,
            [self._leases, self._fence],
            [old.model, old.fence, new.model, new.op, _unfenced(new), floor],
        )
        if verdict == b"moved":
            raise LeaseMoved(
                md(
                    "`{model}` is no longer held by {holder}: it has another holder now.",
                    model=old.model,
                    holder=person(old.holder),
                )
            )
        return Lease.model_validate_json(text)

    async def restore(self, lease: Lease) -> bool:
        """Restore a lease that Redis lost; raises GpuBusy if all slots are held by others."""
        verdict = await self._run(
            self._restore, [self._leases, self._fence], [lease.model, lease.fence, self.slots, lease.model_dump_json()]
        )
        if verdict == -1:
            for holder in await self.held():
                raise GpuBusy(holder)
            return await self.restore(lease)  # the blocking lease has just ended
        return bool(verdict)

    async def join(self, op_id: str) -> int:
        """Join the queue, or keep the place; returns the number of requests ahead."""
        return int(await self._run(self._join, [self._queue, self._places], [op_id]))

    async def leave(self, op_id: str) -> bool:
        return bool(await self._records.typed(self._queue, "zset", lambda: self._redis.zrem(self._queue, op_id)))

    async def queue(self) -> tuple[str, ...]:
        """The queued operations in order."""
        waiting = await self._records.typed(self._queue, "zset", lambda: self._redis.zrange(self._queue, 0, -1))
        return tuple(map(name, waiting))

    async def _run(self, script: AsyncScript, keys: list[str], args: list[Any]) -> Any:
        """Return a script's answer. If a record makes the script fail, set the unreadable ones aside and run it again."""
        try:
            return await self._redis.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            pass  # calling the script loads it
        except ResponseError:
            await self._records.heal(self._queue, "zset")
            for counter in (self._fence, self._places):
                await self._records.number(counter)
            await self.held()
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
        with redis_errors():
            return await script(keys=keys, args=args)


def _unfenced(lease: Lease) -> bytes:
    new = lease.fence == 0 and lease.revision == 0
    unfenced = lease if new else lease.model_copy(update={"fence": 0, "revision": 0})
    return _LEASE.serializer.to_json(unfenced)  # a third of the time of `model_dump_json`: see benchmarks/lease.py
