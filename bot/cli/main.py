"""The command-line interface, `stoker --help`."""

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from bot.cli import gpu, init, model
from bot.errors import BotError, Unavailable
from bot.observability import logs
from bot.settings.environment import load_cluster_settings, load_settings, stored_own, with_own

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A Slack bot that brings the vLLM models of one shared GPU up and down.",
    pretty_exceptions_enable=False,
)
cli.add_typer(gpu.cli, name="gpu")
cli.add_typer(model.cli, name="model")
cli.command("init")(init.init)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"stoker {version('stoker')}")
        raise typer.Exit


@cli.callback()
def stoker(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A Slack bot that brings the vLLM models of one shared GPU up and down."""


@cli.command()
def run() -> None:
    """Run the bot, configured by environment variables and the file named by STOKER_CONFIG."""
    from bot.app import start

    raise typer.Exit(start())


@cli.command()
def sandbox(
    platform: Annotated[
        str | None,
        typer.Option(help="Platform repository: a path, a git URL, or the name of a sample (docs/platforms.md)."),
    ] = None,
    speed: Annotated[float, typer.Option(help="Speed of the simulated cluster, as a multiple of real time.")] = 60,
    port: Annotated[int, typer.Option(help="Port of the web page.")] = 8765,
    script: Annotated[Path | None, typer.Option(help="Run a story instead of the page; exit 1 if it fails.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML that overrides the bot's configuration.")] = None,
    http: Annotated[bool, typer.Option(help="Use signed HTTP requests from Slack instead of Socket Mode.")] = False,
    patience: Annotated[float, typer.Option(help="Minimum seconds that a story waits for an expected text.")] = 0,
) -> None:
    """Run the bot against a simulated platform on this machine, with a web page to try it."""
    from sandbox.main import run as run_sandbox

    raise typer.Exit(
        asyncio.run(
            run_sandbox(
                platform=platform, speed=speed, port=port, script=script, config=config, http=http, patience=patience
            )
        )
    )


@cli.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of lines.")] = False,
) -> None:
    """Check each setting and each system, and explain how to fix problems. Exit code 1: a problem; 2: an invalid
    setting.
    """
    from bot.cli.doctor import as_json as in_json
    from bot.cli.doctor import report
    from bot.doctor import examine

    try:
        settings = load_settings()
        settings = with_own(settings, stored_own(settings.stoker_data_dir))
        logs.configure(settings.stoker_log, settings.secrets)
        findings = asyncio.run(examine(settings))
    except BotError as error:
        typer.echo(f"stoker: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(in_json(findings) if as_json else report(findings))
    raise typer.Exit(any(finding.verdict == "wrong" for finding in findings))


@cli.command()
def manifest(
    http: Annotated[str, typer.Option(metavar="URL", help="The bot's public address; default is Socket Mode.")] = "",
    private_channel: Annotated[bool, typer.Option(help="Add the scopes for a private channel.")] = False,
    bookmark: Annotated[bool, typer.Option(help="Add the scopes that the setting `slack.bookmark` needs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """Print the Slack app manifest: paste it at api.slack.com/apps, Create New App, From a manifest."""
    from bot.cli.manifest import text

    try:
        typer.echo(text(http=http, private_channel=private_channel, bookmark=bookmark, as_json=as_json), nl=False)
    except BotError as error:
        typer.echo(f"stoker: {error}", err=True)
        raise typer.Exit(2) from None


@cli.command()
def rights() -> None:
    """Print the Roles and the ClusterRole that the bot's account needs with the settings of STOKER_CONFIG."""
    from bot.clients.rights import as_yaml, roles

    try:
        typer.echo(as_yaml(*roles(load_cluster_settings().config)), nl=False)
    except BotError as error:
        typer.echo(f"stoker: {error}", err=True)
        raise typer.Exit(2) from None


@cli.command()
def simulate(
    trace: Annotated[Path | None, typer.Argument(help="CSV file of requests; default is a synthetic trace.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help='Keys of the section `idle`: "remind_after=5m down_after=15m". Repeatable.')
    ] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="STOKER_CONFIG", help="The installation's settings file.")
    ] = None,
    approval: Annotated[str, typer.Option(help="Duration of an approval.")] = "2m",
    boot: Annotated[str, typer.Option(help="Duration of a cold start.")] = "10m",
    sample: Annotated[bool, typer.Option("--sample", help="Print the synthetic trace instead.")] = False,
) -> None:
    """Replay a trace of requests through the idle policy: GPU hours, idle share, waiting and cost of several policies."""
    from bot.cli import simulate as simulation

    try:
        if sample:
            text = simulation.sample()
        else:
            times = simulation.duration(approval), simulation.duration(boot)
            text = simulation.compare(trace, tuple(policy or ()), config, *times)
        typer.echo(text, nl=False)
    except (BotError, ValueError) as error:
        typer.echo(f"stoker: {error}", err=True)
        raise typer.Exit(2) from None


audit = typer.Typer(no_args_is_help=True, help="The append-only audit log.")
cli.add_typer(audit, name="audit")


@audit.command()
def export(
    since: Annotated[
        str, typer.Option(metavar="DURATION", help="Maximum age of the entries, e.g. 30d; default is all.")
    ] = "",
) -> None:
    """Print the audit log as JSON lines, oldest first: person, event, time, reason and commit."""
    from bot.cli.audit import export as export_log

    try:
        asyncio.run(export_log(load_settings(), since, typer.echo))
    except (BotError, Unavailable) as error:
        typer.echo(f"stoker: {error}", err=True)
        raise typer.Exit(2) from None
