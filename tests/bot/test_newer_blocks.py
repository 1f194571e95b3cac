"""Slack's newer blocks: older blocks have the same content, and a workspace without them still gets every message."""

import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, TraceConfig, TraceRequestStartParams
from slack_sdk.errors import SlackApiError

from bot.domain.operations import Check, Note
from bot.slack.web_api import CleanWebClient
from bot.text.mrkdwn import Mrkdwn, clock, code, escape, link, md, person
from bot.views import View, thread
from bot.views.blocks import Block, section
from bot.views.mentions import mentioned_in, notifying
from bot.views.modals import ChangeForm, change_form, shows_problem
from bot.views.newer import NEWER, Number, Task, alert, chart, container, data_table, steps, table
from bot.views.older import older
from bot.views.rich_text import as_mrkdwn, rich_text
from sandbox.faults import Faults
from sandbox.slack import Workspace
from sandbox.slack import blocks as kit
from tests.bot.test_card_buttons import a_bring_up
from tests.bot.view_examples import NOW

CHANNEL = "C0GPUOPS"
STEPS = steps(
    "Step 2 of 3: loading",
    [
        Task("syncing", "syncing · 4 s", "complete"),
        Task("loading", "loading … 9 s", "in_progress", md("{image}, 8.2 GB", image=code("vllm"))),
        Task("smoke tests", "smoke tests", "pending"),
    ],
)
TABLE = table(("Test", "Result"), [(md("{name}", name=code("health")), md("✅ passed")), (md("chat"), md("❌ failed"))])
NUMBERS = table(("concurrent", "tokens/s"), [("1", "80"), ("16", "740")], right=(0, 1))
DATA = data_table("2 endpoints", ("Endpoint", "$"), [("chat", Number(0.5, "$0.50")), ("fim", Number(1, "$1.00"))])
CHART = chart("GPU hours", ["Mon", "Tue"], {"in use": [2.0, 0.0], "idle": [1.0, 0.0]}, "hours")
MORE = container("More of the plan", [section(md("*Commit*: {commit}", commit=code("6f5dab")))])


def text_of(blocks: list[Block]) -> str:
    return kit.visible_text(blocks, lambda name: name)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (STEPS, "✔️ syncing · 4 s\n🔸 loading … 9 s — vllm, 8.2 GB\n▫️ smoke tests"),
        (TABLE, "health — ✅ passed\nchat — ❌ failed"),
        (NUMBERS, "concurrent  tokens/s\n         1        80\n        16       740\n"),
        (DATA, "chat — $0.50\nfim — $1.00"),
        (CHART, "GPU hours (hours)\nMon  ████████████████████  in use 2, idle 1\nTue                        –\n"),
        (MORE, "More of the plan\nCommit: 6f5dab"),
        (alert(md("It does not fit."), "error"), "❌ It does not fit."),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_older_blocks_have_the_same_content(block: Block, text: str) -> None:
    """The conversion loses no content, and needs no newer block."""
    converted = older([block])
    assert text_of(converted) == text
    assert kit.complaints(converted) == []
    assert not {part["type"] for part in converted} & NEWER


MARKUP = [
    md("{model} of {who} until {at}", model=code("a<b"), who=person("U1"), at=clock(NOW)),
    md("*{name}* is _up_, see {link}", name="x & y", link=link("https://example.com/?a=1&b=2", "the page")),
    md("<!subteam^S0123> {text}", text="<!channel> *not bold*"),
]


@pytest.mark.parametrize("text", [*MARKUP, escape("<!here> & `code`")])
def test_markup_survives_rich_text(text: Mrkdwn) -> None:
    """Converting to rich text and back changes nothing except for a harmless character before an exclamation mark."""
    assert as_mrkdwn(rich_text(text)).replace("\u200b", "") == text


def test_a_table_is_cut_to_slacks_limit() -> None:
    """Cells become shorter before rows are dropped."""
    cut_table = table(("a", "b"), [("name", md("x" * 3000))] * 60)
    assert len(cut_table["rows"]) == 61
    assert kit.complaints([cut_table]) == []


