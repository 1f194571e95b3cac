"""Pull requests over GitHub's REST protocol, against a stand-in that stores them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from bot.clients.github import BaseMoved, GitHub, MergeRefused
from bot.errors import BotError, Unavailable
from tests.clients.wire import Wire, client, nobody, wire

TOKEN = "ghs_tokenOfThisTest"
HEAD = "a" * 40
MERGED = "c" * 40
REPO = "/repos/acme/platform"
BRANCH = "stoker/add-coder-mini"


class Remote:
    """GitHub's side of one repository."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.pulls: list[dict[str, Any]] = []
        wire.on("GET", REPO, {"allow_squash_merge": True, "allow_merge_commit": True})
        wire.answers["GET", f"{REPO}/pulls"] = self.list
        wire.answers["POST", f"{REPO}/pulls"] = self.open
        self.check()

    async def list(self, request: web.Request, body: Any) -> web.Response:
        head = request.query["head"].removeprefix("acme:")
        newest_first = reversed([pull for pull in self.pulls if pull["head"]["ref"] == head])
        return web.json_response(list(newest_first))

    async def open(self, request: web.Request, body: Any) -> web.Response:
        if any(pull["state"] == "open" and pull["head"]["ref"] == body["head"] for pull in self.pulls):
            errors = [{"message": f"A pull request already exists for acme:{body['head']}."}]
            return web.json_response({"message": "Validation Failed", "errors": errors}, status=422)
        number = len(self.pulls) + 1
        pull = {
            "number": number,
            "html_url": f"https://github.example/acme/platform/pull/{number}",
            "title": body["title"],
            "state": "open",
            "merged": False,
            "merged_by": None,
            "merge_commit_sha": "f" * 40,
            "head": {"sha": HEAD, "ref": body["head"]},
            "base": {"ref": body["base"]},
            "mergeable": None,
            "additions": 3,
            "deletions": 1,
            "changed_files": 2,
        }
        self.pulls.append(pull)
        path = f"{REPO}/pulls/{number}"
        self.wire.on("GET", path, pull)
        self.wire.answers["PATCH", path] = self.patch
        self.wire.answers["PUT", f"{path}/merge"] = self.merge
        self.wire.on("POST", f"{REPO}/issues/{number}/labels", [])
        self.wire.on("GET", f"{path}/reviews", [])
        return web.json_response(pull, status=201)

    async def patch(self, request: web.Request, body: Any) -> web.Response:
        pull = self.pulls[int(request.path.rpartition("/")[2]) - 1]
        pull.update(body)
        return web.json_response(pull)

    async def merge(self, request: web.Request, body: Any) -> web.Response:
        pull = self.pulls[int(request.path.split("/")[-2]) - 1]
        if pull["merged"]:
            return web.json_response({"message": "Pull Request is not mergeable"}, status=405)
        if body["sha"] != pull["head"]["sha"]:
            return web.json_response({"message": "Head branch was modified."}, status=409)
        merged_by = {"login": "stoker-bot"}
        pull.update(state="closed", merged=True, merged_by=merged_by, merge_commit_sha=MERGED)
        return web.json_response({"sha": MERGED, "merged": True})

    def check(self, runs: tuple[tuple[str, str | None], ...] = (), statuses: tuple[tuple[str, str], ...] = ()) -> None:
        """Runs as (name, conclusion or None while it runs), statuses as (context, state)."""
        ran = [{"name": name, "status": "completed" if end else "in_progress", "conclusion": end} for name, end in runs]
        listed = [{"context": context, "state": state} for context, state in statuses]
        self.wire.on("GET", f"{REPO}/commits/{HEAD}/check-runs", {"total_count": len(ran), "check_runs": ran})
        self.wire.on("GET", f"{REPO}/commits/{HEAD}/status", {"state": "pending", "statuses": listed})


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    async with wire() as server:
        yield Remote(server)


