"""GitHub's webhook: it triggers a check, and only GitHub can send it; without it the bot polls."""

import hashlib
import hmac
import json
from pathlib import Path

import httpx
import pytest

from sandbox.world import WEBHOOK_SECRET
from tests.clients.wire import client
from tests.operations.platform import Platform, open_platform

MINI = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
BODY = json.dumps({"action": "completed", "check_run": {"name": "ci"}}).encode()
NOBODY = "http://127.0.0.1:9/"


def signed(body: bytes, secret: str = WEBHOOK_SECRET) -> str:
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


async def deliver(platform: Platform, headers: dict[str, str], body: bytes = BODY) -> httpx.Response:
    async with client() as http:
        all_headers = {"X-GitHub-Event": "check_run", "X-GitHub-Delivery": "d-1", **headers}
        return await http.post(platform.webhook_url, content=body, headers=all_headers)


async def test_a_signed_delivery_triggers_a_check(tmp_path: Path, redis_url: str) -> None:
    """A repeated delivery shows nothing twice."""
    async with open_platform(tmp_path, redis_url, settings={"github": {"poll_every": "1h"}}) as platform:
        platform.github.webhook(NOBODY, "")
        await platform.say("dev", f"/model add coder-mini {MINI}")
        await platform.sees("checks are running")
        await platform.github.checks("failure")
        for _ in range(2):
            assert (await deliver(platform, {"X-Hub-Signature-256": signed(BODY)})).status_code == 200
        await platform.sees("checks failed: ci")
        assert len([text for text in platform.visible() if "Pull request #1" in text]) == 1


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
async def test_a_delivery_without_a_valid_signature_is_refused(platform: Platform, headers: dict[str, str]) -> None:
    """A delivery without GitHub's signature over exactly this body is refused."""
    answer = await deliver(platform, headers)
    assert (answer.status_code, answer.text) == (401, "bad signature\n")


async def test_without_a_webhook_the_bot_polls(tmp_path: Path, redis_url: str) -> None:
    """Polling is the safety net, and the only method without a webhook secret."""
    async with open_platform(tmp_path, redis_url, settings={"github": {"poll_every": "1s"}}, started=False) as platform:
        platform.github.webhook(NOBODY, "")
        del platform.environment["GITHUB_WEBHOOK_SECRET"]
        await platform.start()
        try:
            assert (await deliver(platform, {"X-Hub-Signature-256": signed(BODY)})).status_code == 404
            await platform.say("dev", f"/model add coder-mini {MINI}")
            await platform.sees("checks are running")
            await platform.github.checks("success")
            await platform.sees("checks passed")
        finally:
            await platform.stop()