def test_many_series_are_combined() -> None:
    """Slack accepts six series in a chart, with different names of at most twenty characters."""
    combined = chart("x" * 80, ["Mon"], {f"{'model' * 5}-{n}": [float(n)] for n in range(9)}, "hours")
    assert kit.complaints([combined]) == []
    assert sum(series["data"][0]["value"] for series in combined["chart"]["series"]) == sum(range(9))


def test_a_mention_in_a_cell_notifies_only_the_intended_people() -> None:
    """Rich text mentions people as mrkdwn does."""
    view = View(text=md("x"), blocks=[table(("who",), [(person("U1"),), (person("U2"),)])])
    assert mentioned_in(view) == {"U1", "U2"}
    quiet = notifying(view, {"U1"}, {"U2": "lead"})
    assert mentioned_in(quiet) == {"U1"}
    assert "@lead" in text_of(quiet.blocks)


@pytest.fixture
async def workspace() -> AsyncIterator[tuple[Workspace, Faults]]:
    faults = Faults()
    async with Workspace(faults) as workspace:
        yield workspace, faults


@pytest.fixture
async def wire(workspace: tuple[Workspace, Faults]) -> AsyncIterator[tuple[CleanWebClient, list[str]]]:
    """A client, and the methods that it has called."""
    called: list[str] = []
    trace = TraceConfig()

    @trace.on_request_start.append
    async def begins(_: object, __: object, request: TraceRequestStartParams) -> None:
        called.append(request.url.name)

    async with ClientSession(trace_configs=[trace]) as session:
        stand_in, _ = workspace
        yield CleanWebClient(session=session, token=stand_in.bot_token, base_url=stand_in.api_url), called


EVERY = [STEPS, TABLE, DATA, CHART, MORE]


@pytest.mark.parametrize("block", EVERY, ids=lambda block: block["type"])
async def test_slack_gets_newer_blocks(
    workspace: tuple[Workspace, Faults], wire: tuple[CleanWebClient, list[str]], block: Block
) -> None:
    """The message needs only one call."""
    (stand_in, _), (client, called) = workspace, wire
    await client.chat_postMessage(channel=CHANNEL, text="x", blocks=[block])
    assert called == ["chat.postMessage"]
    assert stand_in.now_visible("dev") == [text_of([block])]


@pytest.mark.parametrize("block", EVERY, ids=lambda block: block["type"])
async def test_an_older_workspace_gets_older_blocks(
    workspace: tuple[Workspace, Faults], wire: tuple[CleanWebClient, list[str]], block: Block
) -> None:
    """The first message takes a second call; then the workspace is known, and a message is one call again."""
    (stand_in, faults), (client, called) = workspace, wire
    faults.add("slack-old-blocks")
    posted = await client.chat_postMessage(channel=CHANNEL, text="x", blocks=[block])
    assert stand_in.now_visible("dev") == [text_of(older([block]))]
    assert called == ["chat.postMessage"] * 2
    await client.chat_update(channel=CHANNEL, ts=str(posted["ts"]), text="x", blocks=[section(md("new")), block])
    assert called == ["chat.postMessage"] * 2 + ["chat.update"]
    assert stand_in.now_visible("dev") == ["new\n" + text_of(older([block]))]


async def test_only_the_refused_blocks_are_converted(
    workspace: tuple[Workspace, Faults], wire: tuple[CleanWebClient, list[str]]
) -> None:
    """A table that was never refused is tried, even if plans were refused."""
    (stand_in, faults), (client, called) = workspace, wire
    faults.add("slack-old-blocks")
    await client.chat_postMessage(channel=CHANNEL, text="x", blocks=[STEPS])
    faults.discard("slack-old-blocks")
    await client.chat_postMessage(channel=CHANNEL, text="x", blocks=[STEPS, TABLE])
    assert len(called) == 3
    assert stand_in.now_visible("dev")[-1] == text_of([*older([STEPS]), TABLE])


async def test_a_view_is_converted_too(
    workspace: tuple[Workspace, Faults], wire: tuple[CleanWebClient, list[str]]
) -> None:
    """Slack answers `invalid_arguments` for a view."""
    (stand_in, faults), (client, _) = workspace, wire
    faults.add("slack-old-blocks")
    await client.views_publish(user_id="U0DEV", view={"type": "home", "blocks": [CHART]})
    assert "in use 2" in stand_in.home("dev")


