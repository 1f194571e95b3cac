"""The stand-in refuses newer blocks as Slack documents it."""

from typing import Any

import pytest

from sandbox.slack.blocks import complaints, controls, view_complaints, visible_text, with_ids

Json = dict[str, Any]
RAW = {"type": "raw_text", "text": "x"}
PARAGRAPH: Json = {"type": "rich_text_section", "elements": [{"type": "text", "text": "rich"}]}
RICH: Json = {"type": "rich_text", "elements": [PARAGRAPH]}
SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "x"}}
PLAIN = {"type": "plain_text", "text": "Title"}
POINTS = [{"label": "Mon", "value": 1}]
BAR = {"type": "bar", "series": [{"name": "s", "data": POINTS}], "axis_config": {"categories": ["Mon"]}}


def rows(count: int, columns: int = 1, text: str = "x") -> list[list[Json]]:
    return [[{"type": "raw_text", "text": text}] * columns] * count


def data_table(**more: Any) -> Json:
    return {"type": "data_table", "caption": "c", "rows": rows(2)} | more


def plan(*tasks: Json) -> Json:
    return {"type": "plan", "title": "t", "tasks": list(tasks)}


def task(**more: Any) -> Json:
    return {"task_id": "1", "title": "t", "status": "pending"} | more


def container(**more: Any) -> Json:
    return {"type": "container", "title": PLAIN, "child_blocks": [SECTION]} | more


def chart(**more: Any) -> Json:
    return {"type": "data_visualization", "title": "t", "chart": BAR | more}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "table", "rows": [[RAW, RICH], [{"type": "raw_number", "value": 1, "text": "1"}]]},
        {"type": "table", "rows": rows(100, 20), "column_settings": [{"align": "right"}, None, {"is_wrapped": True}]},
        data_table(rows=rows(101), page_size=100),
        plan(task(details=RICH), task(task_id="2", status="error", output=RICH)),
        {"type": "task_card", "task_id": "1", "title": "t"},
        container(is_collapsible=True, default_collapsed=True, child_blocks=[SECTION] * 10),
        chart(),
        {"type": "data_visualization", "title": "t", "chart": {"type": "pie", "segments": POINTS}},
    ],
    ids=lambda block: block["type"],
)
def test_documented_blocks_are_accepted(block: Json) -> None:
    assert complaints([block]) == []


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "table", "rows": []}, "rows"),
        ({"type": "table", "rows": rows(101)}, "rows"),
        ({"type": "table", "rows": rows(1, 21)}, "row"),
        ({"type": "table", "rows": rows(1, text="")}, "raw_text"),
        ({"type": "table", "rows": [[SECTION]]}, "unsupported type of a cell"),
        ({"type": "table", "rows": rows(3, text="x" * 4000)}, "characters allowed in tables"),
        ({"type": "table", "rows": rows(1), "column_settings": [{"align": "middle"}]}, "column_settings"),
        (data_table(rows=rows(1)), "rows"),
        (data_table(rows=rows(102)), "rows"),
        (data_table(rows=[[RAW], [RAW, RAW]]), "same number"),
        (data_table(rows=[[RICH], [RAW]]), "header"),
        (data_table(caption=""), "caption"),
        (data_table(page_size=101), "page_size"),
        (plan(task(status="completed")), "status"),
        (plan(task(), task()), "task_id already exists"),
        (plan(task(details={"type": "rich_text", "elements": [PARAGRAPH] * 2})), "exactly one"),
        (plan(*(task(task_id=str(n)) for n in range(51))), "tasks"),
        (container(child_blocks=[]), "child_blocks"),
        (container(child_blocks=[SECTION] * 11), "child_blocks"),
        (container(child_blocks=[plan(task())]), "unsupported type of a child"),
        (container(child_blocks=[{"type": "section"}]), "missing required field"),
        (container(title={"type": "plain_text", "text": "x" * 151}), "title"),
        (container(default_collapsed=True), "default_collapsed"),
        (chart(series=[{"name": "s" * 21, "data": POINTS}]), "name"),
        (chart(series=[{"name": "s", "data": []}]), "data"),
        (chart(series=[{"name": str(n), "data": POINTS} for n in range(7)]), "series"),
        (chart(type="donut"), "chart"),
        ({"type": "alert", "text": PLAIN}, "unsupported type: alert"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_blocks_that_slack_documents_as_invalid_are_refused(block: Json, words: str) -> None:
    assert any(words in complaint for complaint in complaints([block]))


def test_the_blocks_of_a_message_are_checked_together() -> None:
    """A message may have one table, two charts, and either a plan or task cards."""
    table = {"type": "table", "rows": rows(1)}
    assert any("1 table" in complaint for complaint in complaints([table, container(child_blocks=[table])]))
    assert any("2 data_visualization" in complaint for complaint in complaints([chart()] * 3))
    assert any("combined" in complaint for complaint in complaints([plan(task()), {"type": "task_card", **task()}]))


def test_a_surface_has_its_own_blocks() -> None:
    """Alerts are for forms; plans are for messages; tables and charts are for messages and Home."""
    form = {"type": "modal", "title": PLAIN}
    assert view_complaints(form | {"blocks": [{"type": "alert", "text": PLAIN, "level": "error"}]}) == []
    assert view_complaints(form | {"blocks": [chart()]}) != []
    assert view_complaints({"type": "home", "blocks": [chart(), data_table(), container()]}) == []
    assert view_complaints({"type": "home", "blocks": [plan(task())]}) != []


def test_the_content_of_a_container_can_be_read_and_pressed() -> None:
    """The blocks in a container get ids like other blocks."""
    button = {"type": "button", "text": {"type": "plain_text", "text": "Press"}, "action_id": "press"}
    (block,) = with_ids([container(child_blocks=[SECTION, {"type": "actions", "elements": [button]}])])
    assert [control.label for control in controls([block])] == ["Press"]
    assert all(child["block_id"] for child in block["child_blocks"])
    assert visible_text([block], str) == "Title\nx\n[Press]"
