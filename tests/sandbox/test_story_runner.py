"""The story runner: steps in order, expectations, the transcript, notifications."""

import asyncio
from collections.abc import Callable

import pytest

from sandbox.story_runner import Pushed, Seen, StepError, run_story
from tests.sandbox.test_story import read


class Stage:
    """A stand-in for the sandbox with scripted messages at times that the story sets: (user, or "" for all; text)."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.notifications: list[Pushed] = []
        self.messages: list[tuple[float, str, str, str]] = []
        self.buttons = {"Approve"}
        self.merged: str | None = None
        self.scaled: dict[str, int] = {}
        self.answers: dict[str, Callable[[], None]] = {}

    def hear(self, text: str, *, only: str = "", source: str = "") -> None:
        self.messages.append((self.now(), only, text, source or str(len(self.messages))))

    def later(self, seconds: float, happen: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, happen)

    def hear_later(self, seconds: float, text: str) -> None:
        self.later(seconds, lambda: self.hear(text))

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def visible(self, user: str, since: float) -> list[Seen]:
        last_texts: dict[str, str] = {}
        revisions = []
        for at, only, text, source in self.messages:
            if at >= since and only in ("", user):
                revisions.append(Seen(source, text, last_texts.get(source, "")))
            last_texts[source] = text
        return revisions

    def pushed(self, since: float) -> list[Pushed]:
        return [pushed for pushed in self.notifications if pushed.at >= since]

    def push_to(self, user: str, text: str, channel: str = "mention") -> None:
        self.notifications.append(Pushed(self.now(), user, channel, text))

    def _do(self, action: str) -> None:
        self.done.append(action)
        if action in self.answers:
            self.answers[action]()

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

    def replicas(self, name: str) -> int | None:
        return self.scaled.get(name)

    async def slack_deletes(self) -> None:
        self._do("slack deletes")

    async def slack_archives(self, *, archived: bool) -> None:
        self._do(f"slack archives {archived}")

    async def slack_membership(self, *, member: bool) -> None:
        self._do(f"slack member {member}")

    async def checks(self, *, passed: bool) -> None:
        self._do(f"checks {passed}")

    async def checks_appear(self) -> None:
        self._do("checks appear")

    async def checks_none(self) -> None:
        self._do("checks none")

    async def push(self, path: str, text: str, old: str) -> None:
        self._do(f"push {path} {old}→{text}")

    def reclaim_node(self) -> None:
        self._do("reclaim")

    def engine_crashes(self, model: str) -> None:
        self._do(f"crash {model}")

    def engine_says(self, line: str, model: str) -> None:
        self._do(f"{model} says {line}")

    async def retarget(self, branch: str) -> None:
        self._do(f"retarget {branch}")

    async def change_main(self, path: str, text: str, old: str) -> None:
        self._do(f"main {path} {old}→{text}")

    def merged_to(self) -> str | None:
        return self.merged

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


async def run(text: str, stage: Stage) -> tuple[bool, str]:
    transcript: list[str] = []
    succeeded = await run_story(read(text), stage, transcript.append)
    return succeeded, "\n".join(transcript)


async def test_every_step_is_executed_in_order() -> None:
    """The steps of a story run in their order."""
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
        slack deletes the card
        slack archives the channel
        slack unarchives the channel
        slack removes the bot
        slack invites the bot
        github checks pass
        github checks appear
        github checks none
        github pushes "a.yaml" as "x: 1\\n"
        github retargets to "release"
        node is reclaimed
        engine says "oops" coder-chat
        engine crashes coder-chat
        main changes "a.yaml" with "x" as "y"
        expect not merged within 1ms
        github merges
        expect merged to "release"
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
    stage.answers["merge"] = lambda: setattr(stage, "merged", "release")
    assert (await run(text, stage))[0]
    assert stage.done == [
        "dev /gpu up a", "lead clicks Approve", "dev fills M=v", "dev submits",
        "dev says hello under card", "dev writes status", "dev picks Details on card", "dev opens home",
        "slack deletes", "slack archives True", "slack archives False", "slack member False", "slack member True", "checks True",
        "checks appear", "checks none", "push a.yaml →x: 1\n", "retarget release", "reclaim", "coder-chat says oops", "crash coder-chat", "main a.yaml x→y", "merge", "close",
        "traffic a 2 1", "scale b 1", "redis stops", "redis starts", "redis flushed", "kill", "break no-stock", "mend no-stock",
    ]  # fmt: skip


async def test_an_expectation_ignores_case_and_waits_for_its_text() -> None:
    """A message that arrives a moment later still counts."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear_later(0.15, "The GPU\nis FREE")
    succeeded, transcript = await run('@dev /gpu\nexpect "gpu is free" within 5s', stage)
    assert succeeded
    assert "│ is FREE" in transcript


