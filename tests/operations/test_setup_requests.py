"""The requests of a set-up, against git and GitHub: permissions, repetitions, and crashes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from bot.domain.leases import Lease
from bot.embedded import embedded_redis
from bot.engine.lifecycle import NotAllowed
from bot.errors import BotError, Unavailable
from bot.home import Overviews
from bot.platform.setup import PlatformSetup
from bot.services import Services, open_services
from bot.settings.config import Config
from bot.settings.environment import Settings, load_cluster_settings
from bot.state.setup import InUse
from bot.wiring import Wiring
from commands.setup import SettingsInUse
from manifests.tree import ChangeSet
from sandbox.faults import Faults
from sandbox.git import seed
from sandbox.github import GitHub
from sandbox.github_pulls import Refused
from sandbox.slack import Workspace
from sandbox.world import REPOSITORY
from tests.commands.conftest import KUBECONFIG, NOWHERE, hf_endpoint, manifest, workspace

__all__ = ["hf_endpoint", "manifest", "workspace"]

SAMPLE = Path(__file__).parents[2] / "sandbox" / "platforms" / "model-directories"
ROLES = {"slack": {"channel": "C0GPUOPS"}, "roles": {"approvers": ["U0LEAD"], "admins": ["U0ADMIN"]}}


@pytest.fixture
async def github(tmp_path: Path) -> AsyncIterator[GitHub]:
    await seed(SAMPLE, tmp_path / "platform.git")
    async with GitHub(tmp_path / "platform.git", Faults(), repository=REPOSITORY) as github:
        yield github


@pytest.fixture
def policy() -> dict[str, Any]:
    return ROLES


@pytest.fixture
def settings(workspace: Workspace, github: GitHub, tmp_path: Path, policy: dict[str, Any]) -> Settings:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    return Settings(
        slack_bot_token=SecretStr(workspace.bot_token),
        slack_app_token=SecretStr(workspace.app_token),
        slack_api_url=workspace.api_url,
        github_repository=REPOSITORY,
        github_api_url=github.api_url,
        github_token=SecretStr(github.token),
        git_remote_url=github.git_url,
        hf_endpoint=NOWHERE,
        litellm_url=NOWHERE,
        kubeconfig=str(tmp_path / "kubeconfig"),
        stoker_data_dir=tmp_path / "data",
        config=Config.model_validate(policy),
    )


@pytest.fixture
async def svc(settings: Settings, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(embedded_redis(tmp_path / "redis"))
        yield await stack.enter_async_context(open_services(settings, redis_url))


@pytest.fixture
def setup(svc: Services) -> PlatformSetup:
    return Wiring(svc).of(PlatformSetup)


def pulls(github: GitHub) -> list[str]:
    return [pull.state for pull in github._pulls.values()]


async def test_only_an_admin_may_set_stoker_up(setup: PlatformSetup, svc: Services, github: GitHub) -> None:
    """The click and the submission are checked. The refusal names the admins, and is in the audit log."""
    with pytest.raises(NotAllowed, match="<@U0ADMIN>"):
        await setup.ask("U0DEV")
    with pytest.raises(NotAllowed):
        await setup.propose("U0DEV", {}, "V1")
    assert [entry["who"] async for entry in svc.audit.entries() if entry["event"] == "refused"] == ["U0DEV", "U0DEV"]
    assert pulls(github) == []


async def test_the_form_asks_only_for_missing_settings(setup: PlatformSetup) -> None:
    """The form contains the current values."""
    _, questions = await setup.ask("U0ADMIN")
    assert [(question.name, value) for question, value in questions] == [
        ("gpu.name", "L4"),
        ("gpu.price_per_hour", "0.85"),
    ]


async def test_an_interrupted_set_up_is_finished_once(setup: PlatformSetup, github: GitHub) -> None:
    """If the branch is pushed but no pull request is opened, the watch opens it; the same form opens no second one."""
    github.refuses["POST /pulls"] = Refused(503, "Service Unavailable")
    with pytest.raises(Unavailable):
        await setup.propose("U0ADMIN", {"gpu": {"name": "L40S"}}, "V1")
    github.refuses.clear()
    await setup.watch()
    assert pulls(github) == ["open"]
    again = await setup.propose("U0ADMIN", {"gpu": {"name": "A10"}}, "V1")
    assert "L40S" in again.text
    second = await setup.propose("U0ADMIN", {}, "V2")
    assert second.pull
    assert (second.pull.number, second.is_new) == (1, False)
    assert pulls(github) == ["open"]


async def test_a_set_up_that_github_refuses_does_not_block_the_next(setup: PlatformSetup, github: GitHub) -> None:
    """The answer is GitHub's refusal, even if the branch cannot be deleted either."""
    github.refuses["POST /pulls"] = Refused(403, "Pull requests are disabled")
    github.refuses["DELETE /git/refs"] = Refused(403, "Resource not accessible")
    with pytest.raises(BotError, match="Pull requests are disabled"):
        await setup.propose("U0ADMIN", {}, "V1")
    github.refuses.clear()
    assert await setup.state.open() is None
    result = await setup.propose("U0ADMIN", {}, "V2")
    assert result.is_new
    assert pulls(github) == ["open"]


async def test_after_a_rejection_another_one_can_be_opened(setup: PlatformSetup, github: GitHub) -> None:
    await setup.propose("U0ADMIN", {}, "V1")
    await github.close()
    result = await setup.propose("U0ADMIN", {}, "V2")
    assert result.pull
    assert (result.pull.number, result.is_new, pulls(github)) == (2, True, ["closed", "open"])
    await github.close()
    await setup.watch()
    assert await setup.state.open() is None


