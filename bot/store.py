"""What Stoker remembers: operations with compare-and-set, their step ledger, posted messages, the audit log.

Everything lives in Redis under one hash tag, so that a script may touch several keys on a cluster too.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from opentelemetry import trace
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as NoAnswer

from bot.domain import Alert, Kind, Lease, Message, Operation, SmokeOutcome, WeekPicture
from bot.errors import BotError, Unavailable

PREFIX = "{stoker}"
_FINISHED_KEPT = timedelta(days=30)
_VIEWERS, _VIEWERS_KEPT = 100, timedelta(days=7)
"""Home is kept up to date for this many people at most, and for so long after they last opened it."""
_AUDIT_PAGE = 500

T = TypeVar("T")
_tracer = trace.get_tracer("stoker")

_SAVE = """
-- Writes an operation only over the version that was read; keeps the set of open ones and the audit log with it,
-- in the same atomic step, so that each transition is logged exactly once.
-- KEYS: operation, open set, audit stream, all set, set of ends not yet told. ARGV: version read (-1: must not exist), new JSON, id,
-- time of the request, 'open'|'final', audit JSON, seconds to keep a finished one, seconds to keep an audit entry.
local current = redis.call('GET', KEYS[1])
local version = current and cjson.decode(current).version or -1
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


class Forgotten(BotError):
    """An operation that Redis does not know: lost with its data, or older than what is kept."""

    remedy = "Ask again: the request is older than what is kept, or Redis lost its data."

    def __init__(self, op_id: str) -> None:
        super().__init__(f"I no longer know request {op_id}: it is over for long, or Redis lost its data. Ask again.")


_AWAY = (NotConnected, NoAnswer, OSError)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Redis's own errors, in our words."""
    try:
        yield
    except (RedisError, OSError) as error:
        # Of a server that is away, the address and errno tell a person in Slack nothing.
        away = isinstance(error, _AWAY) and not isinstance(error, AuthenticationError)
        raise Unavailable("Redis", "" if away else str(error)) from error


