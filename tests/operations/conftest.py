"""A platform with the bot running in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bot.conftest import redis_url
from tests.operations.platform import PATIENCE, Platform, open_platform

__all__ = ["redis_url"]

LONGEST = 3 * PATIENCE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set a long time limit: a whole platform may be slow on a busy machine, so tests wait for states and not for times."""
    for item in items:
        needs_platform = item.path.is_relative_to(Path(__file__).parent) and "redis_url" in getattr(
            item, "fixturenames", ()
        )
        if needs_platform and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST))


@pytest.fixture
async def platform(tmp_path: Path, redis_url: str) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path, redis_url) as platform:
        yield platform
