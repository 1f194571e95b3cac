"""LiteLLM's configuration: its lists of models, recognised by their shape in any file.

`model_list` may be at any path of Helm values, in a file that another one includes, in an Argo CD Application, or in
the text of a ConfigMap. Prices are read from the same fields as in LiteLLM. Source: LiteLLM's proxy configuration
reference (docs.litellm.ai/docs/proxy/config_settings, /custom_pricing, /reliability).
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import cached_property
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.edit import Document, InvalidYaml, entries, find, items, scalar, scalars, value
from manifests.frozen import frozen
from manifests.memory import remembered
from manifests.objects import mappings
from manifests.snapshot import Snapshot
from manifests.tree import Tree

ENVIRON = "os.environ/"
_PARAMETER = re.compile(r"(?:^|\.)model_list\[(\d+)\]\.(.+)$")
_MAP, _STR = "tag:yaml.org,2002:map", "tag:yaml.org,2002:str"
Direction = Literal["input", "output"]

# Units of a price, the most common first (LiteLLM's `CustomPricingLiteLLMParams`).
_UNITS = (
    "token",
    "second",
    "character",
    "image",
    "pixel",
    "query",
    "audio_token",
    "audio_per_second",
    "video_per_second",
)
_EVERY_MODEL = frozenset({"*", "all-proxy-models", "all-team-models", "no-default-models"})
_FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
_ALLOW_LISTS = ("models", "allowed_models", "public_model_groups")


class Price(NamedTuple):
    """A price in the file: its key, like `input_cost_per_token`, and the node of its value."""

    key: str
    node: ScalarNode

    @property
    def is_per_token(self) -> bool:
        return self.key.endswith("_per_token")


@frozen
class Entry:
    """One entry of LiteLLM's `model_list`, with its lines (counted from 0) including its own comments."""

    document: Document
    node: MappingNode
    first: int
    last: int
    is_spread: bool = False
    """True if each value is a separate item of `helm.parameters`, so that new fields cannot be added."""

    @property
    def alias(self) -> str:
        return value(self.node, "model_name")

    @property
    def model(self) -> str:
        """The model to which LiteLLM sends requests, like `openai/qwen2.5-coder-1.5b`."""
        return self._param("model")

    @property
    def requested_model(self) -> str:
        """The model name in LiteLLM's requests to the engine."""
        return self.model.removeprefix(f"{self.provider}/") if self.provider else ""

    @property
    def provider(self) -> str:
        """LiteLLM's provider: `custom_llm_provider`, otherwise the prefix of the model; "" if there is none."""
        explicit_provider = value(self.node, "litellm_params", "custom_llm_provider")
        return explicit_provider or (self.model.partition("/")[0] if "/" in self.model else "")

    @property
    def api_base(self) -> str:
        """The address, with a variable or a credential resolved if it is in the same file."""
        return self._param("api_base") or self._param("base_url") or self._credential("api_base")

    @property
    def is_unresolved(self) -> bool:
        """True if the address is in a variable or a credential that is not in the same file."""
        credential = value(self.node, "litellm_params", "litellm_credential_name")
        return self.api_base.startswith(ENVIRON) or bool(credential and not self.api_base)

    @property
    def base_node(self) -> ScalarNode | None:
        """The node of the entry's own address; None if the address is missing or comes from a credential."""
        return scalar(self.node, "litellm_params", "api_base") or scalar(self.node, "litellm_params", "base_url")

    def _credential(self, key: str) -> str:
        """A value of the credential that the entry names (docs.litellm.ai/docs/proxy/ui_credentials)."""
        name = value(self.node, "litellm_params", "litellm_credential_name")
        credentials = (
            item
            for root in (self.document.roots if name else ())
            for config in mappings(root)
            for item in items(find(config, "credential_list"))
        )
        credential = next((item for item in credentials if value(item, "credential_name") == name), None)
        return value(credential, "credential_values", key)

    def _param(self, key: str) -> str:
        text = value(self.node, "litellm_params", key)
        if text.startswith(ENVIRON):
            return _variable(self.document, text.removeprefix(ENVIRON)) or text
        return text

    @cached_property
    def host(self) -> list[str]:
        """The labels of the host in `api_base`; one empty label if it is not a URL."""
        try:
            return (urlsplit(self.api_base).hostname or "").split(".")
        except ValueError:
            return [""]

    @property
    def text(self) -> str:
        return "".join(self.document.lines[self.first : self.last + 1])

    def price(self, direction: Direction) -> Price | None:
        """The price that LiteLLM uses: from `litellm_params`, otherwise from `model_info`.

        A price per token comes before a price in another unit.
        """
        for unit in _UNITS:
            for part in ("litellm_params", "model_info"):
                key = f"{direction}_cost_per_{unit}"
                if (node := scalar(self.node, part, key)) is not None:
                    return Price(key, node)
        return None

    def per_token(self, direction: Direction) -> str:
        """The price per token as in the file, or ""."""
        price = self.price(direction)
        return str(price.node.value) if price is not None and price.is_per_token else ""

    @property
    def is_load_balanced(self) -> bool:
        """True if the entry configures how it shares its alias with other entries."""
        keys = {key.value for part in ("litellm_params", "model_info") for key, _ in entries(find(self.node, part))}
        return bool(keys & {"order", "weight", "rpm", "tpm", "id"})

    def owns(self, node: Node) -> bool:
        """Return whether a node is in the entry's own lines, and not at an anchor elsewhere."""
        return self.first <= int(node.start_mark.line) <= self.last

    def through_gateway(self, endpoint: str, namespace: str) -> bool:
        """Return whether the entry points to another gateway, which routes by served name, and not to a model's Service."""
        labels = self.host
        return self.alias != endpoint and labels[0] != endpoint and labels[1:2] not in ([], [namespace])

    def reaches(self, service: str, *namespaces: str) -> bool:
        """Return whether the entry's host is this Service, by its short or full name."""
        labels = self.host
        return labels[0] == service and (labels[1:2] == [] or labels[1] in namespaces)


