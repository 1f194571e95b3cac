"""The content that an approved endpoint deploys: its files, its gateway entries, and its Application.

Two trees with equal results of `deployed_content` deploy the same content; other differences do not matter.
"""

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.deployers.argocd import source_paths
from manifests.edit import Document, InvalidYaml, find, scalars, value
from manifests.gateway import Entry
from manifests.pieces import Located, Pieces, objects
from manifests.platform import Platform
from manifests.tree import ManifestError, Tree

GATEWAY, DECLARED = "the gateway's entry", "the Application in git"
"""The names of the deployed items that are not files."""

_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_CHART = "Chart.yaml"


Content = Callable[[str], str]
"""Returns git's id of the content of a file, even of a binary file; "" if the file does not exist."""

Bound = tuple[tuple[str, str], ...]
"""The deployed items: name and digest, sorted by name."""


def deployed_content(
    platform: Platform, name: str, *, content: Content, gateway: bool, paths: Iterable[str] = ()
) -> Bound:
    """The deployed content of the endpoint `name`, with digests; for a removed endpoint, the content that remains.

    `paths` are further directories that Argo CD deploys.
    """
    pieces = platform.locate(name)
    application = _application(platform, name, pieces)
    own_paths = (
        (pieces.home, *(config.document.path for config in pieces.candidate.configs))
        if pieces
        else (platform.layout.home(name),)
    )
    files = _reachable_files(platform, {*own_paths, *paths}, application)
    bound = {path: content(path) for path in files}
    if application is not None:
        bound[DECLARED] = digest(_as_json(find(application.node, "spec")))
    if gateway:
        bound[GATEWAY] = digest(_gateway_entries(platform, name))
    return tuple(sorted(bound.items()))


def changed_items(before: Bound, after: Bound) -> tuple[str, ...]:
    """The names of the items that differ."""
    old_digests, new_digests = dict(before), dict(after)
    return tuple(
        sorted(name for name in {**old_digests, **new_digests} if old_digests.get(name) != new_digests.get(name))
    )


def source_of(spec: Mapping[str, Any]) -> str:
    """The sources and the destination of an Application, as text; equal texts mean equal sources.

    Kubernetes stores the fields of the manifest, so an Application has the same text in the cluster and in git.
    """
    sources = spec.get("sources") or [spec.get("source") or {}]
    fields = {"sources": sources, "destination": spec.get("destination") or {}, "project": spec.get("project") or ""}
    return source_text(fields)


def source_text(source: Mapping[str, Any]) -> str:
    """A source as text; equal texts mean equal sources."""
    return json.dumps(_as_yaml_scalars(source), sort_keys=True)


def declared_source(platform: Platform, name: str) -> str:
    """The source of the endpoint's Application in git, as text; empty if there is no Application."""
    application = _application(platform, name, platform.locate(name))
    return source_of(_as_json(find(application.node, "spec")) or {}) if application else ""


def digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "replace")).hexdigest()[:16]


def _application(platform: Platform, name: str, pieces: Pieces | None) -> Located | None:
    """The endpoint's Application; if the endpoint's directory is gone, the Application with the endpoint's name."""
    if pieces is not None:
        return pieces.application
    with_name = (app for app in platform.applications() if value(app.node, "metadata", "name") == name)
    return next(with_name, None)


def reachable(tree: Tree, directory: str) -> set[str]:
    """Every file below a directory, and below the directories to which its kustomization refers."""
    return _reachable_files(tree, {directory}, None)


def _reachable_files(tree: Tree, directories: set[str], application: Located | None) -> set[str]:
    """The files below the directories that Argo CD deploys, and the files that kustomizations or the Application name."""
    paths_to_visit = {*directories, *(source_paths(application) if application else ())}
    if application is not None:
        bases = source_paths(application)
        for node in scalars([find(application.node, "spec") or application.node]):
            text = str(node.value)
            references = (
                [text.partition("/")[2]] if text.startswith("$") else [posixpath.join(base, text) for base in bases]
            )
            paths_to_visit |= {
                path
                for reference in references
                if (path := _path_in_repository(reference)) and "/" in text and tree.files(path)
            }
    files: set[str] = set()
    while paths_to_visit:
        for path in tree.files(paths_to_visit.pop()):
            if path not in files:
                files.add(path)
                paths_to_visit |= _referenced(tree, path)
    return files


