"""An alias at run time survives the bot's death after each write: registered once, removed after the merge."""

from collections import Counter
from pathlib import Path

import pytest

from sandbox.process import Bot
from tests.operations.kill_on_http_write import Tripwire, tripwire
from tests.operations.platform import platform
from tests.operations.test_alias import SERVED, gone, stored


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("forked")
async def test_an_alias_is_registered_once_and_left_nowhere(tmp_path: Path, redis_url: str) -> None:
    """Killed after the registration arrived and before its response, and in the same way at the removal."""
    wire = Tripwire(beside=("LITELLM_URL",))
    async with (
        platform(tmp_path, redis_url, started=False, wired=lambda environment: tripwire(wire, environment)) as it,
        Bot(it.environment, port=int(it.environment["STOKER_PORT"]), directory=tmp_path) as bot,
    ):
        wire.kill = bot.kill
        await it.workspace.connected(it.patience)
        await it.say("lead", f"/model add assistant {SERVED} now")
        await it.sees("Pull request #1", user="lead")
        assert set(await stored(it)) == {"assistant"}
        await it.github.checks("success")
        await it.click("admin", "Approve & roll out")
        await it.sees("assistant is rolled out", user="lead")
        await gone(it, "assistant")
        wire.kill = None
    count = Counter(wire.writes)
    new, delete = (next(each for each in count if each.endswith(path)) for path in ("/model/new", "/model/delete"))
    assert {new, delete} <= set(wire.struck)
    assert count[new] == 1
    assert len(it.pulls) == 1
