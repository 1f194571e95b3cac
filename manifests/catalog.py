"""The rows and words outside the manifests: the model catalog, the list of manual applications, the bring-up table.

A platform need not have any of them: a file or a table that is missing is left missing.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from manifests.pieces import Layout
from manifests.tree import Tree

_UNTESTED = re.compile(r"^\W*(pending|not (yet )?(run|evaluated|tested)|untested|tbd|todo|none)\b", re.IGNORECASE)


class Row(NamedTuple):
    """One row of a Markdown table: its line (from 0), its cells as written, and the names of the columns."""

    line: int
    cells: tuple[str, ...]
    columns: tuple[str, ...]

    def cell(self, column: str) -> str:
        index = self.column(column)
        return self.cells[index].strip() if index is not None else ""

    def column(self, title: str) -> int | None:
        """Where a column is, by the first word of its title."""
        found = (i for i, each in enumerate(self.columns) if each.lower().startswith(title.lower()))
        return next((i for i in found if i < len(self.cells)), None)

    def names(self, name: str) -> bool:
        """Whether the row is about this alias or application."""
        return bool(self.cells) and re.sub(r"[`*\s]|\[|\].*", "", self.cells[0]) == name

    def filled(self, cells: Mapping[int, str]) -> str:
        """The row with other cells; a padded table stays aligned while the new text has room."""
        out = []
        for index, old in enumerate(self.cells):
            new = cells.get(index)
            if new is None or new == old.strip():
                out.append(old)
            else:
                padded = len(old.rstrip()) + 1 < len(old)
                out.append(f" {new} ".ljust(len(old)) if padded else f" {new} ")
        return "|" + "|".join(out) + "|"


class CatalogRow(NamedTuple):
    """What the model catalog says of an endpoint."""

    model: str
    context: int | None
    price_in: str
    price_out: str


def add_row(tree: Tree, layout: Layout, like: str, alias: str, new: CatalogRow, old: CatalogRow) -> dict[str, str]:
    """The model catalog with a row for `alias` below the rows of the same table that end with the template's group."""
    return _edit_table(
        tree, layout.model_catalog, like, lambda row, rows: _after(row, _catalog_row(row, rows, new, old, alias))
    )


def change_row(tree: Tree, layout: Layout, alias: str, new: CatalogRow, old: CatalogRow) -> dict[str, str]:
    """The model catalog with the row of `alias` changed, and its evaluation to be done again."""
    return _edit_table(
        tree, layout.model_catalog, alias, lambda row, rows: {row.line: _catalog_row(row, rows, new, old)}
    )


def remove_row(tree: Tree, layout: Layout, alias: str) -> dict[str, str]:
    """The model catalog without the row of `alias`."""
    return _edit_table(tree, layout.model_catalog, alias, lambda row, _: {row.line: None})


def add_manual(tree: Tree, layout: Layout, like: str, name: str, reword: Callable[[str], str]) -> dict[str, str]:
    """The word list and the bring-up table with `name` after `like`, the application that it resembles."""

    def resembling(row: Row, _: tuple[Row, ...]) -> dict[int, str | None]:
        cells = {index: reword(cell.strip()) for index, cell in enumerate(row.cells)}
        cells[0] = row.cells[0].strip().replace(like, name)
        return _after(row, row.filled(cells))

    return _edit_words(tree, layout, lambda words: _insert_word(words, like, name)) | _edit_table(
        tree, layout.bring_up_guide, like, resembling
    )


def reword_manual(tree: Tree, layout: Layout, name: str, reword: Callable[[str], str]) -> dict[str, str]:
    """The bring-up table after a swap: the row of `name` made true."""

    def reworded(row: Row, _: tuple[Row, ...]) -> dict[int, str | None]:
        cells = {index: reword(cell.strip()) for index, cell in enumerate(row.cells) if index}
        return {row.line: row.filled(cells)}

    return _edit_table(tree, layout.bring_up_guide, name, reworded)


def remove_manual(tree: Tree, layout: Layout, name: str) -> dict[str, str]:
    """The word list and the bring-up table without `name`."""
    return _edit_words(tree, layout, lambda words: _delete_word(words, name)) | _edit_table(
        tree, layout.bring_up_guide, name, lambda row, _: {row.line: None}
    )


def manual_apps(tree: Tree, layout: Layout) -> tuple[int, tuple[str, ...]] | None:
    """The words of `manual_apps` and the line (from 1) on which the list begins; None when there is no such list."""
    text = tree.read(layout.wait_script)
    found = _WORD_LIST.search(text) if text else None
    if text is None or found is None:
        return None
    return text[: found.start()].count("\n") + 1, tuple(re.findall(r"[\w.-]+", found["words"]))


_WORD_LIST = re.compile(
    r"^\s*(?:readonly |local |declare [-\w]+ |export )?manual_apps=(?P<open>\(|\"|')(?P<words>[^)\"']*)", re.MULTILINE
)


