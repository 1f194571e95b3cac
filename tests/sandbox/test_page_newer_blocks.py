"""The page draws Slack's newer blocks: by day and by night, on a screen and on a phone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.faults import Faults
from sandbox.slack import Workspace
from tests.sandbox.browser import browser, open_page
from tests.sandbox.test_page import unreadable
from tests.sandbox.test_slack_surfaces import plain

__all__ = ["browser"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]


def rich(*parts: Json) -> Json:
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": list(parts)}]}


def raw(text: str) -> Json:
    return {"type": "raw_text", "text": text}


def number(value: float) -> Json:
    return {"type": "raw_number", "value": value, "text": f"${value:.2f}"}


def bars(*names: str) -> Json:
    points = [{"label": "Mon", "value": 2}, {"label": "Tue", "value": 0.5}]
    return {
        "type": "bar",
        "series": [{"name": name, "data": points} for name in names],
        "axis_config": {"categories": ["Mon", "Tue"], "y_label": "hours"},
    }


MESSAGE: list[Json] = [
    {"type": "plan", "title": "Step 2 of 3: loading", "tasks": [
        {"task_id": "1", "title": "syncing · 4 s", "status": "complete"},
        {"task_id": "2", "title": "loading … 9 s", "status": "in_progress", "details": rich({"type": "text", "text": "8.2 GB"})},
        {"task_id": "3", "title": "smoke tests", "status": "pending"}]},
    {"type": "table", "rows": [[raw("Test"), raw("Result")], [rich({"type": "text", "text": "health", "style": {"code": True}}), raw("passed")]],
     "column_settings": [{"is_wrapped": True}, {"align": "right"}]},
    {"type": "data_table", "caption": "12 endpoints", "page_size": 10, "rows": [[raw("Endpoint"), raw("Price"), raw("Held by")],
     *([raw(f"chat-{n:02}"), number(n), rich({"type": "user", "user_id": "U0DEV"})] for n in range(12))]},
    {"type": "container", "title": plain("More of the plan"), "is_collapsible": True, "default_collapsed": True, "child_blocks": [
        {"type": "section", "text": {"type": "mrkdwn", "text": "*Commit*: `6f5dab`"}}]},
    {"type": "data_visualization", "title": "GPU hours", "chart": bars("in use", "idle")},
]  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace(Faults()) as workspace:
        client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
        await client.chat_postMessage(channel="C0GPUOPS", text="x", blocks=MESSAGE)
        yield workspace


async def test_the_blocks_are_drawn_and_can_be_used(browser: Browser, workspace: Workspace) -> None:
    """Steps have states, tables have pages and sortable columns, collapsed content opens, and charts have bars."""
    async with open_page(browser, f"{workspace.url}/?user=U0DEV") as page:
        message = page.locator("#messages article")
        await expect(message.locator(".plan li.in_progress")).to_contain_text("loading … 9 s")
        await expect(message.locator(".plan li.in_progress")).to_contain_text("8.2 GB")
        await expect(message.get_by_role("img", name="pending")).to_be_visible()
        await expect(message.locator(".table th code")).to_have_text("health")
        table = message.locator(".data_table")
        await expect(table.locator("tbody tr")).to_have_count(10)
        await expect(table.locator(".mention").first).to_have_text("@dev")
        await table.get_by_role("button", name="›").click()
        await expect(table.locator("tbody th").first).to_have_text("chat-10")
        for _ in range(2):
            await table.get_by_role("button", name="Price").click()
        await expect(table.locator("tbody th").first).to_have_text("chat-11")
        await expect(message.get_by_text("6f5dab")).to_be_hidden()
        await message.get_by_text("More of the plan").click()
        await expect(message.get_by_text("6f5dab")).to_be_visible()
        await expect(message.get_by_role("img", name="GPU hours. in use: Mon 2, Tue 0.5")).to_be_visible()
        await expect(message.locator("rect")).to_have_count(4)
        assert await unreadable(page) == []


async def test_a_phone_shows_the_blocks_without_horizontal_scrolling(browser: Browser, workspace: Workspace) -> None:
    """Only a wide table scrolls horizontally."""
    async with open_page(browser, f"{workspace.url}/?user=U0DEV", width=390, height=780) as page:
        await expect(page.locator("#messages")).to_contain_text("GPU hours")
        wide = "document.documentElement.scrollWidth > innerWidth || document.querySelector('#messages').scrollWidth > innerWidth"
        assert not await page.evaluate(wide)
