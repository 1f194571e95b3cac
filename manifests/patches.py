"""Find the patches that may change what an endpoint runs.

A patch names its objects by its target, whose kind and name are regular expressions for the whole value, or by its own
kind and name. Sources: kustomize's reference (kubectl.docs.kubernetes.io/references/kustomize/kustomization/patches and
/replacements), RFC 6902, and the merge keys of a pod (`name`, in k8s.io/api/core/v1).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ruamel.yaml.nodes import Node

from manifests import kustomize
from manifests.edit import Document, entries, find, items, line, value
from manifests.kustomize import Opaque
from manifests.tree import ManifestError, Tree

_POD = ("spec", "template", "spec")
_NAMED = ("containers", "initContainers", "volumes")
"""The lists of a pod in which an item may belong to the endpoint's engine."""
_RELEASE = frozenset(
    {"interval", "timeout", "install", "upgrade", "rollback", "uninstall", "maxHistory", "driftDetection", "test", "suspend"}
    | {"dependsOn", "serviceAccountName", "kubeConfig"}
)  # fmt: skip
"""The fields of a HelmRelease other than its chart and its values."""
_COMPONENT = frozenset(
    {"apiVersion", "kind", "metadata", "resources", "configMapGenerator", "secretGenerator", "generatorOptions"}
)
"""The fields of a component that change no other object."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """The objects that a patch must not change: the endpoint's workload, as far as its engine is concerned, its ConfigMaps and its volume."""

    kind: str
    names: frozenset[str]
    """The workload's name in the file, and in the cluster."""
    own: dict[str, frozenset[str]]
    """The containers and volumes that belong to the engine, by their list in the pod."""
    index: int
    """The position of the engine's container."""
    beside: frozenset[tuple[str, str]]
    """Kind and name of the other objects that a change edits: its ConfigMaps and its volume."""


def subject(workload: Node, names: Iterable[str], pod: Node | None, container: Node, beside: Iterable[Node]) -> Subject:
    mounted = {value(item, "name") for item in items(find(container, "volumeMounts"))}
    inits = {value(each, "name") for each in items(find(pod, "initContainers"))}
    containers = items(find(pod, "containers"))
    return Subject(
        kind=value(workload, "kind"),
        names=frozenset(names),
        own={
            "containers": frozenset({value(container, "name")}),
            "initContainers": frozenset(inits),
            "volumes": frozenset(mounted),
        },
        index=next((number for number, each in enumerate(containers) if each is container), 0),
        beside=frozenset(named for each in beside for named in edited(each)),
    )


def edited(node: Node) -> Iterator[tuple[str, str]]:
    """Kind and name of what a change of an endpoint edits in an object: itself, or what a kustomization generates."""
    kind = value(node, "kind") or "Kustomization"  # kustomize needs no `kind` in it
    if kind in ("ConfigMap", "PersistentVolumeClaim", "LocalModelCache"):
        yield kind, value(node, "metadata", "name")
    for each in items(find(node, "configMapGenerator")) if kind == "Kustomization" else ():
        yield "ConfigMap", value(each, "name")


def concerning(tree: Tree, opaque: Iterable[Opaque], of: Subject) -> tuple[Opaque, ...]:
    """Those parts of kustomizations that may change the subject."""
    return tuple(each for each in opaque if _concerns(tree, kustomize.document_at(tree, each.path), each.key, of))


def of_flux(tree: Tree, path: str, name: str, of: Subject) -> tuple[Opaque, ...]:
    """The patches of a Kustomization of Flux that may change the subject."""
    document = kustomize.document_at(tree, path)
    root = next((each for each in document.roots if value(each, "metadata", "name") == name), None)
    listed = find(root, "spec", "patches")
    hits = [item for item in items(listed) if _patch_concerns(tree, document, item, of)]
    return tuple(Opaque(path, line(hit), "spec.patches") for hit in hits[:1])


def refuse(name: str, opaque: tuple[Opaque, ...]) -> None:
    """kustomize may change the same fields as the planned change."""
    if opaque:
        first = opaque[0]
        raise ManifestError(
            f"kustomize changes {name} in a way that Stoker does not support ({first.path}:{first.line}: {first.key}): "
            "change it by hand."
        )


def _concerns(tree: Tree, document: Document, key: str, of: Subject) -> bool:
    listed = items(find(document.roots[0], key))
    match key:
        case "patches" | "patchesStrategicMerge" | "patchesJson6902":
            return any(_patch_concerns(tree, document, each, of) for each in listed)
        case "replacements":
            return any(_replacement_concerns(each, of) for each in listed)
        case "components":
            return any(
                _component_concerns(tree, directory, of) for directory in kustomize.component_directories(document)
            )
    return True