async def test_a_merged_set_up_that_is_still_open_is_closed_by_the_watch(setup: PlatformSetup, github: GitHub) -> None:
    """Redis was unavailable for a moment; the settings of the commit are already in use."""
    await setup.propose("U0ADMIN", {}, "V1")
    opened = await setup.state.open()
    await github.merge()
    assert opened
    await setup.state.use(InUse(commit=opened.base, text=opened.text, announced=True))
    await setup.watch()
    await setup.state.claim(opened)
    await setup.watch()
    assert await setup.state.open() is None


@pytest.mark.parametrize("policy", [ROLES | {"platform": {"serving_dir": "elsewhere", "namespace": "llm"}}])
async def test_settings_that_the_installation_overrules_are_shown_to_copy(setup: PlatformSetup) -> None:
    """The bot cannot write the installation's file, which takes precedence."""
    result = await setup.propose("U0ADMIN", {}, "V1")
    assert result.pull is None
    assert sorted(result.overruled) == ["platform.namespace", "platform.serving_dir"]
    assert "namespace: qwen-coder" in result.text


async def test_a_default_that_the_repository_sets_counts_as_a_setting(setup: PlatformSetup, svc: Services) -> None:
    """Otherwise Stoker would continue to report that nobody has set the namespace. The cluster does not answer here."""
    await merge(setup, f"platform: {{namespace: {svc.config.platform.namespace}}}\n")
    await setup.watch()
    assert await setup.state.in_use() is None


async def test_settings_in_use_are_announced_once_a_system_answers_again(
    setup: PlatformSetup, svc: Services, workspace: Workspace, github: GitHub
) -> None:
    """The bot starts while the git remote does not answer, and later gets the settings without a restart."""
    await setup.state.use(InUse(commit=await github.main_commit(), text="x", announced=False))
    github._faults.add("github-down")
    with structlog.testing.capture_logs() as logs:
        announcing = asyncio.create_task(Wiring(svc).of(SettingsInUse).announce(every=0.05))
        async with asyncio.timeout(120):
            while not any(entry["event"] == "settings not announced" for entry in logs):
                await asyncio.sleep(0.05)
            github._faults.clear()
            await announcing
    assert "Stoker uses the settings of .stoker.yaml" in str(await messages_to_the_admin(svc, workspace))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plattform: {}\n", "there is no such setting"), ("platform: {namespace: llm}\n", "holds the GPU")],
)
async def test_settings_that_cannot_be_used_are_reported_once(
    setup: PlatformSetup, svc: Services, workspace: Workspace, github: GitHub, text: str, expected: str
) -> None:
    """Invalid settings, and any settings while a model is up, are not used; the bot keeps its own."""
    now = svc.clock()
    await svc.leases.claim(
        Lease(model="m", op="1", holder="U0DEV", fence=0, hold=timedelta(hours=1), claimed=now, ends=now)
    )
    await merge(setup, text)
    await setup.watch()
    await setup.watch()
    assert len([message for message in await messages_to_the_admin(svc, workspace) if expected in message]) == 1
    assert await setup.state.in_use() is None


async def test_settings_that_an_update_of_stoker_no_longer_supports_are_reported(
    setup: PlatformSetup, svc: Services, workspace: Workspace
) -> None:
    """The settings were in use before, but the bot has started without them."""
    text = "gpu: {renamed: 1}\n"
    await setup.state.use(InUse(commit="c", text=text, announced=True))
    await merge(setup, text)
    await setup.watch()
    assert "there is no such setting" in str(await messages_to_the_admin(svc, workspace))


async def merge(setup: PlatformSetup, text: str) -> None:
    base = await setup.repository.head()
    await setup.repository.switch(ChangeSet(files={".stoker.yaml": text}), base=base, message="x", when=setup.clock())


async def messages_to_the_admin(svc: Services, workspace: Workspace) -> list[str]:
    async with asyncio.timeout(60):
        while await svc.presentation.waiting():
            await asyncio.sleep(0.05)
    return list(workspace.now_visible("admin"))


@pytest.mark.parametrize("policy", [ROLES | {"links": {"logs": "https://logs.example.com/{namespace}/{model}"}}])
async def test_a_link_names_the_deployment_of_a_model_in_another_namespace(svc: Services) -> None:
    """This applies to links on cards and in Home. A model that is not in the repository has the default links."""
    overview = await Wiring(svc).of(Overviews).read()
    for links in (overview.links, await svc.slack.links(svc.config)):
        pages = [links.pages(model, svc.clock())["logs"] for model in ("qwen-coder", "other")]
        assert pages == ["https://logs.example.com/qwen-coder/qwen-coder", "https://logs.example.com/serving/other"]


async def test_the_terminal_ignores_a_settings_file_that_is_no_longer_valid(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an update of Stoker, `stoker gpu` still stops costs without the file, like the bot."""
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(embedded_redis(tmp_path / "redis"))
        async with open_services(settings, redis_url) as svc:
            await svc.setup.use(InUse(commit="c", text="gpu: {renamed: 1}\n", announced=True))
        async with open_services(settings, redis_url) as svc:
            assert svc.config == settings.config
    monkeypatch.setenv("STOKER_DATA_DIR", str(settings.stoker_data_dir))
    assert load_cluster_settings().config == Config()
