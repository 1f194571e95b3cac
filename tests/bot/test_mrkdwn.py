"""Only templates create markup; values in a template are text."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bot.domain.operations import OPERATION, BringUpOperation
from bot.domain.requests import BringUp
from bot.errors import BotError, Unavailable
from bot.text.mrkdwn import (
    Mrkdwn,
    clock,
    code,
    escape,
    link,
    md,
    moment,
    person,
    shown,
    stamp,
    time_stamp,
    unmarked,
    with_code,
)
from bot.views import card, lines

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
EVIL = "<https://evil.example|Approve & roll out> <!channel> <@U0LEAD> `x` *b* :tada: \u202e\u200b\n>quote"


def test_a_value_in_a_template_is_text() -> None:
    """Any value is escaped; markup stays markup, and so does Stoker's own error that contains markup."""
    markup = md(
        "*{name}* {model}: {why} {error}", name=EVIL, model=code("m"), why=BotError(EVIL), error=Unavailable("X", EVIL)
    )
    assert markup.startswith("*&lt;https://evil.example|Approve &amp; roll out&gt; &lt;!channel&gt; &lt;@U0LEAD&gt;")
    assert markup.count("`m`") == 1
    assert "<" not in markup.replace("&lt;", "")
    assert "\u202e" not in markup
    assert "\u200b\n" not in markup
    assert md("{why}", why=BotError(md("`a` {x}", x="<b>"))) == "`a` &lt;b&gt;"


@given(st.text())
def test_no_text_becomes_a_mention_or_a_link(text: str) -> None:
    """The text may be in a template, joined to markup, added to it, or shown alone."""
    for markup in (md("{text}", text=text), md(", ").join([text, text]), md("_a_ ") + text, shown(text)):
        assert "<" not in markup
        assert ">" not in markup.replace("&gt;", "")


def test_only_a_web_address_becomes_a_link() -> None:
    """For any other address, only the label is shown."""
    assert link("https://a.example/?b=1&c=2", "x|y>") == "<https://a.example/?b=1&amp;c=2|x∣y&gt;>"
    for url in ("javascript:alert(1)", "https://a|b", "https://a>b", "https://a b", "!channel", "@U1"):
        assert "<" not in link(url, "label")


@pytest.mark.parametrize("user", ["U1|x", "!channel", "U1>", "u1", "U0 DEV"])
def test_only_a_user_id_becomes_a_mention(user: str) -> None:
    """Nothing else becomes a mention."""
    assert "<" not in person(user)


def test_stored_text_is_escaped_as_shown() -> None:
    """A plain text in a field of markup is escaped before it is stored, because stored values count as markup."""
    request = BringUp(model="m", actor="U1", channel="C1", at=NOW)
    op = BringUpOperation(id="o", request=request, updated=NOW).model_copy(
        update={"failure": EVIL, "outcome": md("*up*")}  # type: ignore[misc]  # a plain text on purpose
    )
    again = OPERATION.validate_json(op.model_dump_json())
    assert (again.failure, again.outcome) == (escape(EVIL), "*up*")
    assert isinstance(again.outcome, Mrkdwn)
    assert "<!channel>" not in str(card(op, NOW).blocks)
    assert TypeAdapter(Mrkdwn).validate_python("<b>") == "&lt;b&gt;"


def test_a_plain_text_in_a_block_is_escaped_at_run_time_too() -> None:
    """The type is also enforced at run time, for code that mypy does not check."""
    assert "<!channel>" not in str(lines(EVIL))  # type: ignore[arg-type]


def test_a_terminal_shows_no_markup() -> None:
    """A log line does not contain markup either."""
    assert str(BotError(md("`m` of {who}: <x> {text}", who=person("U1"), text="a & b"))) == "m of <@U1>: <x> a & b"
    assert unmarked("`plain` stays") == "`plain` stays"


def test_templates_are_literals() -> None:
    """A composed template would bypass the escaping: each call of `md` has a literal, and only `bot.text.mrkdwn` creates markup."""
    for path in [*ROOT.glob("bot/**/*.py"), *ROOT.glob("commands/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            if node.func.id == "md":
                assert isinstance(node.args[0], ast.Constant), place
            elif node.func.id == "Mrkdwn" and node.args:
                assert path.name in ("mrkdwn.py", "text.py", "blocks.py", "rich_text.py", "older.py"), place


def test_a_replacement_keeps_markup() -> None:
    """When the node is gone, the receipt on a card becomes exact, and the rest of the card does not change."""
    outcome = md("{model} is down.\n{receipt}", model=code("coder-chat"), receipt=md("*Receipt*: about"))
    exact = outcome.replace(md("*Receipt*: about"), md("*Receipt*: exactly"))
    assert isinstance(exact, Mrkdwn)
    assert shown(exact) == "`coder-chat` is down.\n*Receipt*: exactly"
    assert outcome.replace("coder-chat", "<!channel>") == "`&lt;!channel&gt;` is down.\n*Receipt*: about"


def test_a_diagnosis_names_flags_as_code_and_nothing_else_is_markup() -> None:
    """A sentence may contain an engine's log line, even between backticks."""
    markup = with_code("`--max-model-len=8` would fit. *bold* <!channel> `<https://evil|Approve>`")
    assert markup == "`--max-model-len=8` would fit. ∗bold∗ &lt;!channel&gt; `&lt;https://evil|Approve&gt;`"


def test_a_time_in_plain_text_is_in_the_readers_time_zone() -> None:
    """The day is omitted for a time of today; similar text is not changed."""
    at = datetime(2026, 11, 29, 12, 45, tzinfo=UTC)
    assert escape(f"since {stamp(at)}.") == f"since {moment(at)}."
    assert escape(f"until {time_stamp(at)}.") == f"until {clock(at)}."
    assert escape("at 2026-11-29T12:45:00.123Z") == f"at {moment(at)}"
    assert escape("2026-99-29T12:45:00Z") == "2026-99-29T12:45:00Z"
    assert unmarked(escape(stamp(at))) == "2026-11-29 12:45 UTC"
