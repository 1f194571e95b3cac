"""The single place that decides who holds the GPU.

One hash in Redis, a field per model that holds a slot, so that N slots are N fields; every change is one
script, and a counter beside it gives each claim a fencing number that only grows.
"""

from collections.abc import Callable

from redis.asyncio import Redis

from bot.domain import Lease
from bot.errors import BotError
from bot.store import PREFIX, redis_errors

_CLAIM = """
-- Claims a slot for a model, or returns what stands in the way.
-- Re-entrant: the operation that holds the model's lease gets it back as it is.
-- KEYS: leases, fence counter. ARGV: model, op, slots, lease JSON without its fence.
-- Answer: {'held', lease} | {'busy', lease of the holder}
local own = redis.call('HGET', KEYS[1], ARGV[1])
if own then
  if cjson.decode(own).op == ARGV[2] then return {'held', own} end
  return {'busy', own}
end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return {'busy', redis.call('HVALS', KEYS[1])[1]}
end
local fence = redis.call('INCR', KEYS[2])
local lease = string.gsub(ARGV[4], '"fence":0', '"fence":' .. fence, 1)
redis.call('HSET', KEYS[1], ARGV[1], lease)
return {'held', lease}
"""

_REPLACE = """
-- Changes or (empty new value) releases a lease, only if it is still the very one that was read.
-- A worker with an older fence, or with an older view of the same lease, changes nothing.
-- KEYS: leases. ARGV: model, JSON that was read, new JSON or ''.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
"""


class GpuBusy(BotError):
    """Somebody else holds the GPU."""

    def __init__(self, holder: Lease) -> None:
        super().__init__(
            f"The GPU is taken: `{holder.model}` is held by <@{holder.holder}>"
            f" since {holder.claimed:%H:%M} UTC{' for “' + holder.reason + '”' if holder.reason else ''}."
            " Ask them, or wait until it is down (`/gpu status`)."
        )
        self.holder = holder


class Leases:
    def __init__(self, redis: Redis, slots: int = 1) -> None:
        self._redis, self._slots = redis, slots
        self._claim, self._replace = redis.register_script(_CLAIM), redis.register_script(_REPLACE)
        self._keys = [f"{PREFIX}:leases", f"{PREFIX}:fence"]

    async def claim(self, wanted: Lease) -> Lease:
        """Take a slot for `wanted.model` in one atomic step; GpuBusy names the holder. The fence is given here."""
        unfenced = wanted.model_copy(update={"fence": 0})
        with redis_errors():
            verdict, text = await self._claim(
                keys=self._keys, args=[wanted.model, wanted.op, self._slots, unfenced.model_dump_json()]
            )
        lease = Lease.model_validate_json(text)
        if verdict == b"busy":
            raise GpuBusy(lease)
        return lease

    async def held(self) -> tuple[Lease, ...]:
        with redis_errors():
            values = await self._redis.hvals(self._keys[0])
        return tuple(sorted((Lease.model_validate_json(v) for v in values), key=lambda lease: lease.fence))

    async def of(self, model: str) -> Lease | None:
        with redis_errors():
            text = await self._redis.hget(self._keys[0], model)
        return Lease.model_validate_json(text) if text else None

    async def change(self, lease: Lease, change: Callable[[Lease], Lease]) -> Lease | None:
        """Change the lease with this fence; None when it is no longer held."""
        return await self._swap(lease, change)

    async def release(self, lease: Lease) -> bool:
        """Give the slot back, if it is still held under this fence."""
        return await self._swap(lease, lambda _: None) is not None

    async def _swap(self, lease: Lease, change: Callable[[Lease], Lease | None]) -> Lease | None:
        while True:  # ends: a round that loses has let somebody else's change win
            with redis_errors():
                read = await self._redis.hget(self._keys[0], lease.model)
            if read is None:
                return None
            current = Lease.model_validate_json(read)
            if current.fence != lease.fence:
                return None
            changed = change(current)
            new = changed.model_dump_json() if changed else ""
            with redis_errors():
                if await self._replace(keys=self._keys[:1], args=[lease.model, read, new]):
                    return changed or current
