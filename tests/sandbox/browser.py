"""Debian's Chromium, driven by Playwright, for the tests of what people see."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, Request, async_playwright, expect

PATIENCE_MS = 90_000
PATHS = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=PATIENCE_MS)


def chromium() -> str:
    """The browser's path. Without one the test is skipped, but in CI it fails: there it must run."""
    found = next(filter(None, map(shutil.which, PATHS)), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("CI has no Chromium: .ci/run installs it (apt-get install chromium)")
    if found is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    return found


@asynccontextmanager
async def opened(url: str, *, width: int = 1440, height: int = 900) -> AsyncIterator[Page]:
    """A page at `url`; at the end, check that nothing was loaded from other hosts and no script failed."""
    strange: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith((url.split("/?")[0], "data:")):
            strange.append(request.url)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", asked)
        page.on("pageerror", lambda error: strange.append(f"script error: {error}"))
        await page.goto(url)
        yield page
        await browser.close()
    assert strange == []
