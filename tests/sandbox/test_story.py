"""The story language, and how a story is told."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from sandbox.faults import KNOWN
from sandbox.story import (
    BotKilled,
    Break,
    Checks,
    Click,
    Command,
    Expect,
    ExpectNot,
    Fill,
    OpenHome,
    Pick,
    Say,
    Scale,
    Step,
    Story,
    StoryError,
    Submit,
    Traffic,
    Wait,
    Write,
    parse,
)
from sandbox.telling import Seen, StepError, tell

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
    """What follows a blank and a # is for the reader, unless it is quoted or somebody's issue number."""
    assert only(line) == step


def test_lines_keep_their_numbers() -> None:
    """A failure can point at the line in the file, comments and blank lines counted."""
    story = read('# how it begins\n\n@dev /gpu\n# and then\nexpect "x"\n')
    assert [line.number for line in story.lines] == [3, 5]


def test_given_lines_set_what_the_bot_is_told() -> None:
    """Values are YAML, so numbers and lists are what they look like."""
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
        ("@dev /gpu\ngiven speed 2", ["tale.story:2", "above the first step"]),
        ("given speed\n@dev /gpu", ["tale.story:1", "given KEY VALUE"]),
        ("given a [1\n@dev /gpu", ["tale.story:1", "not YAML"]),
        ("# nothing", ["tale.story:1", "at least one step"]),
        ("sing\n@dev /gpu\ndance", ["tale.story:1", "tale.story:3"]),
    ],
)
def test_a_mistake_names_its_line_and_what_was_expected(text: str, words: list[str]) -> None:
    """All mistakes of a story are told at once, before anything starts."""
    with pytest.raises(StoryError) as mistake:
        read(text)
    for word in words:
        assert word in str(mistake.value)


class Stage:
    """A world where things are said on cue: (user or "" for all, text), at moments that the story makes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.said: list[tuple[float, str, str, str]] = []
        self.buttons = {"Approve"}
        self.answers: dict[str, Callable[[], None]] = {}

    def hear(self, text: str, *, only: str = "", source: str = "") -> None:
        self.said.append((self.now(), only, text, source or str(len(self.said))))

    def later(self, seconds: float, happen: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, happen)

    def hear_later(self, seconds: float, text: str) -> None:
        self.later(seconds, lambda: self.hear(text))

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def visible(self, user: str, since: float) -> list[Seen]:
        return [Seen(source, text) for at, only, text, source in self.said if at >= since and only in ("", user)]

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what in self.answers:
            self.answers[what]()

    async def command(self, user: str, text: str) -> None:
        self._do(f"{user} {text}")

    async def say(self, user: str, text: str, under: str) -> None:
        self._do(f"{user} says {text} under {under or 'nothing'}")

    async def write(self, user: str, text: str) -> None:
        self._do(f"{user} writes {text}")

    async def pick(self, user: str, name: str, on: str) -> None:
        self._do(f"{user} picks {name} on {on}")

    async def open_home(self, user: str) -> None:
        self._do(f"{user} opens home")

    async def click(self, user: str, label: str) -> None:
        if label not in self.buttons:
            raise StepError(f"@{user} sees no button “{label}”")
        self._do(f"{user} clicks {label}")

    async def fill(self, user: str, label: str, value: str) -> None:
        self._do(f"{user} fills {label}={value}")

    async def submit(self, user: str) -> None:
        self._do(f"{user} submits")

    async def checks(self, *, passed: bool) -> None:
        self._do(f"checks {passed}")

    async def merge(self) -> None:
        self._do("merge")

    async def close(self) -> None:
        self._do("close")

    async def traffic(self, model: str, per_second: float, seconds: float) -> None:
        self._do(f"traffic {model} {per_second:g} {seconds:g}")

    async def scale(self, name: str, replicas: int) -> None:
        self._do(f"scale {name} {replicas}")

    async def redis_stops(self) -> None:
        self._do("redis stops")

    async def redis_starts(self) -> None:
        self._do("redis starts")

    async def redis_flushed(self) -> None:
        self._do("redis flushed")

    async def kill_bot(self) -> None:
        self._do("kill")

    def break_(self, fault: str) -> None:
        self._do(f"break {fault}")

    def mend(self, fault: str) -> None:
        self._do(f"mend {fault}")


async def told(text: str, stage: Stage) -> tuple[bool, str]:
    transcript: list[str] = []
    held = await tell(read(text), stage, transcript.append)
    return held, "\n".join(transcript)


async def test_every_step_reaches_the_world_in_order() -> None:
    """A story does what it says, in the order in which it says it."""
    stage = Stage()
    text = """
        @dev /gpu up a
        @lead clicks "Approve"
        @dev fills "M" with "v"
        @dev submits
        @dev says "hello" under "card"
        @dev writes "status"
        @dev picks "Details" on "card"
        @dev opens home
        github checks pass
        github merges
        github closes
        traffic a 2/s for 1s
        kubectl scale b 1
        redis stops
        redis starts
        redis is flushed
        bot is killed
        break no-stock
        mend no-stock
        wait 1ms
    """
    assert (await told(text, stage))[0]
    assert stage.done == [
        "dev /gpu up a", "lead clicks Approve", "dev fills M=v", "dev submits",
        "dev says hello under card", "dev writes status", "dev picks Details on card", "dev opens home", "checks True", "merge", "close",
        "traffic a 2 1", "scale b 1", "redis stops", "redis starts", "redis flushed", "kill", "break no-stock", "mend no-stock",
    ]  # fmt: skip


async def test_an_expectation_ignores_case_and_waits_for_its_text() -> None:
    """What comes a moment later still counts."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear_later(0.15, "The GPU\nis FREE")
    held, transcript = await told('@dev /gpu\nexpect "gpu is free" within 5s', stage)
    assert held
    assert "│ is FREE" in transcript


