"""The story language: one line, one step; what people do on the platform and what they then see.

A story is parsed whole before anything starts, so a typing mistake costs a second and not a minute. It is told in
`telling.py`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PATIENCE = 30.0
"""Seconds that a click waits for its button, and an `expect` without `within` for its text."""


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
class Say:
    """`@dev says "@stoker status"`: plain words in the channel, or in the thread of the newest message with `under`."""

    user: str
    text: str
    under: str = ""


@dataclass(frozen=True, kw_only=True)
class Write:
    """`@dev writes "status"`: a direct message to the bot."""

    user: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Pick:
    """`@dev picks "Operation status" on "Bring up"`: an entry of a message's three dots."""

    user: str
    name: str
    on: str


@dataclass(frozen=True, kw_only=True)
class OpenHome:
    """`@dev opens home`: the bot's Home tab; what they click then is there first."""

    user: str


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
    Command | Say | Write | Pick | OpenHome | Click | Fill | Submit | Expect | ExpectNot | Checks | Merge | Close | Traffic
    | Scale | RedisStops | RedisStarts | RedisFlushed | BotKilled | Break | Mend | Wait
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
    (
        '@user says "text" [under "words"]',
        rf'{_USER} says "(?P<text>[^"]+)"(?: under "(?P<under>[^"]+)")?',
        lambda g: Say(user=g["user"], text=g["text"], under=g["under"] or ""),
    ),
    ('@user writes "text"', rf'{_USER} writes "(?P<text>[^"]+)"', lambda g: Write(user=g["user"], text=g["text"])),
    (
        '@user picks "Shortcut" on "words"',
        rf'{_USER} picks "(?P<name>[^"]+)" on "(?P<on>[^"]+)"',
        lambda g: Pick(user=g["user"], name=g["name"], on=g["on"]),
    ),
    ("@user opens home", rf"{_USER} opens home", lambda g: OpenHome(user=g["user"])),
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
    user = getattr(step, "user", None)
    if user is not None and user not in users:
        raise StoryError(f"there is no @{user} here; expected one of: {' · '.join(f'@{u}' for u in sorted(users))}")
    match step:
        case Break(fault=fault) | Mend(fault=fault) if fault not in faults:
            raise StoryError(f"there is no fault “{fault}”; expected one of: {' · '.join(sorted(faults))}")
