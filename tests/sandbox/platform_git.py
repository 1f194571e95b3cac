"""The sample platform as a git remote in memory: commits are dictionaries of files."""

from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "sandbox" / "platform"


class MemoryGit:
    def __init__(self) -> None:
        files = {str(p.relative_to(SAMPLE)): p.read_text() for p in SAMPLE.rglob("*") if p.is_file()}
        self._commits = [files]

    async def main_commit(self) -> str:
        return self.head

    @property
    def head(self) -> str:
        return _id(len(self._commits) - 1)

    async def files_at(self, commit: str, prefix: str) -> dict[str, str]:
        files = next((files for n, files in enumerate(self._commits) if _id(n) == commit), None)
        if files is None:
            raise LookupError(f"unknown revision {commit}")
        return {
            path: text for path, text in files.items() if not prefix or path == prefix or path.startswith(f"{prefix}/")
        }

    def edit(self, path: str, old: str, new: str) -> str:
        """Commit a replaced text to main, and return the commit's id."""
        changed = self._commits[-1][path].replace(old, new)
        self._commits.append(self._commits[-1] | {path: changed})
        return self.head

    def remove(self, path: str) -> str:
        self._commits.append({p: text for p, text in self._commits[-1].items() if p != path})
        return self.head

    def add(self, path: str, text: str) -> str:
        self._commits.append(self._commits[-1] | {path: text})
        return self.head


def _id(number: int) -> str:
    return f"{number:040x}"
