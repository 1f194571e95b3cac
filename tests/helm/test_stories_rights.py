"""The stories with exactly the chart's rights: they succeed, and use each right."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandbox.access import Account, Request
from sandbox.faults import KNOWN
from sandbox.main import IDLE_SETTINGS, STORY_LIMITS, USERS, story_exit_code
from sandbox.story import parse
from sandbox.world import merged, nested, opened
from tests.helm.chart import MEASURING, of_kind, render
from tests.journeys.conftest import ObservedSandbox, open_sandbox_fixture

__all__ = ["open_sandbox_fixture"]

STORIES = Path(__file__).parents[2] / "docs" / "stories"
COVERING = ("01-up-and-down", "02-add", "05-crash", "40-bench", "43-staged-after-add", "47-staged-growth")
"""Stories that together need every right."""
WATCH_GATEWAY = Request("watch", "apps", "deployments", "litellm")


def test_the_sandbox_grants_the_rights_of_the_chart() -> None:
    """`stoker rights`, which the sandbox enforces, equals the rendered Roles."""
    pytest.importorskip("helm_python", reason="Helm's library has wheels for Linux on x86-64 alone")
    from bot.clients.rights import roles
    from bot.settings.config import Config

    for values in (MEASURING, MEASURING | {"config": MEASURING["config"] | {"litellm": {"namespace": "gateway"}}}):
        objects = render(values)
        rendered = Account("stoker", "stoker", [*of_kind(objects, "Role"), *of_kind(objects, "ClusterRole")])
        assert Account("stoker", "stoker", roles(Config.model_validate(values["config"]))).granted == rendered.granted


@pytest.mark.usefixtures("forked")
@pytest.mark.timeout(600)
async def test_the_stories_need_each_right_and_no_other(
    open_sandbox: Callable[..., Awaitable[ObservedSandbox]],
) -> None:
    """A bring-up, benchmarks, a crashing boot, a staged new model and a growing volume need exactly the granted rights."""
    sandbox = await open_sandbox(speed=60)
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.clicks("lead", "Approve")
    await sandbox.sees("all smoke tests passed")
    await sandbox.says("dev", "/model bench coder-chat")
    await sandbox.sees("generates up to")
    sandbox.world.break_("smoke-fails")
    await sandbox.says("dev", "/model bench coder-chat")
    await sandbox.sees("Its Job is deleted")
    sandbox.world.mend("smoke-fails")
    await sandbox.says("dev", "/gpu down")
    await sandbox.sees("the GPU is free")
    sandbox.world.break_("crash")
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.clicks("lead", "Approve")
    await sandbox.sees("failed")
    sandbox.world.mend("crash")
    await sandbox.says("dev", "/model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ")
    await sandbox.sees("#1")
    await sandbox.world.checks(passed=True)
    await sandbox.clicks("lead", "Approve & roll out")
    await sandbox.sees("is rolled out")
    await sandbox.sees("are on the volume of coder-mini")
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.clicks("lead", "Approve")
    await sandbox.sees("all smoke tests passed")
    await sandbox.says("dev", "/model swap coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ storage=40Gi")
    await sandbox.sees("#2")
    await sandbox.world.checks(passed=True)
    await sandbox.clicks("lead", "Approve & roll out")
    await sandbox.sees("making the volume grow")
    account = sandbox.world.account
    assert account.refused == []
    assert {str(right) for right in account.granted - account.used} == set()


@pytest.mark.usefixtures("forked")
@pytest.mark.timeout(300)
async def test_a_story_fails_without_a_right_that_it_needs(tmp_path: Path) -> None:
    """The roll-out may not watch LiteLLM's Deployment, as with the first version of the chart."""
    passed, account = await run_story("02-add", tmp_path, without=WATCH_GATEWAY)
    assert not passed
    assert WATCH_GATEWAY.resource in {request.resource for request in account.refused}


@pytest.mark.soak
@pytest.mark.usefixtures("forked")
@pytest.mark.timeout(7200)
async def test_each_right_is_needed_by_a_story(tmp_path: Path) -> None:
    """Each right is removed alone, from a bot that had it at its start."""
    needed: dict[Request, str] = {}
    granted: frozenset[Request] = frozenset()
    for name in COVERING:
        passed, account = await run_story(name, tmp_path / name)
        assert passed, name
        granted |= account.granted
        for right in account.used:
            needed.setdefault(right, name)
    assert granted == needed.keys()
    unmissed = [
        f"{name} passes without the right to {right}"
        for number, (right, name) in enumerate(needed.items())
        if (await run_story(name, tmp_path / str(number), without=right))[0]
    ]
    assert unmissed == []


async def run_story(name: str, directory: Path, *, without: Request | None = None) -> tuple[bool, Account]:
    """Return whether `stoker sandbox --script` would end with exit code 0, and which rights the bot used."""
    directory.mkdir(exist_ok=True)
    path = STORIES / f"{name}.story"
    story = parse(path.read_text("utf-8"), path, users=USERS, faults=frozenset(KNOWN))
    overrides = dict(story.given)
    speed = float(overrides.pop("speed", 60))
    settings = merged(merged(IDLE_SETTINGS, STORY_LIMITS), nested(overrides))
    async with opened(
        platform=None, speed=speed, port=0, checks_pass_after=None, settings=settings, directory=directory
    ) as world:
        if without:
            world.account.take(without)
        return await story_exit_code(story, world, patience=120) == 0, world.account
