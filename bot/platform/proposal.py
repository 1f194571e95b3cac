"""Derives the settings of a repository from a survey of it, and asks for the others.

`stoker init` and the form in Slack both use this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML

from bot.settings.config import Config, SecretRef, SettingsError, first_problem
from bot.settings.of_repository import merged, parsed
from manifests.contract import read_endpoints
from manifests.fitting import fitted
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.proxy import Proxy
from manifests.survey import Survey, flux_deploys, survey
from manifests.tree import ManifestError, Tree

_SECRET = ("namespace", "name", "field")
_SHOWN = 12
"""Maximum number of listed unreadable items; the others are counted."""


class Question(NamedTuple):
    """A setting that no repository contains."""

    section: str
    key: str
    label: str
    hint: str

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


QUESTIONS = (
    Question("slack", "channel", "Slack channel for operations", "its id (C…)"),
    Question("roles", "approvers", "Who may approve", "ids of users or user groups (U…, S…), separated by spaces"),
    Question("gpu", "name", "Which GPU", "L4, A10, RTX 4090 …"),
    Question("gpu", "price_per_hour", "US dollars for one hour of it", "e.g. 0.85"),
)


@dataclass(frozen=True)
class Proposal:
    """The survey of a repository, and the settings that follow from it."""

    found: Survey
    settings: Mapping[str, Any]


def propose(tree: Tree, settings: Mapping[str, Any], usual: Layout | None = None) -> Proposal:
    """Read a repository. Its current settings, `settings`, are kept unless no endpoint is found with them. `usual` is
    the layout without them.
    """
    given_platform = settings.get("platform")
    platform = Platform(tree, Layout.model_validate(given_platform) if given_platform else usual or Layout())
    layout = platform.layout if given_platform else fitted(platform)
    found_survey = survey(platform.with_layout(layout))
    if given_platform and not found_survey.endpoints:  # its paths are wrong, or the files have moved
        kept_settings = {
            key: value for key, value in given_platform.items() if key in ("branch", "endpoints", "environment")
        }
        layout = fitted(Platform(tree, Layout.model_validate(kept_settings)))
        found_survey = survey(platform.with_layout(layout))
        settings = {key: value for key, value in settings.items() if key != "platform"}
    return Proposal(found_survey, merged(derived(found_survey, layout), settings))


def is_understood(tree: Tree, config: Config) -> bool:
    """Return whether the bot can operate a repository with its settings. False if it finds no endpoint, and (unless the
    setting was made by a person) if an endpoint is in a namespace that it does not watch, or if Flux deploys instead of
    Argo CD.
    """
    platform = Platform(tree, config.platform)
    try:
        endpoints = read_endpoints(platform)
    except ManifestError:
        return True  # every answer names the broken file
    if not endpoints:
        return False
    layout = config.platform
    if not layout.model_fields_set & {"namespace", "namespaces"}:
        watched = {"", layout.namespace, *layout.namespaces}
        if any(each.namespace not in watched for each in endpoints):
            return False
    return bool(config.model_fields_set & {"flux", "argocd"}) or not flux_deploys(platform)


def open_questions(settings: Mapping[str, Any]) -> tuple[Question, ...]:
    """The questions that the settings do not answer."""
    return tuple(question for question in QUESTIONS if not (settings.get(question.section) or {}).get(question.key))


def answer(question: Question, text: str) -> dict[str, Any]:
    """The answer as a setting; raises SettingsError if it is not valid."""
    value: Any = text.split() if question.key == "approvers" else text
    try:
        validated = Config.model_validate({question.section: {question.key: value}})
    except ValidationError as error:
        raise SettingsError(first_problem(error, env=False).partition(": ")[2]) from None
    return validated.model_dump(mode="json", exclude_unset=True)


def report(found: Survey, most: int | None = None) -> tuple[str, ...]:
    """The survey as lines of text, with at most that many endpoints."""
    lines = [f"Endpoints: {len(found.endpoints) or 'none'}"]
    for endpoint in found.endpoints[:most]:
        gpu = f"{endpoint.gpus} GPU" if endpoint.gpus else "CPU"
        lines.append(
            f"  {endpoint.name}: {endpoint.hf_id or 'a model'} on {gpu}, Deployment {endpoint.namespace}/{endpoint.workload}"
        )
        lines.append(f"    started and stopped {found.starts[endpoint.name]}")
    lines += _more(found.endpoints, most)
    spaces = f" in namespace {found.deployer_namespace}" if found.deployer_namespace else ""
    lines.append(f"Deployer: {found.deployer + spaces if found.deployer else 'none that Stoker knows (Argo CD, Flux)'}")
    lines += [
        f"  {deployment.kind} {deployment.name} deploys {deployment.path or 'a chart'}"
        for deployment in found.deployments[:most]
    ]
    lines += _more(found.deployments, most)
    if found.together > 1:
        lines.append(f"On a GPU at the same time: {found.together} models (gpu.slots)")
    if found.beside:
        lines.append(f"On the GPU beside the models: {', '.join(found.beside)}")
    lines.append(f"Gateway: {_gateway_in_words(found)}")
    lines += [
        f"  {name} routes to {route.target} in {route.path}:{route.line}; Stoker does not change it"
        for name, route in found.routes[:most]
    ]
    lines += _more(found.routes, most)
    lines.append(f"Not understood: {len(found.unread) or 'nothing'}")
    lines += [f"  {where}: {why}" for where, why in found.unread[: most or _SHOWN]]
    lines += _more(found.unread, most or _SHOWN)
    return tuple(lines)


def _more(listed: tuple[object, ...], most: int | None) -> list[str]:
    return [f"  and {len(listed) - most} more"] if most and len(listed) > most else []


def _gateway_in_words(found: Survey) -> str:
    if found.gateways:
        return f"LiteLLM, in {', '.join(found.gateways)}"
    if found.proxy and found.proxy.deployment:
        return "LiteLLM, without a list of models in git: its aliases are not used"
    return "none"


def derived(found: Survey, layout: Layout) -> dict[str, Any]:
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
    if not any(endpoint.has_key for endpoint in found.endpoints):
        settings["vllm"] = {"api_key": {"namespace": ""}}
    elif all(found.key) and (key := SecretRef(**dict(zip(_SECRET, found.key, strict=True)))) != default.vllm.api_key:
        settings["vllm"] = {"api_key": key.model_dump()}
    settings["gpu"] = ({"slots": found.together} if found.together > 1 else {}) | (
        {"beside": list(found.beside)} if found.beside else {}
    )
    return {key: value for key, value in settings.items() if value}


def _gateway(proxy: Proxy, default: Config) -> dict[str, Any]:
    """LiteLLM's settings that differ from the defaults."""
    key = default.litellm.master_key
    spaces, field = proxy.namespace or key.namespace, proxy.field or key.field
    secret = SecretRef(namespace=spaces, name=proxy.secret, field=field) if proxy.secret else key
    settings: dict[str, Any] = {
        each: text
        for each, text in (("namespace", proxy.namespace), ("deployment", proxy.deployment))
        if text and text != getattr(default.litellm, each)
    }
    return settings | ({"master_key": secret.model_dump()} if secret != key else {})


def written(settings: Mapping[str, Any]) -> str:
    """The text of the file; raises SettingsError if the settings are not valid."""
    stream, yaml = StringIO(), YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(dict(settings), stream)
    text = "# Written by Stoker's set-up. Every key is in docs/configuration.md.\n" + stream.getvalue()
    parsed(text)
    return text
