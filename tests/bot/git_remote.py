"""A bare remote, a person's clone of it, and the bot's mirror."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.git.repository import Repository

TOKEN = "ghs_theSecretTokenOfThisTest"


WHEN = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


BRANCH = "stoker/add-coder-mini"


def git(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A person's clone of the platform repo, with one commit that is pushed to the bare remote."""
    remote, work = tmp_path / "remote.git", tmp_path / "work"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(remote), cwd=tmp_path)
    git("clone", "--quiet", str(remote), str(work), cwd=tmp_path)
    git("config", "user.name", "dev", cwd=work)
    git("config", "user.email", "dev@example.com", cwd=work)
    git("checkout", "--quiet", "-B", "main", cwd=work)
    for path, text in {
        "README.md": "read me\n",
        "serving/coder-chat/pvc.yaml": "name: coder-chat-model-cache\n",
        "serving/coder-chat-two/pvc.yaml": "name: two\n",
        "scripts/wait.sh": "#!/bin/sh\n",
        "docs/ümlaut.md": "wörter\n",
    }.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text, encoding="utf-8")
    (work / "logo.png").write_bytes(b"\x89PNG\xff\x00")
    (work / "scripts/wait.sh").chmod(0o755)
    commit(work, "first")
    return work


def commit(work: Path, message: str) -> str:
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "-m", message, cwd=work)
    git("push", "--quiet", "origin", "HEAD", cwd=work)
    return git("rev-parse", "HEAD", cwd=work)


def repository(tmp_path: Path, remote: str, token: str | None = None) -> Repository:
    async def credentials() -> SecretStr | None:
        return SecretStr(token) if token else None

    return Repository(tmp_path / "mirror.git", remote, "main", credentials, "Stoker <stoker@example.com>")


@pytest.fixture(params=["path", "file://"])
def repo(request: pytest.FixtureRequest, tmp_path: Path, work: Path) -> Repository:
    remote = tmp_path / "remote.git"
    return repository(tmp_path, str(remote) if request.param == "path" else f"file://{remote}")
