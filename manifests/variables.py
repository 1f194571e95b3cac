"""The variables of Flux: `postBuild` of a Kustomization replaces `${NAME}` in everything that it deploys.

A value is read as the cluster gets it, and keeps the places of its variables, so that a change goes to the definition:
`postBuild.substitute`, a ConfigMap of `substituteFrom`, or a default in the manifest. A variable that a Secret may set
stays as it is written. Source: fluxcd.io/flux/components/kustomize/kustomizations/#post-build-variable-substitution.
"""

import copy
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.edit import Document, InvalidYaml, Substituted, entries, find, items, value
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


@dataclass(frozen=True)
class Variables:
    """The variables of one Kustomization. `hidden` are names that a Secret sets, None if any name may be one of them."""

    tree: Tree
    defined: Mapping[str, Site]
    hidden: frozenset[str] | None

    def resolved(self, document: Document, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        """The nodes with the values of the variables. The original nodes are not changed."""
        return tuple(root if _is_disabled(root) else self._filled(document, root, {}) for root in roots)

    def _filled(self, document: Document, node: Node, known: dict[int, Node]) -> Node:
        if id(node) in known:
            return known[id(node)]
        if isinstance(node, ScalarNode):
            made: Node = self._scalar(document, node) if "${" in node.value else node
        else:
            made = copy.copy(node)
        known[id(node)] = made
        if isinstance(node, MappingNode):
            made.value = [(key, self._filled(document, each, known)) for key, each in node.value]
        elif isinstance(node, SequenceNode):
            made.value = [self._filled(document, each, known) for each in node.value]
        return made

    def _scalar(self, document: Document, node: ScalarNode) -> ScalarNode:
        raw, text, behind = str(node.value), "", 0
        parts: list[Part] = []
        for match in _VARIABLE.finditer(raw):
            found = self._value(document, node, match)
            if found is None:
                continue
            given, definition = found
            text += raw[behind : match.start()]
            parts.append(Part(len(text), len(text) + len(given), match.start(), match.end(), definition))
            text, behind = text + given, match.end()
        return Substituted.of(node, text + raw[behind:], tuple(parts)) if parts else node

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
        own = Site(document, node, match.start(2), match.end(2))
        return default, Definition(name, own, lambda: ())


@remembered
def variables_of(tree: Tree, path: str) -> Variables | None:
    """The variables that Flux replaces in a file; None if it replaces none, or if several Kustomizations deploy it."""
    found = _kustomizations(tree)
    folder = posixpath.dirname(path)
    above = [each for each in found if within(path, each.folder)]
    exact = [each for each in above if each.folder]
    closest = exact or [each for each in found if leads_to(tree, each.folder, folder)] or above
    longest = max((len(each.folder) for each in closest), default=0)
    deploying = [each for each in closest if len(each.folder) == longest]
    return _defined(tree, deploying[0]) if len(deploying) == 1 else None


def uses(tree: Tree, name: str, site: Site) -> Iterator[tuple[str, int]]:
    """The files and lines in which the variable has this definition; a line for each time it is written."""
    for path in tree.grep(f"${{{name}"):
        around = variables_of(tree, path) if path.endswith((".yaml", ".yml")) else None
        defined = around.defined.get(name) if around is not None else None
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
        for path, root in _written(tree, "Kustomization")
        if value(root, "apiVersion").startswith(_GROUP)
    )


def _written(tree: Tree, kind: str) -> Iterator[tuple[str, Node]]:
    """The objects of a kind as written, without replaced variables."""
    for path in tree.grep(f"kind: {kind}"):
        if not path.endswith((".yaml", ".yml")):
            continue
        try:
            roots = Document(path, tree.read(path) or "").roots
        except InvalidYaml:
            continue
        yield from ((path, root) for root in roots if value(root, "kind") == kind)


def _defined(tree: Tree, kustomization: _Kustomization) -> Variables | None:
    build = find(kustomization.node, "spec", "postBuild")
    defined: dict[str, Site] = {}
    hidden: frozenset[str] | None = frozenset()
    for source in items(find(build, "substituteFrom")):
        kind, name = value(source, "kind"), value(source, "name")
        same = [each for each in _written(tree, kind) if value(each[1], "metadata", "name") == name]
        own = [each for each in same if within(each[0], posixpath.dirname(kustomization.path))]
        if len(own or same) != 1:
            hidden = None
            continue
        path, node = (own or same)[0]
        if kind == "ConfigMap":
            defined |= dict(_sites(tree, path, find(node, "data")))
        elif hidden is not None:
            hidden |= {str(key.value) for part in ("data", "stringData") for key, _ in entries(find(node, part))}
    defined |= dict(_sites(tree, kustomization.path, find(build, "substitute")))
    return Variables(tree, defined, hidden) if defined or entries(build) else None


def _sites(tree: Tree, path: str, node: Node | None) -> Iterator[tuple[str, Site]]:
    document = Document(path, tree.read(path) or "")
    for key, each in entries(node):
        if isinstance(each, ScalarNode):
            yield str(key.value), Site.whole(document, each)


def _is_disabled(root: Node) -> bool:
    return any(value(root, "metadata", key, _DISABLED) == "disabled" for key in ("labels", "annotations"))
