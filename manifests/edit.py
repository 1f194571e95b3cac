"""Edits of YAML files that do not change any other byte.

ruamel.yaml parses the file and reports the position of each node; the edit is made in the text at that position. So
comments, order, quotes and alignment are preserved, and a diff contains only the edited lines.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol, Self, cast

from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.composing import compose
from manifests.tree import ManifestError

_HIGHEST_PRICE = 0.01
"""Highest plausible price in dollars per token (ten times the most expensive models); a higher value is probably per
million.
"""


_MAX_NODES = 2_000_000
"""Maximum number of nodes in one file. A manifest has some hundreds, a bundle of CRDs a hundred thousand.

Guards against alias bombs ("billion laughs").
"""


class InvalidYaml(ManifestError):
    """A file that does not parse, with the line (counted from 1) and the parser's message."""

    remedy = "Correct the YAML at the line in the message."

    def __init__(self, path: str, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line} is not valid YAML: {problem}")
        self.path = path
        self.line = line
        self.problem = problem


_VARIABLE = re.compile(r"\$\{[^}]*\}")
_HASH = re.compile(r"(?:^|(?<=\s))#")


def refuse_variables(place: str, old: str, new: str, set_by: str = "another place") -> None:
    """Refuse to overwrite a variable, such as a Flux variable (`postBuild`), because its value is set at another place."""
    variable = next((name for name in _VARIABLE.findall(old) if name not in new), "")
    if variable:
        raise ManifestError(f"{place} has the variable {variable}, which {set_by} sets: change it there by hand.")


class Substituted(ScalarNode):
    """A scalar with the values of its variables; `raw` is the text in the file, `parts` are the variables' places."""

    __slots__ = ("parts", "raw")
    raw: ScalarNode
    parts: tuple[Any, ...]

    @classmethod
    def of(cls, raw: ScalarNode, text: str, parts: tuple[Any, ...]) -> Self:
        substituted = cls(raw.tag, text, raw.start_mark, raw.end_mark, style=raw.style, anchor=raw.anchor)
        substituted.raw, substituted.parts = raw, parts
        return substituted

    @property
    def set_at(self) -> str:
        """The places that set its variables, as text for people."""
        places = (part.definition.place for part in self.parts if part.definition is not None)
        return " and ".join(dict.fromkeys(places)) or "another place"


class Resolver(Protocol):
    """Replaces variables in the nodes of a document with their values."""

    def resolve(self, document: "Document", roots: tuple[Node, ...]) -> tuple[Node, ...]: ...


class Edit(NamedTuple):
    """Replace the characters from `start` to `end` with `text`."""

    start: int
    end: int
    text: str


class Comment(NamedTuple):
    """A comment: the position of its `#`, and whether it is alone on its line."""

    line: int
    column: int
    text: str
    alone: bool


