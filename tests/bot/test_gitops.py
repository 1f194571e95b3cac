"""The mirror against real git: reading, pushing, and refusals."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bot.errors import BotError
from bot.git.complaints import PushRefused
from bot.git.repository import Repository
from manifests.strays import EXECUTABLE, LINK, REGULAR, SUBMODULE, Touch
from manifests.tree import ChangeSet
from tests.bot.git_remote import BRANCH, WHEN, commit, git, repo, repository, work

__all__ = ["repo", "work"]


async def test_the_head_is_the_last_pushed_commit(repo: Repository, work: Path) -> None:
    """Each call fetches from the remote."""
    assert await repo.head() == git("rev-parse", "HEAD", cwd=work)
    (work / "README.md").write_text("again\n")
    assert await repo.head() != (second := commit(work, "second"))
    assert await repo.head() == second


async def test_only_the_followed_branch_is_fetched_until_another_commit_is_needed(
    repo: Repository, tmp_path: Path, work: Path
) -> None:
    """Thousands of other branches cost nothing; a commit on one of them can still be read."""
    git("checkout", "--quiet", "-b", "theirs", cwd=work)
    (work / "README.md").write_text("theirs\n")
    foreign_commit = commit(work, "theirs")
    head = await repo.head()
    mirrored = git("for-each-ref", "--format=%(refname)", "refs/heads", cwd=tmp_path / "mirror.git")
    assert mirrored == "refs/heads/main"
    assert (await repo.tree(head)).read("README.md") == "read me\n"
    assert (await repo.tree(foreign_commit)).read("README.md") == "theirs\n"


async def test_a_file_that_is_too_large_is_not_read(
    repo: Repository, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 300 MB is not loaded into the bot's memory; a file just below the limit is read."""
    monkeypatch.setattr("bot.git.mirror._TEXT", 100_000)
    for name, length in (("largest.yaml", 100_000), ("larger.yaml", 100_001)):
        (work / "serving" / name).write_text("a" * length)
    head = commit(work, "large files")
    tree = await repo.tree(head)
    assert len(tree.read("serving/largest.yaml") or "") == 100_000
    assert tree.read("serving/larger.yaml") is None
    assert tree.read("README.md") == "read me\n"


