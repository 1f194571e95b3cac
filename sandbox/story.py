"""The story language: one line, one step; what people do on the platform and what they then see.

A story is parsed whole before anything starts (`parse`), so a typing mistake costs a second and not a minute, and
is then told on a `World` (`tell`): each step is printed with its outcome, and what the bot says below it as it comes.
The world is a protocol, so this module knows neither Slack nor a process.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, assert_never

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PATIENCE = 10.0
"""Seconds that a click waits for its button, and an `expect` without `within` for its text."""

LOOK_EVERY = 0.1
"""Seconds between two looks at what is visible."""


# ---------------------------------------------------------------------------------------------------------- the steps


@dataclass(frozen=True, kw_only=True)
class Command:
    """`@dev /gpu up coder-chat`: a slash command; over when the bot has acknowledged it."""

    user: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Click:
    """`@lead clicks "Approve"`: the newest visible button with that label."""

    user: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Fill:
    """`@dev fills "Label" with "value"`: a field of the modal that the user has open."""

    user: str
    label: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Submit:
    """`@dev submits`: the modal that the user has open."""

    user: str


@dataclass(frozen=True, kw_only=True)
class Expect:
    """`expect "text" within 10s`: seen at least once since somebody acted."""

    text: str
    within: float


@dataclass(frozen=True, kw_only=True)
class ExpectNot:
    """`expect not "text" within 2s`: not seen since somebody acted, nor for that long from now on."""

    text: str
    within: float


@dataclass(frozen=True, kw_only=True)
class Checks:
    """`github checks pass`: the checks of the newest open pull request come to an end."""

    passed: bool


@dataclass(frozen=True, kw_only=True)
class Merge:
    """`github merges`: somebody merges the newest open pull request on GitHub."""


@dataclass(frozen=True, kw_only=True)
class Close:
    """`github closes`: somebody closes the newest open pull request on GitHub."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """`traffic coder-chat 2/s for 10s`: tenants use a model; over when the traffic is."""

    model: str
    per_second: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """`kubectl scale coder-fim 1`: somebody works around the bot."""

    name: str
    replicas: int


@dataclass(frozen=True, kw_only=True)
class RedisStops:
    """`redis stops`."""


@dataclass(frozen=True, kw_only=True)
class RedisStarts:
    """`redis starts`: on the same port, with the same data."""


@dataclass(frozen=True, kw_only=True)
class RedisFlushed:
    """`redis is flushed`: everything that it remembered is gone."""


@dataclass(frozen=True, kw_only=True)
class BotKilled:
    """`bot is killed`: with SIGKILL, and started again at once."""


@dataclass(frozen=True, kw_only=True)
class Break:
    """`break no-stock`: from now on something on the platform fails."""

    fault: str


@dataclass(frozen=True, kw_only=True)
class Mend:
    """`mend no-stock`: it works again."""

    fault: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """`wait 2s`."""

    seconds: float


Step = (
    Command | Click | Fill | Submit | Expect | ExpectNot | Checks | Merge | Close | Traffic | Scale
    | RedisStops | RedisStarts | RedisFlushed | BotKilled | Break | Mend | Wait
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A step and where it stands."""

    number: int
    text: str
    step: Step


@dataclass(frozen=True)
class Story:
    """A parsed file: its steps, and what its `given` lines set (dotted key -> YAML value)."""

    path: Path
    lines: tuple[Line, ...]
    given: Mapping[str, Any] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------------- the language


class StoryError(Exception):
    """A story that cannot be read; one line for each mistake: file, line, what was expected."""


_USER = r"@(?P<user>\S+)"
_DURATION = r"\d+(?:\.\d+)?\s?(?:ms|s|m|h)"
_WITHIN = rf"(?: within (?P<within>{_DURATION}))?"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str | None) -> float:
    if text is None:
        return PATIENCE
    number, unit = re.fullmatch(r"([\d.]+)\s?(\w+)", text.strip()).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


