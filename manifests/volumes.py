"""The size of an endpoint's volume claim."""

from manifests.edit import Document, scalar, value
from manifests.objects import Located, objects
from manifests.sizing import quantity_bytes
from manifests.tree import ChangeSet, Files, Tree

STORAGE = ("spec", "resources", "requests", "storage")
"""The path of the requested size in a claim."""


def with_size(document: Document, name: str, storage: str) -> Document:
    """The document with the claim `name` at this size."""
    sizes = (scalar(root, *STORAGE) for root in document.roots if value(root, "metadata", "name") == name)
    return document.apply([document.set_value(size, storage) for size in sizes if size is not None])


def without_shrinking(tree: Tree, changes: ChangeSet) -> tuple[ChangeSet, tuple[str, ...]]:
    """The changes with every volume at least at its present size, and a warning for each volume that keeps its size.

    It is used to revert a change that expanded a volume: Kubernetes refuses a smaller claim, so the whole sync would
    fail.
    """
    files, warnings = dict(changes.files), list[str]()
    for path, text in changes.files.items():
        if text is None:
            continue
        current = {value(claim.node, "metadata", "name"): claim.node for claim in _claims(tree, path)}
        edits = []
        for claim in _claims(Files({path: text}), path):
            name, size = value(claim.node, "metadata", "name"), scalar(claim.node, *STORAGE)
            current_size = value(current.get(name), *STORAGE)
            if size is not None and _bytes(size.value) < _bytes(current_size):
                edits.append(claim.document.set_value(size, current_size))
                warnings.append(f"The volume {name} stays at {current_size}: Kubernetes cannot make it smaller.")
        files[path] = Document(path, text).apply(edits).text
    changed = {path: text for path, text in files.items() if text != tree.read(path)}
    return ChangeSet(files=changed), tuple(warnings)


def _claims(tree: Tree, path: str) -> list[Located]:
    return [located for kind, located in objects(tree, path) if kind == "PersistentVolumeClaim"]


def _bytes(quantity: str) -> int:
    try:
        return quantity_bytes(quantity)
    except ValueError:
        return 0
