"""The mirror of a remote over HTTP, with a token: from a commit to a merge, and places that must not contain the token."""

import asyncio
import base64
import logging
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from bot.clients.github import GitHub, MergeRefused
from bot.errors import BotError, Unavailable
from bot.git.complaints import PushRefused
from bot.observability.logs import conceal
from manifests.tree import ChangeSet
from sandbox.github import GitHub as SandboxGitHub
from tests.bot.git_remote import BRANCH, TOKEN, WHEN, commit, git, repo, repository, work

__all__ = ["repo", "work"]


async def test_error_messages_of_git_contain_no_secret(tmp_path: Path, work: Path) -> None:
    """Every secret is removed, not only the current token, because a remote may send any text."""
    conceal(SecretStr("an-older-token-0815"))
    hook = tmp_path / "remote.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'an-older-token-0815 and sk-0123456789abcdef are refused' >&2\nexit 1\n")
    hook.chmod(0o755)
    repo = repository(tmp_path, str(tmp_path / "remote.git"))
    base = await repo.head()
    with pytest.raises(PushRefused) as refused:
        await repo.push(ChangeSet(files={"a": "1\n"}), base=base, branch=BRANCH, message="m", when=WHEN)
    assert "*** and *** are refused" in str(refused.value)


async def test_a_remote_with_a_password_is_refused(tmp_path: Path) -> None:
    """The password would appear in git's arguments and messages."""
    with pytest.raises(BotError, match="GITHUB_TOKEN"):
        repository(tmp_path, f"https://x:{TOKEN}@example.com/a.git")


async def test_a_change_is_pushed_and_merged(tmp_path: Path, work: Path) -> None:
    """The remote is private, the mirror is partial, and each step may be repeated."""
    remote = tmp_path / "remote.git"
    git("config", "uploadpack.allowFilter", "true", cwd=remote)

    async def token() -> SecretStr:
        return SecretStr(TOKEN)

    async with SandboxGitHub(remote, set(), token=TOKEN) as host, httpx.AsyncClient(base_url=host.api_url) as http:
        github = GitHub(http, host.repository, token)
        repo = repository(tmp_path, host.git_url, TOKEN)
        base = await repo.head()
        changes = ChangeSet(files={"README.md": "new\n"})
        for _ in range(2):
            pushed = await repo.push(changes, base=base, branch=BRANCH, message="docs: new", when=WHEN)
            pull = await github.open_pull(BRANCH, "main", "docs: new", "Why: it is new.", ["stoker"])
        assert (pull.number, pull.head_sha, pull.head_ref, pull.state) == (1, pushed, BRANCH, "open")
        await host.checks("success")
        assert (await github.pull(1)).ci.verdict == "success"
        with pytest.raises(MergeRefused, match="its head is no longer"):
            await github.merge(1, base, "main")
        merged = await github.merge(1, pushed, "main")
        assert await github.merge(1, pushed, "main") == merged == await repo.head()
        assert (await repo.tree(merged)).read("README.md") == "new\n"
        for _ in range(2):
            await github.delete_branch(BRANCH)
            await repo.delete_branch(BRANCH)
        assert (await github.pull(1)).merge_commit == merged


