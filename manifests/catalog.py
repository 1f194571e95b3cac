"""Edit documentation and lists outside the manifests: model catalog, list of manual applications, bring-up table.

All of them are optional: missing files and tables are not created.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from manifests.edit import Document, Edit, entries, items
from manifests.markdown import Row, blocks, edit_table, names_in_cell, split_lines
from manifests.platform import Platform
from manifests.tree import ManifestError, Tree
from manifests.wording import stem

Reword = Callable[[str], str]
"""Rewrites text for the new model; returns "" if nothing remains correct."""

_UNTESTED = re.compile(r"^\W*(pending|not (yet )?(run|evaluated|tested)|untested|tbd|todo|none)\b", re.IGNORECASE)


class CatalogRow(NamedTuple):
    """The catalog's cells for an endpoint."""

    model: str
    context: int | None
    price_in: str
    price_out: str


def add_row(
    platform: Platform, like: str, alias: str, new: CatalogRow, old: CatalogRow, reword: Reword
) -> dict[str, str]:
    """The model catalog with a row for `alias` below the template's row."""
    return edit_table(
        platform,
        platform.layout.model_catalog,
        like,
        lambda row, rows: _after(row, _catalog_row(row, rows, new, old, reword, alias)),
    )


def change_row(platform: Platform, alias: str, new: CatalogRow, old: CatalogRow, reword: Reword) -> dict[str, str]:
    """The model catalog after a swap of `alias`, with a new row, a reset evaluation and corrected notes."""
    return edit_table(
        platform,
        platform.layout.model_catalog,
        alias,
        lambda row, rows: {row.line: _catalog_row(row, rows, new, old, reword)},
    )


def remove_row(platform: Platform, alias: str) -> dict[str, str]:
    """The model catalog without the row of `alias`."""
    return edit_table(platform, platform.layout.model_catalog, alias, lambda row, _: {row.line: None})


def reword_notes(platform: Platform, alias: str, reword: Reword) -> dict[str, str]:
    """The model catalog with corrected notes about `alias` below its tables."""
    return _edit_notes(platform, alias, reword)


def reword_pages(
    tree: Tree, paths: Collection[str], names: Collection[str], renames: Mapping[str, str], reword: Reword
) -> dict[str, str]:
    """Pages other than the catalog, with every item, row and paragraph about the old model corrected.

    In code blocks only names are replaced. Text that would become empty is not changed, so a person can rewrite it.
    """
    pattern = re.compile(
        "|".join(rf"(?<![\w./-]){re.escape(name)}(?![\w-])" for name in sorted(names, key=len, reverse=True))
    )
    changed = {}
    for path in paths:
        text = tree.read(path) or ""
        new_blocks, fenced = list[str](), False
        for block in blocks(split_lines(text)):
            block_text = "".join(block)
            fences = sum(line.lstrip().startswith(("```", "~~~")) for line in block)
            if pattern.search(block_text):
                if fenced or fences:
                    block_text = pattern.sub(lambda match: renames.get(match[0], match[0]), block_text)
                elif block_text.startswith("|"):
                    block_text = _reword_row(block_text, renames, reword)
                elif (
                    unmarked_text := re.sub(r"^\s*([-*+>]|\d+\.|#+)\s+", "", block_text).strip(" `*_\r\n")
                ) in renames:
                    block_text = block_text.replace(unmarked_text, renames[unmarked_text])
                else:
                    block_text = _reword_block(block_text, reword) or block_text
            fenced ^= fences % 2 == 1
            new_blocks.append(block_text)
        if (new := "".join(new_blocks)) != text:
            changed[path] = new
    return changed


