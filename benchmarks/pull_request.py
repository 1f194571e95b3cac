"""Measure the time from a request to its pull request, compared with the same steps in git on an equal remote.

    python benchmarks/pull_request.py [--files 100 10000 100000] [--rounds 5]

Each repository contains the sample platform and the given number of other files. The sandbox's GitHub serves it on loopback
(git over HTTP and the REST API). Each side has its own copy. With one copy for both, the second push of the same files would
be cheaper, and the manual steps would fetch Stoker's branch. Stoker starts with its bare mirror, the manual steps start with
a full clone; both are up to date.
Each round first adds a commit to main, so that both have something to fetch, and then measures both:

- Stoker: fetch, read the tree at main, plan the swap (including the search for other files that contain the served name),
  commit, push, open the pull request;
- by hand: `git fetch`, `git switch -c … origin/main`, write the same files, `git add`, `git commit`, `git push`, and the same
  request to open the pull request. The time that a person needs to think and type is not included.

It prints the medians in milliseconds and their ratio. The goal is a ratio of at most 1.2; the exit code is 1 if the ratio is
higher, or if Stoker needs more than twice as long for the largest repository as for the smallest.
"""

import argparse
import asyncio
import base64
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from pydantic import SecretStr

from bot.clients.github import GitHub as Client
from bot.git.repository import Repository
from bot.platform.change_planning import plan_change, pull_body
from bot.settings.config import Config
from manifests.change import Change
from manifests.sizing import ModelFacts
from sandbox.faults import Faults
from sandbox.github import GitHub, seed

SAMPLE = Path(__file__).parents[1] / "sandbox" / "platform"
FACTS = ModelFacts(
    hf_id="Qwen/Qwen2.5-Coder-3B-Instruct-AWQ",
    revision="0" * 40,
    weight_bytes=2_686_000_000,
    layers=36,
    kv_heads=2,
    head_size=128,
    max_context=32768,
    quantization="awq",
)


@dataclass
class Times:
    """Seconds of each round."""

    stoker: list[float] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.stoker) / statistics.median(self.by_hand)


async def measure(files: int, rounds: int, directory: Path) -> Times:
    bare, manual_bare, clone = directory / "platform.git", directory / "other.git", directory / "clone"
    await seed(SAMPLE, bare)
    add_files(bare, files)
    subprocess.run(["git", "config", "uploadpack.allowFilter", "true"], cwd=bare, check=True)  # GitHub allows it too
    shutil.copytree(bare, manual_bare)
    name, faults = "acme/llm-platform", Faults()
    async with (
        GitHub(bare, faults, repository=name) as github,
        GitHub(manual_bare, faults, repository=name) as manual_github,
        rest_client(github) as client,
        rest_client(manual_github) as manual_client,
    ):
        mirror = directory / "mirror.git"
        repository = Repository(mirror, github.git_url, "main", token_of(github), "Stoker <stoker@example.com>")
        await git(manual_github.token, None, "clone", "--quiet", manual_github.git_url, str(clone))
        await repository.tree(await repository.head())
        gc.collect()
        gc.freeze()  # as the bot does before it is ready
        times = Times()
        for number in range(rounds + 1):
            add_commit_to_main(bare, number)
            add_commit_to_main(manual_bare, number)
            began = time.perf_counter()
            change = await propose_with_stoker(repository, client, number)
            middle = time.perf_counter()
            await propose_by_hand(clone, manual_github.token, manual_client, f"hand/swap-{number}", change)
            ended = time.perf_counter()
            if number:  # the first round warms up both sides
                times.stoker.append(middle - began)
                times.by_hand.append(ended - middle)
        return times


@asynccontextmanager
async def rest_client(github: GitHub) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(base_url=github.api_url) as http:
        yield Client(http, github.repository, token_of(github))


def token_of(github: GitHub) -> Callable[[], Awaitable[SecretStr]]:
    async def token() -> SecretStr:
        return SecretStr(github.token)

    return token


