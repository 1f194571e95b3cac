"""`stoker model`: checks and changes the endpoints of a platform repository in a terminal, in CI or in a pre-commit hook.

`check`, `list` and `show` read a checkout and need nothing else. `add`, `swap` and `remove` print the change as a
patch; with `--open` they push it and open the pull request. None of them needs Slack, Redis or a cluster.
"""

import asyncio
import getpass
import hashlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import stamina
import structlog
import typer

from bot.cli import fit as fits
from bot.cli.findings import as_github, as_json, as_plain
from bot.clients.github import GitHub, PullRequest
from bot.clients.huggingface import HuggingFace, model_id
from bot.errors import BotError, StokerError
from bot.platform.change_planning import (
    Options,
    Verb,
    look_up_model,
    plan_change,
    pull_body,
    read_options,
    refuse_bad_words,
    weights_of,
)
from bot.platform.fit import accounts
from bot.settings.environment import ToolSettings, load_tool_settings
from bot.settings.of_repository import OWN_CONFIG
from bot.text.markdown import code
from manifests.change import Change
from manifests.contract import Layout, ModelEndpoint, check, read_endpoint, read_endpoints, template_of
from manifests.fitting import fitted_layout
from manifests.platform import Platform
from manifests.review import contract_rows
from manifests.sizing.report import Account
from manifests.tree import Checkout, ManifestError, Tree

if TYPE_CHECKING:
    from bot.git.repository import Repository

Result = TypeVar("Result")

cli = typer.Typer(no_args_is_help=True)


@cli.callback()
def _quiet() -> None:
    """The endpoints of a platform repository: check, list, show, add, swap, remove."""
    # Standard output contains only the result (a patch, JSON, annotations), and no messages about retries.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        processors=[structlog.dev.ConsoleRenderer(colors=False)],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    stamina.instrumentation.set_on_retry_hooks([])


class Format(StrEnum):
    PLAIN = "plain"
    JSON = "json"
    GITHUB = "github"


class Colour(StrEnum):
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


