"""The place of an endpoint's value, independent of the form of the file: a scalar, or a part of one."""

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from ruamel.yaml.nodes import ScalarNode

from manifests.edit import Document, Edit, Substituted, refuse_variables, yaml_scalar
from manifests.frozen import frozen
from manifests.tree import ManifestError


@frozen
class Site:
    """The characters `first` to `last` of a scalar's value: the whole value, the part after `--model=`, or a word of a script."""

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
        """The place to edit: if the value comes from a variable, the place of the variable's definition."""
        variable = self.variable
        if variable is None or variable.definition is None:
            return self
        site = variable.definition.site
        return Site(
            site.document, site.node, site.first + self.first - variable.first, site.first + self.last - variable.first
        )

    @property
    def variable(self) -> "Part | None":
        """The variable that the value comes from, if it comes from a single variable."""
        parts: tuple[Part, ...] = self.node.parts if isinstance(self.node, Substituted) else ()
        return next((part for part in parts if part.first <= self.first < self.last <= part.last), None)

    @property
    def unresolved(self) -> "Site":
        """The same place in the text of the file, before variables are replaced. It covers whole variables."""
        if not isinstance(self.node, Substituted):
            return self
        return Site(self.document, self.node.raw, self._raw(self.first), self._raw(self.last, end=True))

    def _raw(self, position: int, *, end: bool = False) -> int:
        """The position in the text of the file for a position in the value."""
        shift = 0
        for part in self.node.parts if isinstance(self.node, Substituted) else ():
            if (
                part.first < position < part.last
                or (position == part.last and end)
                or (position == part.first and not end)
            ):
                return int(part.last_raw if end else part.first_raw)
            if part.last <= position:
                shift = part.last_raw - part.last
        return position + shift

    @property
    def path(self) -> str:
        return self.origin.document.path

    @property
    def line(self) -> int:
        """The line in the file, counted from 1; in a literal block, the line of the value."""
        if (origin := self.origin) is not self:
            return origin.line
        lines_before = str(self.node.value)[: self.first].count("\n")
        return int(self.node.start_mark.line) + lines_before + (2 if self.node.style in ("|", ">") else 1)

    def part(self, text: str, first: int = 0) -> "Site":
        """The place of `text` in the value, searched after the first `first` characters."""
        start = self.first + self.value.index(text, first)
        return Site(self.document, self.node, start, start + len(text))

    def write(self, text: str) -> Edit:
        """The edit that replaces this text and changes nothing else; a following comment keeps its column."""
        if (origin := self.origin) is not self:
            return origin.write(text)
        if isinstance(self.node, Substituted):
            refuse_variables(f"{self.path}:{self.line}", self.unresolved.value, text, self.node.set_at)
            return self.unresolved.write(text)
        refuse_variables(f"{self.path}:{self.line}", self.value, text)
        start, end = self.span
        if self.first or self.last < len(self.node.value) or self.node.style in ("|", ">"):
            if self.last == len(self.node.value) and self.node.style not in ("|", ">"):
                return self._aligned_edit(start, end, text)
            return Edit(start, end, text)
        return self.document.set_value(self.node, text)

    def _aligned_edit(self, start: int, end: int, text: str) -> Edit:
        quote = self.document.text[end : end + 1] if self.node.style in ("'", '"') else ""
        if not quote and yaml_scalar(str(self.node.value)[: self.first] + text).startswith('"'):
            return self.document.set_value(self.node, str(self.node.value)[: self.first] + text)
        gap = re.match(r"( +)#", self.document.text[end + len(quote) :])
        if not gap:
            return Edit(start, end, text)
        aligned = len(gap[1]) > 1
        gap_width = max(1, len(gap[1]) - (len(text) - (end - start))) if aligned else 1
        return Edit(start, end + len(quote) + len(gap[1]), text + quote + " " * gap_width)

    @property
    def span(self) -> tuple[int, int]:
        """The position of the value in the file; raises ManifestError if the file contains it in another form (escapes)."""
        if isinstance(self.node, Substituted):
            return self.unresolved.span
        node, value = self.node, self.value
        raw = self.document.text[node.start_mark.index : node.end_mark.index]
        if not value:
            return int(node.end_mark.index), int(node.end_mark.index)
        occurrences_before = str(node.value).count(value, 0, self.first) if value else 0
        if raw.count(value) != str(node.value).count(value):
            raise ManifestError(
                f"{self.path}:{self.line} writes {value} in a form that Stoker cannot change: change it by hand."
            )
        offset = -1
        for _ in range(occurrences_before + 1):
            offset = raw.index(value, offset + 1 if offset < 0 else offset + len(value))
        return int(node.start_mark.index) + offset, int(node.start_mark.index) + offset + len(value)


@frozen
class Definition:
    """The definition of a variable. `uses` are the files and lines that use the variable with this definition."""

    name: str
    site: Site
    uses: Callable[[], tuple[tuple[str, int], ...]]

    @property
    def place(self) -> str:
        return f"{self.site.path}:{self.site.line}"


class Part(NamedTuple):
    """A variable in a value: its characters in the value and in the file; an escaped variable has no definition."""

    first: int
    last: int
    first_raw: int
    last_raw: int
    definition: Definition | None


def refuse_shared(name: str, files: Collection[str], changing: Collection[Site]) -> None:
    """Refuse to change a variable that is also used outside `files`, or at places that do not change."""
    defined = [
        (site, variable, variable.definition)
        for site in changing
        if (variable := site.variable) is not None and variable.definition is not None
    ]
    for _, _, definition in defined:
        uses = definition.uses()
        changing_places = {
            (site.document.path, site.node.start_mark.index, variable.first)
            for site, variable, other_definition in defined
            if other_definition.place == definition.place
        }
        other_places = [f"{path}:{line}" for path, line in uses if path not in files]
        if other_places or len(uses) > len(changing_places):
            places = ", ".join(other_places or [f"{path}:{line}" for path, line in uses])
            raise ManifestError(
                f"{definition.place} sets the variable ${{{definition.name}}} of {name}, which is also used at {places}: "
                "change it by hand."
            )
