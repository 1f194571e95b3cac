"""Pull requests on GitHub: found, opened, followed, merged at exactly one head, closed.

Speaks GitHub's REST API. The low-level client carries the base address; the token is asked for at each request
(an App's token lives for one hour) and travels in the Authorization header alone. What was read before is asked for
with its ETag: an answer that has not changed costs nothing of the rate limit. While GitHub asks to wait, nothing is sent.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import httpx
from pydantic import BaseModel, SecretStr

from bot.clients.http import bearer, body, refuse_if_busy, retry_hint, send
from bot.errors import BotError, Unavailable

SYSTEM = "GitHub"
# Conclusions that do not stop a merge; every other one does (docs: "check run conclusion").
PASSED = frozenset({"success", "neutral", "skipped"})

Checks = Literal["none", "pending", "success", "failure"]
# How to merge, the preferred first, and the repository's setting that allows it.
_METHODS = {"squash": "allow_squash_merge", "merge": "allow_merge_commit", "rebase": "allow_rebase_merge"}
_KEPT = 128
"""Answers kept for their ETags: a pull request takes four or five."""
_LONGEST_PAUSE = 3600.0
"""The primary limit is counted by the hour."""
_OPINIONS = ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")


class MergeRefused(BotError):
    """GitHub did not merge: the head moved, there is a conflict, or a rule of the repository is not met."""

    remedy = "Resolve the conflict or the rule that GitHub names on the pull request, then approve again."


class BaseMoved(Unavailable):
    """Something else was merged in the same moment: GitHub wants the merge to be asked for again."""

    remedy = "Nothing: the change is checked against the main branch anew, and the merge is tried again."


class PullRequest(BaseModel, frozen=True):
    """One pull request as it is now. `merge_commit` is set only once it is merged; `closed_by` only if it was not."""

    number: int
    url: str
    title: str
    state: Literal["open", "closed"]
    merged: bool
    merged_by: str | None
    merge_commit: str | None
    head_sha: str
    head_ref: str
    base_ref: str
    mergeable: bool | None
    blocked: bool
    checks: Checks
    failing: tuple[str, ...]
    approved_by: tuple[str, ...]
    rejected_by: tuple[str, ...]
    closed_by: str | None
    additions: int
    deletions: int
    changed_files: int


class Commit(NamedTuple):
    """What a rebase keeps of a commit: its author's address, when it was made (seconds since 1970), its message."""

    by: str
    at: int
    message: str


class Access(BaseModel, frozen=True):
    """What the token may do with the repository. `scopes` is None for tokens that have none (fine-grained, Apps)."""

    push: bool
    archived: bool
    default_branch: str
    scopes: tuple[str, ...] | None


