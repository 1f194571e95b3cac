"""No secret leaves the process: not in Slack, in a pull request, in the audit log or in a line of the log."""

import base64
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from bot.clients.github import GitHub
from bot.observability.logs import cleaned, cleaned_texts, conceal
from bot.services import open_slack
from bot.settings.environment import ToolSettings
from tests.clients.wire import client, wire

KEY = "vllm+key/of=this-test-0123456789"
conceal(SecretStr(KEY))


@pytest.mark.parametrize(
    "form",
    [KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode(), f"{KEY[:9]}\n{KEY[9:20]}\n  {KEY[20:]}"],
    ids=["as it is", "in an address", "in base64", "over lines"],
)
def test_a_known_secret_is_found_in_its_forms(form: str) -> None:
    """An engine's own crash log may contain it in any of these forms."""
    output = cleaned(f"args: --api-key={form} end")
    assert "***" in output
    assert KEY[:9] not in output
    assert form[:12] not in output
    assert output.endswith(" end")


@pytest.mark.parametrize(
    "text", ["task-runner-of-the-day", "hf_id", "risk-assessment", "https://host/a:b", "Qwen/Qwen2.5-Coder-7B"]
)
def test_ordinary_words_are_not_redacted(text: str) -> None:
    """Text that only resembles a token is kept."""
    assert cleaned(text) == text


async def test_nothing_sent_to_slack_or_github_contains_a_secret() -> None:
    """Secrets are removed from any block of any method, and from a pull request's body; ids do not change."""
    blocks = [{"type": "section", "block_id": "hf_id", "text": {"type": "mrkdwn", "text": f"key {KEY}"}}]
    async with wire() as server, AsyncExitStack() as stack:
        server.on("POST", "/api/chat.postMessage", {"ok": True, "channel": "C1", "ts": "1"})
        server.on("POST", "/api/views.open", {"ok": True, "view": {"id": "V1"}})
        slack = await open_slack(ToolSettings(slack_api_url=f"{server.url}/api/"), stack)
        await slack.chat_postMessage(channel="C1", text=f"failed: {KEY}", blocks=blocks)
        await slack.views_open(trigger_id="1.1", view={"type": "modal", "blocks": blocks})
        server.on("PATCH", "/repos/a/b/pulls/1", {})

        async def token() -> SecretStr:
            return SecretStr("ghs_ofthistest0123456789")

        async with client(server.url) as http:
            await GitHub(http, "a/b", token).describe(1, "feat: x", f"log: {KEY}")
    assert len(server.requests) == 3
    for request in server.requests:
        assert "***" in str(request.json)
        assert KEY not in str(request.json)
    assert server.requests[0].json["blocks"][0]["block_id"] == "hf_id"


def test_only_texts_are_touched() -> None:
    """The bot itself writes a button's value and an action's id, so they are not changed."""
    sent = {"action_id": KEY, "text": {"text": KEY}, "elements": [{"alt_text": KEY, "count": 3}]}
    assert cleaned_texts(sent) == {
        "action_id": KEY,
        "text": {"text": "***"},
        "elements": [{"alt_text": "***", "count": 3}],
    }
