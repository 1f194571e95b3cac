"""Where the pieces of one endpoint are: the documents, and the nodes in them that must agree.

`contract` reads values from these nodes and compares them; `add`, `swap` and `remove` edit at their positions.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

from pydantic import BaseModel
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests.edit import Document, Flag, InvalidYaml, entries, find, flags, items, scalars, value
from manifests.tree import ManifestError, Tree

GPU = "nvidia.com/gpu"
MODEL_FLAGS = ("--model", "--model-id")  # vLLM's and TEI's


class Layout(BaseModel, frozen=True, extra="forbid"):
    """Where a platform repository keeps things. Every path is one platform's choice; these are the defaults."""

    environment: str = "ai-dev"
    branch: str = "main"
    namespace: str = "serving"
    group: str = "coding-assistant"
    template: str = "coder-chat"
    serving_dir: str = "serving"
    litellm_values: str = "platform/litellm/values.yaml"
    catalog_dir: str = "clusters/{environment}/catalog"
    model_catalog: str = "docs/public/reference/model-catalog.md"
    wait_script: str = "scripts/wait-profile.sh"
    bring_up_guide: str = "docs/public/guides/staged-bring-up.md"
    key_portal: str = "platform/key-portal/values.yaml"
    config: str = "environments/{environment}/config.yaml"
    groups_file: str = "clusters/{environment}/groups.generated.yaml"
    benchmarks_dir: str = "benchmarks"

    def path(self, template: str) -> str:
        """A path with the environment filled in."""
        return template.replace("{environment}", self.environment)

    def home(self, name: str) -> str:
        """The directory of an endpoint's manifests."""
        return f"{self.serving_dir}/{name}"

    def measurements(self, name: str) -> str:
        """The directory of an endpoint's benchmark reports."""
        return f"{self.benchmarks_dir}/{name}"


@dataclass(frozen=True)
class Located:
    """A node, or a whole object, with the document it stands in."""

    document: Document
    node: MappingNode


@dataclass(frozen=True)
class Entry:
    """One entry of LiteLLM's `model_list`, with its lines (counted from 0) up to the last comment that is its own."""

    document: Document
    node: MappingNode
    first: int
    last: int

    @property
    def alias(self) -> str:
        return value(self.node, "model_name")

    @property
    def model(self) -> str:
        """What LiteLLM sends to, like `openai/qwen2.5-coder-1.5b`."""
        return value(self.node, "litellm_params", "model")

    @property
    def api_base(self) -> str:
        return value(self.node, "litellm_params", "api_base")

    @property
    def host(self) -> list[str]:
        """The labels of the host in `api_base`; one empty label for what is no address."""
        try:
            return (urlsplit(self.api_base).hostname or "").split(".")
        except ValueError:
            return [""]

    @property
    def text(self) -> str:
        return "".join(self.document.lines[self.first : self.last + 1])

    def through_gateway(self, endpoint: str, namespace: str) -> bool:
        """Whether the entry leads to some gateway that routes on the served name, and not to a Service of models."""
        labels = self.host
        return self.alias != endpoint and labels[0] != endpoint and labels[1:2] not in ([], [namespace])

    def reaches(self, service: str, namespace: str) -> bool:
        """Whether the entry's host is this Service, by its short or its full name."""
        labels = self.host
        return labels[0] == service and labels[1:2] in ([], [namespace])


