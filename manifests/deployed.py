"""The content that an approved endpoint deploys: its files, its gateway entries, and its Application.

Two trees with equal `deployed` results deploy the same content; other differences do not matter.
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
"""Names of the bound items that are not files."""

_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_CHART = "Chart.yaml"


Content = Callable[[str], str]
"""git's id of a file's content, also for a binary file; empty if the file does not exist."""

Bound = tuple[tuple[str, str], ...]
"""The deployed items: name and digest, sorted by name."""


def deployed(platform: Platform, name: str, *, content: Content, gateway: bool, paths: Iterable[str] = ()) -> Bound:
    """The deployed content for the endpoint `name`, with digests; `paths` are further directories that Argo CD deploys.

    For a removed endpoint: its remaining content.
    """
    pieces = platform.locate(name)
    application = _application(platform, name, pieces)
    own = (
        (pieces.home, *(config.document.path for config in pieces.candidate.configs))
        if pieces
        else (platform.layout.home(name),)
    )
    files = _files(platform, {*own, *paths}, application)
    bound = {path: content(path) for path in files}
    if application is not None:
        bound[DECLARED] = digest(_plain(find(application.node, "spec")))
    if gateway:
        bound[GATEWAY] = digest(_entries(platform, name))
    return tuple(sorted(bound.items()))


def changed(before: Bound, after: Bound) -> tuple[str, ...]:
    """The names of the items that differ."""
    was, now = dict(before), dict(after)
    return tuple(sorted(name for name in {**was, **now} if was.get(name) != now.get(name)))


def source_of(spec: Mapping[str, Any]) -> str:
    """Return where an Application takes its manifests from and deploys them, as text: equal texts mean equal sources.

    Kubernetes stores the written fields, so an Application in the cluster and its manifest in git give the same text.
    """
    sources = spec.get("sources") or [spec.get("source") or {}]
    told = {"sources": sources, "destination": spec.get("destination") or {}, "project": spec.get("project") or ""}
    return source_text(told)


def source_text(source: Mapping[str, Any]) -> str:
    """A source as text: equal texts, equal sources."""
    return json.dumps(_as_written(source), sort_keys=True)


def declared_source(platform: Platform, name: str) -> str:
    """The source of the endpoint's Application in git, as text; empty if there is no Application."""
    application = _application(platform, name, platform.locate(name))
    return source_of(_plain(find(application.node, "spec")) or {}) if application else ""


def digest(of: object) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode("utf-8", "replace")).hexdigest()[:16]


def _application(platform: Platform, name: str, pieces: Pieces | None) -> Located | None:
    """The endpoint's Application; if its directory is gone, the Application with its name."""
    if pieces is not None:
        return pieces.application
    named = (app for app in platform.applications() if value(app.node, "metadata", "name") == name)
    return next(named, None)


def reachable(tree: Tree, directory: str) -> set[str]:
    """Every file below a directory, and below the directories to which its kustomization refers."""
    return _files(tree, {directory}, None)


def _files(tree: Tree, directories: set[str], application: Located | None) -> set[str]:
    """Every file below the directories that Argo CD deploys, and every file that a kustomization or the Application
    refers to.
    """
    todo = {*directories, *(source_paths(application) if application else ())}
    if application is not None:
        bases = source_paths(application)
        for node in scalars([find(application.node, "spec") or application.node]):
            text = str(node.value)
            referred = (
                [text.partition("/")[2]] if text.startswith("$") else [posixpath.join(base, text) for base in bases]
            )
            todo |= {path for each in referred if (path := _inside(each)) and "/" in text and tree.files(path)}
    found: set[str] = set()
    while todo:
        for path in tree.files(todo.pop()):
            if path not in found:
                found.add(path)
                todo |= _referred(tree, path)
    return found


