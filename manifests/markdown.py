"""Parse Markdown in a platform's documents: tables as rows, prose as blocks."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from manifests.tree import Tree


class Row(NamedTuple):
    """One row of a Markdown table: its line (from 0), its cells including spaces, and the column names."""

    line: int
    cells: tuple[str, ...]
    columns: tuple[str, ...]

    def cell(self, column: str) -> str:
        index = self.column(column)
        return self.cells[index].strip() if index is not None else ""

    def column(self, title: str) -> int | None:
        """The index of a column, by the first word of its title."""
        indices = (i for i, column_title in enumerate(self.columns) if column_title.lower().startswith(title.lower()))
        return next((i for i in indices if i < len(self.cells)), None)

    @property
    def subject(self) -> str:
        """The first cell without markup and links."""
        return re.sub(r"[`*\s]|\[|\].*", "", self.cells[0]) if self.cells else ""

    def names(self, name: str) -> bool:
        """Return whether the row describes this alias or application."""
        return self.subject == name

    def column_listing(self, name: str) -> int | None:
        """The index of the cell that contains only this name, or a list of names with it; None if there is no such cell."""
        return next((index for index, cell in enumerate(self.cells) if name in names_in_cell(cell)), None)

    def with_cells(self, cells: Mapping[int, str]) -> str:
        """The row with other cells. A padded table stays aligned if the new text fits."""
        out = []
        for index, old in enumerate(self.cells):
            new = cells.get(index)
            if new is None or new == old.strip():
                out.append(old)
            else:
                padded = len(old.rstrip()) + 1 < len(old)
                out.append(f" {new} ".ljust(len(old)) if padded else f" {new} ")
        return "|" + "|".join(out) + "|"


def names_in_cell(cell: str) -> tuple[str, ...]:
    """The names in a cell that contains only names: `a`, `b` and `c`; empty for a cell with other text."""
    parts = re.split(r"\s*(?:,|/|;|\+|<br ?/?>|\band\b)\s*", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell.strip()))
    bare = [re.sub(r"[`*_]{1,2}([\w.-]+)[`*_]{1,2}", r"\1", part.strip()) for part in parts if part.strip()]
    return tuple(bare) if bare and all(re.fullmatch(r"[\w.-]+", name) for name in bare) else ()


def edit_table(
    tree: Tree, path: str, name: str, edit: Callable[[Row, tuple[Row, ...]], Mapping[int, str | None]]
) -> dict[str, str]:
    """Change lines of the first table with a row for `name`: None deletes a line, text replaces it.

    A row with the name in its first cell takes precedence over a row with a list that contains it.
    """
    text = tree.read(path)
    if text is None:
        return {}
    all_tables = tables(text)
    for is_wanted_row in (lambda row: row.names(name), lambda row: row.column_listing(name) is not None):
        for rows in all_tables:
            row = next((candidate for candidate in rows if is_wanted_row(candidate)), None)
            if row is not None:
                return {path: "".join(_changed_lines(split_lines(text), edit(row, rows)))}
    return {}


def split_lines(text: str) -> list[str]:
    """The lines with their endings, which may differ within a file. Other Unicode line breaks do not count."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _changed_lines(lines: list[str], changed: Mapping[int, str | None]) -> Iterator[str]:
    """All lines with the changes applied; a replaced line keeps its line ending."""
    for number, line in enumerate(lines):
        new = changed.get(number, line)
        if number not in changed:
            yield line
        elif new is not None:
            bare = line.rstrip("\r\n")
            ending = line[len(bare) :]
            yield (ending or "\n").join(new.split("\n")) + ending


def tables(text: str) -> list[tuple[Row, ...]]:
    """The rows of each table, without the headers."""
    lines = [line.rstrip("\r\n") for line in split_lines(text)]
    all_tables: list[tuple[Row, ...]] = []
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    for number, line in enumerate([*lines, ""]):
        if re.fullmatch(r"\|[\s:|-]+\|\s*", line) and number:
            columns = tuple(cell.strip() for cell in _cells(lines[number - 1]))
        elif line.startswith("|") and columns:
            rows.append(Row(number, _cells(line), columns))
        elif not line.startswith("|"):
            if rows:
                all_tables.append(tuple(rows))
            columns, rows = (), []
    return all_tables


def _cells(line: str) -> tuple[str, ...]:
    return tuple(re.split(r"(?<!\\)\|", line.strip())[1:-1])


def blocks(lines: list[str]) -> list[list[str]]:
    """The lines in blocks: a list item or a paragraph with its continuation lines.

    A heading, a table row and a blank line are blocks of one line.
    """
    all_blocks: list[list[str]] = []
    for line in lines:
        begins = not line.strip() or re.match(r"\s*([-*+]|\d+\.)\s|#|\||\[\^", line)
        follows = all_blocks and all_blocks[-1][0].strip() and not re.match(r"#|\|", all_blocks[-1][0])
        if begins or not follows:
            all_blocks.append([line])
        else:
            all_blocks[-1].append(line)
    return all_blocks


def numbered_blocks(text: str) -> list[tuple[int, list[str]]]:
    """The blocks of a document, each with its first line, counted from 1."""
    result, line = [], 1
    for block in blocks(split_lines(text)):
        result.append((line, block))
        line += len(block)
    return result
