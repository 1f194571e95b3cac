"""`stoker audit export`: the audit log as JSON lines; it needs only Redis."""

import json
from collections.abc import Callable
from contextlib import AsyncExitStack

from bot.errors import BotError
from bot.services import now, open_redis
from bot.settings.environment import Settings
from bot.state.audit import AuditLog
from bot.text.durations import parse_duration


async def export(settings: Settings, since: str, write: Callable[[str], None]) -> None:
    """Write each entry as one line. `since` is a duration, empty for all entries; raises BotError if it is invalid."""
    try:
        start = now() - parse_duration(since) if since else None
    except ValueError as error:
        raise BotError(f"--since: {error}") from error
    url = settings.redis_url or f"unix://{settings.stoker_data_dir.absolute() / 'redis' / 'redis.sock'}"
    async with AsyncExitStack() as stack:
        audit = AuditLog(await open_redis(settings, url, stack))
        async for entry in audit.entries(start):
            write(json.dumps(entry, ensure_ascii=False))
