"""The audit log: one Redis stream of JSON entries, oldest first, never rewritten."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial

import structlog
from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.events import AuditEvent
from bot.domain.leases import Lease
from bot.domain.operations import Operation
from bot.domain.sessions import Trouble
from bot.observability.logs import cleaned
from bot.state.deliveries import Deliveries
from bot.state.records import PREFIX, Records, name, why_unreadable
from bot.views.outcomes import outcome_text

AUDIT = f"{PREFIX}:audit"
_PAGE = 500
_ENTRY = TypeAdapter(dict[str, str])
log = structlog.get_logger(__name__)


def transition_entry(op: Operation, event: AuditEvent, actor: str, reason: str) -> str:
    """The JSON of the entry for an operation's transition, which is written together with the operation."""
    return cleaned(
        json.dumps(
            {
                "at": op.updated.isoformat(),
                "event": event,
                "op": op.id,
                "what": op.request.kind,
                "model": op.request.model,
                "who": actor or op.cancelled_by or op.request.actor or "stoker",
                "status": op.status,
                "why": reason or outcome_text(op) or op.failure or op.request.reason,
                "commit": op.plan.commit if op.plan else "",
            }
        )
    )


class AuditLog:
    """Reads the log, and adds entries that are not transitions of an operation."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)
        self._deliveries = Deliveries(redis)

    async def entries(self, since: datetime | None = None) -> AsyncIterator[dict[str, str]]:
        """Yield the entries, oldest first; with `since`, only those from that time on."""
        start = str(int(since.timestamp() * 1000)) if since else "-"
        while True:
            rows = (
                await self._records.run(AUDIT, "stream", partial(self._redis.xrange, AUDIT, start, count=_PAGE)) or []
            )
            for row, fields in rows:
                try:
                    yield _ENTRY.validate_json((fields or {}).get(b"entry", b""))
                except ValidationError as error:  # the entry is not removed, because the log is never rewritten
                    log.warning("audit entry not readable", entry=name(row), error=why_unreadable(error))
            if len(rows) < _PAGE:
                return
            start = f"({name(rows[-1][0])}"

    async def note_refusal(self, op: Operation, actor: str, event: AuditEvent, reason: str, at: datetime) -> None:
        """Record that the policy refused a click. The operation does not change."""
        entry = {
            "at": at.isoformat(),
            "event": AuditEvent.REFUSED,
            "op": op.id,
            "what": event,
            "model": op.request.model,
        }
        await self._add(entry | {"who": actor, "status": str(op.status), "why": reason, "commit": ""})

    async def note_turned_away(self, actor: str, subject: str, reason: str, at: datetime) -> None:
        """Record that a person who may not use the bot tried to use it."""
        entry = {"at": at.isoformat(), "event": AuditEvent.REFUSED, "op": "", "what": subject, "model": ""}
        await self._add(entry | {"who": actor, "status": "", "why": reason, "commit": ""})

    async def note_unshown(self, op: Operation, code: str, at: datetime) -> None:
        """Record that Slack refuses the messages about an operation, once for each error code."""
        if await self._deliveries.is_first(f"unshown:{op.id}:{code}"):
            await self.note_decision(op, "", AuditEvent.NOT_SHOWN, f"Slack answers {code}", at)

    async def note_decision(self, op: Operation, actor: str, event: AuditEvent, reason: str, at: datetime) -> None:
        """Record a decision about an operation that does not change the operation."""
        entry = {"at": at.isoformat(), "event": event, "op": op.id, "what": op.request.kind, "model": op.request.model}
        commit = op.plan.commit if op.plan else ""
        await self._add(entry | {"who": actor, "status": str(op.status), "why": reason, "commit": commit})

    async def note_lease(self, lease: Lease, event: AuditEvent, actor: str, reason: str, at: datetime) -> None:
        """Record an event of a session outside an operation, such as a reminder, a warning or an extension."""
        entry = {"at": at.isoformat(), "event": event, "op": lease.op, "what": "lease", "model": lease.model}
        await self._add(entry | {"who": actor or "stoker", "status": "", "why": reason, "commit": lease.commit})

    async def note_trouble(self, lease: Lease, trouble: Trouble, at: datetime) -> None:
        """Record that a session's model is not serving. The event is the model's state, such as `crash-looping`."""
        entry = {"at": at.isoformat(), "event": trouble.state, "op": lease.op, "what": "lease", "model": lease.model}
        await self._add(entry | {"who": "stoker", "status": "", "why": trouble.reason, "commit": lease.commit})

    async def note_setup(self, actor: str, pull: str, commit: str, at: datetime) -> None:
        """Record that an admin opened the pull request with the settings."""
        entry = {"at": at.isoformat(), "event": AuditEvent.SET_UP, "op": "", "what": "set-up", "model": ""}
        await self._add(entry | {"who": actor, "status": "", "why": pull, "commit": commit})

    async def note_set_aside(self, subject: str, reason: str, at: datetime) -> None:
        """Record that a value in Redis, or a task, was set aside and is not used."""
        entry = {"at": at.isoformat(), "event": AuditEvent.SET_ASIDE, "op": "", "what": subject, "model": ""}
        await self._add(entry | {"who": "stoker", "status": "", "why": reason, "commit": ""})

    async def _add(self, entry: dict[str, str]) -> None:
        await self._records.run(AUDIT, "stream", lambda: self._redis.xadd(AUDIT, {"entry": cleaned(json.dumps(entry))}))
