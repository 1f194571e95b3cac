"""A revert restores every byte, through the mirror and real git; only a volume that grew keeps its size."""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.git.repository import Repository
from manifests.platform import Platform
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Files, ManifestError
from manifests.tune import plan_tune
from manifests.volumes import without_shrinking
from tests.bot.git_remote import git
from tests.manifests.layout_variants import STYLES, styled
from tests.manifests.test_properties import FIRST, LAYOUT, LIKE, MACHINE, MODELS, UNHURRIED

pytestmark = pytest.mark.timeout(300)

WHEN = datetime(2026, 11, 29, 9, 0, tzinfo=UTC)
Bytes = dict[str, bytes]

kinds = st.sampled_from(("chat", "fim"))
styles = st.sampled_from(sorted(STYLES))


@given(kind=kinds, number=st.integers(0, 7), context=st.sampled_from((None, 2048, 8192)), style=styles)
@settings(UNHURRIED, max_examples=10)
def test_a_reverted_swap_leaves_no_trace(kind: str, number: int, context: int | None, style: str) -> None:
    tree = Files(styled(FIRST, style))
    facts = MODELS[kind][number % len(MODELS[kind])]
    swap = SwapRequest(name=LIKE[kind], facts=facts, context=context, kind="completion" if kind == "fim" else None)
    try:
        changes = plan_swap(Platform(tree, LAYOUT), swap, MACHINE).changes
    except ManifestError:
        return  # too large, or nothing would change
    assert_reverted(tree, changes)


@given(kind=kinds, style=styles)
@settings(UNHURRIED, max_examples=5)
def test_a_reverted_tune_leaves_no_trace(kind: str, style: str) -> None:
    tree = Files(styled(FIRST, style))
    assert_reverted(tree, plan_tune(Platform(tree, LAYOUT), LIKE[kind]).changes)


def assert_reverted(tree: Files, changes: ChangeSet) -> None:
    first = {path: (tree.read(path) or "").encode() for path in tree.files("")}
    with tempfile.TemporaryDirectory() as directory:
        changed, reverted, grown = asyncio.run(merged_and_reverted(Path(directory), first, changes))
    assert changed != first
    assert reverted.keys() == first.keys()
    for path in first:
        before, after = first[path].splitlines(keepends=True), reverted[path].splitlines(keepends=True)
        differs = [new for old, new in zip(before, after, strict=True) if old != new]
        assert len(differs) <= len(grown), path
        assert all(b"storage:" in line for line in differs), path


async def merged_and_reverted(
    directory: Path, first: Bytes, changes: ChangeSet
) -> tuple[Bytes, Bytes, tuple[str, ...]]:
    """Return the files after the merges of a change and of its revert, and the volumes that keep their size."""
    remote, work = directory / "remote.git", directory / "work"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(remote), cwd=directory)
    git("clone", "--quiet", str(remote), str(work), cwd=directory)
    for key, value in {"user.name": "dev", "user.email": "dev@example.com"}.items():
        git("config", key, value, cwd=work)
    git("checkout", "--quiet", "-B", "main", cwd=work)
    for path, content in first.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(content)
    commit(work)

    async def nobody() -> None:
        return None

    repo = Repository(directory / "mirror.git", str(remote), "main", nobody, "Stoker <stoker@example.com>")

    async def merged(changes: ChangeSet, branch: str) -> tuple[str, Bytes]:
        base = await repo.head()
        await repo.push(changes, base=base, branch=branch, message="a change", when=WHEN)
        git("fetch", "--quiet", "origin", cwd=work)
        git("merge", "--quiet", "--squash", f"origin/{branch}", cwd=work)
        return commit(work), files_of(work)

    merge, changed = await merged(changes, "stoker/change")
    reversal, grown = without_shrinking(await repo.tree(merge), await repo.reversal(merge, merge))
    _, reverted = await merged(reversal, "stoker/revert")
    return changed, reverted, grown


def commit(work: Path) -> str:
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "-m", "a commit", cwd=work)
    git("push", "--quiet", "origin", "HEAD", cwd=work)
    return git("rev-parse", "HEAD", cwd=work)


def files_of(work: Path) -> Bytes:
    return {path: (work / path).read_bytes() for path in git("ls-files", cwd=work).splitlines()}