async def test_texts_from_before_the_last_action_do_not_count() -> None:
    """Each action needs its own answer."""
    stage = Stage()
    stage.answers["dev /gpu up a"] = lambda: stage.hear("ready")
    succeeded, transcript = await run(
        '@dev /gpu up a\nexpect "ready"\n@dev /gpu up b\nexpect "ready" within 50ms', stage
    )
    assert not succeeded
    assert "tale.story:4" in transcript
    assert "nothing" in transcript


async def test_only_the_person_who_acted_last_counts() -> None:
    """A message that only somebody else can see does not count."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear("for your eyes", only="lead")
    assert not (await run('@dev /gpu\nexpect "for your eyes" within 50ms', stage))[0]
    stage.answers["dev /gpu"] = lambda: stage.hear("for your eyes", only="dev")
    assert (await run('@dev /gpu\nexpect "for your eyes" within 50ms', stage))[0]


async def test_a_negative_expectation_watches_the_whole_time() -> None:
    """The story fails as soon as the text is visible, and continues only when the whole time has passed."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear_later(0.1, "it failed")
    succeeded, transcript = await run('@dev /gpu\nexpect not "failed" within 30s', stage)
    assert not succeeded
    assert "“failed” was seen" in transcript
    assert (await run('@dev /help\nexpect not "failed" within 50ms', stage))[0]


async def test_replicas_are_read_from_the_cluster() -> None:
    """Messages do not count, and the failure shows the state of the cluster."""
    stage = Stage()
    stage.scaled["a"] = 1
    stage.hear("a has 0 replicas")
    stage.later(0.3, lambda: stage.scaled.update(a=0))
    assert (await run("expect replicas a 0 within 5s", stage))[0]
    succeeded, transcript = await run("expect replicas a 1 within 10ms", stage)
    assert not succeeded
    assert "a has 0 after 0.01 s, not 1 replicas" in transcript
    succeeded, transcript = await run("expect replicas b 1 within 10ms", stage)
    assert not succeeded
    assert "b is not in the cluster" in transcript


async def test_texts_from_before_a_change_in_slack_do_not_count() -> None:
    """A deleted card was still visible a moment ago."""
    stage = Stage()
    stage.hear("Bring up a")
    succeeded, _ = await run('@dev /gpu up a\nexpect "Bring up a" within 10ms', stage)
    assert not succeeded
    stage.answers["dev /gpu up a"] = lambda: stage.hear("Bring up a")
    assert (await run('@dev /gpu up a\nexpect "Bring up a" within 10ms', stage))[0]
    succeeded, _ = await run('@dev /gpu up a\nslack deletes the card\nexpect "Bring up a" within 10ms', stage)
    assert not succeeded


async def test_an_expected_merge_is_read_from_github() -> None:
    """A merge into another branch, a late merge and a forbidden merge fail the story."""
    stage = Stage()
    succeeded, transcript = await run('expect merged to "main" within 20ms', stage)
    assert (succeeded, "was not merged within 0.02 s" in transcript) == (False, True)
    stage.merged = "release"
    succeeded, transcript = await run('expect merged to "main"', stage)
    assert (succeeded, "was merged to “release”" in transcript) == (False, True)
    assert not (await run("expect not merged", stage))[0]
    stage.merged = None
    stage.later(0.1, lambda: setattr(stage, "merged", "main"))
    assert not (await run("expect not merged within 30s", stage))[0]