@dataclass(frozen=True)
class Pieces:
    """The pieces of one endpoint. What a repository lacks is None; reading the endpoint says what that means."""

    name: str
    deployment: Located
    container: MappingNode
    flags: tuple[Flag, ...]
    pvc: Located | None
    claims: tuple[Located, ...]
    service: Located | None
    application: Located | None
    entry: Entry | None
    files: tuple[str, ...]

    @property
    def model(self) -> Flag:
        return next(flag for flag in self.flags if flag.name in MODEL_FLAGS)

    def flag(self, name: str) -> Flag | None:
        return next((flag for flag in self.flags if flag.name == name), None)

    @property
    def gpu(self) -> bool:
        return bool(value(self.container, "resources", "limits", GPU))

    @property
    def staging(self) -> tuple[ScalarNode, ...]:
        """The parts of the initContainers' commands in which a model id may stand."""
        pod = find(self.deployment.node, "spec", "template", "spec")
        commands = [
            find(init, key) for init in items(find(pod, "initContainers")) for key in ("command", "args", "env")
        ]
        return tuple(scalars(node for node in commands if node is not None))


def locate(tree: Tree, layout: Layout, name: str) -> Pieces | None:
    """The pieces of the endpoint `name`, or None when its directory holds no Deployment that names a model."""
    files = tree.files(layout.home(name))
    found = [each for path in files for each in objects(tree, path)]
    engines = [(each, engine) for kind, each in found if kind == "Deployment" and (engine := _engine(each.node))]
    if len(engines) != 1:  # several engines that serve one model together are another shape
        return None
    ((deployment, engine),) = engines
    claimed = _claims(deployment.node)
    claims = tuple(each for kind, each in found if kind == "PersistentVolumeClaim")
    service = next((each for kind, each in found if kind == "Service"), None)
    arguments = flags(find(engine, "args")) or flags(find(engine, "command"))
    return Pieces(
        name=name,
        deployment=deployment,
        container=engine,
        flags=arguments,
        pvc=next((each for each in claims if value(each.node, "metadata", "name") in claimed), None),
        claims=claims,
        service=service,
        application=_application(tree, layout, name),
        entry=_entry(tree, layout, name, service, arguments),
        files=files,
    )


def names(tree: Tree, layout: Layout) -> tuple[str, ...]:
    """The directories in which endpoints may live."""
    depth = layout.serving_dir.count("/") + 1
    return tuple(sorted({path.split("/")[depth] for path in tree.files(layout.serving_dir) if path.count("/") > depth}))


def model_list(tree: Tree, layout: Layout) -> tuple[Entry, ...]:
    """LiteLLM's entries, in the order of the file."""
    text = tree.read(layout.litellm_values)
    if text is None:
        return ()
    document = Document(layout.litellm_values, text)
    nodes = items(find(document.roots[0], "proxy_config", "model_list")) if document.roots else ()
    return tuple(
        Entry(document, node, node.start_mark.line, _last_line(document, node))
        for node in nodes
        if isinstance(node, MappingNode)
    )


def applications(tree: Tree, layout: Layout) -> tuple[Located, ...]:
    """Every Argo CD Application of the catalog."""
    return tuple(
        located
        for path in tree.files(layout.path(layout.catalog_dir))
        for kind, located in objects(tree, path)
        if kind == "Application"
    )


def group_of(layout: Layout, path: str) -> str:
    """The group that an Application's file is in: its directory right below the catalog, "" for none."""
    inside = path.removeprefix(f"{layout.path(layout.catalog_dir)}/").split("/")
    return inside[0] if len(inside) > 1 else ""


def source_paths(application: Located) -> tuple[str, ...]:
    """The directories that an Application deploys, be it from one source or from several."""
    sources = [find(application.node, "spec", "source"), *items(find(application.node, "spec", "sources"))]
    paths = (value(each, "path").strip("/") for each in sources)
    return tuple(path.removeprefix("./") for path in paths if path)


def objects(tree: Tree, path: str) -> list[tuple[str, Located]]:
    """Every object of a YAML file, with its kind; none for any other file, a template of Helm's included."""
    text = tree.read(path) if path.endswith((".yaml", ".yml")) else None
    if text is None or not re.search(r"^\ufeff?kind:", text, re.MULTILINE):
        return []
    document = Document(path, text)
    try:
        roots = document.roots
    except InvalidYaml:
        if "{{" in text:
            return []
        raise
    return [(value(root, "kind"), Located(document, root)) for root in roots if isinstance(root, MappingNode)]