async def test_more_files_than_can_be_read_are_refused(
    repo: Repository, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one sentence, and the repository is read again as soon as the files are gone."""
    head = await repo.head()
    monkeypatch.setattr("bot.git.mirror._OUTPUT", 4_000)
    for number in range(100):
        (work / f"file-{number:03}.txt").write_text(str(number))
    large = commit(work, "a hundred files")
    with pytest.raises(BotError, match="The repository is too large"):
        await repo.tree(large)
    assert (await repo.tree(head)).read("README.md") == "read me\n"


async def test_a_missing_branch_is_named(tmp_path: Path, work: Path) -> None:
    """If an installation follows a wrong branch, the error names it."""

    async def nobody() -> None:
        return None

    wrong = Repository(tmp_path / "mirror.git", str(tmp_path / "remote.git"), "trunk", nobody, "S <s@example.com>")
    with pytest.raises(BotError, match="has no branch trunk: create it, or name another"):
        await wrong.head()


async def test_a_commit_includes_those_before_it(repo: Repository, work: Path) -> None:
    """Argo CD may be at a later commit than the expected one, and a chart's version is not a commit."""
    first = await repo.head()
    (work / "README.md").write_text("again\n")
    second = commit(work, "second")
    assert await repo.includes(second, first)
    assert await repo.includes(first, first)
    assert not await repo.includes(first, second)
    assert not await repo.includes("1.106.0", first)


async def test_a_commit_is_reverted_on_top_of_later_ones(repo: Repository, work: Path) -> None:
    """Later changes in other parts of a file stay; if the same lines were changed, the error names the file."""
    lines = [f"line {number}\n" for number in range(1, 20)]
    (work / "README.md").write_text("".join(lines))
    commit(work, "long")
    (work / "README.md").write_text("".join(["first changed\n", *lines[1:]]))
    (work / "new.txt").write_text("new\n")
    change = commit(work, "change")
    (work / "README.md").write_text("".join(["first changed\n", *lines[1:-1], "last changed\n"]))
    later = commit(work, "later")
    reversal = (await repo.reversal(change, later)).files
    assert reversal == {"README.md": "".join([*lines[:-1], "last changed\n"]), "new.txt": None}
    (work / "README.md").write_text("".join(["first changed again\n", *lines[1:]]))
    with pytest.raises(BotError, match=r"README\.md\. Revert it by hand"):
        await repo.reversal(change, commit(work, "clash"))


async def test_a_branch_of_stoker_is_moved_only_from_its_last_commit(repo: Repository, work: Path) -> None:
    """Stoker makes a change again on top of a moved main branch, but never overwrites commits of people."""
    base = await repo.head()
    options: dict[str, Any] = {"branch": BRANCH, "message": "feat: add", "when": WHEN}
    first = await repo.push(ChangeSet(files={"a": "1\n"}), base=base, **options)
    second = await repo.push(ChangeSet(files={"a": "2\n"}), base=base, replaces=first, **options)
    assert await repo.push(ChangeSet(files={"a": "2\n"}), base=base, replaces=first, **options) == second
    with pytest.raises(PushRefused):
        await repo.push(ChangeSet(files={"a": "3\n"}), base=base, replaces=first, **options)


async def test_a_mirror_that_a_kill_left_broken_is_created_again(repo: Repository, tmp_path: Path, work: Path) -> None:
    """git leaves its lock files behind when it is killed; the mirror is then created again."""
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
    assert tree.grep("wörter", "--output=x", "read me") == ("README.md", "docs/ümlaut.md")


async def test_a_later_commit_is_searched_where_it_differs(repo: Repository, work: Path) -> None:
    """A new file, a changed one and a deleted one are found as by a search of the whole commit."""
    texts = ("name: ", "wörter")
    first = await repo.tree(await repo.head())
    assert first.grep(*texts) == ("docs/ümlaut.md", "serving/coder-chat-two/pvc.yaml", "serving/coder-chat/pvc.yaml")
    (work / "docs/ümlaut.md").write_text("words\n", encoding="utf-8")
    (work / "docs/new.md").write_text("name: new\n", encoding="utf-8")
    (work / "docs/other.md").write_text("other\n", encoding="utf-8")
    (work / "serving/coder-chat-two/pvc.yaml").unlink()
    commit(work, "second")
    later = await repo.tree(await repo.head())
    assert later.grep(*texts) == ("docs/new.md", "serving/coder-chat/pvc.yaml")
    assert first.grep(*texts) == ("docs/ümlaut.md", "serving/coder-chat-two/pvc.yaml", "serving/coder-chat/pvc.yaml")


async def test_a_tree_may_contain_anything_that_git_allows(repo: Repository, work: Path) -> None:
    """Names that are not UTF-8, links and submodules are listed, but have no text."""
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
    """History comes without file contents from a remote that allows it, and a tree is complete nevertheless."""
    remote = tmp_path / "remote.git"
    git("config", "uploadpack.allowFilter", "true", cwd=remote)
    repo = repository(tmp_path, f"file://{remote}")
    head = await repo.head()
    missing = git("rev-list", "--objects", "--missing=print", head, cwd=tmp_path / "mirror.git")
    assert "\n?" in missing
    tree = await repo.tree(head)
    remote.rename(tmp_path / "gone.git")  # reading no longer needs the remote
    assert tree.read("README.md") == "read me\n"
    assert tree.grep("wörter") == ("docs/ümlaut.md",)


async def test_a_later_commit_brings_its_contents(tmp_path: Path, work: Path) -> None:
    """The next request exchanges data with the remote once; this includes earlier contents that a revert restores."""
    remote = tmp_path / "remote.git"
    git("config", "uploadpack.allowFilter", "true", cwd=remote)
    first = git("rev-parse", "HEAD", cwd=work)
    (work / "README.md").write_text("second\n")
    commit(work, "second")
    repo = repository(tmp_path, f"file://{remote}")
    await repo.tree(await repo.head())
    (work / "docs/ümlaut.md").write_text("third\n")
    commit(work, "third")
    git("pack-refs", "--all", cwd=tmp_path / "mirror.git")
    head = await repo.head()
    remote.rename(away := tmp_path / "away.git")
    assert (await repo.tree(head)).read("docs/ümlaut.md") == "third\n"
    away.rename(remote)
    git("checkout", "--quiet", first, "--", "README.md", cwd=work)
    commit(work, "back")
    assert (await repo.tree(await repo.head())).read("README.md") == "read me\n"


async def test_the_result_of_a_merge_is_predicted(repo: Repository, work: Path) -> None:
    """The result equals git's merge for changes of both sides to one file, and for deleted, new and binary files."""
    lines = [f"line {n}\n" for n in range(20)]
    (work / "both.txt").write_text("".join(lines))
    base = commit(work, "base")
    git("checkout", "--quiet", "-b", "branch", cwd=work)
    (work / "both.txt").write_text("".join(["branch\n", *lines[1:]]))
    (work / "new.txt").write_text("new\n")
    (work / "logo.png").write_bytes(b"\x89PNG\xff\x01")
    (work / "README.md").unlink()
    head = commit(work, "branch")
    touched = await repo.changed_by(head, base, pushed=base)
    assert touched == {
        "README.md": Touch(REGULAR, ""),
        "both.txt": Touch(REGULAR, REGULAR),
        "logo.png": Touch(REGULAR, REGULAR),
        "new.txt": Touch("", REGULAR),
    }
    assert not any(touch.foreign for touch in (await repo.changed_by(head, base, pushed=head)).values())
    git("checkout", "--quiet", "main", cwd=work)
    (work / "both.txt").write_text("".join([*lines[:-1], "main\n"]))
    (work / "docs/more.md").write_text("more\n")
    main = commit(work, "main")
    foreseen = await repo.after_merge(head, main)
    assert foreseen
    git("merge", "--quiet", "--no-edit", "branch", cwd=work)
    merged = await repo.tree(commit_of(work))
    assert foreseen.files("") == merged.files("")
    for path in merged.files(""):
        assert foreseen.content(path) == merged.content(path), path
        assert foreseen.read(path) == merged.read(path), path
    assert foreseen.grep("branch") == merged.grep("branch") == ("both.txt",)


async def test_the_changes_of_a_branch_to_each_file_are_known(repo: Repository, work: Path) -> None:
    """This includes changes of a mode, a symbolic link, a submodule and a name, and whether the bot made them."""
    base = commit_of(work)
    git("checkout", "--quiet", "-b", "branch", cwd=work)
    (work / "ours.txt").write_text("ours\n")
    pushed = commit(work, "ours")
    (work / "README.md").chmod(0o755)
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "logo.png").rename(work / "renamed.png")
    git("add", "--all", cwd=work)
    git("update-index", "--add", "--cacheinfo", f"{SUBMODULE},{base},vendored", cwd=work)
    git("commit", "--quiet", "-m", "theirs", cwd=work)
    head = commit_of(work)
    assert await repo.changed_by(head, base, pushed) == {
        "README.md": Touch(REGULAR, EXECUTABLE),
        "logo.png": Touch(REGULAR, ""),
        "ours.txt": Touch("", REGULAR, foreign=False),
        "passwd": Touch("", LINK),
        "renamed.png": Touch("", REGULAR),
        "vendored": Touch("", SUBMODULE),
    }
    foreseen = await repo.after_merge(head, base)
    assert foreseen
    assert (foreseen.read("passwd"), foreseen.read("vendored")) == (None, None)


