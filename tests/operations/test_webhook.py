"""GitHub's webhook: it triggers a check, and only GitHub can send it; without it the bot polls."""

import hashlib
import hmac
import json
from pathlib import Path

import httpx
import pytest

from sandbox.world import WEBHOOK_SECRET
from tests.clients.wire import client
from tests.operations.platform import Platform, platform

MINI = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
BODY = json.dumps({"action": "completed", "check_run": {"name": "ci"}}).encode()
NOBODY = "http://127.0.0.1:9/"


def signed(body: bytes, secret: str = WEBHOOK_SECRET) -> str:
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


async def deliver(it: Platform, headers: dict[str, str], body: bytes = BODY) -> httpx.Response:
    async with client() as http:
        given = {"X-GitHub-Event": "check_run", "X-GitHub-Delivery": "d-1", **headers}
        return await http.post(it.webhook_url, content=body, headers=given)


async def test_a_signed_delivery_makes_the_bot_look(tmp_path: Path, redis_url: str) -> None:
    """A repeated delivery shows nothing twice."""
    async with platform(tmp_path, redis_url, settings={"github": {"poll_every": "1h"}}) as it:
        it.github.webhook(NOBODY, "")
        await it.say("dev", f"/model add coder-mini {MINI}")
        await it.sees("checks are running")
        await it.github.checks("failure")
        for _ in range(2):
            assert (await deliver(it, {"X-Hub-Signature-256": signed(BODY)})).status_code == 200
        await it.sees("checks failed: ci")
        assert len([text for text in it.visible() if "Pull request #1" in text]) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": "sha256=0000"},
        {"X-Hub-Signature-256": signed(BODY, "another secret")},
        {"X-Hub-Signature-256": signed(b"{}")},
        {"X-Hub-Signature-256": signed(BODY).removeprefix("sha256=")},
        {"X-Hub-Signature": "sha1=" + hmac.new(WEBHOOK_SECRET.encode(), BODY, hashlib.sha1).hexdigest()},
    ],
    ids=["missing", "empty", "wrong", "another secret", "another body", "no scheme", "sha1"],
)
async def test_nobody_else_makes_it_look(platform: Platform, headers: dict[str, str]) -> None:
    """A delivery without GitHub's signature over exactly this body is refused."""
    answer = await deliver(platform, headers)
    assert (answer.status_code, answer.text) == (401, "bad signature\n")


async def test_without_a_webhook_the_bot_looks_by_itself(tmp_path: Path, redis_url: str) -> None:
    """Polling is the safety net, and the only method without a webhook secret."""
    async with platform(tmp_path, redis_url, settings={"github": {"poll_every": "1s"}}, started=False) as it:
        it.github.webhook(NOBODY, "")
        del it.environment["GITHUB_WEBHOOK_SECRET"]
        await it.start()
        try:
            assert (await deliver(it, {"X-Hub-Signature-256": signed(BODY)})).status_code == 404
            await it.say("dev", f"/model add coder-mini {MINI}")
            await it.sees("checks are running")
            await it.github.checks("success")
            await it.sees("checks passed")
        finally:
            await it.stop()
