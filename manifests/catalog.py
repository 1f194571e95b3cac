"""The rows and words outside the manifests: the model catalog, the list of manual applications, the bring-up table.

A platform need not have any of them: a file or a table that is missing is left missing.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import NamedTuple

from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from manifests.edit import Document, Edit, entries, items
from manifests.markdown import Row, blocks, edit_table, split_lines
from manifests.pieces import Layout, model_list
from manifests.tree import ManifestError, Tree
from manifests.wording import stem

Reword = Callable[[str], str]
"""Makes sentences true of the new model; "" where nothing of them is."""

_UNTESTED = re.compile(r"^\W*(pending|not (yet )?(run|evaluated|tested)|untested|tbd|todo|none)\b", re.IGNORECASE)


class CatalogRow(NamedTuple):
    """What the model catalog says of an endpoint."""

    model: str
    context: int | None
    price_in: str
    price_out: str


def add_row(
    tree: Tree, layout: Layout, like: str, alias: str, new: CatalogRow, old: CatalogRow, reword: Reword
) -> dict[str, str]:
    """The model catalog with a row for `alias` below that of the template."""
    return edit_table(
        tree,
        layout.model_catalog,
        like,
        lambda row, rows: _after(row, _catalog_row(row, rows, new, old, reword, alias)),
    )


def change_row(
    tree: Tree, layout: Layout, alias: str, new: CatalogRow, old: CatalogRow, reword: Reword
) -> dict[str, str]:
    """The model catalog with the row of `alias` changed, its evaluation to be done again, and its notes made true."""
    return edit_table(
        tree, layout.model_catalog, alias, lambda row, rows: {row.line: _catalog_row(row, rows, new, old, reword)}
    )


def remove_row(tree: Tree, layout: Layout, alias: str) -> dict[str, str]:
    """The model catalog without the row of `alias`."""
    return edit_table(tree, layout.model_catalog, alias, lambda row, _: {row.line: None})


def reword_notes(tree: Tree, layout: Layout, alias: str, reword: Reword) -> dict[str, str]:
    """The model catalog with the notes below its tables that are about `alias` made true."""
    return _edit_notes(tree, layout, alias, reword)


def remove_notes(tree: Tree, layout: Layout, alias: str) -> dict[str, str]:
    """The model catalog without the notes that are about `alias`."""
    return _edit_notes(tree, layout, alias, None)


def add_manual(tree: Tree, layout: Layout, like: str, name: str, reword: Callable[[str], str]) -> dict[str, str]:
    """The word list and the bring-up table with `name` after `like`, the application that it resembles."""

    def resembling(row: Row, _: tuple[Row, ...]) -> dict[int, str | None]:
        cells = {index: reword(cell.strip()) for index, cell in enumerate(row.cells)}
        cells[0] = row.cells[0].strip().replace(like, name)
        return _after(row, row.filled(cells))

    return _edit_words(tree, layout, lambda words: _insert_word(words, like, name)) | edit_table(
        tree, layout.bring_up_guide, like, resembling
    )


def reword_manual(tree: Tree, layout: Layout, name: str, reword: Callable[[str], str]) -> dict[str, str]:
    """The bring-up table after a swap: the row of `name` made true."""

    def reworded(row: Row, _: tuple[Row, ...]) -> dict[int, str | None]:
        cells = {index: reword(cell.strip()) for index, cell in enumerate(row.cells) if index}
        return {row.line: row.filled(cells)}

    return edit_table(tree, layout.bring_up_guide, name, reworded)


def remove_manual(tree: Tree, layout: Layout, name: str) -> dict[str, str]:
    """The word list and the bring-up table without `name`."""
    return _edit_words(tree, layout, lambda words: _delete_word(words, name)) | edit_table(
        tree, layout.bring_up_guide, name, lambda row, _: {row.line: None}
    )


def add_to_portal(tree: Tree, layout: Layout, like: str, alias: str) -> dict[str, str]:
    """The key portal's list of models with `alias` after `like` (or last); ManifestError when there is no such list."""
    document, offered = _portal(tree, layout, like)
    if any(each.value == alias for each in offered):
        return {}
    after = next((each for each in offered if each.value == like), offered[-1])
    line, column = after.start_mark.line, after.start_mark.column
    lead = document.lines[line][:column]
    if lead.rstrip().endswith("-"):
        ending = "\r\n" if "\r\n" in document.text else "\n"
        edit = document.insert_lines(line + 1, f"{lead}{alias}{ending}")
    else:
        edit = Edit(after.end_mark.index, after.end_mark.index, f", {alias}")
    return {document.path: document.apply([edit]).text}