async def token() -> SecretStr:
    return SecretStr(TOKEN)


@pytest.fixture
async def github(remote: Remote) -> AsyncIterator[GitHub]:
    async with client(remote.wire.url) as http:
        yield GitHub(http, "acme/platform", token)


async def test_a_pull_request_is_opened_once(remote: Remote, github: GitHub) -> None:
    """A second request returns the open pull request."""
    assert await github.find_pull(BRANCH) is None
    first = await github.open_pull(BRANCH, "main", "feat: add", "body", ["stoker"])
    again = await github.open_pull(BRANCH, "main", "feat: add", "body", ["stoker"])
    assert first == again == await github.find_pull(BRANCH)
    assert len(remote.pulls) == 1
    assert (first.number, first.state, first.head_ref, first.base_ref) == (1, "open", BRANCH, "main")
    assert first.url == "https://github.example/acme/platform/pull/1"
    assert first.merge_commit is None  # before the merge GitHub shows a test merge
    assert remote.wire.calls("POST", f"{REPO}/issues/1/labels")[0].json == {"labels": ["stoker"]}


async def test_two_simultaneous_runs_open_one_pull_request(remote: Remote, github: GitHub) -> None:
    """If GitHub answers that the pull request already exists, Stoker finds it."""
    listing = remote.list
    first = True

    async def blind_once(request: web.Request, body: Any) -> web.StreamResponse:
        nonlocal first
        if first:
            first = False
            return web.json_response([])
        return await listing(request, body)

    opened = await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    remote.wire.answers["GET", f"{REPO}/pulls"] = blind_once
    assert await github.open_pull(BRANCH, "main", "feat: add", "body", []) == opened


async def test_a_closed_pull_request_does_not_stop_the_next(remote: Remote, github: GitHub) -> None:
    """The person who closed it is read from the issue of the pull request."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    await github.close(1)
    await github.close(1)
    assert len(remote.wire.calls("PATCH", f"{REPO}/pulls/1")) == 1
    assert (await github.pull(1)).closed_by is None
    remote.wire.on("GET", f"{REPO}/issues/1", {"closed_by": {"login": "lead"}})
    assert (await github.pull(1)).closed_by == "lead"
    assert (await github.open_pull(BRANCH, "main", "feat: add", "body", [])).number == 2


async def test_a_refused_pull_request_has_the_reason(remote: Remote, github: GitHub) -> None:
    """The error has the details of GitHub's validation."""
    answer = {"message": "Validation Failed", "errors": [{"message": "No commits between main and x"}]}
    remote.wire.on("POST", f"{REPO}/pulls", answer, status=422)
    with pytest.raises(BotError, match="No commits between main and x"):
        await github.open_pull("x", "main", "t", "b", [])


@pytest.mark.parametrize(
    ("runs", "statuses", "verdict", "failing"),
    [
        ((), (), "none", ()),
        ((("lint", "success"), ("docs", "skipped")), (), "success", ()),
        ((("lint", "success"), ("test", None)), (), "pending", ()),
        ((), (("ci/old", "pending"),), "pending", ()),
        ((("lint", "success"),), (("ci/old", "error"),), "failure", ("ci/old",)),
        ((("b", "timed_out"), ("a", "failure"), ("c", None)), (), "failure", ("a", "b")),
    ],
)
async def test_check_runs_and_statuses_are_one_verdict(
    remote: Remote, github: GitHub, runs: Any, statuses: Any, verdict: str, failing: tuple[str, ...]
) -> None:
    """A repository without any CI has no checks; GitHub itself would report pending."""
    remote.check(runs, statuses)
    pull = await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    assert (pull.ci.verdict, pull.ci.failing) == (verdict, failing)