def _reword_row(line: str, renames: Mapping[str, str], reword: Reword) -> str:
    """A table row with corrected cells; a bare size in a cell is the size of the weights."""
    bare = line.rstrip("\r\n")
    cells = re.split(r"(?<!\\)\|", bare)
    for index, cell in enumerate(cells):
        text = cell.strip()
        is_bare_size = re.fullmatch(r"\d+(\.\d+)?\s?[GM]i?B", text)
        bare_name = text.strip("`*_")
        if bare_name in renames:
            new = text.replace(bare_name, renames[bare_name])
        else:
            new = reword(f"~{text}").removeprefix("~") if is_bare_size else reword(text)
        if new and new != text:
            cells[index] = cell.replace(text, new, 1)
    return "|".join(cells) + line[len(bare) :]


def remove_notes(platform: Platform, alias: str) -> dict[str, str]:
    """The model catalog without the notes about `alias`."""
    return _edit_notes(platform, alias, None)


def add_manual(platform: Platform, like: str, name: str, reword: Callable[[str], str]) -> dict[str, str]:
    """The word list and the bring-up table with `name` added after the similar application `like`."""

    def with_copied_row(row: Row, _: tuple[Row, ...]) -> dict[int, str | None]:
        column = row.column_listing(like)
        if column is not None and len(names_in_cell(row.cells[column])) > 1:  # a row that lists several applications
            return {row.line: row.with_cells({column: _with_name(row.cells[column].strip(), like, name)})}
        column = column or 0
        cells = {index: reword(cell.strip()) or cell.strip() for index, cell in enumerate(row.cells) if index != column}
        cells[column] = row.cells[column].strip().replace(like, name)
        return _after(row, row.with_cells(cells))

    return _edit_words(platform, lambda words: _insert_word(words, like, name)) | edit_table(
        platform, platform.layout.bring_up_guide, like, with_copied_row
    )


def reword_manual(platform: Platform, name: str, reword: Callable[[str], str]) -> dict[str, str]:
    """The bring-up table after a swap, with the row of `name` corrected."""

    def with_reworded_row(row: Row, _: tuple[Row, ...]) -> dict[int, str | None]:
        column = row.column_listing(name)
        if column is not None and len(names_in_cell(row.cells[column])) > 1:
            return {}  # the row describes several applications, so its text stays
        cells = {index: reword(cell.strip()) for index, cell in enumerate(row.cells) if index != (column or 0)}
        return {row.line: row.with_cells(cells)}

    return edit_table(platform, platform.layout.bring_up_guide, name, with_reworded_row)


def remove_manual(platform: Platform, name: str) -> dict[str, str]:
    """The word list and the bring-up table without `name`."""

    def without_row_of_name(row: Row, _: tuple[Row, ...]) -> dict[int, str | None]:
        column = row.column_listing(name)
        if column is not None and len(names_in_cell(row.cells[column])) > 1:
            return {row.line: row.with_cells({column: _without_name(row.cells[column].strip(), name)})}
        return {row.line: None}

    return _edit_words(platform, lambda words: _delete_word(words, name)) | edit_table(
        platform, platform.layout.bring_up_guide, name, without_row_of_name
    )


_SEPARATOR = r"\s*(?:,|/|;|\+|<br ?/?>|\band\b)\s*"


def _with_name(cell: str, like: str, name: str) -> str:
    """A cell of names with `name` inserted after `like`, with the same markup and separator."""
    word = re.search(rf"[`*_]*(?<![\w.-]){re.escape(like)}(?![\w.-])[`*_]*", cell)
    if word is None:
        return cell
    separators = re.findall(_SEPARATOR, cell)
    separator = next((candidate for candidate in separators if candidate.strip() != "and"), ", ")
    return f"{cell[: word.end()]}{separator}{word[0].replace(like, name)}{cell[word.end() :]}"


def _without_name(cell: str, name: str) -> str:
    word = rf"[`*_]*(?<![\w.-]){re.escape(name)}(?![\w.-])[`*_]*"
    new, count = re.subn(rf"{_SEPARATOR}{word}", "", cell, count=1)
    return new if count else re.sub(rf"{word}{_SEPARATOR}", "", cell, count=1)