def _referred(tree: Tree, path: str) -> set[str]:
    """The files and directories of the repository that a kustomization or a chart's dependency list refers to."""
    folder, _, base = path.rpartition("/")
    if base not in (*_KUSTOMIZATIONS, _CHART):
        return set()
    text = tree.read(path)
    try:
        roots = Document(path, text or "").roots
    except InvalidYaml:
        return set()
    named = (str(node.value).removeprefix("file://") for node in scalars(roots))
    inside = {_inside(posixpath.join(folder, each)) for each in named if each}
    return {each for each in inside if each and each != folder and tree.files(each)}


def _inside(path: str) -> str:
    """The normalised path; empty for the whole repository and for paths outside of it."""
    normal = posixpath.normpath(path)
    return "" if normal in (".", "..") or normal.startswith(("../", "/")) else normal


def _entries(platform: Platform, name: str) -> list[object]:
    """The gateway's entries that lead to the endpoint or have its alias, in order: several entries share its calls."""
    layout = platform.layout
    try:
        pieces = platform.locate(name)
        aliases = {name, *(each.alias for each in pieces.entries)} if pieces else {name}
        hosts = {name, pieces.host} if pieces else {name}
        spaces = {layout.namespace, pieces.namespace} if pieces else {layout.namespace}
        return [
            _plain(entry.node)
            for entry in platform.entries()
            if entry.alias in aliases or any(entry.reaches(host, *spaces) for host in hosts)
        ]
    except ManifestError:
        return [platform.read(layout.litellm_values)]


def entries_by_alias(platform: Platform) -> dict[str, list[tuple[str, Entry]]]:
    """Every gateway entry with its digest, by alias."""
    found: dict[str, list[tuple[str, Entry]]] = {}
    for entry in platform.entries():
        found.setdefault(entry.alias, []).append((digest(_plain(entry.node)), entry))
    return found


def gateway_without_entries(platform: Platform) -> dict[str, object]:
    """The content of the gateway's files without their lists of models, by path, for a comparison."""
    found: dict[str, object] = {}
    for each in platform.model_lists():
        path = each.document.path
        around = [_without_lists(_plain(root)) for root in Document(path, platform.read(path) or "").roots]
        found[path] = [found.get(path), around, _without_lists(_plain(each.config))]
    return found


def _without_lists(of: Any) -> Any:
    """Remove every list of models, every text that contains one, and every parameter that belongs to one."""
    if isinstance(of, dict) and "model_list[" in str(of.get("name")):
        return {}
    if isinstance(of, dict):
        return {key: _without_lists(each) for key, each in of.items() if key != "model_list"}
    if isinstance(of, list):
        return [_without_lists(each) for each in of]
    return "" if isinstance(of, str) and "model_list:" in of else of


def leaves(node: Node | None, at: str = "") -> dict[str, str]:
    """Every scalar of a document by its path; list entries are identified by their `name` if they have one."""
    if isinstance(node, ScalarNode):
        return {at: str(node.value)}
    found: dict[str, str] = {}
    if isinstance(node, MappingNode):
        for key, each in node.value:
            found |= leaves(each, f"{at}.{key.value}" if at else str(key.value))
    elif isinstance(node, SequenceNode):
        for index, each in enumerate(node.value):
            name = value(each, "name") if isinstance(each, MappingNode) else ""
            found |= leaves(each, f"{at}[{name or index}]")
    return found


def documents(tree: Tree, path: str) -> dict[str, Node]:
    """The objects of a file by kind and name."""
    return {f"{kind} {value(each.node, 'metadata', 'name')}": each.node for kind, each in objects(tree, path)}


def _plain(node: Node | None) -> Any:
    match node:
        case MappingNode():
            return {str(key.value): _plain(each) for key, each in node.value}
        case SequenceNode():
            return [_plain(each) for each in node.value]
        case ScalarNode():
            return str(node.value)
    return None


def _as_written(of: Any) -> Any:
    """Scalars in YAML's notation, so that values from JSON can be compared with values in a file."""
    if isinstance(of, Mapping):
        return {str(key): _as_written(each) for key, each in of.items()}
    if isinstance(of, list | tuple):
        return [_as_written(each) for each in of]
    if isinstance(of, bool):
        return "true" if of else "false"
    return "" if of is None else str(of)
