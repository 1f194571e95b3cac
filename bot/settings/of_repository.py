"""`.stoker.yaml`: the settings that a platform repository contains about itself.

The bot takes the description of the platform from it. A setting of the installation (the file named by STOKER_CONFIG)
takes precedence, and the policy is only in the installation's settings: a merge must not change who may approve it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.settings.config import Config, SettingsError, first_problem

OWN_CONFIG = ".stoker.yaml"
SECTIONS = ("platform", "argocd", "flux", "switch", "litellm", "vllm", "gpu")
"""The sections that the bot takes from it, without `platform.branch`; also `roles.approvers` if the installation names
no approvers.
"""

Tree = Mapping[str, Any]


class Installed(NamedTuple):
    """The settings of the installation, without those of the repository."""

    config: Config


def parsed(text: str) -> dict[str, Any]:
    """The settings in the text; raises SettingsError for one that is unknown or wrong."""
    try:
        raw = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise SettingsError(f"{OWN_CONFIG} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw or {}, dict):
        raise SettingsError(f"{OWN_CONFIG} is not a mapping of sections")
    _validated(raw or {})
    return dict(raw or {})


def layered(installed: Config, text: str) -> Config:
    """The settings of the installation, and below them those of the repository; raises SettingsError."""
    if not text:
        return installed
    own = parsed(text)
    taken = {key: value for key, value in own.items() if key in SECTIONS and value}
    if platform := taken.get("platform"):
        taken["platform"] = {key: value for key, value in platform.items() if key != "branch"}
    config = _validated(merged(taken, installed.model_dump(exclude_unset=True)))
    approvers = (own.get("roles") or {}).get("approvers")
    if approvers and not installed.roles.approvers:
        config = config.model_copy(update={"roles": config.roles.model_copy(update={"approvers": tuple(approvers)})})
    return config


def same(one: Config, other: Config) -> bool:
    """Return whether both have the same values and the same explicit settings: an explicit default counts as chosen."""
    return one == other and one.model_dump(exclude_unset=True) == other.model_dump(exclude_unset=True)


def overruled(wanted: Tree, config: Config) -> tuple[str, ...]:
    """The settings in `wanted` that have another value in `config`, by their names."""
    have, want = config.model_dump(mode="json"), _validated(wanted).model_dump(mode="json")
    return tuple(".".join(path) for path in _leaves(wanted) if _at(have, path) != _at(want, path))


def merged(base: Tree, over: Tree) -> dict[str, Any]:
    """Both mappings at every depth; `over` takes precedence."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def _validated(raw: Tree) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(f"{OWN_CONFIG}: {first_problem(error, env=False)}") from None


def _leaves(node: Tree) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from ((key, *below) for below in _leaves(value))
        else:
            yield (key,)


def _at(node: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
