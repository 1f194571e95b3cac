"""Find the patches that may change what an endpoint runs.

A patch names its objects by its target, whose kind and name are regular expressions for the whole value, or by its own
kind and name. Sources: kustomize's reference (kubectl.docs.kubernetes.io/references/kustomize/kustomization/patches and
/replacements), RFC 6902, and the merge keys of a pod (`name`, in k8s.io/api/core/v1).
"""

import re
from collections.abc import Iterable, Iterator

from ruamel.yaml.nodes import Node

from manifests import kustomize
from manifests.edit import Document, entries, find, items, line, value
from manifests.frozen import frozen
from manifests.kustomize import Opaque
from manifests.tree import ManifestError, Tree

_POD = ("spec", "template", "spec")
_NAMED_LISTS = ("containers", "initContainers", "volumes")
"""The lists of a pod in which an item may belong to the endpoint's engine."""
_RELEASE_FIELDS = frozenset(
    {"interval", "timeout", "install", "upgrade", "rollback", "uninstall", "maxHistory", "driftDetection", "test", "suspend"}
    | {"dependsOn", "serviceAccountName", "kubeConfig"}
)  # fmt: skip
"""The fields of a HelmRelease other than its chart and its values."""
_COMPONENT_FIELDS = frozenset(
    {"apiVersion", "kind", "metadata", "resources", "configMapGenerator", "secretGenerator", "generatorOptions"}
)
"""The fields of a component that change no other object."""

Path = tuple[str, ...]


@frozen
class Subject:
    """The objects that a patch must not change: the parts of the workload that belong to the engine, ConfigMaps, the volume."""

    kind: str
    names: frozenset[str]
    """The workload's names, in the file and in the cluster."""
    engine_items: dict[str, frozenset[str]]
    """The containers and volumes that belong to the engine, by their list in the pod."""
    index: int
    """The position of the engine's container."""
    other_objects: frozenset[tuple[str, str]]
    """Kind and name of each ConfigMap and volume that a change of the endpoint edits."""


def subject_of(
    workload: Node, names: Iterable[str], pod: Node | None, container: Node, other_objects: Iterable[Node]
) -> Subject:
    mounted_volumes = {value(item, "name") for item in items(find(container, "volumeMounts"))}
    init_containers = {value(item, "name") for item in items(find(pod, "initContainers"))}
    containers = items(find(pod, "containers"))
    return Subject(
        kind=value(workload, "kind"),
        names=frozenset(names),
        engine_items={
            "containers": frozenset({value(container, "name")}),
            "initContainers": frozenset(init_containers),
            "volumes": frozenset(mounted_volumes),
        },
        index=next((number for number, item in enumerate(containers) if item is container), 0),
        other_objects=frozenset(kind_and_name for node in other_objects for kind_and_name in edited_objects(node)),
    )


def edited_objects(node: Node) -> Iterator[tuple[str, str]]:
    """Kind and name of the objects that Stoker edits in a node: the object itself, or the ConfigMaps that a kustomization generates."""
    kind = value(node, "kind") or "Kustomization"  # a kustomization needs no `kind`
    if kind in ("ConfigMap", "PersistentVolumeClaim", "LocalModelCache"):
        yield kind, value(node, "metadata", "name")
    for generator in items(find(node, "configMapGenerator")) if kind == "Kustomization" else ():
        yield "ConfigMap", value(generator, "name")


def parts_that_affect(tree: Tree, opaque: Iterable[Opaque], subject: Subject) -> tuple[Opaque, ...]:
    """The parts of kustomizations that may change the subject."""
    return tuple(
        part for part in opaque if _part_affects(tree, kustomize.document_at(tree, part.path), part.key, subject)
    )


def flux_patches(tree: Tree, path: str, name: str, subject: Subject) -> tuple[Opaque, ...]:
    """The patches of a Kustomization of Flux that may change the subject."""
    document = kustomize.document_at(tree, path)
    root = next((root for root in document.roots if value(root, "metadata", "name") == name), None)
    flux_patch_list = find(root, "spec", "patches")
    affecting = [item for item in items(flux_patch_list) if _patch_affects(tree, document, item, subject)]
    return tuple(Opaque(path, line(item), "spec.patches") for item in affecting[:1])


def refuse(name: str, opaque: tuple[Opaque, ...]) -> None:
    """Refuse a change if kustomize may change the same fields; raises ManifestError."""
    if opaque:
        first = opaque[0]
        raise ManifestError(
            f"kustomize changes {name} in a way that Stoker does not support ({first.path}:{first.line}: {first.key}): "
            "change it by hand."
        )


def _part_affects(tree: Tree, document: Document, key: str, subject: Subject) -> bool:
    part_items = items(find(document.roots[0], key))
    match key:
        case "patches" | "patchesStrategicMerge" | "patchesJson6902":
            return any(_patch_affects(tree, document, item, subject) for item in part_items)
        case "replacements":
            return any(_replacement_affects(item, subject) for item in part_items)
        case "components":
            return any(
                _component_affects(tree, directory, subject) for directory in kustomize.component_directories(document)
            )
    return True