async def test_a_conflict_is_predicted(repo: Repository, work: Path) -> None:
    """Both sides change the same line. A branch that main already contains changes nothing."""
    first = await repo.head()
    git("checkout", "--quiet", "-b", "branch", cwd=work)
    (work / "README.md").write_text("branch\n")
    head = commit(work, "branch")
    git("checkout", "--quiet", "main", cwd=work)
    (work / "README.md").write_text("main\n")
    main = commit(work, "main")
    assert await repo.after_merge(head, main) is None
    same = await repo.after_merge(first, main)
    assert same
    assert same.read("README.md") == "main\n"


def commit_of(work: Path) -> str:
    git("push", "--quiet", "origin", "HEAD", cwd=work)
    return git("rev-parse", "HEAD", cwd=work)


async def test_a_push_is_one_commit_with_just_the_changes(repo: Repository, tmp_path: Path) -> None:
    """The commit adds, changes and deletes files; the modes of files stay, even if a file is rewritten."""
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
    """The commit is also the same in another mirror, as after a crash, and after people have added commits to the branch."""
    base = await repo.head()
    changes = ChangeSet(files={"README.md": "new\n"})
    first = await repo.push(changes, base=base, branch=BRANCH, message="docs: new", when=WHEN)
    another_mirror = repository(tmp_path / "other", str(tmp_path / "remote.git"))
    assert await another_mirror.push(changes, base=base, branch=BRANCH, message="docs: new", when=WHEN) == first
    git("fetch", "--quiet", cwd=work)
    git("checkout", "--quiet", BRANCH, cwd=work)
    (work / "more").write_text("more\n")
    further = commit(work, "more")
    assert await repo.push(changes, base=base, branch=BRANCH, message="docs: new", when=WHEN) == first
    assert git("rev-parse", BRANCH, cwd=tmp_path / "remote.git") == further


