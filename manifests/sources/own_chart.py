"""A chart in the repository: its templates contain the workload, and its values the model.

`templates` renders them, so that each argument refers to its place in the values.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import accelerators
from manifests.arguments import Command, Flag, own_variables, read
from manifests.edit import Document, InvalidYaml, entries, find, items, scalar, value
from manifests.objects import Located
from manifests.sources import charts, kserve
from manifests.sources.candidate import Candidate
from manifests.sources.site import Site
from manifests.sources.templates import Place, Release, Rendered, render, templates_in
from manifests.tree import Tree

_ALWAYS_KEPT = frozenset({"--task", "--runner", "--embedding", "--embeddings", "--port"})
"""Arguments that describe the engine even if the template sets them."""
_POD_PATHS = {"InferenceService": ("spec", "predictor"), "LLMInferenceService": ("spec", "template")}
"""The path of the pod in a service of KServe."""
_SERVICE_SUFFIXES = {"InferenceService": "-predictor", "LLMInferenceService": "-kserve-workload-svc"}
"""The suffix in the name of the Service that KServe creates."""


class _Object(NamedTuple):
    """An object of a rendered template: `root` contains marks, `plain_root` the values."""

    rendering: Rendered
    document: Document
    root: Node
    plain_root: Node

    def object_name(self) -> str:
        return value(self.plain_root, "metadata", "name")


class _Engine(NamedTuple):
    """The workload, its containers with their values, and the arguments at their places in the values."""

    declared: _Object
    containers: tuple[Node, ...]
    command: Command


def candidates(
    tree: Tree, kind: str, located: Located, release: str, value_files: list[tuple[Document, MappingNode]], folder: str
) -> Iterator[Candidate]:
    """The engines that a chart creates from these values; a later file of `value_files` takes precedence."""
    if not charts.is_chart(tree, folder):
        return
    objects = tuple(_objects(tree, _release(tree, located, release, value_files, folder), folder))
    services = [declared.object_name() for declared in objects if value(declared.plain_root, "kind") == "Service"]
    chart_engines = [engine for declared in objects if (engine := _engine(declared, objects)) is not None]
    for (rendering, _, root, plain_root), containers, command in chart_engines:
        model = command.model
        if model is None or model.site is None or not isinstance(model.site.document, Document):
            continue
        document = model.site.document
        values = next(root for root in document.roots if isinstance(root, MappingNode))
        resources_holder = _with_resources(values, value_files)
        name, suffix = value(plain_root, "metadata", "name"), _SERVICE_SUFFIXES.get(value(plain_root, "kind"), "")
        yield Candidate(
            kind=kind,
            name=release if len(chart_engines) == 1 else name,
            workload=Located(document, values),
            subject=values,
            container=resources_holder,
            resources=next(
                (
                    document_of_values.path
                    for document_of_values, node in value_files
                    if node is resources_holder and node is not values
                ),
                "",
            ),
            command=_with_fixed_name(command, rendering.site(value(root, "metadata", "name"))),
            hosts=tuple(dict.fromkeys((name + suffix, name, *(services if len(chart_engines) == 1 else ()), release))),
            replicas=None if suffix == "-predictor" else rendering.site(value(root, "spec", "replicas")),
            deployment=name + suffix.removesuffix("-workload-svc"),
            operated_kind=value(plain_root, "kind") if suffix else "",
            files=(document.path,),
            application=located if kind == "Application" else None,
            namespace=charts.namespace(kind, located),
            gpus=max(_gpus(plain_root, container) for container in containers),
        )


def serves(tree: Tree, folder: str) -> bool:
    """Return whether a chart's templates contain a service of KServe."""
    texts = (tree.read(path) or "" for path in tree.files(f"{folder}/templates"))
    return any(re.search(r"^kind: (LLM)?InferenceService\b", text, re.MULTILINE) for text in texts)


def _objects(tree: Tree, full_release: Release, folder: str) -> Iterator[_Object]:
    for path in tree.files(f"{folder}/templates"):
        if not path.endswith((".yaml", ".yml")):
            continue
        for release in (
            full_release,
            replace(full_release, parts={}),
        ):  # without the chart's own templates if their syntax is unsupported
            rendering = render(tree.read(path) or "", release)
            document = Document(path, rendering.marked)
            try:
                marked, plain = document.roots, Document(path, rendering.plain).roots
            except InvalidYaml:
                continue
            yield from (_Object(rendering, document, *roots) for roots in zip(marked, plain, strict=False))
            break


def _release(
    tree: Tree, located: Located, name: str, value_files: list[tuple[Document, MappingNode]], folder: str
) -> Release:
    chart = Document(f"{folder}/Chart.yaml", tree.read(f"{folder}/Chart.yaml") or "")
    parameters = {
        value(item, "name"): Place(located.document, node)
        for source in charts.sources(located)
        for item in items(find(source, "helm", "parameters"))
        if (node := scalar(item, "value")) is not None
    }
    return Release(
        name=name,
        namespace=value(located.node, "spec", "destination", "namespace")
        or value(located.node, "metadata", "namespace"),
        chart=next((value(root, "name") for root in chart.roots), "") or posixpath.basename(folder),
        values=tuple(Place(document, root) for document, root in reversed(value_files)),
        parameters=parameters,
        parts={
            name: text
            for path in tree.files(f"{folder}/templates")
            for name, text in templates_in(tree.read(path) or "").items()
        },
    )


