"""`stoker init`: reads a platform repository, prints a summary, asks for missing settings, and writes `.stoker.yaml`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.errors import BotError
from bot.observability import logs
from bot.platform.proposal import answer, open_questions, propose, report, settings_yaml
from bot.settings.config import SettingsError, load_config
from bot.settings.environment import load_settings, with_own
from bot.settings.of_repository import OWN_CONFIG, merged
from manifests.tree import Checkout


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The checkout of the platform repository.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: use the survey and the defaults.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the file instead of writing it.")] = False,
) -> None:
    """Read a platform repository, report its content, and write its .stoker.yaml.

    Exit code 0: written; 1: no endpoint was found, so nothing is written; 2: the repository could not be read.
    """
    if not path.is_dir():
        _stop(f"there is no directory {path}: give the path of a checkout of the platform repository.")
    file = path / OWN_CONFIG
    proposal = propose(Checkout(path), _existing(file))
    say = _to_stderr if show else typer.echo
    for line in report(proposal.survey):
        say(line)
    if not proposal.survey.endpoints:
        say(
            f"\nNothing is written: {path} has no endpoint that Stoker can read. docs/platforms.md has the supported forms,"
        )
        say("and how to describe another one in `platform.endpoints`.")
        raise typer.Exit(1)
    settings = proposal.settings
    if not yes:
        settings = merged(settings, _ask(settings))
    text = settings_yaml(settings)
    if show:
        typer.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    say(f"\nWrote {file}. Commit it: the bot reads it from the main branch.")
    _doctor(file)


def _ask(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for the settings that cannot be derived from the repository, and return the answers."""
    typer.echo("\nA few settings cannot be derived from the repository. Press Enter to skip a question.")
    answers: dict[str, Any] = {}
    for question in open_questions(settings):
        if reply := str(typer.prompt(f"{question.label} ({question.hint})", default="", show_default=False)).strip():
            try:
                answers = merged(answers, answer(question, reply))
            except SettingsError as error:
                typer.echo(f"  This is not valid: {error}", err=True)
    return answers


def _existing(file: Path) -> dict[str, Any]:
    """The settings in an existing file, which are kept."""
    if not file.is_file():
        return {}
    try:
        load_config(file)
        settings = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (BotError, YAMLError, OSError) as error:
        _stop(str(error))
    return dict(settings or {})


def _doctor(file: Path) -> None:
    """Check the installation if its tokens are set; otherwise print the first missing setting."""
    from bot.cli.doctor import report as findings_report
    from bot.doctor import examine

    try:
        settings = load_settings(default_config=file)
        if settings.stoker_config != file:
            settings = with_own(settings, file.read_text(encoding="utf-8"))
    except BotError as error:
        typer.echo(f"Next: {error}. Then run `STOKER_CONFIG={file} stoker doctor`, which checks every system.")
        return
    logs.configure(settings.stoker_log, settings.secrets)
    typer.echo(findings_report(asyncio.run(examine(settings))))


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)


def _stop(reason: str) -> None:
    typer.echo(f"stoker: {reason}", err=True)
    raise typer.Exit(2)
