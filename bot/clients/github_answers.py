"""The fields of GitHub's REST API that Stoker reads.

Answers are validated first. If a field is missing, null or of another type, `Unavailable` is raised with one clear
sentence and the request is retried, so that no error occurs in the middle of an operation. The names of the fields are
GitHub's. Deleted accounts and the repositories of deleted forks are null (https://docs.github.com/en/rest/pulls/pulls,
https://docs.github.com/en/rest/checks/runs).
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import httpx
from pydantic import BaseModel, BeforeValidator, SecretStr, TypeAdapter, ValidationError

from bot.clients.http import decoded
from bot.errors import Unavailable

T = TypeVar("T")
SYSTEM = "GitHub"


def _none_is(empty: object) -> BeforeValidator:
    return BeforeValidator(lambda value: empty if value is None else value)


Text = Annotated[str, _none_is("")]
Flag = Annotated[bool, _none_is(False)]
Number = Annotated[int, _none_is(0)]


class User(BaseModel, frozen=True, defer_build=True):
    login: Text = ""


class AutoMerge(BaseModel, frozen=True, defer_build=True):
    enabled_by: User | None = None


class Home(BaseModel, frozen=True, defer_build=True):
    """The repository that a branch is in."""

    full_name: Text = ""


class Head(BaseModel, frozen=True, defer_build=True):
    sha: str
    ref: str
    repo: Home | None = None


class Base(BaseModel, frozen=True, defer_build=True):
    ref: str


class Pull(BaseModel, frozen=True, defer_build=True):
    """A pull request. Before the merge, `merge_commit_sha` is GitHub's test merge."""

    number: int
    html_url: str
    state: Literal["open", "closed"]
    head: Head
    base: Base
    title: Text = ""
    merged: Flag = False
    merged_by: User | None = None
    merge_commit_sha: str | None = None
    mergeable: bool | None = None
    mergeable_state: Text = ""
    draft: Flag = False
    auto_merge: AutoMerge | None = None
    changed_files: Number = 0


class Branching(BaseModel, frozen=True, defer_build=True):
    ref: str
    repo: Home | None = None


class Listed(BaseModel, frozen=True, defer_build=True):
    """A pull request in the list for a branch."""

    number: int
    state: Literal["open", "closed"]
    head: Branching


class Commit(BaseModel, frozen=True, defer_build=True):
    sha: str


class Recent(BaseModel, frozen=True, defer_build=True):
    """A pull request in the list of closed pull requests."""

    merged_at: Text = ""
    head: Commit


class Merged(BaseModel, frozen=True, defer_build=True):
    sha: str


class Author(BaseModel, frozen=True, defer_build=True):
    email: Text = ""
    date: datetime


class CommitText(BaseModel, frozen=True, defer_build=True):
    author: Author
    message: Text = ""


class CommitAnswer(BaseModel, frozen=True, defer_build=True):
    commit: CommitText


class Review(BaseModel, frozen=True, defer_build=True):
    state: Text = ""
    user: User | None = None


class Issue(BaseModel, frozen=True, defer_build=True):
    closed_by: User | None = None


class Permissions(BaseModel, frozen=True, defer_build=True):
    push: bool | None = None


class RepositoryAnswer(BaseModel, frozen=True, defer_build=True):
    """The repository. A merge method without a setting counts as allowed."""

    html_url: Text = ""
    archived: Flag = False
    permissions: Permissions | None = None
    allow_squash_merge: bool | None = None
    allow_merge_commit: bool | None = None
    allow_rebase_merge: bool | None = None


class WorkflowRun(BaseModel, frozen=True, defer_build=True):
    check_suite_id: int | str | None = None
    workflow_id: int | str | None = None


class App(BaseModel, frozen=True, defer_build=True):
    id: int | str | None = None
    slug: Text = ""


class Suite(BaseModel, frozen=True, defer_build=True):
    id: int | str | None = None


class CheckRun(BaseModel, frozen=True, defer_build=True):
    name: str
    status: Text = ""
    conclusion: Text = ""
    id: Number = 0
    started_at: Text = ""
    completed_at: Text = ""
    app: App | None = None
    check_suite: Suite | None = None


class CommitStatus(BaseModel, frozen=True, defer_build=True):
    context: str
    state: Text = ""
    id: Number = 0
    created_at: Text = ""


class RequiredCheck(BaseModel, frozen=True, defer_build=True):
    context: str


class RequiredChecks(BaseModel, frozen=True, defer_build=True):
    contexts: Annotated[tuple[str, ...], _none_is(())] = ()
    checks: Annotated[tuple[RequiredCheck, ...], _none_is(())] = ()


class Protection(BaseModel, frozen=True, defer_build=True):
    enabled: Flag = False
    required_status_checks: RequiredChecks | None = None


class Branch(BaseModel, frozen=True, defer_build=True):
    protected: Flag = False
    protection: Protection | None = None


class Parameters(BaseModel, frozen=True, defer_build=True):
    required_status_checks: Annotated[tuple[RequiredCheck, ...], _none_is(())] = ()
    allowed_merge_methods: Annotated[tuple[str, ...], _none_is(())] = ()


class Rule(BaseModel, frozen=True, defer_build=True):
    """One rule of a ruleset. Its parameters depend on the type; each parsed parameter belongs to one type."""

    type: str
    parameters: Parameters | None = None


class InstallationToken(BaseModel, frozen=True, defer_build=True):
    token: SecretStr
    expires_at: datetime
    permissions: dict[str, str] | None = None


def read(kind: type[T], response: httpx.Response, subject: str) -> T:
    """Parse an answer as a value of this type. Raises Unavailable if the answer is invalid; the message calls it
    `subject`.
    """
    return validated(kind, decoded(SYSTEM, response), subject)


def validated(kind: type[T], raw: object, subject: str) -> T:
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        location = ".".join(map(str, first["loc"])) or "as a whole"
        raise Unavailable(
            SYSTEM, f"its answer about {subject} is not as documented ({location}: {first['msg']})"
        ) from error


def entries(kind: type[T], answers: Iterable[object], subject: str, field: str = "") -> list[T]:
    """The entries of all pages of a list. With `field`, each page is an object with the list in this field."""
    results: list[T] = []
    for raw in answers:
        listed = raw
        if field:
            if not isinstance(raw, dict):
                raise Unavailable(SYSTEM, f"its answer about {subject} is not an object")
            listed = [] if raw.get(field) is None else raw[field]
        results += validated(list[kind], listed, subject)  # type: ignore[valid-type]
    return results
