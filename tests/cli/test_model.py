"""`stoker model` as people and CI run it: another process, a real checkout, the platform's services on loopback.

Except in the first test, the processes are forks of a process that has imported Stoker.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from manifests.contract import Layout, check, read_endpoint
from manifests.platform import Platform
from manifests.tree import Checkout
from sandbox.faults import Faults
from sandbox.github import GitHub, seed
from sandbox.huggingface import Hub
from sandbox.process import start_stoker
from tests import forked

SAMPLE = Path(__file__).parents[2] / "sandbox" / "platform"
MINI = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
CHAT = "serving/coder-chat/deployment.yaml"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Terminal:
    """A checkout of the sample platform, and a shell in it without any of Stoker's settings."""

    checkout: Path
    environment: dict[str, str]

    async def stoker(
        self,
        *words: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        start: Callable[..., Any] = forked.start_stoker,
    ) -> Ended:
        environment = {**self.environment, **(env or {})}
        process = await start("model", *words, environment=environment, directory=cwd or self.checkout)
        out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    def plant(self, path: str, old: str, new: str) -> None:
        file = self.checkout / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def git(self, *words: str, stdin: str = "") -> str:
        done = subprocess.run(
            ("git", *words), cwd=self.checkout, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    checkout = tmp_path / "platform"
    shutil.copytree(SAMPLE, checkout)
    for deployment in checkout.glob(
        "serving/*/deployment.yaml"
    ):  # the state after `stoker model tune`, so that there are no warnings
        text = deployment.read_text()
        digest = re.search(r"@sha256:(\w{12})", text)
        caches = f"/models/compile-cache/{digest[1] if digest else ''}"
        deployment.write_text(text.replace("value: /tmp/.cache", f"value: {caches}"))
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    root = str(Path(__file__).parents[2])
    terminal = Terminal(checkout, {**environment, "PYTHONPATH": root, "USER": "ada", "LOGNAME": "ada"})
    terminal.git("init", "--quiet", "--initial-branch=main")
    terminal.git("add", "--all")
    terminal.git("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "--message=all")
    return terminal


@pytest.fixture
async def hub() -> AsyncIterator[str]:
    async with Hub(Faults()) as hub:
        yield hub.url


async def test_a_correct_checkout_passes(terminal: Terminal) -> None:
    """The output is one line with the number of checked endpoints."""
    ended = await terminal.stoker("check", start=start_stoker)
    assert (ended.code, ended.out, ended.err) == (0, "3 endpoints: all files agree.\n", "")


async def test_a_fault_fails_the_job_at_its_line(terminal: Terminal) -> None:
    """An editor can open the line, and the finding contains the fix."""
    terminal.plant(CHAT, "  replicas: 0", "  replicas: 1")
    ended = await terminal.stoker("check", str(terminal.checkout), cwd=terminal.checkout.parent)
    assert ended.code == 1
    assert ended.out.splitlines()[0].startswith(f"{CHAT}:14: replicas: ")
    assert ended.out.splitlines()[0].endswith("Fix: replicas: 0")
    assert ended.out.splitlines()[-1] == "3 endpoints: 1 finding."


async def test_a_file_that_is_not_yaml_is_a_finding(terminal: Terminal) -> None:
    """The other endpoints are still checked."""
    terminal.plant(CHAT, "  replicas: 0", "  replicas: 0]: {")
    terminal.plant("serving/coder-fim/deployment.yaml", "  replicas: 0", "  replicas: 1")
    ended = await terminal.stoker("check")
    assert ended.code == 1
    assert f"{CHAT}:14: yaml: this is not valid YAML" in ended.out
    assert "serving/coder-fim/deployment.yaml:13: replicas: " in ended.out
    assert ended.out.endswith("2 endpoints: 2 findings.\n")


async def test_programs_read_json(terminal: Terminal) -> None:
    """The JSON has the names of the endpoints, and findings with rule, severity, path, line, message and fix."""
    terminal.plant("platform/litellm/values.yaml", "input_cost_per_token: 0.0000005", "input_cost_per_token: 5e-07")
    ended = await terminal.stoker("check", "--format", "json")
    assert ended.code == 1
    result = json.loads(ended.out)
    assert result["endpoints"] == ["coder-chat", "coder-fim", "embeddings"]
    (finding,) = result["findings"]
    assert (finding["rule"], finding["path"]) == ("cost-not-a-number", "platform/litellm/values.yaml")
    assert set(finding) == {"rule", "severity", "path", "line", "message", "fix"}


async def test_github_shows_annotations_at_the_files_of_the_run(terminal: Terminal) -> None:
    """The paths are right even if the platform is in a folder of the workspace; special characters are escaped."""
    terminal.plant(CHAT, "--quantization=awq_marlin", "--quantization=gptq_marlin")
    ended = await terminal.stoker("check", "platform", "--format", "github", cwd=terminal.checkout.parent)
    assert ended.code == 1
    (annotation,) = ended.out.splitlines()
    assert annotation.startswith(f"::error file=platform/{CHAT},line=")
    assert ",title=stoker%3A quantization::--quantization=gptq_marlin" in annotation


async def test_one_endpoint_can_be_checked(terminal: Terminal) -> None:
    """An unknown name is an error that suggests the most similar name."""
    terminal.plant(CHAT, "  replicas: 0", "  replicas: 1")
    assert (await terminal.stoker("check", "--endpoint", "coder-fim")).code == 0
    unknown = await terminal.stoker("check", "--endpoint", "coder-chta")
    assert unknown.code == 2
    assert "Did you mean coder-chat?" in unknown.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("check", "nowhere"), "There is no directory nowhere"),
        (("check", "docs"), "has no endpoint in serving/"),
        (("show", "nobody"), "There is no endpoint 'nobody'"),
        (("remove", "nobody"), "There is no endpoint 'nobody'"),
        (("remove", "coder-chat", "context=1"), "context= is not an option of model remove"),
        (("remove", "coder-chat", "soon"), "'soon' is not an option"),
        (("add", "x", "nothing"), "is not a model on Hugging Face"),
        (("swap", "coder-chat", MINI, "context=lots"), "use a number of tokens, like 16384"),
        (("remove", "coder-chat", "--open"), "GITHUB_REPOSITORY is not set"),
    ],
)
async def test_an_impossible_command_ends_with_one_line(terminal: Terminal, words: tuple[str, ...], says: str) -> None:
    """The line is on standard error, with exit code 2 and without a traceback."""
    ended = await terminal.stoker(*words)
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.splitlines()) == 1
    assert ended.out == ""