async def test_every_page_of_checks_is_read(remote: Remote, github: GitHub) -> None:
    """The failing check may be on the second page."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])

    async def pages(request: web.Request, body: Any) -> web.StreamResponse:
        page = int(request.query["page"])
        run = {"name": f"run {page}", "status": "completed", "conclusion": "success" if page == 1 else "failure"}
        headers = {"Link": f'<{request.url}>; rel="next"'} if page == 1 else {}
        return web.json_response({"total_count": 2, "check_runs": [run]}, headers=headers)

    remote.wire.answers["GET", f"{REPO}/commits/{HEAD}/check-runs"] = pages
    assert (await github.pull(1)).ci.failing == ("run 2",)


async def test_the_last_opinion_of_each_reviewer_counts(remote: Remote, github: GitHub) -> None:
    """A comment is not a review, and a dismissed review does not count."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    opinions = [("ann", "CHANGES_REQUESTED"), ("bob", "APPROVED"), ("ann", "APPROVED"), ("ann", "COMMENTED")]
    opinions += [("cy", "CHANGES_REQUESTED"), ("dee", "APPROVED"), ("dee", "DISMISSED")]
    reviews = [{"user": {"login": reviewer}, "state": state} for reviewer, state in opinions]
    remote.wire.on("GET", f"{REPO}/pulls/1/reviews", reviews)
    pull = await github.pull(1)
    assert (pull.approved_by, pull.rejected_by, pull.blocked) == (("ann", "bob"), ("cy",), False)
    remote.pulls[0]["mergeable_state"] = "blocked"
    assert (await github.pull(1)).blocked


async def test_a_file_is_linked_where_people_read_it(remote: Remote, github: GitHub) -> None:
    """The link leads to the repository's page, at the commit and the line."""
    remote.wire.on("GET", REPO, {"html_url": "https://github.example/acme/platform"})
    url = await github.file_url(HEAD, "serving/coder chat/pvc.yaml", 7)
    assert url == f"https://github.example/acme/platform/blob/{HEAD}/serving/coder%20chat/pvc.yaml#L7"


async def test_exactly_the_approved_head_is_merged_once(remote: Remote, github: GitHub) -> None:
    """A repeated call returns the same merge commit."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    assert await github.merge(1, HEAD, "main") == MERGED
    assert await github.merge(1, HEAD, "main") == MERGED
    merges = [call.json for call in remote.wire.calls("PUT", f"{REPO}/pulls/1/merge")]
    assert merges == [{"sha": HEAD, "merge_method": "squash"}]  # the commit message follows the repository's settings
    pull = await github.pull(1)
    assert (pull.state, pull.merged, pull.merged_by, pull.merge_commit) == ("closed", True, "stoker-bot", MERGED)


@pytest.mark.parametrize(
    ("allowed", "method"),
    [
        ({}, "squash"),
        ({"allow_squash_merge": False, "allow_merge_commit": True}, "merge"),
        ({"allow_squash_merge": False, "allow_merge_commit": False, "allow_rebase_merge": True}, "rebase"),
    ],
)
async def test_the_repository_decides_how_to_merge(
    remote: Remote, github: GitHub, allowed: dict[str, bool], method: str
) -> None:
    """Squash is preferred to merge, and merge to rebase; if the token may not read the settings, Stoker tries squash."""
    remote.wire.on("GET", REPO, allowed)
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    await github.merge(1, HEAD, "main")
    assert remote.wire.calls("PUT", f"{REPO}/pulls/1/merge")[0].json["merge_method"] == method


@pytest.mark.parametrize(
    ("rules", "method"),
    [
        ([{"type": "required_linear_history"}], "rebase"),
        ([{"type": "pull_request", "parameters": {"allowed_merge_methods": ["merge", "rebase"]}}], "merge"),
        ([{"type": "pull_request", "parameters": {}}, {"type": "deletion"}], "merge"),
    ],
)
async def test_the_branch_s_rules_decide_as_well(
    remote: Remote, github: GitHub, rules: list[dict[str, Any]], method: str
) -> None:
    """The first allowed method that the base branch accepts is used; squash is not allowed here."""
    remote.wire.on("GET", REPO, {"allow_squash_merge": False})
    remote.wire.on("GET", f"{REPO}/rules/branches/main", rules)
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    await github.merge(1, HEAD, "main")
    assert remote.wire.calls("PUT", f"{REPO}/pulls/1/merge")[0].json["merge_method"] == method


async def test_a_merge_queue_is_left_to_people(remote: Remote, github: GitHub) -> None:
    """The merge queue merges in its own order: the bot requests nothing, and explains what to do."""
    remote.wire.on("GET", f"{REPO}/rules/branches/main", [{"type": "merge_queue"}])
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    with pytest.raises(MergeRefused, match="merge queue: add pull request #1 to it on GitHub"):
        await github.merge(1, HEAD, "main")
    assert remote.wire.calls("PUT", f"{REPO}/pulls/1/merge") == []


async def test_a_merge_that_collides_with_another_can_be_retried(remote: Remote, github: GitHub) -> None:
    """GitHub refuses temporarily while something else is merged; this is not a decision."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    message = "Base branch was modified. Review and try the merge again."
    remote.wire.on("PUT", f"{REPO}/pulls/1/merge", {"message": message}, status=405)
    with pytest.raises(BaseMoved, match="try the merge again"):
        await github.merge(1, HEAD, "main")