@frozen
class ModelList:
    """One `model_list` with the surrounding configuration, and its entries in file order."""

    document: Document
    config: MappingNode
    entries: tuple[Entry, ...]


class Reference(NamedTuple):
    """A setting of LiteLLM that refers to an alias, such as a fallback."""

    document: Document
    node: ScalarNode
    setting: str

    @property
    def name(self) -> str:
        return str(self.node.value)


@remembered
def model_lists(platform: Snapshot) -> tuple[ModelList, ...]:
    """The lists in the configured file and in the files that it includes; otherwise the lists in the whole repository.

    If several environments have a list, only the list of the layout's environment is used.
    """
    layout = platform.layout
    configured = _in_file(platform, layout.litellm_values)
    if configured:
        return configured
    paths = [path for path in platform.grep("model_list") if path.endswith((".yaml", ".yml"))]
    lists = {path: lists_of_file for path in paths if (lists_of_file := _in_file(platform, path, guessed=True))}
    paths_of_environment = {path for path in lists if layout.environment in re.split(r"[/.]", path)}
    return tuple(
        item
        for path, file_lists in lists.items()
        if not paths_of_environment or path in paths_of_environment
        for item in file_lists
    )


@remembered
def model_list(platform: Snapshot) -> tuple[Entry, ...]:
    """LiteLLM's entries, in file order."""
    return tuple(entry for models in model_lists(platform) for entry in models.entries)


def entries_of(document: Document) -> tuple[Entry, ...]:
    """The entries in one document (after an edit)."""
    return tuple(entry for models in _lists(document) for entry in models.entries)


def includes(platform: Snapshot) -> Iterator[tuple[Document, ScalarNode, str]]:
    """Each included file: the document and node that name it, and its path ("" if it is not in the repository)."""
    layout = platform.layout
    text = platform.read(layout.litellm_values)
    for document in _views(layout.litellm_values, text or ""):
        for root in document.roots:
            yield from ((document, node, path) for node, path in _included_files(platform, document, root))


def references(lists: Iterable[ModelList]) -> tuple[Reference, ...]:
    """Every setting outside the lists that refers to an alias."""
    all_references = []
    for models in lists:
        for settings in ("router_settings", "litellm_settings", "general_settings"):
            all_references += [
                Reference(models.document, *reference) for reference in _references_in(find(models.config, settings))
            ]
    return tuple(all_references)


