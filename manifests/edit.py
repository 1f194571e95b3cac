"""Edits of YAML files that leave every other byte alone.

ruamel.yaml parses the file and tells where each node stands; the edit itself is made in the text, at that position.
So comments, order, quotes and alignment survive by construction, and a diff holds the lines it is about.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.tree import ManifestError

_DEAREST = 0.01
"""Dollars a token: ten times what the dearest models have cost; whoever says more means a million of them."""


_MOST = 2_000_000
"""Nodes of one file. A manifest has some hundreds, a bundle of definitions a hundred thousand.

A few lines of aliases can stand for more than any memory holds.
"""


class InvalidYaml(ManifestError):
    """A file that does not parse: where (the line is counted from 1), and what the parser says."""

    remedy = "Correct the YAML at the line that is named."

    def __init__(self, path: str, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line} is not valid YAML: {problem}")
        self.path = path
        self.line = line
        self.problem = problem


class Edit(NamedTuple):
    """Replace the characters from `start` to `end` by `text`."""

    start: int
    end: int
    text: str


class Comment(NamedTuple):
    """The comment on one line: where its `#` stands, and whether it has the line to itself."""

    line: int
    column: int
    text: str
    alone: bool


class Flag(NamedTuple):
    """One command-line flag in a list of arguments, by its name with dashes (vLLM takes underscores as well).

    `value_node` differs from `node` in the form `--flag value`.
    """

    name: str
    value: str
    node: ScalarNode
    value_node: ScalarNode


class Document:
    """One YAML file: its text, and the nodes in it with their positions."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.lines = text.splitlines(keepends=True)

    @cached_property
    def roots(self) -> tuple[Node, ...]:
        """The root node of each YAML document in the file; InvalidYaml when it does not parse."""
        return _compose(self.path, self.text)

    def apply(self, edits: Sequence[Edit]) -> "Document":
        """The document with these edits, which must not overlap; the same one twice (by an anchor and its alias) is one."""
        if not edits:
            return self
        text = self.text
        for edit in sorted(set(edits), reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return Document(self.path, text)

    def offset(self, line: int) -> int:
        """Where a line (counted from 0) begins in the text."""
        return sum(len(each) for each in self.lines[:line])

    def set_value(self, node: ScalarNode, value: str, part: str | None = None) -> Edit:
        """Write a scalar (or only `part` of it, literally), keeping its quotes and the column of the comment after it."""
        start, end = node.start_mark.index, node.end_mark.index
        if start == end:  # a key without a value
            start = end = self.text.index(":", start) + 1
            return Edit(start, end, f" {written(value)}")
        if named := re.match(r"([&!]\S*\s+)+", self.text[start:end]):
            start += named.end()  # an anchor or a tag stands before the value, and stays
        old = self.text[start:end]
        if part is not None:
            new = old.replace(part, value)
        elif old.startswith("'"):
            new = "'" + value.replace("'", "''") + "'"
        else:
            new = written(value, quoted=old.startswith('"'))
        if "\n" in old:
            return Edit(start, end, new)
        gap = re.match(r"( +)#", self.text[end:])
        if not gap:
            return Edit(start, end, new)
        # One space is somebody's style, more are an alignment: keep the column while there is room for it.
        aligned = len(gap[1]) > 1
        spaces = max(1, len(gap[1]) - (len(new) - len(old))) if aligned else 1
        return Edit(start, end + len(gap[1]), new + " " * spaces)

    def delete_lines(self, first: int, last: int) -> Edit:
        """Delete the lines `first` to `last`, both included."""
        return Edit(self.offset(first), self.offset(last + 1), "")

    def insert_lines(self, before: int, text: str) -> Edit:
        """Insert whole lines before a line; past the end of the file, after its last one."""
        at = self.offset(before)
        lead = "\n" if before >= len(self.lines) and not self.text.endswith("\n") else ""
        if "\r\n" in self.text:
            text = re.sub(r"\r?\n", "\r\n", text)
        return Edit(at, at, lead + text)

    def comments(self) -> tuple[Comment, ...]:
        """Every comment of the file. A `#` inside a value (a script, a quoted string) is none."""
        inside = [
            (n.start_mark.index, n.end_mark.index) for n in scalars(self.roots) if n.style in ("'", '"', "|", ">")
        ]
        found = []
        at = 0
        for number, line in enumerate(self.lines):
            for match in re.finditer(r"(?:^|(?<=\s))#", line):
                index = at + match.start()
                if not any(start <= index < end for start, end in inside):
                    alone = not line[: match.start()].strip()
                    found.append(Comment(number, match.start(), line[match.start() :].rstrip("\r\n"), alone))
                    break
            at += len(line)
        return tuple(found)


def entries(node: Node | None) -> tuple[tuple[ScalarNode, Node], ...]:
    """The pairs of a mapping with scalar keys; none for any other node."""
    if not isinstance(node, MappingNode):
        return ()
    return tuple((key, value) for key, value in node.value if isinstance(key, ScalarNode))


def items(node: Node | None) -> tuple[Node, ...]:
    """The items of a sequence; none for any other node."""
    return tuple(node.value) if isinstance(node, SequenceNode) else ()


def find(node: Node | None, *path: str | int) -> Node | None:
    """The node at a path of keys and indices, or None."""
    for step in path:
        if isinstance(step, int):
            inside = items(node)
            node = inside[step] if step < len(inside) else None
        else:
            node = next((value for key, value in entries(node) if key.value == step), None)
    return node


def scalar(node: Node | None, *path: str | int) -> ScalarNode | None:
    """The scalar at a path, or None."""
    found = find(node, *path)
    return found if isinstance(found, ScalarNode) else None


def value(node: Node | None, *path: str | int) -> str:
    """The text of the scalar at a path, "" when there is none."""
    found = scalar(node, *path)
    return str(found.value) if found is not None else ""


def line(node: Node | None) -> int:
    """The line of a node, counted from 1 as people do; 1 when there is no node."""
    return node.start_mark.line + 1 if node is not None else 1


def scalars(nodes: Iterable[Node]) -> Iterator[ScalarNode]:
    """Every scalar value below these nodes, keys left out, in the order of the file."""
    for node in nodes:
        if isinstance(node, ScalarNode):
            yield node
        elif isinstance(node, SequenceNode):
            yield from scalars(node.value)
        elif isinstance(node, MappingNode):
            yield from scalars(value for _, value in node.value)


def flags(args: Node | None) -> tuple[Flag, ...]:
    """The flags of an argument list, whether written `--flag=value`, as two items, or bare."""
    found = []
    nodes = [node for node in items(args) if isinstance(node, ScalarNode)]
    for index, node in enumerate(nodes):
        text = str(node.value)
        if not text.startswith("--"):
            continue
        spelt, sign, given = text.partition("=")
        name = spelt.replace("_", "-")
        following = nodes[index + 1] if index + 1 < len(nodes) else None
        if not sign and following is not None and not str(following.value).startswith("--"):
            found.append(Flag(name, str(following.value), node, following))
        else:
            found.append(Flag(name, given, node, node))
    return tuple(found)


def decimal(number: str) -> str:
    """A number as YAML 1.1 and 1.2 both read it: `5e-07` would be a string to the older readers."""
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+|\d+(\.\d+)?[eE][+-]?\d{1,2}", number.strip()):
        raise ManifestError(f"{number!r} is not a price: give dollars per token, like 0.0000005")
    if float(number) >= _DEAREST:
        raise ManifestError(
            f"${number} a token is ${float(number) * 10**6:g} for a million: give dollars per token, like 0.0000005"
        )
    text = f"{float(number):.15f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


@lru_cache(maxsize=512)
def _compose(path: str, text: str) -> tuple[Node, ...]:
    """The nodes of a file. Nobody changes a node, so the same text is parsed once: parsing is what costs time here."""
    try:
        # Without the round trip's bookkeeping of comments: the nodes stand in the same places, and comments are ours.
        roots = tuple(YAML(typ="safe", pure=True).compose_all(text))
    except RecursionError as e:
        raise InvalidYaml(path, 1, "it is nested too deeply") from e
    except YAMLError as e:
        mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise InvalidYaml(path, mark.line + 1 if mark else 1, problem) from e
    if sum(_settled(root, {}) for root in roots) > _MOST:
        raise InvalidYaml(path, 1, "its aliases stand for too much, or for themselves")
    return roots


def _settled(node: Node, known: dict[int, int]) -> int:
    """How many nodes there are, those behind aliases as often as they are named; above `_MOST` for ever so many.

    On the way, a key without a value: the parser puts the value at whatever comes next, here it stands at its key.
    """
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MOST + 1  # as long as it is not known: what holds itself has no end
    inside: list[Node] = []
    if isinstance(node, SequenceNode):
        inside = node.value
    elif isinstance(node, MappingNode):
        for key, each in node.value:
            if each.start_mark.index == each.end_mark.index:
                each.start_mark = each.end_mark = key.end_mark
            inside.append(each)
    known[id(node)] = 1 + sum(_settled(each, known) for each in inside)
    return known[id(node)]


def written(text: str, *, quoted: bool = False) -> str:
    """A text as a YAML scalar, in quotes where it needs them (JSON's are YAML's) or where it should have them."""
    return json.dumps(text, ensure_ascii=False) if quoted or not _plain(text) else text


def _plain(text: str) -> bool:
    """Whether a value may stand without quotes: `on`, `n` or `null` would be no text to YAML 1.1."""
    if re.fullmatch(r"(?i)y|n|yes|no|on|off|true|false|null", text):
        return False
    return bool(re.fullmatch(r"[A-Za-z0-9_./-][^\s:#,\[\]{}'\"]*(:[^\s#,\[\]{}'\"]+)*", text)) and text.strip("-") != ""
