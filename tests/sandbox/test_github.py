"""The sandbox's GitHub, used with git over HTTP and with REST."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from sandbox.faults import Faults
from sandbox.github import GitHub, seed

PULLS = "/repos/acme/llm-platform/pulls"


class Developer:
    """A clone of the repository, and a person with a token."""

    def __init__(self, github: GitHub, clone: Path) -> None:
        self.github = github
        self.clone = clone
        self.rest = httpx.AsyncClient(base_url=github.api_url, headers={"Authorization": f"Bearer {github.token}"})

    async def git(self, *args: str, token: str | None = None) -> str:
        basic = base64.b64encode(f"x-access-token:{token or self.github.token}".encode()).decode()
        env = {
            **os.environ,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": "3",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
            "GIT_CONFIG_KEY_1": "user.name",
            "GIT_CONFIG_VALUE_1": "Dev",
            "GIT_CONFIG_KEY_2": "user.email",
            "GIT_CONFIG_VALUE_2": "dev@example.com",
        }
        done = await asyncio.to_thread(
            subprocess.run, ("git", *args), env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    async def push(self, branch: str, text: str, *, message: str = "feat: a change", start: str = "origin/main") -> str:
        """Push one commit that writes README.md to a new branch, and return its id."""
        at = ("-C", str(self.clone))
        await self.git(*at, "checkout", "-q", "-B", branch, start)
        (self.clone / "README.md").write_text(text)
        await self.git(*at, "commit", "-qam", message)
        await self.git(*at, "push", "-q", "--force", "origin", branch)
        return await self.git(*at, "rev-parse", "HEAD")

    async def open(self, branch: str) -> dict[str, Any]:
        request_body = {"head": branch, "base": "main", "title": f"Add {branch}", "body": "<b>why</b>"}
        response = await self.rest.post(PULLS, json=request_body)
        assert response.status_code == 201, response.text
        pull: dict[str, Any] = response.json()
        return pull

    async def pull(self, number: int = 1) -> dict[str, Any]:
        pull: dict[str, Any] = (await self.rest.get(f"{PULLS}/{number}")).json()
        return pull


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def github(tmp_path: Path, faults: Faults) -> AsyncIterator[GitHub]:
    source = tmp_path / "source"
    (source / "serving").mkdir(parents=True)
    (source / "README.md").write_text("one\n")
    (source / "serving" / "pvc.yaml").write_text("kind: PersistentVolumeClaim\n")
    await seed(source, tmp_path / "remote.git")
    async with GitHub(tmp_path / "remote.git", faults) as github:
        yield github


@pytest.fixture
async def dev(github: GitHub, tmp_path: Path) -> AsyncIterator[Developer]:
    dev = Developer(github, tmp_path / "clone")
    await dev.git("clone", "-q", github.git_url, str(dev.clone))
    async with dev.rest:
        yield dev


async def test_a_plain_directory_becomes_a_repository_that_git_clones_over_http(dev: Developer) -> None:
    """The files of the directory are the first commit on main."""
    assert (dev.clone / "serving" / "pvc.yaml").is_file()
    assert await dev.git("-C", str(dev.clone), "branch", "--show-current") == "main"


async def test_an_existing_repository_keeps_its_history(dev: Developer, tmp_path: Path) -> None:
    """Seeding from a clone copies its commits, and main exists even if the clone's branch has another name."""
    await dev.git("-C", str(dev.clone), "checkout", "-q", "-b", "trunk")
    await dev.git("-C", str(dev.clone), "branch", "-D", "main")
    await seed(str(dev.clone), tmp_path / "again.git")
    async with GitHub(tmp_path / "again.git", set()) as copy:
        assert await copy.main_commit() == await dev.github.main_commit()


async def test_git_without_the_token_is_refused(dev: Developer) -> None:
    """Neither fetch nor push works with another password."""
    with pytest.raises(subprocess.CalledProcessError):
        await dev.git("ls-remote", dev.github.git_url, token="wrong")


async def test_rest_without_the_token_answers_bad_credentials(dev: Developer) -> None:
    """The REST API checks the bearer token."""
    async with httpx.AsyncClient() as stranger:
        response = await stranger.get(f"{dev.github.api_url}{PULLS}")
    assert (response.status_code, response.json()["message"]) == (401, "Bad credentials")


async def test_the_simulated_argocd_reads_files_at_a_commit(dev: Developer) -> None:
    """files_at returns the texts below a folder, even of an old commit, and nothing for a missing folder."""
    commit = await dev.github.main_commit()
    assert await dev.github.files_at(commit, "serving") == {"serving/pvc.yaml": "kind: PersistentVolumeClaim\n"}
    assert await dev.github.files_at(commit, "nowhere") == {}


