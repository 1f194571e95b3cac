"""Runs a story on a sandbox and prints each step with its outcome, followed by the bot's messages.

`World` is a protocol, so this module does not depend on Slack or on processes.
"""

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, assert_never

from sandbox.steps import (
    BotKilled,
    Break,
    ChangeMain,
    Checks,
    ChecksAppear,
    ChecksNone,
    Click,
    Close,
    ClusterEvent,
    Command,
    EngineCrashes,
    EngineSays,
    Expect,
    Expectation,
    ExpectMerged,
    ExpectNot,
    ExpectNotified,
    ExpectNotMerged,
    ExpectNotNotified,
    ExpectReplicas,
    Fill,
    Gesture,
    Mend,
    Merge,
    NodeReclaimed,
    OpenHome,
    Pick,
    PushToPull,
    RedisFlushed,
    RedisStarts,
    RedisStops,
    RepositoryEvent,
    Retarget,
    Say,
    Scale,
    SlackArchives,
    SlackDeletes,
    SlackEvent,
    SlackMembership,
    Step,
    Submit,
    Traffic,
    Wait,
    Write,
)
from sandbox.story import PATIENCE, Line, Story

LOOK_EVERY = 0.1
"""Seconds between two checks of the visible texts."""

_TIME = re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|min|m|h)\b")
"""Matches durations, which are ignored so that a running phase is printed once, not every second."""

_WAITING = (
    Expect,
    ExpectNot,
    ExpectNotified,
    ExpectNotNotified,
    ExpectReplicas,
    ExpectMerged,
    ExpectNotMerged,
    Traffic,
    Wait,
)
"""Steps that wait. New messages are printed during such a step, and below the line of any other step."""


@dataclass(frozen=True)
class Seen:
    """A text that became visible: the id of its message or view, the text, and its previous text."""

    source: str
    text: str
    before: str = ""

    def shows(self, words: str) -> bool:
        """Return whether `words` are new in this revision, or in a line that changed; case and line breaks are ignored.

        A line in which only a duration changed does not count.
        """
        folded = _fold(words)
        changed = _changed_lines(self.before, self.text)
        return folded in changed or _fold(self.text).count(folded) > _fold(self.before).count(folded)


@dataclass(frozen=True)
class Pushed:
    """A notification: its time, the user name, the cause (`mention`, `direct message`), and the text."""

    at: float
    user: str
    how: str
    text: str

    def says(self, words: str) -> bool:
        return _fold(words) in _fold(self.text)


class World(Protocol):
    """The system on which a story acts.

    A method returns when its action is done, and raises StepError if the action is not possible yet.
    """

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
    def pushed(self, since: float) -> list[Pushed]: ...
    def replicas(self, name: str) -> int | None: ...
    async def slack_deletes(self) -> None: ...
    async def slack_archives(self, *, archived: bool) -> None: ...
    async def slack_membership(self, *, member: bool) -> None: ...
    async def checks(self, *, passed: bool) -> None: ...
    async def checks_appear(self) -> None: ...
    async def checks_none(self) -> None: ...
    async def push(self, path: str, text: str, old: str) -> None: ...
    async def retarget(self, branch: str) -> None: ...
    async def change_main(self, path: str, text: str, old: str) -> None: ...
    def merged_to(self) -> str | None: ...
    async def merge(self) -> None: ...
    async def close(self) -> None: ...
    async def traffic(self, model: str, per_second: float, seconds: float) -> None: ...
    async def scale(self, name: str, replicas: int) -> None: ...
    async def redis_stops(self) -> None: ...
    async def redis_starts(self) -> None: ...
    async def redis_flushed(self) -> None: ...
    async def kill_bot(self) -> None: ...
    def reclaim_node(self) -> None: ...
    def engine_crashes(self, model: str) -> None: ...
    def engine_says(self, line: str, model: str) -> None: ...
    def break_(self, fault: str) -> None: ...
    def mend(self, fault: str) -> None: ...


class StepError(Exception):
    """The step failed, or is not possible: there is no such button, no open modal, no pull request."""


