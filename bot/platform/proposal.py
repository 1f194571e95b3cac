"""Derives the settings of a repository from a survey of it, and lists the questions for the remaining settings.

`stoker init` and the form in Slack both use this module.
"""

from collections.abc import Mapping
from io import StringIO
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML

from bot.settings.config import Config, SecretRef, SettingsError, first_problem
from bot.settings.of_repository import merged, parsed
from manifests.contract import read_endpoints
from manifests.fitting import fitted_layout
from manifests.frozen import frozen
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.proxy import Proxy
from manifests.survey import Survey, flux_deploys, survey
from manifests.tree import ManifestError, Tree

_SECRET = ("namespace", "name", "field")
_SHOWN = 12
"""Maximum number of unreadable items in a report."""


class Question(NamedTuple):
    """A question for a setting that cannot be derived from a repository."""

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
    Question("gpu", "price_per_hour", "Price per hour, in US dollars", "e.g. 0.85"),
)


@frozen
class Proposal:
    """The survey of a repository, and the settings that follow from it."""

    survey: Survey
    settings: Mapping[str, Any]


def propose(tree: Tree, settings: Mapping[str, Any], usual: Layout | None = None) -> Proposal:
    """Derive the settings of a repository. `usual` is the layout if `settings` has none.

    The current `settings` take precedence, except for the paths of a layout in which no endpoint is found.
    """
    current = settings.get("platform")
    platform = Platform(tree, Layout.model_validate(current) if current else usual or Layout())
    layout = platform.layout if current else fitted_layout(platform)
    result = survey(platform.with_layout(layout))
    if current and not result.endpoints:  # its paths are wrong, or the files have moved
        without_paths = {key: value for key, value in current.items() if key in ("branch", "endpoints", "environment")}
        layout = fitted_layout(Platform(tree, Layout.model_validate(without_paths)))
        result = survey(platform.with_layout(layout))
        settings = {key: value for key, value in settings.items() if key != "platform"}
    return Proposal(result, merged(derived(result, layout), settings))


def is_understood(tree: Tree, config: Config) -> bool:
    """Return whether the settings describe the repository.

    They do not if no endpoint is found, if an endpoint is in a namespace other than the default, or if Flux is used
    instead of Argo CD. Namespaces and deployers that are set explicitly are not checked.
    """
    platform = Platform(tree, config.platform)
    try:
        endpoints = read_endpoints(platform)
    except ManifestError:
        return True  # commands report the broken file
    if not endpoints:
        return False
    layout = config.platform
    if not layout.model_fields_set & {"namespace", "namespaces"}:
        watched = {"", layout.namespace, *layout.namespaces}
        if any(endpoint.namespace not in watched for endpoint in endpoints):
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


def report(result: Survey, most: int | None = None) -> tuple[str, ...]:
    """Format the survey as lines of text, with at most `most` items per list."""
    lines = [f"Endpoints: {len(result.endpoints) or 'none'}"]
    for endpoint in result.endpoints[:most]:
        gpu = f"{endpoint.gpus} GPU" if endpoint.gpus else "CPU"
        lines.append(
            f"  {endpoint.name}: {endpoint.hf_id or 'a model'} on {gpu}, Deployment {endpoint.namespace}/{endpoint.workload}"
        )
        lines.append(f"    started and stopped {result.starts[endpoint.name]}")
    lines += _more(result.endpoints, most)
    namespace = f" in namespace {result.deployer_namespace}" if result.deployer_namespace else ""
    lines.append(
        f"Deployer: {result.deployer + namespace if result.deployer else 'none that Stoker supports (Argo CD, Flux)'}"
    )
    lines += [
        f"  {deployment.kind} {deployment.name} deploys {deployment.path or 'a chart'}"
        for deployment in result.deployments[:most]
    ]
    lines += _more(result.deployments, most)
    if result.models_on_gpu > 1:
        lines.append(f"Models that may share a GPU: {result.models_on_gpu} (gpu.slots)")
    if result.other_workloads:
        lines.append(f"Other workloads on the GPU: {', '.join(result.other_workloads)}")
    lines.append(f"Gateway: {_gateway_in_words(result)}")
    lines += [
        f"  {name} routes to {route.target} in {route.path}:{route.line}; Stoker does not change it"
        for name, route in result.routes[:most]
    ]
    lines += _more(result.routes, most)
    lines.append(f"Not understood: {len(result.unread) or 'nothing'}")
    lines += [f"  {place}: {reason}" for place, reason in result.unread[: most or _SHOWN]]
    lines += _more(result.unread, most or _SHOWN)
    return tuple(lines)


def _more(listed: tuple[object, ...], most: int | None) -> list[str]:
    return [f"  and {len(listed) - most} more"] if most and len(listed) > most else []


def _gateway_in_words(result: Survey) -> str:
    if result.gateways:
        return f"LiteLLM, in {', '.join(result.gateways)}"
    if result.proxy and result.proxy.deployment:
        return "LiteLLM, without a list of models in git: its aliases are not used"
    return "none"


def derived(result: Survey, layout: Layout) -> dict[str, Any]:
    """Derive the settings from the survey, without those that equal the defaults."""
    namespaces, default = result.namespaces, Config()
    platform = {
        key: value
        for key, value in layout.model_dump(mode="json", exclude_defaults=True).items()
        if value != getattr(default.platform, key) and value not in ([], {})
    }
    if namespaces:
        platform |= {"namespace": namespaces[0]} if namespaces[0] != default.platform.namespace else {}
        platform |= {"namespaces": list(namespaces[1:])} if namespaces[1:] else {}
    settings: dict[str, Any] = {"platform": platform}
    if result.deployer == "Flux":
        settings["flux"] = {"namespace": result.deployer_namespace}
    elif result.deployer_namespace not in ("", default.argocd.namespace):
        settings["argocd"] = {"namespace": result.deployer_namespace}
    if not result.gateways:
        settings["litellm"] = {"namespace": "", "master_key": {"namespace": ""}, "smoke_test": False}
    elif result.proxy is not None and (gateway := _gateway(result.proxy, default)):
        settings["litellm"] = gateway
    if not any(endpoint.has_key for endpoint in result.endpoints):
        settings["vllm"] = {"api_key": {"namespace": ""}}
    elif all(result.key) and (key := SecretRef(**dict(zip(_SECRET, result.key, strict=True)))) != default.vllm.api_key:
        settings["vllm"] = {"api_key": key.model_dump()}
    settings["gpu"] = ({"slots": result.models_on_gpu} if result.models_on_gpu > 1 else {}) | (
        {"beside": list(result.other_workloads)} if result.other_workloads else {}
    )
    return {key: value for key, value in settings.items() if value}


def _gateway(proxy: Proxy, default: Config) -> dict[str, Any]:
    """The settings of LiteLLM that differ from the defaults."""
    key = default.litellm.master_key
    namespace, field = proxy.namespace or key.namespace, proxy.field or key.field
    secret = SecretRef(namespace=namespace, name=proxy.secret, field=field) if proxy.secret else key
    settings: dict[str, Any] = {
        name: text
        for name, text in (("namespace", proxy.namespace), ("deployment", proxy.deployment))
        if text and text != getattr(default.litellm, name)
    }
    return settings | ({"master_key": secret.model_dump()} if secret != key else {})


def settings_yaml(settings: Mapping[str, Any]) -> str:
    """Format the settings as YAML; raises SettingsError if they are not valid."""
    stream, yaml = StringIO(), YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(dict(settings), stream)
    text = "# Written by Stoker's set-up. Every key is in docs/configuration.md.\n" + stream.getvalue()
    parsed(text)
    return text