def known_names(lists: Iterable[ModelList]) -> set[str]:
    """Names that a setting may refer to: aliases, aliases of aliases, access groups, and names for all models."""
    names = set(_EVERY_MODEL)
    for models in lists:
        for entry in models.entries:
            names |= {entry.alias, value(entry.node, "model_info", "id")}
            names |= {
                str(node.value)
                for node in items(find(entry.node, "model_info", "access_groups"))
                if isinstance(node, ScalarNode)
            }
        for settings in ("router_settings", "litellm_settings"):
            names |= {str(key.value) for key, _ in entries(find(models.config, settings, "model_group_alias"))}
    return names - {""}


def is_known(name: str, names: Iterable[str]) -> bool:
    """Return whether a name is one of `names`, or matches an alias with a wildcard such as `openai/*`."""
    return any(name == pattern or ("*" in pattern and pattern != "*" and fnmatch(name, pattern)) for pattern in names)


def _references_in(settings: Node | None) -> Iterator[tuple[ScalarNode, str]]:
    """Each name of an alias in LiteLLM's settings, with the name of the setting."""
    for key, setting_value in entries(settings):
        setting = str(key.value)
        if (nodes := _names_in_setting(setting, setting_value)) is not None:
            yield from ((node, setting) for node in nodes)
            continue
        for inner in (setting_value, *items(setting_value)):
            yield from _references_in(inner)


def _names_in_setting(setting: str, setting_value: Node) -> list[ScalarNode] | None:
    """The names of aliases in one setting; None for a setting that does not name aliases itself."""
    if setting in _FALLBACKS:
        pairs = [pair for item in items(setting_value) for pair in entries(item)]
        return [node for source, targets in pairs for node in (source, *_models(targets))]
    if setting == "model_group_alias":
        return [node for _, target in entries(setting_value) for node in _models(target)]
    if setting == "model_group_retry_policy":
        return [source for source, _ in entries(setting_value)]
    if setting == "default_fallbacks" or (setting in _ALLOW_LISTS and isinstance(setting_value, SequenceNode)):
        return list(_models(setting_value))
    if setting == "completion_model" and isinstance(setting_value, ScalarNode):
        return [setting_value]
    return None


def _models(node: Node | None) -> Iterator[ScalarNode]:
    """The names in a list of models, whose items may be mappings with the key `model`."""
    for item in items(node) or ((node,) if node is not None else ()):
        name_node = item if isinstance(item, ScalarNode) else scalar(item, "model")
        if name_node is not None:
            yield name_node


def _in_file(tree: Tree, path: str, *, guessed: bool = False) -> tuple[ModelList, ...]:
    text = tree.read(path)
    if text is None or not re.search(r"model_list|include", text):
        return ()
    try:
        lists = [models for document in _views(path, text) for models in _lists(document)]
        included = [
            included_path
            for document in _views(path, text)
            for root in document.roots
            for _, included_path in _included_files(tree, document, root)
            if included_path and included_path != path
        ]
    except InvalidYaml:
        if guessed or "{{" in text:
            return ()
        raise
    for included_path in dict.fromkeys(included):
        lists += [
            models for document in _views(included_path, tree.read(included_path) or "") for models in _lists(document)
        ]
    return tuple(lists)


def _views(path: str, text: str) -> tuple[Document, ...]:
    """A file, and the documents in its literal blocks."""
    document = Document(path, text)
    return (document, *document.inner) if re.search(r":\s*\|", text) else (document,)


def _included_files(tree: Tree, document: Document, root: Node) -> Iterator[tuple[ScalarNode, str]]:
    """The values of `include` next to a LiteLLM configuration, with the path of each included file.

    If the included file is a key of the same ConfigMap, the path is the path of `document`.
    """
    for config in mappings(root):
        names = items(find(config, "include"))
        if not names or not any(
            find(config, key) for key in ("model_list", "litellm_settings", "general_settings", "router_settings")
        ):
            continue
        for node in names:
            if not isinstance(node, ScalarNode):
                continue
            path = posixpath.normpath(posixpath.join(posixpath.dirname(document.path), node.value))
            base = posixpath.basename(node.value)
            same_map = re.search(rf"(?m)^\s*[\"']?{re.escape(base)}[\"']?:\s*\|", document.text)
            sibling_path = posixpath.join(posixpath.dirname(document.path), base)
            yield (
                node,
                document.path
                if same_map
                else next((candidate for candidate in (path, sibling_path) if tree.read(candidate) is not None), ""),
            )