def add_to_portal(platform: Platform, like: str, alias: str) -> dict[str, str]:
    """The key portal's list of models with `alias` after `like`, or at the end.

    Raises ManifestError if there is no such list.
    """
    document, models = _portal(platform, like)
    if any(model.value == alias for model in models):
        return {}
    after = next((model for model in models if model.value == like), models[-1])
    line, column = after.start_mark.line, after.start_mark.column
    prefix = document.lines[line][:column]
    if prefix.rstrip().endswith("-"):
        ending = "\r\n" if "\r\n" in document.text else "\n"
        edit = document.insert_lines(line + 1, f"{prefix}{alias}{ending}")
    else:
        edit = Edit(after.end_mark.index, after.end_mark.index, f", {alias}")
    return {document.path: document.apply([edit]).text}


def remove_from_portal(platform: Platform, alias: str) -> dict[str, str]:
    """The key portal's list without `alias`."""
    document, models = _portal(platform, alias)
    index = next((i for i, model in enumerate(models) if model.value == alias), None)
    if index is None:
        return {}
    node = models[index]
    line = node.start_mark.line
    if document.lines[line][: node.start_mark.column].rstrip().endswith("-"):
        edit = document.delete_lines(line, line)
    elif index:
        edit = Edit(models[index - 1].end_mark.index, node.end_mark.index, "")
    else:
        edit = Edit(node.start_mark.index, models[1].start_mark.index if len(models) > 1 else node.end_mark.index, "")
    return {document.path: document.apply([edit]).text}


def in_portal(platform: Platform, alias: str) -> bool:
    """Return whether the key portal offers `alias`."""
    return platform.read(platform.layout.key_portal) is not None and any(
        model.value == alias for model in _portal(platform, alias)[1]
    )


def models_in_portal(platform: Platform) -> tuple[ScalarNode, ...]:
    """The models in the key portal's list; empty if no list contains a known alias."""
    try:
        return tuple(_portal(platform, "")[1])
    except ManifestError:
        return ()


def _portal(platform: Platform, alias: str) -> tuple[Document, list[ScalarNode]]:
    """The key portal's list of models: the list that contains a known alias."""
    layout = platform.layout
    text = platform.read(layout.key_portal)
    document = Document(layout.key_portal, text or "")
    lists = [[item for item in items(node) if isinstance(item, ScalarNode)] for node in _sequences(document.roots)]
    aliases = {alias} | {entry.alias for entry in platform.entries()}
    portal_models = next((models for models in lists if aliases & {str(node.value) for node in models}), None)
    if not portal_models:
        raise ManifestError(f"{layout.key_portal} has no list of models: add {alias} there by hand.")
    return document, portal_models


