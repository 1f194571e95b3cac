"""The rules for all manifests, regardless of endpoint: duplicate keys, secrets, the key portal."""

import re
from collections.abc import Collection, Iterator

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests import catalog
from manifests.edit import Document, InvalidYaml, entries, find, items, line, scalar, scalars, value
from manifests.gateway import is_known, known_names
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.rules.finding import Finding
from manifests.rules.gateway import is_secret

_NAMED_SECRET = re.compile(r"(^|_|-)(api[_-]?key|token|secret|password|passwd|private[_-]?key)$", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"^$|os\.environ/|[${<>}]|^(none|null|empty|unused|fake|dummy|placeholder|change-?me|x+$|\*+|true$|false$|\d+$)",
    re.IGNORECASE,
)


def check(platform: Platform, only: Pieces | None, awaited: Collection[str] = ()) -> Iterator[Finding]:
    """Report problems in the manifests that the check reads: in the manifests of one endpoint, or in all manifests.

    The `awaited` endpoints have no alias, which is reported as a separate finding.
    """
    for path in _paths(platform, only):
        text = platform.read(path)
        if text is None:
            continue
        document = Document(path, text)
        try:
            roots = document.roots
        except InvalidYaml:
            continue  # a template; files that must be YAML are reported by their reader
        for root in roots:
            yield from _duplicates(path, root)
            yield from _secrets(path, root)
    if only is None:
        yield from _portal(platform, awaited)


def _paths(platform: Platform, only: Pieces | None) -> tuple[str, ...]:
    layout = platform.layout
    paths: set[str] = set()
    for pieces in (only,) if only is not None else platform.endpoints():
        paths |= {*pieces.files, *(entry.document.path for entry in pieces.entries)}
        if pieces.application is not None:
            paths.add(pieces.application.document.path)
    if only is None:
        paths |= {
            *platform.files(layout.serving_dir),
            *platform.files(layout.path(layout.catalog_dir)),
            *(model_list.document.path for model_list in platform.model_lists()),
            layout.litellm_values,
            layout.key_portal,
            layout.path(layout.config),
            layout.path(layout.groups_file),
        }
    return tuple(sorted(path for path in paths if path.endswith((".yaml", ".yml"))))


def _duplicates(path: str, root: Node) -> Iterator[Finding]:
    """Report duplicate keys: a YAML parser keeps only the last of them, or refuses the file."""
    waiting, visited = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, SequenceNode):
            waiting += node.value
        if isinstance(node, MappingNode):
            lines: dict[str, int] = {}
            for key, inside in node.value:
                waiting.append(inside)
                name = str(key.value) if isinstance(key, ScalarNode) else ""
                if name in lines and name != "<<":
                    message = f"the key {name} is already in line {lines[name]}: only one of them counts"
                    yield Finding(
                        rule="duplicate-key", path=path, line=line(key), message=message, fix="remove one of them"
                    )
                elif name:
                    lines[name] = line(key)


def _secrets(path: str, root: Node) -> Iterator[Finding]:
    fix = "read the key from a Secret, and revoke this key"
    for text_node in scalars([root]):
        text = str(text_node.value)
        _, sign, assigned = text.partition("=")
        for candidate in (text, assigned if sign else ""):
            if is_secret(candidate) and "\n" not in candidate:
                yield Finding(
                    rule="secret-in-git",
                    path=path,
                    line=line(text_node),
                    message="a key is in plain text: everybody who can read the repository has it",
                    fix=fix,
                )
                break
    waiting = [root]
    while waiting:
        node = waiting.pop()
        name, given_value = scalar(node, "name"), scalar(node, "value")
        if name is not None and given_value is not None and is_named_secret(name.value, given_value.value):
            message = f"{name.value} is in plain text: everybody who can read the repository has it"
            yield Finding(rule="secret-in-git", path=path, line=line(given_value), message=message, fix=fix)
        waiting += [inside for _, inside in entries(node)] + list(items(node))
    if value(root, "kind") == "Secret" and find(root, "sops") is None:
        pairs = [pair for part in ("stringData", "data") for pair in entries(find(root, part))]
        for key, node in pairs:
            if isinstance(node, ScalarNode) and len(node.value) >= 8 and not _PLACEHOLDER.search(node.value):
                message = (
                    f"the key {key.value} of a Secret is in plain text: everybody who can read the repository has it"
                )
                yield Finding(rule="secret-in-git", path=path, line=line(node), message=message, fix=fix)


def is_named_secret(name: str, text: str) -> bool:
    """Return whether a setting of this name is a key, and the text is its plain value."""
    return bool(_NAMED_SECRET.search(name)) and len(text) >= 8 and not _PLACEHOLDER.search(text) and not is_secret(text)


def _portal(platform: Platform, awaited: Collection[str]) -> Iterator[Finding]:
    """Report aliases in the key portal that the gateway does not have, or that appear twice."""
    layout = platform.layout
    lists = platform.model_lists()
    if platform.read(layout.key_portal) is None or not lists:
        return
    aliases, offered = known_names(lists) | set(awaited), set[str]()
    for node in catalog.models_in_portal(platform):
        if not is_known(node.value, aliases):
            for entry in (
                candidate for listed in lists for candidate in listed.entries if candidate.host[0] == node.value
            ):
                message = f"{entry.alias} leads to {node.value}, but the key portal offers {node.value}"
                name = scalar(entry.node, "model_name")
                yield Finding(
                    rule="portal-alias",
                    path=entry.document.path,
                    line=line(name),
                    message=message,
                    fix=f"model_name: {node.value}, or the alias in the portal",
                )
            message = f"the key portal offers {node.value}, but LiteLLM has no such alias"
            yield Finding(
                rule="portal-alias",
                path=layout.key_portal,
                line=line(node),
                message=message,
                fix="remove it, or add the alias",
            )
        elif node.value in offered:
            message = f"the key portal offers {node.value} twice"
            yield Finding(
                rule="portal-alias", path=layout.key_portal, line=line(node), message=message, fix="remove one of them"
            )
        offered.add(node.value)
