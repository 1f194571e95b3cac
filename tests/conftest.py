"""The order of the tests, and which of them are counted."""

from pathlib import Path

import pytest

NOT_COUNTED = tuple(Path(__file__).parent / room for room in ("journeys", "sandbox", "helm"))
"""Where the bot is a process of its own, or absent: the sandbox is not counted, and following it takes twice its time."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After they were shuffled: those that may take long first, so that none of them is begun when all else is done."""
    items.sort(key=_seconds_allowed, reverse=True)
    for item in items:
        if any(map(item.path.is_relative_to, NOT_COUNTED)):
            item.add_marker(pytest.mark.no_cover)


def _seconds_allowed(item: pytest.Item) -> float:
    own = item.get_closest_marker("timeout")
    return float(own.args[0]) if own else 0
