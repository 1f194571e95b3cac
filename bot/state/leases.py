"""The leases of the GPU and the queue, in Redis.

The leases are one hash with a field for each model that holds a slot. The queue is a sorted set. A counter gives each
claim an increasing fence (at least the milliseconds of Redis's clock). Every change is one script that checks the fence
and rejects a stale fence.

Redis may lose data (a restart, a flush, a failover to a replica that missed a write). The lease is therefore also in the
Deployment's annotation: `restore` copies it back, and `floor` keeps the counter above every issued fence.
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
-- Returns a number above every issued fence: above the counter, above the highest fence in the cluster, and at least the
-- time. A failover may lose a claim before its Deployment is marked; because of the time, its fence is not issued again.
local function next_fence(counter, floor)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local counted = tonumber(redis.call('GET', counter) or 0)
  if not counted or counted ~= counted or counted >= 9007199254740992 then counted = 0 end  -- not a valid counter
  local fence = math.max(counted + 1, tonumber(floor) + 1, now)
  redis.call('SET', counter, string.format('%.0f', fence))
  return string.format('%.0f', fence)
end
"""

_CLAIM = """
-- Claims a slot for a model, or returns the lease or the queue that prevents it.
-- Re-entrant: the operation that holds the model's lease gets the unchanged lease.
-- A free slot goes to the first request in the queue. A request outside the queue comes after all of them.
-- KEYS: leases, fence counter, queue.
-- ARGV: model, op, slots, lease JSON with "fence":0, floor (the highest fence in the cluster).
-- Answer: {'granted', fence} | {'held', its own lease} | {'busy', the holder's lease} | {'queued', the first operation}
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
-- Replaces a lease by its changed version, if it has not changed since it was read.
-- KEYS: leases. ARGV: model, fence, revision that was read, new JSON.
-- Answer: 1 written, 0 no longer held under this fence, -1 changed since it was read.
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found then return 0 end
local lease = cjson.decode(found)
if lease.fence ~= tonumber(ARGV[2]) then return 0 end
if lease.revision ~= tonumber(ARGV[3]) then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return 1
"""

_RELEASE = """
-- Releases the slot, if it is still held under this fence.
-- KEYS: leases. ARGV: model, fence.
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found or cjson.decode(found).fence ~= tonumber(ARGV[2]) then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

_REPLACE = """
-- Transfers a slot from one model to another in one step, so that no other request can claim it. Re-entrant, like a claim.
-- KEYS: leases, fence counter. ARGV: old model, old fence, new model, new op, new lease JSON with "fence":0, floor.
-- Answer: {'held', lease} | {'moved', the lease that prevents it, or ''}
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
-- Restores a lease that Redis has lost, from the copy in the Deployment's annotation. An existing lease is not changed,
-- because people with kubectl can write the annotation.
-- KEYS: leases, fence counter. ARGV: model, fence, slots, lease JSON.
-- Answer: 1 restored, 0 nothing to do, -1 other models hold all slots.
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
-- Adds an operation to the end of the queue. An operation that is in the queue keeps its place.
-- KEYS: queue, counter of places. ARGV: op. Answer: the number of operations ahead of it.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[2]), ARGV[1])
end
return redis.call('ZRANK', KEYS[1], ARGV[1])
"""


_LEASE = TypeAdapter(Lease)


class GpuBusy(BotError):
    """Another lease holds the GPU."""

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
    """The lease in the plan is no longer held, so it cannot be replaced."""

    remedy = "See who holds the GPU now (`/gpu status`), then request it again."


class Leases:
    """Changes and reads the leases and the queue. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster, slots: int = 1) -> None:
        self._redis, self.slots = redis, slots
        self._claim, self._renew = redis.register_script(_NEXT_FENCE + _CLAIM), redis.register_script(_RENEW)
        self._release, self._replace = redis.register_script(_RELEASE), redis.register_script(_NEXT_FENCE + _REPLACE)
        self._restore, self._join = redis.register_script(_RESTORE), redis.register_script(_JOIN)
        self._records = Records(redis)
        self._leases, self._fence = f"{PREFIX}:leases", f"{PREFIX}:fence"
        self._queue, self._places = f"{PREFIX}:queue", f"{PREFIX}:queue:places"

    async def claim(self, new: Lease, *, floor: int = 0) -> Lease:
        """Claim a slot for `new.model` with a new fence above `floor`, and return the lease. Idempotent per operation.

        Raises GpuBusy with the holder, or GpuQueued if other requests are ahead in the queue.
        """
        keys = [self._leases, self._fence, self._queue]
        args = [new.model, new.op, self.slots, _unfenced(new), floor]
        verdict, text = await self._run(self._claim, keys, args)
        if verdict != b"granted":
            await self.held()  # sets unreadable records aside, so that they do not count as holders
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
        """The current leases, oldest claim first."""
        leases = await self._records.fields(self._leases, _LEASE)
        return tuple(sorted(leases.values(), key=lambda lease: lease.fence))

    async def of(self, model: str) -> Lease | None:
        """The lease of a model; None if it has none."""
        return await self._records.field(self._leases, model, _LEASE)

    async def of_operation(self, op_id: str) -> Lease | None:
        """The lease that this operation claimed, while it is held."""
        return next((lease for lease in await self.held() if lease.op == op_id), None)

    async def change(self, lease: Lease, change: Callable[[Lease], Lease]) -> Lease | None:
        """Apply a pure change to the newest version of the lease; None if it is no longer held under its fence."""
        while True:  # terminates: an attempt fails only if another write succeeds
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
        """Release the slot if it is still held under this fence; returns whether it was."""
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
        """Restore a lease that Redis lost; returns False if it exists. Raises GpuBusy if other models hold all slots."""
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
        """Leave the queue; returns whether the operation was in it."""
        return bool(await self._records.run(self._queue, "zset", lambda: self._redis.zrem(self._queue, op_id)))

    async def queue(self) -> tuple[str, ...]:
        """The queued operations in order."""
        waiting = await self._records.run(self._queue, "zset", lambda: self._redis.zrange(self._queue, 0, -1))
        return tuple(map(name, waiting))

    async def _run(self, script: AsyncScript, keys: list[str], args: list[Any]) -> Any:
        """Run a script and return its answer. If a record makes it fail, set unreadable records aside and run it again."""
        try:
            try:
                return await self._redis.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:  # calling the script loads it
                return await script(keys=keys, args=args)
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
    return _LEASE.serializer.to_json(unfenced)  # three times as fast as `model_dump_json`: see benchmarks/lease.py
