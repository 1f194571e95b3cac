"""The stories with the chart's rights and no others: they work, and they use each of them."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bot.clients.kube import Right
from bot.settings import Config
from sandbox.process import Bot
from tests.helm.authorizer import Authorizer, guarded
from tests.helm.chart import MEASURING, render
from tests.helm.test_chart import granted, used
from tests.journeys.conftest import Town, town

__all__ = ["town"]

pytest.importorskip("helm_python", reason="Helm's library has wheels for Linux on x86-64 alone")


@pytest.mark.timeout(600)
async def test_the_stories_need_each_right_and_no_other(town: Callable[..., Awaitable[Town]], tmp_path: Path) -> None:
    """A bring-up, benchmarks, a boot that crashes, a new model and a bring-down: nothing refused, nothing granted unused.

    So each right that is taken away breaks one of them.
    """
    here = await town(speed=60)
    authorizer = Authorizer(granted(render(MEASURING)))
    assert authorizer.granted == used(Config.model_validate(MEASURING["config"]))
    config = json.loads(Path(here.world.bot.environment["KUBECONFIG"]).read_text(encoding="utf-8"))
    cluster = config["clusters"][0]["cluster"]
    async with guarded(cluster["server"], authorizer) as url:
        cluster["server"] = url
        kubeconfig = tmp_path / "guarded"
        kubeconfig.write_text(json.dumps(config))
        await here.world.bot.die()
        port = int(here.world.bot.url.rpartition(":")[2])
        home = tmp_path / "guarded-bot"
        home.mkdir()
        async with Bot(here.world.bot.environment | {"KUBECONFIG": str(kubeconfig)}, port=port, directory=home) as bot:
            await here.says("dev", "/gpu up coder-chat")
            await here.clicks("lead", "Approve")
            await here.sees("all smoke tests passed")
            await here.says("dev", "/model bench coder-chat")
            await here.sees("generates up to")
            here.world.break_("smoke-fails")
            await here.says("dev", "/model bench coder-chat")
            await here.sees("Its Job is deleted")
            here.world.mend("smoke-fails")
            await here.says("dev", "/gpu down")
            await here.sees("the GPU is free")
            here.world.break_("crash")
            await here.says("dev", "/gpu up coder-chat")
            await here.clicks("lead", "Approve")
            await here.sees("failed")
            here.world.mend("crash")
            await here.says("dev", "/model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ")
            await here.sees("#1")
            await here.world.checks(passed=True)
            await here.clicks("lead", "Approve & roll out")
            await here.sees("succeeded")
            log = bot.log.read_text(encoding="utf-8")
    assert "may not" not in log
    unused = authorizer.granted - authorizer.used
    assert {str(right) for right in unused} == set()
    assert Right("delete", "deployments", "apps", "serving") not in authorizer.granted
