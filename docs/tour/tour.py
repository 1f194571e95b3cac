"""The five-minute tour in a real browser: clicks through docs/tour.md and takes a picture of each step.

`make tour` writes the pictures beside this file; the tests run the same steps, so the tour cannot become outdated. It
uses `stoker sandbox` as users start it, and its page in Debian's Chromium.
"""

import argparse
import asyncio
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Locator, Page, async_playwright, expect

SPEED = 60
PATIENCE_MS = 90_000
"""Timeout of each step; CI may be several times slower than a developer's machine."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Visit:
    """One run through the page, and the folder for its pictures."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self._folder = page, folder
        self.channel = page.locator("#messages")
        self.modal = page.locator("#modal")
        self.panel = page.locator("#cluster")

    async def picture(self, name: str) -> None:
        await self.page.mouse.move(0, 0)  # nothing is hovered by accident
        await self.page.wait_for_timeout(1600)  # wait until recent changes are no longer highlighted
        await self.page.screenshot(path=self._folder / f"{name}.png")
        print(f"  {name}.png", flush=True)

    async def become(self, user: str) -> None:
        await self.page.get_by_role("button", name=f"@{user}").click()

    async def type(self, line: str) -> None:
        await self.page.locator("#line").fill(line)
        await self.page.locator("#line").press("Enter")

    async def press(self, label: str) -> None:
        """Click the newest button with this label in the channel."""
        text = re.compile(f"^{re.escape(label)}$")  # not its accessible name, which also contains its target
        await self.channel.locator("button", has_text=text).last.click()

    def card(self, title: str) -> Locator:
        """The newest message that has this title."""
        return self.channel.locator("article", has_text=title).last

    async def place(self, name: str) -> None:
        await self.page.locator("#sidebar .place", has_text=name).click()


# ── the steps ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def request(visit: Visit) -> None:
    """@dev needs the coding model and types a command."""
    await visit.page.locator("#line").fill("/")
    await expect(visit.page.locator("#offers")).to_contain_text("/gpu")
    await visit.picture("01-commands")
    await visit.type("/gpu up coder-chat for 2h because demo tonight")
    card = visit.card("Bring up coder-chat")
    await expect(card).to_contain_text("demo tonight")
    await expect(card).to_contain_text("Estimated cost")
    await visit.press("Approve")
    await expect(visit.channel).to_contain_text("Only approvers can decide this")
    await visit.picture("02-asked")


async def approve(visit: Visit) -> None:
    """@lead approves, and the model comes up phase by phase."""
    await visit.become("lead")
    await visit.press("Approve")
    card = visit.card("Bring up coder-chat")
    await expect(card).to_contain_text("pulling the image")
    await visit.picture("03-booting")
    await expect(card).to_contain_text("all smoke tests passed")
    await card.get_by_role("button", name=re.compile("repl")).click()
    await expect(visit.page.locator("#thread")).to_contain_text("Smoke tests")
    await visit.picture("04-ready")
    reply = visit.page.locator("#replies article").last
    await reply.hover()
    await reply.get_by_label("More actions").click()
    await reply.get_by_role("menuitem", name="Tell Stoker").click()
    await visit.modal.get_by_label("Command").fill("gpu status")
    await visit.modal.locator("button[type=submit]").click()
    await expect(visit.page.locator("#replies")).to_contain_text("is held by")
    await visit.picture("05-in-a-thread")
    await visit.page.get_by_role("button", name="Close the thread").click()


async def home(visit: Visit) -> None:
    """The app's Home shows the GPU, the endpoints, and the requests that wait for a decision."""
    await visit.become("dev")
    await visit.place("Stoker")
    await visit.page.get_by_role("tab", name="Home").click()
    await expect(visit.page.locator("#home")).to_contain_text("coder-chat")
    await visit.picture("06-home")
    await visit.place("gpu-ops")


async def idle(visit: Visit) -> None:
    """Nobody uses the model: the holder gets a reminder with the cost, brings the model down and gets a receipt."""
    reminder = visit.card("has been idle")
    await expect(reminder).to_be_visible()
    await visit.picture("07-idle")
    await visit.press("Bring down")
    await expect(visit.channel).to_contain_text("Receipt")
    await visit.picture("08-receipt")
    await visit.place("Stoker")
    await visit.page.get_by_role("tab", name="Home").click()
    await expect(visit.page.locator("#home")).to_contain_text("GPU hours by day")
    await visit.page.locator("#home").evaluate("node => node.scrollTo(0, node.scrollHeight)")
    await visit.picture("09-week")
    await visit.place("gpu-ops")