def remove_from_portal(tree: Tree, layout: Layout, alias: str) -> dict[str, str]:
    """The key portal's list without `alias`."""
    document, offered = _portal(tree, layout, alias)
    index = next((i for i, each in enumerate(offered) if each.value == alias), None)
    if index is None:
        return {}
    node = offered[index]
    line = node.start_mark.line
    if document.lines[line][: node.start_mark.column].rstrip().endswith("-"):
        edit = document.delete_lines(line, line)
    elif index:
        edit = Edit(offered[index - 1].end_mark.index, node.end_mark.index, "")
    else:
        edit = Edit(node.start_mark.index, offered[1].start_mark.index if len(offered) > 1 else node.end_mark.index, "")
    return {document.path: document.apply([edit]).text}


def in_portal(tree: Tree, layout: Layout, alias: str) -> bool:
    """Whether people may pick `alias` for their own keys."""
    return tree.read(layout.key_portal) is not None and any(
        each.value == alias for each in _portal(tree, layout, alias)[1]
    )


def _portal(tree: Tree, layout: Layout, alias: str) -> tuple[Document, list[ScalarNode]]:
    """The list of models that the key portal offers: the one with a known alias in it."""
    text = tree.read(layout.key_portal)
    document = Document(layout.key_portal, text or "")
    lists = [[each for each in items(node) if isinstance(each, ScalarNode)] for node in _sequences(document.roots)]
    known = {alias} | {each.alias for each in model_list(tree, layout)}
    offered = next((each for each in lists if known & {str(node.value) for node in each}), None)
    if not offered:
        raise ManifestError(f"{layout.key_portal} has no list of models to put {alias} in: add it there by hand.")
    return document, offered