async def test_a_pull_request_follows_its_branch(dev: Developer) -> None:
    """A push to the branch moves the head, and its check restarts."""
    first = await dev.push("feature/x", "two\n")
    pull = await dev.open("feature/x")
    assert (pull["head"]["sha"], pull["mergeable"], pull["additions"], pull["changed_files"]) == (first, True, 1, 1)
    await dev.github.checks("success")
    second = await dev.push("feature/x", "three\n")
    assert (await dev.pull())["head"]["sha"] == second
    runs = (await dev.rest.get(f"/repos/acme/llm-platform/commits/{second}/check-runs")).json()["check_runs"]
    assert [(run["name"], run["status"], run["conclusion"]) for run in runs] == [("ci", "in_progress", None)]


async def test_a_second_pull_request_for_a_branch_is_refused_in_githubs_words(dev: Developer) -> None:
    """A branch has one open pull request, and the message names the owner and the branch."""
    await dev.push("x", "two\n")
    await dev.open("x")
    again = await dev.rest.post(PULLS, json={"head": "x", "base": "main", "title": "again"})
    assert again.status_code == 422
    assert again.json()["message"] == "Validation Failed"
    assert again.json()["errors"][0]["message"] == "A pull request already exists for acme:x."


async def test_pull_requests_are_found_by_their_head(dev: Developer) -> None:
    """The head filter needs owner:branch, and closed pull requests are listed only on request."""
    await dev.push("x", "two\n")
    await dev.open("x")
    await dev.github.close()
    pulls = (await dev.rest.get(PULLS, params={"head": "acme:x", "state": "all"})).json()
    assert [pull["number"] for pull in pulls] == [1]
    assert (await dev.rest.get(PULLS, params={"head": "acme:x"})).json() == []
    issue = (await dev.rest.get("/repos/acme/llm-platform/issues/1")).json()
    assert issue["closed_by"]["login"] == "octocat"


@pytest.mark.parametrize("method", ["merge", "squash", "rebase"])
async def test_a_merge_lands_on_main(dev: Developer, method: str) -> None:
    """Each merge method creates a commit on main with the change, even if main has other new commits."""
    head = await dev.push("x", "two\n", message="feat: x\n\nRequested-by: dev")
    await dev.open("x")
    response = await dev.rest.put(f"{PULLS}/1/merge", json={"sha": head, "merge_method": method})
    assert response.status_code == 200, response.text
    commit = response.json()["sha"]
    assert await dev.github.main_commit() == commit
    assert (await dev.github.files_at(commit, "README.md"))["README.md"] == "two\n"
    if method != "merge":
        assert "Requested-by: dev" in await dev.github.repo.message(commit)
    pull = await dev.pull()
    assert (pull["merged"], pull["state"], pull["merge_commit_sha"], pull["changed_files"]) == (
        *(True, "closed", commit),
        1,
    )


async def test_the_sha_guard_refuses_a_head_that_moved(dev: Developer) -> None:
    """Exactly the approved commit is merged."""
    approved = await dev.push("x", "two\n")
    await dev.open("x")
    await dev.push("x", "three\n")
    response = await dev.rest.put(f"{PULLS}/1/merge", json={"sha": approved})
    assert response.status_code == 409
    assert response.json()["message"] == "Head branch was modified. Review and try the merge again."


@pytest.mark.parametrize("plumbing", [True, False])
async def test_a_conflict_is_not_mergeable(dev: Developer, plumbing: bool) -> None:
    """Of two changes of one line, the second cannot be merged, neither by a git that merges in memory nor by an older git."""
    if not plumbing:
        dev.github.repo._plumbing = False
    await dev.push("x", "two\n")
    await dev.push("y", "three\n")
    await dev.open("x")
    await dev.open("y")
    assert (await dev.rest.put(f"{PULLS}/1/merge", json={})).status_code == 200
    assert (await dev.pull(2))["mergeable"] is False
    response = await dev.rest.put(f"{PULLS}/2/merge", json={})
    assert (response.status_code, response.json()["message"]) == (405, "Pull Request is not mergeable")


async def test_a_deleted_branch_closes_its_pull_request(dev: Developer) -> None:
    """A second deletion reports that the reference does not exist."""
    await dev.push("x", "two\n")
    await dev.open("x")
    ref = "/repos/acme/llm-platform/git/refs/heads/x"
    assert (await dev.rest.delete(ref)).status_code == 204
    assert (await dev.pull())["state"] == "closed"
    assert (await dev.rest.delete(ref)).json()["message"] == "Reference does not exist"