def _patch_affects(tree: Tree, document: Document, item: Node, subject: Subject) -> bool:
    changes = [root for patch in kustomize.patch_documents(tree, document, item) for root in patch.roots]
    if not changes or find(item, "options") is not None:  # `options` may allow changes of kind and name
        return True
    target = find(item, "target")
    for root in changes:
        kind, name = value(target, "kind"), value(target, "name")
        if target is None:
            kind, name = re.escape(value(root, "kind")), re.escape(value(root, "metadata", "name"))
        if any(
            not _is_harmless(path, subject, workload=is_workload)
            for is_workload in _selected_objects(kind, name, subject)
            for path in _paths(root)
        ):
            return True
    return False


def _replacement_affects(replacement: Node, subject: Subject) -> bool:
    targets = items(find(replacement, "targets"))
    if not targets:  # the targets are in a separate file, or in an unsupported form
        return True
    for target in targets:
        kind, name = value(target, "select", "kind"), value(target, "select", "name")
        paths = [tuple(re.split(r"(?<!\\)\.", value(field_path))) for field_path in items(find(target, "fieldPaths"))]
        for is_workload in _selected_objects(kind, name, subject):
            if not paths or any(not _is_harmless(path, subject, workload=is_workload) for path in paths):
                return True
    return False


def _component_affects(tree: Tree, folder: str, subject: Subject) -> bool:
    document = kustomize.read(tree, folder)
    if document is None:
        return True
    keys = {str(key.value) for key, _ in entries(document.roots[0])} - _COMPONENT_FIELDS
    return any(_part_affects(tree, document, key, subject) for key in keys)


def _selected_objects(kind: str, name: str, subject: Subject) -> Iterator[bool]:
    """The objects of the subject that a target selects: True for the workload, False for another object."""
    if _may_match(kind, subject.kind) and any(_may_match(name, object_name) for object_name in subject.names):
        yield True
    if any(
        _may_match(kind, object_kind) and _may_match(name, object_name)
        for object_kind, object_name in subject.other_objects
    ):
        yield False


def _may_match(pattern: str, text: str) -> bool:
    try:
        return not pattern or re.fullmatch(pattern, text) is not None
    except re.error:
        return True


def _paths(root: Node) -> Iterator[Path]:
    """The paths that a patch changes: the pointers of a JSON patch, or the leaf fields of a merge patch."""
    operations = items(root)
    for operation in operations:
        for pointer in (value(operation, "path"), *([value(operation, "from")] if find(operation, "from") else [])):
            tokens = tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.strip("/").split("/"))
            yield (*tokens, "") if tokens[-1] == "-" and value(operation, "op") == "add" else tokens
    if not operations:
        for key, child in entries(root):
            if key.value not in ("apiVersion", "kind"):
                yield from (path for path in _leaves(child, (str(key.value),)) if path not in _IDENTITY)


_IDENTITY = (("metadata", "name"), ("metadata", "namespace"))


def _leaves(node: Node, path: Path) -> Iterator[Path]:
    pairs = entries(node)
    named_items = items(node) if path[:3] == _POD and path[-1] in _NAMED_LISTS and len(path) == 4 else ()
    for item in named_items:
        yield (*path, f"={value(item, 'name')}")
    for key, child in pairs:
        yield from _leaves(child, (*path, str(key.value)))
    if not named_items and not pairs:
        yield path


def _is_harmless(path: Path, subject: Subject, *, workload: bool) -> bool:
    """Return whether a change at a path of an object cannot affect the engine."""
    if any(step.startswith("$") for step in path):  # a directive such as `$patch: replace`
        return False
    if path[0] == "metadata":
        return len(path) > 1 and path[1] in ("labels", "annotations")
    if not workload or path[0] != "spec" or len(path) < 2:
        return False
    if subject.kind == "HelmRelease":
        return path[1] in _RELEASE_FIELDS
    if path[:2] in (("spec", "selector"), ("spec", "template")) and path[:3] != _POD:
        return path[:3] == ("spec", "template", "metadata") and len(path) > 3
    if path[:3] != _POD:
        return subject.kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    return len(path) > 3 and (path[3] not in _NAMED_LISTS or _is_another_item(path[3], path[4:], subject))


def _is_another_item(list_name: str, item_path: Path, subject: Subject) -> bool:
    """Return whether an item in a list of the pod does not belong to the engine, by its name or its position."""
    if not item_path:
        return False
    if item_path[0].startswith("="):
        return len(item_path[0]) > 1 and item_path[0][1:] not in subject.engine_items[list_name]
    if item_path == ("-", ""):  # the item is appended
        return True
    if selector := re.fullmatch(r"\[name=(.+)\]", item_path[0]):  # the notation of a replacement
        return selector[1] not in subject.engine_items[list_name]
    return (
        list_name == "containers"
        and len(item_path) > 1
        and item_path[0].isdecimal()
        and int(item_path[0]) != subject.index
    )
