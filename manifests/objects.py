"""The Kubernetes objects in the files of a repository."""

import posixpath
import re
from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from manifests.edit import Document, InvalidYaml, entries, items, value
from manifests.frozen import frozen
from manifests.kustomize import FILES
from manifests.memory import remembered
from manifests.tree import Tree
from manifests.variables import variables_of

YAML = (".yaml", ".yml")


@frozen
class Located:
    """A node, or a whole object, with its document."""

    document: Document
    node: MappingNode


@remembered
def objects(tree: Tree, path: str) -> tuple[tuple[str, Located], ...]:
    """Every object of a YAML file, with its kind; empty for any other file and for a Helm template."""
    text = tree.read(path) if path.endswith(YAML) else None
    is_kustomization = posixpath.basename(path) in FILES
    if text is None or not (is_kustomization or re.search(r"^\ufeff?kind:", text, re.MULTILINE)):
        return ()
    document = Document(path, text, variables=variables_of(tree, path) if "${" in text else None)
    try:
        roots = document.roots
    except InvalidYaml:
        if "{{" in text:
            return ()
        raise
    default_kind = "Kustomization" if is_kustomization else ""  # a kustomization needs no `kind`
    return tuple(
        (value(root, "kind") or default_kind, Located(document, root))
        for root in roots
        if isinstance(root, MappingNode)
    )


@remembered
def of_kind(tree: Tree, kind: str) -> tuple[Located, ...]:
    """Every object of this kind in the repository; files that are not valid YAML are skipped."""
    result: list[Located] = []
    paths = set(tree.grep(f"kind: {kind}"))
    if kind == "Kustomization":
        paths |= {path for path in tree.files("") if posixpath.basename(path) in FILES}
    for path in sorted(paths):
        try:
            declared = objects(tree, path)
        except InvalidYaml:
            continue
        result += (located for declared_kind, located in declared if declared_kind == kind)
    return tuple(result)


def mappings(node: Node | None) -> Iterator[MappingNode]:
    """The node and every mapping below it, in file order. A mapping with several aliases is yielded once."""
    visited: set[int] = set()
    pending = [node] if node is not None else []
    while pending:
        current = pending.pop()
        if id(current) in visited:
            continue
        visited.add(id(current))
        if isinstance(current, MappingNode):
            yield current
            pending += [inner for _, inner in reversed(current.value)]
        elif isinstance(current, SequenceNode):
            pending += reversed(current.value)


def parent_keys(root: Node, target: Node) -> tuple[str, ...]:
    """The keys on the path from a node to another node below it. List indices are left out; a direct item of a list has the key ""."""
    if root is target:
        return ()
    for key, child in entries(root):
        if child is target:
            return (str(key.value),)
        if inner_keys := parent_keys(child, target):
            return (str(key.value), *inner_keys)
    for child in items(root):
        if child is target:
            return ("",)
        if inner_keys := parent_keys(child, target):
            return inner_keys
    return ()
