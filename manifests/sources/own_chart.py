"""A chart in the repository: its templates contain the workload, and its values the model.

`templates` renders them, so that an argument leads to the place in the values that people edit.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import accelerators
from manifests.arguments import Command, Flag, own_variables, read
from manifests.edit import Document, InvalidYaml, entries, find, items, scalar, value
from manifests.objects import Located
from manifests.sources import charts
from manifests.sources.candidate import Candidate
from manifests.sources.templates import Place, Release, Rendered, rendered
from manifests.tree import Tree

_KEPT = frozenset({"--task", "--runner", "--embedding", "--embeddings", "--port"})
"""Arguments that describe the engine also if they are in the template."""


def candidates(
    tree: Tree, kind: str, located: Located, release: str, given: list[tuple[Document, MappingNode]], folder: str
) -> Iterator[Candidate]:
    """The engines that a chart makes of these values, those that take precedence last."""
    if not charts.is_chart(tree, folder):
        return
    known = _release(tree, located, release, given, folder)
    found, services = list[tuple[Node, Rendered, Node, Node, Command]](), list[str]()
    for path in tree.files(f"{folder}/templates"):
        if not path.endswith((".yaml", ".yml")):
            continue
        made = rendered(tree.read(path) or "", known)
        try:
            marked, plain = Document(path, made.marked).roots, Document(path, made.plain).roots
        except InvalidYaml:
            continue
        for root, shown in zip(marked, plain, strict=False):
            if value(shown, "kind") == "Service":
                services.append(value(shown, "metadata", "name"))
            found += _engines(Document(path, made.marked), made, root, shown)
    for root, made, shown, container, command in found:
        model = command.model
        if model is None or model.site is None or not isinstance(model.site.document, Document):
            continue
        document = model.site.document
        values = next(each for each in document.roots if isinstance(each, MappingNode))
        name = value(shown, "metadata", "name")
        yield Candidate(
            kind=kind,
            name=release if len(found) == 1 else name,
            workload=Located(document, values),
            subject=values,
            container=_with_resources(values, given),
            command=command,
            hosts=tuple(dict.fromkeys((name, *(services if len(found) == 1 else ()), release))),
            replicas=made.site(value(root, "spec", "replicas")),
            deployment=name,
            files=(document.path,),
            application=located if kind == "Application" else None,
            namespace=charts.namespace(kind, located),
            gpus=_gpus(shown, container),
        )


def _release(
    tree: Tree, located: Located, name: str, given: list[tuple[Document, MappingNode]], folder: str
) -> Release:
    chart = Document(f"{folder}/Chart.yaml", tree.read(f"{folder}/Chart.yaml") or "")
    parameters = {
        value(each, "name"): Place(located.document, node)
        for source in charts.sources(located)
        for each in items(find(source, "helm", "parameters"))
        if (node := scalar(each, "value")) is not None
    }
    return Release(
        name=name,
        namespace=value(located.node, "spec", "destination", "namespace")
        or value(located.node, "metadata", "namespace"),
        chart=next((value(root, "name") for root in chart.roots), "") or posixpath.basename(folder),
        values=tuple(Place(document, root) for document, root in reversed(given)),
        parameters=parameters,
    )


def _engines(
    document: Document, made: Rendered, root: Node, shown: Node
) -> Iterator[tuple[Node, Rendered, Node, Node, Command]]:
    """The engine of a rendered workload, with its arguments at their places in the values."""
    containers = items(find(root, "spec", "template", "spec", "containers"))
    plain = items(find(shown, "spec", "template", "spec", "containers"))
    for container, same in zip(containers, plain, strict=False):
        own = {
            name: made.site(str(site.node.value)) or site for name, site in own_variables(container, document).items()
        }
        command = read(container, document, {**own, **made.variables()}, {}, value(same, "image"))
        if command is None:
            continue
        flags = [each for flag in command.flags if (each := _in_the_values(flag, document, made)) is not None]
        found = Command(command.engine, tuple(flags), command.said)
        model = found.model
        if model is not None and model.site is not None:
            # A served name that defaults to the model is not a value of its own.
            flags = [
                each for each in flags if each is model or each.site is None or each.site.node is not model.site.node
            ]
        yield root, made, shown, same, Command(command.engine, tuple(flags), command.said)
        return


def _in_the_values(flag: Flag, document: Document, made: Rendered) -> Flag | None:
    """An argument with the places of its values; None for one that all releases of the chart have."""
    origins = [made.origin(node) for node in flag.nodes]
    sites = tuple(
        (replace(origin, first=site.first, last=site.last) if (origin := made.origin(site.node)) else None)
        if site is not None and site.document is document
        else site
        for site in flag.sites
    )
    if all(each is not None for each in origins):
        nodes = tuple(each.node for each in origins if each is not None)
        return replace(flag, nodes=nodes, sites=sites)
    if sites and all(each is not None for each in sites):
        nodes = tuple(each.node for each in sites if each is not None)
        return replace(flag, nodes=nodes, sites=sites, positional=True, carrier="variable")
    if flag.name not in _KEPT and not any("HELM_" in each for each in flag.values):
        return None
    return replace(flag, sites=(None,) * len(flag.values), carrier="variable", positional=True)


def _with_resources(values: MappingNode, given: list[tuple[Document, MappingNode]]) -> MappingNode:
    """The values that have the resources of the container: those with the model, otherwise the chart's."""
    wanted = [values, *(root for _, root in reversed(given))]
    return next((each for each in wanted if find(each, "resources", "limits") is not None), values)


def _gpus(shown: Node, container: Node) -> int:
    limits = {
        str(key.value): str(each.value)
        for key, each in entries(find(container, "resources", "limits"))
        if isinstance(each, ScalarNode) and re.fullmatch(r"\d+", str(each.value))
    }
    return accelerators.gpus(limits) or int(value(shown, "spec", "template", "spec", "runtimeClassName") == "nvidia")
