"""Checks of the web pages that cards link to: Argo CD, the models' logs and their dashboard."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx

from bot.clients.http import body, restrict_to, send, status
from bot.doctor.findings import Finding, ok, unchecked, warning
from bot.errors import BotError, Unavailable
from bot.settings.config import Config
from bot.views.links import Links
from manifests.contract import ModelEndpoint

LINKS = "links"
_TIMEOUT = httpx.Timeout(10, connect=5)


async def links(config: Config, endpoints: tuple[ModelEndpoint, ...]) -> AsyncIterator[Finding]:
    """Check that each address is set and answers, with GET requests without credentials."""
    if not config.flux.namespace:
        yield await _argocd(config.argocd.url)
    model = next((endpoint.name for endpoint in endpoints if endpoint.gpus), "model")
    pages = Links.of(config).pages(model, datetime.now(UTC) - timedelta(hours=1))
    for key in ("logs", "dashboard"):
        yield await _page(f"links.{key}", pages.get(key, ""))


async def _argocd(address: str) -> Finding:
    if not address:
        return ok(LINKS, "argocd.url is not set, so cards do not link to their Applications in Argo CD")
    url = f"{address.rstrip('/')}/api/version"
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT, event_hooks={"request": [restrict_to(address)]}) as http:
            answer = await send(http, "argocd.url", "GET", url)
    except (BotError, Unavailable) as error:
        return _from_here("argocd.url", str(error))
    version = body(answer).get("Version")
    if not answer.is_success or not isinstance(version, str):
        problem = f"argocd.url is not the address of Argo CD: {url} answers {answer.status_code} without its version"
        return warning(LINKS, problem, "Set it to the address at which Argo CD's web UI opens in a browser.")
    return ok(LINKS, f"argocd.url is Argo CD {version[:40]}")


async def _page(setting: str, address: str) -> Finding:
    if not address:
        return ok(LINKS, f"{setting} is not set, so cards do not link to it")
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT, event_hooks={"request": [restrict_to(address)]}) as http:
            code = await status(http, setting, address)
    except (BotError, Unavailable) as error:
        return _from_here(setting, str(error))
    if code in (httpx.codes.NOT_FOUND, httpx.codes.GONE) or code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return warning(LINKS, f"{setting} answers {code}", f"Open {address} in a browser, and correct the setting.")
    return ok(LINKS, f"{setting} answers")


def _from_here(setting: str, reason: str) -> Finding:
    """A warning instead of an error, because people's browsers may reach an address that the bot does not reach."""
    return unchecked(
        LINKS,
        setting,
        reason,
        "Open the address in a browser: the people in Slack must be able to open it; the bot need not.",
    )
