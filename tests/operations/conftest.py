"""A platform with the bot running in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bot.conftest import redis_url
from tests.operations.platform import Platform
from tests.operations.platform import platform as opened

__all__ = ["redis_url"]


@pytest.fixture
async def platform(tmp_path: Path, redis_url: str) -> AsyncIterator[Platform]:
    async with opened(tmp_path, redis_url) as it:
        yield it
