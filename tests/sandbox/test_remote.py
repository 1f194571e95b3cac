"""The git remote that a sandbox starts from."""

import subprocess
from pathlib import Path

import pytest

from sandbox.remote import SAMPLE, RemoteError, make_remote


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def test_the_sample_platform_is_committed_on_main(tmp_path: Path) -> None:
    """Every file of the sample is in the remote, and the sample stays as it was."""
    await make_remote(None, tmp_path / "platform.git")
    committed = git(tmp_path / "platform.git", "ls-tree", "-r", "--name-only", "main").splitlines()
    assert sorted(committed) == sorted(str(p.relative_to(SAMPLE)) for p in SAMPLE.rglob("*") if p.is_file())


async def test_a_plain_directory_is_committed_as_it_is(tmp_path: Path) -> None:
    """Somebody's excerpt needs no git of its own, and may be read-only."""
    source = tmp_path / "excerpt"
    (source / "serving").mkdir(parents=True)
    (source / "serving" / "a.yaml").write_text("a: 1\n")
    (source / "serving").chmod(0o555)
    await make_remote(str(source), tmp_path / "platform.git")
    assert git(tmp_path / "platform.git", "show", "main:serving/a.yaml") == "a: 1\n"
    (source / "serving").chmod(0o755)


async def test_a_repository_keeps_its_commits_and_its_branch_becomes_main(tmp_path: Path) -> None:
    """Whatever the default branch is called, the bot works on main."""
    source = tmp_path / "mine"
    source.mkdir()
    git(source, "init", "-q", "--initial-branch=trunk")
    (source / "a").write_text("1")
    git(source, "add", "a")
    git(source, "commit", "-qm", "first of mine")
    await make_remote(str(source), tmp_path / "platform.git")
    assert "first of mine" in git(tmp_path / "platform.git", "log", "main")
    assert git(tmp_path / "platform.git", "symbolic-ref", "HEAD").strip() == "refs/heads/main"


async def test_a_platform_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A wrong --platform is one sentence."""
    with pytest.raises(RemoteError, match="no such directory"):
        await make_remote(str(tmp_path / "nowhere"), tmp_path / "platform.git")
