"""Store the settings from the repository's `.stoker.yaml` that are in use, and the open set-up."""

from pydantic import BaseModel, TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.values import Moment
from bot.state.records import PREFIX, Records, redis_errors

_CHANGE = """
-- Changes or deletes the record of a set-up, unless another set-up has replaced it.
-- KEYS: the record. ARGV: the id of the set-up, its new record ('' to delete it).
local value = redis.call('GET', KEYS[1])
if not value or cjson.decode(value).id ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""

_IN_USE, _OPEN = f"{PREFIX}:settings:in-use", f"{PREFIX}:setup"


class InUse(BaseModel, frozen=True, defer_build=True):
    """The text of `.stoker.yaml` that every bot of this installation uses."""

    commit: str
    text: str
    announced: bool
    """True if the admins were notified of these settings, or need not be, because the settings change nothing."""


class Setup(BaseModel, frozen=True, defer_build=True):
    """A request to set up Stoker. Its commit and branch are derived from these fields, so a retry creates the same commit
    and branch.
    """

    id: str
    actor: str
    text: str
    base: str
    at: Moment
    url: str = ""
    """The pull request; empty before it is open."""

    @property
    def branch(self) -> str:
        return f"stoker/setup-{self.id}"


_USED, _SETUP = TypeAdapter(InUse), TypeAdapter(Setup)


class SetupState:
    """Stores at most one set-up. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)
        self._change = redis.register_script(_CHANGE)

    async def in_use(self) -> InUse | None:
        """The settings in use; None if none were stored."""
        return await self._records.value(_IN_USE, _USED)

    async def use(self, settings: InUse) -> None:
        """Store the settings that all bots of this installation use."""
        with redis_errors():
            await self._redis.set(_IN_USE, settings.model_dump_json())

    async def open(self) -> Setup | None:
        """The set-up whose pull request is open or will be opened; None if there is none."""
        return await self._records.value(_OPEN, _SETUP)

    async def claim(self, setup: Setup) -> Setup:
        """Store a new set-up and return it, or return the existing one."""
        with redis_errors():
            claimed = await self._redis.set(_OPEN, setup.model_dump_json(), nx=True)
        return setup if claimed else await self.open() or setup

    async def note_pull(self, setup: Setup, url: str) -> None:
        """Record the URL of the set-up's pull request."""
        if setup.url != url:
            with redis_errors():
                text = setup.model_copy(update={"url": url}).model_dump_json()
                await self._change(keys=[_OPEN], args=[setup.id, text])

    async def close(self, setup: Setup) -> None:
        """Delete the set-up, because its pull request is merged or closed, or cannot be opened."""
        with redis_errors():
            await self._change(keys=[_OPEN], args=[setup.id, ""])
