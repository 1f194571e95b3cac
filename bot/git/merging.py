"""Predict the result of a merge, and compute the changes that revert a merge. Both work in the mirror, file by file."""

from collections.abc import Mapping, Sequence

from bot.clients.github import Commit
from bot.errors import BotError
from bot.git.mirror import GitTree, Memory, Mirror
from manifests.tree import ChangeSet, contains, within


class MergedTree:
    """The files after a predicted merge: those of the base branch, with the changes applied."""

    def __init__(self, onto: GitTree, blobs: Mapping[str, str], texts: Mapping[str, str | None]) -> None:
        """`blobs` are git's ids of the changed files (empty for a deleted file). `texts` are their texts (None for a
        deleted file, or for a file that is not text).
        """
        self.commit = onto.commit
        self._onto, self._blobs, self._texts = onto, blobs, texts

    def read(self, path: str) -> str | None:
        return self._texts[path] if path in self._texts else self._onto.read(path)

    def files(self, prefix: str) -> tuple[str, ...]:
        unchanged = {path for path in self._onto.files(prefix) if path not in self._blobs}
        return tuple(sorted(unchanged | {path for path, blob in self._blobs.items() if blob and within(path, prefix)}))

    def grep(self, *texts: str) -> tuple[str, ...]:
        unchanged = {path for path in self._onto.grep(*texts) if path not in self._blobs}
        return tuple(sorted(unchanged | {path for path, content in self._texts.items() if contains(content, texts)}))

    def content(self, path: str) -> str:
        return self._blobs[path] if path in self._blobs else self._onto.content(path)


def after_merge(mirror: Mirror, memory: Memory, head: str, onto: str) -> "GitTree | MergedTree | None":
    """The files after merging `head` into `onto`; None if both change the same lines.

    The result equals git's, except that a rename counts as a deletion and an addition. The actual merge is compared with
    the prediction afterwards (`bot.platform.binding`), so a difference is detected and nothing is deployed.
    """
    mirror.require(head)
    mirror.require(onto)
    base = mirror.merge_base(head, onto)
    if base == head:
        return GitTree(mirror.offline(), mirror.listing(onto), memory)
    branch_changes = mirror.changes_between(base, head) or {}
    branch = mirror.listing(head)  # this also fetches the file contents
    tree = GitTree(mirror.offline(), mirror.listing(onto), memory)
    if base == onto:
        return GitTree(mirror.offline(), branch, memory)
    base_changes = mirror.changes_between(base, onto) or {}
    before = mirror.entries(base, [path for path in branch_changes if path in base_changes])
    blobs: dict[str, str] = {}
    texts: dict[str, str | None] = {}
    for path, entry in branch_changes.items():
        if path not in base_changes or base_changes[path] == before.get(path):
            blobs[path], texts[path] = entry[1] if entry else "", mirror.text(entry)
        elif base_changes[path] != entry:
            text = mirror.merge_entries(base_changes[path], before.get(path), entry)
            if text is None:
                return None
            blobs[path], texts[path] = mirror.blob_id(text, onto), text
    return MergedTree(tree, blobs, texts)


def reversal(mirror: Mirror, commit: str, onto: str, series: Sequence[Commit] = ()) -> ChangeSet:
    """The changes that revert a merged pull request: see `Repository.reversal`."""
    mirror.require(commit)
    before = _before(mirror, commit, series)
    was_there, was_made, is_now = (mirror.listing(at).entries for at in (before, commit, onto))
    files: dict[str, str | None] = {}
    stuck = []
    for path in mirror.changes_between(before, commit) or {}:
        was, merged_entry, now = was_there.get(path), was_made.get(path), is_now.get(path)
        if now == was:
            continue
        if now == merged_entry:
            old = None if was is None else mirror.text(was)
            files[path] = old
            stuck += [path] if was is not None and old is None else []
        else:
            merged = mirror.merge_entries(now, merged_entry, was)
            files[path] = merged
            stuck += [path] if merged is None else []
    if stuck:
        raise BotError(
            f"Stoker cannot revert the change, because these files were changed after it: {', '.join(stuck)}. "
            "Revert it by hand."
        )
    return ChangeSet(files=files)


def _before(mirror: Mirror, commit: str, series: Sequence[Commit]) -> str:
    """The commit onto which a pull request was merged.

    It is the first parent of a merge commit or a squash. A rebase applies the commits of `series` (oldest first) one by
    one, with the same author, date and message, and omits empty commits.
    """
    arguments = ["log", "--first-parent", f"--max-count={len(series) + 1}", "--format=%P%x00%ae%x00%at%x00%B%x1e"]
    lines = mirror.run(*arguments, commit, "--").decode(errors="replace").split("\x1e")
    history = [line.strip("\n").split("\0") for line in lines if line.strip()]
    begin = commit
    for pulled in reversed(series):
        if not history:
            break
        parents, by, at, message = history[0]
        if len(parents.split()) == 1 and pulled == Commit(by=by, at=int(at), message=message.strip()):
            begin = parents
            history = history[1:]
    if begin == commit:
        begin = mirror.object_id(f"{commit}^1", f"Commit {commit[:9]} has no parent, so it cannot be reverted.")
    return begin