async def test_labels_and_comments_stay_with_the_pull_request(dev: Developer) -> None:
    """Both are added through the issue, as on GitHub."""
    await dev.push("x", "two\n")
    await dev.open("x")
    issue = "/repos/acme/llm-platform/issues/1"
    await dev.rest.post(f"{issue}/labels", json={"labels": ["stoker"]})
    await dev.rest.post(f"{issue}/comments", json={"body": "hello"})
    assert [label["name"] for label in (await dev.pull())["labels"]] == ["stoker"]
    assert [comment["body"] for comment in (await dev.rest.get(f"{issue}/comments")).json()] == ["hello"]


async def test_an_unchanged_answer_is_not_sent_again(dev: Developer) -> None:
    """A GET with the ETag of the last answer is a 304."""
    etag = (await dev.rest.get(PULLS)).headers["ETag"]
    assert (await dev.rest.get(PULLS, headers={"If-None-Match": etag})).status_code == 304


async def test_the_page_shows_the_diff_and_escapes_everything(dev: Developer) -> None:
    """The pull request's address opens a page; its buttons act for other people, and only from the page itself."""
    await dev.push("x", "<script>\n")
    pull = await dev.open("x")
    async with httpx.AsyncClient(follow_redirects=True) as browser:
        page = (await browser.get(pull["html_url"])).text
        assert "+&lt;script&gt;" in page
        assert "<script>" not in page
        assert "&lt;b&gt;why" in page
        foreign = await browser.post(f"{pull['html_url']}/merge", headers={"Origin": "http://elsewhere.example"})
        assert foreign.status_code == 403
        assert "merged" in (await browser.post(f"{pull['html_url']}/merge")).text
    assert (await dev.pull())["merged_by"]["login"] == "octocat"


async def test_webhooks_are_signed_and_survive_a_failing_receiver(dev: Developer) -> None:
    """The events arrive in order, signed with the secret, even if the first attempt fails."""
    events: list[tuple[str, str]] = []
    attempts = 0
    done = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            return web.Response(status=503)
        body = await request.read()
        expected = "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
        assert request.headers["X-Hub-Signature-256"] == expected
        events.append((request.headers["X-GitHub-Event"], json.loads(body)["action"]))
        if len(events) == 4:
            done.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    dev.github.webhook(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", "s3cret")
    await dev.push("x", "two\n")
    await dev.open("x")
    await dev.push("x", "three\n")
    await dev.github.checks("failure")
    await dev.github.merge()
    with suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), 60)
    await runner.cleanup()
    assert events == [
        ("pull_request", "opened"),
        ("pull_request", "synchronize"),
        ("check_run", "completed"),
        ("pull_request", "closed"),
    ]


async def test_a_github_outage_affects_every_request(dev: Developer, faults: Faults) -> None:
    """With the fault github-down, the API and git answer 503 until it is switched off."""
    faults.add("github-down")
    assert (await dev.rest.get(PULLS)).status_code == 503
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{dev.github.git_url}/info/refs")).status_code == 503
    faults.discard("github-down")
    assert (await dev.rest.get(PULLS)).status_code == 200


async def test_the_panel_lists_open_and_ended_pull_requests(dev: Developer) -> None:
    """The newest pull request is first, with its checks and its page."""
    await dev.push("x", "two\n")
    await dev.open("x")
    await dev.push("y", "three\n")
    await dev.open("y")
    await dev.github.checks("success")
    await dev.rest.patch(f"{PULLS}/1", json={"state": "closed"})
    listed = [(pull["number"], pull["state"], pull["checks"]) for pull in dev.github.panel()]
    assert listed == [(2, "open", "success"), (1, "closed", "pending")]
    assert dev.github.panel()[0]["url"] == f"{dev.github.url}/acme/llm-platform/pull/2"


async def test_check_runs_can_appear_later(dev: Developer) -> None:
    """A new head has no check runs; later they appear as running, and then they end."""
    await dev.github.checks_none()
    await dev.push("x", "two\n")
    sha = (await dev.open("x"))["head"]["sha"]
    runs = f"/repos/acme/llm-platform/commits/{sha}/check-runs"
    assert (await dev.rest.get(runs)).json() == {"total_count": 0, "check_runs": []}
    await dev.github.checks_appear()
    (run,) = (await dev.rest.get(runs)).json()["check_runs"]
    assert (run["status"], run["conclusion"], run["app"]["slug"]) == ("in_progress", None, "github-actions")
    await dev.github.checks_none()
    assert (await dev.rest.get(runs)).json()["check_runs"] == []
    await dev.github.checks("success")
    assert [run["conclusion"] for run in (await dev.rest.get(runs)).json()["check_runs"]] == ["success"]