async def test_another_refusal_stays_an_error(
    workspace: tuple[Workspace, Faults], wire: tuple[CleanWebClient, list[str]]
) -> None:
    """The answer does not count as a refusal of newer blocks."""
    (stand_in, _), (client, called) = workspace, wire
    with pytest.raises(SlackApiError, match="invalid_blocks"):
        await client.chat_postMessage(channel=CHANNEL, text="x", blocks=[STEPS, section(md("x")) | {"text": {}}])
    await client.chat_postMessage(channel=CHANNEL, text="x", blocks=[STEPS])
    assert stand_in.now_visible("dev") == [text_of([STEPS])]
    assert len(called) == 3


@pytest.mark.parametrize("problem", ["It does not fit.", "x" * 900])
def test_a_problem_that_a_form_already_shows_is_detected(problem: str) -> None:
    """The problem may be shown as an alert, as a section if it is long, or as older blocks."""
    form = change_form(ChangeForm(verb="add", problem=problem))
    assert shows_problem(form, problem)
    assert shows_problem(form | {"blocks": older(form["blocks"])}, problem)
    assert not shows_problem(form, "another")


def test_measurements_are_a_table_in_the_thread_and_logs_stay_as_they_are() -> None:
    """Slack aligns the columns of a table, while a text with spaces may wrap; an older workspace gets the text."""
    rows = (("Part", "Engine", "Estimate"), ("weights", "5.2 GiB", "5.1 GiB"))
    measured = Note(title="Measured by the engine", text="The engine has 1.0 GiB more. <!channel>", rows=rows)
    op = a_bring_up(notes=(measured, Note(title="The last log lines", text="ERROR  CUDA")))
    (_, view), (_, logs) = thread(op)
    kinds = [block["type"] for block in view.blocks]
    assert kinds == ["section", "table", "section"]
    assert [cell["text"] for cell in view.blocks[1]["rows"][1]] == ["weights", "5.2 GiB", "5.1 GiB"]
    assert [column.get("align") for column in view.blocks[1]["column_settings"]] == [None, "right", "right"]
    assert "&lt;!channel&gt;" in view.blocks[2]["text"]["text"]
    assert "weights  5.2 GiB   5.1 GiB" in str(older(view.blocks))
    assert [block["type"] for block in logs.blocks] == ["section", "rich_text"]


def test_a_smoke_test_with_a_warning_is_not_called_passed() -> None:
    """LiteLLM may not have answered at all."""
    passed = Check(name="direct: /health", passed=True, evidence="200")
    doubt = Check(name="gateway: chat", passed=True, warning=True, evidence="LiteLLM could not be reached.")
    ((_, view),) = thread(a_bring_up(checks=(passed, doubt)))
    assert "1 of 2 passed, 1 with a warning" in str(view.blocks[0])
    assert "⚠️ warning" in str(view.blocks[1])
    ((_, view),) = thread(a_bring_up(checks=(passed,)))
    assert "all passed" in str(view.blocks[0])


def test_a_note_of_an_earlier_version_is_not_posted_again() -> None:
    """Its key stays the same if a note has additional fields."""
    note = "Note(title='t', text='x')"
    ((key, _),) = thread(a_bring_up(notes=(Note(title="t", text="x"),)))
    assert key == f"note:{hashlib.sha256(note.encode()).hexdigest()[:12]}"


def test_a_long_notice_is_a_section_with_its_icon() -> None:
    """Slack refuses alerts of more than 200 characters; their level is their colour."""
    short, long = alert(md("{text}", text="x" * 200), "warning"), alert(md("{text}", text="x" * 201), "warning")
    assert (short["type"], short["level"]) == ("alert", "warning")
    assert long["type"] == "section"
    assert long["text"]["text"].startswith("⚠️ ")
    view = change_form(ChangeForm(verb="add", summary=(("Model", "m"),), warnings=("The licence forbids it.",)))
    assert [block["level"] for block in view["blocks"] if block["type"] == "alert"] == ["warning"]