async def add(visit: Visit) -> None:
    """A form adds a model: it opens a pull request, which is approved and rolled out."""
    await visit.type("/model add coder-mini")
    search = visit.modal.get_by_role("combobox").first
    await search.fill("Qwen2.5-Coder-3B")
    await visit.modal.get_by_role("option", name=re.compile("Qwen2.5-Coder-3B-Instruct-AWQ")).first.click()
    await expect(visit.modal).to_contain_text(re.compile("VRAM|fits", re.IGNORECASE))
    await visit.modal.locator(".blocks").evaluate("node => node.scrollTo(0, node.scrollHeight)")
    await visit.picture("10-form")
    await visit.modal.locator("button[type=submit]").click()
    card = visit.card("Add coder-mini")
    await expect(card).to_contain_text("Pull request #1")
    async with visit.page.expect_popup() as opened:
        await visit.panel.get_by_role("link", name=re.compile("#1")).click()
    pull = Visit(await opened.value, visit._folder)
    await expect(pull.page.locator("body")).to_contain_text("serving/coder-mini/deployment.yaml")
    await pull.picture("11-pull-request")
    await pull.page.locator(".file", has_text="platform/litellm/values.yaml").first.evaluate(
        "node => node.scrollIntoView()"
    )
    await pull.picture("12-diff")
    await pull.page.close()
    await expect(card).to_contain_text("checks passed")
    await visit.become("lead")
    await visit.press("Approve & roll out")
    await expect(card).to_contain_text("coder-mini is rolled out")
    await visit.picture("13-rolled-out")


async def out_of_stock(visit: Visit) -> None:
    """The cloud has no GPU: the message shows what failed, why and what to do, and the GPU is free again."""
    await visit.panel.locator("summary", has_text="Break something").click()
    await visit.panel.get_by_label("no-stock").check()
    await visit.become("dev")
    await visit.type("/gpu up coder-mini")
    await expect(visit.card("Bring up coder-mini")).to_contain_text("Awaiting approval")
    await visit.become("lead")
    await visit.press("Approve")
    await expect(visit.card("Bring up coder-mini")).to_contain_text("Failed")
    await expect(visit.card("Bring up coder-mini")).to_contain_text("GPU is free")
    await visit.picture("14-no-stock")
    await visit.panel.get_by_label("no-stock").uncheck()


async def kill_and_resume(visit: Visit) -> None:
    """The bot is killed during a boot and resumes; without Redis, nothing can be brought up."""
    await visit.become("dev")
    await visit.type("/gpu up coder-fim")
    await expect(visit.card("Bring up coder-fim")).to_contain_text("Awaiting approval")
    await visit.become("lead")
    await visit.press("Approve")
    await expect(visit.card("Bring up coder-fim")).to_contain_text("starting")
    await visit.panel.get_by_role("button", name="kill the bot").click()
    await expect(visit.card("Bring up coder-fim")).to_contain_text("all smoke tests passed")
    await visit.panel.get_by_role("button", name="stop Redis").click()
    await expect(visit.panel.get_by_role("status")).to_have_text("Redis is stopped.")
    await visit.type("/gpu up coder-mini")
    await expect(visit.channel.locator("article.ephemeral").last).to_contain_text("Redis")
    await visit.picture("15-survived")
    await visit.panel.get_by_role("button", name="start Redis").click()


async def phone(visit: Visit) -> None:
    """The page works on a phone and in dark mode."""
    await visit.page.emulate_media(color_scheme="dark")
    await visit.page.set_viewport_size({"width": 390, "height": 780})
    await visit.channel.evaluate("node => node.scrollTo(0, node.scrollHeight)")
    await visit.picture("16-phone")


STEPS: tuple[Callable[[Visit], Awaitable[None]], ...] = (
    request,
    approve,
    home,
    idle,
    add,
    out_of_stock,
    kill_and_resume,
    phone,
)


# ── the run ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def sandbox() -> AsyncIterator[str]:
    """`stoker sandbox`, as users start it; yields the address that it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "sandbox", "--speed", str(SPEED), "--port", "8790"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout  # noqa: S101
    try:
        while line := await asyncio.wait_for(process.stdout.readline(), PATIENCE_MS / 1000):
            if address := re.search(r"http://[\d.:]+", line.decode()):
                yield address[0]
                return
        raise SystemExit("stoker sandbox ended before it printed its address")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


@asynccontextmanager
async def opened_page() -> AsyncIterator[Page]:
    """The sandbox's page in a browser, as @dev sees it."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        raise SystemExit("The tour needs Chromium on PATH (Debian: apt-get install chromium fonts-noto-color-emoji).")
    async with sandbox() as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = await browser.new_page(
            viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="Europe/Berlin"
        )
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(f"{url}/?user=U0DEV")
        yield page
        await browser.close()


async def run_tour(folder: Path) -> None:
    """Run all steps in order, in one page; the first failed step ends the run."""
    expect.set_options(timeout=PATIENCE_MS)
    async with opened_page() as page:
        visit = Visit(page, folder)
        for step in STEPS:
            print(f"{step.__name__}: {step.__doc__}", flush=True)
            try:
                await step(visit)
            except BaseException:
                await page.screenshot(path=folder / "failed.png")
                raise


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--to", type=Path, default=Path(__file__).parent, help="the folder for the pictures")
    to: Path = options.parse_args().to
    to.mkdir(parents=True, exist_ok=True)
    asyncio.run(run_tour(to))
