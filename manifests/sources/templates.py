"""Render the part of a chart's templates that describes a container, and record the place of each value.

This is not Helm: it supports paths into the values, `if`, `with`, `range`, `default`, `include` of the usual names and of
the chart's own parts, and `toYaml`. Anything else renders as nothing. Source: helm.sh/docs/chart_template_guide.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from textwrap import indent
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.edit import Document, entries, find, items
from manifests.sources.site import Site

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_MARK = re.compile(r"\$\(HELM_(\d+)\)")
_ITEM = re.compile(r"""^(\s*-\s+)["']?\$\(HELM_(\d+)\)["']?\s*$""")
_ORIGIN = re.compile(r"#HELM_(\d+)\s*$")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|\([^()]*\)|[^\s]+')


class Place(NamedTuple):
    """A node of the values, in its document."""

    document: Document
    node: Node


Reference = tuple[Place, ...]
"""One value: its places in the files, the one that takes precedence first."""


@dataclass(frozen=True)
class Release:
    """The context of a template: the values, and the names of the release and of its chart."""

    name: str
    namespace: str
    chart: str
    values: Reference
    parameters: Mapping[str, Place] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    """The templates that the chart defines, by name."""


class Rendered(NamedTuple):
    """A rendered template. A value of the release is a mark in `marked`; `sites` has the place of each mark."""

    marked: str
    sites: tuple[Site, ...]

    @property
    def plain(self) -> str:
        return _MARK.sub(lambda match: self.sites[int(match[1])].value, self.marked)

    def variables(self) -> dict[str, Site]:
        """The places by the name of their mark, which looks like a variable of Kubernetes."""
        return {f"HELM_{index}": site for index, site in enumerate(self.sites)}

    def site(self, text: str) -> Site | None:
        """The place of a text that is one mark."""
        match = _MARK.fullmatch(text)
        return self.sites[int(match[1])] if match else None

    def origin(self, node: Node) -> Site | None:
        """The position of an item of a list in the values."""
        line = self.marked.splitlines()[node.start_mark.line]
        match = _ORIGIN.search(line)
        return self.sites[int(match[1])] if match else None


def defined(text: str) -> dict[str, str]:
    """The templates that a file defines, by name."""
    tokens, found = list(_tokens(text)), dict[str, str]()
    for at, token in enumerate(tokens):
        if token.is_action and (match := re.match(r'define\s+"([^"]+)"', token.text)):
            _, start, end = _branches(tokens, at)[1][0]
            found[match[1]] = "".join(
                f"{{{{{each.text}}}}}" if each.is_action else each.text for each in tokens[start:end]
            )
    return found


def rendered(text: str, release: Release) -> Rendered:
    """A template with the values of a release."""
    writer = _Writer(release)
    tokens = list(_tokens(text))
    writer.block(tokens, 0, len(tokens), {}, None)
    lines = []
    for line in "".join(writer.out).splitlines():
        match = _ITEM.match(line)
        lines.append(f"{match[1]}{json.dumps(writer.sites[int(match[2])].value)} #HELM_{match[2]}" if match else line)
    return Rendered("\n".join(lines) + "\n", tuple(writer.sites))


class _Token(NamedTuple):
    text: str
    is_action: bool


def _tokens(text: str) -> Iterator[_Token]:
    at, trims = 0, False
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trims else before
        yield _Token(before.rstrip() if match[1] else before, False)
        yield _Token(match[2], True)
        at, trims = match.end(), bool(match[3])
    yield _Token(text[at:].lstrip() if trims else text[at:], False)


_Scope = Mapping[str, Reference | str]


class _Writer:
    def __init__(self, release: Release) -> None:
        self.release = release
        self.out: list[str] = []
        self.sites: list[Site] = []
        self.functions: Mapping[str, Callable[[list[Reference | str]], Reference | str]] = {
            "default": lambda given: next((each for each in reversed(given) if _truth(each)), ""),
            "coalesce": lambda given: next((each for each in given if _truth(each)), ""),
            "required": lambda given: given[-1],
            "tpl": lambda given: given[0],
            "ternary": lambda given: given[0] if _truth(given[-1]) else given[1],
            "include": self._include,
            "printf": self._printf,
        }

    def block(self, tokens: list[_Token], first: int, last: int, scope: _Scope, dot: Reference | None) -> None:
        at = first
        while at < last:
            token = tokens[at]
            word = token.text.split(" ", 1)[0] if token.is_action else ""
            if word in ("if", "with", "range", "define", "block"):
                end, branches = _branches(tokens, at)
                self._control(word, token.text[len(word) :].strip(), tokens, branches, scope, dot)
                at = end + 1
                continue
            if not token.is_action:
                self.out.append(token.text)
            elif match := re.match(r"\$(\w+)\s*:?=\s*(.*)", token.text, re.DOTALL):
                scope = {**scope, match[1]: self.value(match[2], scope, dot)}
            elif not token.text.startswith("/*"):
                self._write(token.text, scope, dot)
            at += 1

    def _control(
        self,
        word: str,
        condition: str,
        tokens: list[_Token],
        branches: list[tuple[str, int, int]],
        scope: _Scope,
        dot: Reference | None,
    ) -> None:
        if word in ("define", "block"):
            return
        name, given = "", condition
        if match := re.match(r"((?:\$\w+\s*,\s*)?\$\w+)\s*:=\s*(.*)", condition, re.DOTALL):
            name, given = match[1], match[2]
        if word == "range":
            names = re.findall(r"\$(\w+)", name)
            for key, each in _each(self.value(given, scope, dot)):
                bound = dict(zip(names[-1:], [each], strict=False)) | ({names[0]: key} if len(names) > 1 else {})
                self.block(tokens, branches[0][1], branches[0][2], {**scope, **bound}, each)
            return
        for index, (said, start, end) in enumerate(branches):
            test = given if index == 0 else said
            if not test or self.truth(test, scope, dot):
                found = self.value(test, scope, dot) if word == "with" and index == 0 else None
                bound = dict.fromkeys(re.findall(r"\$(\w+)", name), found) if found is not None else {}
                self.block(tokens, start, end, {**scope, **bound}, found if isinstance(found, tuple) else dot)
                return

    def truth(self, text: str, scope: _Scope, dot: Reference | None) -> bool:
        """Return whether a condition is true; an unsupported condition counts as true."""
        words = _WORD.findall(text)
        match words[0] if len(words) > 1 else "":
            case "not":
                return not self.truth(" ".join(words[1:]), scope, dot)
            case "and":
                return all(self.truth(each, scope, dot) for each in words[1:])
            case "or":
                return any(self.truth(each, scope, dot) for each in words[1:])
            case "eq" | "ne":
                texts = [_text(self.value(word, scope, dot)) for word in words[1:3]]
                return bool((texts[0] == texts[-1]) == (words[0] == "eq"))
        if text.startswith("(") and text.endswith(")"):
            return self.truth(text[1:-1], scope, dot)
        if re.match(r"[.$]", text) or "|" in text:
            return _truth(self.value(text, scope, dot))
        return True

    def value(self, text: str, scope: _Scope, dot: Reference | None) -> Reference | str:
        """The value of an expression: a reference to the values, or a text."""
        found: Reference | str = ""
        for index, part in enumerate(re.split(r"\s*\|\s*", text.strip())):
            words = _WORD.findall(part)
            if not words:
                continue
            given = [self._term(word, scope, dot) for word in words[1:]]
            if index:
                given.append(found)
            elif len(words) == 1 and words[0] not in self.functions:
                found = self._term(words[0], scope, dot)
                continue
            if words[0] in self.functions:
                found = self.functions[words[0]](given) if given else ""
            elif given:  # quote, toString, int, trim, nindent and the like keep the value
                found = given[-1]
        return found

    def _term(self, word: str, scope: _Scope, dot: Reference | None) -> Reference | str:
        if word[:1] in '"`':
            return word[1:-1]
        if word.startswith("("):
            return self.value(word[1:-1], scope, dot)
        if not re.match(r"[.$]", word):
            return word
        base, _, rest = word.partition(".")
        keys = [each for each in rest.split(".") if each]
        if base == "$" or (base == "" and keys[:1] in (["Values"], ["Release"], ["Chart"])):
            return self._root(keys)
        start = scope.get(base[1:], "") if base else dot if dot is not None else self.release.values
        return _below(start, keys) if isinstance(start, tuple) else start

    def _root(self, keys: list[str]) -> Reference | str:
        release = self.release
        match keys:
            case ["Values", *rest]:
                place = release.parameters.get(".".join(rest))
                return (place,) if place else _below(release.values, rest)
            case ["Release", "Name"]:
                return release.name
            case ["Release", "Namespace"]:
                return release.namespace
            case ["Chart", "Name"]:
                return release.chart
        return ""

    def _include(self, given: list[Reference | str]) -> str:
        name = _text(given[0])
        own = _text(_below(self.release.values, ["nameOverride"])) or self.release.chart
        if name.endswith("fullname"):
            whole = self.release.name if own in self.release.name else f"{self.release.name}-{own}"
            return _text(_below(self.release.values, ["fullnameOverride"])) or whole
        if name.endswith(".name"):
            return own
        part = _Writer(
            replace(self.release, parts={each: text for each, text in self.release.parts.items() if each != name})
        )
        part.sites = self.sites
        tokens = list(_tokens(self.release.parts.get(name, "")))
        part.block(tokens, 0, len(tokens), {}, given[1] if len(given) > 1 and isinstance(given[1], tuple) else None)
        return "".join(part.out).strip()

    def _printf(self, given: list[Reference | str]) -> str:
        texts = iter([self._mark(each) if isinstance(each, tuple) else each for each in given[1:]])
        return re.sub(r"%[a-z]", lambda _: next(texts, ""), _text(given[0]))

    def _write(self, text: str, scope: _Scope, dot: Reference | None) -> None:
        found = self.value(text, scope, dot)
        if "toYaml" in text and isinstance(found, tuple):
            width = next((int(each) for each in re.findall(r"n?indent (\d+)", text)), 0)
            lead = "\n" if "nindent" in text else ""
            self.out.append(lead + self._yaml(found, width))
        elif isinstance(found, str) and (match := re.search(r"(n?)indent (\d+)", text)):
            self.out.append(("\n" if match[1] and found else "") + indent(found, " " * int(match[2])))
        else:
            self.out.append(self._mark(found) if isinstance(found, tuple) else found)

    def _mark(self, found: Reference) -> str:
        if not found or not isinstance(found[0].node, ScalarNode):
            return ""
        self.sites.append(Site.whole(found[0].document, found[0].node))
        return f"$(HELM_{len(self.sites) - 1})"

    def _yaml(self, found: Reference, indent: int) -> str:
        """A part of the values as YAML, in which every scalar is a mark."""
        if not found:
            return ""
        document, node = found[0]
        lead = " " * indent
        if isinstance(node, MappingNode):
            lines = []
            for key, each in entries(node):
                inside = self._yaml((Place(document, each),), indent + 2)
                lines.append(
                    f"{lead}{json.dumps(str(key.value))}:"
                    + (f"\n{inside}" if "\n" in inside or inside.startswith(" ") else f" {inside}")
                )
            return "\n".join(lines)
        if isinstance(node, SequenceNode):
            parts = []
            for each in items(node):
                inside = self._yaml((Place(document, each),), indent + 2)
                parts.append(f"{lead}- {inside.lstrip()}")
            return "\n".join(parts)
        return self._mark(found)


def _branches(tokens: list[_Token], at: int) -> tuple[int, list[tuple[str, int, int]]]:
    """The end of a block, and its branches: the condition of each, its first token, and the one after its last."""
    depth, start, said = 0, at + 1, ""
    found: list[tuple[str, int, int]] = []
    for index in range(at + 1, len(tokens)):
        word, _, rest = tokens[index].text.partition(" ") if tokens[index].is_action else ("", "", "")
        if word in ("if", "with", "range", "define", "block"):
            depth += 1
        elif word == "end" and depth:
            depth -= 1
        elif word in ("end", "else") and not depth:
            found.append((said, start, index))
            start, said = index + 1, rest.removeprefix("if ").strip()
            if word == "end":
                return index, found
    return len(tokens) - 1, [*found, (said, start, len(tokens))]


def _each(found: Reference | str) -> Iterator[tuple[str, Reference]]:
    if not isinstance(found, tuple) or not found:
        return
    document, node = found[0]
    yield from ((str(index), (Place(document, each),)) for index, each in enumerate(items(node)))
    for key, _ in entries(node):
        yield str(key.value), _below(found, [str(key.value)])


def _below(found: Reference, keys: list[str]) -> Reference:
    for key in keys:
        found = tuple(Place(each.document, inside) for each in found if (inside := find(each.node, key)) is not None)
    return found


def _text(found: Reference | str) -> str:
    if isinstance(found, str):
        return found
    return str(found[0].node.value) if found and isinstance(found[0].node, ScalarNode) else ""


def _truth(found: Reference | str) -> bool:
    if isinstance(found, str):
        return found not in ("", "false", "0")
    if not found:
        return False
    node = found[0].node
    if isinstance(node, ScalarNode):
        return str(node.value) not in ("", "false", "0", "null", "~", "no")
    return bool(entries(node) or items(node))
