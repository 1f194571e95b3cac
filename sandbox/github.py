"""The sandbox's GitHub: REST v3, webhooks and a page with the diff, over one real bare repository.

Bodies, status codes and messages follow https://docs.github.com/en/rest for the endpoints that exist here. The
control methods (`checks`, `merge`, `close`) are what other people do on GitHub: the user octocat, and CI.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import aiohttp
from aiohttp import web

from sandbox import github_page
from sandbox.git import MAIN, BareRepository, FileChange, GitFailed, MergeConflict, Person, seed

__all__ = ["GitHub", "seed"]

Json = dict[str, Any]
Item = TypeVar("Item")
Conclusion = Literal["success", "failure"]
PushListener = Callable[[str, str], None]
"""Called with the branch and its new commit."""

TOKEN = "ghp_sandbox0000000000000000000000000000"
OCTOCAT = "octocat"
BOT = "stoker-bot"
_DELIVERY_ATTEMPTS = 4
_MEGABYTE = 1024**2


class Refused(Exception):
    """An answer other than 2xx, worded as GitHub words it."""

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
    """The base's tip while the pull request is open; after that, the tip at its end, so that the diff stays."""
    author: str
    created_at: str
    updated_at: str
    state: Literal["open", "closed"] = "open"
    closed_at: str | None = None
    closed_by: str | None = None
    merged_by: str | None = None
    merge_commit: str | None = None
    labels: list[str] = field(default_factory=list)
    comments: list[Json] = field(default_factory=list)


@dataclass
class CheckRun:
    """CI's one check of a commit: in progress until it has a conclusion."""

    id: int
    started_at: str
    conclusion: Conclusion | None = None
    completed_at: str | None = None


@dataclass(frozen=True)
class Webhook:
    url: str
    secret: str


