"""Slack's requests over HTTP: one signed POST per delivery. Commands, clicks and events go to the same URL."""

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from contextlib import suppress
from urllib.parse import urlencode

import httpx

from sandbox.slack.blocks import Json
from sandbox.slack.delivery import NotAcknowledged, NotDelivered

ATTEMPTS = 3
"""Number of attempts for an event; commands and clicks have one attempt."""


class HttpMode:
    """Posts to `url`, signed with `secret`.

    `ack_within` is the time in seconds that Slack waits for a response (3, as documented), and `patience` the time that a
    delivery waits for an app that is restarting.
    """

    def __init__(self, url: str, secret: str, ack_within: float = 3.0, patience: float = 15.0) -> None:
        self._url, self._secret = url, secret
        self._ack_within, self._patience = ack_within, patience

    async def connected(self, timeout: float) -> None:
        """Wait until the app answers Slack's challenge, as the form for the request URL does; raises NotDelivered."""
        challenge = {"type": "url_verification", "token": "verification", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY"}
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            with suppress(httpx.HTTPError):
                answer = await self._post("application/json", json.dumps(challenge), {})
                if answer.is_success and challenge["challenge"] in answer.text:
                    return
            await asyncio.sleep(0.1)
        raise NotDelivered(f"{self._url} did not answer the challenge within {timeout:g} s.")

    async def deliver(self, kind: str, payload: Json) -> Json:
        content, body = _encode(kind, payload)
        until = time.monotonic() + self._patience
        headers: dict[str, str] = {}
        for attempt in itertools.count(1):
            tries_left = kind == "events_api" and attempt < ATTEMPTS
            try:
                answer = await self._post(content, body, headers)
            except httpx.ConnectError as e:
                if time.monotonic() > until:
                    raise NotDelivered from e
                await asyncio.sleep(0.2)
                continue
            except httpx.HTTPError as e:
                if not tries_left:
                    raise NotAcknowledged from e
                headers = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": "http_timeout"}
                continue
            if answer.is_success:
                return _acknowledgement(answer)
            if not tries_left:
                raise NotDelivered
            headers = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": "http_error"}
        raise AssertionError("itertools.count() does not end")

    async def disconnect(self) -> None:
        return

    async def _post(self, content: str, body: str, headers: dict[str, str]) -> httpx.Response:
        now = str(int(time.time()))
        signature = hmac.new(self._secret.encode(), f"v0:{now}:{body}".encode(), hashlib.sha256).hexdigest()
        signed = {
            "Content-Type": content,
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": now,
            "X-Slack-Signature": f"v0={signature}",
        }
        async with httpx.AsyncClient(timeout=self._ack_within, trust_env=False) as http:
            return await http.post(self._url, content=body.encode(), headers=signed | headers)


def _encode(kind: str, payload: Json) -> tuple[str, str]:
    """Return content type and body: a form for commands, a form with one field for clicks, JSON for events."""
    if kind == "events_api":
        return "application/json", json.dumps(payload)
    form = payload if kind == "slash_commands" else {"payload": json.dumps(payload)}
    return "application/x-www-form-urlencoded", urlencode(form)


def _acknowledgement(answer: httpx.Response) -> Json:
    if not answer.text.strip():
        return {}
    try:
        content = answer.json()
    except ValueError:
        return {"text": answer.text}
    return content if isinstance(content, dict) else {"text": str(content)}