def _sequences(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        for _, inner in entries(node):
            if isinstance(inner, SequenceNode):
                yield inner
            yield from _sequences([inner])


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


def _after(row: Row, text: str) -> dict[int, str | None]:
    """The row as it is, with a new one below it."""
    return {row.line: "|" + "|".join(row.cells) + "|\n" + text}


def _catalog_row(
    row: Row, rows: tuple[Row, ...], new: CatalogRow, old: CatalogRow, reword: Reword, alias: str | None = None
) -> str:
    # Backend, GPU, target: true of the template, but for what they say of its model.
    cells = {
        index: true
        for index, cell in enumerate(row.cells)
        if index and (true := reword(cell.strip())) and true != cell.strip()
    }

    def put(column: str, text: str) -> None:
        index = row.column(column)
        if index is not None:
            cells[index] = text

    if alias is not None:
        cells[0] = re.sub(r"[\w.-]+", alias, row.cells[0].strip(), count=1)
    put("model", _model_cell(row.cell("model"), new, old, reword))
    if new.context is not None and (new.context != old.context or alias is not None):
        put("context", _context_cell(row.cell("context"), new.context))
    if (new.price_in, new.price_out) != (old.price_in, old.price_out):
        put("cost", _cost_cell(row.cell("cost"), new, old))
    put("eval", _untested(rows))
    return row.filled(cells)


def _model_cell(cell: str, new: CatalogRow, old: CatalogRow, reword: Reword) -> str:
    if old.model in cell:
        return cell.replace(old.model, new.model)
    # A cell in other words (a size in brackets, a remark) speaks of the old model: what is not true any more goes.
    name = new.model.rsplit("/", 1)[-1]
    true = reword(cell)
    if stem(new.model) not in true:
        return f"`{name}`" if cell.startswith("`") else name
    method = next((each for each in ("AWQ", "GPTQ", "FP8") if f"-{each}" in name.upper()), "")
    unsaid = method and stem(old.model) == old.model.rsplit("/", 1)[-1] and method not in true
    return f"{true} ({method})" if unsaid else true


def _context_cell(cell: str, context: int) -> str:
    if "," in cell:
        return f"{context:,}"
    if re.search(r"\d[kK]", cell) and context % 1024 == 0:
        return f"{context // 1024}{'K' if 'K' in cell else 'k'}"
    return str(context)


def _cost_cell(cell: str, new: CatalogRow, old: CatalogRow) -> str:
    """The cell with the new prices, in the unit in which it has the old ones: per token, thousand or million."""
    for factor in (1, 1000, 1_000_000):
        before = [_money(each, factor) for each in (old.price_in, old.price_out) if each]
        after = [_money(each, factor) for each in (new.price_in, new.price_out) if each]
        if len(before) == len(after) and (repriced := _repriced(cell, before, after)):
            return repriced
    dollar = "$" if "$" in cell else ""
    return f"{dollar}{new.price_in} / {dollar}{new.price_out or '–'}"


def _repriced(cell: str, before: list[Decimal], after: list[Decimal]) -> str:
    """The cell with each of the old numbers replaced, in its order; "" when it does not hold all of them."""
    number = re.compile(r"\d+(?:\.\d+)?")
    held = [Decimal(each) for each in number.findall(cell)]
    if not before or not all(each in held for each in before):
        return ""
    fresh = iter(after)
    return number.sub(
        lambda match: f"{next(fresh, Decimal(match[0])):f}" if Decimal(match[0]) in before else match[0], cell
    )


def _money(price: str, factor: int) -> Decimal:
    scaled = Decimal(price) * factor
    return Decimal(f"{scaled.normalize():f}")


def _untested(rows: tuple[Row, ...]) -> str:
    """How this table says that nobody has evaluated a model yet."""
    said = (row.cell("eval") for row in rows)
    return next((each for each in said if _UNTESTED.match(each)), "pending")


def is_note_on(block: list[str], alias: str) -> bool:
    """Whether a block of prose begins with `alias`, behind whatever marks it as an item, a heading or a footnote."""
    first = re.sub(r"^(\s*([-*+]|\d+\.|>)\s+|\s*#+\s+|\[\^?)", "", block[0])
    return re.match(rf"[`*_]*{re.escape(alias)}(?![\w-])", first) is not None


def _edit_notes(tree: Tree, layout: Layout, alias: str, reword: Reword | None) -> dict[str, str]:
    """The model catalog with what is about `alias` reworded, or without it: items, paragraphs, sections, footnotes."""
    text = tree.read(layout.model_catalog)
    if text is None:
        return {}
    kept: list[str] = []
    gone = False  # whether the last block that was not blank went away
    for block, is_prose in _about(blocks(split_lines(text)), alias):
        blank = not block[0].strip()
        if is_prose is None or (reword and not is_prose):
            if gone and blank and (not kept or not kept[-1].strip()):
                continue  # a paragraph goes with one of the blank lines around it
            kept += block
            gone = gone and blank
        elif new := reword and _reworded("".join(block), reword):
            kept.append(new)
            gone = False
        else:
            gone = True
    if gone and kept and not kept[-1].strip():
        kept.pop()
    new_text = "".join(kept)
    return {layout.model_catalog: new_text} if new_text != text else {}


def _reworded(block: str, reword: Reword) -> str:
    """A block of prose with its mark and its line endings kept; "" where nothing of it is true."""
    prose = block.rstrip("\r\n")
    ending = block[len(prose) :]
    mark = re.match(r"\s*([-*+>]\s+|\d+\.\s+|#+\s+)?", prose)
    start = mark.end() if mark else 0
    new = reword(prose[start:].replace("\r\n", "\n"))
    return (prose[:start] + new).replace("\n", ending or "\n") + ending if new else ""


def _about(every: list[list[str]], alias: str) -> Iterator[tuple[list[str], bool | None]]:
    """Each block, and whether it is prose about `alias`: None for what is not about it, False for its code and tables.

    About it is what begins with it, and all of a section that has it for a heading.
    """
    section, fenced = 0, False
    for block in every:
        first = block[0]
        if not fenced and (heading := re.match(r"(#+)\s", first)):
            level = len(heading[1])
            section = level if is_note_on(block, alias) else 0 if level <= section else section
        fences = sum(line.lstrip().startswith(("```", "~~~")) for line in block)
        is_prose = bool(first.strip()) and not (first.startswith("|") or fences or fenced)
        fenced ^= fences % 2 == 1
        yield block, is_prose if section or (is_prose and is_note_on(block, alias)) else None