def _patch_concerns(tree: Tree, document: Document, each: Node, of: Subject) -> bool:
    changes = [root for found in kustomize.patch_documents(tree, document, each) for root in found.roots]
    if not changes or find(each, "options") is not None:  # `options` may allow that it changes a kind or a name
        return True
    target = find(each, "target")
    for root in changes:
        kind, name = value(target, "kind"), value(target, "name")
        if target is None:
            kind, name = re.escape(value(root, "kind")), re.escape(value(root, "metadata", "name"))
        if any(
            not _is_harmless(path, of, workload=is_workload)
            for is_workload in _hits(kind, name, of)
            for path in _paths(root)
        ):
            return True
    return False


def _replacement_concerns(each: Node, of: Subject) -> bool:
    targets = items(find(each, "targets"))
    if not targets:  # in a file of its own, or not understood
        return True
    for target in targets:
        kind, name = value(target, "select", "kind"), value(target, "select", "name")
        paths = [tuple(re.split(r"(?<!\\)\.", value(one))) for one in items(find(target, "fieldPaths"))]
        for is_workload in _hits(kind, name, of):
            if not paths or any(not _is_harmless(path, of, workload=is_workload) for path in paths):
                return True
    return False


def _component_concerns(tree: Tree, folder: str, of: Subject) -> bool:
    document = kustomize.read(tree, folder)
    if document is None:
        return True
    keys = {str(key.value) for key, _ in entries(document.roots[0])} - _COMPONENT
    return any(_concerns(tree, document, key, of) for key in keys)


def _hits(kind: str, name: str, of: Subject) -> Iterator[bool]:
    """The objects of the subject that a target selects: True for the workload, False for another object."""
    if _fits(kind, of.kind) and any(_fits(name, each) for each in of.names):
        yield True
    if any(_fits(kind, other) and _fits(name, each) for other, each in of.beside):
        yield False


def _fits(pattern: str, text: str) -> bool:
    try:
        return not pattern or re.fullmatch(pattern, text) is not None
    except re.error:
        return True


def _paths(root: Node) -> Iterator[Path]:
    """The places that a patch changes: of a JSON patch its pointers, of a merge patch the fields in which it ends."""
    operations = items(root)
    for operation in operations:
        for pointer in (value(operation, "path"), *([value(operation, "from")] if find(operation, "from") else [])):
            tokens = tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.strip("/").split("/"))
            yield (*tokens, "") if tokens[-1] == "-" and value(operation, "op") == "add" else tokens
    if not operations:
        for key, below in entries(root):
            if key.value not in ("apiVersion", "kind"):
                yield from (path for path in _leaves(below, (str(key.value),)) if path not in _IDENTITY)


_IDENTITY = (("metadata", "name"), ("metadata", "namespace"))


def _leaves(node: Node, at: Path) -> Iterator[Path]:
    inside = entries(node)
    named = items(node) if at[:3] == _POD and at[-1] in _NAMED and len(at) == 4 else ()
    for each in named:
        yield (*at, f"={value(each, 'name')}")
    for key, below in inside:
        yield from _leaves(below, (*at, str(key.value)))
    if not named and not inside:
        yield at


def _is_harmless(path: Path, of: Subject, *, workload: bool) -> bool:
    """Return whether a place of an object has no part in what the engine runs."""
    if any(step.startswith("$") for step in path):  # `$patch: replace` and the like
        return False
    if path[0] == "metadata":
        return len(path) > 1 and path[1] in ("labels", "annotations")
    if not workload or path[0] != "spec" or len(path) < 2:
        return False
    if of.kind == "HelmRelease":
        return path[1] in _RELEASE
    if path[:2] in (("spec", "selector"), ("spec", "template")) and path[:3] != _POD:
        return path[:3] == ("spec", "template", "metadata") and len(path) > 3
    if path[:3] != _POD:
        return of.kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    return len(path) > 3 and (path[3] not in _NAMED or _is_another_item(path[3], path[4:], of))


def _is_another_item(listed: str, rest: Path, of: Subject) -> bool:
    """Return whether an item of a list of the pod belongs to something else: by its name, or by its position."""
    if not rest:
        return False
    if rest[0].startswith("="):
        return len(rest[0]) > 1 and rest[0][1:] not in of.own[listed]
    if rest == ("-", ""):  # appended
        return True
    if named := re.fullmatch(r"\[name=(.+)\]", rest[0]):  # the notation of a replacement
        return named[1] not in of.own[listed]
    return listed == "containers" and len(rest) > 1 and rest[0].isdecimal() and int(rest[0]) != of.index
