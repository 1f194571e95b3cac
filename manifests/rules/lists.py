"""The rules of documents and lists for people and scripts: the model catalog, and the lists of manually synced apps.

All of them are optional, and an endpoint need not be in the catalog. Their content must be correct, but free text in a
cell is not checked, and only a clear contradiction is a finding.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from decimal import Decimal
from fnmatch import fnmatch

from manifests import catalog
from manifests.edit import find, value
from manifests.engines import engines
from manifests.groups import is_partial
from manifests.markdown import Row, numbered_blocks, tables
from manifests.pieces import GPU, Pieces
from manifests.platform import Platform
from manifests.rules.finding import Finding
from manifests.sizing import tokens
from manifests.tree import Tree
from manifests.wording import CommentFacts

_FORMATS = ("AWQ", "GPTQ", "FP8")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def check(platform: Platform, pieces: Pieces) -> Iterator[Finding]:
    """Report wrong information about one endpoint in the lists."""
    yield from _catalog(platform, pieces)
    yield from _manual(platform, pieces)


def check_names(platform: Platform, without_alias: Collection[str]) -> Iterator[Finding]:
    """Report rows of the catalog and words of `manual_apps` that refer to nothing.

    The endpoints `without_alias` have their own findings, and their rows are expected.
    """
    yield from _rows(platform, without_alias)
    words = catalog.manual_apps(platform)
    if words is None or is_partial(platform):
        return
    line, listed = words
    applications = {value(application.node, "metadata", "name") for application in platform.applications()}
    for word in listed:
        if word not in applications and not _is_named(platform, word):
            message = f"manual_apps contains {word}, but no manifest does"
            yield _finding("manual-apps-unknown", platform.layout.wait_script, line, message, f"remove {word}")


def _rows(platform: Platform, awaited: Collection[str]) -> Iterator[Finding]:
    layout = platform.layout
    aliases = {entry.alias for entry in platform.entries()}
    patterns = [name for name in aliases if "*" in name]
    for rows in tables(platform.read(layout.model_catalog) or ""):
        if not any(row.subject in aliases for row in rows):
            continue  # the table is about another topic
        counted = Counter(row.subject for row in rows)
        last = {row.subject: row for row in rows}
        for alias in sorted(aliases & counted.keys()):
            if counted[alias] > 1:
                message, line = f"the catalog has {counted[alias]} rows for {alias}", last[alias].line + 1
                yield _finding("catalog-alias", layout.model_catalog, line, message, "keep one of them")
        for row in rows:
            word, in_one = row.subject, " " not in row.cells[0].strip()
            if not in_one or not re.fullmatch(r"[\w.-]*\w", word) or word in aliases or word in awaited:
                continue
            if not any(fnmatch(word, pattern) for pattern in patterns) and not _is_routed(platform, word):
                message = f"the catalog offers {word}, but LiteLLM has no such alias"
                yield _finding(
                    "catalog-alias",
                    layout.model_catalog,
                    row.line + 1,
                    message,
                    "write an alias that exists, or remove the row",
                )


def _is_routed(tree: Tree, word: str) -> bool:
    """Return whether a LiteLLM file has the word as a key or value: an alias of an alias, a list in another file."""
    whole = re.compile(rf"(?m)^[ -]*([\w-]+: *)?[\"']?{re.escape(word)}[\"']?:?( .*)?$")
    files = (path for path in tree.grep(word) if "litellm" in path and path.endswith((".yaml", ".yml")))
    return any(whole.search(tree.read(path) or "") for path in files)


def _is_named(platform: Platform, word: str) -> bool:
    """Return whether any manifest contains the word: a template may create an Application."""
    whole = re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])")
    manifests = (path for path in platform.grep(word) if path.endswith((".yaml", ".yml", ".tpl", ".json")))
    return any(path != platform.layout.wait_script and whole.search(platform.read(path) or "") for path in manifests)


def _catalog(platform: Platform, pieces: Pieces) -> Iterator[Finding]:
    layout = platform.layout
    text = platform.read(layout.model_catalog)
    if text is None or pieces.entry is None:
        return
    alias, path, model = pieces.entry.alias, layout.model_catalog, pieces.model.value
    row = next((row for rows in tables(text) for row in rows if row.names(alias)), None)
    if row is not None:
        yield from _model(path, row, alias, model)
        yield from _context(path, row, alias, pieces)
        yield from _cost(path, row, alias, pieces)
        yield from _hardware(path, row, alias, pieces)
    for number, block in numbered_blocks(text):
        if catalog.is_note_on(block, alias) and (other_model := _other_model(" ".join(block), model)):
            message = f"the note on {alias} names {other_model}, but {alias} serves {model}"
            yield _finding("catalog-note", path, number, message, f"write it about {model}, or remove it")


def _model(path: str, row: Row, alias: str, model: str) -> Iterator[Finding]:
    cell = row.cell("model")
    other_model = _other_model(cell, model)
    formats = [quantization for quantization in _FORMATS if re.search(rf"\b{quantization}\b", cell)]
    if not other_model and formats and not any(quantization in model.upper() for quantization in formats):
        other_model = f"a model in {formats[0]}"
    if other_model:
        message = f"the catalog lists {other_model} for {alias}, which serves {model}"
        yield _finding("catalog-model", path, row.line + 1, message, f"write {model}")


def _other_model(text: str, model: str) -> str:
    """Return the model of the same family or owner that a text names instead of `model`; "" if there is none."""
    words = CommentFacts(endpoint="", hf_id=model, served_name="")
    named = re.findall(r"(?<![\w./:-])[A-Za-z][\w-]*/[A-Za-z][\w.-]*[\w](?![\w/])", text)
    full = [name for name in named if re.search(r"\d", name)]
    if any(name.lower() == model.lower() for name in full):
        return ""
    siblings = re.findall(rf"(?i)(?<![\w.]){re.escape(words.family)}-(\d+(?:\.\d+)?[BM])(?!\w)", text)
    if siblings and words.sizes and not words.sizes & {sibling.lower() for sibling in siblings}:
        return f"{words.family}-{siblings[0]}"
    owner = model.partition("/")[0].lower()
    same_owner = [name for name in full if name.partition("/")[0].lower() == owner]
    return same_owner[0] if same_owner else ""


def _context(path: str, row: Row, alias: str, pieces: Pieces) -> Iterator[Finding]:
    flag, cell = pieces.flag("--max-model-len"), row.cell("context")
    match = re.fullmatch(r"`?(\d[\d,_ ]*\d|\d+)\s?([kK])?( tokens)?`?", cell)
    context = tokens(flag.value) if flag else None
    if context is None or match is None:
        return
    number = int(re.sub(r"\D", "", match[1]))
    if context not in ((number * 1000, number * 1024) if match[2] else (number,)):
        message = f"the catalog lists a context of {cell} for {alias}, but the engine has {context}"
        yield _finding("catalog-context", path, row.line + 1, message, f"write {context}")


def _cost(path: str, row: Row, alias: str, pieces: Pieces) -> Iterator[Finding]:
    """Compare the prices. The cell may be in dollars per token, per thousand or per million."""
    entry = pieces.entry
    prices = [entry.per_token("input"), entry.per_token("output")] if entry else []
    if not all(_NUMBER.fullmatch(cost) for cost in prices if cost):
        return  # a cell that is not a number has its own finding
    expected = [Decimal(price) for price in prices if price and Decimal(price)]
    listed = [Decimal(number) for number in _NUMBER.findall(row.cell("cost"))]
    if not expected or len(listed) < len(expected):
        return
    if not any(all(cost * unit in listed for cost in expected) for unit in (1, 1000, 1_000_000)):
        message = f"the catalog's prices of {alias} differ from those in LiteLLM: {row.cell('cost')}"
        fix = " / ".join(f"${cost:f}" for cost in expected)
        yield _finding("catalog-cost", path, row.line + 1, message, f"write {fix} per token")


def _hardware(path: str, row: Row, alias: str, pieces: Pieces) -> Iterator[Finding]:
    """Report cells for GPU and engine that clearly contradict the manifests."""
    limit, cell = value(pieces.container, "resources", "limits", GPU), row.cell("gpu")
    count = re.match(r"\W*(\d+)\s*[×x*]", cell)
    none = bool(re.match(r"\W*(none|no|cpu|n/a|0)\b|^\s*[–—-]\s*$", cell, re.IGNORECASE))
    if cell and ((pieces.gpu and none) or (not pieces.gpu and count) or (count and limit and count[1] != limit)):
        message = f"the catalog lists the GPU {cell!r} for {alias}, but its engine has {limit or 'none'}"
        yield _finding("catalog-hardware", path, row.line + 1, message, f"write {limit} GPU" if limit else "write none")
    backend = row.cell("backend")
    named = [engine for engine in engines() if engine.changes and engine.is_named_in(backend)]
    if named and pieces.runtime not in named:
        message = f"the catalog lists {backend} as the engine of {alias}, which runs on {pieces.engine}"
        yield _finding("catalog-hardware", path, row.line + 1, message, f"write {pieces.engine}")


def _manual(platform: Platform, pieces: Pieces) -> Iterator[Finding]:
    """Check the word list that `make wait` reads, and the table in the bring-up guide."""
    layout = platform.layout
    app = pieces.application
    if app is None:
        return
    manual = find(app.node, "spec", "syncPolicy", "automated") is None
    words = catalog.manual_apps(platform)
    if words is not None:
        line, listed = words
        if (manual or pieces.gpu) and pieces.name not in listed:
            message = f"manual_apps lacks {pieces.name}: a script that waits for it never ends"
            yield _finding("manual-apps-missing", layout.wait_script, line, message, f"add {pieces.name}")
        if not manual and not pieces.gpu and pieces.name in listed:
            message = f"manual_apps contains {pieces.name}, which syncs automatically: scripts do not wait for it"
            yield _finding("manual-apps-surplus", layout.wait_script, line, message, f"remove {pieces.name}")
    text = platform.read(layout.bring_up_guide) or ""
    table = _manual_table(platform, text)
    row = next((row for row in table if row.names(pieces.name) or row.column_listing(pieces.name) is not None), None)
    if table and (manual or pieces.gpu) and not re.search(rf"(?<![\w.-]){re.escape(pieces.name)}(?![\w-])", text):
        message = f"the table of manual syncs lacks {pieces.name}"
        fix = f"add a row for {pieces.name}"
        yield _finding("manual-table-missing", layout.bring_up_guide, table[-1].line + 1, message, fix)
    if row is not None and not manual and not pieces.gpu:
        message = f"{pieces.name} is in the table of manual syncs, but syncs automatically"
        yield _finding("manual-table-surplus", layout.bring_up_guide, row.line + 1, message, "remove the row")


def _manual_table(platform: Platform, text: str) -> tuple[Row, ...]:
    """Return the table with a row for a manually synced Application; empty if the guide has no such table."""
    by_hand = {
        value(app.node, "metadata", "name")
        for app in platform.applications()
        if find(app.node, "spec", "syncPolicy", "automated") is None
    }
    return next(
        (
            rows
            for rows in tables(text)
            if any(row.names(name) or row.column_listing(name) is not None for row in rows for name in by_hand)
        ),
        (),
    )


def _finding(rule: str, path: str, line: int, message: str, fix: str) -> Finding:
    return Finding(rule=rule, path=path, line=line, message=message, fix=fix)
