"""From a request to its pull request: Stoker's way against the same steps by hand with git, on the same remote.

    python benchmarks/pull_request.py [--files 100 10000 100000] [--rounds 5]

For each size a repository is made of the sample platform and so many further files, and served by a GitHub on loopback
(git over HTTP and the REST API). Both sides start with a warm copy (a full clone for the hand, the bare mirror for Stoker);
before each round main moves by one commit, so that both have something to fetch. In turn, in the same round:

- Stoker: fetch, read the tree at main, plan the swap (the search for other files that name the served name included),
  commit, push, open the pull request;
- by hand: `git fetch`, `git switch -c … origin/main`, write the same files, `git add`, `git commit`, `git push`, and the same
  request to open the pull request. Thinking and typing are free.

Printed are the medians in milliseconds and their ratio. Exit code 1 when the ratio passes 1.5, or when the largest
repository takes Stoker more than twice as long as the smallest.
"""

import argparse
import asyncio
import base64
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from pydantic import SecretStr

from bot.clients.github import GitHub as Client
from bot.git.repository import Repository
from bot.platform.change_planning import planned, pull_body
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
    stoker: list[float] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.stoker) / statistics.median(self.by_hand)


async def measured(files: int, rounds: int, directory: Path) -> Times:
    bare, clone = directory / "platform.git", directory / "clone"
    await seed(SAMPLE, bare)
    fill(bare, files)
    async with GitHub(bare, Faults(), repository="acme/llm-platform") as github, httpx.AsyncClient() as rest:
        rest.base_url = httpx.URL(github.api_url)

        async def token() -> SecretStr:
            return SecretStr(github.token)

        client = Client(rest, "acme/llm-platform", token)
        repository = Repository(directory / "mirror.git", github.git_url, "main", token, "Stoker <stoker@example.com>")
        await git(github.token, None, "clone", "--quiet", github.git_url, str(clone))
        await repository.tree(await repository.head())
        times = Times()
        for number in range(rounds + 1):
            moved(bare, number)
            began = time.perf_counter()
            change = await stoker(repository, client, number)
            middle = time.perf_counter()
            await hand(clone, github.token, client, f"hand/swap-{number}", change)
            ended = time.perf_counter()
            if number:  # the first round warms both sides
                times.stoker.append(middle - began)
                times.by_hand.append(ended - middle)
        return times


async def stoker(repository: Repository, github: Client, number: int) -> Change:
    """Does the same as `bot.platform.pull_requests.propose`, without Redis and Slack. Each round has a different request."""
    branch, options = f"stoker/swap-{number}", (("context", str(4096 + 1024 * number)),)
    commit = await repository.head()
    tree = await repository.tree(commit)
    change = await asyncio.to_thread(planned, tree, Config(), "swap", "coder-chat", options, FACTS)
    message = f"{change.title}\n\nRequested-by: U1\nOperation: 1\n"
    await repository.push(change.changes, base=commit, branch=branch, message=message, when=datetime.now(UTC))
    body = pull_body(change, asked="Requested in Slack by `U1`", operation="1")
    await github.open_pull(branch, "main", change.title, body)
    return change


async def hand(clone: Path, token: str, github: Client, branch: str, change: Change) -> None:
    """The same commit by somebody who knows exactly what to write, and types infinitely fast."""
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


def fill(bare: Path, files: int) -> None:
    """One commit with this many more files, a hundred per directory, imported with git's fastest method."""
    script = [
        "commit refs/heads/main",
        "committer Fill <fill@example.com> 1700000000 +0000",
        *data("chore: more files"),
    ]
    script.append("from refs/heads/main^0")
    for number in range(files):
        script += [f"M 100644 inline apps/{number // 100:04d}/{number % 100:02d}.yaml", *data(f"name: app-{number}\n")]
    imported(bare, script)


def moved(bare: Path, number: int) -> None:
    """Somebody else's commit on main."""
    script = [
        "commit refs/heads/main",
        "committer Else <else@example.com> 1700000000 +0000",
        *data(f"docs: note {number}"),
    ]
    script += ["from refs/heads/main^0", "M 100644 inline docs/notes.md", *data(f"note {number}\n")]
    imported(bare, script)


def data(text: str) -> list[str]:
    return [f"data {len(text.encode())}", text]


def imported(bare: Path, script: list[str]) -> None:
    stream = "\n".join(script) + "\n"
    subprocess.run(["git", "fast-import", "--quiet"], cwd=bare, input=stream.encode(), check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    results: dict[int, Times] = {}
    print("   files   stoker   by hand   ratio")
    for files in asked.files:
        with tempfile.TemporaryDirectory(prefix="stoker-bench-") as directory:
            times = results[files] = asyncio.run(measured(files, asked.rounds, Path(directory)))
        stoker_ms, hand_ms = (1000 * statistics.median(each) for each in (times.stoker, times.by_hand))
        print(f"{files:8d} {stoker_ms:5.0f} ms {hand_ms:6.0f} ms   {times.ratio:5.2f}", flush=True)
    worst = max(times.ratio for times in results.values())
    first, last = (statistics.median(results[files].stoker) for files in (min(results), max(results)))
    return 1 if worst > 1.5 or last > 2 * first else 0


if __name__ == "__main__":
    sys.exit(main())
