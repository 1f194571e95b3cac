"""How a story is told on a world: each step is printed with its outcome, and what the bot says below it as it comes.

The world is a protocol, so this module knows neither Slack nor a process.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from sandbox.story import (
    PATIENCE,
    BotKilled,
    Break,
    Checks,
    Click,
    Close,
    Command,
    Expect,
    ExpectNot,
    Fill,
    Line,
    Mend,
    Merge,
    OpenHome,
    Pick,
    RedisFlushed,
    RedisStarts,
    RedisStops,
    Say,
    Scale,
    Step,
    Story,
    Submit,
    Traffic,
    Wait,
    Write,
)

LOOK_EVERY = 0.1
"""Seconds between two looks at what is visible."""

_TIME = re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|min|m|h)\b")
"""How long something has taken: a running phase is printed once, not every second."""

_WAITING = (Expect, ExpectNot, Traffic, Wait)
"""Steps during which the bot is listened to; what an action brings about is printed below it, not above."""


@dataclass(frozen=True)
class Seen:
    """A text that became visible, and the message or modal (its id) that it is a revision of."""

    source: str
    text: str


class World(Protocol):
    """What a story acts on. A method returns when its action is done; one that cannot be done now raises StepError."""

    async def command(self, user: str, text: str) -> None: ...
    async def say(self, user: str, text: str, under: str) -> None: ...
    async def write(self, user: str, text: str) -> None: ...
    async def pick(self, user: str, name: str, on: str) -> None: ...
    async def open_home(self, user: str) -> None: ...
    async def click(self, user: str, label: str) -> None: ...
    async def fill(self, user: str, label: str, value: str) -> None: ...
    async def submit(self, user: str) -> None: ...
    def now(self) -> float: ...
    def visible(self, user: str, since: float) -> list[Seen]: ...
    async def checks(self, *, passed: bool) -> None: ...
    async def merge(self) -> None: ...
    async def close(self) -> None: ...
    async def traffic(self, model: str, per_second: float, seconds: float) -> None: ...
    async def scale(self, name: str, replicas: int) -> None: ...
    async def redis_stops(self) -> None: ...
    async def redis_starts(self) -> None: ...
    async def redis_flushed(self) -> None: ...
    async def kill_bot(self) -> None: ...
    def break_(self, fault: str) -> None: ...
    def mend(self, fault: str) -> None: ...


class StepError(Exception):
    """The world cannot do what the story says: no such button, no open modal, no pull request."""


class Telling:
    """One run of a story: who acted last, when, and what has been printed since."""

    def __init__(self, story: Story, world: World, say: Callable[[str], None]) -> None:
        self.story = story
        self._world = world
        self._say = say
        self._actor = ""
        self._since = world.now()
        self._printed: defaultdict[str, set[str]] = defaultdict(set)
        """By message, the lines that were printed of it, their times aside."""

    async def run(self) -> bool:
        """Tell the whole story; False at the first step that fails, which is then explained."""
        began = time.monotonic()
        for line in self.story.lines:
            start = time.monotonic()
            echo = asyncio.create_task(self._echo()) if isinstance(line.step, _WAITING) else None
            failure = ""
            try:
                await self._take(line.step)
            except StepError as error:
                failure = str(error)
            finally:
                if echo:
                    echo.cancel()
                    self._show_new()
            self._say(f"{'✗' if failure else '✓'} {line.text}   ({time.monotonic() - start:.1f} s)")
            if failure:
                self._explain(line, failure)
                return False
        self._say(f"\n{self.story.path.name}: {len(self.story.lines)} steps in {time.monotonic() - began:.1f} s")
        return True

    async def _take(self, step: Step) -> None:
        world = self._world
        match step:
            case Command(user=user, text=text):
                self._act(user)
                await world.command(user, text)
            case Say(user=user, text=text, under=under):
                await self._patiently(user, lambda: world.say(user, text, under))
            case Write(user=user, text=text):
                await self._patiently(user, lambda: world.write(user, text))
            case Pick(user=user, name=name, on=on):
                await self._patiently(user, lambda: world.pick(user, name, on))
            case OpenHome(user=user):
                self._act(user)
                await world.open_home(user)
            case Click(user=user, label=label):
                await self._patiently(user, lambda: world.click(user, label))
            case Fill(user=user, label=label, value=value):
                await self._patiently(user, lambda: world.fill(user, label, value))
            case Submit(user=user):
                await self._patiently(user, lambda: world.submit(user))
            case Expect(text=text, within=within):
                await self._expect(text, within)
            case ExpectNot(text=text, within=within):
                await self._expect_not(text, within)
            case Checks(passed=passed):
                await world.checks(passed=passed)
            case Merge():
                await world.merge()
            case Close():
                await world.close()
            case Traffic(model=model, per_second=per_second, seconds=seconds):
                await world.traffic(model, per_second, seconds)
            case Scale(name=name, replicas=replicas):
                await world.scale(name, replicas)
            case RedisStops():
                await world.redis_stops()
            case RedisStarts():
                await world.redis_starts()
            case RedisFlushed():
                await world.redis_flushed()
            case BotKilled():
                await world.kill_bot()
            case Break(fault=fault):
                world.break_(fault)
            case Mend(fault=fault):
                world.mend(fault)
            case Wait(seconds=seconds):
                await asyncio.sleep(seconds)
            case _:
                assert_never(step)

    def _act(self, user: str) -> None:
        """From here on counts only what is seen after this moment, also by this user alone."""
        self._show_new()
        self._actor, self._since = user, self._world.now()

    async def _patiently(self, user: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do it as soon as it can be done: a button may come a moment after the line before."""
        began = time.monotonic()
        since = self._world.now()
        while True:
            self._act(user)
            try:
                await act()
            except StepError:
                if time.monotonic() > began + PATIENCE:
                    self._since = since  # so that the failure shows everything that came meanwhile
                    raise
            else:
                return
            await asyncio.sleep(LOOK_EVERY)

    def _seen(self) -> list[Seen]:
        return self._world.visible(self._actor, self._since)

    def _sees(self, text: str) -> bool:
        return any(_fold(text) in _fold(seen.text) for seen in self._seen())

    async def _expect(self, text: str, within: float) -> None:
        deadline = time.monotonic() + within
        while not self._sees(text):
            if time.monotonic() > deadline:
                raise StepError(f"“{text}” was not seen within {within:g} s")
            await asyncio.sleep(LOOK_EVERY)

    async def _expect_not(self, text: str, within: float) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() <= deadline:
            if self._sees(text):
                raise StepError(f"“{text}” was seen")
            await asyncio.sleep(LOOK_EVERY)

    async def _echo(self) -> None:
        while True:
            self._show_new()
            await asyncio.sleep(LOOK_EVERY)

    def _show_new(self) -> None:
        """Print the lines that came or changed since the last look; a card's unchanged lines are not said again."""
        for seen in self._seen():
            printed = self._printed[seen.source]
            for line in filter(None, map(str.strip, seen.text.splitlines())):
                timeless = _TIME.sub("", line)
                if timeless not in printed:
                    printed.add(timeless)
                    self._say(f"      │ {line}")

    def _explain(self, line: Line, failure: str) -> None:
        self._say(f"\n{self.story.path}:{line.number}: {line.text}\n  {failure}.")
        seen = list(dict.fromkeys(seen.text for seen in self._seen()))
        self._say(f"  Seen since @{self._actor} acted:" if self._actor else "  Seen since the start:")
        for text in seen or ["nothing"]:
            self._say("    • " + "\n      ".join(filter(None, map(str.rstrip, text.splitlines()))))


async def tell(story: Story, world: World, say: Callable[[str], None]) -> bool:
    """Run a story on a world and print its transcript with `say`; whether every step held."""
    return await Telling(story, world, say).run()


def _fold(text: str) -> str:
    """Case, and how a text is wrapped, do not count."""
    return " ".join(text.casefold().split())