async def test_a_moved_head_is_not_merged(remote: Remote, github: GitHub) -> None:
    """A refusal by GitHub is an error with GitHub's message."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    with pytest.raises(MergeRefused, match="its head is no longer"):
        await github.merge(1, "b" * 40, "main")
    remote.wire.on("PUT", f"{REPO}/pulls/1/merge", {"message": "Review required."}, status=405)
    with pytest.raises(MergeRefused, match="Review required"):
        await github.merge(1, HEAD, "main")


async def test_a_merge_of_another_head_is_not_accepted(remote: Remote, github: GitHub) -> None:
    """Nothing counts as merged, and the content of the main branch needs a new approval."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    remote.pulls[0].update(state="closed", merged=True, merge_commit_sha=MERGED, head={"sha": "b" * 40, "ref": BRANCH})
    with pytest.raises(MergeRefused, match="merged on GitHub at bbbbbbbbb, not at aaaaaaaaa"):
        await github.merge(1, HEAD, "main")


async def test_the_deletion_of_a_missing_branch_succeeds(remote: Remote, github: GitHub) -> None:
    """GitHub answers 422 for a branch that does not exist."""
    path = f"{REPO}/git/refs/heads/{BRANCH}"
    remote.wire.on("DELETE", path, status=204, text="")
    await github.delete_branch(BRANCH)
    remote.wire.on("DELETE", path, {"message": "Reference does not exist"}, status=422)
    await github.delete_branch(BRANCH)


@pytest.mark.parametrize(
    ("status", "headers", "message", "expected"),
    [
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795428000"}, "API rate limit exceeded", "Z"),
        (403, {"retry-after": "60"}, "You have exceeded a secondary rate limit", "60 s"),
        (403, {}, "You have exceeded a secondary rate limit", "rate limited"),
        (429, {"retry-after": "5"}, "", "5 s"),
        (502, {}, "", "502"),
    ],
)
async def test_a_busy_github_is_unavailable(
    remote: Remote, github: GitHub, status: int, headers: dict[str, str], message: str, expected: str
) -> None:
    """Both rate limits and an outage are temporary, and the error contains the time."""
    remote.wire.on("GET", f"{REPO}/pulls/1", {"message": message}, status=status, headers=headers)
    with pytest.raises(Unavailable, match=expected):
        await github.pull(1)


