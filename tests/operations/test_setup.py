"""A repository that the settings do not describe: set up in Slack, by a pull request."""

from pathlib import Path

import pytest

from bot.clients.rights import roles
from bot.settings.config import load_config
from bot.settings.of_repository import layered
from tests.operations.platform import Platform, open_platform

pytestmark = pytest.mark.timeout(400)

SAMPLE = Path(__file__).parents[2] / "sandbox" / "platforms" / "model-directories"


async def test_an_admin_sets_stoker_up_by_a_pull_request(tmp_path: Path, redis_url: str) -> None:
    """There is one pull request. Its settings are used as soon as it is merged and the account has the necessary rights."""
    async with open_platform(tmp_path, redis_url, sample=SAMPLE, settings={"staging": {"mode": "off"}}) as platform:
        await platform.say("dev", "/gpu status")
        assert "Set up …" not in await platform.sees("Admins can set it up, in Stoker's Home: @admin")
        await platform.say("admin", "/model list")
        message = await platform.sees("Stoker is not set up for this repository yet", "admin")
        assert "qwen-coder: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ on 1 GPU" in message
        assert "models/speech: its engine is the image" in message
        await platform.workspace.open_home("admin")
        await platform.until(lambda: "Stoker is not set up for this repository yet" in platform.workspace.home("admin"))

        await submit_form(platform, "L40S")
        await platform.sees("Opened pull request #1 with .stoker.yaml", "admin")
        assert "the bot may not get deployments.apps in namespace qwen-coder" in await platform.sees(
            "With these settings", "admin"
        )
        await submit_form(platform, "H100")
        await platform.sees("pull request #1 with .stoker.yaml is already open, and nothing was added to it", "admin")
        assert len(platform.pulls) == 1

        await platform.github.merge()
        assert "Add the settings below" in await platform.sees("Stoker's account lacks", "admin")
        text = (await platform.github.files_at(await platform.github.main_commit(), ""))[".stoker.yaml"]
        assert "name: L40S" in text
        config = layered(load_config(Path(platform.environment["STOKER_CONFIG"])), text)
        platform.account._roles += roles(config)
        assert "it finds 1 endpoint." in await platform.sees("Stoker uses the settings of .stoker.yaml", "admin")
        await platform.say("admin", "/model list")
        await platform.sees("1 endpoint", "admin")
        await platform.workspace.open_home("admin")
        await platform.until(lambda: "not set up" not in platform.workspace.home("admin"))
        platform.account.refused.clear()  # the doctor's own requests with settings whose rights were not granted yet


async def submit_form(platform: Platform, gpu: str) -> None:
    """Fill in the form as an admin and submit it."""
    await platform.click("admin", "Set up …")
    await platform.sees("Price per hour, in US dollars", "admin")
    await platform.workspace.fill("admin", "Which GPU", gpu)
    await platform.workspace.submit("admin")