@pytest.mark.parametrize("method", ["merge", "squash", "rebase"])
async def test_a_revert_reverts_the_whole_pull_request(tmp_path: Path, work: Path, method: str) -> None:
    """A revert undoes all commits of the pull request, for every merge method; other people's commits before and after it stay."""

    async def token() -> SecretStr:
        return SecretStr(TOKEN)

    remote = tmp_path / "remote.git"
    async with SandboxGitHub(remote, set(), token=TOKEN) as host, httpx.AsyncClient(base_url=host.api_url) as http:
        github = GitHub(http, host.repository, token)
        repo = repository(tmp_path, host.git_url, TOKEN)
        base = await repo.head()
        await repo.push(ChangeSet(files={"a": "1\n"}), base=base, branch=BRANCH, message="feat: a", when=WHEN)
        await github.open_pull(BRANCH, "main", "feat: a", "", [])
        through = host.git_url.replace("http://", f"http://x-access-token:{TOKEN}@")
        git("fetch", "--quiet", "origin", cwd=work)
        git("checkout", "--quiet", BRANCH, cwd=work)
        for name in ("b", "README.md"):
            (work / name).write_text("theirs\n")
            git("add", "--all", cwd=work)
            git("commit", "--quiet", "-m", f"more: {name}\n\nWith a body.", cwd=work)
        await asyncio.to_thread(git, "push", "--quiet", through, f"HEAD:{BRANCH}", cwd=work)
        git("checkout", "--quiet", "main", cwd=work)
        (work / "before").write_text("others\n")
        git("add", "--all", cwd=work)
        git("commit", "--quiet", "-m", "others: before", cwd=work)
        await asyncio.to_thread(git, "push", "--quiet", through, "HEAD:main", cwd=work)
        merged = await host.merge(method)
        git("pull", "--quiet", "--ff-only", cwd=work)
        (work / "after").write_text("others\n")
        later = commit(work, "others: after")
        assert len(await github.commits(1)) == 3
        reversal = await repo.reversal(merged, later, await github.commits(1))
        assert reversal.files == {"a": None, "b": None, "README.md": "read me\n"}


async def test_a_closed_pull_request_leaves_no_branch(tmp_path: Path, work: Path) -> None:
    """The pull request is closed, its branch is deleted, and it is found again by its branch."""

    async def token() -> SecretStr:
        return SecretStr(TOKEN)

    remote = tmp_path / "remote.git"
    async with SandboxGitHub(remote, set(), token=TOKEN) as host, httpx.AsyncClient(base_url=host.api_url) as http:
        github = GitHub(http, host.repository, token)
        repo = repository(tmp_path, host.git_url, TOKEN)
        changes = ChangeSet(files={"README.md": "new\n"})
        await repo.push(changes, base=await repo.head(), branch=BRANCH, message="docs: new", when=WHEN)
        await github.open_pull(BRANCH, "main", "docs: new", "", [])
        await github.close(1)
        await github.delete_branch(BRANCH)
        pull = await github.find_pull(BRANCH)
        assert pull is not None
        assert (pull.state, pull.merged, pull.merge_commit) == ("closed", False, None)
        assert git("branch", "--list", BRANCH, cwd=remote) == ""


@pytest.mark.parametrize("wrong", ["ghs_wrong", None])
async def test_a_wrong_token_is_reported(tmp_path: Path, work: Path, wrong: str | None) -> None:
    """git does not ask for a name at a terminal."""
    async with SandboxGitHub(tmp_path / "remote.git", set(), token=TOKEN) as host:
        with pytest.raises(BotError, match="token's rights"):
            await repository(tmp_path, host.git_url, wrong).head()


class Host:
    """A git host that records the Authorization header and answers every request with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.seen: list[str | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("Authorization"))
        return web.Response(status=self.status, text=f"no, {TOKEN}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.answer)
        async with TestServer(app, host="127.0.0.1") as server:
            yield str(server.make_url("/acme/platform.git"))


@pytest.mark.parametrize(("status", "family"), [(503, Unavailable), (401, BotError), (403, BotError), (404, BotError)])
async def test_the_token_appears_only_in_its_header(
    tmp_path: Path,
    status: int,
    family: type[Exception],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not in a process's arguments, a log line, the mirror's files or the error. An outage is not a refusal."""
    started: list[object] = []
    popen: Callable[..., None] = subprocess.Popen.__init__

    def record(self: object, args: object, *more: object, **options: object) -> None:
        started.append(args)
        popen(self, args, *more, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", record)
    caplog.set_level(logging.DEBUG)
    host = Host(status)
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    async with host.running() as url:
        with pytest.raises(family) as failure:
            await repository(tmp_path, url, TOKEN).head()
    assert host.seen[0] == f"Basic {basic}"
    files = b"".join(path.read_bytes() for path in (tmp_path / "mirror.git").rglob("*") if path.is_file()).decode()
    assert started
    for form in (TOKEN, basic):
        for place in (str(started), caplog.text, files, repr(failure.value), str(failure.value)):
            assert form not in place
