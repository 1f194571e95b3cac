"""Slack's newer blocks: tables, plans, containers, alerts and charts.

Limits: docs.slack.dev/reference/block-kit/blocks. A workspace may not have these blocks yet; `bot.views.older` converts
them, and `bot.slack.block_support` decides.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from slack_sdk.models.blocks import AlertBlock, ContainerBlock, PlanBlock, TableBlock, TaskCardBlock
from slack_sdk.models.blocks.basic_components import RawNumberObject, RawTextObject

from bot.text.mrkdwn import Mrkdwn, md
from bot.views.blocks import Block, Blocks, mrkdwn, plain_text, section
from bot.views.rich_text import is_plain, rich_text, unescaped
from bot.views.text import cut, plain
from manifests.frozen import frozen

NEWER = frozenset({"table", "data_table", "plan", "container", "alert", "data_visualization"})
TABLE_CHARACTERS = 9_000
"""Slack refuses a message whose tables have more than 10 000 characters."""
ROWS = 99
"""Maximum number of rows of a table, without the header."""
_TITLE, _TASK, _ALERT, _CHILDREN, _TASKS = 150, 200, 200, 10, 50
_CHART, _LABEL, _CATEGORIES, _SERIES = 50, 20, 20, 6
_OTHERS = "others"

Status = Literal["pending", "in_progress", "complete", "error"]
Level = Literal["info", "warning", "error", "success"]
ALERT_ICONS: Mapping[str, str] = {"info": "ℹ️", "warning": "⚠️", "error": "❌", "success": "✅"}


@frozen
class Number:
    """A cell that shows `text` and is sorted by `value`."""

    value: float
    text: str


Cell = Mrkdwn | str | Number
"""Markup, plain text, or a number."""


@frozen
class Task:
    """A step of a plan. `key` stays the same in all updates of the message; the title is plain text."""

    key: str
    title: str
    status: Status
    details: Mrkdwn = Mrkdwn()


def steps(title: str, tasks: Sequence[Task]) -> Block:
    """The steps of running work, with their states."""
    titles: Counter[str] = Counter()
    blocks = []
    for task in tasks[:_TASKS]:
        titles[task.key] += 1
        card = TaskCardBlock(
            task_id=f"{plain(task.key)[:60]}-{titles[task.key]}",
            title=_short(task.title, _TASK),
            status=task.status,
            details=rich_text(cut(task.details, 300)) if task.details else None,
        )
        blocks.append(card.to_dict())
    block: Block = PlanBlock(title=_short(title, _TITLE), tasks=blocks).to_dict()
    return block


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: Sequence[int] = ()) -> Block:
    """A small table; the columns in `right` are aligned right, the others are wrapped."""
    settings = [{"align": "right"} if n in right else {"is_wrapped": True} for n in range(len(header))]
    block: Block = TableBlock(rows=_cells(header, rows), column_settings=settings).to_dict()
    return block


def data_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, page: int = 10) -> Block:
    """A table that its reader can sort and filter; its first column names the row."""
    return {
        "type": "data_table",
        "caption": _short(caption, _TITLE),
        "rows": _cells(header, rows),
        "page_size": max(1, min(page, 100)),
        "row_header_column_index": 0,
    }


def characters(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> int:
    """Return how many of the `TABLE_CHARACTERS` of a message these rows use."""
    return _size(_render_cells(header, rows, limit=500))


def container(title: str, blocks: Blocks) -> Block:
    """Blocks behind a title that opens them."""
    block: Block = ContainerBlock(
        title=plain_text(title, _TITLE), child_blocks=blocks[:_CHILDREN], is_collapsible=True, default_collapsed=True
    ).to_dict()
    return block


def alert(text: Mrkdwn, level: Level) -> Block:
    """A notice in a form; Slack does not allow alerts in messages and Home. A long text becomes a section."""
    if len(text) > _ALERT:
        return section(md("{icon} {text}", icon=ALERT_ICONS[level], text=text))
    block: Block = AlertBlock(text=mrkdwn(text, _ALERT), level=level).to_dict()
    return block


def chart(title: str, categories: Sequence[str], series: Mapping[str, Sequence[float]], unit: str) -> Block:
    """A bar chart, with one bar per category and series. Beyond Slack's limit, the smallest series are combined."""
    names = _unique(categories)[-_CATEGORIES:]
    drawn_series = {name: list(values)[-_CATEGORIES:] for name, values in _largest(series).items()}
    bars = [
        {
            "name": name,
            "data": [{"label": label, "value": round(value, 2)} for label, value in zip(names, values, strict=True)],
        }
        for name, values in zip(_unique(list(drawn_series)), drawn_series.values(), strict=True)
    ]
    return {
        "type": "data_visualization",
        "title": _short(title, _CHART),
        "chart": {
            "type": "bar",
            "series": bars,
            "axis_config": {"categories": names, "y_label": _short(unit, _CHART)},
        },
    }


def _largest(series: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    ranked = sorted(series, key=lambda name: -sum(series[name]))
    if len(ranked) <= _SERIES:
        return {name: series[name] for name in ranked}
    largest: dict[str, Sequence[float]] = {name: series[name] for name in ranked[: _SERIES - 1]}
    smallest = [series[name] for name in ranked[_SERIES - 1 :]]
    return {**largest, _OTHERS: [sum(column) for column in zip(*smallest, strict=True)]}


def _unique(labels: Sequence[str]) -> list[str]:
    """Shorten labels to Slack's limit and number the duplicates."""
    labels_used: dict[str, None] = {}
    for label in labels:
        short, n = _short(label, _LABEL), 1
        while short in labels_used:
            n += 1
            short = _short(label, _LABEL - len(str(n)) - 1) + f" {n}"
        labels_used[short] = None
    return list(labels_used)


def _short(text: str, limit: int) -> str:
    line = plain(text)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _cells(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[list[Block]]:
    """The rows of a table. Long cells are cut to fit into the table's limit, and rows that do not fit are left out."""
    for limit in (500, 300, 200, 120, 80, 50, 30):
        cells = _render_cells(header, rows, limit)
        if _size(cells) <= TABLE_CHARACTERS:
            return cells
    while _size(cells) > TABLE_CHARACTERS:
        cells.pop()
    return cells


def _render_cells(header: Sequence[str], rows: Sequence[Sequence[Cell]], limit: int) -> list[list[Block]]:
    return [[_raw(name, 80) for name in header], *([_cell(cell, limit) for cell in row] for row in rows[:ROWS])]


def _size(node: Any) -> int:
    if isinstance(node, dict):
        return sum(len(v) if k == "text" and isinstance(v, str) else _size(v) for k, v in node.items())
    return sum(map(_size, node)) if isinstance(node, list) else 0


def _cell(cell: Cell, limit: int) -> Block:
    if isinstance(cell, Number):
        block: Block = RawNumberObject(value=cell.value, text=_short(cell.text, limit)).to_dict()
        return block
    if not isinstance(cell, Mrkdwn):
        return _raw(cell, limit)
    text = cut(cell, limit)
    return _raw(unescaped(text), limit) if is_plain(text) else rich_text(text)


def _raw(text: str, limit: int) -> Block:
    block: Block = RawTextObject(text=_short(text, limit)).to_dict()
    return block
