"""Slack's newer blocks (tables, plans, containers, alerts, charts): their visible text, and Slack's checks.

The limits are those of docs.slack.dev/reference/block-kit/blocks: table-block, data-table-block, plan-block,
task-card-block, container-block, alert-block, data-visualization-block. If Slack has raised a limit (data tables of
201 rows, charts of 12 series), the older limit is checked, because not every workspace has the newer one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sandbox.slack.limits import count, length, text_object

Json = dict[str, Any]

NEWER = {"table", "data_table", "plan", "task_card", "container", "alert", "data_visualization"}
TABLE_CHARACTERS = 10_000
"""Maximum number of characters in the cells of all tables of one message."""
TASKS = 50
CHILDREN = {
    "actions", "context", "divider", "file", "header", "image", "input", "rich_text", "section", "table", "video",
}  # fmt: skip
_SURFACES: Mapping[str, frozenset[str]] = {
    "alert": frozenset({"modal"}),
    "plan": frozenset({"message"}),
    "task_card": frozenset({"message"}),
    "container": frozenset({"message", "home"}),
    "table": frozenset({"message", "home"}),
    "data_table": frozenset({"message", "home"}),
    "data_visualization": frozenset({"message", "home"}),
}
_AT_MOST = {"table": 1, "data_visualization": 2}
"""Maximum number of blocks of a type in one message or view."""
ICONS = {"complete": "✔️", "in_progress": "🔸", "pending": "▫️", "error": "✖️"}


# ── visible text ──────────────────────────────────────────────────────────────────────────────────────────────


def table_text(rows: Sequence[Sequence[Json]], cell: Callable[[Json], str]) -> str:
    """Return the text of a table, one line per row."""
    return "\n".join(" · ".join(cell(cell_block) for cell_block in row) for row in rows)


def tasks_text(tasks: Sequence[Json], rich: Callable[[Json], str]) -> str:
    """Return the text of tasks, one line per task with its state, title and details."""
    lines = []
    for task in tasks:
        more = [text for key in ("details", "output") if key in task and (text := rich(task[key]).strip())]
        lines.append(" — ".join([f"{ICONS.get(task.get('status', 'pending'), '?')} {task.get('title')}", *more]))
    return "\n".join(lines)


def chart_text(block: Json) -> str:
    """Return the title of a chart, and one line per series or slice."""
    chart = block["chart"]
    if chart["type"] == "pie":
        rows = [f"{segment['label']}: {segment['value']:g}" for segment in chart["segments"]]
    else:
        rows = [
            f"{series['name']}: " + ", ".join(f"{point['label']} {point['value']:g}" for point in series["data"])
            for series in chart["series"]
        ]
    return "\n".join([str(block["title"]), *rows])


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────


def combination_complaints(blocks: Sequence[Json], surface: str) -> Iterator[str]:
    """Yield problems of the combination of newer blocks in one message or view."""
    every = [*blocks, *(child for block in blocks for child in block.get("child_blocks") or ())]
    for kind, most in _AT_MOST.items():
        if sum(block.get("type") == kind for block in every) > most:
            yield f"no more than {most} {kind} blocks allowed [json-pointer:/blocks]"
    if sum(_characters(block) for block in every) > TABLE_CHARACTERS:
        yield f"no more than {TABLE_CHARACTERS} characters allowed in tables [json-pointer:/blocks]"
    if len({"plan", "task_card"} & {str(block.get("type")) for block in every}) == 2:
        yield "plan and task_card blocks cannot be combined [json-pointer:/blocks]"
    for index, block in enumerate(blocks):
        if surface not in _SURFACES.get(str(block.get("type")), {surface}):
            yield f"unsupported type: {block['type']} [json-pointer:/blocks/{index}/type]"


def unknown_to_old_workspaces(blocks: Sequence[Json]) -> list[str]:
    """Return the errors of a workspace that does not support the newer blocks."""
    return [
        f"unsupported type: {block['type']} [json-pointer:/blocks/{index}/type]"
        for index, block in enumerate(blocks)
        if block.get("type") in NEWER
    ]


def complaints(block: Json, nested: Callable[[Json], Iterator[str]]) -> Iterator[str]:
    """Yield problems of one newer block; `nested` checks a block inside it."""
    match block["type"]:
        case "table":
            yield from _table(block)
        case "data_table":
            yield from _data_table(block)
        case "plan":
            yield from length("title", block.get("title"), 3000)
            yield from count("tasks", block.get("tasks", ["-"]), TASKS)
            tasks = block.get("tasks", [])
            if len({task.get("task_id") for task in tasks}) < len(tasks):
                yield "task_id already exists"
            for task in tasks:
                yield from _task(task)
        case "task_card":
            yield from _task(block)
        case "container":
            yield from _container(block, nested)
        case "alert":
            yield from text_object("text", block.get("text"), 200)
            if block.get("level", "default") not in ("default", "info", "warning", "error", "success"):
                yield "invalid level"
        case "data_visualization":
            yield from length("title", block.get("title"), 50)
            yield from _chart(block.get("chart"))


def _table(block: Json) -> Iterator[str]:
    rows = block.get("rows") or []
    yield from count("rows", rows, 100)
    for row in rows:
        yield from count("row", row, 20)
        for cell in row:
            yield from _cell(cell)
    settings = block.get("column_settings", [])
    yield from count("column_settings", settings, 20, least=0)
    for column in settings:
        if column and (
            set(column) - {"align", "is_wrapped"} or column.get("align", "left") not in ("left", "center", "right")
        ):
            yield "column_settings: not valid"


def _data_table(block: Json) -> Iterator[str]:
    rows = block.get("rows") or []
    yield from length("caption", block.get("caption"), 3000)
    yield from count("rows", rows, 101, least=2)
    if len({len(row) for row in rows}) > 1:
        yield "rows: must all have the same number of cells"
    if not 1 <= block.get("page_size", 5) <= 100:
        yield "page_size: must be between 1 and 100"
    if not 0 <= block.get("row_header_column_index", 0) < max(map(len, rows), default=1):
        yield "row_header_column_index: not a column"
    for number, row in enumerate(rows):
        yield from count("row", row, 20)
        for cell in row:
            yield from _cell(cell)
            if number == 0 and cell.get("type") == "rich_text":
                yield "rich_text is not allowed in the header"


def _cell(cell: Json) -> Iterator[str]:
    match cell.get("type"):
        case "raw_text":
            yield from length("raw_text", cell.get("text"), TABLE_CHARACTERS)
        case "raw_number":
            yield from length("raw_number", cell.get("text"), TABLE_CHARACTERS)
            if isinstance(cell.get("value"), bool) or not isinstance(cell.get("value"), int | float):
                yield "raw_number: value must be a number"
        case "rich_text":
            yield from _rich_text("cell", cell)
        case other:
            yield f"unsupported type of a cell: {other}"


def _rich_text(name: str, block: object) -> Iterator[str]:
    """Yield problems of a rich text block: elements without a field that they need, or with an empty text."""
    needs = {"text": "text", "link": "url", "user": "user_id", "usergroup": "usergroup_id", "emoji": "name"}
    if not isinstance(block, dict) or block.get("type") != "rich_text" or not block.get("elements"):
        yield f"{name}: must be a rich_text block"
        return
    for part in block["elements"]:
        if part.get("type") not in (
            "rich_text_section", "rich_text_list", "rich_text_preformatted", "rich_text_quote",
        ):  # fmt: skip
            yield f"{name}: unsupported element {part.get('type')}"
        for leaf in part.get("elements", []):
            if (key := needs.get(str(leaf.get("type")))) and not leaf.get(key):
                yield f"{name}: {leaf['type']} needs {key}"
            if leaf.get("type") == "date" and not (isinstance(leaf.get("timestamp"), int) and leaf.get("format")):
                yield f"{name}: date needs timestamp and format"


def _task(task: Json) -> Iterator[str]:
    yield from length("task_id", task.get("task_id"), 255)
    yield from length("title", task.get("title"), 3000)
    if task.get("status", "pending") not in ICONS:
        yield "status: must be pending, in_progress, complete or error"
    for key in ("details", "output"):
        if key in task:
            yield from _rich_text(key, task[key])
            if len(task[key].get("elements") or []) > 1:
                yield f"{key}: must have exactly one element"


def _container(block: Json, nested: Callable[[Json], Iterator[str]]) -> Iterator[str]:
    if "rich_text_title" in block:
        yield from _rich_text("rich_text_title", block["rich_text_title"])
    else:
        yield from text_object("title", block.get("title"), 150, plain=True)
    if "subtitle" in block:
        yield from text_object("subtitle", block["subtitle"], 150)
    yield from count("child_blocks", block.get("child_blocks") or [], 10)
    if block.get("width", "standard") not in ("narrow", "standard", "wide", "full"):
        yield "invalid width"
    if block.get("default_collapsed") and not block.get("is_collapsible"):
        yield "default_collapsed requires is_collapsible"
    if block.get("has_header_divider") and block.get("is_collapsible"):
        yield "has_header_divider cannot be combined with is_collapsible"
    for child in block.get("child_blocks") or []:
        if child.get("type") not in CHILDREN:
            yield f"unsupported type of a child: {child.get('type')}"
        else:
            yield from nested(child)


def _chart(chart: object) -> Iterator[str]:
    if not isinstance(chart, dict) or chart.get("type") not in ("pie", "bar", "area", "line"):
        yield "chart: must be pie, bar, area or line"
    elif chart["type"] == "pie":
        segments = chart.get("segments") or []
        yield from count("segments", segments, 6)
        for segment in segments:
            yield from length("label", segment.get("label"), 20)
            if not segment.get("value", 0) > 0:
                yield "segment: value must be greater than 0"
    else:
        yield from _series(chart)


def _series(chart: Json) -> Iterator[str]:
    config = chart.get("axis_config") or {}
    categories, series = config.get("categories") or [], chart.get("series") or []
    yield from count("categories", categories, 20)
    yield from count("series", series, 6)
    if len(set(categories)) < len(categories):
        yield "categories: must be unique"
    if len({one_series.get("name") for one_series in series}) < len(series):
        yield "series: names must be unique"
    for category in categories:
        yield from length("category", category, 20)
    for key in ("x_label", "y_label"):
        if key in config:
            yield from length(key, config[key], 50)
    for one_series in series:
        yield from length("name", one_series.get("name"), 20)
        if [point.get("label") for point in one_series.get("data") or []] != categories:
            yield "data: must have one value for each category"
        if not all(isinstance(point.get("value"), int | float) for point in one_series.get("data") or []):
            yield "data: values must be numbers"


def _characters(block: Json) -> int:
    """Return the number of characters in the cells of a table."""

    def within(node: object) -> int:
        if isinstance(node, dict):
            return sum(len(v) if k == "text" and isinstance(v, str) else within(v) for k, v in node.items())
        return sum(map(within, node)) if isinstance(node, list) else 0

    return within(block.get("rows") or [])
