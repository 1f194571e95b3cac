"""A chart in the repository: its templates contain the workload, and its values the model.

`templates` renders them, so that an argument refers to the place in the values that people edit.
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
from manifests.sources.templates import Place, Release, Rendered, defined, rendered
from manifests.tree import Tree

_KEPT = frozenset({"--task", "--runner", "--embedding", "--embeddings", "--port"})
"""Arguments that describe the engine also if they are in the template."""
_TEMPLATES = {"InferenceService": ("spec", "predictor"), "LLMInferenceService": ("spec", "template")}
"""The path of the pod in a service of KServe."""
_OPERATED = {"InferenceService": "-predictor", "LLMInferenceService": "-kserve-workload-svc"}
"""The suffix that KServe adds to a name for the Service that it creates."""


class _Object(NamedTuple):
    """An object of a rendered template, with marks and with values."""

    made: Rendered
    document: Document
    root: Node
    shown: Node

    def named(self) -> str:
        return value(self.shown, "metadata", "name")


class _Engine(NamedTuple):
    """The workload, its containers with values, and the arguments at their places in the values."""

    of: _Object
    containers: tuple[Node, ...]
    command: Command


def candidates(
    tree: Tree, kind: str, located: Located, release: str, given: list[tuple[Document, MappingNode]], folder: str
) -> Iterator[Candidate]:
    """The engines that a chart creates from these values, those that take precedence last."""
    if not charts.is_chart(tree, folder):
        return
    objects = tuple(_objects(tree, _release(tree, located, release, given, folder), folder))
    services = [each.named() for each in objects if value(each.shown, "kind") == "Service"]
    found = [engine for each in objects if (engine := _engine(each, objects)) is not None]
    for (made, _, root, shown), containers, command in found:
        model = command.model
        if model is None or model.site is None or not isinstance(model.site.document, Document):
            continue
        document = model.site.document
        values = next(each for each in document.roots if isinstance(each, MappingNode))
        limited = _with_resources(values, given)
        name, operated = value(shown, "metadata", "name"), _OPERATED.get(value(shown, "kind"), "")
        yield Candidate(
            kind=kind,
            name=release if len(found) == 1 else name,
            workload=Located(document, values),
            subject=values,
            container=limited,
            resources=next((each.path for each, node in given if node is limited and node is not values), ""),
            command=_with_fixed_name(command, made.site(value(root, "metadata", "name"))),
            hosts=tuple(dict.fromkeys((name + operated, name, *(services if len(found) == 1 else ()), release))),
            replicas=None if operated == "-predictor" else made.site(value(root, "spec", "replicas")),
            deployment=name + operated.removesuffix("-workload-svc"),
            made=value(shown, "kind") if operated else "",
            files=(document.path,),
            application=located if kind == "Application" else None,
            namespace=charts.namespace(kind, located),
            gpus=max(_gpus(shown, container) for container in containers),
        )


def serves(tree: Tree, folder: str) -> bool:
    """Return whether a chart's templates have a service of KServe."""
    texts = (tree.read(path) or "" for path in tree.files(f"{folder}/templates"))
    return any(re.search(r"^kind: (LLM)?InferenceService\b", text, re.MULTILINE) for text in texts)


def _objects(tree: Tree, known: Release, folder: str) -> Iterator[_Object]:
    for path in tree.files(f"{folder}/templates"):
        if not path.endswith((".yaml", ".yml")):
            continue
        for release in (known, replace(known, parts={})):  # a part may contain what is not rendered
            made = rendered(tree.read(path) or "", release)
            document = Document(path, made.marked)
            try:
                marked, plain = document.roots, Document(path, made.plain).roots
            except InvalidYaml:
                continue
            yield from (_Object(made, document, *each) for each in zip(marked, plain, strict=False))
            break


def _release(
    tree: Tree, located: Located, name: str, given: list[tuple[Document, MappingNode]], folder: str
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
        values=tuple(Place(document, root) for document, root in reversed(given)),
        parameters=parameters,
        parts={
            name: text
            for path in tree.files(f"{folder}/templates")
            for name, text in defined(tree.read(path) or "").items()
        },
    )


def _engine(of: _Object, objects: tuple[_Object, ...]) -> _Engine | None:
    """The engine of a rendered workload or service of KServe."""
    template = _TEMPLATES.get(value(of.shown, "kind"), ("spec", "template", "spec"))
    model = find(of.root, "spec", "predictor", "model")
    if model is not None:
        return _of_kserve(of, model, objects)
    if value(of.shown, "kind") == "ServingRuntime":
        return None
    pods = find(of.root, *template), find(of.shown, *template)
    for container, same in zip(*(items(find(pod, "containers")) for pod in pods), strict=False):
        command = _command(of, container, value(same, "image"))
        uri = value(of.root, "spec", "model", "uri")
        if command is not None:
            return _Engine(of, (same,), _with_weights(of.made, uri, command))
    return None


def _of_kserve(of: _Object, model: Node, objects: tuple[_Object, ...]) -> _Engine | None:
    """An InferenceService: the arguments of its runtime, if the chart has it, and its own."""
    shown = find(of.shown, "spec", "predictor", "model")
    runtime, form = value(shown, "runtime"), value(shown, "modelFormat", "name")
    parts, containers, hint = list[Command](), [shown or model], form if form == "huggingface" else f"{form} {runtime}"
    for each in objects:
        container, same = find(each.root, "spec", "containers", 0), find(each.shown, "spec", "containers", 0)
        if value(each.shown, "kind") == "ServingRuntime" and each.named() == runtime and container and same:
            hint = value(same, "image")
            containers.append(same)
            parts += [found] if (found := _command(each, container, hint)) is not None else []
    parts += [found] if (found := _command(of, model, hint)) is not None else []
    whole = kserve.of_runtime(hint, form) if not parts else parts[0]
    command = Command(whole.engine, tuple(flag for part in parts for flag in part.flags), whole.said)
    command = _with_weights(of.made, value(model, "storageUri"), command)
    return _Engine(of, tuple(containers), command) if command.engine is not None else None


def _with_weights(made: Rendered, uri: str, command: Command) -> Command:
    """The command with the model that KServe downloads."""
    site = made.site(uri.removeprefix("hf://"))
    if site is None:
        return command
    return kserve.with_model(command, site.part(site.value[5:]) if site.value.startswith("hf://") else site)


def _with_fixed_name(command: Command, name: Site | None) -> Command:
    """The command, in which a served name is not changed if the same value names the object."""
    flags = tuple(
        replace(flag, sites=tuple(None if _is_at(site, name) else site for site in flag.sites))
        if flag.name == "--served-model-name"
        else flag
        for flag in command.flags
    )
    return Command(command.engine, flags, command.said)


def _is_at(site: Site | None, other: Site | None) -> bool:
    return site is not None and other is not None and site.node is other.node


def _command(of: _Object, container: Node, image: str) -> Command | None:
    """The arguments of a container at their places in the values."""
    made, document = of.made, of.document
    own = {name: made.site(str(site.node.value)) or site for name, site in own_variables(container, document).items()}
    command = read(container, document, {**own, **made.variables()}, {}, image)
    if command is None:
        return None
    flags = [each for flag in command.flags if (each := _in_the_values(flag, document, made)) is not None]
    model = Command(command.engine, tuple(flags), command.said).model
    if model is not None and model.site is not None:
        # A served name that defaults to the model is not a value of its own.
        flags = [each for each in flags if each is model or each.site is None or each.site.node is not model.site.node]
    return Command(command.engine, tuple(flags), command.said)


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
