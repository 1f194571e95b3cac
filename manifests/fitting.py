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


def fitted_layout(platform: Platform) -> Layout:
    """The layout, in which each wrong default is replaced if there is exactly one candidate.

    This is for a checkout without configuration. If there are several candidates, or a file cannot be parsed, the default
    stays, and the check reports everything that is missing.
    """
    try:
        return _layout_of_single_candidates(platform)
    except InvalidYaml:
        return platform.layout


def _layout_of_single_candidates(platform: Platform) -> Layout:
    layout, updates = platform.layout, dict[str, str]()
    for key, options in (
        ("environment", _environments(platform)),
        ("serving_dir", _serving_dirs(platform)),
        ("litellm_values", _litellm_values(platform)),
    ):
        if len(options) == 1 and getattr(layout, key) not in options:
            (updates[key],) = options
    branches = _branches(platform)
    if len(branches) == 1 and layout.branch not in branches:
        (updates["branch"],) = branches
    fitting = layout.model_copy(update=updates)
    namespaces = _namespaces(platform.with_layout(fitting))
    if len(namespaces) == 1:
        fitting = fitting.model_copy(update={"namespace": next(iter(namespaces))})
    if devices := _devices(platform.with_layout(fitting)) - set(fitting.gpu_resources):
        fitting = fitting.model_copy(update={"gpu_resources": (*fitting.gpu_resources, *sorted(devices))})
    endpoints = read_endpoints(platform.with_layout(fitting))
    chats = [endpoint.name for endpoint in endpoints if endpoint.kind == "gpu-chat"]
    if chats and layout.template not in (endpoint.name for endpoint in endpoints):
        fitting = fitting.model_copy(update={"template": chats[0]})
    return fitting


def _branches(platform: Platform) -> set[str]:
    """The revisions of the Applications that deploy directories of this repository; empty if one of them follows the default branch."""
    sources = [
        source
        for app in platform.applications()
        for source in (find(app.node, "spec", "source"), *items(find(app.node, "spec", "sources")))
        if value(source, "path")
    ]
    repositories = Counter(value(source, "repoURL") for source in sources)
    main_repository = repositories.most_common(1)[0][0] if repositories else ""
    revisions = {
        value(source, "targetRevision") or "HEAD" for source in sources if value(source, "repoURL") == main_repository
    }
    return set() if any(source == "HEAD" or "{{" in source for source in revisions) else revisions


def _environments(platform: Platform) -> set[str]:
    layout = platform.layout
    if "{environment}" not in layout.catalog_dir:
        return {layout.environment}
    pattern = re.compile(re.escape(layout.catalog_dir).replace(r"\{environment\}", "([^/]+)") + "/")
    return {match[1] for path in platform.files("") if (match := pattern.match(path))}


def _serving_dirs(platform: Platform) -> set[str]:
    """The directory whose subdirectories are the endpoints; empty if there is no such directory."""
    endpoints = platform.endpoints()
    if not endpoints:  # the configured directory has no endpoints
        platform = platform.with_layout(
            Layout(**platform.layout.model_dump(exclude={"serving_dir"}, exclude_unset=True))
        )
        endpoints = platform.endpoints()
    homes = {endpoint.home for endpoint in endpoints} | {endpoint.home for endpoint in platform.unknown()}
    parents = {posixpath.dirname(home) for home in homes if platform.read(home) is None}
    have_own_directories = all(endpoint.home.rpartition("/")[2] == endpoint.name for endpoint in endpoints)
    is_one = (
        endpoints and have_own_directories and len(parents) == 1 and all(platform.read(home) is None for home in homes)
    )
    return parents - {""} if is_one else set()


def _litellm_values(platform: Platform) -> set[str]:
    layout = platform.layout
    if platform.read(layout.litellm_values) is not None:
        return {layout.litellm_values}
    return {path for path in platform.grep("model_list:") if path.endswith((".yaml", ".yml"))}


def _devices(platform: Platform) -> set[str]:
    """Unknown GPU resources of device plugins: resources with a GPU-like name, in engines that have no known GPU resource."""
    return {
        str(key.value)
        for pieces in platform.endpoints()
        if not pieces.gpus
        for key, _ in entries(find(pieces.container, "resources", "limits"))
        if "/" in str(key.value) and _DEVICE.search(str(key.value))
    }


def _namespaces(platform: Platform) -> set[str]:
    """The namespaces of the endpoints' Deployments, from kustomize or from the Deployments."""
    all_namespaces = set()
    for pieces in platform.endpoints():
        declared = [located for path in pieces.files for located in objects(platform, path)]
        from_kustomize = [value(located.node, "namespace") for kind, located in declared if kind == "Kustomization"]
        from_workload = value(find(pieces.deployment.node, "metadata"), "namespace")
        all_namespaces.add(next((name for name in from_kustomize if name), from_workload))
    return all_namespaces - {""}
