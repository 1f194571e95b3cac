"""The bot's clients send nothing to a host that is not configured."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from bot.clients.http import refuse_if_busy, restrict_to, unreachable
from bot.clients.kube import Collection, Kube
from bot.clients.rights import NODES
from bot.errors import BotError, Unavailable
from bot.services import open_kubernetes, open_slack
from bot.settings.environment import ClusterSettings, ToolSettings
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
async def test_only_configured_hosts_are_contacted(host: str, allowed: bool) -> None:
    """Whole names are compared, so a suffix or the cloud's metadata address is not accepted."""
    template = "http://{service}.{namespace}.svc:{port}"
    hook = restrict_to("http://litellm.litellm.svc:4000", template, "https://.hf.co")
    request = httpx.Request("GET", host)
    if allowed:
        await hook(request)
    else:
        with pytest.raises(BotError, match="not one of the configured hosts"):
            await hook(request)


async def test_a_redirect_to_another_host_is_not_followed(tmp_path: Path) -> None:
    """A hostile answer cannot make httpx or the libraries of Slack and Kubernetes contact other hosts."""
    async with wire() as server, AsyncExitStack() as stack:

        async def elsewhere(request: web.Request, _: object) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect("http://localhost.evil.example.com/steal")

        for request in (("GET", "/file"), ("POST", "/api/auth.test"), ("GET", "/api/v1/nodes/one")):
            server.answers[request] = elsewhere
        http = await stack.enter_async_context(
            httpx.AsyncClient(event_hooks={"request": [restrict_to(server.url)]}, follow_redirects=True)
        )
        slack = await open_slack(ToolSettings(slack_api_url=f"{server.url}/api/"), stack)
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(server.url)))
        kube = Kube(await open_kubernetes(ClusterSettings(kubeconfig=str(kubeconfig)), stack))
        for ask in (
            lambda: http.get(f"{server.url}/file"),
            slack.auth_test,
            lambda: kube.get(Collection(NODES), "one"),
        ):
            with pytest.raises(BotError, match=r"localhost\.evil\.example\.com is not one of the configured hosts"):
                await ask()
        assert len(server.requests) == 3


def _kubeconfig(server: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "bot", "user": {"token": "secret"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "bot"}}],
        "current-context": "here",
    }


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (httpx.ConnectError("All connection attempts failed"), "no connection to it is possible"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "its host name is unknown"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), "its certificate is not trusted"),
        (httpx.ReadTimeout(""), "it took too long"),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), "the connection was interrupted"),
        (httpx.RemoteProtocolError("Invalid URL in location header: Invalid port: 'bad'."), "it redirects to an invalid address"),
    ],
)  # fmt: skip
def test_a_failed_connection_is_explained(error: httpx.RequestError, meaning: str) -> None:
    """The library's own text is only in the log."""
    assert str(unreachable("LiteLLM", error)) == f"LiteLLM does not answer: {meaning}"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, "vLLM answers with an error: EngineCore encountered an issue (500)"),
        (503, "vLLM does not answer: EngineCore encountered an issue (503)"),
    ],
)
def test_an_answer_with_an_error_is_not_reported_as_no_answer(status: int, expected: str) -> None:
    """The engine's reference to a log above is left out, because there is no log above a message in Slack."""
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    with pytest.raises(Unavailable) as failure:
        refuse_if_busy("vLLM", httpx.Response(status, json={"error": {"message": message}}))
    assert str(failure.value) == expected


def test_an_error_begins_like_a_sentence() -> None:
    """A proper name is not changed."""
    assert str(Unavailable("the git remote", "status 503")) == "The git remote does not answer: status 503"
    assert str(Unavailable("vLLM")) == "vLLM does not answer"