def _referenced(tree: Tree, path: str) -> set[str]:
    """The files and directories of the repository that a kustomization or a chart's dependency list refers to."""
    folder, _, base = path.rpartition("/")
    if base not in (*_KUSTOMIZATIONS, _CHART):
        return set()
    text = tree.read(path)
    try:
        roots = Document(path, text or "").roots
    except InvalidYaml:
        return set()
    references = (str(node.value).removeprefix("file://") for node in scalars(roots))
    paths = {_path_in_repository(posixpath.join(folder, reference)) for reference in references if reference}
    return {inner_path for inner_path in paths if inner_path and inner_path != folder and tree.files(inner_path)}


def _path_in_repository(path: str) -> str:
    """The normalised path; "" for the whole repository and for paths outside it."""
    normal = posixpath.normpath(path)
    return "" if normal in (".", "..") or normal.startswith(("../", "/")) else normal


def _gateway_entries(platform: Platform, name: str) -> list[object]:
    """The gateway's entries that lead to the endpoint or have its alias, in file order."""
    layout = platform.layout
    try:
        pieces = platform.locate(name)
        aliases = {name, *(entry.alias for entry in pieces.entries)} if pieces else {name}
        hosts = {name, pieces.host} if pieces else {name}
        namespaces = {layout.namespace, pieces.namespace} if pieces else {layout.namespace}
        return [
            _as_json(entry.node)
            for entry in platform.entries()
            if entry.alias in aliases or any(entry.reaches(host, *namespaces) for host in hosts)
        ]
    except ManifestError:
        return [platform.read(layout.litellm_values)]


def entries_by_alias(platform: Platform) -> dict[str, list[tuple[str, Entry]]]:
    """Every gateway entry with its digest, by alias."""
    entries_by_name: dict[str, list[tuple[str, Entry]]] = {}
    for entry in platform.entries():
        entries_by_name.setdefault(entry.alias, []).append((digest(_as_json(entry.node)), entry))
    return entries_by_name


def gateway_without_entries(platform: Platform) -> dict[str, object]:
    """The content of the gateway's files without their lists of models, by path, to compare two commits."""
    content: dict[str, object] = {}
    for models in platform.model_lists():
        path = models.document.path
        surroundings = [_without_lists(_as_json(root)) for root in Document(path, platform.read(path) or "").roots]
        content[path] = [content.get(path), surroundings, _without_lists(_as_json(models.config))]
    return content


def _without_lists(content: Any) -> Any:
    """The content without the lists of models, the texts that contain a list, and the parameters that set a part of a list."""
    if isinstance(content, dict) and "model_list[" in str(content.get("name")):
        return {}
    if isinstance(content, dict):
        return {key: _without_lists(child) for key, child in content.items() if key != "model_list"}
    if isinstance(content, list):
        return [_without_lists(child) for child in content]
    return "" if isinstance(content, str) and "model_list:" in content else content


def leaves(node: Node | None, path: str = "") -> dict[str, str]:
    """Every scalar of a document by its path; list entries are identified by their `name` if they have one."""
    if isinstance(node, ScalarNode):
        return {path: str(node.value)}
    values: dict[str, str] = {}
    if isinstance(node, MappingNode):
        for key, child in node.value:
            values |= leaves(child, f"{path}.{key.value}" if path else str(key.value))
    elif isinstance(node, SequenceNode):
        for index, child in enumerate(node.value):
            name = value(child, "name") if isinstance(child, MappingNode) else ""
            values |= leaves(child, f"{path}[{name or index}]")
    return values


def documents(tree: Tree, path: str) -> dict[str, Node]:
    """The objects of a file by kind and name."""
    return {f"{kind} {value(located.node, 'metadata', 'name')}": located.node for kind, located in objects(tree, path)}


def _as_json(node: Node | None) -> Any:
    match node:
        case MappingNode():
            return {str(key.value): _as_json(child) for key, child in node.value}
        case SequenceNode():
            return [_as_json(child) for child in node.value]
        case ScalarNode():
            return str(node.value)
    return None


def _as_yaml_scalars(content: Any) -> Any:
    """Scalars in YAML's notation, so that values from JSON can be compared with values in a file."""
    if isinstance(content, Mapping):
        return {str(key): _as_yaml_scalars(child) for key, child in content.items()}
    if isinstance(content, list | tuple):
        return [_as_yaml_scalars(child) for child in content]
    if isinstance(content, bool):
        return "true" if content else "false"
    return "" if content is None else str(content)