class Store:
    def __init__(
        self,
        redis: Redis | RedisCluster,
        *,
        audit_kept: timedelta = timedelta(days=365),
        observe: Callable[[Operation | None, Operation], None] = lambda _before, _after: None,
    ) -> None:
        """`observe` hears of each operation that was written, once: as it was, and as it is."""
        self._redis, self._audit_kept, self._observe = redis, audit_kept, observe
        self._save = redis.register_script(_SAVE)

    async def create(self, op: Operation) -> Operation:
        """Remember a new operation, or return the one that an earlier delivery of the same request made."""
        if not await self._write(op, read=-1, event="requested"):
            return await self.load(op.id)
        self._observe(None, op)
        return op

    async def load(self, op_id: str) -> Operation:
        with redis_errors():
            text = await self._redis.get(f"{PREFIX}:op:{op_id}")
        if text is None:
            raise Forgotten(op_id)
        return Operation.model_validate_json(text)

    async def is_open(self, op_id: str) -> bool:
        """Whether an operation is known and not over."""
        try:
            return not (await self.load(op_id)).status.final
        except Forgotten:
            return False

    async def update(
        self, op_id: str, change: Callable[[Operation], Operation], event: str = "", *, who: str = "", why: str = ""
    ) -> Operation:
        """Apply a pure change to the newest version; what `change` raises passes through and nothing is written.

        `event` goes to the audit log in the same step; without one, nothing is logged. `who` caused it and `why`, where
        that is not whoever asked for the operation (or cancelled it), and for its reason.
        """
        while True:  # ends: each round that loses has let somebody else's write win
            op = await self.load(op_id)
            changed = change(op)
            if changed == op:
                return op
            changed = changed.model_copy(update={"version": op.version + 1})
            if await self._write(changed, read=op.version, event=event, who=who, why=why):
                self._observe(op, changed)
                return changed

    async def _write(self, op: Operation, *, read: int, event: str, who: str = "", why: str = "") -> bool:
        audit = ""
        if event:
            audit = json.dumps(
                {
                    "at": op.updated.isoformat(),
                    "event": event,
                    "op": op.id,
                    "what": op.request.kind,
                    "model": op.request.model,
                    "who": who or op.cancelled_by or op.request.actor or "stoker",
                    "status": op.status,
                    "why": why or op.outcome or op.failure or op.request.reason,
                    "commit": op.plan.commit if op.plan else "",
                }
            )
        with redis_errors():
            return bool(
                await self._save(
                    keys=[
                        f"{PREFIX}:op:{op.id}",
                        f"{PREFIX}:ops:open",
                        f"{PREFIX}:audit",
                        f"{PREFIX}:ops",
                        f"{PREFIX}:ops:untold",
                    ],
                    args=[
                        read,
                        op.model_dump_json(),
                        op.id,
                        op.request.at.timestamp(),
                        "final" if op.status.final else "open",
                        audit,
                        int(_FINISHED_KEPT.total_seconds()),
                        int(self._audit_kept.total_seconds()),
                    ],
                )
            )

    async def open(self, kind: Kind | None = None, model: str | None = None) -> list[Operation]:
        """The operations that are not over, oldest first."""
        with redis_errors():
            ids = await self._redis.zrange(f"{PREFIX}:ops:open", 0, -1)
        found = await self._all([_text(i) for i in ids])
        return [
            op
            for op in found
            if (kind is None or op.request.kind is kind) and (model is None or op.request.model == model)
        ]

    async def untold(self) -> list[Operation]:
        """The operations whose end is not known to have reached Slack."""
        with redis_errors():
            ids = await self._redis.smembers(f"{PREFIX}:ops:untold")
        return await self._all(sorted(map(_text, ids)))

    async def note_told(self, op_id: str) -> None:
        with redis_errors():
            await self._redis.srem(f"{PREFIX}:ops:untold", op_id)

    async def _all(self, ids: list[str]) -> list[Operation]:
        """The operations with these ids that are still remembered."""
        with redis_errors():
            texts = await self._redis.mget([f"{PREFIX}:op:{op_id}" for op_id in ids]) if ids else []
        return [Operation.model_validate_json(text) for text in texts if text]

    async def audit(self, since: datetime | None = None) -> AsyncIterator[dict[str, str]]:
        """The audit log, oldest first; `since` leaves out what is older."""
        start = str(int(since.timestamp() * 1000)) if since else "-"
        while True:
            with redis_errors():
                rows = await self._redis.xrange(f"{PREFIX}:audit", min=start, count=_AUDIT_PAGE) or []
            for _, fields in rows:
                yield json.loads((fields or {})[b"entry"])
            if len(rows) < _AUDIT_PAGE:
                return
            start = f"({_text(rows[-1][0])}"

    async def note_refusal(self, op: Operation, actor: str, what: str, why: str, at: datetime) -> None:
        """A click that policy refused; it changes nothing, so it is noted by itself."""
        entry = {"at": at.isoformat(), "event": "refused", "op": op.id, "what": what, "model": op.request.model}
        await self._note(entry | {"who": actor, "status": str(op.status), "why": why, "commit": ""})

    async def note_decision(self, op: Operation, actor: str, what: str, why: str, at: datetime) -> None:
        """What somebody decided below an operation's message, beside its own course: it leaves the operation as it is."""
        entry = {"at": at.isoformat(), "event": what, "op": op.id, "what": op.request.kind, "model": op.request.model}
        commit = op.plan.commit if op.plan else ""
        await self._note(entry | {"who": actor, "status": str(op.status), "why": why, "commit": commit})

    async def note_lease(self, lease: Lease, event: str, who: str, why: str, at: datetime) -> None:
        """What was done about a session without an operation of its own: a reminder, a warning, a keep."""
        entry = {"at": at.isoformat(), "event": event, "op": lease.op, "what": "lease", "model": lease.model}
        await self._note(entry | {"who": who or "stoker", "status": "", "why": why, "commit": lease.commit})

    async def _note(self, entry: dict[str, str]) -> None:
        with redis_errors():
            await self._redis.xadd(f"{PREFIX}:audit", {"entry": json.dumps(entry)})

    async def once(
        self, op_id: str, name: str, act: Callable[[], Awaitable[T]], returns: type[T] | TypeAdapter[T]
    ) -> T:
        """Do a step of an operation unless an earlier run finished it; returns what that run returned.

        `returns` is the type of that, or the adapter of a union, which is no `type[T]`. A crash between the act and the note repeats the act, so an act looks first and then acts.
        """
        key = f"{PREFIX}:op:{op_id}:steps"
        adapter = returns if isinstance(returns, TypeAdapter) else TypeAdapter[T](returns)
        with redis_errors():
            noted = await self._redis.hget(key, name)
        if noted is not None:
            return adapter.validate_json(noted)
        with _tracer.start_as_current_span(name, attributes={"stoker.op": op_id}):
            result = await act()
        step = {"at": datetime.now(UTC).isoformat(), "event": "step", "op": op_id, "what": name, "who": "stoker"}
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, name, adapter.dump_json(result))
                pipe.xadd(f"{PREFIX}:audit", {"entry": json.dumps(step)})
                pipe.expire(key, int(_FINISHED_KEPT.total_seconds()))
                await pipe.execute()
        return result

    async def done(self, op_id: str, name: str, returns: type[T]) -> T | None:
        """What a step returned that is finished; None where it is not, or is no longer remembered."""
        with redis_errors():
            noted = await self._redis.hget(f"{PREFIX}:op:{op_id}:steps", name)
        return None if noted is None else TypeAdapter[T](returns).validate_json(noted)

    async def forget_step(self, op_id: str, name: str) -> None:
        with redis_errors():
            await self._redis.hdel(f"{PREFIX}:op:{op_id}:steps", name)

    async def intend_message(self, key: str, now: datetime) -> Message | datetime | None:
        """Note that a message is about to be posted.

        None: nobody tried before. A time: somebody did, then, and it is not known whether it arrived.
        A Message: it was posted.
        """
        name = f"{PREFIX}:message:{key}"
        with redis_errors():
            first = await self._redis.set(name, now.isoformat(), nx=True, ex=int(_FINISHED_KEPT.total_seconds()))
            if first:
                return None
            noted = _text(await self._redis.get(name) or now.isoformat())
        return Message.model_validate_json(noted) if noted.startswith("{") else datetime.fromisoformat(noted)

    async def message(self, key: str) -> Message | None:
        """The message that is known to have been posted."""
        with redis_errors():
            noted = _text(await self._redis.get(f"{PREFIX}:message:{key}") or "")
        return Message.model_validate_json(noted) if noted.startswith("{") else None

    async def note_message(self, key: str, message: Message) -> None:
        with redis_errors():
            await self._redis.set(
                f"{PREFIX}:message:{key}", message.model_dump_json(), ex=int(_FINISHED_KEPT.total_seconds())
            )

    async def forget_message(self, key: str) -> None:
        with redis_errors():
            await self._redis.delete(f"{PREFIX}:message:{key}")

    async def note_viewer(self, user: str, now: datetime) -> None:
        """Somebody opened Home."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(f"{PREFIX}:home:viewers", {user: now.timestamp()})
                pipe.hdel(f"{PREFIX}:home:shown", user)
                await pipe.execute()

    async def viewers(self, now: datetime) -> tuple[str, ...]:
        """Who opened Home lately, the latest first; who has not for long is forgotten."""
        key, oldest = f"{PREFIX}:home:viewers", (now - _VIEWERS_KEPT).timestamp()
        with redis_errors():
            await self._redis.zremrangebyscore(key, "-inf", oldest)
            found = await self._redis.zrange(key, 0, _VIEWERS - 1, desc=True)
        return tuple(map(_text, found))

    async def home_changed(self, user: str, digest: str) -> bool:
        """Note what Home shows a user; whether it is something else than before."""
        key = f"{PREFIX}:home:shown"
        with redis_errors():
            before = await self._redis.hget(key, user)
            await self._redis.hset(key, user, digest)
        return before is None or _text(before) != digest

    async def week_picture(self) -> WeekPicture | None:
        """What the last attempt to draw the week came to."""
        with redis_errors():
            noted = await self._redis.get(f"{PREFIX}:home:picture")
        return WeekPicture.model_validate_json(noted) if noted else None

    async def keep_week_picture(self, picture: WeekPicture) -> None:
        with redis_errors():
            await self._redis.set(f"{PREFIX}:home:picture", picture.model_dump_json())

    async def note_file(self, file_id: str) -> None:
        """Note a file before it is there, so that a crash leaves none that nobody deletes."""
        with redis_errors():
            await self._redis.sadd(f"{PREFIX}:home:files", file_id)

    async def files(self) -> tuple[str, ...]:
        """The files noted and not yet forgotten."""
        with redis_errors():
            return tuple(sorted(map(_text, await self._redis.smembers(f"{PREFIX}:home:files"))))

    async def forget_file(self, file_id: str) -> None:
        with redis_errors():
            await self._redis.srem(f"{PREFIX}:home:files", file_id)

    async def first(self, what: str) -> bool:
        """Whether this is the first time that this is asked; it is remembered for an hour, longer than Slack redelivers."""
        with redis_errors():
            return bool(await self._redis.set(f"{PREFIX}:first:{what}", "1", nx=True, ex=3600))

    async def raise_alert(self, about: str, now: datetime) -> Alert:
        """Note that something is wrong, or return the alert that is already up about it."""
        key, alert = f"{PREFIX}:alerts", Alert(about=about, since=now)
        with redis_errors():
            if await self._redis.hsetnx(key, about, alert.model_dump_json()):
                return alert
            noted = await self._redis.hget(key, about)
        return Alert.model_validate_json(noted) if noted else alert

    async def alerts(self) -> tuple[Alert, ...]:
        with redis_errors():
            noted = await self._redis.hvals(f"{PREFIX}:alerts")
        return tuple(Alert.model_validate_json(text) for text in noted)

    async def clear_alert(self, about: str) -> None:
        with redis_errors():
            await self._redis.hdel(f"{PREFIX}:alerts", about)

    async def note_smoke(self, model: str, run: SmokeOutcome) -> None:
        """Remember the outcome of an endpoint's last smoke tests."""
        with redis_errors():
            await self._redis.hset(f"{PREFIX}:smoke", model, run.model_dump_json())

    async def smoke_runs(self) -> dict[str, SmokeOutcome]:
        """The last smoke tests of each endpoint that had any, by its name."""
        with redis_errors():
            noted = await self._redis.hgetall(f"{PREFIX}:smoke")
        return {_text(model): SmokeOutcome.model_validate_json(text) for model, text in noted.items()}

    async def note_reconciled(self, now: datetime) -> None:
        """Leases, Deployments and pods have been compared; that it still happens is watched."""
        with redis_errors():
            await self._redis.set(f"{PREFIX}:reconciled", now.isoformat())

    async def reconciled(self) -> datetime | None:
        with redis_errors():
            noted = await self._redis.get(f"{PREFIX}:reconciled")
        return datetime.fromisoformat(_text(noted)) if noted else None

    async def ping(self) -> None:
        with redis_errors():
            await self._redis.ping()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
