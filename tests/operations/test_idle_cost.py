"""The load that an idle bot puts on other systems."""

import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from docket import Perpetual

from bot.services import Services, open_services
from bot.settings.config import load_config
from bot.settings.environment import Settings
from bot.tasks import all_tasks
from bot.wiring import Wiring
from tests.operations.platform import Platform, open_platform

DEFAULTS = {"lease": {"reconcile_every": "1m"}, "idle": {"sample_every": "30s"}, "github": {"poll_every": "30s"}}
"""The default intervals; the sandbox has shorter ones."""


@pytest.fixture
async def idle(tmp_path: Path, redis_url: str) -> AsyncIterator[tuple[Platform, Services]]:
    """A platform on which nothing happens, and the services of a bot whose tasks are run by the test."""
    async with open_platform(tmp_path, redis_url, settings=DEFAULTS, started=False) as platform:
        values = {name.lower(): value for name, value in platform.environment.items()}
        settings = Settings.model_validate(values)
        settings = settings.model_copy(update={"config": load_config(Path(values["stoker_config"]))})
        async with open_services(settings, redis_url) as svc:
            for task in all_tasks(Wiring(svc)):
                svc.docket.register(task)
            yield platform, svc


async def calls_a_minute(platform: Platform, svc: Services) -> dict[str, float]:
    """Return each periodic task's calls to Kubernetes per minute, from one run, counted at the API server, and the task's interval."""
    calls = {}
    for task in all_tasks(Wiring(svc)):
        defaults = (parameter.default for parameter in inspect.signature(task).parameters.values())
        repeated = next((default for default in defaults if isinstance(default, Perpetual)), None)
        if repeated is None:
            continue
        again, began = Perpetual(every=repeated.every), datetime.now(UTC)
        platform.cluster.api.call_counts.clear()
        await task(perpetual=again)
        every = again._next_when - began if again._next_when else again.every
        calls[task.__name__] = platform.cluster.api.call_counts.total() * 60 / every.total_seconds()
    return calls


async def test_an_idle_bot_makes_at_most_five_calls_to_kubernetes_a_minute(idle: tuple[Platform, Services]) -> None:
    """The number does not grow if many people opened Home earlier today."""
    platform, svc = idle
    for user in ("U0DEV", "U0LEAD", "U0ADMIN"):
        await svc.home.note_viewer(user, datetime.fromtimestamp(svc.clock().timestamp() - 3 * 3600, UTC))
    await calls_a_minute(platform, svc)  # the first round fills caches
    calls = await calls_a_minute(platform, svc)
    assert calls["reconcile"] > 0, "no reconciliation was counted"
    assert sum(calls.values()) <= 5, calls


async def test_home_is_updated_from_the_cluster_for_people_who_opened_it_recently(
    idle: tuple[Platform, Services],
) -> None:
    platform, svc = idle
    await svc.home.note_viewer("U0DEV", svc.clock())
    assert (await calls_a_minute(platform, svc))["watch_homes"] > 0