Where = Annotated[Path, typer.Argument(metavar="[PATH]", help="The checkout of the platform repository.")]
Config = Annotated[
    Path | None,
    typer.Option(
        help=f"The settings file; default: STOKER_CONFIG, then {OWN_CONFIG} in the checkout, then the layout of its files."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint.")]
HfId = Annotated[str, typer.Argument(metavar="HF_ID", help="The model on Hugging Face, owner/name.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[OPTION=VALUE]...",
        help="As in Slack: like= served= context= quantization= gpu-util= storage= price-in= price-out= group= portal= "
        "arg=--flag=value; if Hugging Face does not answer: weights= layers= kv-heads= head-size= max-context=.",
    ),
]
Checked = Annotated[Path, typer.Option("--path", help="The checkout to which the change applies.")]
DryRun = Annotated[bool, typer.Option("--dry-run/--open", help="Print the change as a patch, or open a pull request.")]
Because = Annotated[str, typer.Option(help="The reason, shown in the pull request.")]
Paint = Annotated[Colour, typer.Option("--color", help="Colour the patch.")]
Shape = Annotated[Format, typer.Option("--format", help="github: annotations of a workflow run.")]


@cli.command("check")
def check_(
    path: Where = Path(),
    endpoint: Annotated[str | None, typer.Option(help="One endpoint instead of all.")] = None,
    shape: Shape = Format.PLAIN,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 for warnings too.")] = False,
    config: Config = None,
) -> None:
    """Check that the files of each endpoint are consistent.

    Exit code 0: no errors; 1: errors (with --strict also warnings); 2: it could not be checked.
    """
    platform = _open(path, config)
    with _exit_on_error():
        findings = check(platform, endpoint, advice=True)
        broken = {finding.path for finding in findings if finding.rule == "yaml"}
        readable = platform.without(broken)
        names = [known.name for known in read_endpoints(readable)]
        not_checked = [(unknown.home, unknown.reason) for unknown in readable.unknown()] if endpoint is None else []
    if not names and not broken and not not_checked:
        _refuse(
            f"{path} has no endpoint in {platform.layout.serving_dir}/: set platform.serving_dir in {OWN_CONFIG}, or use --config."
        )
    if endpoint is not None:
        names = [endpoint]
    match shape:
        case Format.JSON:
            typer.echo(as_json(names, findings, not_checked))
        case Format.GITHUB:
            typer.echo(as_github(findings, path), nl=False)
        case Format.PLAIN:
            typer.echo(as_plain(names, findings, not_checked))
    failing = ("error", "warning") if strict else ("error",)
    raise typer.Exit(1 if any(finding.severity in failing for finding in findings) else 0)


@cli.command("list")
def list_(path: Where = Path(), shape: Shape = Format.PLAIN, config: Config = None) -> None:
    """List the endpoints of a checkout."""
    platform = _open(path, config)
    with _exit_on_error():
        endpoints = read_endpoints(platform)
        unknown = platform.unknown()
    if shape is Format.JSON:
        entries = [endpoint.model_dump() for endpoint in endpoints]
        entries += [
            {"name": place.name, "kind": "unknown", "home": place.home, "why": place.reason} for place in unknown
        ]
        typer.echo(json.dumps(entries, indent=2))
        return
    head = ("NAME", "KIND", "MODEL", "CONTEXT", "SYNC", "GROUP", "$ IN", "$ OUT")
    rows = [head, *(_row(endpoint) for endpoint in endpoints)]
    rows += [(place.name, "unknown", place.reason, *("–",) * 5) for place in unknown]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@cli.command()
def show(name: Name, path: Where = Path(), shape: Shape = Format.PLAIN, config: Config = None) -> None:
    """Show the contract of one endpoint, its files, and the findings of the check."""
    platform = _open(path, config)
    with _exit_on_error():
        endpoint = read_endpoint(platform, name)
        findings = check(platform, name)
    if shape is Format.JSON:
        rows_of_findings = [finding.model_dump() for finding in findings]
        typer.echo(json.dumps({**endpoint.model_dump(), "findings": rows_of_findings}, indent=2))
        return
    rows = (*contract_rows(endpoint), ("Files", ", ".join((*endpoint.files, endpoint.application_file))))
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        typer.echo(f"{label.ljust(width)}  {value}")
    typer.echo(as_plain([name], findings))


@cli.command()
def add(
    name: Name,
    hf_id: HfId,
    options: Words = None,
    path: Checked = Path(),
    dry_run: DryRun = True,
    because: Because = "",
    config: Config = None,
    color: Paint = Colour.AUTO,
) -> None:
    """Add an endpoint: a copy of the most similar existing endpoint, or of the endpoint in like=."""
    _change("add", name, hf_id, options, path, dry_run, because, config, color)


@cli.command()
def swap(
    name: Name,
    hf_id: HfId,
    options: Words = None,
    path: Checked = Path(),
    dry_run: DryRun = True,
    because: Because = "",
    config: Config = None,
    color: Paint = Colour.AUTO,
) -> None:
    """Change the model of an endpoint."""
    _change("swap", name, hf_id, options, path, dry_run, because, config, color)


@cli.command()
def remove(
    name: Name,
    options: Words = None,
    path: Checked = Path(),
    dry_run: DryRun = True,
    because: Because = "",
    config: Config = None,
    color: Paint = Colour.AUTO,
) -> None:
    """Remove an endpoint: the exact inverse of add."""
    _change("remove", name, "", options, path, dry_run, because, config, color)


@cli.command()
def tune(
    name: Name,
    path: Checked = Path(),
    dry_run: DryRun = True,
    because: Because = "",
    config: Config = None,
    color: Paint = Colour.AUTO,
) -> None:
    """Keep an endpoint's compile caches on its volume, so that a boot is shorter."""
    _change("tune", name, "", None, path, dry_run, because, config, color)


@cli.command()
def fit(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HF_ID]... [OPTION=VALUE]...",
            help="Models (ids or links); default: the models of fit.shortlist. Options: context= gpu-util= quantization= "
            "kind= memory= storage= gpu= host-memory=, and weights= layers= kv-heads= head-size= max-context=.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: an object, or a list for several models.")
    ] = False,
    path: Annotated[Path, typer.Option("--path", help="A checkout with a template for context and limits.")] = Path(),
    config: Config = None,
) -> None:
    """Show the requirements of models and whether they fit. Exit code 0: all fit; 1: one is refused; 2: one was not
    found.
    """
    models = [word for word in words or () if "=" not in word or word.startswith(("http", "hf"))]
    options = _options([word for word in words or () if word not in models])
    with _exit_on_error():
        settings = _settings(config, path if _is_platform(path) else None)
        answers = _run(_fits(settings, path, models, options))
    accounts_found = fits.print_errors(answers)
    if accounts_found:
        typer.echo(fits.as_json(accounts_found) if as_json else fits.as_text(accounts_found))
    raise typer.Exit(fits.exit_code(answers))


