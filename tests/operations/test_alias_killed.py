"""An alias at run time survives the bot's death after each write: registered once, removed after the merge."""

from collections import Counter
from pathlib import Path

import pytest

from sandbox.process import Bot
from tests.operations.kill_on_http_write import KillOnWrite, http_proxy
from tests.operations.platform import open_platform
from tests.operations.test_alias import SERVED, stored_models, until_alias_is_removed


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("forked")
async def test_an_alias_is_registered_once_and_removed_completely(tmp_path: Path, redis_url: str) -> None:
    """The bot is killed after the registration arrived and before the response, and again during the removal."""
    kills = KillOnWrite(additional=("LITELLM_URL",))
    async with (
        open_platform(
            tmp_path, redis_url, started=False, connect=lambda environment: http_proxy(kills, environment)
        ) as platform,
        Bot(platform.environment, port=int(platform.environment["STOKER_PORT"]), directory=tmp_path) as bot,
    ):
        kills.kill = bot.kill
        await platform.workspace.connected(platform.patience)
        await platform.say("lead", f"/model add assistant {SERVED} now")
        await platform.sees("Pull request #1", user="lead")
        assert set(await stored_models(platform)) == {"assistant"}
        await platform.github.checks("success")
        await platform.click("admin", "Approve & roll out")
        await platform.sees("assistant is rolled out", user="lead")
        await until_alias_is_removed(platform, "assistant")
        kills.kill = None
    count = Counter(kills.writes)
    new, delete = (next(write for write in count if write.endswith(path)) for path in ("/model/new", "/model/delete"))
    assert {new, delete} <= set(kills.killed_at)
    assert count[new] == 1
    assert len(platform.pulls) == 1
