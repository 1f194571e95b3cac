"""The variables of Flux: `postBuild` of a Kustomization replaces `${NAME}` in everything that it deploys.

A value is read as it is in the cluster, together with the places of its variables, so that a change is made at the
definition: `postBuild.substitute`, a ConfigMap of `substituteFrom`, or a default in the manifest. A variable that a
Secret may set is not replaced. Source:
fluxcd.io/flux/components/kustomize/kustomizations/#post-build-variable-substitution.
"""

import copy
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.edit import Document, InvalidYaml, Substituted, entries, find, items, value
from manifests.frozen import frozen
from manifests.kustomize import leads_to
from manifests.memory import remembered
from manifests.sources.site import Definition, Part, Site
from manifests.tree import Tree, within

_GROUP = "kustomize.toolkit.fluxcd.io/"
_VARIABLE = re.compile(r"\$?\$\{([A-Za-z_]\w*)(?::?[-=]([^${}]*))?\}")
_DISABLED = f"{_GROUP}substitute"


class _Kustomization(NamedTuple):
    folder: str
    path: str
    node: Node


@frozen
class Variables:
    """The variables of one Kustomization. `hidden` are the names that a Secret sets; None if they are unknown."""

    tree: Tree
    defined: Mapping[str, Site]
    hidden: frozenset[str] | None

    def resolve(self, document: Document, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        """The nodes with the values of the variables. The original nodes are not changed."""
        return tuple(root if _is_disabled(root) else self._with_values(document, root, {}) for root in roots)

    def _with_values(self, document: Document, node: Node, copies: dict[int, Node]) -> Node:
        if id(node) in copies:
            return copies[id(node)]
        if isinstance(node, ScalarNode):
            new_node: Node = self._scalar(document, node) if "${" in node.value else node
        else:
            new_node = copy.copy(node)
        copies[id(node)] = new_node
        if isinstance(node, MappingNode):
            new_node.value = [(key, self._with_values(document, child, copies)) for key, child in node.value]
        elif isinstance(node, SequenceNode):
            new_node.value = [self._with_values(document, child, copies) for child in node.value]
        return new_node

    def _scalar(self, document: Document, node: ScalarNode) -> ScalarNode:
        raw, text, end_of_last = str(node.value), "", 0
        parts: list[Part] = []
        for match in _VARIABLE.finditer(raw):
            replacement = self._value(document, node, match)
            if replacement is None:
                continue
            text_value, definition = replacement
            text += raw[end_of_last : match.start()]
            parts.append(Part(len(text), len(text) + len(text_value), match.start(), match.end(), definition))
            text, end_of_last = text + text_value, match.end()
        return Substituted.of(node, text + raw[end_of_last:], tuple(parts)) if parts else node

    def _value(
        self, document: Document, node: ScalarNode, match: re.Match[str]
    ) -> tuple[str, Definition | None] | None:
        name, default = match[1], match[2]
        if match[0].startswith("$$"):
            return match[0][1:], None
        if (site := self.defined.get(name)) is not None:
            return site.value, Definition(name, site, lambda: tuple(uses(self.tree, name, site)))
        if default is None or self.hidden is None or name in self.hidden:
            return None
        default_site = Site(document, node, match.start(2), match.end(2))
        return default, Definition(name, default_site, lambda: ())


@remembered
def variables_of(tree: Tree, path: str) -> Variables | None:
    """The variables that Flux replaces in a file; None if it replaces none, or if several Kustomizations deploy it."""
    all_kustomizations = _kustomizations(tree)
    folder = posixpath.dirname(path)
    above_file = [kustomization for kustomization in all_kustomizations if within(path, kustomization.folder)]
    exact = [kustomization for kustomization in above_file if kustomization.folder]
    closest = (
        exact
        or [kustomization for kustomization in all_kustomizations if leads_to(tree, kustomization.folder, folder)]
        or above_file
    )
    longest = max((len(kustomization.folder) for kustomization in closest), default=0)
    deploying = [kustomization for kustomization in closest if len(kustomization.folder) == longest]
    return _variables_of_kustomization(tree, deploying[0]) if len(deploying) == 1 else None


def uses(tree: Tree, name: str, site: Site) -> Iterator[tuple[str, int]]:
    """The files and lines that use the variable with this definition; a line occurs once for each use."""
    for path in tree.grep(f"${{{name}"):
        variables = variables_of(tree, path) if path.endswith((".yaml", ".yml")) else None
        defined = variables.defined.get(name) if variables is not None else None
        if defined is None or (defined.path, defined.line) != (site.path, site.line):
            continue
        for number, text in enumerate((tree.read(path) or "").splitlines(), 1):
            for match in _VARIABLE.finditer(text):
                if match[1] == name and not match[0].startswith("$$"):
                    yield path, number


@remembered
def _kustomizations(tree: Tree) -> tuple[_Kustomization, ...]:
    """Every Kustomization of Flux, if any of them replaces variables."""
    if not tree.grep("postBuild:"):
        return ()
    return tuple(
        _Kustomization(posixpath.normpath(value(root, "spec", "path").lstrip("/") or ".").removeprefix("."), path, root)
        for path, root in _raw_objects(tree, "Kustomization")
        if value(root, "apiVersion").startswith(_GROUP)
    )


def _raw_objects(tree: Tree, kind: str) -> Iterator[tuple[str, Node]]:
    """The objects of a kind with their paths; their variables are not replaced."""
    for path in tree.grep(f"kind: {kind}"):
        if not path.endswith((".yaml", ".yml")):
            continue
        try:
            roots = Document(path, tree.read(path) or "").roots
        except InvalidYaml:
            continue
        yield from ((path, root) for root in roots if value(root, "kind") == kind)


def _variables_of_kustomization(tree: Tree, kustomization: _Kustomization) -> Variables | None:
    build = find(kustomization.node, "spec", "postBuild")
    defined: dict[str, Site] = {}
    hidden: frozenset[str] | None = frozenset()
    for source in items(find(build, "substituteFrom")):
        kind, name = value(source, "kind"), value(source, "name")
        with_name = [
            path_and_node
            for path_and_node in _raw_objects(tree, kind)
            if value(path_and_node[1], "metadata", "name") == name
        ]
        in_same_folder = [
            path_and_node
            for path_and_node in with_name
            if within(path_and_node[0], posixpath.dirname(kustomization.path))
        ]
        if len(in_same_folder or with_name) != 1:
            hidden = None
            continue
        path, node = (in_same_folder or with_name)[0]
        if kind == "ConfigMap":
            defined |= dict(_sites(tree, path, find(node, "data")))
        elif hidden is not None:
            hidden |= {str(key.value) for part in ("data", "stringData") for key, _ in entries(find(node, part))}
    defined |= dict(_sites(tree, kustomization.path, find(build, "substitute")))
    return Variables(tree, defined, hidden) if defined or entries(build) else None


def _sites(tree: Tree, path: str, node: Node | None) -> Iterator[tuple[str, Site]]:
    document = Document(path, tree.read(path) or "")
    for key, child in entries(node):
        if isinstance(child, ScalarNode):
            yield str(key.value), Site.whole(document, child)


def _is_disabled(root: Node) -> bool:
    return any(value(root, "metadata", key, _DISABLED) == "disabled" for key in ("labels", "annotations"))
