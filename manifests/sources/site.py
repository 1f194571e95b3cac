"""The place of an endpoint's value, independent of its encoding: a scalar, or a part of one."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from ruamel.yaml.nodes import ScalarNode

from manifests.edit import Document, Edit, Substituted, refuse_variables, yaml_scalar
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
    def origin(self) -> "Site":
        """The place to change: the definition of a variable if the value is one, or a part of one."""
        inside = self.variable
        if inside is None or inside.definition is None:
            return self
        site = inside.definition.site
        return Site(
            site.document, site.node, site.first + self.first - inside.first, site.first + self.last - inside.first
        )

    @property
    def variable(self) -> "Part | None":
        """The variable that the value comes from, if it comes from a single one."""
        parts: tuple[Part, ...] = self.node.parts if isinstance(self.node, Substituted) else ()
        return next((part for part in parts if part.first <= self.first < self.last <= part.last), None)

    @property
    def yaml_scalar(self) -> "Site":
        """The same place in the text of the file, in which the variables have no values; it ends where they end."""
        if not isinstance(self.node, Substituted):
            return self
        return Site(self.document, self.node.raw, self._raw(self.first), self._raw(self.last, end=True))

    def _raw(self, at: int, *, end: bool = False) -> int:
        """The position in the file's own text for one in the value."""
        shift = 0
        for each in self.node.parts if isinstance(self.node, Substituted) else ():
            if each.first < at < each.last or (at == each.last and end) or (at == each.first and not end):
                return int(each.last_raw if end else each.first_raw)
            if each.last <= at:
                shift = each.last_raw - each.last
        return at + shift

    @property
    def path(self) -> str:
        return self.origin.document.path

    @property
    def line(self) -> int:
        """Counted from 1; in a block of text, the line of the value."""
        if (origin := self.origin) is not self:
            return origin.line
        inside = str(self.node.value)[: self.first].count("\n")
        return int(self.node.start_mark.line) + inside + (2 if self.node.style in ("|", ">") else 1)

    def part(self, text: str, first: int = 0) -> "Site":
        """The place of a part of the value, searched from `first` characters on."""
        at = self.first + self.value.index(text, first)
        return Site(self.document, self.node, at, at + len(text))

    def write(self, text: str) -> Edit:
        """The edit that replaces this text and changes nothing else; a following comment keeps its column."""
        if (origin := self.origin) is not self:
            return origin.write(text)
        if isinstance(self.node, Substituted):
            refuse_variables(f"{self.path}:{self.line}", self.yaml_scalar.value, text, self.node.set_at)
            return self.yaml_scalar.write(text)
        refuse_variables(f"{self.path}:{self.line}", self.value, text)
        start, end = self.span
        if self.first or self.last < len(self.node.value) or self.node.style in ("|", ">"):
            if self.last == len(self.node.value) and self.node.style not in ("|", ">"):
                return self._aligned(start, end, text)
            return Edit(start, end, text)
        return self.document.set_value(self.node, text)

    def _aligned(self, start: int, end: int, text: str) -> Edit:
        quote = self.document.text[end : end + 1] if self.node.style in ("'", '"') else ""
        if not quote and yaml_scalar(str(self.node.value)[: self.first] + text).startswith('"'):
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
        if isinstance(self.node, Substituted):
            return self.yaml_scalar.span
        node, value = self.node, self.value
        raw = self.document.text[node.start_mark.index : node.end_mark.index]
        if not value:
            return int(node.end_mark.index), int(node.end_mark.index)
        before = str(node.value).count(value, 0, self.first) if value else 0
        if raw.count(value) != str(node.value).count(value):
            raise ManifestError(
                f"{self.path}:{self.line} writes {value} in a form that Stoker cannot change: change it by hand."
            )
        at = -1
        for _ in range(before + 1):
            at = raw.index(value, at + 1 if at < 0 else at + len(value))
        return int(node.start_mark.index) + at, int(node.start_mark.index) + at + len(value)


@dataclass(frozen=True)
class Definition:
    """The definition of a variable. `uses` are the files and lines that use the variable with this definition."""

    name: str
    site: Site
    uses: Callable[[], tuple[tuple[str, int], ...]]

    @property
    def place(self) -> str:
        return f"{self.site.path}:{self.site.line}"


class Part(NamedTuple):
    """A variable in a value: its characters in the value, and in the file; no definition for an escaped one."""

    first: int
    last: int
    first_raw: int
    last_raw: int
    definition: Definition | None


def refuse_shared(name: str, files: Collection[str], changing: Collection[Site]) -> None:
    """Refuse to change a variable that has other uses than those that change with it, which are in `files`."""
    defined = [
        (each, variable, variable.definition)
        for each in changing
        if (variable := each.variable) is not None and variable.definition is not None
    ]
    for _, _, definition in defined:
        uses = definition.uses()
        known = {
            (each.document.path, each.node.start_mark.index, variable.first)
            for each, variable, other in defined
            if other.place == definition.place
        }
        others = [f"{path}:{line}" for path, line in uses if path not in files]
        if others or len(uses) > len(known):
            places = ", ".join(others or [f"{path}:{line}" for path, line in uses])
            raise ManifestError(
                f"{definition.place} sets the variable ${{{definition.name}}} of {name}, which is used at {places} as well: "
                "change it by hand."
            )
