"""The single place that decides who holds the GPU.

One hash in Redis, a field per model that holds a slot, so that N slots are N fields; a sorted set with those who wait;
and a counter that gives each claim a fencing number that only grows (milliseconds of Redis's clock, at least). Every change is one script, and a change names the
fence that it is made under: who has an older one changes nothing.

What Redis may lose (a restart, a flush, a failover to a replica that missed a write) is held a second time by the
Deployment's annotation; `restore` puts it back, and `floor` keeps the counter above every fence that was ever given.
"""

from collections.abc import Callable

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain import Lease
from bot.errors import BotError
from bot.store import PREFIX, redis_errors

_NEXT_FENCE = """
-- A number above every fence that was ever given: above the counter, above what the cluster knows, and not below the
-- time, so that a claim which a failover lost, before its Deployment was marked, does not have its number given again.
local function next_fence(counter, floor)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local fence = math.max(tonumber(redis.call('GET', counter) or 0) + 1, tonumber(floor) + 1, now)
  redis.call('SET', counter, string.format('%.0f', fence))
  return string.format('%.0f', fence)
end
"""

_CLAIM = """
-- Claims a slot for a model, or returns what stands in the way.
-- Re-entrant: the operation that holds the model's lease gets it back as it is.
-- First come, first served: a free slot goes to the head of the queue; who is not in it stands behind everybody.
-- KEYS: leases, fence counter, queue.
-- ARGV: model, op, slots, lease JSON with "fence":0, floor (the highest fence that the cluster knows).
-- Answer: {'held', lease} | {'busy', lease of the holder} | {'queued', operation that is first}
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
return {'held', lease}
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
-- Answer: {'held', lease} | {'moved', whoever stands in the way, or ''}
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
-- Puts back a lease that Redis has lost, from the copy that the Deployment carries: the newer of the two stays.
-- KEYS: leases, fence counter. ARGV: model, fence, revision, slots, lease JSON.
-- Answer: 1 put back, 0 nothing to do, -1 somebody else holds the slot.
local fence = tonumber(ARGV[2])
if fence > tonumber(redis.call('GET', KEYS[2]) or 0) then redis.call('SET', KEYS[2], ARGV[2]) end
local found = redis.call('HGET', KEYS[1], ARGV[1])
if found then
  local lease = cjson.decode(found)
  if lease.fence > fence or (lease.fence == fence and lease.revision >= tonumber(ARGV[3])) then return 0 end
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[5])
return 1
"""

_JOIN = """
-- Takes a place at the end of the queue; who is in it keeps the place.
-- KEYS: queue, counter of places. ARGV: op. Answer: how many are ahead.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[2]), ARGV[1])
end
return redis.call('ZRANK', KEYS[1], ARGV[1])
"""


class GpuBusy(BotError):
    """Somebody else holds the GPU."""

    remedy = "Queue, ask the holder, or ask for a replacement: the card has a button for each."

    def __init__(self, holder: Lease) -> None:
        super().__init__(
            f"The GPU is taken: `{holder.model}` is held by <@{holder.holder}>"
            f" since {holder.claimed:%H:%M} UTC{' for “' + holder.reason + '”' if holder.reason else ''}."
            " Ask them, or wait until it is down (`/gpu status`)."
        )
        self.holder = holder


class GpuQueued(BotError):
    """The GPU is free, but others have waited for it longer."""

    remedy = "Queue too; the card says when your turn comes."

    def __init__(self, first: str) -> None:
        super().__init__("The GPU is free, but others are waiting for it: queue behind them (`/gpu queue`).")
        self.first = first


class LeaseMoved(BotError):
    """The lease that was to be replaced is no longer the one that was seen."""

    remedy = "Look who holds the GPU now (`/gpu status`) and ask again."


