"""Pull requests on GitHub: find, open, read, merge at a given head, close.

Uses GitHub's REST API. The HTTP client has the base URL; the token is requested for each call (an App's token expires
after one hour) and is only sent in the Authorization header. Repeated reads use ETags, because an unchanged answer does
not count against the rate limit. After a rate limit response, no request is sent until the waiting time is over.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import structlog
from pydantic import BaseModel, SecretStr

from bot.clients import github_answers as answers
from bot.clients.checks import CI, Expected, combined, has_namesakes, required
from bot.clients.github_answers import Listed, Pull, Recent, RepositoryAnswer, User, entries, read
from bot.clients.github_refusals import message_of, pause, rate_limited, refusal
from bot.clients.http import bearer, decoded, refuse_if_busy, retry_hint, send
from bot.errors import BotError, Unavailable
from bot.observability.logs import cleaned_texts

SYSTEM = answers.SYSTEM
log = structlog.get_logger(__name__)
# Merge methods in order of preference, and the repository setting that allows each.
_METHODS = {"squash": "allow_squash_merge", "merge": "allow_merge_commit", "rebase": "allow_rebase_merge"}
_CACHE_SIZE = 128
"""Number of answers kept for their ETags: a pull request needs four or five."""
_PAGES = 20
"""Maximum number of pages with 100 entries: checks, reviews or commits of one pull request."""
_RECENT = 3
"""Number of merged pull requests that determine the usual checks, which are the checks that all of them had."""
_EXPECTED_FOR = 120.0
"""Seconds for which the expected checks are cached."""
_FORBIDDEN = (403, 404)
"""Status codes for a token without a permission. GitHub returns 404 if the token may not see the object
(https://docs.github.com/en/rest/authentication/permissions-required-for-fine-grained-personal-access-tokens).
"""
_OPINIONS = ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")


T = TypeVar("T")


class MergeRefused(BotError):
    """GitHub did not merge: the head moved, there is a conflict, or a rule of the repository is not met."""

    remedy = "Resolve the conflict or meet the rule that GitHub shows on the pull request, then approve again."


class BaseMoved(Unavailable):
    """The base branch changed during the merge, so the merge has to be requested again."""

    remedy = "Nothing: Stoker checks the change against the main branch again and retries the merge."


class PullRequest(BaseModel, frozen=True, defer_build=True):
    """The current state of one pull request. `merge_commit` is set only after a merge, and `closed_by` only after a
    close without a merge.
    """

    number: int
    url: str
    title: str
    state: Literal["open", "closed"]
    merged: bool
    merged_by: str | None
    merge_commit: str | None
    head_sha: str
    head_ref: str
    head_repository: str
    base_ref: str
    mergeable: bool | None
    blocked: bool
    draft: bool
    auto_merge_by: str | None
    ci: CI
    approved_by: tuple[str, ...]
    rejected_by: tuple[str, ...]
    closed_by: str | None
    changed_files: int

    @property
    def closed_unmerged(self) -> bool:
        return self.state == "closed" and not self.merged


class Commit(NamedTuple):
    """The parts of a commit that a rebase does not change: the author's email address, the time (Unix seconds) and the
    message.
    """

    by: str
    at: int
    message: str


class Access(BaseModel, frozen=True, defer_build=True):
    """The token's rights on the repository. `scopes` is None for tokens without scopes (fine-grained, Apps)."""

    push: bool | None
    """True if the token may push; None if GitHub does not return it."""
    archived: bool
    scopes: tuple[str, ...] | None


class GitHub:
    """Reads and changes the pull requests of one repository."""

    def __init__(self, http: httpx.AsyncClient, repository: str, token: Callable[[], Awaitable[SecretStr]]) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise BotError(f"Write the repository as owner/name, not {repository!r}.")
        self._http = http
        self._repository = repository
        self._token = token
        self._page: str | None = None
        self._cached: dict[tuple[str, str], httpx.Response] = {}
        self._waits: tuple[float, str] = (0.0, "")
        self._expected: dict[str, tuple[float, Expected]] = {}

    async def find_pull(self, head_ref: str) -> PullRequest | None:
        """The newest pull request of this repository's branch, in any state."""
        pulls = await self._of_branch(head_ref)
        return await self.pull(pulls[0].number) if pulls else None

    async def _of_branch(self, head_ref: str) -> list[Listed]:
        """The pull requests of a branch, newest first. A fork may have a branch of the same name."""
        owner = self._repository.partition("/")[0]
        query = {
            "head": f"{owner}:{head_ref}",
            "state": "all",
            "sort": "created",
            "direction": "desc",
            "per_page": "10",
        }
        pulls = read(list[Listed], await self._request("GET", "/pulls", params=query), "pull requests")
        return [pull for pull in pulls if self._is_in_repository(pull, head_ref)]

    def _is_in_repository(self, pull: Listed, head_ref: str) -> bool:
        repository = _head_repository(pull)
        return pull.head.ref == head_ref and repository.lower() in ("", self._repository.lower())

    async def open_pull(
        self, head_ref: str, base: str, title: str, body: str, labels: Sequence[str] = ()
    ) -> PullRequest:
        """Open the pull request of this branch, or return it if it is already open. Idempotent."""
        pull = await self.find_pull(head_ref)
        if pull is None or pull.state == "closed":
            payload = {"head": head_ref, "base": base, "title": title, "body": body}
            response = await self._request("POST", "/pulls", json=payload, tolerate=(422,))
            if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
                # An earlier run has just opened it, or it is already merged.
                pull = await self.find_pull(head_ref)
                if pull is None or pull.closed_unmerged:
                    raise BotError(f"GitHub did not open the pull request: {message_of(response)}.")
            else:
                pull = await self._complete(read(Pull, response, "the pull request"))
        if labels and pull.state == "open":
            await self._label(pull.number, labels)
        return pull

    async def _label(self, number: int, labels: Sequence[str]) -> None:
        """Add the labels. If GitHub refuses them, a warning is logged and the operation continues."""
        refused = (*_FORBIDDEN, 410, 422)
        answer = await self._request(
            "POST", f"/issues/{number}/labels", json={"labels": list(labels)}, tolerate=refused
        )
        if not answer.is_success:
            log.warning("labels not set", pull=number, why=message_of(answer))

    async def withdraw(self, head_ref: str) -> None:
        """Close the open pull requests of this branch, and delete the branch. It reads no other data, because the token
        may lack the permissions for that.
        """
        for pull in await self._of_branch(head_ref):
            if pull.state == "open":
                await self._request("PATCH", f"/pulls/{pull.number}", json={"state": "closed"})
        await self.delete_branch(head_ref)

    async def pull(self, number: int) -> PullRequest:
        """The pull request with its current checks."""
        return await self._complete(await self._pull(number))

    async def _pull(self, number: int) -> Pull:
        return read(Pull, await self._request("GET", f"/pulls/{number}"), f"pull request #{number}")

    async def _complete(self, pull: Pull) -> PullRequest:
        """Complete GitHub's answer about a pull request with its checks, reviews and the user who closed it."""
        number = pull.number
        ci = await self._checks(pull.head.sha)
        approved, rejected = await self._reviews(number)
        return PullRequest(
            number=number,
            url=pull.html_url,
            title=pull.title,
            state=pull.state,
            merged=pull.merged,
            merged_by=_login(pull.merged_by),
            merge_commit=_merge_commit_of(pull) if pull.merged else None,
            head_sha=pull.head.sha,
            head_ref=pull.head.ref,
            head_repository=_head_repository(pull) or self._repository,
            base_ref=pull.base.ref,
            mergeable=pull.mergeable,
            blocked=pull.mergeable_state == "blocked",
            draft=pull.draft,
            auto_merge_by=_login(pull.auto_merge.enabled_by) if pull.auto_merge else None,
            ci=ci,
            approved_by=approved,
            rejected_by=rejected,
            closed_by=await self._closed_by(number) if pull.state == "closed" and not pull.merged else None,
            changed_files=pull.changed_files,
        )

    async def commits(self, number: int) -> tuple[Commit, ...]:
        """The commits of the pull request, oldest first (GitHub returns the first 250)."""
        return tuple(
            Commit(
                by=commit.commit.author.email,
                at=int(commit.commit.author.date.timestamp()),
                message=commit.commit.message.strip(),
            )
            for commit in await self._pages(answers.CommitAnswer, f"/pulls/{number}/commits", "commits")
        )

    async def expected(self, base: str) -> Expected:
        """The checks that a pull request into this branch should have, as far as the token may read them."""
        until, expected = self._expected.get(base, (0.0, Expected()))
        if time.monotonic() < until:
            return expected
        expected = Expected(required=await self._required_checks(base), usual=await self._usual_checks(base))
        self._expected[base] = (time.monotonic() + _EXPECTED_FOR, expected)
        return expected

    async def _required_checks(self, base: str) -> tuple[str, ...]:
        """The checks that the branch's protection and rulesets require (docs: "Get a branch", "Get rules for a
        branch").
        """
        branch = await self._request("GET", f"/branches/{quote(base, safe='')}", tolerate=_FORBIDDEN)
        rules = await self._request("GET", f"/rules/branches/{quote(base, safe='')}", tolerate=_FORBIDDEN)
        guarded = read(answers.Branch, branch, f"the branch {base}").model_dump() if branch.is_success else {}
        return required(guarded, [rule.model_dump() for rule in _rules(rules)])

    async def _usual_checks(self, base: str) -> tuple[str, ...]:
        """The checks that all of the most recently merged pull requests had."""
        query = {"state": "closed", "base": base, "sort": "updated", "direction": "desc", "per_page": "20"}
        answer = await self._request("GET", "/pulls", params=query, tolerate=_FORBIDDEN)
        recent = read(list[Recent], answer, "pull requests") if answer.is_success else []
        merged = [pull for pull in recent if pull.merged_at]
        names = [set((await self._checks(pull.head.sha)).names) for pull in merged[:_RECENT]]
        return tuple(sorted(set.intersection(*names))) if names else ()

    async def merge(self, number: int, sha: str, base: str) -> str:
        """Merge the pull request into `base` if its head is still `sha`; returns the merge commit, even if it
        was already merged.

        The commit message follows the repository's settings; by default it is the pull request's title and, for a
        squash, the single commit's message with its trailers.
        """
        if (merged := await self._merge_commit(number, sha, base)) is not None:
            return merged
        payload = {"sha": sha, "merge_method": await self._merge_method(number)}
        response = await self._request("PUT", f"/pulls/{number}/merge", json=payload, tolerate=(405, 409))
        if response.is_success:
            return read(answers.Merged, response, "the merge").sha
        if (merged := await self._merge_commit(number, sha, base)) is not None:  # another merge was faster
            return merged
        if response.status_code == httpx.codes.CONFLICT:
            raise MergeRefused(
                f"Pull request #{number} was not merged: its head is no longer {sha[:9]}, which was approved. "
                "Check the new commits, then request it again."
            )
        if "base branch was modified" in message_of(response).lower():
            raise BaseMoved(SYSTEM, message_of(response))
        raise MergeRefused(f"GitHub does not merge pull request #{number}: {message_of(response)}.")

    async def close(self, number: int) -> None:
        """Close the pull request; does nothing if it is closed or merged."""
        if (await self._pull(number)).state == "open":
            await self._request("PATCH", f"/pulls/{number}", json={"state": "closed"})

    async def delete_branch(self, ref: str) -> None:
        """Delete the branch; a missing branch is ignored (GitHub returns 422 or 404)."""
        await self._request("DELETE", f"/git/refs/heads/{quote(ref)}", tolerate=(404, 422))

    async def describe(self, number: int, title: str, body: str) -> None:
        """Set the title and body of the pull request."""
        await self._request("PATCH", f"/pulls/{number}", json={"title": title, "body": body})

    async def file_url(self, commit: str, path: str, line: int) -> str:
        """The web address of a file at a commit and line."""
        if self._page is None:
            self._page = _repository(await self._request("GET", "")).html_url
        return f"{self._page}/blob/{commit}/{quote(path)}#L{line}"

    async def access(self) -> Access:
        """The token's rights; raises BotError if it cannot see the repository."""
        response = await self._request("GET", "")
        repository, scopes = _repository(response), response.headers.get("x-oauth-scopes")
        return Access(
            push=repository.permissions.push if repository.permissions else None,
            archived=repository.archived,
            scopes=tuple(filter(None, (scope.strip() for scope in scopes.split(",")))) if scopes is not None else None,
        )

    async def protected(self, branch: str) -> bool | None:
        """Return whether a rule protects the branch; None if the branch does not exist."""
        response = await self._request("GET", f"/branches/{quote(branch, safe='')}", tolerate=(404,))
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        return read(answers.Branch, response, f"the branch {branch}").protected

    async def _merge_commit(self, number: int, sha: str, base: str) -> str | None:
        """The commit that merged `sha` into `base`; raises MergeRefused if the base differs, or another head was
        merged.
        """
        pull = await self._pull(number)
        if pull.base.ref != base:  # GitHub's merge request can require a head, but not a base
            was = "was merged" if pull.merged else "would be merged"
            raise MergeRefused(f"Pull request #{number} {was} into {pull.base.ref}, not into {base} as approved.")
        if not pull.merged:
            return None
        if pull.head.sha != sha:
            raise MergeRefused(
                f"Pull request #{number} was merged on GitHub at {pull.head.sha[:9]}, not at {sha[:9]}, which was approved."
            )
        return _merge_commit_of(pull)

    async def _merge_method(self, number: int) -> str:
        """Squash, merge or rebase: the first that the repository and the branch's rules allow. An unknown
        setting counts as allowed.
        """
        settings = read(RepositoryAnswer, await self._request("GET", ""), "the repository").model_dump()
        allowed = [method for method, setting in _METHODS.items() if settings[setting] is not False]
        base = (await self._pull(number)).base.ref
        answer = await self._request("GET", f"/rules/branches/{quote(base, safe='')}", tolerate=(403, 404))
        for rule in _rules(answer):
            match rule.type:
                case "merge_queue":
                    raise MergeRefused(
                        f"The branch {base} has a merge queue: add pull request #{number} to it on GitHub. "
                        "Once it is merged there, only the sync remains to be approved."
                    )
                case "required_linear_history":
                    allowed = [method for method in allowed if method != "merge"]
                case "pull_request":
                    methods = (rule.parameters and rule.parameters.allowed_merge_methods) or allowed
                    allowed = [method for method in allowed if method in methods]
        return allowed[0] if allowed else "squash"

    async def _closed_by(self, number: int) -> str | None:
        """The user who closed a pull request. GitHub returns this user only in the pull request's issue."""
        issue = await self._request("GET", f"/issues/{number}", tolerate=_FORBIDDEN)
        return _login(read(answers.Issue, issue, f"issue #{number}").closed_by) if issue.is_success else None

    async def _reviews(self, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The reviewers who approved, and those who requested changes. Each reviewer's last review counts; comments do
        not.
        """
        last: dict[str, str] = {}
        reviews = await self._pages(answers.Review, f"/pulls/{number}/reviews", "reviews", tolerate=_FORBIDDEN)
        for review in reviews:
            if review.state in _OPINIONS and (reviewer := _login(review.user)):
                last[reviewer] = review.state
        approved = tuple(sorted(reviewer for reviewer, opinion in last.items() if opinion == "APPROVED"))
        return approved, tuple(sorted(reviewer for reviewer, opinion in last.items() if opinion == "CHANGES_REQUESTED"))

    async def _checks(self, sha: str) -> CI:
        """The CI results of a commit; kinds that the token may not read are omitted and listed in `unread`."""
        runs = await self._all(answers.CheckRun, f"/commits/{sha}/check-runs", "check_runs")
        statuses = await self._all(answers.CommitStatus, f"/commits/{sha}/status", "statuses")
        unread = [name for name, results in (("check runs", runs), ("commit statuses", statuses)) if results is None]
        listed = [run.model_dump() for run in runs or ()]
        workflows = await self._workflows(sha) if has_namesakes(listed) else {}
        return combined(listed, [status.model_dump() for status in statuses or ()], workflows, tuple(unread))

    async def _workflows(self, sha: str) -> dict[str, str]:
        """The workflow of each check suite of a commit; empty if the token may not read Actions."""
        runs = await self._all(answers.WorkflowRun, "/actions/runs", "workflow_runs", head_sha=sha)
        return {str(run.check_suite_id): str(run.workflow_id) for run in runs or () if run.workflow_id}

    async def _all(self, kind: type[T], path: str, field: str, **query: str) -> list[T] | None:
        """Every entry of a paged list in the field `field` of an object; None if the token may not read the list."""
        pages = await self._answers(path, query, _FORBIDDEN)
        return None if pages is None else entries(kind, pages, field.replace("_", " "), field)

    async def _pages(self, kind: type[T], path: str, subject: str, *, tolerate: tuple[int, ...] = ()) -> list[T]:
        """Every entry of a paged list; empty if it is refused with a tolerated status."""
        return entries(kind, await self._answers(path, {}, tolerate) or (), subject)

    async def _answers(self, path: str, query: Mapping[str, str], tolerate: tuple[int, ...]) -> list[object] | None:
        pages: list[object] = []
        page = 1
        while True:
            params = {**query, "per_page": "100", "page": str(page)}
            response = await self._request("GET", path, params=params, tolerate=tolerate)
            if not response.is_success:
                return None
            pages.append(decoded(SYSTEM, response))
            if "next" not in response.links:
                return pages
            if page >= _PAGES:
                raise BotError(f"GitHub lists more than {_PAGES} pages at {path}; Stoker reads at most {_PAGES}.")
            page += 1

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, object] | None = None,
        tolerate: tuple[int, ...] = (),
    ) -> httpx.Response:
        """Send a request and return a response that is successful or has a tolerated status.

        Raises BotError for a refusal, with its fix, and Unavailable for other failures.
        """
        until, reason = self._waits
        if time.time() < until:
            raise Unavailable(SYSTEM, reason)
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            **bearer(await self._token()),
        }
        url = f"/repos/{self._repository}{path}"
        key = (url, str(httpx.QueryParams(params)))
        cached = self._cached.get(key) if method == "GET" else None
        if cached is not None:
            headers["If-None-Match"] = cached.headers["etag"]
        response = await send(self._http, SYSTEM, method, url, params=params, json=cleaned_texts(json), headers=headers)
        if response.status_code == httpx.codes.NOT_MODIFIED and cached is not None:
            return cached
        if rate_limited(response):
            reason = f"rate limited ({response.status_code}){retry_hint(response)}"
            self._waits = (time.time() + pause(response), reason)
            raise Unavailable(SYSTEM, reason)
        refuse_if_busy(SYSTEM, response)
        if response.is_success or response.status_code in tolerate:
            if method == "GET" and "etag" in response.headers and response.is_success:
                self._store(key, response)
            return response
        raise refusal(method, url, response)

    def _store(self, key: tuple[str, str], response: httpx.Response) -> None:
        """Store a response for its ETag, and drop the oldest one if there are too many."""
        self._cached.pop(key, None)
        while len(self._cached) >= _CACHE_SIZE:
            self._cached.pop(next(iter(self._cached)))
        self._cached[key] = response


def _repository(response: httpx.Response) -> RepositoryAnswer:
    """GitHub's answer about the repository; raises Unavailable if it does not contain the repository's address."""
    repository = read(RepositoryAnswer, response, "the repository")
    if not repository.html_url:
        raise Unavailable(SYSTEM, "its answer about the repository has no html_url")
    return repository


def _rules(response: httpx.Response) -> list[answers.Rule]:
    """The rules of a branch; empty if the token may not read them."""
    return read(list[answers.Rule], response, "rules") if response.is_success else []


def _head_repository(pull: Listed | Pull) -> str:
    """`owner/name` of the repository with the branch; empty if GitHub does not return it, as for a deleted fork."""
    return pull.head.repo.full_name if pull.head.repo else ""


def _merge_commit_of(pull: Pull) -> str:
    """The merge commit. GitHub may need a moment to return it."""
    if not pull.merge_commit_sha:
        raise Unavailable(SYSTEM, f"it does not return the merge commit of pull request #{pull.number} yet")
    return pull.merge_commit_sha


def _login(user: User | None) -> str | None:
    return user.login or None if user else None
