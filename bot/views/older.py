"""Conversion of Slack's newer blocks to older ones: sections, context and preformatted text."""

from collections.abc import Iterator, Sequence

from bot.text.mrkdwn import Mrkdwn, escape, md
from bot.views.blocks import MESSAGE_BLOCKS, Block, Blocks, preformatted, section, sections, trimmed_to_limits
from bot.views.newer import ALERT_ICONS, NEWER
from bot.views.rich_text import as_mrkdwn

_ICONS = {"complete": "✔️", "in_progress": "🔸", "pending": "▫️", "error": "✖️"}
_BAR = 20
"""The length of the longest bar of a chart."""


def newer_in(blocks: Sequence[Block]) -> set[str]:
    """Return the types of newer blocks that are in use."""
    return {str(block.get("type")) for block in blocks} & NEWER


def older(blocks: Sequence[Block], types: frozenset[str] | set[str] = NEWER, most: int = MESSAGE_BLOCKS) -> Blocks:
    """Convert the blocks of these types. The result has at most `most` blocks, by default the limit of a message."""
    if not newer_in(blocks) & types:
        return list(blocks)
    converted = [part for block in blocks for part in (_older(block) if block.get("type") in types else (block,))]
    return trimmed_to_limits(converted, most)


def _older(block: Block) -> Iterator[Block]:
    match block["type"]:
        case "plan":
            yield from sections([_task(task) for task in block.get("tasks", [])])
        case "table" if all(cell["type"] != "rich_text" for row in block["rows"] for cell in row):
            yield preformatted(_columns([[str(cell["text"]) for cell in row] for row in block["rows"]]))
        case "table" | "data_table":
            yield from sections([_row(row) for row in block["rows"][1:]])
        case "container":
            yield section(md("*{title}*", title=block["title"]["text"]))
            for child in block["child_blocks"]:
                yield from _older(child) if child["type"] in NEWER else (child,)
        case "alert":
            block_text = section(
                md("{icon} {text}", icon=ALERT_ICONS[block["level"]], text=Mrkdwn(block["text"]["text"]))
            )
            yield block_text | ({"block_id": block["block_id"]} if "block_id" in block else {})
        case _:
            yield from _chart(block)


def _task(task: Block) -> Mrkdwn:
    title = escape(task["title"])
    named = md("*{title}*", title=title) if task["status"] == "in_progress" else title
    details = md(" — {details}", details=as_mrkdwn(task["details"])) if "details" in task else ""
    return md("{icon} {named}{details}", icon=_ICONS[task["status"]], named=named, details=details)


def _row(cells: Sequence[Block]) -> Mrkdwn:
    """A row as one line that begins with its first cell, the name of the row."""
    first, *details_cells = [
        as_mrkdwn(cell) if cell["type"] == "rich_text" else escape(str(cell["text"])) for cell in cells
    ]
    named = first if first.startswith(("*", "<", "`")) else md("*{first}*", first=first)
    details = md(" · ").join(text for text in details_cells if text != "–")
    return md("{named} — {details}", named=named, details=details) if details else named


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Align columns for monospaced text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows)


def _chart(block: Block) -> Iterator[Block]:
    """A line for each category with a value: its bar, and the values of its series."""
    series = block["chart"]["series"]
    categories = block["chart"]["axis_config"]["categories"]
    totals = [sum(one_series["data"][n]["value"] for one_series in series) for n in range(len(categories))]
    most = max(totals, default=0) or 1
    rows = []
    for n, (name, total) in enumerate(zip(categories, totals, strict=True)):
        parts = [
            f"{one_series['name']} {one_series['data'][n]['value']:g}"
            for one_series in series
            if one_series["data"][n]["value"]
        ]
        bar = "█" * round(total / most * _BAR)
        rows.append(f"{name:<{max(map(len, categories))}}  {bar:<{_BAR}}  {', '.join(parts) or '–'}")
    yield section(md("*{title}* ({unit})", title=block["title"], unit=block["chart"]["axis_config"]["y_label"]))
    yield preformatted("\n".join(rows))
