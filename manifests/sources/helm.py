"""Values of an external chart: a HelmRelease of Flux, or an Application of Argo CD with `valuesObject` or `values`.

Charts have no common form, but containers have one: a mapping with `args` or `command`. Values with
another structure need a field map.
"""

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, ScalarNode

from manifests import engines
from manifests.arguments import Command, read
from manifests.edit import Document, entries, find, items, scalar, value
from manifests.objects import Located, mappings, parent_keys
from manifests.sources import charts, own_chart, stack
from manifests.sources.candidate import Candidate
from manifests.sources.configmaps import config_maps, generated_from, surroundings
from manifests.sources.site import Site
from manifests.sources.source import EndpointSource
from manifests.tree import Tree
from manifests.variables import variables_of


def candidates(tree: Tree, kind: str, located: Located) -> Iterator[Candidate]:
    release, found = _release(kind, located), False
    for document, values in _values(tree, kind, located):
        for each in (
            *_containers(tree, kind, located, document, values),
            *stack.models(kind, release, document, values, located),
        ):
            found = True
            yield each
    for folder in charts.folders(tree, kind, located) if not found else ():
        every = list(_values(tree, kind, located))
        for candidate in own_chart.candidates(tree, kind, located, release, every, folder):
            found = True
            yield candidate
    if not found and (command := _not_changed(tree, kind, located)) is not None:
        given = find(located.node, "spec", "values")
        values = given if isinstance(given, MappingNode) else located.node
        yield Candidate(
            kind=kind,
            name=release,
            workload=located,
            subject=values,
            container=values,
            command=command,
            hosts=(release,),
        )


def _containers(
    tree: Tree, kind: str, located: Located, document: Document, values: MappingNode
) -> Iterator[Candidate]:
    """The containers in the values: of each controller, the first one that names a model."""
    release, many = _release(kind, located), _has_many_controllers(values)
    seen: dict[tuple[str, ...], tuple[MappingNode, Command, tuple[Located, ...]]] = {}
    for node in mappings(values):
        if not any(find(node, key) is not None for key in ("args", "command", "image")):
            continue
        keys = parent_keys(values, node)
        around = surroundings(tree, document, None, node)
        command = read(node, document, around.variables, around.files)
        owner = _controller(keys)
        if command is None or "initContainers" in keys or _names_its_model(seen.get(owner)):
            continue
        if owner not in seen or command.model is not None:
            seen[owner] = (node, command, around.configs)
    for owner, (node, command, configs) in seen.items():
        subject = find(values, *owner) if owner else values
        name = named(release, owner[-1]) if owner and (many or len(seen) > 1) else release
        replicas = next((scalar(subject, key) for key in ("replicas", "replicaCount") if scalar(subject, key)), None)
        yield Candidate(
            kind=kind,
            name=name,
            workload=Located(document, located.node),
            subject=subject or node,
            container=node,
            command=command,
            configs=configs,
            hosts=tuple(dict.fromkeys((*_services(values, release, owner), name, *_suffixed(release, owner)))),
            replicas=Site.whole(document, replicas) if replicas is not None else None,
            files=(document.path,),
            application=located if kind == "Application" else None,
            namespace=charts.namespace(kind, located),
        )


def _names_its_model(found: tuple[MappingNode, Command, tuple[Located, ...]] | None) -> bool:
    return found is not None and found[1].model is not None


def _has_many_controllers(values: MappingNode) -> bool:
    """Return whether the generic chart makes several workloads, which it names after the release and the controller."""
    counts = [
        sum(value(each, "enabled") != "false" for _, each in entries(controllers))
        for node in mappings(values)
        if isinstance(controllers := find(node, "controllers"), MappingNode)
    ]
    return max(counts, default=0) > 1


def named(release: str, key: str) -> str:
    """The name of one of several objects of app-template's (`determineResourceNameFromValues` in its library)."""
    return release if key == release or release.endswith(f"-{key}") else f"{release}-{key}"


