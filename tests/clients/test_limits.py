"""No response takes more memory or time than its limit, independent of its sender and its encoding."""

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from bot.clients.bounded import LARGEST
from bot.clients.http import MIB, Limit, TooLarge, body, count, parse_json, send
from bot.clients.huggingface import HuggingFace
from bot.clients.kube import Collection, Kube, Selection
from bot.clients.litellm import LiteLLM
from bot.clients.rights import PODS
from bot.clients.vllm import VLLM, signals
from bot.errors import BotError, Unavailable
from bot.services import hub_http, open_kubernetes, open_slack
from bot.settings.environment import ClusterSettings, Settings, ToolSettings
from bot.slack.web_api import slack_errors
from tests.clients.test_http import _kubeconfig
from tests.clients.wire import Wire, client, wire

SMALL = Limit(size=MIB, seconds=0.5)
MODEL = "acme/model"


@pytest.fixture
async def server() -> AsyncIterator[Wire]:
    async with wire() as scripted:
        yield scripted


def bomb(size: int) -> bytes:
    """Gzip that unpacks to `size` zeros."""
    packer = zlib.compressobj(9, wbits=31)
    piece = bytes(MIB)
    return b"".join([*(packer.compress(piece) for _ in range(size // MIB)), packer.flush()])


def answers(content: bytes, **headers: str) -> Callable[[web.Request, Any], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request, __: object) -> web.StreamResponse:
        return web.Response(body=content, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return answer


def endless(
    piece: bytes, pause: float = 0.0, **headers: str
) -> Callable[[web.Request, Any], Awaitable[web.StreamResponse]]:
    """Send the same piece repeatedly, without a Content-Length."""

    async def answer(request: web.Request, _: object) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            while True:
                await response.write(piece)
                await asyncio.sleep(pause)
        except ConnectionError:
            return response

    return answer


async def test_a_small_answer_may_be_packed(server: Wire) -> None:
    """Gzip and deflate are unpacked, whole and in several pieces."""
    text = json.dumps({"numbers": list(range(20_000))}).encode()
    async with client() as http:
        for packed, encoding in ((gzip.compress(text), "gzip"), (zlib.compress(text), "deflate"), (text, "identity")):
            server.answers["GET", "/x"] = answers(packed, Content_Encoding=encoding)
            assert body(await send(http, "It", "GET", f"{server.url}/x"))["numbers"][-1] == 19_999


async def test_a_few_bytes_that_unpack_to_gigabytes_are_refused(server: Wire) -> None:
    """Unpacked bytes count, before they are in memory."""
    server.answers["GET", "/x"] = answers(bomb(256 * MIB), Content_Encoding="gzip")
    async with client() as http:
        tracemalloc.start()
        with pytest.raises(TooLarge, match="It's answer is larger than 1 MB"):
            await send(http, "It", "GET", f"{server.url}/x", limit=Limit(size=MIB))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * MIB


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_an_encoding_that_cannot_be_unpacked_in_pieces_is_refused(server: Wire, encoding: str) -> None:
    """The request accepts only gzip."""
    server.answers["GET", "/x"] = answers(b"\x00" * 100, Content_Encoding=encoding)
    async with client() as http:
        with pytest.raises(Unavailable, match="which was not requested"):
            await send(http, "It", "GET", f"{server.url}/x")


async def test_a_body_above_the_limit_is_refused_with_and_without_its_length(server: Wire) -> None:
    """A body with a declared length above the limit is not read; without a length, its bytes are counted."""
    server.answers["GET", "/declared"] = answers(bytes(2 * MIB))
    server.answers["GET", "/undeclared"] = endless(bytes(MIB))
    async with client() as http:
        for path in ("/declared", "/undeclared"):
            with pytest.raises(TooLarge):
                await send(http, "It", "GET", f"{server.url}{path}", limit=Limit(size=MIB))


async def test_one_byte_at_a_time_has_a_deadline(server: Wire) -> None:
    """Each byte would restart httpx's own read timeout."""
    server.answers["GET", "/x"] = endless(b"x", 0.05)
    async with client() as http:
        with pytest.raises(Unavailable, match=r"not complete after 0\.5 s"):
            await send(http, "It", "GET", f"{server.url}/x", limit=SMALL)


async def test_the_body_of_a_redirect_is_not_read(server: Wire) -> None:
    """A loop of redirects ends with an error."""

    content = bomb(64 * MIB)

    async def redirect(_: web.Request, __: object) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/y", "Content-Encoding": "gzip"}, body=content)

    server.answers["GET", "/x"] = redirect
    server.on("GET", "/y", {"here": True})
    async with client() as http:
        answer = await send(http, "It", "GET", f"{server.url}/x", limit=SMALL, follow_redirects=True)
        assert body(answer) == {"here": True}
        server.answers["GET", "/y"] = redirect
        with pytest.raises(Unavailable, match="redirects more than"):
            await send(http, "It", "GET", f"{server.url}/x", limit=SMALL, follow_redirects=True)


def test_json_from_outside_has_only_finite_numbers() -> None:
    """NaN, infinity and numbers that overflow are unknown."""
    text = '{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e400, "e": -1e400, "f": 1.5, "g": 7}'
    assert parse_json(text) == {"a": None, "b": None, "c": None, "d": None, "e": None, "f": 1.5, "g": 7}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" + "[]," * 1_000_001 + "[]]", "1" * 5000, "{"])
def test_json_that_is_too_deep_too_long_or_broken_is_refused(text: str) -> None:
    """The error is the same as for invalid JSON."""
    with pytest.raises(ValueError):  # noqa: PT011  # the parser decides which of them
        parse_json(text)


@pytest.mark.parametrize(("value", "counts"), [(3, 3), (-1, 0), (2**60, 0), ("3", 0), (None, 0), (True, 0), (1.5, 0)])
def test_only_a_number_is_a_count(value: object, counts: int) -> None:
    """Other values are not counts."""
    assert count(value) == counts


def metrics(running: str, more: str = "") -> str:
    return f'vllm:num_requests_running{{engine="0"}} {running}\nvllm:prompt_tokens_total 5\n{more}'


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "Inf", "-1", "1e400", "1e300", "many", "0x10", "1_0x"])
def test_a_metric_that_is_not_a_number_of_requests_is_unknown(value: str) -> None:
    """An unknown value counts as active, and is not stored."""
    with pytest.raises(Unavailable, match="not a number of requests"):
        signals(metrics(value))


def test_irrelevant_metrics_may_have_any_form() -> None:
    """Their labels may contain line breaks, braces and quotes."""
    odd = 'vllm:kv_cache_usage_perc NaN\nvllm:other{a="b\\n}\\"{"} +Inf\nvllm:num_requests_waiting{a="}\\"x\\\\"} 2 1700000000\n'
    assert signals(metrics("1", odd)).waiting == 2


def test_a_repeated_metric_counts_once() -> None:
    """A series that is repeated adds nothing to the use; another series does."""
    assert signals(metrics("2") + metrics("2")).running == 2
    assert signals(metrics("2") + 'vllm:num_requests_running{engine="1"} 3\n').running == 5


def test_metrics_of_many_megabytes_are_read_quickly() -> None:
    """Parsing blocks the event loop: 4 MB of irrelevant lines take only a moment of processor time."""
    text = 'vllm:request_success_by_adapter_total{lora="x"} 1.0\n' * 80_000 + metrics("1")
    start = time.thread_time()
    assert signals(text).running == 1
    assert time.thread_time() - start < 3


async def test_endless_metrics_are_unknown(server: Wire) -> None:
    """A server that writes metrics forever is stopped by the size limit."""
    server.answers["GET", "/metrics"] = endless(b'vllm:lora_info{name="x"} 1.0\n' * 2000)
    async with client() as http:
        with pytest.raises(TooLarge, match="vLLM's answer to /metrics is larger than 4 MB"):
            await VLLM(http, "").activity(server.url)


async def test_an_answer_that_does_not_stop_is_cut_off(server: Wire) -> None:
    """The number of chunks and the number of bytes are limited."""
    chunk = b'data: {"choices": [{"text": "again "}]}\n\n'
    huge = b'data: {"choices": [{"text": "' + b"x" * MIB + b'"}]}\n\n'
    async with client() as http:
        for piece, expected in ((chunk, "does not stop at the 48 requested tokens"), (huge, "is larger than 1 MB")):
            server.answers["POST", "/v1/completions"] = endless(piece)
            with pytest.raises(BotError, match=expected):
                await VLLM(http, "").ask(server.url, SecretStr("key"), "m", "completion")


@pytest.mark.parametrize("usage", ['{"prompt_tokens": 1e400}', '{"completion_tokens": "7"}', '"none"', "null", "[]"])
async def test_usage_of_any_shape_is_a_count(server: Wire, usage: str) -> None:
    """A value that is not a number of tokens is ignored."""
    text = f'data: {{"choices": [{{"text": "hi"}}], "usage": {usage}}}\n\ndata: [DONE]\n\n'
    server.on("POST", "/v1/completions", text=text)
    async with client() as http:
        answer = await VLLM(http, "").ask(server.url, SecretStr("key"), "m", "completion")
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("hi", 0, 0)


def settings_of(endpoint: str, **more: Any) -> Settings:
    return Settings(
        slack_bot_token=SecretStr("xoxb-x"),
        slack_app_token=SecretStr("xapp-x"),
        github_repository="a/b",
        hf_endpoint=endpoint,
        **more,
    )


async def hub_of(server: Wire, stack: AsyncExitStack, **more: Any) -> HuggingFace:
    client = await stack.enter_async_context(hub_http(settings_of(server.url, **more)))
    return HuggingFace(client, server.url, lambda: None)


async def test_requests_go_through_the_proxy_of_the_environment(server: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client behind the host check reads the environment as httpx does."""
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.on("GET", "/api/models/m", {"id": "m"})
    async with hub_http(settings_of("http://hub.invalid")) as http:
        for _ in range(2):
            assert body(await send(http, "The Hub", "GET", "http://hub.invalid/api/models/m")) == {"id": "m"}


async def test_a_missing_file_of_authorities_is_named(server: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    async with hub_http(settings_of(server.url)) as http:
        with pytest.raises(BotError, match="check SSL_CERT_FILE"):
            await send(http, "The Hub", "GET", f"{server.url}/api/models/m")


ABOUT = {"sha": "a" * 40, "siblings": [{"rfilename": "model.safetensors", "size": 5_000_000}]}


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
async def test_a_huge_file_of_the_hub_is_refused_by_its_name(server: Wire, file: str) -> None:
    """One sentence names the file and the model, even if there is no Content-Length."""
    server.on("GET", f"/api/models/{MODEL}", ABOUT)
    for name in ("config.json", "tokenizer_config.json"):
        server.on("GET", f"/{MODEL}/resolve/{'a' * 40}/{name}", {})
    server.answers["GET", f"/{MODEL}/resolve/{'a' * 40}/{file}"] = endless(b" " * MIB)
    async with AsyncExitStack() as stack:
        with pytest.raises(TooLarge, match=f"The Hub's {file} for {MODEL} is larger than 16 MB"):
            await (await hub_of(server, stack)).model(MODEL)


async def test_a_listing_without_end_is_refused(server: Wire) -> None:
    """The listing of a model's files and the result of a search have limits."""
    server.answers["GET", f"/api/models/{MODEL}"] = endless(b'{"rfilename": "x"},' * 1000)
    server.answers["GET", "/api/models"] = endless(b'{"id": "a/b"},' * 1000)
    async with AsyncExitStack() as stack:
        hub = await hub_of(server, stack)
        with pytest.raises(TooLarge, match=f"The Hub's description of {MODEL} is larger than 8 MB"):
            await hub.model(MODEL)
        with pytest.raises(TooLarge, match="The Hub's search result is larger than 8 MB"):
            await hub.search("x")


@pytest.mark.parametrize(
    "target",
    [
        "http://litellm.litellm.svc:4000/health",
        "http://coder-chat.serving.svc:8000/metrics",
        "http://169.254.169.254/computeMetadata/v1/",
        "http://10.0.0.1/",
        "http://[::1]:6379/",
        "http://cdn-lfs.hf.co/file",
        "https://cdn-lfs.hf.co:6443/file",
        "https://hf.co.evil.example.com/file",
        "//metadata.google.internal/",
        "file:///etc/passwd",
        "http://:bad",
    ],
)
async def test_the_hub_redirects_only_to_its_file_hosts(server: Wire, target: str) -> None:
    """Requests to a Service of the cluster, to the cloud's metadata, or to another port or scheme of an allowed host are refused."""
    server.on("GET", f"/api/models/{MODEL}", ABOUT)
    path = f"/{MODEL}/resolve/{'a' * 40}/config.json"
    server.on("GET", path, status=302, headers={"Location": target})
    async with AsyncExitStack() as stack:
        with pytest.raises(
            (BotError, Unavailable), match=r"not one of the configured hosts|redirects to an invalid address"
        ):
            await (await hub_of(server, stack)).model(MODEL)


async def test_a_mirror_redirects_to_itself_and_to_its_configured_hosts(server: Wire) -> None:
    """`HF_FILE_HOSTS` names the hosts."""
    config = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 512}
    async with wire() as files, AsyncExitStack() as stack:
        server.on("GET", f"/api/models/{MODEL}", ABOUT)
        at = f"/{MODEL}/resolve/{'a' * 40}"
        server.on("GET", f"{at}/config.json", status=302, headers={"Location": "/moved"})
        server.on("GET", "/moved", config)
        server.on("GET", f"{at}/tokenizer_config.json", status=302, headers={"Location": f"{files.url}/t"})
        files.on("GET", "/t", {"chat_template": "x"})
        hub = await hub_of(server, stack, hf_file_hosts=f"https://other.example.com {files.url}")
        facts = await hub.model(MODEL)
    assert (facts.hidden_size, facts.chat) == (64, True)


async def test_kubernetes_and_slack_are_read_within_limits(server: Wire, tmp_path: Path) -> None:
    """The libraries read whole answers into memory."""
    for route in (("GET", "/api/v1/pods"), ("POST", "/api/auth.test")):
        server.answers[route] = endless(b" " * MIB, Content_Type="application/json")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(server.url)))
    async with AsyncExitStack() as stack:
        kube = Kube(await open_kubernetes(ClusterSettings(kubeconfig=str(kubeconfig)), stack))
        with pytest.raises(Unavailable, match=f"larger than {LARGEST // MIB} MB"):
            await kube.list(Selection(Collection(PODS)))
        slack = await open_slack(ToolSettings(slack_api_url=f"{server.url}/api/"), stack)
        with pytest.raises(Unavailable, match="Slack"), slack_errors("auth.test"):
            await slack.auth_test()


async def test_virtual_keys_of_endless_pages_are_refused(server: Wire) -> None:
    """A gateway that reports ten thousand pages gets only one request."""

    async def master() -> SecretStr:
        return SecretStr("sk-master")

    server.on("GET", "/key/list", {"keys": [], "total_pages": 10_000})
    async with client() as http:
        with pytest.raises(BotError, match="10000 pages of virtual keys"):
            await LiteLLM(http, server.url, master).tenant_keys()
    assert len(server.requests) == 1


PAGE = "\n<!DOCTYPE html>\n<html><head><title>Sign in to Acme</title></head><body>Use your account.</body></html>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
async def test_a_login_page_is_not_an_empty_answer(server: Wire, kind: str) -> None:
    """Every client reports an error if a proxy in between answers with status 200 and HTML."""

    async def master() -> SecretStr:
        return SecretStr("sk-master")

    for route in (
        ("GET", "/v1/models"),
        ("GET", "/key/list"),
        ("GET", "/metrics"),
        ("GET", f"/api/models/{MODEL}"),
        ("POST", "/v1/chat/completions"),
    ):
        server.answers[route] = answers(PAGE.encode(), Content_Type=kind)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(client())
        gateway, vllm, hub = LiteLLM(http, server.url, master), VLLM(http, ""), await hub_of(server, stack)
        for call in (
            gateway.tenant_keys(),
            vllm.activity(server.url),
            vllm.ask(server.url, SecretStr("key"), "m", "chat"),
            hub.model(MODEL),
        ):
            with pytest.raises(Unavailable, match="the web page “Sign in to Acme” instead of data"):
                await call
