"""The story language."""

import re
from pathlib import Path
from typing import get_args

import pytest

from sandbox.faults import KNOWN
from sandbox.steps import (
    BotKilled,
    Break,
    ChangeMain,
    Checks,
    ChecksAppear,
    ChecksNone,
    Click,
    Command,
    EngineCrashes,
    EngineSays,
    Expect,
    ExpectMerged,
    ExpectNot,
    ExpectNotified,
    ExpectNotMerged,
    ExpectNotNotified,
    Fill,
    NodeReclaimed,
    OpenHome,
    Pick,
    PushToPull,
    Retarget,
    Say,
    Scale,
    Step,
    Submit,
    Traffic,
    Wait,
    Write,
)
from sandbox.story import Story, StoryError, parse

PATH = Path("tale.story")


USERS = frozenset({"dev", "lead", "admin"})


FAULTS = frozenset({"no-stock", "hf-429"})


def read(text: str) -> Story:
    return parse(text, PATH, users=USERS, faults=FAULTS)


def only(text: str) -> Step:
    (line,) = read(text).lines
    return line.step


@pytest.mark.parametrize(
    ("line", "step"),
    [
        (
            "@dev /gpu up coder-chat for 2h because demo tonight",
            Command(user="dev", text="/gpu up coder-chat for 2h because demo tonight"),
        ),
        ('expect "Approve" within 10s', Expect(text="Approve", within=10)),
        ('expect "Approve"', Expect(text="Approve", within=30)),
        ('expect "Approve" within 1.5m', Expect(text="Approve", within=90)),
        ('expect not "failed" within 2s', ExpectNot(text="failed", within=2)),
        ('expect notified @lead "for 2h" within 10s', ExpectNotified(user="lead", text="for 2h", within=10)),
        ('expect notified @lead "for 2h"', ExpectNotified(user="lead", text="for 2h", within=30)),
        ('expect not notified @dev "ready" within 5s', ExpectNotNotified(user="dev", text="ready", within=5)),
        ('@lead clicks "Approve & roll out"', Click(user="lead", label="Approve & roll out")),
        ('@dev fills "Model" with "Qwen/Q # 3"', Fill(user="dev", label="Model", value="Qwen/Q # 3")),
        ('@dev fills "Model" with ""', Fill(user="dev", label="Model", value="")),
        ("@dev submits", Submit(user="dev")),
        ('@dev says "@stoker status"', Say(user="dev", text="@stoker status")),
        ('@dev says "thanks" under "Bring up"', Say(user="dev", text="thanks", under="Bring up")),
        ('@dev writes "status"', Write(user="dev", text="status")),
        ('@lead picks "Show status" on "coder-chat"', Pick(user="lead", name="Show status", on="coder-chat")),
        ("@dev opens home", OpenHome(user="dev")),
        ("github checks pass", Checks(passed=True)),
        ("github checks fail", Checks(passed=False)),
        ("github checks appear", ChecksAppear()),
        ("github checks none", ChecksNone()),
        ('github pushes "a/b.yaml" as "a: 1\\nb: "2"\\n"', PushToPull(path="a/b.yaml", text='a: 1\nb: "2"\n')),
        ('github pushes "a.yaml" with "x: 1" as "x: 2"', PushToPull(path="a.yaml", text="x: 2", old="x: 1")),
        ('github retargets to "release"', Retarget(branch="release")),
        ("node is reclaimed", NodeReclaimed()),
        ("engine crashes coder-chat", EngineCrashes(model="coder-chat")),
        (
            'engine says "ERROR <!channel> said "x"" coder-chat',
            EngineSays(line='ERROR <!channel> said "x"', model="coder-chat"),
        ),
        ('main changes "a/b.yaml" as "a: 1\\n"', ChangeMain(path="a/b.yaml", text="a: 1\n")),
        ('main changes "a.yaml" with "x: 1" as ""', ChangeMain(path="a.yaml", text="", old="x: 1")),
        ('expect merged to "main"', ExpectMerged(branch="main", within=30)),
        ('expect merged to "main" within 5s', ExpectMerged(branch="main", within=5)),
        ("expect not merged", ExpectNotMerged(within=3)),
        ("expect not merged within 1s", ExpectNotMerged(within=1)),
        ("traffic coder-chat 2/s for 10s", Traffic(model="coder-chat", per_second=2, seconds=10)),
        ("kubectl scale coder-fim 1", Scale(name="coder-fim", replicas=1)),
        ("bot is killed", BotKilled()),
        ("break no-stock", Break(fault="no-stock")),
        ("wait 500ms", Wait(seconds=0.5)),
    ],
)
def test_each_form_of_line_is_one_step(line: str, step: Step) -> None:
    """Every line of the language means exactly one step."""
    assert only(line) == step


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ('@lead clicks "Approve"      # the newest visible button', Click(user="lead", label="Approve")),
        ("kubectl scale coder-fim 1  #around the bot", Scale(name="coder-fim", replicas=1)),
        ('expect "issue  # 7"  # in quotes it is text', Expect(text="issue  # 7", within=30)),
        ("@dev /gpu up x because of #42", Command(user="dev", text="/gpu up x because of #42")),
        ('@dev /gpu up x because 27" screen  # kept', Command(user="dev", text='/gpu up x because 27" screen  # kept')),
        ("  bot is killed  ", BotKilled()),
    ],
)
def test_comments_end_a_line_but_not_a_quotation(line: str, step: Step) -> None:
    """Text after a blank and a # is a comment, unless it is quoted or an issue number."""
    assert only(line) == step


