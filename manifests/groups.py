"""Groups of Applications: read whether a group is enabled, and enable or disable it when an endpoint is added or removed.

People edit the flag in the environment's configuration. The list for an ApplicationSet is generated from it, and Stoker
never edits that list.
"""

from ruamel.yaml.nodes import MappingNode, ScalarNode

from manifests.edit import Document, find, items, scalar, value
from manifests.frozen import frozen
from manifests.pieces import Located
from manifests.platform import Platform
from manifests.tree import ManifestError, Tree, within


@frozen
class GroupFlag(Located):
    """The flag of a group of Applications in one file; `path` is its catalog directory, if given."""

    value: ScalarNode
    name: str
    on: bool
    path: str = ""


def groups(platform: Platform) -> tuple[GroupFlag, ...]:
    """The groups in the generated list; empty if the platform has no such list."""
    layout = platform.layout
    document = _document_at(platform, layout.path(layout.groups_file))
    if document is None:
        return ()
    flags = []
    for node in items(document.roots[0] if document.roots else None):
        enabled = scalar(node, "enabled")
        if enabled is not None and isinstance(node, MappingNode):
            path, on = value(node, "catalogPath").strip("/"), str(enabled.value).lower() == "true"
            flags.append(GroupFlag(document, node, enabled, value(node, "name"), on, path))
    return tuple(flags)


def group_flag(platform: Platform, group: str) -> GroupFlag | None:
    """The flag of a group in the environment's configuration, or None."""
    layout = platform.layout
    document = _document_at(platform, layout.path(layout.config))
    features = find(document.roots[0], "features") if document and document.roots else None
    flag = scalar(features, group)
    if document is None or flag is None or not isinstance(features, MappingNode):
        return None
    return GroupFlag(document, features, flag, group, str(flag.value).lower() in ("true", "yes", "on"))


def _document_at(tree: Tree, path: str) -> Document | None:
    text = tree.read(path)
    return Document(path, text) if text is not None else None


def enable_group(platform: Platform, group: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Enable the group of a new endpoint: the edit of its flag, and warnings.

    Raises ManifestError if there is no such group, because Argo CD would never create an Application in it.
    """
    layout = platform.layout
    listed_groups, flag = groups(platform), group_flag(platform, group)
    generated = layout.path(layout.groups_file)
    entry = next((listed_group for listed_group in listed_groups if listed_group.name == group), None)
    if listed_groups and entry is None and flag is None:
        group_names = ", ".join(listed_group.name for listed_group in listed_groups)
        raise ManifestError(f"There is no group {group!r} in {generated}; the groups are: {group_names}.")
    other_members = ", ".join(_members(platform, group))
    side_effect = f" This also makes Argo CD create {other_members}." if other_members else ""
    if flag is not None and not flag.on:
        edited = flag.document.apply([flag.document.set_value(flag.value, "true", part=flag.value.value)])
        warning = (
            f"The group {group} was off: this change turns it on in {flag.document.path}. Run the generator of {generated} "
            f"and merge its result. Until then Argo CD creates nothing.{side_effect}"
        )
        return {edited.path: edited.text}, (warning,)
    if is_pending_generation(platform, group):
        warning = f"The group {group} is off in {generated}: Argo CD creates nothing until this list is regenerated.{side_effect}"
        return {}, (warning,)
    return {}, ()


def disable_group(platform: Platform, group: str, removed: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Disable a group that loses its last Application, because Argo CD fails on a missing directory.

    Also disables a group that was only enabled for `removed` and never generated, unless tenants can call another member.
    If the generated list has the group enabled, its members exist and stay.
    """
    layout = platform.layout
    flag, members = group_flag(platform, group), _members(platform, group)
    if flag is None or not flag.on or is_partial(platform) or removed not in members:
        return {}, ()
    other_members = tuple(member for member in members if member != removed)
    if other_members and (not is_pending_generation(platform, group) or _is_called(platform, other_members)):
        return {}, ()
    edited = flag.document.apply([flag.document.set_value(flag.value, "false", part=flag.value.value)])
    generated = layout.path(layout.groups_file)
    if other_members:
        warning = (
            f"The group {group} was never on in {generated}, so this change turns it off again in {flag.document.path}; "
            f"{', '.join(other_members)} do not change."
        )
    else:
        warning = (
            f"{removed} was the last Application of the group {group}, which this change turns off in {flag.document.path}: "
            f"regenerate {generated}."
        )
    return {edited.path: edited.text}, (warning,)


def is_pending_generation(platform: Platform, group: str) -> bool:
    """Return whether the group is not yet enabled in the generated list. Until then Argo CD creates none of its Applications."""
    listed_groups = groups(platform)
    return bool(listed_groups) and not any(
        listed_group.on for listed_group in listed_groups if listed_group.name == group
    )


def is_partial(platform: Platform) -> bool:
    """Return whether the checkout is only a part of a repository, because the directory of an enabled group is missing."""
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
