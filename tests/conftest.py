"""The order of the tests, which of them measure coverage, and which get a second run."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

NOT_COUNTED = tuple(Path(__file__).parent / room for room in ("journeys", "sandbox", "helm"))
"""Tests that run the bot in a subprocess (or not at all): coverage is not measured."""

FIRST_COUNTED = tuple(Path(__file__).parent / room for room in ("operations", "doctor"))
"""Tests that run the bot in this process: coverage is measured in the first case of each, since measuring takes as much
processor time as the test itself (3.6 s without, 5.9 s with it for three tests), and the cases run the same code.
"""

IN_REAL_TIME = tuple(Path(__file__).parent / room for room in ("journeys", "operations", "sandbox", "doctor"))
"""Tests that run a whole platform in real time: a machine that stalls for seconds makes such a test fail once. A test
that fails twice fails, and the report names each test that needed its second run.
"""


@pytest.fixture(autouse=True)
def _leaks_belong_to_their_test() -> Iterator[None]:
    """Collect what a test leaked now: later, the garbage collector would fail another test for it."""
    yield
    gc.collect()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After shuffling, possibly long tests first, so that none of them starts last."""
    items.sort(key=_seconds_allowed, reverse=True)
    first = _first_cases(items)
    for item in items:
        if not _is_counted(item, first):
            item.add_marker(pytest.mark.no_cover)
        if any(map(item.path.is_relative_to, IN_REAL_TIME)):
            item.add_marker(pytest.mark.flaky(reruns=1))


def _first_cases(items: list[pytest.Item]) -> set[str]:
    """The case of each test that comes first in the alphabet: in each worker, and in each order, the same."""
    cases: dict[str, str] = {}
    for item in items:
        test = item.nodeid.partition("[")[0]
        cases[test] = min(cases.get(test, item.nodeid), item.nodeid)
    return set(cases.values())


def _is_counted(item: pytest.Item, first: set[str]) -> bool:
    """Whether the test measures coverage. Hypothesis repeats one test with a hundred examples, most of which add nothing."""
    if any(map(item.path.is_relative_to, NOT_COUNTED)) or getattr(
        getattr(item, "obj", None), "is_hypothesis_test", False
    ):
        return False
    return item.nodeid in first or not any(map(item.path.is_relative_to, FIRST_COUNTED))


def _seconds_allowed(item: pytest.Item) -> float:
    own = item.get_closest_marker("timeout")
    return float(own.args[0]) if own else 0