async def test_a_platform_with_other_paths_is_found_from_its_files(terminal: Terminal) -> None:
    """The directories, the environment and the namespace differ, and there is no configuration."""
    (terminal.checkout / "serving").rename(terminal.checkout / "models")
    for folder in ("clusters", "environments"):
        (terminal.checkout / folder / "ai-dev").rename(terminal.checkout / folder / "prod")
    for file in (file for file in terminal.checkout.rglob("*.yaml") if ".git/" not in str(file)):
        text = file.read_text().replace("path: serving/", "path: models/").replace("ai-dev", "prod")
        text = text.replace("namespace: serving", "namespace: inference").replace(".serving.svc", ".inference.svc")
        file.write_text(text)
    assert (await terminal.stoker("check")).out == "3 endpoints: all files agree.\n"


async def test_the_platform_may_contain_its_layout(terminal: Terminal) -> None:
    """The layout may be in a separate file, which an option overrides."""
    (terminal.checkout / ".stoker.yaml").write_text("platform: {serving_dir: engines}\n")
    assert "has no endpoint in engines/" in (await terminal.stoker("check")).err
    another_file = terminal.checkout.parent / "other.yaml"
    another_file.write_text("platform: {serving_dir: serving}\n")
    assert (await terminal.stoker("check", "--config", str(another_file))).code == 0


