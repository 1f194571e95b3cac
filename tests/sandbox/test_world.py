"""The environment that the sandbox gives to the bot."""

from pathlib import Path

from sandbox.faults import Faults
from sandbox.git import seed
from sandbox.github import GitHub
from sandbox.world import environment_of, merged, nested, policy


def test_the_bots_times_are_as_fast_as_the_platform() -> None:
    """A quarter of an hour of the platform is a quarter of an hour of the bot."""
    idle, gpu = policy(60)["idle"], policy(60)["gpu"]
    assert (idle["remind_after"], idle["down_after"], gpu["drain"]) == ("15s", "60s", "10s")


def test_the_reminder_comes_before_the_end_at_any_speed() -> None:
    """At a high speed the times reach their minimums, still in order."""
    idle = policy(100_000)["idle"]
    assert float(idle["remind_after"][:-1]) < float(idle["down_after"][:-1])


def test_a_storys_settings_override_those_of_the_sandbox() -> None:
    """One key changes, and its neighbours stay."""
    over = nested({"idle.remind_after": "4s", "approvals.expire_after": "5s"})
    settings = merged(policy(60), over)
    assert settings["idle"] == policy(60)["idle"] | {"remind_after": "4s"}
    assert settings["approvals"]["expire_after"] == "5s"


async def test_the_environment_is_the_repos_own(tmp_path: Path) -> None:
    """The environment is the one in the settings, otherwise the sample's if the repo has it, otherwise the repo's own."""
    for name, environments in {"sample": ["ai-dev", "a-first"], "other": ["prod"]}.items():
        for environment in environments:
            (tmp_path / name / "clusters" / environment).mkdir(parents=True)
            (tmp_path / name / "clusters" / environment / "x.yaml").write_text("a: 1\n")
        await seed(tmp_path / name, tmp_path / f"{name}.git")
    async with (
        GitHub(tmp_path / "sample.git", Faults()) as sample,
        GitHub(tmp_path / "other.git", Faults()) as other_repo,
    ):
        assert await environment_of(sample, {}) == "ai-dev"
        assert await environment_of(other_repo, {}) == "prod"
        assert await environment_of(other_repo, {"platform": {"environment": "stage"}}) == "stage"
