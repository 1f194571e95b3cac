"""Store operations. Each write is a compare-and-set, together with the entry in the audit log."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar, cast, overload
from weakref import WeakValueDictionary

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.events import AuditEvent
from bot.domain.operations import OPERATION, Operation
from bot.errors import BotError
from bot.state.audit import AUDIT, transition_entry
from bot.state.records import FINISHED_KEPT, PREFIX, Records, WrongType, name, redis_errors

_OPEN, _UNDELIVERED = f"{PREFIX}:ops:open", f"{PREFIX}:ops:untold"
Op = TypeVar("Op", bound=Operation)

_SAVE = """
-- Writes an operation if its version has not changed since it was read. The same atomic step updates the set of open
-- operations and appends to the audit log, so that each transition is logged exactly once.
-- KEYS: operation, set of open operations, audit stream, set of all operations, set of ended operations whose cards do not
-- show the end yet.
-- ARGV: version read (-1: must not exist), new JSON, id, time of the request, 'open'|'final', audit JSON,
-- seconds to keep a finished operation, seconds to keep an audit entry.
local current = redis.call('GET', KEYS[1])
local version = -1
if current then
  local read, known = pcall(cjson.decode, current)
  if not read or type(known) ~= 'table' then return 2 end  -- unreadable: the caller sets it aside
  version = known.version
end
if version ~= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[3])
if ARGV[5] == 'final' then
  redis.call('ZREM', KEYS[2], ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[7])
  redis.call('SADD', KEYS[5], ARGV[3])
else
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
end
if ARGV[6] ~= '' then
  local oldest = string.format('%d', (redis.call('TIME')[1] - ARGV[8]) * 1000)
  redis.call('XADD', KEYS[3], 'MINID', '~', oldest, '*', 'entry', ARGV[6])
end
return 1
"""


class OperationNotFound(BotError):
    """Redis has no operation with this id: the operation is too old, or Redis lost its data."""

    remedy = "Request it again: the operation is too old, so its record was deleted, or Redis lost its data."

    def __init__(self, op_id: str) -> None:
        super().__init__(
            f"Stoker no longer has a record of request {op_id}: it ended long ago, or Redis lost its data. Request it again."
        )


class Operations:
    """Stores and loads operations. Every method raises Unavailable if Redis does not answer."""

    def __init__(
        self,
        redis: Redis | RedisCluster,
        *,
        audit_kept: timedelta = timedelta(days=365),
        observe: Callable[[Operation | None, Operation], None] = lambda _before, _after: None,
    ) -> None:
        """`observe` is called once for each write, with the operation before the write (None if it is new) and after
        it.
        """
        self._redis, self._audit_kept, self._observe = redis, audit_kept, observe
        self._records = Records(redis)
        self._save = redis.register_script(_SAVE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, op_id: str) -> asyncio.Lock:
        """The lock for the work on an operation in this process.

        It is necessary because docket delivers a task again, even to the same process, if its worker does not renew its
        hold for some seconds.
        """
        return self._turns.setdefault(op_id, asyncio.Lock())

    async def create(self, op: Op) -> Op:
        """Store a new operation, or return the one that an earlier delivery of the same request created."""
        while not await self._write(op, read_version=-1, event=AuditEvent.REQUESTED):
            try:
                return cast("Op", await self.load(op.id))  # the same request, so the same type
            except OperationNotFound:  # it was unreadable and has been set aside
                continue
        self._observe(None, op)
        return op

    @overload
    async def load(self, op_id: str) -> Operation: ...

    @overload
    async def load(self, op_id: str, of: type[Op]) -> Op: ...

    async def load(self, op_id: str, of: type[Operation] = Operation) -> Operation:
        """The operation; raises OperationNotFound if it does not exist or has another type than `of`."""
        op = await self._records.value(f"{PREFIX}:op:{op_id}", OPERATION)
        if not isinstance(op, of):
            raise OperationNotFound(op_id)
        return op

    async def is_open(self, op_id: str) -> bool:
        """Return whether the operation exists and has not ended."""
        try:
            return not (await self.load(op_id)).status.final
        except OperationNotFound:
            return False

    async def update(
        self,
        op_id: str,
        change: Callable[[Op], Op],
        event: AuditEvent | None = None,
        *,
        actor: str = "",
        reason: str = "",
    ) -> Op:
        """Apply a pure change to the newest version. If `change` raises, nothing is written.

        `change` may take a subclass of Operation if the operation has that type, which never changes. `event` is logged
        in the same step; without it, nothing is logged. `actor` defaults to the requester (or the person who cancelled),
        `reason` to the reason in the operation.
        """
        while True:  # terminates: an attempt fails only if another write succeeds
            op = cast("Op", await self.load(op_id))
            changed = change(op)
            if changed == op:
                return op
            changed = changed.model_copy(update={"version": op.version + 1})
            if await self._write(changed, read_version=op.version, event=event, actor=actor, reason=reason):
                self._observe(op, changed)
                return changed

    async def _write(
        self, op: Operation, *, read_version: int, event: AuditEvent | None, actor: str = "", reason: str = ""
    ) -> bool:
        keys = {
            f"{PREFIX}:op:{op.id}": "string",
            _OPEN: "zset",
            AUDIT: "stream",
            f"{PREFIX}:ops": "zset",
            _UNDELIVERED: "set",
        }
        args: list[str | int | float] = [
            read_version,
            op.model_dump_json(),
            op.id,
            op.request.at.timestamp(),
            "final" if op.status.final else "open",
            transition_entry(op, event, actor, reason) if event else "",
            int(FINISHED_KEPT.total_seconds()),
            int(self._audit_kept.total_seconds()),
        ]
        try:
            with redis_errors():
                return bool(await self._save(keys=list(keys), args=args) == 1)
        except WrongType:
            for key, kind in keys.items():
                await self._records.heal(key, kind)
            return False  # the caller reads again

    @overload
    async def open(self, *, model: str | None = ...) -> list[Operation]: ...

    @overload
    async def open(self, of: type[Op], model: str | None = ...) -> list[Op]: ...

    async def open(self, of: type[Operation] = Operation, model: str | None = None) -> Sequence[Operation]:
        """The operations that have not ended, oldest first; with `of` or `model`, only those of a type or a model."""
        ids = await self._records.run(_OPEN, "zset", lambda: self._redis.zrange(_OPEN, 0, -1))
        return [
            op
            for op in await self._all([name(op_id) for op_id in ids])
            if isinstance(op, of) and (model is None or op.request.model == model)
        ]

    async def undelivered_ends(self) -> list[Operation]:
        """The operations that have ended and whose cards may not show it yet."""
        ids = await self._records.run(_UNDELIVERED, "set", lambda: self._redis.smembers(_UNDELIVERED))
        return await self._all(sorted(map(name, ids)))

    async def mark_delivered(self, op_id: str) -> None:
        """Record that the card of an ended operation shows the end."""
        with redis_errors():
            await self._redis.srem(_UNDELIVERED, op_id)

    async def _all(self, ids: list[str]) -> list[Operation]:
        """The operations with these ids that exist. The others are removed from the sets of ids."""
        operations = await self._records.values([f"{PREFIX}:op:{op_id}" for op_id in ids], OPERATION)
        if lost := set(ids) - {op.id for op in operations}:
            with redis_errors():
                await self._redis.zrem(_OPEN, *lost)
                await self._redis.srem(_UNDELIVERED, *lost)
        return operations
