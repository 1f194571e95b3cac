"""The gateway over LiteLLM 1.106's protocol: virtual keys are deleted after their use, and answers have a cost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from bot.clients.litellm import LiteLLM
from bot.errors import BotError, Unavailable, Unreachable
from tests.clients.wire import Wire, client, nobody, wire

MASTER = "sk-master-of-this-test"


class Gateway:
    """LiteLLM's key store: created keys, and the remaining ones."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.keys: dict[str, dict[str, Any]] = {}
        self.minted: list[dict[str, Any]] = []
        self.slow = asyncio.Event()
        self.slow.set()
        self.reached = asyncio.Event()
        wire.answers["POST", "/key/generate"] = self.generate
        wire.answers["POST", "/key/delete"] = self.delete
        wire.answers["POST", "/v1/chat/completions"] = self.chat

    async def generate(self, request: web.Request, body: Any) -> web.Response:
        if request.headers["Authorization"] != f"Bearer {MASTER}":
            return web.json_response({"error": {"message": "not the master", "type": "auth_error"}}, status=401)
        key = f"sk-virtual-{len(self.minted)}"
        self.keys[key] = body
        self.minted.append(body)
        self.reached.set()
        await self.slow.wait()
        return web.json_response({"key": key, **body})

    async def delete(self, request: web.Request, body: Any) -> web.Response:
        await asyncio.sleep(0)
        names = body.get("key_aliases") or []
        doomed = body.get("keys") or [key for key, key_info in self.keys.items() if key_info["key_alias"] in names]
        if not doomed or any(key not in self.keys for key in doomed):
            return web.json_response({"error": {"message": "Keys not found"}}, status=404)
        for key in doomed:
            del self.keys[key]
        return web.json_response({"deleted_keys": doomed})

    async def chat(self, request: web.Request, body: Any) -> web.Response:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        if body["model"] not in self.keys.get(key, {}).get("models", []):
            error = {"message": f"Invalid key, received {key}", "type": "key_model_access_denied"}
            return web.json_response({"error": error}, status=401)
        headers = {
            "x-litellm-response-cost": "2.2e-05",
            "x-litellm-model-id": "abc",
            "x-litellm-model-api-base": "http://coder-chat.serving.svc:8000/v1",
            "x-litellm-version": "1.106.2",
        }
        return web.json_response({"choices": [{"message": {"content": "Hello."}}]}, headers=headers)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with wire() as server:
        yield Gateway(server)


async def master_key() -> SecretStr:
    return SecretStr(MASTER)


@pytest.fixture
async def litellm(gateway: Gateway) -> AsyncIterator[LiteLLM]:
    async with client() as http:
        yield LiteLLM(http, f"{gateway.wire.url}/", master_key)


async def ignored(_: str) -> None:
    """Ignore a key that remains."""


async def test_a_virtual_key_gets_an_answer_and_is_deleted(gateway: Gateway, litellm: LiteLLM) -> None:
    """The key reaches one alias, with a budget and a lifetime; the answer contains its cost."""
    async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored) as key:
        answer = await litellm.ask(key, "coder-chat", "chat")
    assert answer.cost == pytest.approx(2.2e-05)
    assert (answer.text, answer.version) == ("Hello.", "1.106.2")
    minted = gateway.minted[0]
    assert (minted["models"], minted["max_budget"], minted["duration"]) == (["coder-chat"], 0.01, "5m")
    assert gateway.keys == {}


async def test_two_keys_never_share_a_name(gateway: Gateway, litellm: LiteLLM) -> None:
    """LiteLLM refuses a second key with the same alias."""
    for _ in range(2):
        async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored):
            pass
    assert len({minted["key_alias"] for minted in gateway.minted}) == 2


async def test_the_key_is_deleted_when_the_test_fails(gateway: Gateway, litellm: LiteLLM) -> None:
    """People see the failure of the test itself."""
    with pytest.raises(ZeroDivisionError):
        async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored):
            raise ZeroDivisionError
    assert gateway.keys == {}


@pytest.mark.parametrize("status", [400, 403, 500])
async def test_a_key_that_is_not_deleted_fails_nothing(gateway: Gateway, litellm: LiteLLM, status: int) -> None:
    """Its name is reported for a later deletion; a failed test keeps its own failure."""
    left: list[str] = []

    async def remember(name: str) -> None:
        left.append(name)

    gateway.wire.on("POST", "/key/delete", {"error": {"message": "no"}}, status=status)
    async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=remember):
        pass
    with pytest.raises(ZeroDivisionError):
        async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=remember):
            raise ZeroDivisionError
    assert left == [minted["key_alias"] for minted in gateway.minted]
    gateway.wire.answers["POST", "/key/delete"] = gateway.delete
    for name in left:
        await litellm.delete_key(name)
        await litellm.delete_key(name)
    assert gateway.keys == {}


async def test_a_gateway_that_restarts_is_unreachable_and_leaves_no_key(gateway: Gateway, litellm: LiteLLM) -> None:
    """A proxy answers without an error of LiteLLM; nothing was created, so nothing is deleted."""
    gateway.wire.on("POST", "/key/generate", "no healthy upstream", status=503)
    with pytest.raises(Unreachable):
        async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored):
            pass
    assert gateway.wire.calls("POST", "/key/delete") == []


