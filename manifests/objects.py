"""The Kubernetes objects in the files of a repository."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from manifests.edit import Document, InvalidYaml, entries, items, value
from manifests.kustomize import FILES
from manifests.memory import remembered
from manifests.tree import Tree
from manifests.variables import variables_of

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Located:
    """A node, or a whole object, with its document."""

    document: Document
    node: MappingNode


@remembered
def objects(tree: Tree, path: str) -> tuple[tuple[str, Located], ...]:
    """Every object of a YAML file, with its kind; none for any other file, a template of Helm's included."""
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
    usual = "Kustomization" if is_kustomization else ""  # kustomize needs no `kind` in it
    return tuple(
        (value(root, "kind") or usual, Located(document, root)) for root in roots if isinstance(root, MappingNode)
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
            found = objects(tree, path)
        except InvalidYaml:
            continue
        result += (each for each_kind, each in found if each_kind == kind)
    return tuple(result)


def mappings(node: Node | None) -> Iterator[MappingNode]:
    """The node and every mapping below it, in the order of the file; a mapping with several aliases is yielded once."""
    seen: set[int] = set()
    waiting = [node] if node is not None else []
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, MappingNode):
            yield each
            waiting += [inner for _, inner in reversed(each.value)]
        elif isinstance(each, SequenceNode):
            waiting += reversed(each.value)


def parent_keys(root: Node, target: Node) -> tuple[str, ...]:
    """The keys on the way from a node to another one below it; indices of lists are left out."""
    if root is target:
        return ()
    for key, inside in entries(root):
        if inside is target:
            return (str(key.value),)
        if below := parent_keys(inside, target):
            return (str(key.value), *below)
    for inside in items(root):
        if inside is target:
            return ("",)
        if below := parent_keys(inside, target):
            return below
    return ()
