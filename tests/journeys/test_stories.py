"""Every story in docs/stories succeeds: a whole platform in this process, and the bot in its own, which is a fork.

Another process for each sandbox would import the same modules and parse the same files again, and so would each bot. That is
more than half of a story's processor time. `test_the_command_runs_a_story_over_http` starts both as people do.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from sandbox.main import run

STORIES = sorted((Path(__file__).parents[2] / "docs" / "stories").glob("*.story"))
LIMIT = 580
"""Seconds for one story; the longest takes about a minute on two cores."""
PATIENCE = 120
"""Minimum seconds that a story waits for an expected text: a machine may stall, and `within` is meant for people."""


def test_there_are_stories() -> None:
    """Without stories, all other tests here would pass."""
    assert STORIES


OVER_HTTP = ("01-up-and-down", "04-refusals")
"""Stories that also succeed if Slack sends signed requests over HTTP."""


@pytest.mark.timeout(LIMIT + 20)
@pytest.mark.parametrize("name", OVER_HTTP)
async def test_the_command_runs_a_story_over_http(name: str) -> None:
    """`stoker sandbox --script` ends with exit code 0 because the story succeeds. The bot runs without Socket Mode."""
    story = next(story for story in STORIES if story.stem == name)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "sandbox", "--script", str(story), "--patience", str(PATIENCE), "--http",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    communication = asyncio.create_task(process.communicate())
    done, _ = await asyncio.wait({communication}, timeout=LIMIT)
    if not done:
        process.terminate()  # `run` ends its own processes
    transcript, _ = await communication
    assert process.returncode == 0, transcript.decode()


@pytest.mark.usefixtures("forked")
@pytest.mark.timeout(LIMIT + 20)
@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
async def test_the_story_succeeds(story: Path) -> None:
    """Every step of it succeeds; its transcript is the output of this test."""
    async with asyncio.timeout(LIMIT):  # after the time limit, `run` ends everything and returns 130
        assert await run(platform=None, speed=60, port=0, script=story, config=None, patience=PATIENCE) == 0