@pytest.mark.parametrize("moment", ["minting", "in use"])
async def test_the_key_is_deleted_when_the_operation_is_cancelled(
    gateway: Gateway, litellm: LiteLLM, moment: str
) -> None:
    """It is deleted even if the gateway has created it but not answered yet."""
    if moment == "minting":
        gateway.slow.clear()
    entered = asyncio.Event()

    async def smoke() -> None:
        async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(smoke())
    await (gateway.reached if moment == "minting" else entered).wait()
    assert len(gateway.keys) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.keys == {}


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {}),
        (400, {"error": {"message": "No connected db.", "type": "no_db_connection", "code": "400"}}),
    ],
)
async def test_a_gateway_without_a_database_is_reported(
    gateway: Gateway, litellm: LiteLLM, status: int, answer: dict[str, object]
) -> None:
    """It supports no virtual keys; a retry would not help."""
    gateway.wire.on("POST", "/key/generate", answer, status=status)
    with pytest.raises(BotError, match="has no database"):
        async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored):
            pass
    assert gateway.wire.calls("POST", "/key/delete") == []


async def test_a_gateway_whose_database_fails_is_not_reported_as_without_one(
    gateway: Gateway, litellm: LiteLLM
) -> None:
    """Its answer is the same 500 as without a database, but a retry may help."""
    gateway.wire.on("GET", "/health/readiness", {"status": "healthy", "db": "connected"})
    gateway.wire.on("POST", "/key/generate", {"error": "Internal Server Error."}, status=500)
    with pytest.raises(Unavailable, match="Internal Server Error"):
        async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored):
            pass


async def test_no_error_contains_a_key(gateway: Gateway, litellm: LiteLLM, caplog: pytest.LogCaptureFixture) -> None:
    """LiteLLM quotes keys in its messages."""
    with pytest.raises(BotError, match="refused the request") as refusal:
        await litellm.ask(SecretStr("sk-someone"), "coder-chat", "chat")
    assert "sk-someone" not in str(refusal.value)
    answer = {"error": {"message": "database is restarting, key sk-someone"}}
    gateway.wire.on("POST", "/v1/chat/completions", answer, status=503)
    with pytest.raises(Unavailable, match="database is restarting") as outage:
        await litellm.ask(SecretStr("sk-someone\n"), "coder-chat", "chat")
    assert "sk-someone" not in str(outage.value)
    for odd in ("sk-some one", "sk-sömeone", "sk\r\nX-Evil: 1"):
        with pytest.raises(BotError, match="set it again") as refusal:
            await litellm.ask(SecretStr(odd), "coder-chat", "chat")
        assert odd not in str(refusal.value)
    async with litellm.virtual_key("coder-chat", budget=0.01, duration="5m", on_undeleted=ignored):
        pass
    assert "sk-" not in caplog.text


async def test_aliases_are_read_from_the_list_of_the_gateway(gateway: Gateway, litellm: LiteLLM) -> None:
    """The list is requested with the master key, which may read all keys."""
    gateway.wire.on("GET", "/v1/models", {"data": [{"id": "coder-chat"}, {"id": "embeddings"}]})
    assert await litellm.aliases() == ("coder-chat", "embeddings")


async def test_tenants_keys_are_identified_by_hash_and_name(gateway: Gateway, litellm: LiteLLM) -> None:
    """Every page is read, the bot's own keys are omitted, and the result contains no secret."""

    def key(name: str, models: list[str]) -> dict[str, Any]:
        return {"token": f"hash-{name}", "key_alias": name, "key_name": "sk-...wxyz", "user_id": "u", "models": models}

    pages = {"1": [key("alice", ["coder-chat"]), key("stoker-smoke-x", ["x"])], "2": [key("bob", []), key("", ["*"])]}

    async def listed(request: web.Request, body: Any) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {MASTER}"
        keys = pages[request.query["page"]]
        return web.json_response({"keys": keys, "total_count": 4, "current_page": 1, "total_pages": 2})

    gateway.wire.answers["GET", "/key/list"] = listed
    alice, bob, unnamed = await litellm.tenant_keys()
    assert [tenant.name for tenant in (alice, bob, unnamed)] == ["alice", "bob", "#hash-"]
    assert [tenant.reaches("coder-mini") for tenant in (alice, bob, unnamed)] == [False, True, True]
    assert "wxyz" not in str([alice, bob, unnamed])
    gateway.wire.on("POST", "/key/update", {})
    await litellm.grant(alice, "coder-mini")
    await litellm.grant(bob, "coder-mini")
    updates = [call.json for call in gateway.wire.calls("POST", "/key/update")]
    assert updates == [{"key": "hash-alice", "models": ["coder-chat", "coder-mini"]}]


async def test_a_gateway_that_is_down_is_unavailable() -> None:
    """The operation tries again after such an error."""
    async with nobody() as url, client() as http:
        with pytest.raises(Unavailable, match="LiteLLM"):
            await LiteLLM(http, url, master_key).aliases()
