"""The sandbox's GitHub on a port: git over smart HTTP, REST v3, and a page with the diff, for one real repository.

Bodies, status codes and messages follow https://docs.github.com/en/rest for the supported endpoints.
`sandbox.github_pulls` has the pull requests and the control methods (`checks`, `merge`, `close`).
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import web

from sandbox import github_page
from sandbox.clock import real_date
from sandbox.git import MAIN, seed
from sandbox.github_pulls import BOT, OCTOCAT, Json, Pull, PullRequests, Refused, shown_state, user_json

__all__ = ["GitHub", "Refused", "seed"]

Item = TypeVar("Item")

TOKEN = "ghp_sandbox0000000000000000000000000000"
_MEGABYTE = 1024**2


class GitHub(PullRequests):
    """One repository on GitHub: an async context manager that serves git, REST and the page on one loopback port."""

    def __init__(
        self,
        repo_path: Path,
        faults: set[str],
        *,
        repository: str = "acme/llm-platform",
        token: str = TOKEN,
        auto_checks_after: float | None = None,
        port: int = 0,
        date: Callable[[], datetime] = real_date,
    ) -> None:
        super().__init__(repo_path, repository, auto_checks_after=auto_checks_after, date=date)
        self.token = token
        self.collisions = 0
        """Number of merges to refuse, as if something else had been merged at the same moment."""
        self.rules: list[Json] = []
        """The rulesets of the main branch, as returned by /rules/branches/main."""
        self.refuses: dict[str, Refused] = {}
        """A part of the method and path, like `POST /pulls` -> the refusal, as for a token without that permission."""
        self._faults = faults
        self._port = port

    @property
    def api_url(self) -> str:
        return self.url

    async def __aenter__(self) -> Self:
        self._heads = await self.repo.heads()
        runner = self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.ci.address = f"{self.url}/{self.repository}"
        self._spawn(self._deliver_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

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
                web.get(f"{repos}/pulls/{{number:\\d+}}/commits", self._list_commits),
                web.get(f"{repos}/pulls/{{number:\\d+}}/reviews", self._list_reviews),
                web.put(f"{repos}/pulls/{{number:\\d+}}/merge", self._put_merge),
                web.get(f"{repos}/issues/{{number:\\d+}}", self._get_issue),
                web.post(f"{repos}/issues/{{number:\\d+}}/labels", self._add_labels),
                web.get(f"{repos}/issues/{{number:\\d+}}/comments", self._list_comments),
                web.post(f"{repos}/issues/{{number:\\d+}}/comments", self._add_comment),
                web.get(f"{repos}/commits/{{ref:.+}}/check-runs", self._list_check_runs),
                web.get(f"{repos}/commits/{{ref:.+}}/status", self._get_status),
                web.get(f"{repos}/actions/runs", self._list_workflow_runs),
                web.get(f"{repos}/rules/branches/{{branch:.+}}", self._list_rules),
                web.get(f"{repos}/git/ref/heads/{{branch:.+}}", self._get_ref),
                web.delete(f"{repos}/git/refs/heads/{{branch:.+}}", self._delete_ref),
                web.get(f"{repos}/branches/{{branch:.+}}/protection", self._get_protection),
                web.get(f"{repos}/branches/{{branch:.+}}", self._get_branch),
                web.route("*", f"{page}.git/{{tail:.*}}", self._serve_git),
                web.get(page, self._show_list),
                web.get(f"{page}/pulls", self._show_list),
                web.get(f"{page}/pull/{{number:\\d+}}", self._show_pull),
                web.get(f"{page}/blob/{{commit:[0-9a-f]+}}/{{path:.+}}", self._show_file),
                web.post(f"{page}/pull/{{number:\\d+}}/{{action:.+}}", self._press),
            ]
        )
        return app

    @web.middleware
    async def _answers(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Check the token, return errors with GitHub's messages, and add ETags, for the whole REST API."""
        is_rest = request.path == "/rate_limit" or request.path.startswith("/repos/")
        if not is_rest:
            return await handler(request)
        if "github-down" in self._faults:
            return Refused(503, "Service Unavailable").response()
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token") or not hmac.compare_digest(token, self.token):
            return Refused(401, "Bad credentials").response()
        try:
            self._refuse_forbidden(request)
            response = await handler(request)
        except Refused as e:
            return e.response()
        except web.HTTPException as e:
            return Refused(e.status, {404: "Not Found"}.get(e.status, e.reason)).response()
        return _with_etag(request, response)

    def _refuse_forbidden(self, request: web.Request) -> None:
        """Raise Refused for the requests in `refuses`, and for statuses if that fault is active."""
        if "statuses-refused" in self._faults and request.path.endswith("/status"):
            raise Refused(403, "Resource not accessible by personal access token")
        target = f"{request.method} {request.path.removeprefix(f'/repos/{self.repository}')}"
        for part, answer in self.refuses.items():
            if part in target:
                raise answer

    async def _serve_git(self, request: web.Request) -> web.Response:
        if "github-down" in self._faults:
            return web.Response(status=503, text="Service Unavailable")
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
        body = await _body(request)
        head, base = str(body.get("head", "")).rpartition(":")[2], str(body.get("base", ""))
        async with self._changing:
            branches = await self.repo.heads()
            if head not in branches:
                raise _invalid("head")
            if base not in branches:
                raise _invalid("base")
            head_sha, base_sha = branches[head], branches[base]
            await self._refuse_unfit(head, base, head_sha, base_sha)
            opened = self.ci.now()
            pull = Pull(
                number=len(self._pulls) + 1,
                title=str(body.get("title") or ""),
                body=str(body.get("body") or ""),
                head_ref=head,
                base_ref=base,
                head_sha=head_sha,
                base_sha=base_sha,
                shown_base=base_sha,
                author=BOT,
                draft=bool(body.get("draft")),
                created_at=opened,
                updated_at=opened,
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
        pulls = [
            pull
            for pull in self._pulls.values()
            if state in ("all", pull.state)
            # GitHub ignores a head without its owner.
            and (not head or ":" not in head or head == f"{owner}:{pull.head_ref}")
            and (not base or base == pull.base_ref)
        ]
        newest_first = request.query.get("direction", "desc") == "desc"
        pulls.sort(key=lambda pull: pull.number, reverse=newest_first)
        return web.json_response([self._brief(pull) for pull in _page(request, pulls)])

    async def _get_pull(self, request: web.Request) -> web.Response:
        return web.json_response(await self._pull_json(self._pull_of(request)))

    async def _patch_pull(self, request: web.Request) -> web.Response:
        pull, body = self._pull_of(request), await _body(request)
        pull.title, pull.body = body.get("title", pull.title), body.get("body", pull.body) or ""
        self._touch(pull)
        if body.get("base", pull.base_ref) != pull.base_ref:
            async with self._changing:
                await self._rebase_onto(pull, str(body["base"]), by=BOT)
        match body.get("state"):
            case "closed":
                self._close(pull, by=BOT)
            case "open" if pull.state == "closed":
                raise Refused(422, "Validation Failed", [{"resource": "PullRequest", "field": "state"}])
        return web.json_response(await self._pull_json(pull))

    async def _put_merge(self, request: web.Request) -> web.Response:
        pull, body = self._pull_of(request), await _body(request)
        method = body.get("merge_method", "merge")
        if method not in ("merge", "squash", "rebase"):
            raise _invalid("merge_method")
        async with self._changing:
            if self.collisions:
                self.collisions -= 1
                raise Refused(405, "Base branch was modified. Review and try the merge again.")
            if pull.state == "open" and body.get("sha", pull.head_sha) != pull.head_sha:
                raise Refused(409, "Head branch was modified. Review and try the merge again.")
            title, message = body.get("commit_title"), body.get("commit_message")
            commit = await self._merge(pull, by=BOT, method=method, title=title, message=message)
        return web.json_response({"sha": commit, "merged": True, "message": "Pull Request successfully merged"})

    async def _list_files(self, request: web.Request) -> web.Response:
        changes = _page(request, await self._changes(self._pull_of(request)))
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

    async def _list_commits(self, request: web.Request) -> web.Response:
        pull = self._pull_of(request)
        commits = await self.repo.commits_between(pull.base_sha, pull.head_sha)
        return web.json_response([await self._commit_json(commit) for commit in _page(request, commits)])

    async def _commit_json(self, commit: str) -> dict[str, Any]:
        output = await self.repo.git("show", "--no-patch", "--format=%an%x00%ae%x00%at%x00%B", commit)
        name, address, at, message = output.split("\0", 3)
        date = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        author = {"name": name, "email": address, "date": date}
        return {"sha": commit, "commit": {"author": author, "message": message.strip()}}

    async def _list_reviews(self, request: web.Request) -> web.Response:
        self._pull_of(request)
        return web.json_response([])

    # REST: issues, checks, refs

    async def _get_issue(self, request: web.Request) -> web.Response:
        pull = self._pull_of(request)
        return web.json_response(
            {
                "number": pull.number,
                "title": pull.title,
                "state": pull.state,
                "user": user_json(pull.author),
                "labels": [{"name": label} for label in pull.labels],
                "closed_at": pull.closed_at,
                "closed_by": user_json(pull.closed_by) if pull.closed_by else None,
                "pull_request": {"html_url": self._page_url(pull)},
            }
        )

    async def _add_labels(self, request: web.Request) -> web.Response:
        pull, body = self._pull_of(request), await _body(request)
        for label in body.get("labels", []):
            if label not in pull.labels:
                pull.labels.append(str(label))
        return web.json_response([{"name": label} for label in pull.labels])

    async def _list_comments(self, request: web.Request) -> web.Response:
        return web.json_response(_page(request, self._pull_of(request).comments))

    async def _add_comment(self, request: web.Request) -> web.Response:
        pull, body = self._pull_of(request), await _body(request)
        if not body.get("body"):
            raise _invalid("body")
        number = len(pull.comments) + 1
        comment = {
            "id": pull.number * 1000 + number,
            "body": body["body"],
            "user": user_json(BOT),
            "created_at": self.ci.now(),
        }
        pull.comments.append(comment)
        return web.json_response(comment, status=201)

    async def _list_check_runs(self, request: web.Request) -> web.Response:
        runs = self.ci.runs(await self._commit_of(request))
        return web.json_response({"total_count": len(runs), "check_runs": _page(request, runs)})

    async def _list_workflow_runs(self, request: web.Request) -> web.Response:
        runs = self.ci.workflow_runs(request.query.get("head_sha", ""))
        return web.json_response({"total_count": len(runs), "workflow_runs": _page(request, runs)})

    async def _get_status(self, request: web.Request) -> web.Response:
        combined = self.ci.combined(await self._commit_of(request))
        return web.json_response(combined | {"statuses": _page(request, combined["statuses"])})

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

    async def _list_rules(self, request: web.Request) -> web.Response:
        """Return the rules for a branch; without any, GitHub returns an empty list, not 404 ("Get rules for a branch")."""
        return web.json_response(self.rules if request.match_info["branch"] == MAIN else [])

    async def _get_protection(self, request: web.Request) -> web.Response:
        raise Refused(404, "Branch not protected")

    async def _get_branch(self, request: web.Request) -> web.Response:
        branch = request.match_info["branch"]
        commit = (await self.repo.heads()).get(branch)
        if commit is None:
            raise Refused(404, "Branch not found")
        return web.json_response({"name": branch, "commit": {"sha": commit}, "protected": branch == MAIN})

    async def _get_repository(self, request: web.Request) -> web.Response:
        return web.json_response(self._repository_json())

    async def _get_rate_limit(self, request: web.Request) -> web.Response:
        core = {"limit": 5000, "remaining": 4999, "used": 1, "reset": int(datetime.now(UTC).timestamp()) + 3600}
        return web.json_response({"resources": {"core": core}, "rate": core})

    # The page

    async def _show_list(self, request: web.Request) -> web.Response:
        pulls = sorted(self._pulls.values(), key=lambda pull: -pull.number)
        rows = [(pull.number, pull.title, shown_state(pull)) for pull in pulls]
        return web.Response(text=github_page.list_page(self.repository, rows), content_type="text/html")

    async def _show_file(self, request: web.Request) -> web.Response:
        commit, path = request.match_info["commit"], request.match_info["path"]
        text = (await self.files_at(commit, path)).get(path)
        if text is None:
            raise web.HTTPNotFound(text=f"{path} does not exist at {commit[:9]}\n")
        return web.Response(text=github_page.file_page(path, commit, text), content_type="text/html")

    async def _show_pull(self, request: web.Request) -> web.Response:
        pull = self._pulls.get(int(request.match_info["number"]))
        if pull is None:
            raise web.HTTPNotFound
        page = github_page.pull_page(
            number=pull.number,
            title=pull.title,
            body=pull.body,
            state=shown_state(pull),
            head=pull.head_ref,
            base=pull.base_ref,
            author=pull.author,
            mergeable=await self._is_mergeable(pull),
            checks=self.ci.verdict(pull.head_sha),
            labels=pull.labels,
            comments=[(comment["user"]["login"], comment["body"]) for comment in pull.comments],
            changes=await self._changes(pull),
        )
        return web.Response(text=page, content_type="text/html")

    async def _press(self, request: web.Request) -> web.Response:
        """Handle a button of the page. Requests from other sites are rejected by their origin."""
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

    def _pull_of(self, request: web.Request) -> Pull:
        pull = self._pulls.get(int(request.match_info["number"]))
        if pull is None:
            raise Refused(404, "Not Found")
        return pull

    async def _commit_of(self, request: web.Request) -> str:
        ref = request.match_info["ref"]
        commit = await self.repo.commit(ref)
        if commit is None:
            raise Refused(422, f"No commit found for SHA: {ref}")
        return commit


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
