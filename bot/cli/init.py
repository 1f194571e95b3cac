"""`stoker init`: reads a platform repository, describes it, asks for missing settings, and writes `.stoker.yaml`."""

import asyncio
import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot import logs
from bot.cli.model import OWN_CONFIG
from bot.config import Config, SecretRef, load_config
from bot.errors import BotError
from bot.settings import load_settings
from manifests.fitting import fitted
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.proxy import Proxy
from manifests.survey import Survey, survey
from manifests.tree import Checkout

_SHOWN = 12
"""Maximum number of listed unreadable items; the rest are counted."""


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The checkout of the platform repository.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: take what was found, and the defaults.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the file instead of writing it.")] = False,
) -> None:
    """Read a platform repository, report its content, and write its .stoker.yaml.

    Exit code 0: written; 1: no endpoint was found, and nothing is written; 2: it could not be read.
    """
    if not path.is_dir():
        _stop(f"there is no directory {path}: name the checkout of the platform repository.")
    tree, file = Checkout(path), path / OWN_CONFIG
    known = _existing(file)
    given = known.get("platform")
    platform = Platform(tree, Layout.model_validate(given or {}))
    layout = platform.layout if given else fitted(platform)
    found = survey(platform.with_layout(layout))
    say = _to_stderr if show else typer.echo
    for line in report(found):
        say(line)
    if not found.endpoints:
        say(
            f"\nNothing is written: {path} has no endpoint that Stoker can read. docs/platforms.md has the forms that it knows,"
        )
        say("and how to describe another one in `platform.endpoints`.")
        raise typer.Exit(1)
    settings = _merged(proposal(found, layout), known)
    if not yes:
        settings = _merged(settings, _asked(settings))
    text = written(settings)
    if show:
        typer.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    say(f"\nWrote {file}. Commit it, and give it to the bot as STOKER_CONFIG.")
    _doctor(file)


def report(found: Survey) -> tuple[str, ...]:
    """The survey as lines of text."""
    lines = [f"Endpoints: {len(found.endpoints) or 'none'}"]
    for each in found.endpoints:
        gpu = f"{each.gpus} GPU" if each.gpus else "CPU"
        lines.append(f"  {each.name}: {each.hf_id or 'a model'} on {gpu}, Deployment {each.namespace}/{each.workload}")
        lines.append(f"    started and stopped {found.starts[each.name]}")
    spaces = f" in namespace {found.deployer_namespace}" if found.deployer_namespace else ""
    lines.append(f"Deployer: {found.deployer + spaces if found.deployer else 'none that Stoker knows (Argo CD, Flux)'}")
    lines += [f"  {one.kind} {one.name} deploys {one.path or 'a chart'}" for one in found.deployments]
    if found.beside:
        lines.append(f"On the GPU beside the models: {', '.join(found.beside)}")
    lines.append(f"Gateway: {'LiteLLM, in ' + ', '.join(found.gateways) if found.gateways else 'none'}")
    lines += [
        f"  {name} routes to {route.target} in {route.path}:{route.line}; Stoker does not change it"
        for name, route in found.routes
    ]
    lines.append(f"Not understood: {len(found.unread) or 'nothing'}")
    lines += [f"  {where}: {why}" for where, why in found.unread[:_SHOWN]]
    if len(found.unread) > _SHOWN:
        lines.append(f"  and {len(found.unread) - _SHOWN} more")
    return tuple(lines)


def proposal(found: Survey, layout: Layout) -> dict[str, Any]:
    """The settings derived from the survey, without those that equal the defaults."""
    spaces, default = found.namespaces, Config()
    platform = {
        key: value
        for key, value in layout.model_dump(mode="json", exclude_defaults=True).items()
        if value != getattr(default.platform, key) and value not in ([], {})
    }
    if spaces:
        platform |= {"namespace": spaces[0]} if spaces[0] != default.platform.namespace else {}
        platform |= {"namespaces": list(spaces[1:])} if spaces[1:] else {}
    settings: dict[str, Any] = {"platform": platform}
    if found.deployer == "Flux":
        settings["flux"] = {"namespace": found.deployer_namespace}
    elif found.deployer_namespace not in ("", default.argocd.namespace):
        settings["argocd"] = {"namespace": found.deployer_namespace}
    if not found.gateways:
        settings["litellm"] = {"namespace": "", "master_key": {"namespace": ""}, "smoke_test": False}
    elif found.proxy is not None and (gateway := _gateway(found.proxy, default)):
        settings["litellm"] = gateway
    if not any(each.has_key for each in found.endpoints):
        settings["vllm"] = {"api_key": {"namespace": ""}}
    if found.beside:
        settings["gpu"] = {"beside": list(found.beside)}
    return {key: value for key, value in settings.items() if value}


def _gateway(proxy: Proxy, default: Config) -> dict[str, Any]:
    """LiteLLM's settings that differ from the defaults."""
    key = default.litellm.master_key
    spaces, field = proxy.namespace or key.namespace, proxy.field or key.field
    found = SecretRef(namespace=spaces, name=proxy.secret, field=field) if proxy.secret else key
    settings: dict[str, Any] = {
        each: text
        for each, text in (("namespace", proxy.namespace), ("deployment", proxy.deployment))
        if text and text != getattr(default.litellm, each)
    }
    return settings | ({"master_key": found.model_dump()} if found != key else {})


def written(settings: Mapping[str, Any]) -> str:
    """The text of the file."""
    stream, yaml = StringIO(), YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(dict(settings), stream)
    return "# Written by `stoker init`. Every key is in docs/configuration.md.\n" + stream.getvalue()


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the repository cannot determine; Enter skips a question."""
    typer.echo("\nA few things are not in the repository. Enter skips a question.")
    answers: dict[str, Any] = {}
    for section, key, question in (
        ("slack", "channel", "Id of the Slack channel for operations (C…)"),
        ("roles", "approvers", "Who may approve: ids of users or user groups (U…, S…), separated by spaces"),
        ("gpu", "name", "Which GPU (L4, A10, RTX 4090 …)"),
        ("gpu", "price_per_hour", "US dollars for one hour of it"),
    ):
        if (settings.get(section) or {}).get(key):
            continue
        if said := str(typer.prompt(question, default="", show_default=False)).strip():
            value: Any = said.split() if key == "approvers" else said
            wanted = {**(answers.get(section) or {}), key: value}
            try:
                Config.model_validate({section: wanted})
            except ValueError as error:
                typer.echo(f"  That is not taken: {str(error).splitlines()[2].strip()}", err=True)
                continue
            answers[section] = wanted
    return answers


def _existing(file: Path) -> dict[str, Any]:
    """The existing file of an earlier run or of a person: its settings are kept."""
    if not file.is_file():
        return {}
    try:
        load_config(file)
        found = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (BotError, YAMLError, OSError) as error:
        _stop(str(error))
    return dict(found or {})


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def _doctor(file: Path) -> None:
    """Examine the installation if its tokens are set; otherwise list what to set."""
    from bot.cli.doctor import report as told
    from bot.doctor import examine

    os.environ["STOKER_CONFIG"] = str(file)
    try:
        settings = load_settings()
    except BotError as error:
        typer.echo(f"Next: {error}. Then run `STOKER_CONFIG={file} stoker doctor`, which checks every system.")
        return
    logs.configure(settings.stoker_log, settings.secrets)
    typer.echo(told(asyncio.run(examine(settings))))


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)


def _stop(why: str) -> None:
    typer.echo(f"stoker: {why}", err=True)
    raise typer.Exit(2)
