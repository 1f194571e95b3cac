"""Requests of an attacker who is not Slack and not GitHub have no effect."""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from sandbox.main import STORY_LIMITS
from sandbox.slack import history
from sandbox.world import WEBHOOK_SECRET, merged, opened
from tests.journeys.conftest import ObservedSandbox

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("forked")]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[ObservedSandbox]:
    """A sandbox whose Slack uses HTTP, so that anybody may send the bot a request."""
    async with opened(
        platform=None, speed=60, port=0, checks_pass_after=None, directory=tmp_path, http=True,
        settings=merged(STORY_LIMITS, {"roles": {"approvers": ["S0APPROVERS"]}}),
    ) as world:  # fmt: skip
        yield ObservedSandbox(world)


def command(text: str, trigger: str = "1.2.abc") -> str:
    """The body of a slash command, as Slack sends it."""
    return urlencode(
        {
            "command": "/gpu",
            "text": text,
            "user_id": "U0DEV",
            "team_id": history.TEAM,
            "channel_id": history.CHANNEL,
            "trigger_id": trigger,
            "response_url": "http://127.0.0.1:9/",
        }
    )


def signed(sandbox: ObservedSandbox, body: str, *, at: float | None = None, secret: str = "") -> dict[str, str]:
    """The headers of a request that was signed at this time, with Slack's secret or another one."""
    stamp = str(int(at or time.time()))
    key = (secret or sandbox.world.bot.environment["SLACK_SIGNING_SECRET"]).encode()
    digest = hmac.new(key, f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={digest}",
    }


async def post(sandbox: ObservedSandbox, path: str, body: str, headers: dict[str, str]) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        return (await http.post(f"{sandbox.world.bot.url}{path}", content=body, headers=headers)).status_code


async def test_forged_and_old_slack_requests_are_refused(sandbox: ObservedSandbox) -> None:
    """Requests that are unsigned, wrongly signed or older than five minutes get 401 and have no effect."""
    body = command("up coder-chat")
    unsigned = {"Content-Type": "application/x-www-form-urlencoded"}
    assert await post(sandbox, "/slack/events", body, unsigned) == 401
    assert await post(sandbox, "/slack/events", body, signed(sandbox, body, secret="another")) == 401
    assert await post(sandbox, "/slack/events", body, signed(sandbox, command("down"))) == 401
    assert await post(sandbox, "/slack/events", body, signed(sandbox, body, at=time.time() - 400)) == 401
    await sandbox.says("dev", "/gpu status")
    await sandbox.sees("GPU is free")
    assert sandbox.messages("Bring up") == []


async def test_a_replayed_request_does_nothing_twice(sandbox: ObservedSandbox) -> None:
    """The same signed request again within the five minutes is the same operation."""
    body = command("up coder-chat because replay", trigger="9.9.same")
    headers = signed(sandbox, body)
    assert [await post(sandbox, "/slack/events", body, headers) for _ in range(3)] == [200, 200, 200]
    await sandbox.sees("Awaiting approval", user="lead")
    await sandbox.says("dev", "/gpu status")
    await sandbox.sees("GPU")
    assert len(sandbox.messages("Bring up coder-chat")) == 1


async def test_forged_webhooks_are_refused(sandbox: ObservedSandbox) -> None:
    """A delivery without a signature, or with a wrong or binary one, gets 401, and the bot continues."""
    body = json.dumps({"action": "closed"})
    right = hmac.new(WEBHOOK_SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    for signature in ("", "sha256=", f"sha256={'0' * 64}", f"sha1={right}"):
        assert await post(sandbox, "/github/webhook", body, {"X-Hub-Signature-256": signature}) == 401
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        raw = [(b"X-Hub-Signature-256", b"sha256=\xff\xfe")]
        assert (
            await http.post(f"{sandbox.world.bot.url}/github/webhook", content=body, headers=raw)
        ).status_code == 401
    assert await post(sandbox, "/github/webhook", body, {"X-Hub-Signature-256": f"sha256={right}"}) == 200


async def test_a_former_approver_cannot_approve(sandbox: ObservedSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user group is read at the click: a person who was removed since the card was posted is refused."""
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.sees("Awaiting approval", user="lead")
    monkeypatch.setitem(history.USERGROUPS, "S0APPROVERS", ("U0ADMIN",))
    await sandbox.clicks("lead", "Approve")
    await sandbox.sees("Only approvers can decide this", user="lead")
    assert sandbox.replicas("coder-chat") == 0
    await sandbox.clicks("admin", "Approve")
    await sandbox.sees("all smoke tests passed")