def _suffixed(release: str, owner: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{release}-{owner[-1]}",) if owner else ()


def _services(values: MappingNode, release: str, owner: tuple[str, ...]) -> Iterator[str]:
    """The Services that the generic chart makes for a controller."""
    for node in mappings(values) if owner else ():
        services = [
            (str(key.value), value(each, "controller"))
            for key, each in entries(find(node, "service"))
            if value(each, "enabled") != "false" and find(node, "controllers", owner[-1]) is not None
        ]
        for key, controller in services:
            if controller == owner[-1] or (not controller and len(services) == 1):
                yield release if len(services) == 1 else named(release, key)


def _release(kind: str, located: Located) -> str:
    named = value(located.node, "spec", "releaseName") if kind == "HelmRelease" else ""
    for source in charts.sources(located) if kind == "Application" else ():
        named = named or value(source, "helm", "releaseName")
    return named or value(located.node, "metadata", "name")


def _values(tree: Tree, kind: str, located: Located) -> Iterator[tuple[Document, MappingNode]]:
    if kind == "HelmRelease":
        for path in charts.files_of_release(tree, located):
            document = Document(path, tree.read(path) or "", variables=variables_of(tree, path))
            yield from ((document, root) for root in document.roots if isinstance(root, MappingNode))
        yield from _values_from(tree, located)
        node = find(located.node, "spec", "values")
        if isinstance(node, MappingNode):
            yield located.document, node
        return
    for source in charts.sources(located):
        for path in charts.value_files(tree, located, source):
            document = Document(path, tree.read(path) or "")
            yield from ((document, root) for root in document.roots if isinstance(root, MappingNode))
        given = find(source, "helm", "valuesObject")
        if isinstance(given, MappingNode):
            yield located.document, given
        text = find(source, "helm", "values")
        if isinstance(text, ScalarNode) and text.style == "|":
            for inner in located.document.inner:
                for root in inner.roots:
                    inside = text.start_mark.index <= root.start_mark.index <= text.end_mark.index
                    if inside and isinstance(root, MappingNode):
                        yield inner, root


def _values_from(tree: Tree, release: Located) -> Iterator[tuple[Document, MappingNode]]:
    """The values in ConfigMaps of the repository: their text, or the file from which a kustomization generates them."""
    for source in items(find(release.node, "spec", "valuesFrom")):
        name, key = value(source, "name"), value(source, "valuesKey") or "values.yaml"
        if value(source, "kind") != "ConfigMap" or value(source, "targetPath"):
            continue
        for found in config_maps(tree, name, release.document.path):
            text, path = scalar(found.node, "data", key), generated_from(found, name, key)
            made = [found.document.inside(text)] if text is not None and text.style == "|" else []
            if path and (content := tree.read(path)) is not None:
                made.append(Document(path, content, variables=variables_of(tree, path)))
            yield from ((each, root) for each in made for root in each.roots if isinstance(root, MappingNode))


def _controller(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that lead to the part of the values that is about one workload: `controllers.NAME` of the generic chart."""
    for index, key in enumerate(keys):
        if key == "controllers" and index + 1 < len(keys):
            return keys[: index + 2]
    return ()


def _not_changed(tree: Tree, kind: str, located: Located) -> Command | None:
    """The engine whose own chart this is, or a chart with a way of serving that Stoker does not read; it is listed and not changed."""
    named = [
        value(located.node, "spec", "chart", "spec", "chart"),
        value(located.node, "spec", "chartRef", "name"),
        *(value(source, "chart") for source in charts.sources(located)),
    ]
    if kind == "Application":
        for source in charts.sources(located):
            named += charts.dependencies(tree, value(source, "path"))
    for engine in engines.engines():
        if not engine.changes and engine.sign.search(" ".join(named)):
            return Command(engine, ())
    serving = (folder for folder in charts.folders(tree, kind, located) if own_chart.serves(tree, folder))
    return next((Command(None, (), f"in the templates of {each}") for each in serving), None)


SOURCE = EndpointSource("helm", frozenset({"HelmRelease", "Application"}), candidates)
