"""Configuration of the tests: their order, checks for leaked state, coverage, and reruns."""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

from tests.forked import start_stoker

NOT_COUNTED = tuple(Path(__file__).parent / directory for directory in ("journeys", "sandbox", "helm"))
"""Tests that run the bot in a subprocess (or not at all): their coverage cannot be measured."""

FIRST_COUNTED = tuple(Path(__file__).parent / directory for directory in ("operations", "doctor"))
"""Tests that run the bot in this process: coverage is measured in the first case of each, since the cases run the same code."""

hypothesis.settings.register_profile(
    "stoker", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("stoker")
"""The same examples each time, without a deadline: neither chance nor a stalled machine makes a test fail."""

IN_REAL_TIME = tuple(
    Path(__file__).parent / directory for directory in ("journeys", "operations", "sandbox", "doctor", "observability")
)
"""Tests that run a whole platform in real time: a machine that stalls for seconds can make such a test fail."""

JOURNEYS = Path(__file__).parent / "journeys"
"""The tests that wait longest."""

IN_ONE_PROCESS = {
    "tests/doctor/test_doctor.py",
    "tests/helm/test_policy.py",
    "tests/helm/test_rights.py",
    "tests/observability/test_observability.py",
    "tests/sandbox/test_page.py",
    "tests/sandbox/test_page_newer_blocks.py",
    "tests/test_install.py",
}
"""Modules whose tests share something that is slow to set up, such as a running bot or a browser. If they ran in several processes,
between tests of other modules, each test would set it up again. (`xdist_group` does nothing with pytest 9.2: pytest-xdist#1386.)
"""

SET_BY_IMPORTS = {"PYTEST_CURRENT_TEST", "GIT_PYTHON_REFRESH", "PY_KEY_VALUE_DISABLE_BEARTYPE"}
"""Environment variables that pytest sets, or that a module sets when it is first imported."""

TIMER = pytest.StashKey[object]()
"""The time limit of the test, as pytest-timeout set it."""

gc.disable()  # until every module is imported


def pytest_collection_finish() -> None:
    """Exclude the imported modules from every later garbage collection, which takes 0.2 s with them and 1 ms without."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _leaks_belong_to_their_test() -> Iterator[None]:
    """Collect leaked objects now; otherwise the garbage collector would fail a later test.

    Modules and caches that earlier tests filled stay. They are frozen, because each collection would traverse them again:
    that took more than half of the processor time of the tests of `tests/bot`.
    """
    gc.collect()  # pytest itself refers to the fixtures of a test until the test has ended
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _process_stays_as_it_was() -> Iterator[None]:
    """Restore the environment and the working directory, and fail if a test changed them, because later tests would change, too."""
    variables, directory = dict(os.environ), Path.cwd()
    yield
    changed = {
        name
        for name in variables.keys() | os.environ.keys()
        if variables.get(name) != os.environ.get(name) and name not in SET_BY_IMPORTS
    }
    for name in changed:
        os.environ.pop(name, None)
        if name in variables:
            os.environ[name] = variables[name]
    moved = Path.cwd() != directory
    os.chdir(directory)
    assert not changed, f"the test left these environment variables changed: {', '.join(sorted(changed))}"
    assert not moved, "the test changed the working directory"


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """Start bots as forks, and not with `python -m bot`, for tests that are not about the process itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sandbox.process.start_stoker", start_stoker)
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the tests that wait for a platform over the others, which compute, so that the processors are always busy.

    A test that fails runs again: twice if it runs a whole platform in real time, otherwise once. It counts as failed
    only if each run fails. The report at the end lists each rerun (`RERUN`): a test that appears there often has a race.
    """
    if config.getoption("cov_source") and not config.getoption("no_cov"):
        _keep_counted(config, items)
    items[:] = _spread(items)
    for item in items:
        in_real_time = any(map(item.path.is_relative_to, IN_REAL_TIME))
        item.add_marker(pytest.mark.flaky(reruns=2 if in_real_time else 1))


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Each test runs in the next free process, except tests of modules that stay together."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module in IN_ONE_PROCESS else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return _Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> Generator[None, object, object]:
    item.stash[TIMER] = settings
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A rerun gets the whole time limit: pytest-timeout starts its timer once for all runs of a test."""
    if getattr(item, "execution_count", 1) > 1 and TIMER in item.stash:
        item.ihook.pytest_timeout_cancel_timer(item=item)
        item.ihook.pytest_timeout_set_timer(item=item, settings=item.stash[TIMER])


def _spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Place the possibly long tests at equal distances in the first nine tenths, so that none of them starts last.

    The journeys come first: they wait for up to a minute, the others for a few seconds.
    """
    long = [item for item in items if _seconds_allowed(item)]
    long.sort(key=lambda item: (item.path.is_relative_to(JOURNEYS), _seconds_allowed(item)), reverse=True)
    short = [item for item in items if not _seconds_allowed(item)]
    distance = max(1.0, 0.9 * len(items) / max(1, len(long)))
    places = [(place * distance, item) for place, item in enumerate(long)]
    step = len(items) / max(1, len(short))
    places += [(place * step, item) for place, item in enumerate(short)]
    return [item for _, item in sorted(places, key=lambda placed: placed[0])]


def _keep_counted(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--cov`, run only the tests that add to the coverage: `make check` runs all of them, without it."""
    first = _first_cases(items)
    config.hook.pytest_deselected(items=[item for item in items if not _is_counted(item, first)])
    items[:] = [item for item in items if _is_counted(item, first)]


def _first_cases(items: list[pytest.Item]) -> set[str]:
    """Return the alphabetically first case of each test: it is the same in every worker and every order."""
    cases: dict[str, str] = {}
    for item in items:
        test = item.nodeid.partition("[")[0]
        cases[test] = min(cases.get(test, item.nodeid), item.nodeid)
    return set(cases.values())


def _is_counted(item: pytest.Item, first: set[str]) -> bool:
    """Return whether coverage is measured in the test. Hypothesis repeats one test with a hundred examples, most of which add nothing."""
    if any(map(item.path.is_relative_to, NOT_COUNTED)) or getattr(
        getattr(item, "obj", None), "is_hypothesis_test", False
    ):
        return False
    return item.nodeid in first or not any(map(item.path.is_relative_to, FIRST_COUNTED))


def _seconds_allowed(item: pytest.Item) -> float:
    limit = item.get_closest_marker("timeout")
    return float(limit.args[0]) if limit else 0