def _lists(document: Document) -> Iterator[ModelList]:
    for root in document.roots:
        for config in mappings(root):
            nodes = [item for item in items(find(config, "model_list")) if isinstance(item, MappingNode)]
            named_nodes = [node for node in nodes if find(node, "model_name") is not None]
            if named_nodes:  # an entry without a name is reported as a separate finding
                model_entries = tuple(
                    Entry(document, node, node.start_mark.line, _last_line(document, node)) for node in named_nodes
                )
                yield ModelList(document, config, model_entries)
            if model_entries := tuple(_spread(document, config)):
                yield ModelList(document, config, model_entries)


def _spread(document: Document, helm: MappingNode) -> Iterator[Entry]:
    """The entries in `helm.parameters` of an Application (argo-cd.readthedocs.io/en/stable/user-guide/helm).

    Each value is one parameter whose name is its path, like `proxy_config.model_list[0].litellm_params.model`.
    """
    parts: dict[str, list[tuple[str, ScalarNode]]] = {}
    for item in items(find(helm, "parameters")):
        match = _PARAMETER.search(value(item, "name"))
        if match and (node := scalar(item, "value")) is not None:
            parts.setdefault(match[1], []).append((match[2], node))
    for fields in parts.values():
        nodes = [node for _, node in fields]
        entry = MappingNode(_MAP, _nested_pairs(fields), nodes[0].start_mark, nodes[-1].end_mark, flow_style=True)
        if value(entry, "model_name"):
            lines = [node.start_mark.line for node in nodes]
            yield Entry(document, entry, min(lines), max(lines), is_spread=True)


def _nested_pairs(fields: Iterable[tuple[str, ScalarNode]]) -> list[tuple[ScalarNode, Node]]:
    """The pairs of a mapping, from values with dotted keys."""
    pairs: list[tuple[ScalarNode, Node]] = []
    nested_fields: dict[str, list[tuple[str, ScalarNode]]] = {}
    for path, node in fields:
        key, dot, remaining_path = path.partition(".")
        if dot:
            nested_fields.setdefault(key, []).append((remaining_path, node))
        else:
            pairs.append((ScalarNode(_STR, key, node.start_mark, node.start_mark), node))
    for key, inner_fields in nested_fields.items():
        first, last = inner_fields[0][1], inner_fields[-1][1]
        mapping = MappingNode(_MAP, _nested_pairs(inner_fields), first.start_mark, last.end_mark, flow_style=True)
        pairs.append((ScalarNode(_STR, key, first.start_mark, first.start_mark), mapping))
    return pairs


def _variable(document: Document, name: str) -> str:
    """The value of an environment variable that the same file sets, as a key or as an item with `name` and `value`."""
    file_document = Document(document.path, document.text)
    for root in file_document.roots:
        for mapping in mappings(root):
            if value(mapping, "name") == name and scalar(mapping, "value") is not None:
                return value(mapping, "value")
            variable_value = next((node for key, node in entries(mapping) if key.value == name), None)
            if isinstance(variable_value, ScalarNode) and not variable_value.value.startswith(ENVIRON):
                return str(variable_value.value)
    return ""


def _last_line(document: Document, node: MappingNode) -> int:
    """The last line of a list item including its comments.

    Comment lines that are indented more than the item's dash belong to the item, the others to the next item. The
    content of YAML aliases is elsewhere in the file and does not count.
    """
    keys = (key for mapping in mappings(node) for key, _ in mapping.value)  # the value of the last key may be an alias
    last: int = max(
        node.end_mark.line if node.style in ("|", ">", "'", '"') else node.start_mark.line
        for node in (*scalars([node]), *keys)
        if node.start_mark.index <= node.start_mark.index <= node.end_mark.index
    )
    if node.flow_style:
        last = node.end_mark.line
    first = document.lines[node.start_mark.line]
    dash = first.index("-") if first.lstrip().startswith("-") else node.start_mark.column
    while last + 1 < len(document.lines):
        text = document.lines[last + 1]
        column = len(text) - len(text.lstrip(" "))
        if not text.lstrip(" ").startswith("#") or column <= dash:
            break
        last += 1
    return last
