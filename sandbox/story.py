"""The story language: one step per line, for actions and expectations.

A story is parsed completely before anything starts, so a typing mistake is reported immediately.
`story_runner.py` runs it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sandbox.steps import (
    BotKilled,
    Break,
    ChangeMain,
    Checks,
    ChecksAppear,
    ChecksNone,
    Click,
    Close,
    Command,
    EngineCrashes,
    EngineSays,
    Expect,
    ExpectMerged,
    ExpectNot,
    ExpectNotified,
    ExpectNotMerged,
    ExpectNotNotified,
    ExpectReplicas,
    Fill,
    Mend,
    Merge,
    NodeReclaimed,
    OpenHome,
    Pick,
    PushToPull,
    RedisFlushed,
    RedisStarts,
    RedisStops,
    Retarget,
    Say,
    Scale,
    SlackArchives,
    SlackDeletes,
    SlackMembership,
    Step,
    Submit,
    Traffic,
    Wait,
    Write,
)

PATIENCE = 30.0
"""Maximum seconds that a click waits for its button, and an `expect` without `within` for its text."""

_NOT_MERGED_SECONDS = 3.0
"""Seconds of `expect not merged` without `within`, more than the bot needs for a merge."""


@dataclass(frozen=True)
class Line:
    """A step with its line number."""

    number: int
    text: str
    step: Step


@dataclass(frozen=True)
class Story:
    """A parsed file: its steps, and the settings in its `given` lines (dotted key -> YAML value)."""

    path: Path
    lines: tuple[Line, ...]
    given: Mapping[str, Any] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------------- the language


class StoryError(Exception):
    """The story has errors; the message has one line per error: file, line number, expected text."""


_USER = r"@(?P<user>\S+)"
_DURATION = r"\d+(?:\.\d+)?\s?(?:ms|s|m|h)"
_WITHIN = rf"(?: within (?P<within>{_DURATION}))?"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str | None) -> float:
    if text is None:
        return PATIENCE
    number, unit = re.fullmatch(r"([\d.]+)\s?(\w+)", text.strip()).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def _unescaped(text: str) -> str:
    """Replace `\n` in a quoted text by a line break."""
    return text.replace("\\n", "\n")


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
        "expect replicas NAME N [within 60s]",
        rf"expect replicas (?P<name>\S+) (?P<replicas>\d+){_WITHIN}",
        lambda g: ExpectReplicas(name=g["name"], replicas=int(g["replicas"]), within=_seconds(g["within"])),
    ),
    (
        'expect notified @user "text" [within 10s]',
        rf'expect notified {_USER} "(?P<text>[^"]+)"{_WITHIN}',
        lambda g: ExpectNotified(user=g["user"], text=g["text"], within=_seconds(g["within"])),
    ),
    (
        'expect not notified @user "text" [within 5s]',
        rf'expect not notified {_USER} "(?P<text>[^"]+)"{_WITHIN}',
        lambda g: ExpectNotNotified(user=g["user"], text=g["text"], within=_seconds(g["within"])),
    ),
    (
        "expect not merged [within 2s]",
        rf"expect not merged{_WITHIN}",
        lambda g: ExpectNotMerged(within=_seconds(g["within"]) if g["within"] else _NOT_MERGED_SECONDS),
    ),
    (
        'expect merged to "BRANCH" [within 10s]',
        rf'expect merged to "(?P<branch>[^"]+)"{_WITHIN}',
        lambda g: ExpectMerged(branch=g["branch"], within=_seconds(g["within"])),
    ),
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
    ("slack deletes the card", "slack deletes the card", lambda _: SlackDeletes()),
    (
        "slack archives|unarchives the channel",
        "slack (?P<how>archives|unarchives) the channel",
        lambda g: SlackArchives(archived=g["how"] == "archives"),
    ),
    (
        "slack removes|invites the bot",
        "slack (?P<how>removes|invites) the bot",
        lambda g: SlackMembership(member=g["how"] == "invites"),
    ),
    (
        "github checks pass|fail",
        r"github checks (?P<outcome>pass|fail)",
        lambda g: Checks(passed=g["outcome"] == "pass"),
    ),
    ("github checks appear", "github checks appear", lambda _: ChecksAppear()),
    ("github checks none", "github checks none", lambda _: ChecksNone()),
    (
        'github pushes "PATH" as "TEXT"',
        r'github pushes "(?P<path>[^"]+)" as "(?P<text>.*)"',
        lambda g: PushToPull(path=g["path"], text=_unescaped(g["text"])),
    ),
    (
        'github pushes "PATH" with "OLD" as "TEXT"',
        r'github pushes "(?P<path>[^"]+)" with "(?P<old>[^"]+)" as "(?P<text>.*)"',
        lambda g: PushToPull(path=g["path"], text=_unescaped(g["text"]), old=_unescaped(g["old"])),
    ),
    (
        'github retargets to "BRANCH"',
        r'github retargets to "(?P<branch>[^"]+)"',
        lambda g: Retarget(branch=g["branch"]),
    ),
    (
        'main changes "PATH" as "TEXT"',
        r'main changes "(?P<path>[^"]+)" as "(?P<text>.*)"',
        lambda g: ChangeMain(path=g["path"], text=_unescaped(g["text"])),
    ),
    (
        'main changes "PATH" with "OLD" as "TEXT"',
        r'main changes "(?P<path>[^"]+)" with "(?P<old>[^"]+)" as "(?P<text>.*)"',
        lambda g: ChangeMain(path=g["path"], text=_unescaped(g["text"]), old=_unescaped(g["old"])),
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
    ("node is reclaimed", "node is reclaimed", lambda _: NodeReclaimed()),
    ("engine crashes NAME", r"engine crashes (?P<model>\S+)", lambda g: EngineCrashes(model=g["model"])),
    (
        'engine says "LOG LINE" NAME',
        r'engine says "(?P<line>.*)" (?P<model>\S+)',
        lambda g: EngineSays(line=g["line"], model=g["model"]),
    ),
    ("break FAULT", r"break (?P<fault>\S+)", lambda g: Break(fault=g["fault"])),
    ("mend FAULT", r"mend (?P<fault>\S+)", lambda g: Mend(fault=g["fault"])),
    ("wait 2s", rf"wait (?P<time>{_DURATION})", lambda g: Wait(seconds=_seconds(g["time"]))),
)
_GIVEN = ("given KEY VALUE", r"given (?P<key>[\w.]+) (?P<value>.+)")
_COMMENT = re.compile(r'(?P<line>(?:"[^"]*"|[^"])*?)(?:^#|\s+#\s|\s{2,}#).*')
"""A comment starts a line, or follows a space (`# …`) outside quotes; `#42` in a reason is not a comment."""


def parse(text: str, path: Path, *, users: frozenset[str], faults: frozenset[str]) -> Story:
    """Parse a story; raises StoryError with every invalid line."""
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
                    raise StoryError("“given …” must come before the first step")
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
            _check_names(step, users, faults)
            return step
    first = "@user" if line.startswith("@") else line.split()[0]
    fitting = [form for form, *_ in _FORMS if form.split()[0] == first]
    expected = fitting or [form for form, *_ in _FORMS] + [_GIVEN[0]]
    raise StoryError(f"cannot read “{line}”; expected{' one of' if len(expected) > 1 else ''}: {' · '.join(expected)}")


def _check_names(step: Step, users: frozenset[str], faults: frozenset[str]) -> None:
    user = getattr(step, "user", None)
    if user is not None and user not in users:
        raise StoryError(f"there is no @{user} here; expected one of: {' · '.join(f'@{u}' for u in sorted(users))}")
    match step:
        case Break(fault=fault) | Mend(fault=fault) if fault not in faults:
            raise StoryError(f"there is no fault “{fault}”; expected one of: {' · '.join(sorted(faults))}")