def _sequences(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        for _, inner in entries(node):
            if isinstance(inner, SequenceNode):
                yield inner
            yield from _sequences([inner])


def manual_apps(platform: Platform) -> tuple[int, tuple[str, ...]] | None:
    """The words of `manual_apps` and the first line of the list (from 1); None if there is no such list."""
    text = platform.read(platform.layout.wait_script)
    match = _WORD_LIST.search(text) if text else None
    if text is None or match is None:
        return None
    return text[: match.start()].count("\n") + 1, tuple(re.findall(r"[\w.-]+", match["words"]))


_WORD_LIST = re.compile(
    r"^\s*(?:readonly |local |declare [-\w]+ |export )?manual_apps=(?P<open>\(|\"|')(?P<words>[^)\"']*)", re.MULTILINE
)


def _edit_words(platform: Platform, edit: Callable[[str], str]) -> dict[str, str]:
    layout = platform.layout
    text = platform.read(layout.wait_script)
    match = _WORD_LIST.search(text) if text else None
    if text is None or match is None:
        return {}
    start, end = match.span("words")
    new = text[:start] + edit(text[start:end]) + text[end:]
    return {layout.wait_script: new} if new != text else {}


def _insert_word(words: str, like: str, name: str) -> str:
    last = None
    for last in re.finditer(r"[\w.-]+", words):
        if last[0] == like:
            break
    if last is None:
        return name
    # A list may have one word per line: reuse the separator in front of the neighbour.
    before = re.search(r"\\?\s+$", words[: last.start()])
    separator = before[0] if before and "\n" in before[0] else " "
    return words[: last.end()] + separator + name + words[last.end() :]


def _delete_word(words: str, name: str) -> str:
    word = rf"(?<![\w.-]){re.escape(name)}(?![\w.-])"
    new, count = re.subn(rf"(?:\s*\\\n)?\s+{word}", "", words, count=1)
    return new if count else re.sub(rf"{word}\s*", "", words, count=1)


def _after(row: Row, text: str) -> dict[int, str | None]:
    """The edit that keeps a row and adds a new row below it."""
    return {row.line: "|" + "|".join(row.cells) + "|\n" + text}


def _catalog_row(
    row: Row, rows: tuple[Row, ...], new: CatalogRow, old: CatalogRow, reword: Reword, alias: str | None = None
) -> str:
    # Backend, GPU and target are the same as the template's, except for text about the template's model.
    cells = {
        index: reworded
        for index, cell in enumerate(row.cells)
        if index and (reworded := reword(cell.strip())) and reworded != cell.strip()
    }

    def set_cell(column: str, text: str) -> None:
        index = row.column(column)
        if index is not None:
            cells[index] = text

    if alias is not None:
        cells[0] = re.sub(r"[\w.-]+", alias, row.cells[0].strip(), count=1)
    model_cells = [other_row.cell("model") for other_row in rows]
    set_cell("model", _model_cell(row.cell("model"), new, old, reword, model_cells))
    if new.context is not None and (new.context != old.context or alias is not None):
        set_cell("context", _context_cell(row.cell("context"), new.context))
    if (new.price_in, new.price_out) != (old.price_in, old.price_out):
        set_cell("cost", _cost_cell(row.cell("cost"), new, old))
    set_cell("eval", _untested_text(rows))
    return row.with_cells(cells)


def _model_cell(cell: str, new: CatalogRow, old: CatalogRow, reword: Reword, model_cells: list[str]) -> str:
    if old.model in cell:
        return cell.replace(old.model, new.model)
    # Free text in a cell (a size in brackets, a remark) describes the old model: remove the parts that no longer apply.
    name = new.model.rsplit("/", 1)[-1]
    reworded = reword(cell)
    if stem(new.model) not in reworded:
        return f"`{name}`" if cell.startswith("`") else name
    method = next((method for method in ("AWQ", "GPTQ", "FP8") if f"-{method}" in name.upper()), "")
    is_missing = method and stem(old.model) == old.model.rsplit("/", 1)[-1] and method not in reworded
    if not is_missing:
        return reworded
    # Use the wording of the other rows: "(AWQ 4-bit)".
    bracket = next(
        (match[0] for model_cell in model_cells if (match := re.search(rf"\({method}[^()]*\)", model_cell))),
        f"({method})",
    )
    return f"{reworded} {bracket}"


def _context_cell(cell: str, context: int) -> str:
    if re.match(r"(?i)n/?a\b", cell):
        return cell  # the table's text for models without a context, like "n/a (embeddings)"
    if "," in cell:
        return f"{context:,}"
    if re.search(r"\d[kK]", cell) and context % 1024 == 0:
        return f"{context // 1024}{'K' if 'K' in cell else 'k'}"
    return str(context)


def _cost_cell(cell: str, new: CatalogRow, old: CatalogRow) -> str:
    """The cell with the new prices, in the unit of the old ones: per token, per thousand or per million."""
    for factor in (1, 1000, 1_000_000):
        before = [_money(price, factor) for price in (old.price_in, old.price_out) if price]
        after = [_money(price, factor) for price in (new.price_in, new.price_out) if price]
        if len(before) == len(after) and (repriced := _with_new_prices(cell, before, after)):
            return repriced
    dollar = "$" if "$" in cell else ""
    return f"{dollar}{new.price_in} / {dollar}{new.price_out or '–'}"


def _with_new_prices(cell: str, before: list[Decimal], after: list[Decimal]) -> str:
    """The cell with each old number replaced, in order; "" if it does not contain all of them."""
    number = re.compile(r"\d+(?:\.\d+)?")
    numbers = [Decimal(number_text) for number_text in number.findall(cell)]
    if not before or not all(price in numbers for price in before):
        return ""
    new_prices = iter(after)
    return number.sub(
        lambda match: f"{next(new_prices, Decimal(match[0])):f}" if Decimal(match[0]) in before else match[0], cell
    )


def _money(price: str, factor: int) -> Decimal:
    scaled = Decimal(price) * factor
    return Decimal(f"{scaled.normalize():f}")


def _untested_text(rows: tuple[Row, ...]) -> str:
    """The text that this table uses for a model that has not been evaluated."""
    cells = (row.cell("eval") for row in rows)
    return next((cell for cell in cells if _UNTESTED.match(cell)), "pending")


def is_note_on(block: list[str], alias: str) -> bool:
    """Return whether a block of prose begins with `alias`, after the marker of an item, a heading or a footnote."""
    first = re.sub(r"^(\s*([-*+]|\d+\.|>)\s+|\s*#+\s+|\[\^?)", "", block[0])
    return re.match(rf"[`*_]*{re.escape(alias)}(?![\w-])", first) is not None


def _edit_notes(platform: Platform, alias: str, reword: Reword | None) -> dict[str, str]:
    """The model catalog with the text about `alias` reworded or removed: items, paragraphs, sections, footnotes."""
    layout = platform.layout
    text = platform.read(layout.model_catalog)
    if text is None:
        return {}
    new_lines: list[str] = []
    is_removed = False  # True if the last non-blank block was removed
    for block, is_prose in _blocks_about(blocks(split_lines(text)), alias):
        blank = not block[0].strip()
        if is_prose is None or (reword and not is_prose):
            if is_removed and blank and (not new_lines or not new_lines[-1].strip()):
                continue  # remove one of the blank lines around a removed paragraph
            new_lines += block
            is_removed = is_removed and blank
        elif new := reword and _reword_block("".join(block), reword):
            new_lines.append(new)
            is_removed = False
        else:
            is_removed = True
    if is_removed and new_lines and not new_lines[-1].strip():
        new_lines.pop()
    new_text = "".join(new_lines)
    return {layout.model_catalog: new_text} if new_text != text else {}


def _reword_block(block: str, reword: Reword) -> str:
    """A reworded block of prose that keeps its marker and line endings; "" if nothing in it remains correct."""
    prose = block.rstrip("\r\n")
    ending = block[len(prose) :]
    mark = re.match(r"\s*([-*+>]\s+|\d+\.\s+|#+\s+)?", prose)
    start = mark.end() if mark else 0
    new = reword(prose[start:].replace("\r\n", "\n"))
    return (prose[:start] + new).replace("\n", ending or "\n") + ending if new else ""


def _blocks_about(all_blocks: list[list[str]], alias: str) -> Iterator[tuple[list[str], bool | None]]:
    """Yield each block with True for prose about `alias`, False for its code and tables, and None for other text.

    Text is about `alias` if it begins with the alias, or if it is in a section whose heading is the alias.
    """
    section, fenced = 0, False
    for block in all_blocks:
        first = block[0]
        if not fenced and (heading := re.match(r"(#+)\s", first)):
            level = len(heading[1])
            section = level if is_note_on(block, alias) else 0 if level <= section else section
        fences = sum(line.lstrip().startswith(("```", "~~~")) for line in block)
        is_prose = bool(first.strip()) and not (first.startswith("|") or fences or fenced)
        fenced ^= fences % 2 == 1
        yield block, is_prose if section or (is_prose and is_note_on(block, alias)) else None
