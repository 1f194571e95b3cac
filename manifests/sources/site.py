"""A place where a value of an endpoint stands, however it is encoded there: a scalar, or a part of one."""

import re
from dataclasses import dataclass

from ruamel.yaml.nodes import ScalarNode

from manifests.edit import Document, Edit, refuse_variables, written
from manifests.tree import ManifestError


@dataclass(frozen=True)
class Site:
    """The characters `first` to `last` of a scalar's value: all of it, what follows `--model=`, a word of a script."""

    document: Document
    node: ScalarNode
    first: int
    last: int

    @classmethod
    def whole(cls, document: Document, node: ScalarNode) -> "Site":
        return cls(document, node, 0, len(node.value))

    @property
    def value(self) -> str:
        return str(self.node.value)[self.first : self.last]

    @property
    def path(self) -> str:
        return self.document.path

    @property
    def line(self) -> int:
        """Counted from 1; in a block of text, the line of the value."""
        inside = str(self.node.value)[: self.first].count("\n")
        return int(self.node.start_mark.line) + inside + (2 if self.node.style in ("|", ">") else 1)

    def part(self, text: str, first: int = 0) -> "Site":
        """The place of a part of the value, searched from `first` characters on."""
        at = self.first + self.value.index(text, first)
        return Site(self.document, self.node, at, at + len(text))

    def write(self, text: str) -> Edit:
        """The edit that puts another text here and changes nothing else; the column of a comment behind it stays."""
        refuse_variables(f"{self.path}:{self.line}", self.value, text)
        start, end = self.span
        if self.first or self.last < len(self.node.value) or self.node.style in ("|", ">"):
            if self.last == len(self.node.value) and self.node.style not in ("|", ">"):
                return self._aligned(start, end, text)
            return Edit(start, end, text)
        return self.document.set_value(self.node, text)

    def _aligned(self, start: int, end: int, text: str) -> Edit:
        quote = self.document.text[end : end + 1] if self.node.style in ("'", '"') else ""
        if not quote and written(str(self.node.value)[: self.first] + text).startswith('"'):
            return self.document.set_value(self.node, str(self.node.value)[: self.first] + text)
        gap = re.match(r"( +)#", self.document.text[end + len(quote) :])
        if not gap:
            return Edit(start, end, text)
        aligned = len(gap[1]) > 1
        spaces = max(1, len(gap[1]) - (len(text) - (end - start))) if aligned else 1
        return Edit(start, end + len(quote) + len(gap[1]), text + quote + " " * spaces)

    @property
    def span(self) -> tuple[int, int]:
        """The position of the value in the file; raises ManifestError if the file has it in another form (escapes)."""
        node, value = self.node, self.value
        raw = self.document.text[node.start_mark.index : node.end_mark.index]
        if not value:
            return int(node.end_mark.index), int(node.end_mark.index)
        before = str(node.value).count(value, 0, self.first) if value else 0
        if raw.count(value) != str(node.value).count(value):
            raise ManifestError(
                f"{self.path}:{self.line} writes {value} in a way that cannot be changed in place: change it by hand."
            )
        at = -1
        for _ in range(before + 1):
            at = raw.index(value, at + 1 if at < 0 else at + len(value))
        return int(node.start_mark.index) + at, int(node.start_mark.index) + at + len(value)