async def test_a_branch_with_other_work_is_never_overwritten(repo: Repository, tmp_path: Path) -> None:
    """The push is refused, and the branch is unchanged."""
    base = await repo.head()
    first = await repo.push(ChangeSet(files={"a": "1\n"}), base=base, branch=BRANCH, message="one", when=WHEN)
    with pytest.raises(PushRefused, match="somebody else has pushed"):
        await repo.push(ChangeSet(files={"a": "2\n"}), base=base, branch=BRANCH, message="two", when=WHEN)
    assert git("rev-parse", BRANCH, cwd=tmp_path / "remote.git") == first


@pytest.mark.parametrize(
    ("files", "branch", "message"),
    [
        ({"README.md": "read me\n"}, BRANCH, "nothing to change"),
        ({"x": "y"}, "main", "by pull request"),
        ({"x": "y"}, "a..b", "not a valid branch name"),
        ({"../escape": "y"}, BRANCH, "Invalid path"),
        ({".git/config": "y"}, BRANCH, "Invalid path"),
    ],
)
async def test_an_invalid_push_is_refused(
    repo: Repository, tmp_path: Path, files: dict[str, str | None], branch: str, message: str
) -> None:
    """Nothing reaches the remote, and the error contains the reason."""
    base = await repo.head()
    with pytest.raises(BotError, match=message):
        await repo.push(ChangeSet(files=files), base=base, branch=branch, message="m", when=WHEN)
    assert git("for-each-ref", "--format=%(refname)", cwd=tmp_path / "remote.git") == "refs/heads/main"


async def test_a_branch_is_deleted_once(repo: Repository, tmp_path: Path) -> None:
    """A second deletion does nothing; the followed branch is never deleted."""
    base = await repo.head()
    await repo.push(ChangeSet(files={"a": "1\n"}), base=base, branch=BRANCH, message="one", when=WHEN)
    await repo.delete_branch(BRANCH)
    await repo.delete_branch(BRANCH)
    assert git("branch", "--list", BRANCH, cwd=tmp_path / "remote.git") == ""
    with pytest.raises(BotError):
        await repo.delete_branch("main")


async def test_an_unknown_commit_is_named(repo: Repository) -> None:
    """A text that is not a commit id is refused before git gets it."""
    with pytest.raises(BotError, match="no commit 000000000"):
        await repo.tree("0" * 40)
    with pytest.raises(BotError, match="is not a commit id"):
        await repo.tree("--output=/tmp/x")


async def test_simultaneous_callers_take_turns(repo: Repository) -> None:
    """Only one caller at a time uses a mirror, so git's locks never conflict."""
    heads = await asyncio.gather(*(repo.head() for _ in range(4)))
    assert len(set(heads)) == 1


async def test_a_remote_that_is_not_a_repository_is_an_error(tmp_path: Path) -> None:
    """A retry would not help."""
    with pytest.raises(BotError, match="GIT_REMOTE_URL"):
        await repository(tmp_path, str(tmp_path / "nothing.git")).head()


async def test_a_picture_that_a_pull_request_replaced_is_left_to_people(repo: Repository, work: Path) -> None:
    """Stoker can restore only text, and does not delete the picture instead."""
    (work / "logo.png").write_bytes(b"\x89PNG\xfe")
    change = commit(work, "another logo")
    with pytest.raises(BotError, match=r"logo\.png\. Revert it by hand"):
        await repo.reversal(change, change)