async def test_endpoints_are_listed_and_shown(terminal: Terminal) -> None:
    """The output is a table for people, or JSON for programs."""
    listed = (await terminal.stoker("list")).out.splitlines()
    assert listed[0].split() == ["NAME", "KIND", "MODEL", "CONTEXT", "SYNC", "GROUP", "$", "IN", "$", "OUT"]
    assert listed[2].split()[:4] == ["coder-fim", "gpu-completion", "Qwen/Qwen2.5-Coder-1.5B", "8192"]
    names = [endpoint["name"] for endpoint in json.loads((await terminal.stoker("list", "--format", "json")).out)]
    assert names == ["coder-chat", "coder-fim", "embeddings"]
    listed_one = await terminal.stoker("show", "embeddings")
    assert re.search(r"^Application +embeddings \(automated sync\)$", listed_one.out, re.MULTILINE)
    assert json.loads((await terminal.stoker("show", "embeddings", "--format", "json")).out)["findings"] == []


async def test_a_dry_run_prints_a_patch_that_git_applies(terminal: Terminal, hub: str) -> None:
    """Only the patch is on standard output; the checkout does not change."""
    ended = await terminal.stoker("add", "coder-mini", MINI, "context=16384", env={"HF_ENDPOINT": hub})
    assert ended.code == 0, ended.err
    assert terminal.git("status", "--porcelain") == ""
    assert "feat(serving): add coder-mini" in ended.err
    assert "does not allow commercial use" in ended.err
    terminal.git("apply", stdin=ended.out)
    tree, layout = Checkout(terminal.checkout), Layout()
    assert check(Platform(tree, layout)) == ()
    assert read_endpoint(Platform(tree, layout), "coder-mini").context == 16384


async def test_add_and_remove_by_patches_leave_no_trace(terminal: Terminal, hub: str) -> None:
    """Removing is the exact inverse of adding."""
    terminal.git("apply", stdin=(await terminal.stoker("add", "coder-mini", MINI, env={"HF_ENDPOINT": hub})).out)
    assert terminal.git("status", "--porcelain") != ""
    terminal.git("apply", stdin=(await terminal.stoker("remove", "coder-mini")).out)
    assert terminal.git("status", "--porcelain") == ""


async def test_a_patch_is_coloured_for_people_and_plain_for_pipes(terminal: Terminal) -> None:
    """Colours are printed only on request."""
    assert "\x1b[" not in (await terminal.stoker("remove", "coder-fim")).out
    painted = (await terminal.stoker("remove", "coder-fim", "--color", "always")).out
    assert "\x1b[31m-apiVersion: apps/v1\x1b[0m\n" in painted


async def test_figures_are_sufficient_if_hugging_face_does_not_answer(terminal: Terminal) -> None:
    """Missing figures are requested by name; nothing is guessed, and the reviewer is notified."""
    nowhere = "http://127.0.0.1:9"
    refused = await terminal.stoker("swap", "coder-chat", MINI, "weights=2.7GB", env={"HF_ENDPOINT": nowhere})
    assert (refused.code, refused.out) == (2, "")
    assert "layers=28 kv-heads=4 head-size=128 max-context=32768" in refused.err
    figures = ("weights=2.7GB", "layers=36", "kv-heads=2", "head-size=128", "max-context=32768")
    ended = await terminal.stoker("swap", "coder-chat", MINI, *figures, env={"HF_ENDPOINT": nowhere})
    assert ended.code == 0, ended.err
    assert "+            - --model=Qwen/Qwen2.5-Coder-3B-Instruct-AWQ\n" in ended.out
    assert "was not looked up on Hugging Face" in ended.err


async def test_a_model_that_does_not_fit_is_refused_with_the_numbers(terminal: Terminal, hub: str) -> None:
    """The error contains a remedy."""
    big = "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ"
    ended = await terminal.stoker("swap", "coder-chat", big, env={"HF_ENDPOINT": hub})
    assert (ended.code, ended.out) == (2, "")
    assert "19.3 GB (18.0 GiB)" in ended.err
    assert "g2-standard-8" in ended.err


