"""The animated picture of the README: one session in the sandbox, from the request to the receipt.

`make tour` writes it beside this file. It uses the same page and browser as the tour.
"""

import argparse
import asyncio
import io
from pathlib import Path

from PIL import Image
from playwright.async_api import expect
from tour import PATIENCE_MS, Visit, opened_page

SIZE = (1000, 625)
FAST, SLOW, END = 500, 1700, 4500
"""Duration of a frame in milliseconds."""


class Film:
    """Frames of the page, each with its duration."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._frames: list[tuple[Image.Image, int]] = []

    async def frame(self, milliseconds: int) -> None:
        shot = Image.open(io.BytesIO(await self._visit.page.screenshot())).convert("RGB")
        self._frames.append((shot.resize(SIZE, Image.Resampling.LANCZOS), milliseconds))

    def write(self, path: Path) -> None:
        first, *others = [image for image, _ in self._frames]
        times = [milliseconds for _, milliseconds in self._frames]
        first.save(path, save_all=True, append_images=others, duration=times, loop=0, quality=70, method=6)


async def record(path: Path) -> None:
    expect.set_options(timeout=PATIENCE_MS)
    async with opened_page() as page:
        visit = Visit(page, path.parent)
        film = Film(visit)
        command = "/gpu up coder-chat for 2h because demo tonight"
        for end in (len("/gpu up"), len("/gpu up coder-chat"), len(command)):
            await page.locator("#line").fill(command[:end])
            await film.frame(FAST)
        await page.locator("#line").press("Enter")
        card = visit.card("Bring up coder-chat")
        await expect(card).to_contain_text("Estimated cost")
        await film.frame(SLOW)
        await visit.become("lead")
        await film.frame(SLOW)
        await visit.press("Approve")
        await expect(card).to_contain_text("Approved by")
        for _ in range(60):
            await film.frame(FAST)
            if "all smoke tests passed" in await card.inner_text():
                break
            await page.wait_for_timeout(900)
        await film.frame(SLOW)
        await visit.become("dev")
        await page.wait_for_timeout(15_000)  # 15 minutes of the session at the sandbox's speed
        await page.locator("#line").fill("/gpu down")
        await film.frame(SLOW)
        await page.locator("#line").press("Enter")
        await expect(visit.channel).to_contain_text("the node billed")
        await page.wait_for_timeout(2000)
        await film.frame(END)
        film.write(path)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--to", type=Path, default=Path(__file__).with_name("session.webp"), help="the picture's file")
    asyncio.run(record(options.parse_args().to))