def _engine(declared: _Object, objects: tuple[_Object, ...]) -> _Engine | None:
    """The engine of a rendered workload or service of KServe."""
    template = _POD_PATHS.get(value(declared.plain_root, "kind"), ("spec", "template", "spec"))
    model = find(declared.root, "spec", "predictor", "model")
    if model is not None:
        return _kserve_engine(declared, model, objects)
    if value(declared.plain_root, "kind") == "ServingRuntime":
        return None
    pods = find(declared.root, *template), find(declared.plain_root, *template)
    for container, plain_container in zip(*(items(find(pod, "containers")) for pod in pods), strict=False):
        command = _command(declared, container, value(plain_container, "image"))
        uri = value(declared.root, "spec", "model", "uri")
        if command is not None:
            return _Engine(declared, (plain_container,), _with_weights(declared.rendering, uri, command))
    return None


def _kserve_engine(declared: _Object, model: Node, objects: tuple[_Object, ...]) -> _Engine | None:
    """The engine of an InferenceService, with its arguments and those of its runtime if the chart contains it."""
    plain_root = find(declared.plain_root, "spec", "predictor", "model")
    runtime, form = value(plain_root, "runtime"), value(plain_root, "modelFormat", "name")
    parts, containers, hint = (
        list[Command](),
        [plain_root or model],
        form if form == "huggingface" else f"{form} {runtime}",
    )
    for other in objects:
        container, plain_container = (
            find(other.root, "spec", "containers", 0),
            find(other.plain_root, "spec", "containers", 0),
        )
        if (
            value(other.plain_root, "kind") == "ServingRuntime"
            and other.object_name() == runtime
            and container
            and plain_container
        ):
            hint = value(plain_container, "image")
            containers.append(plain_container)
            parts += [command] if (command := _command(other, container, hint)) is not None else []
    parts += [command] if (command := _command(declared, model, hint)) is not None else []
    first_command = kserve.command_of_runtime(hint, form) if not parts else parts[0]
    command = Command(
        first_command.engine, tuple(flag for part in parts for flag in part.flags), first_command.description
    )
    command = _with_weights(declared.rendering, value(model, "storageUri"), command)
    return _Engine(declared, tuple(containers), command) if command.engine is not None else None


def _with_weights(rendering: Rendered, uri: str, command: Command) -> Command:
    """The command with the model that KServe downloads."""
    site = rendering.site(uri.removeprefix("hf://"))
    if site is None:
        return command
    return kserve.with_model(command, site.part(site.value[5:]) if site.value.startswith("hf://") else site)


def _with_fixed_name(command: Command, name: Site | None) -> Command:
    """The command without a place for the served name if the same value also names the object."""
    flags = tuple(
        replace(flag, sites=tuple(None if _is_at(site, name) else site for site in flag.sites))
        if flag.name == "--served-model-name"
        else flag
        for flag in command.flags
    )
    return Command(command.engine, flags, command.description)


def _is_at(site: Site | None, other_site: Site | None) -> bool:
    return site is not None and other_site is not None and site.node is other_site.node


def _command(declared: _Object, container: Node, image: str) -> Command | None:
    """The arguments of a container at their places in the values."""
    rendering, document = declared.rendering, declared.document
    variables = {
        name: rendering.site(str(site.node.value)) or site for name, site in own_variables(container, document).items()
    }
    command = read(container, document, {**variables, **rendering.variables()}, {}, image)
    if command is None:
        return None
    flags = [changed for flag in command.flags if (changed := _in_the_values(flag, document, rendering)) is not None]
    model = Command(command.engine, tuple(flags), command.description).model
    if model is not None and model.site is not None:
        # A served name that defaults to the model has no separate value.
        flags = [flag for flag in flags if flag is model or flag.site is None or flag.site.node is not model.site.node]
    return Command(command.engine, tuple(flags), command.description)


def _in_the_values(flag: Flag, document: Document, rendering: Rendered) -> Flag | None:
    """An argument with the places of its values; None if it is the same in every release of the chart."""
    origins = [rendering.origin(node) for node in flag.nodes]
    sites = tuple(
        (replace(origin, first=site.first, last=site.last) if (origin := rendering.origin(site.node)) else None)
        if site is not None and site.document is document
        else site
        for site in flag.sites
    )
    if all(origin is not None for origin in origins):
        nodes = tuple(origin.node for origin in origins if origin is not None)
        return replace(flag, nodes=nodes, sites=sites)
    if sites and all(site is not None for site in sites):
        nodes = tuple(site.node for site in sites if site is not None)
        return replace(flag, nodes=nodes, sites=sites, positional=True, carrier="variable")
    if flag.name not in _ALWAYS_KEPT and not any("HELM_" in text for text in flag.values):
        return None
    return replace(flag, sites=(None,) * len(flag.values), carrier="variable", positional=True)


def _with_resources(values: MappingNode, value_files: list[tuple[Document, MappingNode]]) -> MappingNode:
    """The values that set the container's resources: the file with the model, otherwise another file."""
    roots = [values, *(root for _, root in reversed(value_files))]
    return next((root for root in roots if find(root, "resources", "limits") is not None), values)


def _gpus(plain_root: Node, container: Node) -> int:
    limits = {
        str(key.value): str(quantity.value)
        for key, quantity in entries(find(container, "resources", "limits"))
        if isinstance(quantity, ScalarNode) and re.fullmatch(r"\d+", str(quantity.value))
    }
    return accelerators.gpus(limits) or int(
        value(plain_root, "spec", "template", "spec", "runtimeClassName") == "nvidia"
    )
