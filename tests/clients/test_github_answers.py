"""If an answer of GitHub has an undocumented form, the error is one clear sentence, or the field is omitted."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from bot.clients.github import GitHub
from bot.clients.github_app import AppToken
from bot.errors import Unavailable
from tests.clients.test_github import BRANCH, HEAD, REPO, Remote, token
from tests.clients.test_github_app import PATH, PEM
from tests.clients.wire import client, wire

Json = dict[str, Any]
LISTS = ("/pulls/1/reviews", "/pulls/1/commits")


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    async with wire() as server:
        yield Remote(server)


@pytest.fixture
async def github(remote: Remote) -> AsyncIterator[GitHub]:
    async with client(remote.wire.url) as http:
        github = GitHub(http, "acme/platform", token)
        await github.open_pull(BRANCH, "main", "add coder-mini", "why")
        yield github


def answer(remote: Remote, path: str, value: object) -> None:
    """Answer requests for this path with this value: JSON, or a raw text."""

    async def respond(_: web.Request, __: object) -> web.Response:
        text, kind = (value, "text/html") if isinstance(value, str) else (json.dumps(value), "application/json")
        return web.Response(text=text, content_type=kind)

    remote.wire.answers["GET", f"{REPO}{path}"] = respond


ODD: list[object] = ["<html>Unicorn!</html>", "", None, 7, [], {}, [None], [7], {"message": "moved"}, "[[[["]


@pytest.mark.parametrize("odd", ODD, ids=repr)
async def test_a_pull_request_in_another_form_is_unavailable(remote: Remote, github: GitHub, odd: object) -> None:
    answer(remote, "/pulls/1", odd)
    for ask in (github.pull(1), github.merge(1, HEAD, "main"), github.close(1)):
        with pytest.raises(Unavailable, match="GitHub"):
            await ask


@pytest.mark.parametrize(
    "change",
    [
        lambda pull: pull.pop("head"),
        lambda pull: pull.update(head=None),
        lambda pull: pull["head"].pop("sha"),
        lambda pull: pull["head"].update(sha=None),
        lambda pull: pull.update(base=[]),
        lambda pull: pull.pop("html_url"),
        lambda pull: pull.update(state="odd"),
        lambda pull: pull.update(number="x"),
        lambda pull: pull.update(mergeable="maybe"),
    ],
)
async def test_fields_that_a_decision_needs_are_not_guessed(
    remote: Remote, github: GitHub, change: Callable[[Json], object]
) -> None:
    change(remote.pulls[0])
    with pytest.raises(Unavailable, match=r"its answer about pull request #1 is not as documented \("):
        await github.pull(1)


async def test_deleted_accounts_and_forks_are_read_as_missing(remote: Remote, github: GitHub) -> None:
    pull = remote.pulls[0]
    pull.update(title=None, merged_by=None, auto_merge={"enabled_by": None}, draft=None, additions=None, user=None)
    pull["head"]["repo"] = None
    answer(remote, "/pulls/1/reviews", [{"state": "APPROVED", "user": None}, {"state": None}])
    read = await github.pull(1)
    assert (read.title, read.merged_by, read.auto_merge_by, read.approved_by) == ("", None, None, ())
    assert read.head_repository == "acme/platform"

    pull.update(state="closed")
    answer(remote, "/issues/1", {"closed_by": None})
    assert (await github.pull(1)).closed_by is None


async def test_a_merge_without_its_commit_is_read_again_later(remote: Remote, github: GitHub) -> None:
    remote.pulls[0].update(state="closed", merged=True, merge_commit_sha=None)
    with pytest.raises(Unavailable, match="does not return the merge commit of pull request #1 yet"):
        await github.pull(1)
    with pytest.raises(Unavailable, match="does not return the merge commit"):
        await github.merge(1, HEAD, "main")


@pytest.mark.parametrize("odd", [*ODD[:4], {}, [7], [None]], ids=repr)
@pytest.mark.parametrize("path", LISTS)
async def test_lists_in_another_form_are_unavailable(remote: Remote, github: GitHub, path: str, odd: object) -> None:
    answer(remote, path, odd)
    with pytest.raises(Unavailable, match="GitHub"):
        await (github.commits(1) if path.endswith("commits") else github.pull(1))


@pytest.mark.parametrize("odd", [*ODD[:5], {"check_runs": {}}, {"check_runs": [{"name": None}]}], ids=repr)
async def test_unreadable_checks_do_not_count_as_no_checks(remote: Remote, github: GitHub, odd: object) -> None:
    answer(remote, f"/commits/{HEAD}/check-runs", odd)
    with pytest.raises(Unavailable, match="GitHub"):
        await github.pull(1)


async def test_a_check_without_its_details_counts_as_pending(remote: Remote, github: GitHub) -> None:
    odd = {"name": "build", "status": None, "conclusion": None, "app": None, "check_suite": None, "started_at": None}
    answer(remote, f"/commits/{HEAD}/check-runs", {"check_runs": [odd]})
    assert (await github.pull(1)).ci.verdict == "pending"


@pytest.mark.parametrize("odd", ODD, ids=repr)
async def test_the_repository_in_another_form_is_unavailable(remote: Remote, github: GitHub, odd: object) -> None:
    answer(remote, "", odd)
    merges = () if isinstance(odd, dict) else (github.merge(1, HEAD, "main"),)
    for ask in (github.access(), github.file_url("c", "a.yaml", 1), *merges):
        with pytest.raises(Unavailable, match="GitHub"):
            await ask


@pytest.mark.parametrize("odd", ["<html>", [], {}, {"token": "ghs_x"}, {"token": None, "expires_at": 1}], ids=repr)
async def test_a_token_in_another_form_is_unavailable_and_not_shown(remote: Remote, odd: object) -> None:
    async def respond(_: web.Request, __: object) -> web.Response:
        text = odd if isinstance(odd, str) else json.dumps(odd)
        return web.Response(text=text, status=201, content_type="application/json")

    remote.wire.answers["POST", PATH] = respond
    async with client(remote.wire.url) as http:
        with pytest.raises(Unavailable, match="GitHub") as raised:
            await AppToken(http, "42", "7", lambda: SecretStr(PEM))()
    assert "ghs_x" not in str(raised.value)
