"""A platform with the bot running in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bot.conftest import redis_url
from tests.operations.platform import PATIENCE, Platform
from tests.operations.platform import platform as opened

__all__ = ["redis_url"]

LONGEST = 3 * PATIENCE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A whole platform may be slow on a busy machine, so each wait ends with a state and not with a time."""
    for item in items:
        ours = item.path.is_relative_to(Path(__file__).parent) and "redis_url" in getattr(item, "fixturenames", ())
        if ours and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST))


@pytest.fixture
async def platform(tmp_path: Path, redis_url: str) -> AsyncIterator[Platform]:
    async with opened(tmp_path, redis_url) as it:
        yield it