def kustomization(tree: Tree, pieces: Pieces) -> Located | None:
    """The endpoint's own kustomization, None where its directory has none."""
    found = (each for path in pieces.files for kind, each in objects(tree, path) if kind == "Kustomization")
    return next(found, None)


def environment(container: Node | None) -> dict[str, Node]:
    """The variables of a container, by name."""
    return {value(each, "name"): each for each in items(find(container, "env"))}


def labels(node: Node | None) -> dict[str, str]:
    """A mapping of scalars as a dict."""
    return {str(key.value): str(each.value) for key, each in entries(node) if isinstance(each, ScalarNode)}


def _claims(deployment: Node) -> set[str]:
    volumes = items(find(deployment, "spec", "template", "spec", "volumes"))
    return {claim for volume in volumes if (claim := value(volume, "persistentVolumeClaim", "claimName"))}


def _engine(deployment: Node) -> MappingNode | None:
    """The container that serves: the first whose arguments name a model."""
    for container in items(find(deployment, "spec", "template", "spec", "containers")):
        given = (*flags(find(container, "args")), *flags(find(container, "command")))
        named = any(flag.name in MODEL_FLAGS for flag in given)
        if named and isinstance(container, MappingNode):
            return container
    return None


def _application(tree: Tree, layout: Layout, name: str) -> Located | None:
    """The Application that says both name and path, else the one of this name, else one of this path."""

    def score(app: Located) -> int:
        named = value(app.node, "metadata", "name") == name
        return 2 * named + (layout.home(name) in source_paths(app))

    best = max(applications(tree, layout), key=score, default=None)
    return best if best is not None and score(best) else None


def _entry(tree: Tree, layout: Layout, name: str, service: Located | None, arguments: tuple[Flag, ...]) -> Entry | None:
    """The entry that leads to the Service, else the alias of this name, else one that a gateway routes by served name."""
    entries_ = model_list(tree, layout)
    host = value(service.node, "metadata", "name") if service else name
    served = next((each.value for each in arguments if each.name == "--served-model-name"), "")
    by_host = [each for each in entries_ if each.reaches(host, layout.namespace)]
    by_alias = [each for each in entries_ if each.alias == name]
    routed = [
        each
        for each in entries_
        if served and each.model.partition("/")[2] == served and each.through_gateway(name, layout.namespace)
    ]
    return next(iter([*by_host, *by_alias, *routed]), None)


def _last_line(document: Document, node: MappingNode) -> int:
    """The last line of a list item with the comments that hang on it.

    Comment lines as deep as the item's own dash, or less, speak of what follows; deeper ones continue the item.
    """
    last: int = max(
        (each.end_mark.line if each.style in ("|", ">") else each.start_mark.line) for each in scalars([node])
    )
    dash = document.lines[node.start_mark.line].index("-")
    while last + 1 < len(document.lines):
        text = document.lines[last + 1]
        column = len(text) - len(text.lstrip(" "))
        if not text.lstrip(" ").startswith("#") or column <= dash:
            break
        last += 1
    return last


def require(tree: Tree, layout: Layout, name: str) -> Pieces:
    """The pieces of an endpoint, or a sentence on why there are none."""
    there = names(tree, layout)
    pieces = locate(tree, layout, name) if name in there else None
    if pieces is not None:
        return pieces
    every = [each for each in there if locate(tree, layout, each)]
    known = ", ".join(every) or "none"
    if name in there:
        raise ManifestError(
            f"{layout.home(name)} is outside the contract: no Deployment there names a model (--model or --model-id), "
            f"so it has to be changed by hand. Endpoints that can be changed: {known}."
        )
    near = get_close_matches(name.lower(), every, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {known}."
    raise ManifestError(f"There is no endpoint {name!r} in {layout.serving_dir}. {hint}")
