"""A repository that the settings do not describe: set up in Slack, by a pull request."""

from pathlib import Path

import pytest

from bot.clients.rights import roles
from bot.settings.config import load_config
from bot.settings.of_repository import layered
from tests.operations.platform import Platform, platform

pytestmark = pytest.mark.timeout(400)

SAMPLE = Path(__file__).parents[2] / "sandbox" / "platforms" / "model-directories"


async def test_an_admin_sets_stoker_up_by_a_pull_request(tmp_path: Path, redis_url: str) -> None:
    """Once only, and its settings are in use as soon as it is merged and the account has the rights that they need."""
    async with platform(tmp_path, redis_url, sample=SAMPLE, settings={"staging": {"mode": "off"}}) as it:
        await it.say("dev", "/gpu status")
        assert "Set up …" not in await it.sees("Admins can set it up, in Stoker's Home: @admin")
        await it.say("admin", "/model list")
        told = await it.sees("Stoker is not set up for this repository yet", "admin")
        assert "qwen-coder: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ on 1 GPU" in told
        assert "models/speech: its engine is the image" in told
        await it.workspace.open_home("admin")
        await it.until(lambda: "Stoker is not set up for this repository yet" in it.workspace.home("admin"))

        await opens(it, "L40S")
        await it.sees("Opened pull request #1 with .stoker.yaml", "admin")
        assert "the bot may not get deployments.apps in namespace qwen-coder" in await it.sees(
            "With these settings", "admin"
        )
        await opens(it, "H100")
        await it.sees("pull request #1 with .stoker.yaml is already open, and nothing was added to it", "admin")
        assert len(it.pulls) == 1

        await it.github.merge()
        assert "Add the settings below" in await it.sees("Stoker's account lacks", "admin")
        text = (await it.github.files_at(await it.github.main_commit(), ""))[".stoker.yaml"]
        assert "name: L40S" in text
        config = layered(load_config(Path(it.environment["STOKER_CONFIG"])), text)
        it.account._roles += roles(config)
        assert "it finds 1 endpoint." in await it.sees("Stoker uses the settings of .stoker.yaml", "admin")
        await it.say("admin", "/model list")
        await it.sees("1 endpoint", "admin")
        await it.workspace.open_home("admin")
        await it.until(lambda: "not set up" not in it.workspace.home("admin"))
        it.account.refused.clear()  # the doctor's own requests with settings whose rights were not granted yet


async def opens(it: Platform, gpu: str) -> None:
    """The admin fills the form in and submits it."""
    await it.click("admin", "Set up …")
    await it.sees("Price per hour, in US dollars", "admin")
    await it.workspace.fill("admin", "Which GPU", gpu)
    await it.workspace.submit("admin")