class GitHub:
    """One repository on GitHub. `async with` it; it serves git, REST and the page on one loopback port."""

    def __init__(
        self,
        repo_path: Path,
        faults: set[str],
        *,
        repository: str = "acme/llm-platform",
        token: str = TOKEN,
        auto_checks_after: float | None = None,
        port: int = 0,
    ) -> None:
        self.repo = BareRepository(repo_path)
        self.repository = repository
        self.token = token
        self.auto_checks_after = auto_checks_after
        self.url = ""
        self._faults = faults
        self._port = port
        self._pulls: dict[int, Pull] = {}
        self._checks: dict[str, CheckRun] = {}
        self._heads: dict[str, str] = {}
        self._mergeable: dict[tuple[str, str], bool] = {}
        self._listeners: list[PushListener] = []
        self._webhook: Webhook | None = None
        self._deliveries: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()

    @property
    def api_url(self) -> str:
        return self.url

    @property
    def git_url(self) -> str:
        return f"{self.url}/{self.repository}.git"

    async def __aenter__(self) -> Self:
        self._heads = await self.repo.heads()
        runner = self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self._spawn(self._deliver_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()
        await self._runner.cleanup()

    # What people and CI do

    def webhook(self, url: str, secret: str) -> None:
        """Deliver events to this address from now on."""
        self._webhook = Webhook(url, secret)

    def on_push(self, listener: PushListener) -> None:
        self._listeners.append(listener)

    def newest(self) -> Pull:
        """The newest open pull request."""
        for pull in sorted(self._pulls.values(), key=lambda pull: -pull.number):
            if pull.state == "open":
                return pull
        raise LookupError("There is no open pull request.")

    async def checks(self, conclusion: Conclusion) -> None:
        """Let CI end on the newest open pull request's head."""
        self._complete(self.newest().head_sha, conclusion)

    async def merge(self) -> str:
        """Merge the newest open pull request as octocat, through GitHub's button; the merge commit's id."""
        async with self._changing:
            return await self._merge(self.newest(), by=OCTOCAT, method="merge")

    async def close(self) -> None:
        """Close the newest open pull request as octocat."""
        self._close(self.newest(), by=OCTOCAT)

    # What the simulated Argo CD reads

    async def main_commit(self) -> str:
        commit = await self.repo.commit(MAIN)
        if commit is None:
            raise LookupError(f"{self.repository} has no branch {MAIN}")
        return commit

    async def files_at(self, commit: str, prefix: str = "") -> dict[str, str]:
        """Path -> text of the files under a folder at a commit; empty if there is no such folder."""
        return await self.repo.files_at(commit, prefix)

    # Changes

    async def _refs_moved(self, by: str) -> None:
        """Compare the branches with what they were, and let pull requests, webhooks and listeners follow."""
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
                self._touch(pull)
                self._start_check(commit)
                await self._emit_pull("synchronize", pull, by)
            if pull.base_ref == branch:
                if await self.repo.is_ancestor(pull.head_sha, commit):
                    # Somebody merged it with git and pushed; GitHub shows such a pull request as merged.
                    self._settle_merge(pull, commit, by)
                else:
                    pull.base_sha = commit
        for listener in self._listeners:
            listener(branch, commit)

    def _open_pulls(self) -> list[Pull]:
        return [pull for pull in self._pulls.values() if pull.state == "open"]

    def _touch(self, pull: Pull) -> None:
        pull.updated_at = _now()

    def _close(self, pull: Pull, *, by: str) -> None:
        if pull.state == "closed":
            return
        pull.state, pull.closed_by, pull.closed_at = "closed", by, _now()
        self._touch(pull)
        self._emit("pull_request", {"action": "closed", "number": pull.number, "pull_request": self._brief(pull)}, by)

    def _settle_merge(self, pull: Pull, commit: str, by: str) -> None:
        pull.merge_commit, pull.merged_by = commit, by
        self._close(pull, by=by)

    async def _merge(
        self, pull: Pull, *, by: str, method: str, title: str | None = None, message: str | None = None
    ) -> str:
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
        """GitHub's default: the one commit's body, or a list of all messages."""
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
        if sha in self._checks:
            return
        self._checks[sha] = CheckRun(id=1000 + len(self._checks), started_at=_now())
        if self.auto_checks_after is not None:
            self._spawn(self._pass_after(sha, self.auto_checks_after))

    async def _pass_after(self, sha: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._checks[sha].conclusion is None:
            self._complete(sha, "success")

    def _complete(self, sha: str, conclusion: Conclusion) -> None:
        check = self._checks[sha]
        check.conclusion, check.completed_at = conclusion, _now()
        pulls = [{"number": pull.number} for pull in self._pulls.values() if pull.head_sha == sha]
        run = {**self._check_json(sha, check), "pull_requests": pulls}
        self._emit("check_run", {"action": "completed", "check_run": run}, OCTOCAT)

    # Webhooks

    def _emit(self, event: str, payload: Json, by: str) -> None:
        if self._webhook is not None:
            self._deliveries.put_nowait(
                (event, {**payload, "repository": self._repository_json(), "sender": _user(by)})
            )

    async def _emit_pull(self, action: str, pull: Pull, by: str) -> None:
        payload = {"action": action, "number": pull.number, "pull_request": await self._pull_json(pull)}
        self._emit("pull_request", payload, by)

    async def _deliver_forever(self) -> None:
        while True:
            event, payload = await self._deliveries.get()
            if self._webhook is not None:
                await self._deliver(self._webhook, event, json.dumps(payload).encode())

    async def _deliver(self, hook: Webhook, event: str, body: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/sandbox",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": str(uuid.uuid4()),
            "X-Hub-Signature-256": f"sha256={hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest()}",
        }
        for attempt in range(_DELIVERY_ATTEMPTS):
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._http.post(hook.url, data=body, headers=headers) as response:
                    if response.status < 500:
                        return
            await asyncio.sleep(0.2 * 2**attempt)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # HTTP

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._answers], client_max_size=256 * _MEGABYTE)
        repos, page = f"/repos/{self.repository}", f"/{self.repository}"
        app.add_routes(
            [
                web.get("/rate_limit", self._get_rate_limit),
                web.get(repos, self._get_repository),
                web.get(f"{repos}/pulls", self._list_pulls),
                web.post(f"{repos}/pulls", self._open_pull),
                web.get(f"{repos}/pulls/{{number:\\d+}}", self._get_pull),
                web.patch(f"{repos}/pulls/{{number:\\d+}}", self._patch_pull),
                web.get(f"{repos}/pulls/{{number:\\d+}}/files", self._list_files),
                web.get(f"{repos}/pulls/{{number:\\d+}}/reviews", self._list_reviews),
                web.put(f"{repos}/pulls/{{number:\\d+}}/merge", self._put_merge),
                web.get(f"{repos}/issues/{{number:\\d+}}", self._get_issue),
                web.post(f"{repos}/issues/{{number:\\d+}}/labels", self._add_labels),
                web.get(f"{repos}/issues/{{number:\\d+}}/comments", self._list_comments),
                web.post(f"{repos}/issues/{{number:\\d+}}/comments", self._add_comment),
                web.get(f"{repos}/commits/{{ref:.+}}/check-runs", self._list_check_runs),
                web.get(f"{repos}/commits/{{ref:.+}}/status", self._get_status),
                web.get(f"{repos}/git/ref/heads/{{branch:.+}}", self._get_ref),
                web.delete(f"{repos}/git/refs/heads/{{branch:.+}}", self._delete_ref),
                web.get(f"{repos}/branches/{{branch:.+}}/protection", self._get_protection),
                web.route("*", f"{page}.git/{{tail:.*}}", self._serve_git),
                web.get(page, self._show_list),
                web.get(f"{page}/pulls", self._show_list),
                web.get(f"{page}/pull/{{number:\\d+}}", self._show_pull),
                web.post(f"{page}/pull/{{number:\\d+}}/{{action:.+}}", self._press),
            ]
        )
        return app

    @web.middleware
    async def _answers(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Errors worded like GitHub's, the token, and ETags, for everything under the REST API."""
        is_rest = request.path == "/rate_limit" or request.path.startswith("/repos/")
        if not is_rest:
            return await handler(request)
        if "github-down" in self._faults:
            return Refused(503, "Service Unavailable").response()
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token") or not hmac.compare_digest(token, self.token):
            return Refused(401, "Bad credentials").response()
        try:
            response = await handler(request)
        except Refused as e:
            return e.response()
        except web.HTTPException as e:
            return Refused(e.status, {404: "Not Found"}.get(e.status, e.reason)).response()
        return _with_etag(request, response)

    async def _serve_git(self, request: web.Request) -> web.Response:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        expected = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        if scheme.lower() != "basic" or not hmac.compare_digest(encoded, expected):
            challenge = {"WWW-Authenticate": 'Basic realm="GitHub"'}
            return web.Response(status=401, text="Authentication failed", headers=challenge)
        tail, body = request.match_info["tail"], await request.read()
        if request.method == "POST" and tail == "git-receive-pack":
            async with self._changing:
                answer = await self.repo.serve("POST", tail, request.query_string, request.headers, body, BOT)
                await self._refs_moved(BOT)
        else:
            answer = await self.repo.serve(request.method, tail, request.query_string, request.headers, body, BOT)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    # REST: pull requests

    async def _open_pull(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        head, base = str(asked.get("head", "")).rpartition(":")[2], str(asked.get("base", ""))
        async with self._changing:
            branches = await self.repo.heads()
            if head not in branches:
                raise _invalid("head")
            if base not in branches:
                raise _invalid("base")
            head_sha, base_sha = branches[head], branches[base]
            await self._refuse_unfit(head, base, head_sha, base_sha)
            now = _now()
            pull = Pull(
                number=len(self._pulls) + 1,
                title=str(asked.get("title") or ""),
                body=str(asked.get("body") or ""),
                head_ref=head,
                base_ref=base,
                head_sha=head_sha,
                base_sha=base_sha,
                author=BOT,
                created_at=now,
                updated_at=now,
            )
            self._pulls[pull.number] = pull
            self._start_check(head_sha)
            await self._emit_pull("opened", pull, BOT)
        return web.json_response(await self._pull_json(pull), status=201)

    async def _refuse_unfit(self, head: str, base: str, head_sha: str, base_sha: str) -> None:
        owner = self.repository.partition("/")[0]
        message = ""
        if any((pull.head_ref, pull.base_ref) == (head, base) for pull in self._open_pulls()):
            message = f"A pull request already exists for {owner}:{head}."
        elif await self.repo.is_ancestor(head_sha, base_sha):
            message = f"No commits between {base} and {head}"
        if message:
            error = {"resource": "PullRequest", "code": "custom", "message": message}
            raise Refused(422, "Validation Failed", [error])

    async def _list_pulls(self, request: web.Request) -> web.Response:
        state, head, base = (request.query.get(name) for name in ("state", "head", "base"))
        state = state or "open"
        owner = self.repository.partition("/")[0]
        found = [
            pull
            for pull in self._pulls.values()
            if state in ("all", pull.state)
            # GitHub ignores a head that does not name its owner.
            and (not head or ":" not in head or head == f"{owner}:{pull.head_ref}")
            and (not base or base == pull.base_ref)
        ]
        newest_first = request.query.get("direction", "desc") == "desc"
        found.sort(key=lambda pull: pull.number, reverse=newest_first)
        return web.json_response([self._brief(pull) for pull in _page(request, found)])

    async def _get_pull(self, request: web.Request) -> web.Response:
        return web.json_response(await self._pull_json(self._asked(request)))

    async def _patch_pull(self, request: web.Request) -> web.Response:
        pull, asked = self._asked(request), await _body(request)
        pull.title, pull.body = asked.get("title", pull.title), asked.get("body", pull.body) or ""
        self._touch(pull)
        match asked.get("state"):
            case "closed":
                self._close(pull, by=BOT)
            case "open" if pull.state == "closed":
                raise Refused(422, "Validation Failed", [{"resource": "PullRequest", "field": "state"}])
        return web.json_response(await self._pull_json(pull))

    async def _put_merge(self, request: web.Request) -> web.Response:
        pull, asked = self._asked(request), await _body(request)
        method = asked.get("merge_method", "merge")
        if method not in ("merge", "squash", "rebase"):
            raise _invalid("merge_method")
        async with self._changing:
            if pull.state == "open" and asked.get("sha", pull.head_sha) != pull.head_sha:
                raise Refused(409, "Head branch was modified. Review and try the merge again.")
            title, message = asked.get("commit_title"), asked.get("commit_message")
            commit = await self._merge(pull, by=BOT, method=method, title=title, message=message)
        return web.json_response({"sha": commit, "merged": True, "message": "Pull Request successfully merged"})

    async def _list_files(self, request: web.Request) -> web.Response:
        changes = _page(request, await self._changes(self._asked(request)))
        return web.json_response(
            [
                {
                    "filename": change.path,
                    "status": change.status,
                    "additions": change.additions,
                    "deletions": change.deletions,
                    "changes": change.additions + change.deletions,
                    "patch": change.patch,
                }
                for change in changes
            ]
        )

    async def _list_reviews(self, request: web.Request) -> web.Response:
        self._asked(request)
        return web.json_response([])

    # REST: issues, checks, refs

    async def _get_issue(self, request: web.Request) -> web.Response:
        pull = self._asked(request)
        return web.json_response(
            {
                "number": pull.number,
                "title": pull.title,
                "state": pull.state,
                "user": _user(pull.author),
                "labels": [{"name": label} for label in pull.labels],
                "closed_at": pull.closed_at,
                "closed_by": _user(pull.closed_by) if pull.closed_by else None,
                "pull_request": {"html_url": self._page_url(pull)},
            }
        )

    async def _add_labels(self, request: web.Request) -> web.Response:
        pull, asked = self._asked(request), await _body(request)
        for label in asked.get("labels", []):
            if label not in pull.labels:
                pull.labels.append(str(label))
        return web.json_response([{"name": label} for label in pull.labels])

    async def _list_comments(self, request: web.Request) -> web.Response:
        return web.json_response(_page(request, self._asked(request).comments))

    async def _add_comment(self, request: web.Request) -> web.Response:
        pull, asked = self._asked(request), await _body(request)
        if not asked.get("body"):
            raise _invalid("body")
        number = len(pull.comments) + 1
        comment = {"id": pull.number * 1000 + number, "body": asked["body"], "user": _user(BOT), "created_at": _now()}
        pull.comments.append(comment)
        return web.json_response(comment, status=201)

    async def _list_check_runs(self, request: web.Request) -> web.Response:
        sha = await self._commit_asked(request)
        check = self._checks.get(sha)
        runs = [self._check_json(sha, check)] if check else []
        return web.json_response({"total_count": len(runs), "check_runs": _page(request, runs)})

    async def _get_status(self, request: web.Request) -> web.Response:
        """The older commit statuses: nothing writes any here, and GitHub then says pending with a count of 0."""
        sha = await self._commit_asked(request)
        return web.json_response({"state": "pending", "sha": sha, "total_count": 0, "statuses": []})

    async def _get_ref(self, request: web.Request) -> web.Response:
        branch = request.match_info["branch"]
        commit = (await self.repo.heads()).get(branch)
        if commit is None:
            raise Refused(404, "Not Found")
        return web.json_response({"ref": f"refs/heads/{branch}", "object": {"type": "commit", "sha": commit}})

    async def _delete_ref(self, request: web.Request) -> web.Response:
        branch = request.match_info["branch"]
        async with self._changing:
            if branch not in await self.repo.heads():
                raise Refused(422, "Reference does not exist")
            await self.repo.git("update-ref", "-d", f"refs/heads/{branch}")
            await self._refs_moved(BOT)
        return web.Response(status=204)

    async def _get_protection(self, request: web.Request) -> web.Response:
        raise Refused(404, "Branch not protected")

    async def _get_repository(self, request: web.Request) -> web.Response:
        return web.json_response(self._repository_json())

    async def _get_rate_limit(self, request: web.Request) -> web.Response:
        core = {"limit": 5000, "remaining": 4999, "used": 1, "reset": int(datetime.now(UTC).timestamp()) + 3600}
        return web.json_response({"resources": {"core": core}, "rate": core})

    # The page

    async def _show_list(self, request: web.Request) -> web.Response:
        pulls = sorted(self._pulls.values(), key=lambda pull: -pull.number)
        rows = [(pull.number, pull.title, _state(pull)) for pull in pulls]
        return web.Response(text=github_page.list_page(self.repository, rows), content_type="text/html")

    async def _show_pull(self, request: web.Request) -> web.Response:
        pull = self._pulls.get(int(request.match_info["number"]))
        if pull is None:
            raise web.HTTPNotFound
        check = self._checks.get(pull.head_sha)
        page = github_page.pull_page(
            number=pull.number,
            title=pull.title,
            body=pull.body,
            state=_state(pull),
            head=pull.head_ref,
            base=pull.base_ref,
            author=pull.author,
            mergeable=await self._is_mergeable(pull),
            checks=(check.conclusion if check else None) or "pending",
            labels=pull.labels,
            comments=[(comment["user"]["login"], comment["body"]) for comment in pull.comments],
            changes=await self._changes(pull),
        )
        return web.Response(text=page, content_type="text/html")

    async def _press(self, request: web.Request) -> web.Response:
        """A button of the page. Another site's page must not press it: such a request names another origin."""
        pull = self._pulls.get(int(request.match_info["number"]))
        if pull is None:
            raise web.HTTPNotFound
        if request.headers.get("Origin", self.url) != self.url:
            raise web.HTTPForbidden
        match request.match_info["action"]:
            case "checks/success":
                self._complete(pull.head_sha, "success")
            case "checks/failure":
                self._complete(pull.head_sha, "failure")
            case "merge":
                async with self._changing:
                    try:
                        await self._merge(pull, by=OCTOCAT, method="merge")
                    except Refused as e:
                        raise web.HTTPConflict(text=e.message) from e
            case "close":
                self._close(pull, by=OCTOCAT)
            case _:
                raise web.HTTPNotFound
        raise web.HTTPSeeOther(self._page_url(pull))

    # What things look like in JSON

    def _asked(self, request: web.Request) -> Pull:
        pull = self._pulls.get(int(request.match_info["number"]))
        if pull is None:
            raise Refused(404, "Not Found")
        return pull

    async def _commit_asked(self, request: web.Request) -> str:
        ref = request.match_info["ref"]
        commit = await self.repo.commit(ref)
        if commit is None:
            raise Refused(422, f"No commit found for SHA: {ref}")
        return commit

    async def _changes(self, pull: Pull) -> tuple[FileChange, ...]:
        with suppress(GitFailed):  # unrelated histories have no merge base, and GitHub shows an empty diff
            return await self.repo.changes(pull.base_sha, pull.head_sha)
        return ()

    def _page_url(self, pull: Pull) -> str:
        return f"{self.url}/{self.repository}/pull/{pull.number}"

    def _brief(self, pull: Pull) -> Json:
        """A pull request as in a list."""
        owner = self.repository.partition("/")[0]
        repository = self._repository_json()
        return {
            "id": 10_000 + pull.number,
            "number": pull.number,
            "url": f"{self.url}/repos/{self.repository}/pulls/{pull.number}",
            "html_url": self._page_url(pull),
            "state": pull.state,
            "draft": False,
            "locked": False,
            "title": pull.title,
            "body": pull.body,
            "user": _user(pull.author),
            "labels": [{"name": label} for label in pull.labels],
            "created_at": pull.created_at,
            "updated_at": pull.updated_at,
            "closed_at": pull.closed_at,
            "merged_at": pull.closed_at if pull.merge_commit else None,
            "merge_commit_sha": pull.merge_commit,
            "merged": pull.merge_commit is not None,
            "merged_by": _user(pull.merged_by) if pull.merged_by else None,
            "head": self._side(owner, pull.head_ref, pull.head_sha, repository),
            "base": self._side(owner, pull.base_ref, pull.base_sha, repository),
        }

    @staticmethod
    def _side(owner: str, ref: str, sha: str, repository: Json) -> Json:
        return {"label": f"{owner}:{ref}", "ref": ref, "sha": sha, "user": _user(owner), "repo": repository}

    async def _pull_json(self, pull: Pull) -> Json:
        """A pull request by itself: it adds what GitHub has to compute."""
        changes = await self._changes(pull)
        mergeable = await self._is_mergeable(pull) if pull.state == "open" else None
        check = self._checks.get(pull.head_sha)
        passing = check is not None and check.conclusion == "success"
        mergeable_state = "unknown" if mergeable is None else "dirty" if not mergeable else "clean"
        return {
            **self._brief(pull),
            "mergeable": mergeable,
            "mergeable_state": "unstable" if mergeable_state == "clean" and not passing else mergeable_state,
            "additions": sum(change.additions for change in changes),
            "deletions": sum(change.deletions for change in changes),
            "changed_files": len(changes),
            "commits": len(await self.repo.commits_between(pull.base_sha, pull.head_sha)),
            "comments": len(pull.comments),
        }

    def _check_json(self, sha: str, check: CheckRun) -> Json:
        return {
            "id": check.id,
            "name": "ci",
            "head_sha": sha,
            "status": "completed" if check.conclusion else "in_progress",
            "conclusion": check.conclusion,
            "started_at": check.started_at,
            "completed_at": check.completed_at,
            "html_url": f"{self.url}/{self.repository}/runs/{check.id}",
            "app": {"slug": "github-actions"},
        }

    def _repository_json(self) -> Json:
        owner, _, name = self.repository.partition("/")
        return {
            "id": 1,
            "name": name,
            "full_name": self.repository,
            "owner": _user(owner),
            "private": True,
            "default_branch": MAIN,
            "html_url": f"{self.url}/{self.repository}",
            "clone_url": self.git_url,
            "allow_merge_commit": True,
            "allow_squash_merge": True,
            "allow_rebase_merge": True,
            "permissions": {"admin": False, "push": True, "pull": True},
        }


def _with_etag(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if request.method != "GET" or not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return response
    etag = f'W/"{hashlib.sha256(response.body).hexdigest()}"'
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response


def _page(request: web.Request, items: Sequence[Item]) -> list[Item]:
    size, number = int(request.query.get("per_page", "30")), int(request.query.get("page", "1"))
    return list(items[(number - 1) * size : number * size])


async def _body(request: web.Request) -> Mapping[str, Any]:
    if not request.can_read_body:
        return {}
    try:
        parsed = await request.json()
    except json.JSONDecodeError as e:
        raise Refused(400, "Problems parsing JSON") from e
    return parsed if isinstance(parsed, dict) else {"labels": parsed}


def _invalid(name: str) -> Refused:
    error = {"resource": "PullRequest", "field": name, "code": "invalid"}
    return Refused(422, "Validation Failed", [error])


def _state(pull: Pull) -> str:
    return "merged" if pull.merge_commit else pull.state


def _user(login: str) -> Json:
    return {"login": login, "type": "User"}


def _person(login: str) -> Person:
    return Person(login, f"{login}@users.noreply.example.com")


def _paragraphs(subject: str, body: str) -> str:
    return f"{subject}\n\n{body}".strip() + "\n"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