async def _fits(settings: ToolSettings, path: Path, models: list[str], options: Options) -> list[Account | BotError]:
    from bot.services import hub_http

    async with hub_http(settings) as http:
        hub = HuggingFace(http, settings.hf_endpoint, partial(settings.current, "hf_token"))
        template = await asyncio.to_thread(_template, path, settings.config.platform)
        return await accounts(hub, settings.config, models, options, template)


def _is_platform(path: Path) -> bool:
    """Return whether a directory looks like a checkout of a platform repository. `fit` may run in any directory, so the
    check is quick.
    """
    return (path / OWN_CONFIG).is_file() or any((path / name).is_dir() for name in (Layout().serving_dir, "clusters"))


def _template(path: Path, layout: Layout) -> ModelEndpoint | None:
    """The endpoint that a new endpoint would copy; None outside a platform repository."""
    if not _is_platform(path):
        return None
    try:
        return template_of(Platform(Checkout(path), layout))
    except ManifestError:
        return None


def _change(
    verb: Verb,
    name: str,
    hf_id: str,
    words: list[str] | None,
    path: Path,
    dry_run: bool,
    because: str,
    config: Path | None,
    color: Colour,
) -> None:
    options, hf_id = _options(words or []), model_id(hf_id)
    with _exit_on_error():
        read_options(verb, options)
        if verb in ("add", "swap"):
            refuse_bad_words(verb, hf_id, options)
        if dry_run:
            settings = _settings(config, path)
            tree = _checkout(path)
            change = _run(_planned(settings, tree, verb, name, hf_id, options))
            _print_summary(change)
            diff = change.changes.diff(tree)
            coloured = color is Colour.ALWAYS or (color is Colour.AUTO and _is_terminal())
            typer.echo(_coloured(diff) if coloured else diff, nl=False, color=coloured)
            return
        # In a checkout, use its layout, as a dry run does; elsewhere, use the default layout.
        settings = _settings(config, path if (path / ".git").exists() else None)
        new_change, pull = _run(_open_pull(settings, verb, name, hf_id, options, because))
    if new_change is not None:
        _print_summary(new_change)
    typer.echo(pull.url)


async def _planned(settings: ToolSettings, tree: Tree, verb: Verb, name: str, hf_id: str, options: Options) -> Change:
    if verb in ("remove", "tune"):
        return await asyncio.to_thread(plan_change, tree, settings.config, verb, name, options)
    from bot.services import hub_http

    async with hub_http(settings) as http:
        hub = HuggingFace(http, settings.hf_endpoint, partial(settings.current, "hf_token"))
        facts, old_weights = await look_up_model(hub, hf_id), None
        if verb == "swap" and facts.revision:
            before = await asyncio.to_thread(read_endpoint, Platform(tree, settings.config.platform), name)
            old_weights = await weights_of(hub, before.hf_id)
    return await asyncio.to_thread(plan_change, tree, settings.config, verb, name, options, facts, old_weights)


async def _open_pull(
    settings: ToolSettings, verb: Verb, name: str, hf_id: str, options: Options, because: str
) -> tuple[Change | None, PullRequest]:
    """Open a pull request, and return the change and the pull request. If the same request already has an open pull
    request, return None and that pull request.
    """
    digest = hashlib.sha256(json.dumps([verb, name, hf_id, options]).encode()).hexdigest()[:10]
    branch = f"stoker/{verb}-{name}-{digest}"
    async with _remote(settings) as (github, remote):
        pull = await github.find_pull(branch)
        if pull is not None and pull.state == "open":
            return None, pull
        commit = await remote.head()
        change = await _planned(settings, await remote.tree(commit), verb, name, hf_id, options)
        user = " ".join(_user().split())
        message = f"{change.title}\n\nRequested-by: {user}\nOperation: {digest}\n"
        # An interrupted run may have left a branch without a pull request.
        await remote.delete_branch(branch)
        await remote.push(change.changes, base=commit, branch=branch, message=message, when=datetime.now(UTC))
        body = pull_body(change, origin=f"Requested from a terminal by {code(user)}", reason=because)
        config = settings.config
        return change, await github.open_pull(branch, config.platform.branch, change.title, body, config.github.labels)