def test_lines_keep_their_numbers() -> None:
    """Comments and blank lines count, so that a failure can point at the line in the file."""
    story = read('# how it begins\n\n@dev /gpu\n# and then\nexpect "x"\n')
    assert [line.number for line in story.lines] == [3, 5]


def test_given_lines_change_the_bots_settings() -> None:
    """Values are YAML, so numbers and lists have their types."""
    story = read("given approvals.expire_after 5s\ngiven approvals.quorum 2\ngiven roles.approvers [U1]\n@dev /gpu")
    assert story.given == {"approvals.expire_after": "5s", "approvals.quorum": 2, "roles.approvers": ["U1"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@dev clicks Approve", ["tale.story:1", '@user clicks "Label"']),
        ("@dev", ["tale.story:1", "@user submits"]),
        ("github explodes", ["tale.story:1", "github checks pass|fail", "github merges"]),
        ("sing a song", ["tale.story:1", "redis stops", "wait 2s"]),
        ("@boss /gpu", ["tale.story:1", "@boss", "@admin · @dev · @lead"]),
        ("# hello\nbreak the-ice", ["tale.story:2", "the-ice", "hf-429 · no-stock"]),
        ("@dev /gpu\ngiven speed 2", ["tale.story:2", "before the first step"]),
        ("given speed\n@dev /gpu", ["tale.story:1", "given KEY VALUE"]),
        ("given a [1\n@dev /gpu", ["tale.story:1", "not YAML"]),
        ("# nothing", ["tale.story:1", "at least one step"]),
        ("sing\n@dev /gpu\ndance", ["tale.story:1", "tale.story:3"]),
    ],
)
def test_a_mistake_names_its_line_and_what_was_expected(text: str, words: list[str]) -> None:
    """All mistakes of a story are reported together, before anything starts."""
    with pytest.raises(StoryError) as mistake:
        read(text)
    for word in words:
        assert word in str(mistake.value)


SANDBOX = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_docs_name_every_form_and_every_fault() -> None:
    """docs/sandbox.md lists exactly the lines that a story may contain."""
    lines = [
        line for cell in re.findall(r"^\| (`.*?) \|", SANDBOX, re.MULTILINE) for line in re.findall(r"`([^`]+)`", cell)
    ]
    story_text = "\n".join(
        line.replace("FAULT", "no-stock") for line in lines if not line.startswith(("given", "-")) and line not in KNOWN
    )
    steps = {type(line.step) for line in parse(story_text, PATH, users=USERS, faults=frozenset(KNOWN)).lines}
    assert steps == set(get_args(Step))
    assert {line for line in lines if line in KNOWN} == set(KNOWN)
