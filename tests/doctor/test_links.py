"""`stoker doctor` on the addresses that cards link to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from bot.doctor.links import links
from bot.settings.config import Config


@asynccontextmanager
async def pages() -> AsyncIterator[str]:
    """A server with Argo CD at `/argo`, its login page at `/login`, and a dashboard for `coder-chat`."""

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"Version": "v3.1.0+abc"})

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")

    async def foreign_answer(_: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/argo/api/version", version)
    app.router.add_get("/login/api/version", page)
    app.router.add_get("/d/model", page)
    app.router.add_get("/json/api/version", foreign_answer)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("")).rstrip("/")


async def diagnosis(config: Config) -> list[str]:
    return [f"{finding.verdict}: {finding.message} → {finding.fix}" async for finding in links(config, ())]


def configured(argocd: str = "", logs: str = "", dashboard: str = "", **more: Any) -> Config:
    """The settings with addresses on this machine, which the settings file would refuse because they are not https."""
    config = Config.model_validate({"argocd": {"url": argocd}, **more})
    return config.model_copy(update={"links": config.links.model_copy(update={"logs": logs, "dashboard": dashboard})})


async def test_addresses_that_are_not_set_are_named() -> None:
    """The addresses are optional, so a missing one is not an error; with Flux, Argo CD's is not mentioned."""
    lines = await diagnosis(configured())
    assert [line.split(" is not set, so cards do not link to")[0] for line in lines] == [
        "ok: argocd.url", "ok: links.logs", "ok: links.dashboard",
    ]  # fmt: skip
    assert not any("argocd" in line for line in await diagnosis(configured(flux={"namespace": "flux-system"})))


async def test_correct_addresses_have_no_findings() -> None:
    """Argo CD returns its version; a login page counts as a working page."""
    async with pages() as base:
        lines = await diagnosis(configured(f"{base}/argo/", f"{base}/d/{{model}}?from={{from}}", f"{base}/d/model"))
    assert lines == [
        "ok: argocd.url is Argo CD v3.1.0+abc → ",
        "ok: links.logs answers → ",
        "ok: links.dashboard answers → ",
    ]


@pytest.mark.parametrize(
    ("argocd", "dashboard", "expected"),
    [
        ("/other", "", "warning: argocd.url is not the address of Argo CD: "),
        ("/json", "", "warning: argocd.url is not the address of Argo CD: "),
        ("/login", "", "warning: argocd.url could not be checked: argocd.url does not answer: it answers with the web page “Sign in”"),
        ("", "/d/{namespace}", "warning: links.dashboard answers 404 → Open http"),
    ],
)  # fmt: skip
async def test_a_wrong_address_is_named(argocd: str, dashboard: str, expected: str) -> None:
    """The warning contains the setting and a description of the answer."""
    async with pages() as base:
        lines = await diagnosis(configured(argocd and base + argocd, "", dashboard and base + dashboard))
    assert any(line.startswith(expected) for line in lines), lines


async def test_an_address_that_only_browsers_reach_is_a_warning() -> None:
    """The network policy does not allow the bot to reach it, which is not necessary."""
    lines = await diagnosis(configured(f"http://127.0.0.1:{unused_port()}", f"http://127.0.0.1:{unused_port()}/x"))
    assert [line.split(":")[0] for line in lines] == ["warning", "warning", "ok"]
    assert all("the people in Slack must be able to open it; the bot need not" in line for line in lines[:2])
