"""Where a repository that nobody configured keeps things: what its own files say plainly."""

import re

from manifests.contract import read_endpoints
from manifests.edit import InvalidYaml, find, value
from manifests.pieces import MODEL_FLAGS, Layout, locate, names, objects
from manifests.tree import Tree


def fitted(tree: Tree, layout: Layout) -> Layout:
    """The layout with those of its defaults replaced that do not hold here and have one possible answer.

    For a checkout without a configuration; where there are several answers, the default stays and the check says what
    it does not find. So it does where a file on the way is no YAML, which is a finding if the defaults lead to it.
    """
    try:
        return _fitted(tree, layout)
    except InvalidYaml:
        return layout


def _fitted(tree: Tree, layout: Layout) -> Layout:
    found: dict[str, str] = {}
    for key, options in (
        ("environment", _environments(tree, layout)),
        ("serving_dir", _serving_dirs(tree, layout)),
        ("litellm_values", _litellm_values(tree, layout)),
    ):
        if len(options) == 1 and getattr(layout, key) not in options:
            (found[key],) = options
    fitting = layout.model_copy(update=found)
    namespaces = _namespaces(tree, fitting)
    if len(namespaces) == 1:
        fitting = fitting.model_copy(update={"namespace": next(iter(namespaces))})
    endpoints = read_endpoints(tree, fitting)
    chats = [each.name for each in endpoints if each.kind == "gpu-chat"]
    if chats and layout.template not in (each.name for each in endpoints):
        fitting = fitting.model_copy(update={"template": chats[0]})
    return fitting


def _environments(tree: Tree, layout: Layout) -> set[str]:
    pattern = re.compile(re.escape(layout.catalog_dir).replace(r"\{environment\}", "([^/]+)") + "/")
    return {match[1] for path in tree.files("") if (match := pattern.match(path))}


def _serving_dirs(tree: Tree, layout: Layout) -> set[str]:
    """The directories whose directories hold Deployments that name a model."""
    if any(locate(tree, layout, name) for name in names(tree, layout)):
        return {layout.serving_dir}
    found = set()
    for path in {path for flag in MODEL_FLAGS for path in tree.grep(f"{flag}=") if path.count("/") > 1}:
        home = path.rsplit("/", 1)[0].rpartition("/")
        if locate(tree, layout.model_copy(update={"serving_dir": home[0]}), home[2]):
            found.add(home[0])
    return found


def _litellm_values(tree: Tree, layout: Layout) -> set[str]:
    if tree.read(layout.litellm_values) is not None:
        return {layout.litellm_values}
    return {path for path in tree.grep("model_list:") if path.endswith((".yaml", ".yml"))}


def _namespaces(tree: Tree, layout: Layout) -> set[str]:
    """The namespaces of the endpoints' Deployments, as kustomize or they themselves say."""
    found = set()
    for name in names(tree, layout):
        if pieces := locate(tree, layout, name):
            every = [each for path in pieces.files for each in objects(tree, path)]
            said = [value(each.node, "namespace") for kind, each in every if kind == "Kustomization"]
            own = value(find(pieces.deployment.node, "metadata"), "namespace")
            found.add(next((each for each in said if each), own))
    return found - {""}
