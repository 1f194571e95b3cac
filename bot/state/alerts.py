"""Store the current problems in the cluster, and the time of the last check."""

from datetime import datetime

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.sessions import Alert
from bot.domain.values import Moment
from bot.state.records import PREFIX, Records, redis_errors

_ALERTS, _RECONCILED = f"{PREFIX}:alerts", f"{PREFIX}:reconciled"
_ALERT, _MOMENT = TypeAdapter(Alert), TypeAdapter(Moment)


class Alerts:
    """Stores alerts by their subject. Every method raises Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)

    async def start(self, subject: str, now: datetime) -> Alert:
        """Record a problem, or return its existing alert."""
        alert = Alert(about=subject, since=now)
        text = alert.model_dump_json()
        if await self._records.run(_ALERTS, "hash", lambda: self._redis.hsetnx(_ALERTS, subject, text)):
            return alert
        return await self._records.field(_ALERTS, subject, _ALERT) or alert

    async def all(self) -> tuple[Alert, ...]:
        return tuple((await self._records.fields(_ALERTS, _ALERT)).values())

    async def clear(self, subject: str) -> None:
        """Delete the alert about this subject, if any."""
        with redis_errors():
            await self._redis.hdel(_ALERTS, subject)

    async def note_reconciled(self, now: datetime) -> None:
        """Record the time at which leases, Deployments and pods were last compared."""
        with redis_errors():
            await self._redis.set(_RECONCILED, now.isoformat())

    async def last_reconciled(self) -> datetime | None:
        """The time of the last comparison; None if there was none."""
        text = await self._records.text(_RECONCILED)
        return await self._records.parse(_MOMENT, text, _RECONCILED, bare=True)
