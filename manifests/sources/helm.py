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
from manifests.sources.configmaps import config_maps, generating_file, surroundings
from manifests.sources.site import Site
from manifests.sources.source import EndpointSource
from manifests.tree import Tree
from manifests.variables import variables_of


def candidates(tree: Tree, kind: str, located: Located) -> Iterator[Candidate]:
    release, has_candidates = _release(kind, located), False
    for document, values in _values(tree, kind, located):
        for candidate in (
            *_containers(tree, kind, located, document, values),
            *stack.models(kind, release, document, values, located),
        ):
            has_candidates = True
            yield candidate
    for folder in charts.folders(tree, kind, located) if not has_candidates else ():
        value_files = list(_values(tree, kind, located))
        for candidate in own_chart.candidates(tree, kind, located, release, value_files, folder):
            has_candidates = True
            yield candidate
    if not has_candidates and (command := _unsupported_command(tree, kind, located)) is not None:
        inline_values = find(located.node, "spec", "values")
        values = inline_values if isinstance(inline_values, MappingNode) else located.node
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
    """The containers in the values: for each controller, the first container that names a model."""
    release, has_many_controllers = _release(kind, located), _has_many_controllers(values)
    by_controller: dict[tuple[str, ...], tuple[MappingNode, Command, tuple[Located, ...]]] = {}
    for node in mappings(values):
        if not any(find(node, key) is not None for key in ("args", "command", "image")):
            continue
        keys = parent_keys(values, node)
        pod_context = surroundings(tree, document, None, node)
        command = read(node, document, pod_context.variables, pod_context.files)
        owner = _controller(keys)
        if command is None or "initContainers" in keys or _names_its_model(by_controller.get(owner)):
            continue
        if owner not in by_controller or command.model is not None:
            by_controller[owner] = (node, command, pod_context.configs)
    for owner, (node, command, configs) in by_controller.items():
        subject = find(values, *owner) if owner else values
        name = (
            object_name(release, owner[-1]) if owner and (has_many_controllers or len(by_controller) > 1) else release
        )
        replicas = next((scalar(subject, key) for key in ("replicas", "replicaCount") if scalar(subject, key)), None)
        yield Candidate(
            kind=kind,
            name=name,
            workload=Located(document, located.node),
            subject=subject or node,
            container=node,
            command=command,
            configs=configs,
            hosts=tuple(dict.fromkeys((*_services(values, release, owner), name, *_suffixed_names(release, owner)))),
            replicas=Site.whole(document, replicas) if replicas is not None else None,
            files=(document.path,),
            application=located if kind == "Application" else None,
            namespace=charts.namespace(kind, located),
        )


def _names_its_model(entry: tuple[MappingNode, Command, tuple[Located, ...]] | None) -> bool:
    return entry is not None and entry[1].model is not None


def _has_many_controllers(values: MappingNode) -> bool:
    """Return whether the generic chart creates several workloads; it names them after the release and the controller."""
    counts = [
        sum(value(controller, "enabled") != "false" for _, controller in entries(controllers))
        for node in mappings(values)
        if isinstance(controllers := find(node, "controllers"), MappingNode)
    ]
    return max(counts, default=0) > 1


def object_name(release: str, key: str) -> str:
    """The name of an object of app-template, which may create several objects (as in `determineResourceNameFromValues` in its library)."""
    return release if key == release or release.endswith(f"-{key}") else f"{release}-{key}"


def _suffixed_names(release: str, owner: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{release}-{owner[-1]}",) if owner else ()


def _services(values: MappingNode, release: str, owner: tuple[str, ...]) -> Iterator[str]:
    """The Services that the generic chart creates for a controller."""
    for node in mappings(values) if owner else ():
        services = [
            (str(key.value), value(service, "controller"))
            for key, service in entries(find(node, "service"))
            if value(service, "enabled") != "false" and find(node, "controllers", owner[-1]) is not None
        ]
        for key, controller in services:
            if controller == owner[-1] or (not controller and len(services) == 1):
                yield release if len(services) == 1 else object_name(release, key)


def _release(kind: str, located: Located) -> str:
    name = value(located.node, "spec", "releaseName") if kind == "HelmRelease" else ""
    for source in charts.sources(located) if kind == "Application" else ():
        name = name or value(source, "helm", "releaseName")
    return name or value(located.node, "metadata", "name")


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
        inline_values = find(source, "helm", "valuesObject")
        if isinstance(inline_values, MappingNode):
            yield located.document, inline_values
        text = find(source, "helm", "values")
        if isinstance(text, ScalarNode) and text.style == "|":
            for inner in located.document.inner:
                for root in inner.roots:
                    is_in_text = text.start_mark.index <= root.start_mark.index <= text.end_mark.index
                    if is_in_text and isinstance(root, MappingNode):
                        yield inner, root


def _values_from(tree: Tree, release: Located) -> Iterator[tuple[Document, MappingNode]]:
    """The values in ConfigMaps of the repository: their text, or the files from which a kustomization generates them."""
    for source in items(find(release.node, "spec", "valuesFrom")):
        name, key = value(source, "name"), value(source, "valuesKey") or "values.yaml"
        if value(source, "kind") != "ConfigMap" or value(source, "targetPath"):
            continue
        for config_map in config_maps(tree, name, release.document.path):
            text, path = scalar(config_map.node, "data", key), generating_file(config_map, name, key)
            documents = [config_map.document.inside(text)] if text is not None and text.style == "|" else []
            if path and (content := tree.read(path)) is not None:
                documents.append(Document(path, content, variables=variables_of(tree, path)))
            yield from (
                (document, root) for document in documents for root in document.roots if isinstance(root, MappingNode)
            )


def _controller(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of one workload's part of the values, `controllers.NAME` in the generic chart; empty if there is none."""
    for index, key in enumerate(keys):
        if key == "controllers" and index + 1 < len(keys):
            return keys[: index + 2]
    return ()


def _unsupported_command(tree: Tree, kind: str, located: Located) -> Command | None:
    """The engine of a chart that is listed but not changed: an engine's own chart, or a chart with unsupported templates."""
    chart_names = [
        value(located.node, "spec", "chart", "spec", "chart"),
        value(located.node, "spec", "chartRef", "name"),
        *(value(source, "chart") for source in charts.sources(located)),
    ]
    if kind == "Application":
        for source in charts.sources(located):
            chart_names += charts.dependencies(tree, value(source, "path"))
    for engine in engines.engines():
        if not engine.changes and engine.sign.search(" ".join(chart_names)):
            return Command(engine, ())
    serving = (folder for folder in charts.folders(tree, kind, located) if own_chart.serves(tree, folder))
    return next((Command(None, (), f"in the templates of {folder}") for folder in serving), None)


SOURCE = EndpointSource("helm", frozenset({"HelmRelease", "Application"}), candidates)