async def test_open_uses_the_layout_of_the_checkout(terminal: Terminal, tmp_path: Path) -> None:
    """Without a configuration, the files of the checkout determine where its endpoints are, as in a dry run."""
    for path in [path for path in terminal.checkout.rglob("*") if path.is_file() and ".git" not in path.parts]:
        path.write_text(path.read_text().replace("serving/", "models/").replace(".serving.svc", ".llm.svc"))
    (terminal.checkout / "serving").rename(terminal.checkout / "models")
    terminal.git("add", "--all")
    terminal.git("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "--message=moved")
    bare = tmp_path / "platform.git"
    await seed(terminal.checkout, bare)
    async with GitHub(bare, Faults(), repository="acme/llm-platform") as github:
        settings = {
            "GITHUB_REPOSITORY": "acme/llm-platform",
            "GITHUB_TOKEN": github.token,
            "GITHUB_API_URL": github.api_url,
            "GIT_REMOTE_URL": github.git_url,
            "STOKER_DATA_DIR": str(tmp_path / "data"),
        }
        opened = await terminal.stoker("remove", "coder-fim", "--open", env=settings)
        assert opened.code == 0, opened.err
        assert "/pull/1" in opened.out


async def test_open_pushes_one_commit_and_opens_one_pull_request(terminal: Terminal, hub: str, tmp_path: Path) -> None:
    """The same request again returns the same pull request."""
    bare = tmp_path / "platform.git"
    await seed(SAMPLE, bare)
    async with GitHub(bare, Faults(), repository="acme/llm-platform") as github:
        settings = {
            "HF_ENDPOINT": hub,
            "GITHUB_REPOSITORY": "acme/llm-platform",
            "GITHUB_TOKEN": github.token,
            "GITHUB_API_URL": github.api_url,
            "GIT_REMOTE_URL": github.git_url,
            "STOKER_DATA_DIR": str(tmp_path / "data"),
        }
        words = ("add", "coder-mini", MINI, "--open", "--because", "a `small` one")
        first = await terminal.stoker(*words, env=settings)
        assert first.code == 0, first.err
        again = await terminal.stoker(*words, env=settings)
        assert (again.code, again.out) == (0, first.out)
        assert github.token not in first.err + first.out

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), cwd=bare, capture_output=True, text=True, check=True).stdout

    (branch,) = git("for-each-ref", "--format=%(refname:short)", "refs/heads/stoker").split()
    message = git("log", "--format=%an%n%B", f"main..{branch}")
    assert message.startswith("Stoker\nfeat(serving): add coder-mini (Qwen2.5-Coder-3B-Instruct-AWQ)\n")
    assert "Requested-by: ada\n" in message
    assert message.count("Operation:") == 1


async def test_the_exit_code_follows_the_severity(terminal: Terminal) -> None:
    """A warning fails the job only if an option requests that."""
    terminal.plant("platform/litellm/values.yaml", "input_cost_per_token: 0.0000002", "input_cost_per_token: 0.0")
    ended = await terminal.stoker("check")
    assert ended.code == 0
    assert ": warning: cost-zero: " in ended.out
    assert (await terminal.stoker("check", "--strict")).code == 1
    annotated = await terminal.stoker("check", "--format", "github")
    assert annotated.out.startswith("::warning file=platform/litellm/values.yaml")


async def test_a_cold_start_is_a_warning_and_tune_shows_its_diff(terminal: Terminal) -> None:
    """It fails a build only on request; the output of `tune` resolves it."""
    engine = terminal.checkout / CHAT
    engine.write_text(re.sub(r"value: /models/compile-cache\S*", "value: /tmp/.cache", engine.read_text()))
    ended = await terminal.stoker("check")
    assert ended.code == 0
    assert f"{CHAT}:" in ended.out
    assert "warning: cold-start:" in ended.out
    assert (await terminal.stoker("check", "--strict")).code == 1
    printed = await terminal.stoker("tune", "coder-chat", "--dry-run")
    assert "+              value: /models/compile-cache/" in printed.out
    assert "-              value: /tmp/.cache" in printed.out