class StoryRun:
    """One run of a story, with the last actor, the time of the last action, and the printed lines."""

    def __init__(self, story: Story, world: World, say: Callable[[str], None], patience: float) -> None:
        self.story, self._patience = story, patience
        self._world = world
        self._say = say
        self._actor = ""
        self._began = self._since = world.now()
        self._printed: defaultdict[str, set[str]] = defaultdict(set)
        """The printed lines of each message, without durations."""

    async def run(self) -> bool:
        """Run the whole story; at the first step that fails, print the reason and return False."""
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
                self._count_notifications()
                return False
        self._count_notifications()
        self._say(f"\n{self.story.path.name}: {len(self.story.lines)} steps in {time.monotonic() - began:.1f} s")
        return True

    async def _take(self, step: Step) -> None:
        match step:
            case Wait(seconds=seconds):
                await asyncio.sleep(seconds)
            case Command() | Say() | Write() | Pick() | OpenHome() | Click() | Fill() | Submit():
                await self._gesture(step)
            case SlackDeletes() | SlackArchives() | SlackMembership():
                await self._slack_event(step)
            case (
                Checks() | ChecksAppear() | ChecksNone() | PushToPull() | Retarget() | ChangeMain() | Merge() | Close()
            ):
                await self._repository_event(step)
            case (
                Expect()
                | ExpectNot()
                | ExpectNotified()
                | ExpectNotNotified()
                | ExpectReplicas()
                | ExpectMerged()
                | ExpectNotMerged()
            ):
                await self._expectation(step)
            case _:
                await self._cluster_event(step)

    async def _gesture(self, step: Gesture) -> None:
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
            case _:
                assert_never(step)

    async def _expectation(self, step: Expectation) -> None:
        match step:
            case Expect(text=text, within=within):
                await self._expect(text, within)
            case ExpectNot(text=text, within=within):
                await self._expect_not(text, within)
            case ExpectNotified(user=user, text=text, within=within):
                await self._expect_notified(user, text, within)
            case ExpectNotNotified(user=user, text=text, within=within):
                await self._expect_not_notified(user, text, within)
            case ExpectReplicas(name=name, replicas=replicas, within=within):
                await self._expect_replicas(name, replicas, within)
            case ExpectMerged(branch=branch, within=within):
                await self._expect_merged(branch, within)
            case ExpectNotMerged(within=within):
                await self._expect_not_merged(within)
            case _:
                assert_never(step)

    async def _slack_event(self, step: SlackEvent) -> None:
        world = self._world
        self._act(self._actor)
        match step:
            case SlackDeletes():
                await world.slack_deletes()
            case SlackArchives(archived=archived):
                await world.slack_archives(archived=archived)
            case SlackMembership(member=member):
                await world.slack_membership(member=member)
            case _:
                assert_never(step)

    async def _repository_event(self, step: RepositoryEvent) -> None:
        world = self._world
        match step:
            case Checks(passed=passed):
                await world.checks(passed=passed)
            case ChecksAppear():
                await world.checks_appear()
            case ChecksNone():
                await world.checks_none()
            case PushToPull(path=path, text=text, old=old):
                await world.push(path, text, old)
            case Retarget(branch=branch):
                await world.retarget(branch)
            case ChangeMain(path=path, text=text, old=old):
                await world.change_main(path, text, old)
            case Merge():
                await world.merge()
            case Close():
                await world.close()
            case _:
                assert_never(step)

    async def _cluster_event(self, step: ClusterEvent) -> None:
        world = self._world
        match step:
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
            case NodeReclaimed():
                world.reclaim_node()
            case EngineCrashes(model=model):
                world.engine_crashes(model)
            case EngineSays(line=line, model=model):
                world.engine_says(line, model)
            case Break(fault=fault):
                world.break_(fault)
            case Mend(fault=fault):
                world.mend(fault)
            case _:
                assert_never(step)

    def _act(self, user: str) -> None:
        """Reset the observation window to now, for this user."""
        self._show_new()
        self._actor, self._since = user, self._world.now()

    async def _patiently(self, user: str, act: Callable[[], Awaitable[None]]) -> None:
        """Retry the action until it is possible, because a button may appear a moment after the previous step."""
        began = time.monotonic()
        since = self._world.now()
        while True:
            self._act(user)
            try:
                await act()
            except StepError:
                if time.monotonic() > began + max(PATIENCE, self._patience):
                    self._since = since  # so that the failure shows all texts since the first attempt
                    raise
            else:
                return
            await asyncio.sleep(LOOK_EVERY)

    def _seen(self) -> list[Seen]:
        return self._world.visible(self._actor, self._since)

    def _sees(self, text: str) -> bool:
        return any(visible_text.shows(text) for visible_text in self._seen())

    async def _expect(self, text: str, within: float) -> None:
        deadline = time.monotonic() + max(within, self._patience)
        while not self._sees(text):
            if time.monotonic() > deadline:
                raise StepError(f"“{text}” was not seen within {within:g} s")
            await asyncio.sleep(LOOK_EVERY)

    async def _expect_replicas(self, name: str, expected: int, within: float) -> None:
        deadline = time.monotonic() + max(within, self._patience)
        while (replicas := self._world.replicas(name)) != expected:
            if time.monotonic() > deadline:
                has = "is not in the cluster" if replicas is None else f"has {replicas}"
                raise StepError(f"{name} {has} after {within:g} s, not {expected} replicas")
            await asyncio.sleep(LOOK_EVERY)

    async def _expect_not(self, text: str, within: float) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() <= deadline:
            if self._sees(text):
                raise StepError(f"“{text}” was seen")
            await asyncio.sleep(LOOK_EVERY)

    def _pushed_to(self, user: str) -> list[Pushed]:
        return [pushed for pushed in self._world.pushed(self._since) if pushed.user == user]

    async def _expect_notified(self, user: str, text: str, within: float) -> None:
        deadline = time.monotonic() + max(within, self._patience)
        while not any(pushed.says(text) for pushed in self._pushed_to(user)):
            if time.monotonic() > deadline:
                received = " · ".join(f"“{pushed.text}”" for pushed in self._pushed_to(user)) or "nothing"
                raise StepError(f"@{user} was not notified of “{text}” within {within:g} s, but of: {received}")
            await asyncio.sleep(LOOK_EVERY)

    async def _expect_not_notified(self, user: str, text: str, within: float) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() <= deadline:
            for pushed in self._pushed_to(user):
                if pushed.says(text):
                    raise StepError(f"@{user} was notified by {pushed.how}: “{pushed.text}”")
            await asyncio.sleep(LOOK_EVERY)

    async def _expect_merged(self, branch: str, within: float) -> None:
        deadline = time.monotonic() + max(within, self._patience)
        while (merged_to := self._world.merged_to()) is None:
            if time.monotonic() > deadline:
                raise StepError(f"the newest pull request was not merged within {within:g} s")
            await asyncio.sleep(LOOK_EVERY)
        if merged_to != branch:
            raise StepError(f"the newest pull request was merged to “{merged_to}”")

    async def _expect_not_merged(self, within: float) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() <= deadline:
            if merged_to := self._world.merged_to():
                raise StepError(f"the newest pull request was merged to “{merged_to}”")
            await asyncio.sleep(LOOK_EVERY)

    async def _echo(self) -> None:
        while True:
            self._show_new()
            await asyncio.sleep(LOOK_EVERY)

    def _show_new(self) -> None:
        """Print new and changed lines since the last check; unchanged lines of a card are not repeated."""
        for item in self._seen():
            printed = self._printed[item.source]
            for line in filter(None, map(str.strip, item.text.splitlines())):
                timeless = _TIME.sub("", line)
                if timeless not in printed:
                    printed.add(timeless)
                    self._say(f"      │ {line}")

    def _count_notifications(self) -> None:
        """Print the number of notifications of each user."""
        counted = Counter((p.user, p.how, " ".join(p.text.split())) for p in self._world.pushed(self._began))
        self._say("\nNotified:" if counted else "\nNobody was notified.")
        for user in sorted({user for user, *_ in counted}):
            self._say(f"  @{user}: {sum(n for (receiver, *_), n in counted.items() if receiver == user)}")
            for (receiver, kind, text), times in counted.items():
                if receiver == user:
                    self._say(f"    {times} × {kind}: {text}")

    def _explain(self, line: Line, failure: str) -> None:
        self._say(f"\n{self.story.path}:{line.number}: {line.text}\n  {failure}.")
        texts = list(dict.fromkeys(item.text for item in self._seen()))
        self._say(f"  Seen since @{self._actor} acted:" if self._actor else "  Seen since the start:")
        for text in texts or ["nothing"]:
            self._say("    • " + "\n      ".join(filter(None, map(str.rstrip, text.splitlines()))))


async def run_story(story: Story, world: World, say: Callable[[str], None], *, patience: float = 0) -> bool:
    """Run a story and print its transcript with `say`; returns whether every step succeeded.

    A step that waits for something waits for at least `patience` seconds, even if its `within` is shorter.
    """
    return await StoryRun(story, world, say, patience).run()


@lru_cache(maxsize=1000)  # a story checks the same texts ten times a second
def _changed_lines(before: str, text: str) -> str:
    """Return the folded lines of `text` that are not in `before`; durations are ignored."""
    lines_before = {_TIME.sub("", line) for line in before.splitlines()}
    return _fold("\n".join(line for line in text.splitlines() if _TIME.sub("", line) not in lines_before))


@lru_cache(maxsize=1000)
def _fold(text: str) -> str:
    """Return the text in lower case and without line breaks, for comparisons."""
    return " ".join(text.casefold().split())