async def propose_with_stoker(repository: Repository, github: Client, number: int) -> Change:
    """Do the same as `bot.platform.pull_requests.propose`, without Redis and Slack. Each round has a different request."""
    branch, options = f"stoker/swap-{number}", (("context", str(4096 + 1024 * number)),)
    commit = await repository.head()
    tree = await repository.tree(commit)
    change = await asyncio.to_thread(plan_change, tree, Config(), "swap", "coder-chat", options, FACTS)
    message = f"{change.title}\n\nRequested-by: U1\nOperation: 1\n"
    await repository.push(change.changes, base=commit, branch=branch, message=message, when=datetime.now(UTC))
    body = pull_body(change, origin="Requested in Slack by `U1`", operation="1")
    await github.open_pull(branch, "main", change.title, body)
    return change


async def propose_by_hand(clone: Path, token: str, github: Client, branch: str, change: Change) -> None:
    """Create the same commit and pull request with git in a clone."""
    await git(token, clone, "fetch", "--quiet", "origin")
    await git(token, clone, "switch", "--quiet", "--create", branch, "origin/main")
    for path, text in change.changes.files.items():
        assert text is not None
        (clone / path).write_text(text)
    await git(token, clone, "add", "--", *change.changes.files)
    await git(token, clone, "commit", "--quiet", "--message", change.title)
    await git(token, clone, "push", "--quiet", "origin", branch)
    await github.open_pull(branch, "main", change.title, "by hand")


async def git(token: str, clone: Path | None, *words: str) -> None:
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    config = {
        "http.extraHeader": f"Authorization: Basic {basic}",
        "user.name": "Hand",
        "user.email": "hand@example.com",
    }
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": str(len(config)),
        **{f"GIT_CONFIG_KEY_{i}": key for i, key in enumerate(config)},
        **{f"GIT_CONFIG_VALUE_{i}": text for i, text in enumerate(config.values())},
    }
    process = await asyncio.create_subprocess_exec("git", *words, cwd=clone, env=environment)
    if await process.wait():
        raise SystemExit(f"git {words[0]} failed")


def add_files(bare: Path, files: int) -> None:
    """Add `files` files in one commit, a hundred per directory."""
    script = [
        "commit refs/heads/main",
        "committer Fill <fill@example.com> 1700000000 +0000",
        *data("chore: more files"),
    ]
    script.append("from refs/heads/main^0")
    for number in range(files):
        script += [f"M 100644 inline apps/{number // 100:04d}/{number % 100:02d}.yaml", *data(f"name: app-{number}\n")]
    fast_import(bare, script)


def add_commit_to_main(bare: Path, number: int) -> None:
    """Commit a note to main as another author."""
    script = [
        "commit refs/heads/main",
        "committer Else <else@example.com> 1700000000 +0000",
        *data(f"docs: note {number}"),
    ]
    script += ["from refs/heads/main^0", "M 100644 inline docs/notes.md", *data(f"note {number}\n")]
    fast_import(bare, script)


def data(text: str) -> list[str]:
    return [f"data {len(text.encode())}", text]


def fast_import(bare: Path, script: list[str]) -> None:
    stream = "\n".join(script) + "\n"
    subprocess.run(["git", "fast-import", "--quiet"], cwd=bare, input=stream.encode(), check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results: dict[int, Times] = {}
    print("   files   stoker   by hand   ratio")
    for files in options.files:
        with tempfile.TemporaryDirectory(prefix="stoker-bench-") as directory:
            times = results[files] = asyncio.run(measure(files, options.rounds, Path(directory)))
        stoker_ms, hand_ms = (1000 * statistics.median(seconds) for seconds in (times.stoker, times.by_hand))
        print(f"{files:8d} {stoker_ms:5.0f} ms {hand_ms:6.0f} ms   {times.ratio:5.2f}", flush=True)
    worst = max(times.ratio for times in results.values())
    first, last = (statistics.median(results[files].stoker) for files in (min(results), max(results)))
    return 1 if worst > 1.2 or last > 2 * first else 0


if __name__ == "__main__":
    sys.exit(main())
