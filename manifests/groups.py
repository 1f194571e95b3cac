"""Groups of Applications: whether one is on, and switching it with the endpoint that comes or goes.

A flag in the environment's configuration is written by people; the list that an ApplicationSet reads is generated from
it and is never edited here.
"""

from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, ScalarNode

from manifests.edit import Document, find, items, scalar, value
from manifests.pieces import Layout, Located, applications, model_list
from manifests.tree import ManifestError, Tree, within


@dataclass(frozen=True)
class Switch(Located):
    """Whether a group of Applications is on, as one file says it; `path` is its directory of the catalog, if said."""

    value: ScalarNode
    name: str
    on: bool
    path: str = ""


def groups(tree: Tree, layout: Layout) -> tuple[Switch, ...]:
    """The groups as the generated list has them; none when a platform has no such list."""
    document = _parsed(tree, layout.path(layout.groups_file))
    if document is None:
        return ()
    found = []
    for node in items(document.roots[0] if document.roots else None):
        enabled = scalar(node, "enabled")
        if enabled is not None and isinstance(node, MappingNode):
            path, on = value(node, "catalogPath").strip("/"), str(enabled.value).lower() == "true"
            found.append(Switch(document, node, enabled, value(node, "name"), on, path))
    return tuple(found)


def feature(tree: Tree, layout: Layout, group: str) -> Switch | None:
    """The flag of a group in the environment's configuration, None when it has none."""
    document = _parsed(tree, layout.path(layout.config))
    flags_ = find(document.roots[0], "features") if document and document.roots else None
    flag = scalar(flags_, group)
    if document is None or flag is None or not isinstance(flags_, MappingNode):
        return None
    return Switch(document, flags_, flag, group, str(flag.value).lower() in ("true", "yes", "on"))


def _parsed(tree: Tree, path: str) -> Document | None:
    text = tree.read(path)
    return Document(path, text) if text is not None else None


def switched_on(tree: Tree, layout: Layout, group: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """What makes a group exist for an endpoint that comes into it: the edit of its flag, and what to beware of.

    ManifestError when the platform has no such group: an Application in it would never be seen.
    """
    listed, flag = groups(tree, layout), feature(tree, layout, group)
    generated = layout.path(layout.groups_file)
    entry = next((each for each in listed if each.name == group), None)
    if listed and entry is None and flag is None:
        known = ", ".join(each.name for each in listed)
        raise ManifestError(f"There is no group {group!r} in {generated}; there are: {known}.")
    others = ", ".join(_members(tree, layout, group))
    wakes = f" Switching it on makes Argo CD create {others} as well." if others else ""
    if flag is not None and not flag.on:
        edited = flag.document.apply([flag.document.set_value(flag.value, "true", part=flag.value.value)])
        told = (
            f"The group {group} was switched off: {flag.document.path} switches it on, and somebody has to run the "
            f"generator of {generated} before Argo CD sees it.{wakes}"
        )
        return {edited.path: edited.text}, (told,)
    if is_awaiting_generator(tree, layout, group):
        told = (
            f"The group {group} is off in {generated}: nothing exists until it is generated with the group on.{wakes}"
        )
        return {}, (told,)
    return {}, ()


def switched_off(tree: Tree, layout: Layout, group: str, leaving: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The flag of a group that loses its last Application (Argo CD fails on a directory that is not there).

    Also of one that never came to be: switched on for `leaving`, and not yet in the generated list. Others that rest in
    it rest again, unless tenants can call one of them. Once the list has the group on, they exist, and stay.
    """
    flag, members = feature(tree, layout, group), _members(tree, layout, group)
    if flag is None or not flag.on or is_partial(tree, layout) or leaving not in members:
        return {}, ()
    others = tuple(each for each in members if each != leaving)
    if others and (not is_awaiting_generator(tree, layout, group) or _is_called(tree, layout, others)):
        return {}, ()
    edited = flag.document.apply([flag.document.set_value(flag.value, "false", part=flag.value.value)])
    generated = layout.path(layout.groups_file)
    if others:
        told = (
            f"The group {group} was never generated as on, so {flag.document.path} switches it off again, "
            f"and {', '.join(others)} stay as they were."
        )
    else:
        told = (
            f"{leaving} was the last Application of the group {group}, which is switched off in {flag.document.path}: "
            f"generate {generated} anew."
        )
    return {edited.path: edited.text}, (told,)


def is_awaiting_generator(tree: Tree, layout: Layout, group: str) -> bool:
    """Whether the generated list does not have the group on: Argo CD makes none of its Applications until then."""
    listed = groups(tree, layout)
    return bool(listed) and not any(each.on for each in listed if each.name == group)


def is_partial(tree: Tree, layout: Layout) -> bool:
    """Whether the checkout lacks an enabled group's directory: then it is a part of a repository, and more may lack."""
    return any(each.on and each.path and not tree.files(each.path) for each in groups(tree, layout))


def _is_called(tree: Tree, layout: Layout, names: tuple[str, ...]) -> bool:
    """Whether LiteLLM has an alias for one of these Applications."""
    return any(
        each.alias == name or each.reaches(name, layout.namespace)
        for each in model_list(tree, layout)
        for name in names
    )


def _members(tree: Tree, layout: Layout, group: str) -> tuple[str, ...]:
    folder = f"{layout.path(layout.catalog_dir)}/{group}"
    return tuple(
        value(each.node, "metadata", "name")
        for each in applications(tree, layout)
        if within(each.document.path, folder)
    )