class Document:
    """One YAML file: its text, and its nodes with their positions.

    `window` (two offsets) makes it a document inside a file, such as the text of a ConfigMap: only that part is parsed,
    while positions and edits refer to the whole file. `variables` are the variables that the deployer replaces in the
    file.
    """

    def __init__(
        self, path: str, text: str, window: tuple[int, int] | None = None, variables: Resolver | None = None
    ) -> None:
        self.path = path
        self.text = text
        self.window = window
        self.variables = variables
        self.lines = text.splitlines(keepends=True)

    @cached_property
    def roots(self) -> tuple[Node, ...]:
        """The root node of each YAML document in the file; raises InvalidYaml if it does not parse."""
        roots = _compose(self.path, self._visible)
        return self.variables.resolve(self, roots) if self.variables and "${" in self._visible else roots

    @cached_property
    def _visible(self) -> str:
        """The text with everything outside the window replaced by blanks, so that positions stay valid."""
        if self.window is None:
            return self.text
        start, end = self.window
        return re.sub(r"[^\r\n]", " ", self.text[:start]) + self.text[start:end]

    @cached_property
    def inner(self) -> tuple["Document", ...]:
        """The documents in literal blocks (`key: |`) of this document that parse as YAML mappings."""
        blocks = [node for node in scalars(self.roots) if node.style == "|"]
        return tuple(document for node in blocks if _is_mapping(document := self.inside(node)))

    def inside(self, block: ScalarNode) -> "Document":
        """The document in a literal block (`key: |`)."""
        return Document(self.path, self.text, self._block(block), self.variables)

    def _block(self, node: ScalarNode) -> tuple[int, int]:
        """The offsets of the first and last line of a literal block."""
        first = last = node.start_mark.line + 1
        indent: int | None = None
        for number in range(first, len(self.lines)):
            text = self.lines[number].rstrip("\r\n")
            column = len(text) - len(text.lstrip(" "))
            if text.strip():
                indent = column if indent is None else indent
                if column < indent:
                    break
                last = number + 1
        return self.offset(first), self.offset(last)

    def apply(self, edits: Sequence[Edit]) -> "Document":
        """The document after these edits, which must not overlap.

        A repeated edit (through an anchor and its alias) is applied once.
        """
        if not edits:
            return self
        text, window = self.text, self.window
        for edit in sorted(set(edits), reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
            if window is not None:
                window = window[0], window[1] + len(edit.text) - (edit.end - edit.start)
        return Document(self.path, text, window)

    def offset(self, line: int) -> int:
        """The offset of a line (counted from 0)."""
        return sum(len(text) for text in self.lines[:line])

    def set_value(self, node: ScalarNode, value: str, part: str | None = None) -> Edit:
        """The edit that sets a scalar, or replaces only `part` of it; keeps its quotes and the column of a trailing comment."""
        if part is None:
            raw, place = (node.raw, node.set_at) if isinstance(node, Substituted) else (node, "another place")
            refuse_variables(f"{self.path}:{node.start_mark.line + 1}", str(raw.value), value, place)
        start, end = node.start_mark.index, node.end_mark.index
        if start == end:  # a key without a value
            start = end = self.text.index(":", start) + 1
            return Edit(start, end, f" {yaml_scalar(value)}")
        if prefix := re.match(r"([&!]\S*\s+)+", self.text[start:end]):
            start += prefix.end()  # keep an anchor or a tag before the value
        old = self.text[start:end]
        if part is not None:
            new = old.replace(part, value)
        elif old.startswith("'"):
            new = "'" + value.replace("'", "''") + "'"
        else:
            new = yaml_scalar(value, quoted=old.startswith('"'))
        if "\n" in old:
            return Edit(start, end, new)
        gap = re.match(r"( +)#", self.text[end:])
        if not gap:
            return Edit(start, end, new)
        # Two or more spaces mean that the comment is aligned: keep its column if it fits.
        aligned = len(gap[1]) > 1
        gap_width = max(1, len(gap[1]) - (len(new) - len(old))) if aligned else 1
        return Edit(start, end + len(gap[1]), new + " " * gap_width)

    def delete_lines(self, first: int, last: int) -> Edit:
        """The edit that deletes the lines `first` to `last` (inclusive)."""
        return Edit(self.offset(first), self.offset(last + 1), "")

    def insert_lines(self, before: int, text: str) -> Edit:
        """The edit that inserts whole lines before a line, or appends them if the line is past the end of the file."""
        offset = self.offset(before)
        line_break = "\n" if before >= len(self.lines) and not self.text.endswith("\n") else ""
        if "\r\n" in self.text:
            text = re.sub(r"\r?\n", "\r\n", text)
        return Edit(offset, offset, line_break + text)

    def comments(self) -> tuple[Comment, ...]:
        """Every comment of the file. A `#` inside a value (a script, a quoted string) is not a comment."""
        value_ranges = [
            (node.start_mark.index, node.end_mark.index)
            for node in scalars(self.roots)
            if node.style in ("'", '"', "|", ">")
        ]
        all_comments = []
        offset = 0
        for number, line in enumerate(self._visible.splitlines(keepends=True)):
            for match in _HASH.finditer(line) if "#" in line else ():
                index = offset + match.start()
                if not any(start <= index < end for start, end in value_ranges):
                    alone = not line[: match.start()].strip()
                    all_comments.append(Comment(number, match.start(), line[match.start() :].rstrip("\r\n"), alone))
                    break
            offset += len(line)
        return tuple(all_comments)


def entries(node: Node | None) -> tuple[tuple[ScalarNode, Node], ...]:
    """The pairs of a mapping with scalar keys; empty for any other node."""
    if not isinstance(node, MappingNode):
        return ()
    return tuple((key, value) for key, value in node.value if isinstance(key, ScalarNode))


def items(node: Node | None) -> tuple[Node, ...]:
    """The items of a sequence; empty for any other node."""
    return tuple(node.value) if isinstance(node, SequenceNode) else ()


def find(node: Node | None, *path: str | int) -> Node | None:
    """The node at a path of keys and indices, or None."""
    for step in path:
        if isinstance(step, int):
            children = items(node)
            node = children[step] if step < len(children) else None
        else:
            node = _member(node, step)
    return node


def _member(node: Node | None, key: str) -> Node | None:
    """The value of a key of a mapping: its own value, otherwise a value from a merge key (`<<: *anchor`)."""
    if not isinstance(node, MappingNode):
        return None
    merged = None
    for name, child in node.value:
        if isinstance(name, ScalarNode):
            if name.value == key:
                return cast("Node", child)
            merged = merged or name.value == "<<"
    if not merged:
        return None
    values = (child for name, child in entries(node) if name.value == "<<")
    sources = (source for merged_value in values for source in (items(merged_value) or (merged_value,)))
    return next((inner for source in sources if (inner := _member(source, key)) is not None), None)


def scalar(node: Node | None, *path: str | int) -> ScalarNode | None:
    """The scalar at a path, or None."""
    inner = find(node, *path)
    return inner if isinstance(inner, ScalarNode) else None


def value(node: Node | None, *path: str | int) -> str:
    """The text of the scalar at a path, or ""."""
    inner = scalar(node, *path)
    return str(inner.value) if inner is not None else ""


def line(node: Node | None) -> int:
    """The line of a node, counted from 1; 1 if there is no node."""
    return node.start_mark.line + 1 if node is not None else 1


def scalars(nodes: Iterable[Node]) -> Iterator[ScalarNode]:
    """Every scalar value below these nodes, without keys, in file order."""
    for node in nodes:
        if isinstance(node, ScalarNode):
            yield node
        elif isinstance(node, SequenceNode):
            yield from scalars(node.value)
        elif isinstance(node, MappingNode):
            yield from scalars(value for _, value in node.value)


def decimal(number: str) -> str:
    """A number in a form that YAML 1.1 and 1.2 both read as a number: `5e-07` is a string in 1.1."""
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+|\d+(\.\d+)?[eE][+-]?\d{1,2}", number.strip()):
        raise ManifestError(f"{number!r} is not a price: use dollars per token, like 0.0000005")
    if float(number) >= _HIGHEST_PRICE:
        raise ManifestError(
            f"${number} per token is ${float(number) * 10**6:g} for a million: use dollars per token, like 0.0000005"
        )
    text = f"{float(number):.15f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


@lru_cache(maxsize=512)
def _compose(path: str, text: str) -> tuple[Node, ...]:
    """The nodes of a file. Parsing is slow, so the nodes are cached; they are never changed."""
    try:
        roots = tuple(compose(text))
    except RecursionError as e:
        raise InvalidYaml(path, 1, "it is nested too deeply") from e
    except YAMLError as e:
        mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise InvalidYaml(path, mark.line + 1 if mark else 1, problem) from e
    if sum(_expanded_size(root, {}) for root in roots) > _MAX_NODES:
        raise InvalidYaml(path, 1, "its aliases expand to too many nodes, or contain themselves")
    return roots


def _expanded_size(node: Node, sizes: dict[int, int]) -> int:
    """The number of nodes with aliases expanded; more than `_MAX_NODES` if an alias contains itself.

    Also corrects the position of a key's missing value: the parser places it at the next token, this function at the
    end of the key.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = _MAX_NODES + 1  # placeholder during the visit, to detect an alias that contains itself
    children: list[Node] = []
    if isinstance(node, SequenceNode):
        children = node.value
    elif isinstance(node, MappingNode):
        for key, child in node.value:
            if child.start_mark.index == child.end_mark.index:
                child.start_mark = child.end_mark = key.end_mark
            children.append(child)
    sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


def _is_mapping(document: Document) -> bool:
    try:
        return any(isinstance(root, MappingNode) for root in document.roots)
    except InvalidYaml:
        return False  # a script, a template


def yaml_scalar(text: str, *, quoted: bool = False) -> str:
    """A text as a YAML scalar, quoted if necessary (JSON strings are valid YAML) or requested."""
    return json.dumps(text, ensure_ascii=False) if quoted or not _is_plain(text) else text


def _is_plain(text: str) -> bool:
    """Return whether a value can be written without quotes: YAML 1.1 reads `on`, `n` and `null` as other types."""
    if re.fullmatch(r"(?i)y|n|yes|no|on|off|true|false|null", text):
        return False
    return bool(re.fullmatch(r"[A-Za-z0-9_./-][^\s:#,\[\]{}'\"]*(:[^\s#,\[\]{}'\"]+)*", text)) and text.strip("-") != ""