async def test_what_was_seen_before_somebody_acted_does_not_count() -> None:
    """Each action asks for its own answer."""
    stage = Stage()
    stage.answers["dev /gpu up a"] = lambda: stage.hear("ready")
    held, transcript = await told('@dev /gpu up a\nexpect "ready"\n@dev /gpu up b\nexpect "ready" within 50ms', stage)
    assert not held
    assert "tale.story:4" in transcript
    assert "nothing" in transcript


async def test_only_the_person_who_acted_last_counts() -> None:
    """An answer that only somebody else can see is no answer."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear("for your eyes", only="lead")
    assert not (await told('@dev /gpu\nexpect "for your eyes" within 50ms', stage))[0]
    stage.answers["dev /gpu"] = lambda: stage.hear("for your eyes", only="dev")
    assert (await told('@dev /gpu\nexpect "for your eyes" within 50ms', stage))[0]


async def test_an_expectation_that_something_stays_away_watches_all_the_time() -> None:
    """It fails as soon as the text is seen, and holds only when the whole time has passed."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear_later(0.1, "it failed")
    held, transcript = await told('@dev /gpu\nexpect not "failed" within 30s', stage)
    assert not held
    assert "“failed” was seen" in transcript
    assert (await told('@dev /help\nexpect not "failed" within 50ms', stage))[0]


async def test_a_failure_says_which_line_and_what_was_seen() -> None:
    """The reader of a red build needs nothing else."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear("coder-fim holds the GPU")
    held, transcript = await told('@dev /gpu\nexpect "free" within 50ms\nbot is killed', stage)
    assert not held
    assert "✗ expect" in transcript
    assert 'tale.story:2: expect "free" within 50ms' in transcript
    assert "• coder-fim holds the GPU" in transcript
    assert "kill" not in stage.done


async def test_a_button_that_is_not_there_fails_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal of the world is a failed step, not a traceback."""
    monkeypatch.setattr("sandbox.telling.PATIENCE", 0.1)
    held, transcript = await told('@dev clicks "Nowhere"', Stage())
    assert not held
    assert "sees no button “Nowhere”" in transcript


async def test_a_click_waits_for_its_button_and_counts_from_the_moment_it_is_made() -> None:
    """What came while waiting for the button was not caused by the click."""
    stage = Stage()
    stage.buttons.clear()

    def card() -> None:
        stage.hear("the card")
        stage.buttons.add("Approve")

    stage.answers["dev /gpu"] = lambda: stage.later(0.15, card)
    held, _ = await told('@dev /gpu\n@lead clicks "Approve"\nexpect not "the card" within 20ms', stage)
    assert held


async def test_the_transcript_shows_changed_lines_once() -> None:
    """A card that is updated ten times is not printed ten times."""
    stage = Stage()

    def card() -> None:
        stage.hear("GPU up\nstarting 1 s", source="card")
        stage.hear("GPU up\nstarting 2 s", source="card")

    stage.answers["dev /gpu"] = card
    stage.answers["lead clicks Approve"] = lambda: stage.hear("GPU up\nready", source="card")
    _, transcript = await told('@dev /gpu\nexpect "starting"\n@lead clicks "Approve"\nexpect "ready"', stage)
    assert transcript.count("│ GPU up") == 1
    assert transcript.count("│ starting") == 1
    assert transcript.index("│ starting") < transcript.index("│ ready")


async def test_the_same_words_in_another_message_are_printed_again() -> None:
    """Two answers are two answers, even if they say the same."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear("The GPU is free")
    _, transcript = await told('@dev /gpu\nexpect "free"\n@dev /gpu\nexpect "free"', stage)
    assert transcript.count("│ The GPU is free") == 2


SANDBOX = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_docs_name_every_form_and_every_fault() -> None:
    """What docs/sandbox.md says is what a story may say, and the other way round."""
    lines = [
        line for cell in re.findall(r"^\| (`.*?) \|", SANDBOX, re.MULTILINE) for line in re.findall(r"`([^`]+)`", cell)
    ]
    told = "\n".join(
        line.replace("FAULT", "no-stock") for line in lines if not line.startswith(("given", "-")) and line not in KNOWN
    )
    steps = {type(line.step) for line in parse(told, PATH, users=USERS, faults=frozenset(KNOWN)).lines}
    assert steps == set(get_args(Step))
    assert {line for line in lines if line in KNOWN} == set(KNOWN)