async def test_nothing_is_sent_while_github_asks_to_wait(remote: Remote, github: GitHub) -> None:
    """Further requests would extend the limit; when the time is over, the client continues."""
    limited = {"message": "You have exceeded a secondary rate limit"}
    remote.wire.on("GET", f"{REPO}/pulls/1", limited, status=403, headers={"retry-after": "60"})
    for _ in range(3):
        with pytest.raises(Unavailable, match="asks to wait 60 s"):
            await github.pull(1)
    assert len(remote.wire.requests) == 1
    remote.wire.on("GET", f"{REPO}/branches/main", limited, status=429, headers={"retry-after": "0"})
    async with client(remote.wire.url) as http:
        another_client = GitHub(http, "acme/platform", token)
        with pytest.raises(Unavailable):
            await another_client.protected("main")
        remote.wire.on("GET", f"{REPO}/branches/main", {"protected": True})
        assert await another_client.protected("main")


async def test_an_unchanged_answer_is_not_sent_again(remote: Remote, github: GitHub) -> None:
    """A poll with ETags does not count against the rate limit, and detects a change immediately."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    path, tagged = f"{REPO}/pulls/1", 0

    async def conditional(request: web.Request, body: Any) -> web.StreamResponse:
        nonlocal tagged
        etag = f'W/"{remote.pulls[0]["title"]}"'
        if request.headers.get("If-None-Match") == etag:
            tagged += 1
            return web.Response(status=304, headers={"ETag": etag})
        return web.json_response(remote.pulls[0], headers={"ETag": etag})

    remote.wire.answers["GET", path] = conditional
    assert [(await github.pull(1)).title for _ in range(3)] == ["feat: add"] * 3
    assert tagged == 2
    remote.pulls[0]["title"] = "feat: add more"
    assert (await github.pull(1)).title == "feat: add more"


async def test_a_closed_pull_request_is_not_mistaken_for_a_new_one(remote: Remote, github: GitHub) -> None:
    """The error contains GitHub's reason for refusing the second pull request."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    await github.close(1)
    answer = {"message": "Validation Failed", "errors": [{"field": "base", "code": "invalid"}]}
    remote.wire.on("POST", f"{REPO}/pulls", answer, status=422)
    with pytest.raises(BotError, match="Validation Failed: invalid"):
        await github.open_pull(BRANCH, "main", "feat: add", "body", [])


async def test_a_missing_permission_is_named(remote: Remote, github: GitHub) -> None:
    """The error uses GitHub's names of token permissions."""
    message, headers = "Resource not accessible by integration", {"x-accepted-github-permissions": "checks=read"}
    remote.wire.on("GET", f"{REPO}/pulls/1", {"message": message}, status=403, headers=headers)
    with pytest.raises(BotError, match=r"by integration \(403\)\. Give the token the permission checks: read\."):
        await github.pull(1)


@pytest.mark.parametrize(("status", "expected"), [(401, "GITHUB_TOKEN"), (403, "not accessible"), (404, "pulls/1")])
async def test_a_refusal_is_explained(remote: Remote, github: GitHub, status: int, expected: str) -> None:
    """The reason is a wrong token, a missing permission or a wrong repository."""
    remote.wire.on("GET", f"{REPO}/pulls/1", {"message": "Resource not accessible"}, status=status)
    with pytest.raises(BotError, match=expected):
        await github.pull(1)


async def test_the_token_is_only_in_the_header(
    remote: Remote, github: GitHub, caplog: pytest.LogCaptureFixture
) -> None:
    """The token is not in a URL, a log line or an error."""
    caplog.set_level("DEBUG")
    with pytest.raises(BotError) as refusal:
        await github.pull(9)
    request = remote.wire.requests[0]
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["X-GitHub-Api-Version"] == "2022-11-28"
    assert TOKEN not in f"{request.path}{request.query}{refusal.value}{caplog.text}"
    async with nobody() as url, client(url) as http:
        with pytest.raises(Unavailable) as outage:
            await GitHub(http, "acme/platform", token).pull(1)
    assert TOKEN not in str(outage.value)