class Leases:
    """The leases and the queue. Every method raises Unavailable when Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster, slots: int = 1) -> None:
        self._redis, self.slots = redis, slots
        self._claim, self._renew = redis.register_script(_NEXT_FENCE + _CLAIM), redis.register_script(_RENEW)
        self._release, self._replace = redis.register_script(_RELEASE), redis.register_script(_NEXT_FENCE + _REPLACE)
        self._restore, self._join = redis.register_script(_RESTORE), redis.register_script(_JOIN)
        self._leases, self._fence = f"{PREFIX}:leases", f"{PREFIX}:fence"
        self._queue, self._places = f"{PREFIX}:queue", f"{PREFIX}:queue:places"

    async def claim(self, wanted: Lease, *, floor: int = 0) -> Lease:
        """Take a slot for `wanted.model`; the fence is given here, above `floor`. GpuBusy names the holder."""
        with redis_errors():
            verdict, text = await self._claim(
                keys=[self._leases, self._fence, self._queue],
                args=[wanted.model, wanted.op, self.slots, _unfenced(wanted), floor],
            )
        if verdict == b"queued":
            raise GpuQueued(text.decode())
        lease = Lease.model_validate_json(text)
        if verdict == b"busy":
            raise GpuBusy(lease)
        return lease

    async def held(self) -> tuple[Lease, ...]:
        with redis_errors():
            values = await self._redis.hvals(self._leases)
        return tuple(sorted((Lease.model_validate_json(v) for v in values), key=lambda lease: lease.fence))

    async def of(self, model: str) -> Lease | None:
        with redis_errors():
            text = await self._redis.hget(self._leases, model)
        return Lease.model_validate_json(text) if text else None

    async def of_operation(self, op_id: str) -> Lease | None:
        """The lease that this operation claimed, as long as it is held."""
        return next((lease for lease in await self.held() if lease.op == op_id), None)

    async def change(self, lease: Lease, change: Callable[[Lease], Lease]) -> Lease | None:
        """Renew the lease with this fence; None when it is no longer held under it."""
        while True:  # ends: a round that loses has let somebody else's change win
            current = await self.of(lease.model)
            if current is None or current.fence != lease.fence:
                return None
            changed = change(current)
            if changed == current:
                return current
            changed = changed.model_copy(update={"revision": current.revision + 1})
            with redis_errors():
                verdict = await self._renew(
                    keys=[self._leases],
                    args=[lease.model, lease.fence, current.revision, changed.model_dump_json()],
                )
            if verdict == 1:
                return changed
            if verdict == 0:
                return None

    async def release(self, lease: Lease) -> bool:
        """Give the slot back, if it is still held under this fence."""
        with redis_errors():
            return bool(await self._release(keys=[self._leases], args=[lease.model, lease.fence]))

    async def replace(self, old: Lease, wanted: Lease, *, floor: int = 0) -> Lease:
        """Hand the slot of `old` to `wanted` in one step; LeaseMoved when `old` is no longer held under its fence."""
        with redis_errors():
            verdict, text = await self._replace(
                keys=[self._leases, self._fence],
                args=[old.model, old.fence, wanted.model, wanted.op, _unfenced(wanted), floor],
            )
        if verdict == b"moved":
            raise LeaseMoved(f"`{old.model}` is no longer held by <@{old.holder}>: it changed hands meanwhile.")
        return Lease.model_validate_json(text)

    async def restore(self, lease: Lease) -> bool:
        """Put back a lease that Redis lost, or knows in an older version; GpuBusy when all slots are held by others."""
        with redis_errors():
            verdict = await self._restore(
                keys=[self._leases, self._fence],
                args=[lease.model, lease.fence, lease.revision, self.slots, lease.model_dump_json()],
            )
        if verdict == -1:
            for holder in await self.held():
                raise GpuBusy(holder)
            return await self.restore(lease)  # who was in the way has just gone
        return bool(verdict)

    async def join(self, op_id: str) -> int:
        """Queue up, or keep the place; returns how many are ahead."""
        with redis_errors():
            return int(await self._join(keys=[self._queue, self._places], args=[op_id]))

    async def leave(self, op_id: str) -> bool:
        with redis_errors():
            return bool(await self._redis.zrem(self._queue, op_id))

    async def queue(self) -> tuple[str, ...]:
        """The operations that wait, first come first."""
        with redis_errors():
            waiting: list[bytes] = await self._redis.zrange(self._queue, 0, -1)  # type: ignore[assignment]
        return tuple(op.decode() for op in waiting)


def _unfenced(wanted: Lease) -> str:
    return wanted.model_copy(update={"fence": 0, "revision": 0}).model_dump_json()