Groups = Mapping[str, str]
_FORMS: tuple[tuple[str, str, Callable[[Groups], Step]], ...] = (
    ("@user /command …", rf"{_USER} (?P<text>/.+)", lambda g: Command(user=g["user"], text=g["text"])),
    ('@user clicks "Label"', rf'{_USER} clicks "(?P<label>[^"]+)"', lambda g: Click(user=g["user"], label=g["label"])),
    (
        '@user fills "Label" with "value"',
        rf'{_USER} fills "(?P<label>[^"]+)" with "(?P<value>[^"]*)"',
        lambda g: Fill(user=g["user"], label=g["label"], value=g["value"]),
    ),
    ("@user submits", rf"{_USER} submits", lambda g: Submit(user=g["user"])),
    (
        'expect not "text" [within 2s]',
        rf'expect not "(?P<text>[^"]+)"{_WITHIN}',
        lambda g: ExpectNot(text=g["text"], within=_seconds(g["within"])),
    ),
    (
        'expect "text" [within 10s]',
        rf'expect "(?P<text>[^"]+)"{_WITHIN}',
        lambda g: Expect(text=g["text"], within=_seconds(g["within"])),
    ),
    (
        "github checks pass|fail",
        r"github checks (?P<outcome>pass|fail)",
        lambda g: Checks(passed=g["outcome"] == "pass"),
    ),
    ("github merges", "github merges", lambda _: Merge()),
    ("github closes", "github closes", lambda _: Close()),
    (
        "traffic NAME N/s for 10s",
        rf"traffic (?P<model>\S+) (?P<rate>\d+(?:\.\d+)?)/s for (?P<time>{_DURATION})",
        lambda g: Traffic(model=g["model"], per_second=float(g["rate"]), seconds=_seconds(g["time"])),
    ),
    (
        "kubectl scale NAME REPLICAS",
        r"kubectl scale (?P<name>\S+) (?P<replicas>\d+)",
        lambda g: Scale(name=g["name"], replicas=int(g["replicas"])),
    ),
    ("redis stops", "redis stops", lambda _: RedisStops()),
    ("redis starts", "redis starts", lambda _: RedisStarts()),
    ("redis is flushed", "redis is flushed", lambda _: RedisFlushed()),
    ("bot is killed", "bot is killed", lambda _: BotKilled()),
    ("break FAULT", r"break (?P<fault>\S+)", lambda g: Break(fault=g["fault"])),
    ("mend FAULT", r"mend (?P<fault>\S+)", lambda g: Mend(fault=g["fault"])),
    ("wait 2s", rf"wait (?P<time>{_DURATION})", lambda g: Wait(seconds=_seconds(g["time"]))),
)
_GIVEN = ("given KEY VALUE", r"given (?P<key>[\w.]+) (?P<value>.+)")
_COMMENT = re.compile(r'(?P<line>(?:"[^"]*"|[^"])*?)(?:^#|\s+#\s|\s{2,}#).*')
"""A comment starts a line, or follows a blank (`# …`) outside quotes; a lone `#42` is somebody's reason."""


def parse(text: str, path: Path, *, users: frozenset[str], faults: frozenset[str]) -> Story:
    """Read a story; raises StoryError naming every line that cannot be told."""
    lines: list[Line] = []
    given: dict[str, Any] = {}
    mistakes: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _without_comment(raw)
        if not line:
            continue
        try:
            if line.split()[0] == "given":
                if lines:
                    raise StoryError("“given …” stands above the first step")
                given |= _setting(line)
            else:
                lines.append(Line(number, line, _step(line, users, faults)))
        except StoryError as mistake:
            mistakes.append(f"{path}:{number}: {mistake}")
    if not lines and not mistakes:
        mistakes.append(f"{path}:1: a story needs at least one step")
    if mistakes:
        raise StoryError("\n".join(mistakes))
    return Story(path, tuple(lines), given)


def _without_comment(raw: str) -> str:
    comment = _COMMENT.fullmatch(raw.strip())
    return (comment["line"] if comment else raw).strip()


def _setting(line: str) -> dict[str, Any]:
    form, pattern = _GIVEN
    match = re.fullmatch(pattern, line)
    if match is None:
        raise StoryError(f"cannot read “{line}”; expected: {form}")
    try:
        return {match["key"]: YAML(typ="safe").load(match["value"])}
    except YAMLError as e:
        raise StoryError(f"“{match['value']}” is not YAML") from e


def _step(line: str, users: frozenset[str], faults: frozenset[str]) -> Step:
    normal = re.sub(r"^(@\S+|\w+)\s+", r"\1 ", line)
    for _, pattern, build in _FORMS:
        if match := re.fullmatch(pattern, normal):
            step = build(match.groupdict())
            _known(step, users, faults)
            return step
    first = "@user" if line.startswith("@") else line.split()[0]
    fitting = [form for form, *_ in _FORMS if form.split()[0] == first]
    expected = fitting or [form for form, *_ in _FORMS] + [_GIVEN[0]]
    raise StoryError(f"cannot read “{line}”; expected{' one of' if len(expected) > 1 else ''}: {' · '.join(expected)}")


def _known(step: Step, users: frozenset[str], faults: frozenset[str]) -> None:
    match step:
        case Command(user=user) | Click(user=user) | Fill(user=user) | Submit(user=user) if user not in users:
            raise StoryError(f"there is no @{user} here; expected one of: {' · '.join(f'@{u}' for u in sorted(users))}")
        case Break(fault=fault) | Mend(fault=fault) if fault not in faults:
            raise StoryError(f"there is no fault “{fault}”; expected one of: {' · '.join(sorted(faults))}")


# ---------------------------------------------------------------------------------------------------------- the telling


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
