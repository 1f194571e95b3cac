"""Render the part of a chart's templates that describes a container, and record the place of each value.

This is not Helm. It supports paths into the values, `if`, `with`, `range`, `default`, `toYaml`, and `include` of the usual
names and of the chart's own parts. Anything else renders as nothing. Source: helm.sh/docs/chart_template_guide.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from textwrap import indent
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.edit import Document, entries, find, items
from manifests.frozen import frozen
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
"""One value: its places in the files. The first place takes precedence."""


@frozen
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
    """A rendered template. In `marked` each value of the release is a mark; `sites` are the places of the marks."""

    marked: str
    sites: tuple[Site, ...]

    @property
    def plain(self) -> str:
        return _MARK.sub(lambda match: self.sites[int(match[1])].value, self.marked)

    def variables(self) -> dict[str, Site]:
        """The places by the name of their mark, which looks like a variable of Kubernetes."""
        return {f"HELM_{index}": site for index, site in enumerate(self.sites)}

    def site(self, text: str) -> Site | None:
        """The place of the value for a text that is exactly one mark; otherwise None."""
        match = _MARK.fullmatch(text)
        return self.sites[int(match[1])] if match else None

    def origin(self, node: Node) -> Site | None:
        """The place in the values from which a rendered list item comes."""
        line = self.marked.splitlines()[node.start_mark.line]
        match = _ORIGIN.search(line)
        return self.sites[int(match[1])] if match else None


def templates_in(text: str) -> dict[str, str]:
    """The templates that a file defines, by name."""
    tokens, templates = list(_tokens(text)), dict[str, str]()
    for index, token in enumerate(tokens):
        if token.is_action and (match := re.match(r'define\s+"([^"]+)"', token.text)):
            _, start, end = _branches(tokens, index)[1][0]
            templates[match[1]] = "".join(
                f"{{{{{inner.text}}}}}" if inner.is_action else inner.text for inner in tokens[start:end]
            )
    return templates


def render(text: str, release: Release) -> Rendered:
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
    position, trims = 0, False
    for match in _ACTION.finditer(text):
        text_before = text[position : match.start()]
        text_before = text_before.lstrip() if trims else text_before
        yield _Token(text_before.rstrip() if match[1] else text_before, False)
        yield _Token(match[2], True)
        position, trims = match.end(), bool(match[3])
    yield _Token(text[position:].lstrip() if trims else text[position:], False)


_Scope = Mapping[str, Reference | str]


class _Writer:
    def __init__(self, release: Release) -> None:
        self.release = release
        self.out: list[str] = []
        self.sites: list[Site] = []
        self.functions: Mapping[str, Callable[[list[Reference | str]], Reference | str]] = {
            "default": lambda arguments: next((argument for argument in reversed(arguments) if _truth(argument)), ""),
            "coalesce": lambda arguments: next((argument for argument in arguments if _truth(argument)), ""),
            "required": lambda arguments: arguments[-1],
            "tpl": lambda arguments: arguments[0],
            "ternary": lambda arguments: arguments[0] if _truth(arguments[-1]) else arguments[1],
            "include": self._include,
            "printf": self._printf,
        }

    def block(self, tokens: list[_Token], first: int, last: int, scope: _Scope, dot: Reference | None) -> None:
        index = first
        while index < last:
            token = tokens[index]
            word = token.text.split(" ", 1)[0] if token.is_action else ""
            if word in ("if", "with", "range", "define", "block"):
                end, branches = _branches(tokens, index)
                self._control(word, token.text[len(word) :].strip(), tokens, branches, scope, dot)
                index = end + 1
                continue
            if not token.is_action:
                self.out.append(token.text)
            elif match := re.match(r"\$(\w+)\s*:?=\s*(.*)", token.text, re.DOTALL):
                scope = {**scope, match[1]: self.value(match[2], scope, dot)}
            elif not token.text.startswith("/*"):
                self._write(token.text, scope, dot)
            index += 1

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
        name, expression = "", condition
        if match := re.match(r"((?:\$\w+\s*,\s*)?\$\w+)\s*:=\s*(.*)", condition, re.DOTALL):
            name, expression = match[1], match[2]
        if word == "range":
            names = re.findall(r"\$(\w+)", name)
            for key, item_value in _iterate(self.value(expression, scope, dot)):
                new_names = dict(zip(names[-1:], [item_value], strict=False)) | (
                    {names[0]: key} if len(names) > 1 else {}
                )
                self.block(tokens, branches[0][1], branches[0][2], {**scope, **new_names}, item_value)
            return
        for index, (branch_condition, start, end) in enumerate(branches):
            test = expression if index == 0 else branch_condition
            if not test or self.truth(test, scope, dot):
                with_value = self.value(test, scope, dot) if word == "with" and index == 0 else None
                new_names = dict.fromkeys(re.findall(r"\$(\w+)", name), with_value) if with_value is not None else {}
                self.block(
                    tokens, start, end, {**scope, **new_names}, with_value if isinstance(with_value, tuple) else dot
                )
                return

    def truth(self, text: str, scope: _Scope, dot: Reference | None) -> bool:
        """Return whether a condition is true; an unsupported condition counts as true."""
        words = _WORD.findall(text)
        match words[0] if len(words) > 1 else "":
            case "not":
                return not self.truth(" ".join(words[1:]), scope, dot)
            case "and":
                return all(self.truth(word, scope, dot) for word in words[1:])
            case "or":
                return any(self.truth(word, scope, dot) for word in words[1:])
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
        result: Reference | str = ""
        for index, part in enumerate(re.split(r"\s*\|\s*", text.strip())):
            words = _WORD.findall(part)
            if not words:
                continue
            arguments = [self._term(word, scope, dot) for word in words[1:]]
            if index:
                arguments.append(result)
            elif len(words) == 1 and words[0] not in self.functions:
                result = self._term(words[0], scope, dot)
                continue
            if words[0] in self.functions:
                result = self.functions[words[0]](arguments) if arguments else ""
            elif arguments:  # functions like quote, toString, int, trim and nindent keep the value
                result = arguments[-1]
        return result

    def _term(self, word: str, scope: _Scope, dot: Reference | None) -> Reference | str:
        if word[:1] in '"`':
            return word[1:-1]
        if word.startswith("("):
            return self.value(word[1:-1], scope, dot)
        if not re.match(r"[.$]", word):
            return word
        base, _, path = word.partition(".")
        keys = [key for key in path.split(".") if key]
        if base == "$" or (base == "" and keys[:1] in (["Values"], ["Release"], ["Chart"])):
            return self._root(keys)
        start = scope.get(base[1:], "") if base else dot if dot is not None else self.release.values
        return _descend(start, keys) if isinstance(start, tuple) else start

    def _root(self, keys: list[str]) -> Reference | str:
        release = self.release
        match keys:
            case ["Values", *keys_below]:
                place = release.parameters.get(".".join(keys_below))
                return (place,) if place else _descend(release.values, keys_below)
            case ["Release", "Name"]:
                return release.name
            case ["Release", "Namespace"]:
                return release.namespace
            case ["Chart", "Name"]:
                return release.chart
        return ""

    def _include(self, arguments: list[Reference | str]) -> str:
        name = _text(arguments[0])
        chart_name = _text(_descend(self.release.values, ["nameOverride"])) or self.release.chart
        if name.endswith("fullname"):
            full_name = self.release.name if chart_name in self.release.name else f"{self.release.name}-{chart_name}"
            return _text(_descend(self.release.values, ["fullnameOverride"])) or full_name
        if name.endswith(".name"):
            return chart_name
        part = _Writer(
            replace(
                self.release,
                parts={part_name: text for part_name, text in self.release.parts.items() if part_name != name},
            )
        )
        part.sites = self.sites
        tokens = list(_tokens(self.release.parts.get(name, "")))
        part.block(
            tokens, 0, len(tokens), {}, arguments[1] if len(arguments) > 1 and isinstance(arguments[1], tuple) else None
        )
        return "".join(part.out).strip()

    def _printf(self, arguments: list[Reference | str]) -> str:
        texts = iter([self._mark(argument) if isinstance(argument, tuple) else argument for argument in arguments[1:]])
        return re.sub(r"%[a-z]", lambda _: next(texts, ""), _text(arguments[0]))

    def _write(self, text: str, scope: _Scope, dot: Reference | None) -> None:
        result = self.value(text, scope, dot)
        if "toYaml" in text and isinstance(result, tuple):
            width = next((int(number) for number in re.findall(r"n?indent (\d+)", text)), 0)
            line_break = "\n" if "nindent" in text else ""
            self.out.append(line_break + self._yaml(result, width))
        elif isinstance(result, str) and (match := re.search(r"(n?)indent (\d+)", text)):
            self.out.append(("\n" if match[1] and result else "") + indent(result, " " * int(match[2])))
        else:
            self.out.append(self._mark(result) if isinstance(result, tuple) else result)

    def _mark(self, reference: Reference) -> str:
        if not reference or not isinstance(reference[0].node, ScalarNode):
            return ""
        self.sites.append(Site.whole(reference[0].document, reference[0].node))
        return f"$(HELM_{len(self.sites) - 1})"

    def _yaml(self, reference: Reference, indent: int) -> str:
        """A part of the values as YAML, in which every scalar is a mark."""
        if not reference:
            return ""
        document, node = reference[0]
        prefix = " " * indent
        if isinstance(node, MappingNode):
            lines = []
            for key, child in entries(node):
                inner_yaml = self._yaml((Place(document, child),), indent + 2)
                lines.append(
                    f"{prefix}{json.dumps(str(key.value))}:"
                    + (f"\n{inner_yaml}" if "\n" in inner_yaml or inner_yaml.startswith(" ") else f" {inner_yaml}")
                )
            return "\n".join(lines)
        if isinstance(node, SequenceNode):
            parts = []
            for item in items(node):
                inner_yaml = self._yaml((Place(document, item),), indent + 2)
                parts.append(f"{prefix}- {inner_yaml.lstrip()}")
            return "\n".join(parts)
        return self._mark(reference)


def _branches(tokens: list[_Token], opening: int) -> tuple[int, list[tuple[str, int, int]]]:
    """The index of a block's `end`, and its branches: the condition, the first token, and the index after the last token."""
    depth, start, condition = 0, opening + 1, ""
    branches: list[tuple[str, int, int]] = []
    for index in range(opening + 1, len(tokens)):
        word, _, argument = tokens[index].text.partition(" ") if tokens[index].is_action else ("", "", "")
        if word in ("if", "with", "range", "define", "block"):
            depth += 1
        elif word == "end" and depth:
            depth -= 1
        elif word in ("end", "else") and not depth:
            branches.append((condition, start, index))
            start, condition = index + 1, argument.removeprefix("if ").strip()
            if word == "end":
                return index, branches
    return len(tokens) - 1, [*branches, (condition, start, len(tokens))]


def _iterate(reference: Reference | str) -> Iterator[tuple[str, Reference]]:
    if not isinstance(reference, tuple) or not reference:
        return
    document, node = reference[0]
    yield from ((str(index), (Place(document, item),)) for index, item in enumerate(items(node)))
    for key, _ in entries(node):
        yield str(key.value), _descend(reference, [str(key.value)])


def _descend(reference: Reference, keys: list[str]) -> Reference:
    for key in keys:
        reference = tuple(
            Place(place.document, inner) for place in reference if (inner := find(place.node, key)) is not None
        )
    return reference


def _text(reference: Reference | str) -> str:
    if isinstance(reference, str):
        return reference
    return str(reference[0].node.value) if reference and isinstance(reference[0].node, ScalarNode) else ""


def _truth(reference: Reference | str) -> bool:
    if isinstance(reference, str):
        return reference not in ("", "false", "0")
    if not reference:
        return False
    node = reference[0].node
    if isinstance(node, ScalarNode):
        return str(node.value) not in ("", "false", "0", "null", "~", "no")
    return bool(entries(node) or items(node))
