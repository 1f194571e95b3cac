"""The mirror against real git: what is read, what is pushed, what is refused, and where the token never shows."""

import asyncio
import base64
import logging
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from bot.clients.github import GitHub, MergeRefused
from bot.errors import BotError, Unavailable
from bot.gitops import Repository
from bot.mirror import PushRefused
from manifests.tree import ChangeSet
from sandbox.github import GitHub as SandboxGitHub

TOKEN = "ghs_theSecretTokenOfThisTest"
WHEN = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
BRANCH = "stoker/add-coder-mini"


def git(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A person's clone of the platform repo, with one commit pushed to the bare remote beside it."""
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


async def test_the_head_is_what_people_pushed_last(repo: Repository, work: Path) -> None:
    """Each call looks at the remote."""
    assert await repo.head() == git("rev-parse", "HEAD", cwd=work)
    (work / "README.md").write_text("again\n")
    assert await repo.head() != (second := commit(work, "second"))
    assert await repo.head() == second


async def test_only_the_followed_branch_is_fetched_until_another_commit_is_asked_for(
    repo: Repository, tmp_path: Path, work: Path
) -> None:
    """A repository with thousands of branches costs no more than one; a commit on one of them is read all the same."""
    git("checkout", "--quiet", "-b", "theirs", cwd=work)
    (work / "README.md").write_text("theirs\n")
    theirs = commit(work, "theirs")
    head = await repo.head()
    mirrored = git("for-each-ref", "--format=%(refname)", "refs/heads", cwd=tmp_path / "mirror.git")
    assert mirrored == "refs/heads/main"
    assert (await repo.tree(head)).read("README.md") == "read me\n"
    assert (await repo.tree(theirs)).read("README.md") == "theirs\n"


async def test_a_branch_that_is_not_there_is_named(tmp_path: Path, work: Path) -> None:
    """An installation that follows the wrong branch is told which."""

    async def nobody() -> None:
        return None

    wrong = Repository(tmp_path / "mirror.git", str(tmp_path / "remote.git"), "trunk", nobody, "S <s@example.com>")
    with pytest.raises(BotError, match="has no branch trunk: create it, or name another"):
        await wrong.head()


async def test_a_commit_includes_those_before_it(repo: Repository, work: Path) -> None:
    """Argo CD may be at a later commit than the one waited for, and a chart's version is no commit."""
    first = await repo.head()
    (work / "README.md").write_text("again\n")
    second = commit(work, "second")
    assert await repo.includes(second, first)
    assert await repo.includes(first, first)
    assert not await repo.includes(first, second)
    assert not await repo.includes("1.106.0", first)


async def test_a_commit_is_taken_back_on_top_of_later_ones(repo: Repository, work: Path) -> None:
    """What was changed elsewhere in a file since stays; where the same lines were changed, the file is named."""
    lines = [f"line {number}\n" for number in range(1, 20)]
    (work / "README.md").write_text("".join(lines))
    commit(work, "long")
    (work / "README.md").write_text("".join(["first changed\n", *lines[1:]]))
    (work / "new.txt").write_text("new\n")
    change = commit(work, "change")
    (work / "README.md").write_text("".join(["first changed\n", *lines[1:-1], "last changed\n"]))
    later = commit(work, "later")
    taken_back = (await repo.reversal(change, later)).files
    assert taken_back == {"README.md": "".join([*lines[:-1], "last changed\n"]), "new.txt": None}
    (work / "README.md").write_text("".join(["first changed again\n", *lines[1:]]))
    with pytest.raises(BotError, match=r"README\.md\. Revert by hand"):
        await repo.reversal(change, commit(work, "clash"))


async def test_a_branch_of_ours_is_moved_only_from_where_we_left_it(repo: Repository, work: Path) -> None:
    """A change is made anew on top of a moved main branch; work that people added is never overwritten."""
    base = await repo.head()
    said: dict[str, Any] = {"branch": BRANCH, "message": "feat: add", "when": WHEN}
    first = await repo.push(ChangeSet(files={"a": "1\n"}), base=base, **said)
    second = await repo.push(ChangeSet(files={"a": "2\n"}), base=base, replaces=first, **said)
    assert await repo.push(ChangeSet(files={"a": "2\n"}), base=base, replaces=first, **said) == second
    with pytest.raises(PushRefused):
        await repo.push(ChangeSet(files={"a": "3\n"}), base=base, replaces=first, **said)


async def test_a_mirror_that_a_kill_left_broken_is_made_anew(repo: Repository, tmp_path: Path, work: Path) -> None:
    """git leaves its lock files behind when it is killed, and would trip over them for ever."""
    await repo.head()
    (tmp_path / "mirror.git/refs/heads/main.lock").touch()
    (work / "README.md").write_text("again\n")
    second = commit(work, "second")
    assert await repo.head() == second
    assert (await repo.tree(second)).read("README.md") == "again\n"


async def test_a_tree_is_read_at_its_commit(repo: Repository) -> None:
    """Texts, paths and searches come from the commit; a binary file has no text."""
    tree = await repo.tree(await repo.head())
    assert tree.read("README.md") == "read me\n"
    assert tree.read("docs/ümlaut.md") == "wörter\n"
    assert tree.read("nothing") is None
    assert tree.read("logo.png") is None
    assert tree.files("serving/coder-chat") == ("serving/coder-chat/pvc.yaml",)
    assert "logo.png" in tree.files("")
    assert tree.grep("name: ") == ("serving/coder-chat-two/pvc.yaml", "serving/coder-chat/pvc.yaml")
    assert tree.grep("--output=x") == ()


async def test_a_tree_may_hold_anything_that_git_can(repo: Repository, work: Path) -> None:
    """A name that is no UTF-8, a link, a submodule: listed, and no text."""
    odd = "caf\udce9.yaml"
    (work / odd).write_text("kind: Odd\n", encoding="utf-8")
    (work / "link.yaml").symlink_to("README.md")
    (work / "module").mkdir()
    git("update-index", "--add", "--cacheinfo", f"160000,{git('rev-parse', 'HEAD', cwd=work)},module", cwd=work)
    first = await repo.tree(await repo.head())
    commit(work, "odd")
    tree = await repo.tree(await repo.head())
    assert set(tree.files("")) - set(first.files("")) == {odd, "link.yaml", "module"}
    assert [tree.read(path) for path in (odd, "link.yaml", "module")] == ["kind: Odd\n", None, None]
    assert tree.grep("kind: Odd") == (odd,)
    git("rm", "--quiet", odd, cwd=work)
    commit(work, "away")
    assert (await repo.tree(await repo.head())).grep("kind: Odd") == ()


async def test_a_partial_mirror_fetches_the_contents_of_a_commit_at_once(tmp_path: Path, work: Path) -> None:
    """History comes without file contents from a remote that allows it, and a tree is whole all the same."""
    remote = tmp_path / "remote.git"
    git("config", "uploadpack.allowFilter", "true", cwd=remote)
    repo = repository(tmp_path, f"file://{remote}")
    head = await repo.head()
    missing = git("rev-list", "--objects", "--missing=print", head, cwd=tmp_path / "mirror.git")
    assert "\n?" in missing
    tree = await repo.tree(head)
    remote.rename(tmp_path / "gone.git")  # reading needs the remote no more
    assert tree.read("README.md") == "read me\n"
    assert tree.grep("wörter") == ("docs/ümlaut.md",)


async def test_subtrees_with_the_same_content_have_the_same_id(repo: Repository, work: Path) -> None:
    """So one sees whether a change touches an Application's path."""
    first = await repo.head()
    (work / "README.md").write_text("again\n")
    second = commit(work, "second")
    assert await repo.subtree_id(first, "serving") == await repo.subtree_id(second, "serving")
    assert await repo.subtree_id(first, "README.md") != await repo.subtree_id(second, "README.md")
    with pytest.raises(BotError, match="nowhere does not exist"):
        await repo.subtree_id(first, "nowhere")


async def test_a_push_is_one_commit_with_just_the_changes(repo: Repository, tmp_path: Path) -> None:
    """Added, changed and deleted files; the modes of the others stay, also of one that is rewritten."""
    base = await repo.head()
    changes = ChangeSet(
        files={"scripts/wait.sh": "#!/bin/sh\nexit\n", "README.md": None, "serving/new/a b.yaml": "new: ö\r\n"}
    )
    message = "feat(serving): add new\n\nRequested-by: dev"
    pushed = await repo.push(changes, base=base, branch=BRANCH, message=message, when=WHEN)
    remote = tmp_path / "remote.git"
    assert git("rev-parse", BRANCH, f"{BRANCH}^", cwd=remote).split() == [pushed, base]
    assert git("diff", "--raw", "--abbrev=1", base, pushed, cwd=remote).splitlines() != []
    listed = git("ls-tree", "-r", "--format=%(objectmode) %(path)", pushed, cwd=remote).splitlines()
    assert "100755 scripts/wait.sh" in listed
    assert "100644 serving/new/a b.yaml" in listed
    assert not any(line.endswith("README.md") for line in listed)
    assert git("log", "-1", "--format=%an <%ae> %at %B", pushed, cwd=remote) == (
        f"Stoker <stoker@example.com> {int(WHEN.timestamp())} {message}"
    )
    assert (await repo.tree(pushed)).read("serving/new/a b.yaml") == "new: ö\r\n"


async def test_a_repeated_push_is_the_same_commit(repo: Repository, tmp_path: Path, work: Path) -> None:
    """Also from another mirror, as after a crash, and also when people have built on the branch since."""
    base = await repo.head()
    changes = ChangeSet(files={"README.md": "new\n"})
    first = await repo.push(changes, base=base, branch=BRANCH, message="docs: new", when=WHEN)
    other = repository(tmp_path / "other", str(tmp_path / "remote.git"))
    assert await other.push(changes, base=base, branch=BRANCH, message="docs: new", when=WHEN) == first
    git("fetch", "--quiet", cwd=work)
    git("checkout", "--quiet", BRANCH, cwd=work)
    (work / "more").write_text("more\n")
    further = commit(work, "more")
    assert await repo.push(changes, base=base, branch=BRANCH, message="docs: new", when=WHEN) == first
    assert git("rev-parse", BRANCH, cwd=tmp_path / "remote.git") == further


async def test_a_branch_with_other_work_is_never_overwritten(repo: Repository, tmp_path: Path) -> None:
    """The push is refused, and the branch stays as it was."""
    base = await repo.head()
    first = await repo.push(ChangeSet(files={"a": "1\n"}), base=base, branch=BRANCH, message="one", when=WHEN)
    with pytest.raises(PushRefused, match="rejected"):
        await repo.push(ChangeSet(files={"a": "2\n"}), base=base, branch=BRANCH, message="two", when=WHEN)
    assert git("rev-parse", BRANCH, cwd=tmp_path / "remote.git") == first


@pytest.mark.parametrize(
    ("files", "branch", "said"),
    [
        ({"README.md": "read me\n"}, BRANCH, "nothing to change"),
        ({"x": "y"}, "main", "by pull request"),
        ({"x": "y"}, "a..b", "no name for a branch"),
        ({"../escape": "y"}, BRANCH, "Invalid path"),
        ({".git/config": "y"}, BRANCH, "Invalid path"),
    ],
)
async def test_what_must_not_be_pushed_is_refused(
    repo: Repository, tmp_path: Path, files: dict[str, str | None], branch: str, said: str
) -> None:
    """Nothing reaches the remote, and the reason is told."""
    base = await repo.head()
    with pytest.raises(BotError, match=said):
        await repo.push(ChangeSet(files=files), base=base, branch=branch, message="m", when=WHEN)
    assert git("for-each-ref", "--format=%(refname)", cwd=tmp_path / "remote.git") == "refs/heads/main"


async def test_a_branch_is_deleted_once(repo: Repository, tmp_path: Path) -> None:
    """The second time there is nothing to do; the followed branch is never deleted."""
    base = await repo.head()
    await repo.push(ChangeSet(files={"a": "1\n"}), base=base, branch=BRANCH, message="one", when=WHEN)
    await repo.delete_branch(BRANCH)
    await repo.delete_branch(BRANCH)
    assert git("branch", "--list", BRANCH, cwd=tmp_path / "remote.git") == ""
    with pytest.raises(BotError):
        await repo.delete_branch("main")


async def test_an_unknown_commit_is_named(repo: Repository) -> None:
    """So is something that is no commit id, before git sees it."""
    with pytest.raises(BotError, match="no commit 000000000"):
        await repo.tree("0" * 40)
    with pytest.raises(BotError, match="is not a commit id"):
        await repo.tree("--output=/tmp/x")


async def test_callers_at_once_take_turns(repo: Repository) -> None:
    """A mirror is used by one at a time, so nobody trips over git's own locks."""
    heads = await asyncio.gather(*(repo.head() for _ in range(4)))
    assert len(set(heads)) == 1


async def test_a_remote_that_is_no_repository_is_a_message(tmp_path: Path) -> None:
    """A retry would not help."""
    with pytest.raises(BotError, match="GIT_REMOTE_URL"):
        await repository(tmp_path, str(tmp_path / "nothing.git")).head()


async def test_a_remote_with_a_password_is_refused(tmp_path: Path) -> None:
    """It would end in git's argument lists and messages."""
    with pytest.raises(BotError, match="GITHUB_TOKEN"):
        repository(tmp_path, f"https://x:{TOKEN}@example.com/a.git")


async def test_a_change_travels_from_a_commit_to_a_merge(tmp_path: Path, work: Path) -> None:
    """On a private remote, over smart HTTP and GitHub's API, with a partial mirror; each step may be repeated."""
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
        assert (await github.pull(1)).checks == "success"
        with pytest.raises(MergeRefused, match="head moved"):
            await github.merge(1, base)
        merged = await github.merge(1, pushed)
        assert await github.merge(1, pushed) == merged == await repo.head()
        assert (await repo.tree(merged)).read("README.md") == "new\n"
        for _ in range(2):
            await github.delete_branch(BRANCH)
            await repo.delete_branch(BRANCH)
        assert (await github.pull(1)).merge_commit == merged


@pytest.mark.parametrize("method", ["merge", "squash", "rebase"])
async def test_a_revert_takes_back_the_whole_pull_request(tmp_path: Path, work: Path, method: str) -> None:
    """All of its commits, however it was merged; what others did before and after it stays."""

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
        taken_back = await repo.reversal(merged, later, await github.commits(1))
        assert taken_back.files == {"a": None, "b": None, "README.md": "read me\n"}


async def test_a_picture_that_a_pull_request_replaced_is_left_to_people(repo: Repository, work: Path) -> None:
    """Only text is written back; nothing is deleted instead."""
    (work / "logo.png").write_bytes(b"\x89PNG\xfe")
    change = commit(work, "another logo")
    with pytest.raises(BotError, match=r"logo\.png\. Revert by hand"):
        await repo.reversal(change, change)


async def test_a_pull_request_that_is_given_up_leaves_nothing(tmp_path: Path, work: Path) -> None:
    """Closed, its branch deleted, and found again by its branch."""

    async def token() -> SecretStr:
        return SecretStr(TOKEN)

    remote = tmp_path / "remote.git"
    async with SandboxGitHub(remote, set(), token=TOKEN) as host, httpx.AsyncClient(base_url=host.api_url) as http:
        github = GitHub(http, host.repository, token)
        repo = repository(tmp_path, host.git_url, TOKEN)
        changes = ChangeSet(files={"README.md": "new\n"})
        await repo.push(changes, base=await repo.head(), branch=BRANCH, message="docs: new", when=WHEN)
        await github.open_pull(BRANCH, "main", "docs: new", "", [])
        await github.comment(1, "never mind")
        await github.close(1)
        await github.delete_branch(BRANCH)
        found = await github.find_pull(BRANCH)
        assert found is not None
        assert (found.state, found.merged, found.merge_commit) == ("closed", False, None)
        assert git("branch", "--list", BRANCH, cwd=remote) == ""


@pytest.mark.parametrize("wrong", ["ghs_wrong", None])
async def test_a_wrong_token_is_told(tmp_path: Path, work: Path, wrong: str | None) -> None:
    """And nothing asks for a name at a terminal."""
    async with SandboxGitHub(tmp_path / "remote.git", set(), token=TOKEN) as host:
        with pytest.raises(BotError, match="token's rights"):
            await repository(tmp_path, host.git_url, wrong).head()


class Host:
    """A git host that notes the Authorization header and turns everybody away with one status."""

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
async def test_the_token_shows_nowhere_but_in_its_header(
    tmp_path: Path,
    status: int,
    family: type[Exception],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not in a process's arguments, a log line, the mirror's files or the error; and outages are no refusals."""
    started: list[object] = []
    popen: Callable[..., None] = subprocess.Popen.__init__

    def noting(self: object, args: object, *rest: object, **options: object) -> None:
        started.append(args)
        popen(self, args, *rest, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", noting)
    caplog.set_level(logging.DEBUG)
    host = Host(status)
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    async with host.running() as url:
        with pytest.raises(family) as failure:
            await repository(tmp_path, url, TOKEN).head()
    assert host.seen[0] == f"Basic {basic}"
    written = b"".join(path.read_bytes() for path in (tmp_path / "mirror.git").rglob("*") if path.is_file()).decode()
    assert started
    for form in (TOKEN, basic):
        for place in (str(started), caplog.text, written, repr(failure.value), str(failure.value)):
            assert form not in place
