"""The Redis-protocol server of an installation without one."""

from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bot.embedded import embedded_redis


async def test_the_server_of_a_killed_bot_is_used_and_stopped(tmp_path: Path) -> None:
    """A bot that was killed leaves its server running; the next bot uses that server, and stops it when it ends."""
    async with embedded_redis(tmp_path) as url:
        async with Redis.from_url(url) as client:
            await client.set("kept", "yes")
        async with embedded_redis(tmp_path) as again:
            assert again == url
            async with Redis.from_url(again) as client:
                assert await client.get("kept") == b"yes"
        async with Redis.from_url(url) as client:
            with pytest.raises((RedisError, OSError)):
                await client.ping()


async def test_written_data_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    """Every write is on disk before it is answered."""
    async with embedded_redis(tmp_path) as url, Redis.from_url(url) as client:
        await client.set("kept", "yes")
    async with embedded_redis(tmp_path) as url, Redis.from_url(url) as client:
        assert await client.get("kept") == b"yes"
