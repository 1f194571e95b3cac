"""`stoker audit export`: the audit log as JSON lines, from Redis alone."""

import json
from collections.abc import Callable
from contextlib import AsyncExitStack

from bot.durations import parse_duration
from bot.errors import BotError
from bot.services import now, open_redis
from bot.settings import Settings
from bot.store import Store


async def export(settings: Settings, since: str, write: Callable[[str], None]) -> None:
    """Write each entry as one line; BotError for a duration that is none."""
    try:
        start = now() - parse_duration(since) if since else None
    except ValueError as error:
        raise BotError(f"--since: {error}") from error
    url = settings.redis_url or f"unix://{settings.stoker_data_dir.absolute() / 'redis' / 'redis.sock'}"
    async with AsyncExitStack() as stack:
        store = Store(await open_redis(settings, url, stack))
        async for entry in store.audit(start):
            write(json.dumps(entry, ensure_ascii=False))
