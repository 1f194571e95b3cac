"""The clock of a demonstration: the bot, Slack and the cluster agree on every time and every cost."""

import re
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from tests.journeys.conftest import PATIENCE, ObservedSandbox, eventually

SPEED = 120
pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.timeout(600)
async def test_an_hour_lasts_half_a_minute_and_costs_an_hour(
    open_sandbox: Callable[..., Awaitable[ObservedSandbox]],
) -> None:
    """The lease ends at its time on the clock, and the receipt is the node's bill until then."""
    busy = {"remind_after": "3h", "down_after": "4h"}
    world = (await open_sandbox(speed=SPEED, one_clock=True, settings={"idle": busy})).world
    since = world.now()

    def matches(pattern: str) -> list[str]:
        texts = [revision.text for revision in world.visible("dev", since)]
        return [match[1] for text in texts for match in re.finditer(pattern, text)]

    await world.command("dev", "/gpu up coder-chat for 1h because demo")
    estimate = r"Estimated cost\W+\$(\d+\.\d+): 1 h and about 20 min of boot and drain, at \$0\.85/h"
    await eventually(lambda: bool(matches(estimate)))
    (estimated,) = set(matches(estimate))
    await world.workspace.click("lead", "Approve", timeout=PATIENCE)
    approved = time.monotonic()
    await eventually(lambda: world.cluster.ready_models() == ["coder-chat"])
    ready = time.monotonic()
    await eventually(lambda: world.replicas("coder-chat") == 0)
    down, lease_seconds = time.monotonic(), 3600 / SPEED
    assert approved + lease_seconds < down < ready + 2 * lease_seconds
    await eventually(lambda: bool(matches(r"the node billed (\d h \d+ min)")))
    (cost,) = set(matches(r"the node billed .*?, cost \$(\d+\.\d+)"))
    assert float(cost) == pytest.approx(world.cluster.panel()["cost_usd"], abs=0.5)
    assert float(estimated) == pytest.approx(0.85 * (1 + 20 / 60), abs=0.01)
    assert 0.85 < float(cost) < 3  # one stalled second of the machine is two minutes

    application = world.cluster.store.get("Application", "coder-chat", "argocd")
    synced = datetime.fromisoformat((application or {})["status"]["history"][-1]["deployedAt"])
    assert timedelta(hours=1) < world.cluster.clock.date() - synced < timedelta(hours=12)  # Argo CD has the same date
