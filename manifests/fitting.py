"""Infer the layout of a repository without configuration."""

import posixpath
import re
from collections import Counter

from manifests.contract import read_endpoints
from manifests.edit import InvalidYaml, entries, find, items, value
from manifests.layout import Layout
from manifests.pieces import objects
from manifests.platform import Platform

_DEVICE = re.compile(r"gpu|/dri\b|cuda|rocm|kfd|accelerator|npu", re.IGNORECASE)


def fitted(platform: Platform) -> Layout:
    """The layout, with wrong defaults replaced if there is exactly one candidate.

    For a checkout without configuration. If there are several candidates, the default stays and the check reports what
    it does not find. The default also stays if a file cannot be parsed; if the file matters, the check reports it.
    """
    try:
        return _fitted(platform)
    except InvalidYaml:
        return platform.layout


def _fitted(platform: Platform) -> Layout:
    layout, found = platform.layout, dict[str, str]()
    for key, options in (
        ("environment", _environments(platform)),
        ("serving_dir", _serving_dirs(platform)),
        ("litellm_values", _litellm_values(platform)),
    ):
        if len(options) == 1 and getattr(layout, key) not in options:
            (found[key],) = options
    branches = _branches(platform)
    if len(branches) == 1 and layout.branch not in branches:
        (found["branch"],) = branches
    fitting = layout.model_copy(update=found)
    namespaces = _namespaces(platform.with_layout(fitting))
    if len(namespaces) == 1:
        fitting = fitting.model_copy(update={"namespace": next(iter(namespaces))})
    if devices := _devices(platform.with_layout(fitting)) - set(fitting.gpu_resources):
        fitting = fitting.model_copy(update={"gpu_resources": (*fitting.gpu_resources, *sorted(devices))})
    endpoints = read_endpoints(platform.with_layout(fitting))
    chats = [endpoint.name for endpoint in endpoints if endpoint.kind == "gpu-chat"]
    if chats and layout.template not in (each.name for each in endpoints):
        fitting = fitting.model_copy(update={"template": chats[0]})
    return fitting


def _branches(platform: Platform) -> set[str]:
    """The revisions of the Applications that deploy directories of this repository; empty if one follows its default branch."""
    sources = [
        each
        for app in platform.applications()
        for each in (find(app.node, "spec", "source"), *items(find(app.node, "spec", "sources")))
        if value(each, "path")
    ]
    repositories = Counter(value(each, "repoURL") for each in sources)
    usual = repositories.most_common(1)[0][0] if repositories else ""
    followed = {value(source, "targetRevision") or "HEAD" for source in sources if value(source, "repoURL") == usual}
    return set() if any(each == "HEAD" or "{{" in each for each in followed) else followed


def _environments(platform: Platform) -> set[str]:
    layout = platform.layout
    if "{environment}" not in layout.catalog_dir:
        return {layout.environment}
    pattern = re.compile(re.escape(layout.catalog_dir).replace(r"\{environment\}", "([^/]+)") + "/")
    return {match[1] for path in platform.files("") if (match := pattern.match(path))}


def _serving_dirs(platform: Platform) -> set[str]:
    """The one directory whose subdirectories are the endpoints; the default if some are declared in another way."""
    found = platform.endpoints()
    if not found:  # the configured directory has none
        platform = platform.with_layout(
            Layout(**platform.layout.model_dump(exclude={"serving_dir"}, exclude_unset=True))
        )
        found = platform.endpoints()
    homes = {each.home for each in found} | {each.home for each in platform.unknown()}
    parents = {posixpath.dirname(home) for home in homes if platform.read(home) is None}
    separate = all(each.home.rpartition("/")[2] == each.name for each in found)
    is_one = found and separate and len(parents) == 1 and all(platform.read(home) is None for home in homes)
    return parents - {""} if is_one else set()


def _litellm_values(platform: Platform) -> set[str]:
    layout = platform.layout
    if platform.read(layout.litellm_values) is not None:
        return {layout.litellm_values}
    return {path for path in platform.grep("model_list:") if path.endswith((".yaml", ".yml"))}


def _devices(platform: Platform) -> set[str]:
    """GPU resources of device plugins that are not known: of engines that request no other GPU, by their names."""
    return {
        str(key.value)
        for pieces in platform.endpoints()
        if not pieces.gpus
        for key, _ in entries(find(pieces.container, "resources", "limits"))
        if "/" in str(key.value) and _DEVICE.search(str(key.value))
    }


def _namespaces(platform: Platform) -> set[str]:
    """The namespaces of the endpoints' Deployments, from kustomize or from the Deployments."""
    found = set()
    for pieces in platform.endpoints():
        own = [each for path in pieces.files for each in objects(platform, path)]
        given = [value(each.node, "namespace") for kind, each in own if kind == "Kustomization"]
        written = value(find(pieces.deployment.node, "metadata"), "namespace")
        found.add(next((each for each in given if each), written))
    return found - {""}
