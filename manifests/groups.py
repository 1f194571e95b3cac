"""Groups of Applications: read whether a group is enabled, and switch it when an endpoint is added or removed.

People edit the flag in the environment's configuration; the list that an ApplicationSet reads is generated from it and
is never edited here.
"""

from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, ScalarNode

from manifests.edit import Document, find, items, scalar, value
from manifests.pieces import Located
from manifests.platform import Platform
from manifests.tree import ManifestError, Tree, within


@dataclass(frozen=True)
class Switch(Located):
    """The flag of a group of Applications in one file; `path` is its catalog directory, if given."""

    value: ScalarNode
    name: str
    on: bool
    path: str = ""


def groups(platform: Platform) -> tuple[Switch, ...]:
    """The groups in the generated list; empty if a platform has no such list."""
    layout = platform.layout
    document = _parsed(platform, layout.path(layout.groups_file))
    if document is None:
        return ()
    found = []
    for node in items(document.roots[0] if document.roots else None):
        enabled = scalar(node, "enabled")
        if enabled is not None and isinstance(node, MappingNode):
            path, on = value(node, "catalogPath").strip("/"), str(enabled.value).lower() == "true"
            found.append(Switch(document, node, enabled, value(node, "name"), on, path))
    return tuple(found)


def feature(platform: Platform, group: str) -> Switch | None:
    """The flag of a group in the environment's configuration, or None."""
    layout = platform.layout
    document = _parsed(platform, layout.path(layout.config))
    flags_ = find(document.roots[0], "features") if document and document.roots else None
    flag = scalar(flags_, group)
    if document is None or flag is None or not isinstance(flags_, MappingNode):
        return None
    return Switch(document, flags_, flag, group, str(flag.value).lower() in ("true", "yes", "on"))


def _parsed(tree: Tree, path: str) -> Document | None:
    text = tree.read(path)
    return Document(path, text) if text is not None else None


def switched_on(platform: Platform, group: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Enable the group of a new endpoint: the edit of its flag, and warnings.

    Raises ManifestError if the platform has no such group: Argo CD would never see an Application in it.
    """
    layout = platform.layout
    listed, flag = groups(platform), feature(platform, group)
    generated = layout.path(layout.groups_file)
    entry = next((each for each in listed if each.name == group), None)
    if listed and entry is None and flag is None:
        known = ", ".join(each.name for each in listed)
        raise ManifestError(f"There is no group {group!r} in {generated}; there are: {known}.")
    others = ", ".join(_members(platform, group))
    side_effect = f" This also makes Argo CD create {others}." if others else ""
    if flag is not None and not flag.on:
        edited = flag.document.apply([flag.document.set_value(flag.value, "true", part=flag.value.value)])
        warning = (
            f"The group {group} was off: this change turns it on in {flag.document.path}. Run the generator of {generated} "
            f"and merge its result: until then Argo CD creates nothing.{side_effect}"
        )
        return {edited.path: edited.text}, (warning,)
    if is_awaiting_generator(platform, group):
        warning = f"The group {group} is off in {generated}: Argo CD creates nothing until this list is generated again.{side_effect}"
        return {}, (warning,)
    return {}, ()


def switched_off(platform: Platform, group: str, removed: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Disable the flag of a group that loses its last Application (Argo CD fails on a missing directory).

    Also disables a group that was only enabled for `removed` and never generated; its other members stay off unless
    tenants can call one of them. Once the generated list has the group enabled, its members exist and stay.
    """
    layout = platform.layout
    flag, members = feature(platform, group), _members(platform, group)
    if flag is None or not flag.on or is_partial(platform) or removed not in members:
        return {}, ()
    others = tuple(member for member in members if member != removed)
    if others and (not is_awaiting_generator(platform, group) or _is_called(platform, others)):
        return {}, ()
    edited = flag.document.apply([flag.document.set_value(flag.value, "false", part=flag.value.value)])
    generated = layout.path(layout.groups_file)
    if others:
        warning = (
            f"The group {group} was never on in {generated}, so this change turns it off again in {flag.document.path}; "
            f"{', '.join(others)} do not change."
        )
    else:
        warning = (
            f"{removed} was the last Application of the group {group}, which this change turns off in {flag.document.path}: "
            f"generate {generated} again."
        )
    return {edited.path: edited.text}, (warning,)


def is_awaiting_generator(platform: Platform, group: str) -> bool:
    """Return whether the generated list does not have the group enabled yet: until then Argo CD creates no Application in it."""
    listed = groups(platform)
    return bool(listed) and not any(each.on for each in listed if each.name == group)


def is_partial(platform: Platform) -> bool:
    """Return whether the directory of an enabled group is missing: then the checkout is only a part of a repository."""
    layout = platform.layout
    catalog = layout.path(layout.catalog_dir)
    return any(
        group.on and group.path and not platform.files(group.path) and not platform.files(f"{catalog}/{group.name}")
        for group in groups(platform)
    )


def _is_called(platform: Platform, names: tuple[str, ...]) -> bool:
    """Return whether LiteLLM has an alias for one of these Applications."""
    return any(
        entry.alias == name or entry.reaches(name, platform.layout.namespace)
        for entry in platform.entries()
        for name in names
    )


def _members(platform: Platform, group: str) -> tuple[str, ...]:
    layout = platform.layout
    folder = f"{layout.path(layout.catalog_dir)}/{group}"
    return tuple(
        value(application.node, "metadata", "name")
        for application in platform.applications()
        if within(application.document.path, folder)
    )
