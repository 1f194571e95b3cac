"""The five-minute tour works: docs/tour/tour.py runs it in a real Chromium, and docs/tour.md shows its pictures."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.sandbox.browser import chromium

DOCS = Path(__file__).parents[2] / "docs"
LIMIT = 540
"""Seconds for the tour; it takes about 90 on two cores."""


@pytest.mark.timeout(LIMIT + 30)
async def test_every_step_of_the_tour_succeeds(tmp_path: Path) -> None:
    """Every step of the tour succeeds, and takes the pictures of docs/tour.md."""
    chromium()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DOCS / "tour" / "tour.py"), "--to", str(tmp_path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    communication = asyncio.create_task(process.communicate())
    done, _ = await asyncio.wait({communication}, timeout=LIMIT)
    if not done:
        process.terminate()
    output, _ = await communication
    assert process.returncode == 0, output.decode()[-4000:]
    names = {picture.name for picture in tmp_path.glob("*.png")}
    assert names == pictures()
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)


def test_the_tour_shows_every_picture() -> None:
    """docs/tour.md has no broken image, and shows every picture."""
    assert {picture.name for picture in (DOCS / "tour").glob("*.png")} == pictures()


def pictures() -> set[str]:
    """The pictures that docs/tour.md shows."""
    return set(re.findall(r"\(tour/([\w-]+\.png)\)", (DOCS / "tour.md").read_text(encoding="utf-8")))
