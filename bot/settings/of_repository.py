"""`.stoker.yaml`: the file in which a platform repository describes itself.

The bot reads the sections in `SECTIONS` from it. Settings of the installation (the file named by STOKER_CONFIG) take
precedence. The policy is only in the installation's settings, because a merge must not change the rules for approving it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.settings.config import Config, SettingsError, first_problem

OWN_CONFIG = ".stoker.yaml"
SECTIONS = ("platform", "argocd", "flux", "switch", "litellm", "vllm", "gpu")
"""The sections that the bot reads from it, except for `platform.branch`. It also reads `roles.approvers`, if the
installation has no approvers.
"""

Tree = Mapping[str, Any]


class Installed(NamedTuple):
    """The settings of the installation, without those of the repository."""

    config: Config


def parsed(text: str) -> dict[str, Any]:
    """The settings in the text. Raises SettingsError if one is unknown or invalid."""
    try:
        raw = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise SettingsError(f"{OWN_CONFIG} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw or {}, dict):
        raise SettingsError(f"{OWN_CONFIG} is not a mapping of sections")
    _validated(raw or {})
    return dict(raw or {})


def layered(installed: Config, text: str) -> Config:
    """The settings of the repository, overridden by the settings of the installation. Raises SettingsError if one is invalid."""
    if not text:
        return installed
    repository = parsed(text)
    sections = {key: value for key, value in repository.items() if key in SECTIONS and value}
    if platform := sections.get("platform"):
        sections["platform"] = {key: value for key, value in platform.items() if key != "branch"}
    config = _validated(merged(sections, installed.model_dump(exclude_unset=True)))
    approvers = (repository.get("roles") or {}).get("approvers")
    if approvers and not installed.roles.approvers:
        config = config.model_copy(update={"roles": config.roles.model_copy(update={"approvers": tuple(approvers)})})
    return config


def same(a: Config, b: Config) -> bool:
    """Return whether both have the same values and the same explicit settings. A default that is set explicitly differs
    from one that is not set.
    """
    return a == b and a.model_dump(exclude_unset=True) == b.model_dump(exclude_unset=True)


def overruled(proposed: Tree, config: Config) -> tuple[str, ...]:
    """The names of the settings in `proposed` that have another value in `config`."""
    current, expected = config.model_dump(mode="json"), _validated(proposed).model_dump(mode="json")
    return tuple(".".join(path) for path in _leaves(proposed) if _at(current, path) != _at(expected, path))


def merged(base: Tree, over: Tree) -> dict[str, Any]:
    """Merge two mappings at every depth; `over` takes precedence."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _validated(raw: Tree) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(f"{OWN_CONFIG}: {first_problem(error, env=False)}") from None


def _leaves(node: Tree) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from ((key, *path) for path in _leaves(value))
        else:
            yield (key,)


def _at(node: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