async def test_a_failure_names_its_line_and_the_visible_texts() -> None:
    """The transcript alone explains why a build failed."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear("coder-fim holds the GPU")
    succeeded, transcript = await run('@dev /gpu\nexpect "free" within 50ms\nbot is killed', stage)
    assert not succeeded
    assert "✗ expect" in transcript
    assert 'tale.story:2: expect "free" within 50ms' in transcript
    assert "• coder-fim holds the GPU" in transcript
    assert "kill" not in stage.done


async def test_a_button_that_is_not_there_fails_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """The story reports a failed step and prints no traceback."""
    monkeypatch.setattr("sandbox.story_runner.PATIENCE", 0.1)
    succeeded, transcript = await run('@dev clicks "Nowhere"', Stage())
    assert not succeeded
    assert "sees no button “Nowhere”" in transcript


async def test_a_click_waits_for_its_button_and_counts_from_the_moment_it_is_made() -> None:
    """Messages that arrive while the step waits for the button were not caused by the click."""
    stage = Stage()
    stage.buttons.clear()

    def card() -> None:
        stage.hear("the card")
        stage.buttons.add("Approve")

    stage.answers["dev /gpu"] = lambda: stage.later(0.15, card)
    succeeded, _ = await run('@dev /gpu\n@lead clicks "Approve"\nexpect not "the card" within 20ms', stage)
    assert succeeded


async def test_the_transcript_shows_changed_lines_once() -> None:
    """A card that is updated ten times is not printed ten times."""
    stage = Stage()

    def card() -> None:
        stage.hear("GPU up\nstarting 1 s", source="card")
        stage.hear("GPU up\nstarting 2 s", source="card")

    stage.answers["dev /gpu"] = card
    stage.answers["lead clicks Approve"] = lambda: stage.hear("GPU up\nready", source="card")
    _, transcript = await run('@dev /gpu\nexpect "starting"\n@lead clicks "Approve"\nexpect "ready"', stage)
    assert transcript.count("│ GPU up") == 1
    assert transcript.count("│ starting") == 1
    assert transcript.index("│ starting") < transcript.index("│ ready")


async def test_the_same_words_in_another_message_are_printed_again() -> None:
    """Two equal answers are printed twice."""
    stage = Stage()
    stage.answers["dev /gpu"] = lambda: stage.hear("The GPU is free")
    _, transcript = await run('@dev /gpu\nexpect "free"\n@dev /gpu\nexpect "free"', stage)
    assert transcript.count("│ The GPU is free") == 2


CARD = "✅ Bring up coder-chat\nSucceeded · requested by @dev\nReceipt: about $0.10"


async def test_an_edited_old_message_satisfies_no_expectation() -> None:
    """A correction of the receipt after an action does not make the old success count."""
    stage = Stage()
    stage.hear(CARD, source="card")
    stage.answers["lead clicks Approve"] = lambda: stage.hear(CARD.replace("about ", ""), source="card")
    succeeded, transcript = await run(
        '@lead clicks "Approve"\nexpect "Receipt: $0.10"\nexpect "succeeded" within 200ms', stage
    )
    assert not succeeded
    assert "“succeeded” was not seen" in transcript


async def test_an_edited_old_message_does_not_fail_a_story() -> None:
    """`expect not` ignores earlier messages."""
    stage = Stage()
    stage.hear(CARD, source="card")
    stage.answers["lead clicks Approve"] = lambda: stage.hear(CARD.replace("about ", ""), source="card")
    succeeded, _ = await run(
        '@lead clicks "Approve"\nexpect "Receipt: $0.10"\nexpect not "succeeded" within 200ms', stage
    )
    assert succeeded


@pytest.mark.parametrize(
    ("before", "text", "words", "is_new"),
    [
        ("", "Succeeded", "succeeded", True),
        ("Running", "Succeeded", "succeeded", True),
        ("Succeeded\na", "Succeeded\nb", "succeeded", False),
        ("taken by @dev, until noon", "taken by @dev, next in line, until noon", "until noon", True),
        ("🔸 loading … 1 s", "🔸 loading … 2 s", "loading", False),
        ("🔸 loading … 1 s", "✔️ loading · 2 s", "loading", True),
        ("@dev is notified", "@dev is notified\n@dev is notified", "@dev is notified", True),
        ("one", "one\ntwo\nthree", "two three", True),
    ],
)
def test_only_new_lines_of_a_message_are_shown(before: str, text: str, words: str, is_new: bool) -> None:
    """A line is new if it was added, repeated, or changed in more than its durations."""
    assert Seen("card", text, before).shows(words) is is_new


async def test_a_notification_is_expected_of_one_user() -> None:
    """Notifications of other users, and those from before the last action, do not count."""
    stage = Stage()
    stage.push_to("lead", "An old request for 2 h")
    stage.answers["dev /gpu up a"] = lambda: stage.push_to("admin", "dev requests a for 2 h")
    succeeded, transcript = await run('@dev /gpu up a\nexpect notified @lead "for 2 h" within 200ms', stage)
    assert not succeeded
    assert "@lead was not notified of “for 2 h” within 0.2 s, but of: nothing" in transcript
    stage.answers["dev /gpu up b"] = lambda: stage.push_to("lead", "dev requests  b\nfor 2 h")
    succeeded, _ = await run('@dev /gpu up b\nexpect notified @lead "B for 2 H" within 200ms', stage)
    assert succeeded


async def test_a_forbidden_notification_fails_the_story() -> None:
    """The step waits for its whole time, and its error names the notification."""
    stage = Stage()
    story = '@dev /gpu up a\nexpect not notified @dev "requests a" within 300ms'
    succeeded, _ = await run(story, stage)
    assert succeeded
    stage.answers["dev /gpu up a"] = lambda: stage.later(0.1, lambda: stage.push_to("dev", "dev requests a"))
    succeeded, transcript = await run(story, stage)
    assert not succeeded
    assert "@dev was notified by mention: “dev requests a”" in transcript


async def test_a_story_ends_with_the_number_of_notifications_of_each_user() -> None:
    """The table counts equal notifications of a user together, and shows if there were none."""
    stage = Stage()

    def news() -> None:
        stage.push_to("lead", "dev requests a")
        stage.push_to("lead", "dev requests a")
        stage.push_to("dev", "a is ready", "direct message")

    stage.answers["dev /gpu up a"] = news
    _, transcript = await run("@dev /gpu up a", stage)
    assert (
        "Notified:\n  @dev: 1\n    1 × direct message: a is ready\n  @lead: 2\n    2 × mention: dev requests a"
        in transcript
    )
    _, transcript = await run("@dev /gpu down a", Stage())
    assert "Nobody was notified." in transcript
