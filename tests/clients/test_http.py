"""The bot's clients send nothing to a host that nobody configured, whoever asks them to."""

import httpx
import pytest
from aiohttp import web

from bot.clients.http import only
from bot.errors import BotError
from tests.clients.wire import wire


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("http://litellm.litellm.svc:4000/v1/models", True),
        ("http://coder-chat.serving.svc:8000/health", True),
        ("https://cdn-lfs.hf.co/file", True),
        ("https://hf.co/file", True),
        ("https://evil.example.com/", False),
        ("http://coder-chat.serving.svc.evil.example.com/", False),
        ("http://a.b.serving.svc:8000/", False),
        ("https://hf.co.evil.example.com/", False),
        ("http://169.254.169.254/latest/meta-data", False),
    ],
)
async def test_only_configured_hosts_are_spoken_to(host: str, allowed: bool) -> None:
    """By their whole names: neither a suffix nor the cloud's metadata address gets past."""
    template = "http://{service}.{namespace}.svc:{port}"
    hook = only("http://litellm.litellm.svc:4000", template, "https://.hf.co")
    request = httpx.Request("GET", host)
    if allowed:
        await hook(request)
    else:
        with pytest.raises(BotError, match="none of the hosts that are configured"):
            await hook(request)


async def test_a_redirect_to_another_host_is_not_followed() -> None:
    """A hostile answer cannot make the bot ask somebody else."""
    async with wire() as it:

        async def elsewhere(request: web.Request, _: object) -> web.StreamResponse:
            raise web.HTTPFound("http://localhost.evil.example.com/steal")

        it.answers["GET", "/file"] = elsewhere
        async with httpx.AsyncClient(event_hooks={"request": [only(it.url)]}, follow_redirects=True) as http:
            with pytest.raises(BotError, match=r"localhost\.evil\.example\.com"):
                await http.get(f"{it.url}/file")
