"""The pull requests of the sandbox's repository: their states, their checks, and their webhooks.

`sandbox.github` serves them over HTTP.
"""

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web

from sandbox.clock import real_date
from sandbox.git import MAIN, BareRepository, FileChange, GitFailed, MergeConflict, Person
from sandbox.github_ci import CI, Conclusion, State

Json = dict[str, Any]

OCTOCAT = "octocat"
BOT = "stoker-bot"
_DELIVERY_ATTEMPTS = 4


class Refused(Exception):
    """A response other than 2xx, with GitHub's message."""

    def __init__(self, status: int, message: str, errors: Sequence[Json] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = list(errors)

    def response(self) -> web.Response:
        body: Json = {
            "message": self.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": str(self.status),
        }
        if self.errors:
            body["errors"] = self.errors
        return web.json_response(body, status=self.status)


@dataclass
class Pull:
    number: int
    title: str
    body: str
    head_ref: str
    base_ref: str
    head_sha: str
    base_sha: str
    """The base's tip; it no longer changes after the pull request was closed, so that the diff stays the same."""
    shown_base: str
    """GitHub's `base.sha`: the base's tip when the head was last pushed or the base changed, not the current one."""
    author: str
    created_at: str
    updated_at: str
    state: Literal["open", "closed"] = "open"
    closed_at: str | None = None
    closed_by: str | None = None
    merged_by: str | None = None
    merge_commit: str | None = None
    draft: bool = False
    auto_merge_by: str | None = None
    """The user who enabled auto-merge."""
    labels: list[str] = field(default_factory=list)
    comments: list[Json] = field(default_factory=list)


@dataclass(frozen=True)
class Webhook:
    url: str
    secret: str


class PullRequests:
    """The repository with its pull requests, and the actions of people and CI."""

    url: str
    """The URL of the page and the API; set when the server listens."""

    def __init__(
        self,
        repo_path: Path,
        repository: str,
        *,
        auto_checks_after: float | None,
        date: Callable[[], datetime] = real_date,
    ) -> None:
        self.repo = BareRepository(repo_path)
        self.repository = repository
        self.auto_checks_after = auto_checks_after
        self.url = ""
        self._pulls: dict[int, Pull] = {}
        self.ci = CI(date=date)
        self._heads: dict[str, str] = {}
        self._mergeable: dict[tuple[str, str], bool] = {}
        self._webhook: Webhook | None = None
        self._deliveries: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()

    @property
    def git_url(self) -> str:
        return f"{self.url}/{self.repository}.git"

    # Actions of people and CI

    def webhook(self, url: str, secret: str) -> None:
        """Deliver events to this address from now on."""
        self._webhook = Webhook(url, secret)

    def newest(self) -> Pull:
        """Return the newest open pull request; raises LookupError if there is none."""
        for pull in sorted(self._pulls.values(), key=lambda pull: -pull.number):
            if pull.state == "open":
                return pull
        raise LookupError("There is no open pull request.")

    async def checks(self, conclusion: Conclusion) -> None:
        """Complete CI on the newest open pull request's head; a check that does not exist is added first."""
        self._complete(self.newest().head_sha, conclusion)

    async def checks_appear(self) -> None:
        """Let each head get a check run immediately from now on, and start one for the newest open pull request."""
        self.ci.appears = True
        for pull in self._open_pulls()[-1:]:
            self.ci.forget(pull.head_sha)
            self._start_check(pull.head_sha)

    async def checks_none(self) -> None:
        """Let no check run appear from now on, as with a busy runner, and remove those of the newest open pull request."""
        self.ci.appears = False
        for pull in self._open_pulls()[-1:]:
            self.ci.forget(pull.head_sha)

    async def status(self, context: str, state: State) -> None:
        """Set a commit status on the newest open pull request's head, as an older CI does."""
        self.ci.state(self.newest().head_sha, context, state)

    async def push(self, path: str, text: str, old: str = "") -> str:
        """Commit as octocat to the newest open pull request's branch; returns the commit's id.

        The commit writes `text` to the file, or replaces `old` in the file with it.
        """
        return await self._commit(self.newest().head_ref, path, text, old)

    async def change_main(self, path: str, text: str, old: str = "") -> str:
        """Commit as octocat to the main branch; returns the commit's id."""
        return await self._commit(MAIN, path, text, old)

    async def _commit(self, branch: str, path: str, text: str, old: str) -> str:
        async with self._changing:
            if old:
                before = (await self.files_at((await self.repo.heads())[branch], path)).get(path, "")
                if old not in before:
                    raise LookupError(f"{path} on {branch} does not contain “{old}”.")
                text = before.replace(old, text)
            commit = await self.repo.commit_file(branch, path, text, author=_person(OCTOCAT))
            await self._refs_moved(OCTOCAT)
        return commit

    async def retarget(self, branch: str) -> None:
        """Change the base of the newest open pull request as octocat. A missing branch is created from main."""
        pull = self.newest()
        async with self._changing:
            if branch not in await self.repo.heads():
                await self.repo.git("update-ref", f"refs/heads/{branch}", await self.main_commit())
                await self._refs_moved(OCTOCAT)
            await self._rebase_onto(pull, branch, by=OCTOCAT)

    async def _rebase_onto(self, pull: Pull, branch: str, *, by: str) -> None:
        tip = await self.repo.commit(branch)
        if tip is None:
            errors = [{"resource": "PullRequest", "field": "base", "code": "invalid"}]
            raise Refused(422, "Validation Failed", errors)
        before, pull.base_ref, pull.base_sha, pull.shown_base = pull.base_ref, branch, tip, tip
        self._touch(pull)
        edited = {"action": "edited", "number": pull.number, "changes": {"base": {"ref": {"from": before}}}}
        self._emit("pull_request", edited | {"pull_request": await self._pull_json(pull)}, by)

    def merged_to(self) -> str | None:
        """Return the branch into which the newest pull request was merged; None if it is not merged, or there is none."""
        newest = max(self._pulls.values(), key=lambda pull: pull.number, default=None)
        return newest.base_ref if newest and newest.merge_commit else None

    async def merge(self, method: str = "merge") -> str:
        """Merge the newest open pull request as octocat, with GitHub's button; returns the merge commit's id."""
        async with self._changing:
            return await self._merge(self.newest(), by=OCTOCAT, method=method)

    async def close(self) -> None:
        """Close the newest open pull request as octocat."""
        self._close(self.newest(), by=OCTOCAT)

    # Read by the simulated Argo CD

    async def main_commit(self) -> str:
        commit = await self.repo.commit(MAIN)
        if commit is None:
            raise LookupError(f"{self.repository} has no branch {MAIN}")
        return commit

    async def files_at(self, commit: str, prefix: str = "") -> dict[str, str]:
        """Return the files below a folder at a commit as path -> text; empty if there is no such folder."""
        return await self.repo.files_at(commit, prefix)

    # Changes

    async def _refs_moved(self, by: str) -> None:
        """Detect moved branches, update their pull requests, and emit the webhooks."""
        before, self._heads = self._heads, await self.repo.heads()
        for branch, commit in self._heads.items():
            if before.get(branch) != commit:
                await self._branch_moved(branch, commit, by)
        for branch in before.keys() - self._heads.keys():
            for pull in self._open_pulls():
                if pull.head_ref == branch:
                    self._close(pull, by=by)

    async def _branch_moved(self, branch: str, commit: str, by: str) -> None:
        for pull in self._open_pulls():
            if pull.head_ref == branch and pull.head_sha != commit:
                pull.head_sha = commit
                pull.shown_base = self._heads.get(pull.base_ref, pull.base_sha)
                self._touch(pull)
                self._start_check(commit)
                await self._emit_pull("synchronize", pull, by)
            if pull.base_ref == branch:
                if await self.repo.is_ancestor(pull.head_sha, commit):
                    # It was merged with git and pushed; GitHub shows such a pull request as merged.
                    self._settle_merge(pull, commit, by)
                else:
                    pull.base_sha = commit

    def _open_pulls(self) -> list[Pull]:
        return [pull for pull in self._pulls.values() if pull.state == "open"]

    def _touch(self, pull: Pull) -> None:
        pull.updated_at = self.ci.now()

    def _close(self, pull: Pull, *, by: str) -> None:
        if pull.state == "closed":
            return
        pull.state, pull.closed_by, pull.closed_at = "closed", by, self.ci.now()
        self._touch(pull)
        self._emit("pull_request", {"action": "closed", "number": pull.number, "pull_request": self._brief(pull)}, by)

    def _settle_merge(self, pull: Pull, commit: str, by: str) -> None:
        pull.merge_commit, pull.merged_by = commit, by
        self._close(pull, by=by)

    async def _merge(
        self, pull: Pull, *, by: str, method: str, title: str | None = None, message: str | None = None
    ) -> str:
        if pull.draft and pull.state == "open":
            raise Refused(405, "Pull Request is still a draft")
        if pull.state != "open" or not await self._is_mergeable(pull):
            raise Refused(405, "Pull Request is not mergeable")
        commit = await self._merge_commit(pull, by, method, title, message)
        await self.repo.git("update-ref", f"refs/heads/{pull.base_ref}", commit, pull.base_sha)
        self._settle_merge(pull, commit, by)
        await self._refs_moved(by)
        return commit

    async def _merge_commit(self, pull: Pull, by: str, method: str, title: str | None, message: str | None) -> str:
        author, committer = _person(by), Person("GitHub", "noreply@github.com")
        if method == "rebase":
            return await self.repo.rebased(pull.base_sha, pull.head_sha, committer)
        tree = await self.repo.merge_tree(pull.base_sha, pull.head_sha)
        if method == "squash":
            text = _paragraphs(
                title or f"{pull.title} (#{pull.number})",
                await self._squashed_message(pull) if message is None else message,
            )
            parents = [pull.base_sha]
        else:
            owner = self.repository.partition("/")[0]
            text = _paragraphs(
                title or f"Merge pull request #{pull.number} from {owner}/{pull.head_ref}",
                pull.title if message is None else message,
            )
            parents = [pull.base_sha, pull.head_sha]
        return await self.repo.commit_tree(tree, parents, text, author=author, committer=committer)

    async def _squashed_message(self, pull: Pull) -> str:
        """Return GitHub's default message: the body of a single commit, or a list of all messages."""
        messages = [await self.repo.message(c) for c in await self.repo.commits_between(pull.base_sha, pull.head_sha)]
        if len(messages) == 1:
            return messages[0].partition("\n")[2].strip()
        return "\n\n".join(f"* {message.strip()}" for message in messages)

    async def _is_mergeable(self, pull: Pull) -> bool:
        key = (pull.base_sha, pull.head_sha)
        if key not in self._mergeable:
            try:
                await self.repo.merge_tree(*key)
                self._mergeable[key] = True
            except MergeConflict:
                self._mergeable[key] = False
        return self._mergeable[key]

    # Checks

    def _start_check(self, sha: str) -> None:
        if self.ci.start(sha) and self.auto_checks_after is not None:
            self._spawn(self._pass_after(sha, self.auto_checks_after))

    async def _pass_after(self, sha: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.ci.is_running(sha):
            self._complete(sha, "success")

    def _complete(self, sha: str, conclusion: Conclusion) -> None:
        pulls = [{"number": pull.number} for pull in self._pulls.values() if pull.head_sha == sha]
        run = self.ci.run_json(sha, self.ci.complete(sha, conclusion)) | {"pull_requests": pulls}
        self._emit("check_run", {"action": "completed", "check_run": run}, OCTOCAT)

    # Webhooks

    def _emit(self, event: str, payload: Json, by: str) -> None:
        if self._webhook is not None:
            self._deliveries.put_nowait(
                (event, {**payload, "repository": self._repository_json(), "sender": user_json(by)})
            )

    async def _emit_pull(self, action: str, pull: Pull, by: str) -> None:
        payload = {"action": action, "number": pull.number, "pull_request": await self._pull_json(pull)}
        self._emit("pull_request", payload, by)

    async def _deliver_forever(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            while True:
                event, payload = await self._deliveries.get()
                if self._webhook is not None:
                    await self._deliver(http, self._webhook, event, json.dumps(payload).encode())

    async def _deliver(self, http: aiohttp.ClientSession, hook: Webhook, event: str, body: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/sandbox",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": str(uuid.uuid4()),
            "X-Hub-Signature-256": f"sha256={hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest()}",
        }
        for attempt in range(_DELIVERY_ATTEMPTS):
            with suppress(aiohttp.ClientError, TimeoutError):
                async with http.post(hook.url, data=body, headers=headers) as response:
                    if response.status < 500:
                        return
            await asyncio.sleep(0.2 * 2**attempt)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def panel(self) -> list[Json]:
        """Return the pull requests for the panel beside the channel, newest first."""
        return [
            {"number": p.number, "title": p.title, "url": self._page_url(p), "state": shown_state(p), "checks": checks}
            for p in sorted(self._pulls.values(), key=lambda pull: -pull.number)
            for checks in [self.ci.verdict(p.head_sha)]
        ]

    # JSON

    async def _changes(self, pull: Pull) -> tuple[FileChange, ...]:
        with suppress(GitFailed):  # unrelated histories have no merge base, and GitHub shows an empty diff
            return await self.repo.changes(pull.base_sha, pull.head_sha)
        return ()

    def _page_url(self, pull: Pull) -> str:
        return f"{self.url}/{self.repository}/pull/{pull.number}"

    def _brief(self, pull: Pull) -> Json:
        """Return a pull request with the fields that it has in a list."""
        owner = self.repository.partition("/")[0]
        repository = self._repository_json()
        return {
            "id": 10_000 + pull.number,
            "number": pull.number,
            "url": f"{self.url}/repos/{self.repository}/pulls/{pull.number}",
            "html_url": self._page_url(pull),
            "state": pull.state,
            "draft": pull.draft,
            "locked": False,
            "title": pull.title,
            "body": pull.body,
            "user": user_json(pull.author),
            "labels": [{"name": label} for label in pull.labels],
            "created_at": pull.created_at,
            "updated_at": pull.updated_at,
            "closed_at": pull.closed_at,
            "merged_at": pull.closed_at if pull.merge_commit else None,
            "merge_commit_sha": pull.merge_commit,
            "merged": pull.merge_commit is not None,
            "merged_by": user_json(pull.merged_by) if pull.merged_by else None,
            "head": self._side(owner, pull.head_ref, pull.head_sha, repository),
            "base": self._side(owner, pull.base_ref, pull.shown_base, repository),
            "auto_merge": {"enabled_by": user_json(pull.auto_merge_by), "merge_method": "merge"}
            if pull.auto_merge_by
            else None,
        }

    @staticmethod
    def _side(owner: str, ref: str, sha: str, repository: Json) -> Json:
        return {"label": f"{owner}:{ref}", "ref": ref, "sha": sha, "user": user_json(owner), "repo": repository}

    async def _pull_json(self, pull: Pull) -> Json:
        """Return a single pull request, with the additional fields that GitHub computes for it."""
        changes = await self._changes(pull)
        mergeable = await self._is_mergeable(pull) if pull.state == "open" else None
        return {
            **self._brief(pull),
            "mergeable": mergeable,
            "mergeable_state": self._mergeable_state(pull, mergeable),
            "additions": sum(change.additions for change in changes),
            "deletions": sum(change.deletions for change in changes),
            "changed_files": len(changes),
            "commits": len(await self.repo.commits_between(pull.base_sha, pull.head_sha)),
            "comments": len(pull.comments),
        }

    def _mergeable_state(self, pull: Pull, mergeable: bool | None) -> str:
        """Return GraphQL's MergeStateStatus. No rule requires the checks, so failed checks only make it unstable."""
        if mergeable is None:
            return "unknown"
        if not mergeable:
            return "dirty"
        if pull.draft:
            return "draft"
        return "clean" if self.ci.verdict(pull.head_sha) == "success" else "unstable"

    def _repository_json(self) -> Json:
        owner, _, name = self.repository.partition("/")
        return {
            "id": 1,
            "name": name,
            "full_name": self.repository,
            "owner": user_json(owner),
            "private": True,
            "default_branch": MAIN,
            "html_url": f"{self.url}/{self.repository}",
            "clone_url": self.git_url,
            "allow_merge_commit": True,
            "allow_squash_merge": True,
            "allow_rebase_merge": True,
            "permissions": {"admin": False, "push": True, "pull": True},
        }


def user_json(login: str) -> Json:
    return {"login": login, "type": "User"}


def _person(login: str) -> Person:
    return Person(login, f"{login}@users.noreply.example.com")


def _paragraphs(subject: str, body: str) -> str:
    return f"{subject}\n\n{body}".strip() + "\n"


def shown_state(pull: Pull) -> str:
    return "merged" if pull.merge_commit else pull.state
