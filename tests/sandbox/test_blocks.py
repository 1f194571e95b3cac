"""Block Kit as text, for stories and transcripts."""

from typing import Any

import pytest

from sandbox.slack.blocks import readable, visible_text


def name(target: str) -> str:
    return {"U0DEV": "dev"}.get(target, target)


@pytest.mark.parametrize(
    ("mrkdwn", "text"),
    [
        ("*Bring up `coder-chat`* — running", "Bring up coder-chat — running"),
        ("*Swap `a` to `b/c`*\n_asked_ by <@U0DEV>", "Swap a to b/c\nasked by @dev"),
        ("`*not bold*` and *bold*", "*not bold* and bold"),
        ("```\n*as it is*\n```", "\n*as it is*\n"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
        ("<https://example.com|the page> of <!date^0^{time}|00:00 UTC>", "the page of 00:00 UTC"),
        ("&lt;!channel&gt; &amp; `a&lt;b`", "<!channel> & a<b"),
    ],
)
def test_markup_is_applied_and_not_shown(mrkdwn: str, text: str) -> None:
    """Asterisks are style, even around code, but inside code they are text."""
    assert readable(mrkdwn, name) == text


def test_fields_are_read_as_label_and_value() -> None:
    """Slack shows two columns; a line of text shows which value belongs to which label."""

    def field(text: str) -> dict[str, Any]:
        return {"type": "mrkdwn", "text": text}

    section = {"type": "section", "fields": [field("*Serves*\nQwen/Q as q"), field("*Commit*\n`aa5c`"), field("alone")]}
    assert visible_text([section], name) == "Serves: Qwen/Q as q · Commit: aa5c · alone"
