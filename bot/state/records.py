"""Read stored records. Unreadable records are set aside and reported once, so that they block nothing.

A record may be invalid because of another version of the bot, a manual change in Redis, or a bug. Its value is moved
unchanged to the hash `{stoker}:set-aside`, with its key and the reason. Afterwards the record counts as missing.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as NoAnswer

from bot.errors import Unavailable

PREFIX = "{stoker}"
SET_ASIDE, UNREPORTED = f"{PREFIX}:set-aside", f"{PREFIX}:set-aside:unreported"
FINISHED_KEPT = timedelta(days=30)
"""Time after the end of an operation for which it, its steps and its messages are stored."""
LARGEST = 4 * 2**20
"""Maximum bytes of a record. An operation has some tens of thousands of bytes."""

T = TypeVar("T")
log = structlog.get_logger(__name__)

_READ = """
-- Reads a value, unless it is too long to be sent.
-- KEYS: its key. ARGV: the maximum length in bytes, the field (without one, the key itself has the value).
-- Answer: the value, false if it is missing, its length if it is too long.
local field = ARGV[2]
local length = field and redis.call('HSTRLEN', KEYS[1], field) or not field and redis.call('STRLEN', KEYS[1])
if length > tonumber(ARGV[1]) then return length end
if field then return redis.call('HGET', KEYS[1], field) else return redis.call('GET', KEYS[1]) end
"""

_READ_FIELDS = """
-- Reads the fields of a hash. KEYS: the hash. ARGV: the maximum length of a value in bytes.
-- Answer: the fields whose values are too long to be sent, and the others with their values.
local long, short = {}, {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('HSTRLEN', KEYS[1], field) > tonumber(ARGV[1]) then
    long[#long + 1] = field
  else
    short[#short + 1] = field
    short[#short + 1] = redis.call('HGET', KEYS[1], field)
  end
end
return {long, short}
"""

_MOVE = """
-- Moves a value to the hash of unreadable values, if it has not changed since it was read.
-- KEYS: the value's key, the hash of unreadable values, the list of those that are not reported yet.
-- ARGV: the value's field ('': the key itself has the value), the value's SHA-1 ('': it is too long and was not read), its
-- new name, a description as JSON, the maximum length in bytes.
local value
if ARGV[1] == '' then value = redis.call('GET', KEYS[1]) else value = redis.call('HGET', KEYS[1], ARGV[1]) end
if not value then return 0 end
if ARGV[2] == '' and #value <= tonumber(ARGV[5]) then return 0 end
if ARGV[2] ~= '' and redis.sha1hex(value) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[3], value, ARGV[3] .. ':about', ARGV[4])
redis.call('RPUSH', KEYS[3], ARGV[4])
if ARGV[1] == '' then redis.call('DEL', KEYS[1]) else redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
"""

_MOVE_KEY = """
-- Renames a key that has the wrong type. KEYS: the key, its new name, the list of values that are not reported yet.
-- ARGV: the right type, a description as JSON.
local actual = redis.call('TYPE', KEYS[1]).ok
if actual == 'none' or actual == ARGV[1] then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
"""

_AWAY = (NotConnected, NoAnswer, OSError)


class WrongType(Unavailable):
    """One of the bot's Redis keys has the wrong type. After it is set aside, the command can be retried."""

    remedy = "Nothing: the key is set aside, and the work continues."


@contextmanager
def redis_errors() -> Iterator[None]:
    """Map the errors of the Redis client to Unavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise unavailable(error) from error


def unavailable(error: RedisError | OSError) -> Unavailable:
    """Return the bot's own error for an error of Redis."""
    if "WRONGTYPE" in str(error):
        return WrongType("Redis", str(error))
    # The message in Slack does not contain the address and errno of an unavailable server.
    away = isinstance(error, _AWAY) and not isinstance(error, AuthenticationError | BusyLoadingError)
    return Unavailable("Redis", "" if away else str(error), answered=not away)


class Records:
    """Reads values by key, or by key and field, and parses them."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis
        self._read, self._read_fields = redis.register_script(_READ), redis.register_script(_READ_FIELDS)
        self._move, self._move_key = redis.register_script(_MOVE), redis.register_script(_MOVE_KEY)

    async def text(self, key: str) -> bytes | str | None:
        """Return the value of a key; None if it is missing. A value that is too long is set aside without being read."""
        return await self._read_short(key, "string")

    async def field_text(self, key: str, field: str) -> bytes | str | None:
        """Like `text`, for a field of a hash."""
        return await self._read_short(key, "hash", field)

    async def _read_short(self, key: str, kind: str, *field: str) -> bytes | str | None:
        answer: bytes | str | int | None = await self.run(
            key, kind, lambda: self._read(keys=[key], args=[LARGEST, *field])
        )
        if isinstance(answer, int):
            await self._set_aside_unread(key, *field)
            return None
        return answer

    async def value(self, key: str, of: TypeAdapter[T]) -> T | None:
        """The parsed value of a key; None if it is missing or was set aside."""
        parsed = await self.parse_in_tuple(of, await self.text(key), key)
        return parsed[0] if parsed else None

    async def values(self, keys: list[str], of: TypeAdapter[T]) -> list[T]:
        """Return the values that exist and can be read. A key of another type counts as missing."""
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.getrange(key, 0, LARGEST)
                texts = await pipe.execute(raise_on_error=False) if keys else []
        values: list[T] = []
        for key, text in zip(keys, texts, strict=True):
            if isinstance(text, Exception):
                if "WRONGTYPE" in str(text):
                    continue
                with redis_errors():
                    raise text
            if len(text) > LARGEST:
                await self._set_aside_unread(key)
            elif text and (read := await self.parse_in_tuple(of, text, key)):
                values.append(read[0])
        return values

    async def field(self, key: str, field: str, of: TypeAdapter[T]) -> T | None:
        """The parsed value of a field of a hash; None if it is missing or was set aside."""
        parsed = await self.parse_in_tuple(of, await self.field_text(key, field), key, field)
        return parsed[0] if parsed else None

    async def fields(self, key: str, of: TypeAdapter[T]) -> dict[str, T]:
        """All readable values of a hash by field. The values are parsed."""
        long, short = await self.run(key, "hash", lambda: self._read_fields(keys=[key], args=[LARGEST]))
        for field in long:
            await self._set_aside_unread(key, name(field))
        texts = zip(short[::2], short[1::2], strict=True)
        values = {name(field): await self.parse_in_tuple(of, text, key, name(field)) for field, text in texts}
        return {field: value[0] for field, value in values.items() if value}

    async def run(self, key: str, kind: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Run the command `ask` on a key, and return its answer. A key of another type than `kind` is set aside first."""
        try:
            with redis_errors():
                return await ask()
        except WrongType:
            await self.heal(key, kind)
            with redis_errors():
                return await ask()

    async def parse(
        self, of: TypeAdapter[T], text: bytes | str | None, key: str, field: str = "", *, bare: bool = False
    ) -> T | None:
        """Parse a value. Return None if it is missing or was set aside. A `bare` value is stored without JSON quotes."""
        parsed = await self.parse_in_tuple(of, text, key, field, bare=bare)
        return parsed[0] if parsed else None

    async def parse_in_tuple(
        self, of: TypeAdapter[T], text: bytes | str | None, key: str, field: str = "", *, bare: bool = False
    ) -> tuple[T] | None:
        """Like `parse`, but return the value in a tuple, for a type that includes None."""
        if text is None:
            return None
        raw = text.encode() if isinstance(text, str) else text
        try:
            if len(raw) > LARGEST:
                raise ValueError(f"it has {len(raw)} bytes, and no record of Stoker has more than {LARGEST}")
            return (of.validate_strings(raw.decode()) if bare else of.validate_json(raw),)
        except (ValidationError, ValueError, RecursionError) as error:
            await self.set_aside(key, field, raw, why_unreadable(error))
            return None

    async def set_aside(self, key: str, field: str, raw: bytes, reason: str) -> None:
        """Set a value aside, unless it has changed since it was read as `raw`."""
        digest = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        await self._move_aside(key, field, digest, digest[:12], reason)

    async def _set_aside_unread(self, key: str, field: str = "") -> None:
        reason = f"it is longer than the {LARGEST} bytes that a record of Stoker may have"
        await self._move_aside(key, field, "", f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}", reason)

    async def _move_aside(self, key: str, field: str, digest: str, mark: str, reason: str) -> None:
        description = self._about(key, field, reason)
        with redis_errors():
            moved = await self._move(
                keys=[key, SET_ASIDE, UNREPORTED],
                args=[field, digest, f"{key}#{field}#{mark}", json.dumps(description), LARGEST],
            )
        if moved:
            self._log(description)

    async def heal(self, key: str, kind: str) -> None:
        """Set a key aside unless it has this Redis type: string, hash, list, set, zset or stream."""
        description = self._about(key, "", f"its Redis type is not {kind}")
        with redis_errors():
            moved = await self._move_key(
                keys=[key, f"{SET_ASIDE}:{key}:{int(datetime.now(UTC).timestamp() * 1000)}", UNREPORTED],
                args=[kind, json.dumps(description)],
            )
        if moved:
            self._log(description)

    async def number(self, key: str) -> None:
        """Set a counter aside unless it is a whole number."""
        raw = await self.text(key)
        text = name(raw) if raw is not None else "0"
        if not (text.isdecimal() and len(text) < 17):
            await self.set_aside(key, "", text.encode(), "it is not a whole number of at most 16 digits")

    async def ping(self) -> None:
        with redis_errors():
            await self._redis.ping()

    async def set_aside_count(self) -> int:
        """Return the number of values that are set aside."""
        with redis_errors():
            return int(await self._redis.hlen(SET_ASIDE)) // 2

    async def unreported(self) -> tuple[dict[str, str], ...]:
        """Return the values that were set aside but not reported, each with `at`, `key`, `field` and `why`."""
        with redis_errors():
            texts = await self._redis.lrange(UNREPORTED, 0, 99)
        return tuple(json.loads(text) for text in texts)

    async def mark_reported(self, count: int) -> None:
        """Delete the first `count` entries of the list that `unreported` reads."""
        with redis_errors():
            await self._redis.ltrim(UNREPORTED, count, -1)

    @staticmethod
    def _about(key: str, field: str, reason: str) -> dict[str, str]:
        return {"at": datetime.now(UTC).isoformat(), "key": key, "field": field, "why": reason}

    @staticmethod
    def _log(description: dict[str, str]) -> None:
        log.error("record set aside", key=description["key"], field=description["field"], error=description["why"])


def why_unreadable(error: Exception) -> str:
    """Describe the first error, without the value itself."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        location = ".".join(map(str, first["loc"]))
        return f"{location}: {first['msg']}"[:300] if location else str(first["msg"])[:300]
    return str(error)[:300]


def name(key: object) -> str:
    """Return a key, field or member as text, even if it is not UTF-8."""
    return key.decode(errors="backslashreplace") if isinstance(key, bytes) else str(key)
