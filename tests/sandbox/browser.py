"""Debian's Chromium, driven by Playwright, for the tests of what people see."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Request, async_playwright, expect

PATIENCE_MS = 90_000
NAMES = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=PATIENCE_MS)


def chromium() -> str:
    """Return the browser's path. Without a browser the test is skipped, except in CI, where it fails."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None and os.environ.get("CI"):
        pytest.fail("CI has no Chromium: .ci/run installs it (apt-get install chromium)")
    if path is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    return path


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests of a module: its start costs more than most of the tests. Each page has its own cookies and storage."""
    path = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def open_page(browser: Browser, url: str, *, width: int = 1440, height: int = 900) -> AsyncIterator[Page]:
    """A page at `url`; at the end, check that nothing was loaded from other hosts and no script failed."""
    problems: list[str] = []

    def check(request: Request) -> None:
        if not request.url.startswith((url.split("/?")[0], "data:")):
            problems.append(request.url)

    page = await browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_MS)
    page.on("request", check)
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    await page.goto(url)
    yield page
    await page.close()
    assert problems == []