async def test_each_run_of_a_workflow_has_a_suite_and_its_workflow_is_known(dev: Developer) -> None:
    """Two workflows may have a check with the same name; a restarted run is listed next to the older run."""
    await dev.push("x", "two\n")
    sha = (await dev.open("x"))["head"]["sha"]
    dev.github.ci.add(sha, "build", "failure", workflow="a.yaml")
    dev.github.ci.add(sha, "build", "success", workflow="b.yaml")
    check_runs = (await dev.rest.get(f"/repos/acme/llm-platform/commits/{sha}/check-runs")).json()["check_runs"]
    workflows = (await dev.rest.get("/repos/acme/llm-platform/actions/runs", params={"head_sha": sha})).json()
    suites = {run["check_suite_id"]: run["path"] for run in workflows["workflow_runs"]}
    assert [(run["name"], run["conclusion"], suites[run["check_suite"]["id"]]) for run in check_runs] == [
        ("build", "success", ".github/workflows/b.yaml"),
        ("build", "failure", ".github/workflows/a.yaml"),
        ("ci", None, ".github/workflows/ci.yaml"),
    ]


async def test_the_newest_status_of_a_context_counts(dev: Developer, faults: Faults) -> None:
    """Without a status, the state is pending with a count of 0; a token without the permission gets 403."""
    await dev.push("x", "two\n")
    sha = (await dev.open("x"))["head"]["sha"]
    path = f"/repos/acme/llm-platform/commits/{sha}/status"
    assert (await dev.rest.get(path)).json() == {"state": "pending", "sha": sha, "total_count": 0, "statuses": []}
    await dev.github.status("ci/old", "error")
    assert (await dev.rest.get(path)).json()["state"] == "failure"
    await dev.github.status("ci/old", "success")
    combined = (await dev.rest.get(path)).json()
    assert (combined["state"], [commit_status["context"] for commit_status in combined["statuses"]]) == (
        "success",
        ["ci/old"],
    )
    faults.add("statuses-refused")
    answer = await dev.rest.get(path)
    assert (answer.status_code, answer.json()["message"]) == (403, "Resource not accessible by personal access token")


async def test_people_push_and_commit(dev: Developer) -> None:
    """They push to the pull request's branch and to main; GitHub still shows the old base commit."""
    await dev.push("x", "two\n")
    opened = await dev.open("x")
    commit = await dev.github.push("serving/new.yaml", "kind: Secret\n")
    pull = await dev.pull()
    assert (pull["head"]["sha"], pull["changed_files"]) == (commit, 2)
    main = await dev.github.change_main("serving/pvc.yaml", "PersistentVolumeClaim", "kind: ")
    assert await dev.github.main_commit() == main
    assert await dev.github.files_at(main, "serving") == {
        "serving/pvc.yaml": "PersistentVolumeClaimPersistentVolumeClaim\n"
    }
    assert (await dev.pull())["base"]["sha"] == opened["base"]["sha"] != main
    with pytest.raises(LookupError, match="does not contain “absent”"):
        await dev.github.change_main("README.md", "", "absent")


async def test_a_pull_request_is_merged_into_its_base_branch(dev: Developer) -> None:
    """If somebody changes the base branch, GitHub merges the pull request into the new one."""
    await dev.push("x", "two\n")
    await dev.open("x")
    main = await dev.github.main_commit()
    await dev.github.retarget("release")
    assert ((await dev.pull())["base"]["ref"], dev.github.merged_to()) == ("release", None)
    await dev.github.merge()
    assert (dev.github.merged_to(), await dev.github.main_commit()) == ("release", main)
    await dev.push("y", "three\n")
    await dev.open("y")
    assert dev.github.merged_to() is None
    refused = await dev.rest.patch(f"{PULLS}/2", json={"base": "nowhere"})
    assert refused.status_code == 422
    assert (await dev.rest.patch(f"{PULLS}/2", json={"base": "release"})).json()["base"]["ref"] == "release"


async def test_a_draft_is_not_merged(dev: Developer) -> None:
    """mergeable_state and the merge report it."""
    await dev.push("x", "two\n")
    await dev.open("x")
    dev.github.newest().draft = True
    pull = await dev.pull()
    assert (pull["draft"], pull["mergeable_state"], pull["auto_merge"]) == (True, "draft", None)
    answer = await dev.rest.put(f"{PULLS}/1/merge", json={})
    assert (answer.status_code, answer.json()["message"]) == (405, "Pull Request is still a draft")
