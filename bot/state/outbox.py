"""Messages that still have to be written to Slack. They are stored in Redis, so that operations do not wait for Slack."""

import hashlib
from datetime import timedelta
from typing import Any, Literal, cast

from pydantic import BaseModel, TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.values import Message, Moment
from bot.state.records import PREFIX, Records, redis_errors
from bot.text.mrkdwn import Mrkdwn
from bot.views import View

_AT_WORK = timedelta(seconds=12)
"""Time for which a message is reserved for the bot that is writing it. An attempt takes at most ten seconds."""


_DROP_IF = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


class Letter(BaseModel, frozen=True, defer_build=True):
    """One message to post or to change."""

    key: str
    """The identity of the message: a second letter with the same key replaces the first."""
    what: Literal["post", "edit", "revise"]
    """`post` it once for its key; `edit` the message `at`; `revise` the message that was posted for its key, if any."""
    place: str = ""
    """For a post: the channel, or the user for a direct message."""
    text: Mrkdwn
    blocks: tuple[dict[str, Any], ...]
    card: str = ""
    """For a post: the operation whose card is the parent of the message."""
    thread: Message | None = None
    """For a post: the parent message of its thread."""
    notify: tuple[str, ...] = ()
    """For a post in a channel: the users and user groups that are notified if the text mentions them."""
    at: Message | None = None
    question: str = ""
    """For a post that asks a question about a session: the session's operation, so that the buttons can be removed later."""
    written: Moment
    until: Moment
    """The time after which the message is obsolete."""

    @property
    def view(self) -> View:
        return View(text=self.text, blocks=list(self.blocks))

    @property
    def name(self) -> str:
        """The field of the letter in the outbox. An edit has a prefix, so that it does not replace a post."""
        return f"{self.what}:{self.key}" if self.what == "edit" else self.key


_LETTER = TypeAdapter(Letter)


def edit_key(message: Message) -> str:
    """The key of a letter that edits a message."""
    return f"{message.channel}:{message.ts}"


class Outbox:
    """Stores the letters. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)
        self._key, self._drop_if = f"{PREFIX}:outbox", redis.register_script(_DROP_IF)

    async def put(self, letter: Letter) -> None:
        """Store a letter. It replaces a letter of the same name."""
        text = letter.model_dump_json()
        await self._records.run(self._key, "hash", lambda: self._redis.hset(self._key, letter.name, text))

    async def waiting(self) -> tuple[Letter, ...]:
        """All letters that are not written yet, oldest first."""
        letters = await self._records.fields(self._key, _LETTER)
        return tuple(sorted(letters.values(), key=lambda letter: letter.written))

    async def get(self, name: str) -> Letter | None:
        """The letter of this name; None if it was written, or dropped."""
        return await self._records.field(self._key, name, _LETTER)

    async def drop(self, name: str) -> bool:
        """Drop a letter. Returns False if it did not exist: a letter may be withdrawn while it is being written."""
        with redis_errors():
            return bool(await self._redis.hdel(self._key, name))

    async def mark_written(self, letter: Letter) -> None:
        """Drop a letter that was written. If another letter has replaced it in the meantime, that letter is not dropped."""
        with redis_errors():
            stored: Any = await cast("Any", self._redis.hget(self._key, letter.name))
            if stored and _LETTER.validate_json(stored) == letter:
                await self._drop_if(keys=[self._key], args=[letter.name, stored])

    async def reserve(self, name: str) -> bool:
        """Reserve a letter for this bot. Returns False if another bot is writing it."""
        with redis_errors():
            return bool(await self._redis.set(self._lock(name), "1", nx=True, ex=int(_AT_WORK.total_seconds())))

    async def release(self, name: str) -> None:
        """End the reservation of a letter."""
        with redis_errors():
            await self._redis.delete(self._lock(name))

    def _lock(self, name: str) -> str:
        return f"{self._key}:writing:{hashlib.sha256(name.encode()).hexdigest()[:16]}"