def _edit_words(tree: Tree, layout: Layout, edit: Callable[[str], str]) -> dict[str, str]:
    text = tree.read(layout.wait_script)
    found = _WORD_LIST.search(text) if text else None
    if text is None or found is None:
        return {}
    start, end = found.span("words")
    new = text[:start] + edit(text[start:end]) + text[end:]
    return {layout.wait_script: new} if new != text else {}


def _insert_word(words: str, like: str, name: str) -> str:
    last = None
    for last in re.finditer(r"[\w.-]+", words):
        if last[0] == like:
            break
    if last is None:
        return name
    # One word a line is a style too: the new one gets the separator that stands before its neighbour.
    before = re.search(r"\\?\s+$", words[: last.start()])
    separator = before[0] if before and "\n" in before[0] else " "
    return words[: last.end()] + separator + name + words[last.end() :]


def _delete_word(words: str, name: str) -> str:
    word = rf"(?<![\w.-]){re.escape(name)}(?![\w.-])"
    new, count = re.subn(rf"(?:\s*\\\n)?\s+{word}", "", words, count=1)
    return new if count else re.sub(rf"{word}\s*", "", words, count=1)


def _edit_table(
    tree: Tree, path: str, name: str, edit: Callable[[Row, tuple[Row, ...]], Mapping[int, str | None]]
) -> dict[str, str]:
    """Change lines of the first table that has a row for `name`: None deletes a line, text replaces it."""
    text = tree.read(path)
    if text is None:
        return {}
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(ending)
    for rows in _tables(lines):
        row = next((each for each in rows if each.names(name)), None)
        if row is not None:
            changed = edit(row, rows)
            new = [changed.get(number, line) for number, line in enumerate(lines)]
            return {path: ending.join(part for line in new if line is not None for part in line.split("\n"))}
    return {}


def _tables(lines: list[str]) -> list[tuple[Row, ...]]:
    tables: list[tuple[Row, ...]] = []
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    for number, line in enumerate([*lines, ""]):
        if re.fullmatch(r"\|[\s:|-]+\|\s*", line) and number:
            columns = tuple(each.strip() for each in _cells(lines[number - 1]))
        elif line.startswith("|") and columns:
            rows.append(Row(number, _cells(line), columns))
        elif not line.startswith("|"):
            if rows:
                tables.append(tuple(rows))
            columns, rows = (), []
    return tables


def _cells(line: str) -> tuple[str, ...]:
    return tuple(re.split(r"(?<!\\)\|", line.strip())[1:-1])


def _after(row: Row, text: str) -> dict[int, str | None]:
    """The row as it is, with a new one below it."""
    return {row.line: "|" + "|".join(row.cells) + "|\n" + text}


def _catalog_row(row: Row, rows: tuple[Row, ...], new: CatalogRow, old: CatalogRow, alias: str | None = None) -> str:
    cells: dict[int, str] = {}

    def put(column: str, text: str) -> None:
        index = row.column(column)
        if index is not None:
            cells[index] = text

    if alias is not None:
        cells[0] = re.sub(r"[\w.-]+", alias, row.cells[0].strip(), count=1)
    put("model", _model_cell(row.cell("model"), new.model, old.model))
    if new.context is not None and (new.context != old.context or alias is not None):
        put("context", _context_cell(row.cell("context"), new.context))
    if (new.price_in, new.price_out) != (old.price_in, old.price_out):
        put("cost", _cost_cell(row.cell("cost"), new, old))
    put("eval", _untested(rows))
    return row.filled(cells)


def _model_cell(cell: str, new: str, old: str) -> str:
    short_old, short_new = old.rsplit("/", 1)[-1], new.rsplit("/", 1)[-1]
    if old in cell:
        return cell.replace(old, new)
    # A cell in other words (a size in brackets, a remark) speaks of the old model: only the name survives.
    return f"`{short_new}`" if cell.startswith("`") and short_old in cell else short_new if short_old in cell else new


def _context_cell(cell: str, context: int) -> str:
    if "," in cell:
        return f"{context:,}"
    if re.search(r"\d[kK]", cell) and context % 1024 == 0:
        return f"{context // 1024}{'K' if 'K' in cell else 'k'}"
    return str(context)


def _cost_cell(cell: str, new: CatalogRow, old: CatalogRow) -> str:
    if old.price_in in cell and old.price_out and old.price_out in cell:
        # One pass, since the new price for input may be the old one for output.
        prices = {old.price_out: new.price_out, old.price_in: new.price_in}
        return re.sub("|".join(map(re.escape, prices)), lambda match: prices[match[0]], cell)
    dollar = "$" if "$" in cell else ""
    return f"{dollar}{new.price_in} / {dollar}{new.price_out or '–'}"


def _untested(rows: tuple[Row, ...]) -> str:
    """How this table says that nobody has evaluated a model yet."""
    said = (row.cell("eval") for row in rows)
    return next((each for each in said if _UNTESTED.match(each)), "pending")