def _user() -> str:
    """The name of the user who runs the command, or the user id: in a container a user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


@asynccontextmanager
async def _remote(settings: ToolSettings) -> AsyncIterator[tuple[GitHub, "Repository"]]:
    # These imports are slow, and `stoker model check` in a pre-commit hook does not need them.
    from bot.services import github_http, github_token, repository

    if not settings.github_repository:
        raise BotError("GITHUB_REPOSITORY is not set: write the platform repo as owner/name.")
    async with github_http(settings) as http:
        token = github_token(settings, http)
        yield GitHub(http, settings.github_repository, token), repository(settings, token)


def _open(path: Path, config: Path | None) -> Platform:
    with _exit_on_error():
        tree = _checkout(path)
        return Platform(tree, _settings(config, path).config.platform)


def _checkout(path: Path) -> Checkout:
    if not path.is_dir():
        _refuse(f"There is no directory {path}: give the path of a checkout of the platform repository.")
    return Checkout(path)


def _settings(config: Path | None, checkout: Path | None) -> ToolSettings:
    settings = load_tool_settings(config)
    if checkout is None or config is not None or settings.stoker_config is not None:
        return settings
    own_config = checkout / OWN_CONFIG
    if own_config.is_file():
        return load_tool_settings(own_config)
    platform = fitted_layout(Platform(Checkout(checkout), settings.config.platform))
    return settings.model_copy(update={"config": settings.config.model_copy(update={"platform": platform})})


def _options(words: list[str]) -> Options:
    for word in words:
        if "=" not in word:
            _refuse(f"{word!r} is not an option: write it as key=value, like context=16384.")
    return tuple((key, text) for key, _, text in (word.partition("=") for word in words))


def _row(endpoint: ModelEndpoint) -> tuple[str, ...]:
    sync = "manual" if endpoint.manual_sync else "automated"
    context = str(endpoint.context or "–")
    prices = (endpoint.price_in or "–", endpoint.price_out or "–")
    return (endpoint.name, endpoint.kind, endpoint.hf_id, context, sync, endpoint.group, *prices)


def _print_summary(change: Change) -> None:
    """Print a summary for a reviewer to standard error, so that the patch can be piped to `git apply`."""
    rows = list(change.summary)
    if change.sizing:
        rows += [(row.label, f"{row.value} of {row.limit}") for row in change.sizing.numbers]
        rows.append(("Sizing", change.sizing.verdict))
    width = max((len(label) for label, _ in rows), default=0)
    typer.echo(change.title, err=True)
    for label, value in rows:
        typer.echo(f"  {label.ljust(width)}  {value}", err=True)
    for warning in change.warnings:
        typer.echo(f"  ! {warning}", err=True)


def _coloured(diff: str) -> str:
    colours = {"+": typer.colors.GREEN, "-": typer.colors.RED, "@": typer.colors.CYAN}
    coloured = []
    for line in diff.splitlines(keepends=True):
        bold = line.startswith(("--- ", "+++ "))
        text = line.rstrip("\r\n")
        if bold:
            coloured.append(typer.style(text, bold=True) + line[len(text) :])
        elif colour := colours.get(line[0]):
            coloured.append(typer.style(text, fg=colour) + line[len(text) :])
        else:
            coloured.append(line)
    return "".join(coloured)


def _is_terminal() -> bool:
    return os.isatty(1)


def _run(work: Awaitable[Result]) -> Result:
    async def wait() -> Result:
        return await work

    return asyncio.run(wait())


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """End the command with one line and exit code 2 after an error of Stoker or of the repository."""
    try:
        yield
    except (StokerError, ManifestError) as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    typer.echo(f"stoker: {message}", err=True)
    raise typer.Exit(2)