def test_a_repository_needs_owner_and_name() -> None:
    """The name becomes a part of every URL."""
    with pytest.raises(BotError, match="owner/name"):
        GitHub(client(), "https://github.com/acme/platform", token)


async def test_the_checks_to_wait_for_are_those_of_the_rules_and_of_recent_pull_requests(
    remote: Remote, github: GitHub
) -> None:
    """Rules are classic protection and rulesets. A check is usual if all of the last merged pull requests had it."""
    classic = {"enabled": True, "required_status_checks": {"contexts": ["lint"], "checks": [{"context": "lint"}]}}
    remote.wire.on("GET", f"{REPO}/branches/main", {"protected": True, "protection": classic})
    rule = {"type": "required_status_checks", "parameters": {"required_status_checks": [{"context": "test"}]}}
    remote.wire.on("GET", f"{REPO}/rules/branches/main", [{"type": "deletion"}, rule])
    merged = [{"merged_at": "2026-11-29T05:00:00Z", "head": {"sha": sha}} for sha in ("1" * 40, "2" * 40)]
    remote.wire.on("GET", f"{REPO}/pulls", [{"merged_at": None, "head": {"sha": "3" * 40}}, *merged])
    for sha, names in (("1" * 40, ("build", "docs")), ("2" * 40, ("build",))):
        runs = [{"name": name, "status": "completed", "conclusion": "success"} for name in names]
        remote.wire.on("GET", f"{REPO}/commits/{sha}/check-runs", {"check_runs": runs})
        remote.wire.on("GET", f"{REPO}/commits/{sha}/status", {"statuses": []})
    expected = await github.expected("main")
    assert (expected.required, expected.usual) == (("lint", "test"), ("build",))


@pytest.mark.parametrize("status", [403, 404])
async def test_results_that_the_token_may_not_read_are_omitted_and_listed(
    remote: Remote, github: GitHub, status: int
) -> None:
    """Unreadable statuses or rules stop nothing, and the remaining results count."""
    remote.check((("lint", "success"),))
    answer = {"message": "Resource not accessible by personal access token"}
    for path in (f"/commits/{HEAD}/status", "/branches/main", "/rules/branches/main"):
        remote.wire.on("GET", REPO + path, answer, status=status)
    pull = await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    assert (pull.ci.verdict, pull.ci.unread) == ("success", ("commit statuses",))
    remote.wire.on("GET", f"{REPO}/pulls", [])
    assert (await github.expected("main")).required == ()


async def test_a_pull_request_of_a_fork_with_the_same_branch_is_ignored(remote: Remote, github: GitHub) -> None:
    """GitHub finds branches by their owner's name, and an organisation may have its own fork."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    remote.pulls[0]["head"]["repo"] = {"full_name": "acme/platform-fork"}
    assert await github.find_pull(BRANCH) is None


async def test_nothing_is_merged_into_another_branch(remote: Remote, github: GitHub) -> None:
    """GitHub's merge has no guard for the base, so Stoker reads the base directly before the merge."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    remote.pulls[0]["base"]["ref"] = "release"
    with pytest.raises(MergeRefused, match="would be merged into release, not into main"):
        await github.merge(1, HEAD, "main")
    assert not remote.wire.calls("PUT", f"{REPO}/pulls/1/merge")


async def test_opened_pull_requests_are_withdrawn(remote: Remote, github: GitHub) -> None:
    """The pull request is closed and its branch deleted, without requests that may be refused. The step may be repeated."""
    await github.open_pull(BRANCH, "main", "feat: add", "body", [])
    remote.wire.on("DELETE", f"{REPO}/git/refs/heads/{BRANCH}", None, status=204)
    remote.wire.on("GET", f"{REPO}/pulls/1", {"message": "Forbidden"}, status=403)
    await github.withdraw(BRANCH)
    await github.withdraw(BRANCH)
    assert remote.pulls[0]["state"] == "closed"
    assert len(remote.wire.calls("PATCH", f"{REPO}/pulls/1")) == 1