class GitHub:
    """The pull requests of one repository."""

    def __init__(self, http: httpx.AsyncClient, repository: str, token: Callable[[], Awaitable[SecretStr]]) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise BotError(f"The repository is written owner/name, not {repository!r}.")
        self._http = http
        self._repository = repository
        self._token = token
        self._page: str | None = None
        self._kept: dict[tuple[str, str], httpx.Response] = {}
        self._waits: tuple[float, str] = (0.0, "")

    async def find_pull(self, head_ref: str) -> PullRequest | None:
        """The newest pull request with this head branch, in any state."""
        owner = self._repository.partition("/")[0]
        query = {
            "head": f"{owner}:{head_ref}",
            "state": "all",
            "sort": "created",
            "direction": "desc",
            "per_page": "1",
        }
        found = (await self._ask("GET", "/pulls", params=query)).json()
        return await self.pull(found[0]["number"]) if found else None

    async def open_pull(
        self, head_ref: str, base: str, title: str, body: str, labels: Sequence[str] = ()
    ) -> PullRequest:
        """The pull request of this branch: the one that is open, else a new one; repeating it opens no second."""
        pull = await self.find_pull(head_ref)
        if pull is None or pull.state == "closed":
            asked = {"head": head_ref, "base": base, "title": title, "body": body}
            response = await self._ask("POST", "/pulls", json=asked, tolerate=(422,))
            if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
                # Opened by an earlier run a moment ago, or merged already: then there is one to find.
                pull = await self.find_pull(head_ref)
                if pull is None or (pull.state == "closed" and not pull.merged):
                    raise BotError(f"GitHub did not open the pull request: {_said(response)}.")
            else:
                pull = await self._seen(response.json())
        if labels and pull.state == "open":
            await self._ask("POST", f"/issues/{pull.number}/labels", json={"labels": list(labels)})
        return pull

    async def pull(self, number: int) -> PullRequest:
        """The pull request with its checks as they are now."""
        return await self._seen((await self._ask("GET", f"/pulls/{number}")).json())

    async def _seen(self, raw: dict[str, Any]) -> PullRequest:
        """A pull request as GitHub tells it, with what only other requests know."""
        number, merged = raw["number"], bool(raw.get("merged"))
        checks, failing = await self._checks(raw["head"]["sha"])
        approved, rejected = await self._reviews(number)
        return PullRequest(
            number=number,
            url=raw["html_url"],
            title=raw["title"],
            state=raw["state"],
            merged=merged,
            merged_by=_login(raw.get("merged_by")),
            merge_commit=raw.get("merge_commit_sha") if merged else None,  # before: GitHub's trial merge
            head_sha=raw["head"]["sha"],
            head_ref=raw["head"]["ref"],
            base_ref=raw["base"]["ref"],
            mergeable=raw.get("mergeable"),
            blocked=raw.get("mergeable_state") == "blocked",
            checks=checks,
            failing=failing,
            approved_by=approved,
            rejected_by=rejected,
            closed_by=await self._closed_by(number) if raw["state"] == "closed" and not merged else None,
            additions=raw.get("additions", 0),
            deletions=raw.get("deletions", 0),
            changed_files=raw.get("changed_files", 0),
        )

    async def commits(self, number: int) -> tuple[Commit, ...]:
        """The commits of the pull request, oldest first (GitHub tells the first 250)."""
        return tuple(
            Commit(
                by=raw["commit"]["author"]["email"],
                at=int(datetime.fromisoformat(raw["commit"]["author"]["date"]).timestamp()),
                message=raw["commit"]["message"].strip(),
            )
            for raw in await self._pages(f"/pulls/{number}/commits")
        )

    async def merge(self, number: int, sha: str) -> str:
        """Merge the pull request if its head is still `sha`; the merge commit, also when that is merged already.

        How the commit is called is left to the repository's settings; by default that is the pull request's title and,
        of a squash, the one commit's message with its trailers.
        """
        if (merged := await self._merge_commit(number, sha)) is not None:
            return merged
        asked = {"sha": sha, "merge_method": await self._merge_method(number)}
        response = await self._ask("PUT", f"/pulls/{number}/merge", json=asked, tolerate=(405, 409))
        if response.is_success:
            return str(response.json()["sha"])
        if (merged := await self._merge_commit(number, sha)) is not None:  # somebody was faster
            return merged
        if response.status_code == httpx.codes.CONFLICT:
            raise MergeRefused(
                f"Pull request #{number} was not merged: its head moved, so it is not {sha[:9]} that was approved. "
                "Look at the new commits and ask again."
            )
        if "base branch was modified" in _said(response).lower():
            raise BaseMoved(SYSTEM, _said(response))
        raise MergeRefused(f"GitHub does not merge pull request #{number}: {_said(response)}.")

    async def close(self, number: int) -> None:
        """Close the pull request; nothing happens to one that is closed or merged."""
        if (await self._ask("GET", f"/pulls/{number}")).json()["state"] == "open":
            await self._ask("PATCH", f"/pulls/{number}", json={"state": "closed"})

    async def delete_branch(self, ref: str) -> None:
        """Delete the branch; one that is gone already is fine (GitHub says 422 or 404)."""
        await self._ask("DELETE", f"/git/refs/heads/{quote(ref)}", tolerate=(404, 422))

    async def describe(self, number: int, title: str, body: str) -> None:
        """Give the pull request another title and body."""
        await self._ask("PATCH", f"/pulls/{number}", json={"title": title, "body": body})

    async def file_url(self, commit: str, path: str, line: int) -> str:
        """Where people read a file at a commit, at a line."""
        if self._page is None:
            self._page = str((await self._ask("GET", "")).json()["html_url"])
        return f"{self._page}/blob/{commit}/{quote(path)}#L{line}"

    async def comment(self, number: int, body: str) -> None:
        """Write a comment under the pull request."""
        await self._ask("POST", f"/issues/{number}/comments", json={"body": body})

    async def access(self) -> Access:
        """What the token may do here; a repository that it cannot see is a BotError."""
        response = await self._ask("GET", "")
        raw, scopes = response.json(), response.headers.get("x-oauth-scopes")
        return Access(
            push=bool((raw.get("permissions") or {}).get("push")),
            archived=bool(raw.get("archived")),
            default_branch=raw["default_branch"],
            scopes=tuple(filter(None, (scope.strip() for scope in scopes.split(",")))) if scopes is not None else None,
        )

    async def protected(self, branch: str) -> bool | None:
        """Whether a rule guards the branch; None when there is no such branch."""
        response = await self._ask("GET", f"/branches/{quote(branch, safe='')}", tolerate=(404,))
        return None if response.status_code == httpx.codes.NOT_FOUND else bool(response.json().get("protected"))

    async def _merge_commit(self, number: int, sha: str) -> str | None:
        """The commit by which `sha` is merged; MergeRefused when somebody merged another head than that."""
        raw = (await self._ask("GET", f"/pulls/{number}")).json()
        if not raw.get("merged"):
            return None
        if raw["head"]["sha"] != sha:
            raise MergeRefused(
                f"Pull request #{number} was merged on GitHub at {raw['head']['sha'][:9]}, not at {sha[:9]} that was approved."
            )
        return str(raw["merge_commit_sha"])

    async def _merge_method(self, number: int) -> str:
        """Squash, merge or rebase: the first that the repository and the branch's rules allow. Unknown counts as allowed."""
        settings = (await self._ask("GET", "")).json()
        allowed = [method for method, setting in _METHODS.items() if settings.get(setting, True)]
        base = (await self._ask("GET", f"/pulls/{number}")).json()["base"]["ref"]
        answer = await self._ask("GET", f"/rules/branches/{quote(base, safe='')}", tolerate=(403, 404))
        for rule in answer.json() if answer.is_success else []:
            match rule.get("type"):
                case "merge_queue":
                    raise MergeRefused(
                        f"The branch {base} has a merge queue: add pull request #{number} to it on GitHub. "
                        "Once it is merged there, the sync alone is left to approve."
                    )
                case "required_linear_history":
                    allowed = [method for method in allowed if method != "merge"]
                case "pull_request":
                    given = (rule.get("parameters") or {}).get("allowed_merge_methods") or allowed
                    allowed = [method for method in allowed if method in given]
        return allowed[0] if allowed else "squash"

    async def _closed_by(self, number: int) -> str | None:
        """Only the issue behind a pull request knows who closed it."""
        issue = await self._ask("GET", f"/issues/{number}", tolerate=(404,))
        return _login(body(issue).get("closed_by"))

    async def _reviews(self, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Who approved and who asked for changes on GitHub: the last opinion of each counts, a comment is none."""
        last: dict[str, str] = {}
        for review in await self._pages(f"/pulls/{number}/reviews"):
            if review.get("state") in _OPINIONS and (who := _login(review.get("user"))):
                last[who] = review["state"]
        approved = tuple(sorted(who for who, opinion in last.items() if opinion == "APPROVED"))
        return approved, tuple(sorted(who for who, opinion in last.items() if opinion == "CHANGES_REQUESTED"))

    async def _checks(self, sha: str) -> tuple[Checks, tuple[str, ...]]:
        """Check runs (Actions, Apps) and commit statuses (older CI) as one answer, with the names that fail."""
        outcomes: dict[str, str] = {}
        for run in await self._all(f"/commits/{sha}/check-runs", "check_runs"):
            done = run.get("status") == "completed"
            outcomes[run["name"]] = ("success" if run.get("conclusion") in PASSED else "failure") if done else "pending"
        for status in await self._all(f"/commits/{sha}/status", "statuses"):
            outcomes[status["context"]] = "failure" if status["state"] == "error" else status["state"]
        failing = tuple(sorted(name for name, outcome in outcomes.items() if outcome == "failure"))
        if failing:
            return "failure", failing
        if "pending" in outcomes.values():
            return "pending", ()
        return ("success" if outcomes else "none"), ()

    async def _all(self, path: str, field: str) -> list[dict[str, Any]]:
        """Every entry of a paged list inside an object."""
        return [entry for answer in await self._answers(path) for entry in answer.get(field, [])]

    async def _pages(self, path: str) -> list[dict[str, Any]]:
        """Every entry of a paged list."""
        return [entry for answer in await self._answers(path) for entry in answer]

    async def _answers(self, path: str) -> list[Any]:
        answers, page = [], 1
        while True:
            response = await self._ask("GET", path, params={"per_page": "100", "page": str(page)})
            answers.append(response.json())
            if "next" not in response.links:
                return answers
            page += 1

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, object] | None = None,
        tolerate: tuple[int, ...] = (),
    ) -> httpx.Response:
        """A successful answer, or one whose status the caller tolerates. BotError says what to mend, else Unavailable."""
        until, why = self._waits
        if time.time() < until:
            raise Unavailable(SYSTEM, why)
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            **bearer(await self._token()),
        }
        url = f"/repos/{self._repository}{path}"
        key = (url, str(httpx.QueryParams(params)))
        kept = self._kept.get(key) if method == "GET" else None
        if kept is not None:
            headers["If-None-Match"] = kept.headers["etag"]
        response = await send(self._http, SYSTEM, method, url, params=params, json=json, headers=headers)
        if response.status_code == httpx.codes.NOT_MODIFIED and kept is not None:
            return kept
        if _rate_limited(response):
            why = f"rate limited ({response.status_code}){retry_hint(response)}"
            self._waits = (time.time() + _pause(response), why)
            raise Unavailable(SYSTEM, why)
        refuse_if_busy(SYSTEM, response)
        if response.is_success or response.status_code in tolerate:
            if method == "GET" and "etag" in response.headers and response.is_success:
                self._keep(key, response)
            return response
        raise _refusal(method, url, response)

    def _keep(self, key: tuple[str, str], response: httpx.Response) -> None:
        """Remember an answer for its ETag; the oldest goes."""
        self._kept.pop(key, None)
        while len(self._kept) >= _KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = response


def _refusal(method: str, url: str, response: httpx.Response) -> BotError:
    """What GitHub refused, with what to mend where the status tells it."""
    said = f"GitHub refused {method} {url}: {_said(response)}"
    match response.status_code:
        case httpx.codes.UNAUTHORIZED:
            return BotError("GitHub does not accept the token (401): set a valid GITHUB_TOKEN or GitHub App.")
        case httpx.codes.FORBIDDEN if needed := response.headers.get("x-accepted-github-permissions"):
            return BotError(f"{said}. Give the token the permission {needed.replace('=', ': ')}.")
        case httpx.codes.NOT_FOUND:
            return BotError(
                f"{said}. It is not there, or the token may not see it: check GITHUB_REPOSITORY and the token."
            )
        case _:
            return BotError(f"{said}.")


def _pause(response: httpx.Response) -> float:
    """For how many seconds nothing is to be sent; without a word from GitHub a minute, as its documentation asks."""
    after, reset = response.headers.get("retry-after", ""), response.headers.get("x-ratelimit-reset", "")
    if after.isdigit():
        return min(float(after), _LONGEST_PAUSE)
    if reset.isdigit() and response.headers.get("x-ratelimit-remaining") == "0":
        return min(max(float(reset) - time.time(), 0.0), _LONGEST_PAUSE)
    return 60.0


def _rate_limited(response: httpx.Response) -> bool:
    """The primary limit says remaining 0, the secondary one Retry-After or only a sentence; both as 403 or 429."""
    if response.status_code not in (httpx.codes.FORBIDDEN, httpx.codes.TOO_MANY_REQUESTS):
        return False
    headers = response.headers
    return (
        "retry-after" in headers
        or headers.get("x-ratelimit-remaining") == "0"
        or "rate limit" in str(body(response).get("message", "")).lower()
    )


def _said(response: httpx.Response) -> str:
    """GitHub's message with the details of a 422, and the status."""
    answer = body(response)
    errors = answer.get("errors")
    details = [
        str(error.get("message") or error.get("code") or "") if isinstance(error, dict) else str(error)
        for error in (errors if isinstance(errors, list) else [])
    ]
    words = [str(answer.get("message") or "no reason given").rstrip("."), *(detail for detail in details if detail)]
    return f"{': '.join(words)[:500]} ({response.status_code})"


def _login(user: object) -> str | None:
    return str(user["login"]) if isinstance(user, dict) and user.get("login") else None
