"""The gateway, as a tenant sees it: a virtual key for one alias, an answer by alias, and what it cost.

Speaks LiteLLM's proxy API (1.106). The master key mints, deletes and lists virtual keys, lets them call another alias,
and lists the aliases, nothing else. A tenant's key is known here by its hash and its name alone, never by its secret.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import stamina
import structlog
from pydantic import BaseModel, SecretStr

from bot.clients.http import bearer, body, error_message, refuse_if_busy, send
from bot.clients.vllm import ANSWER_TIMEOUT, Kind, trial_request
from bot.errors import BotError, StokerError, Unavailable

SYSTEM = "LiteLLM"
_OWN = "stoker-smoke-"
NO_DATABASE = "LiteLLM has no database, so it knows no virtual keys: set DATABASE_URL for it, or leave this test out."

# What a key's list of models may hold beside aliases (docs: "virtual keys", special models).
_EVERYTHING = frozenset({"all-proxy-models", "all-team-models", "*"})
_PAGE = 100

log = structlog.get_logger(__name__)


class GatewayAnswer(BaseModel, frozen=True):
    """An answer by alias. `cost` is in dollars as the gateway counted it; None when it sent none."""

    text: str
    cost: float | None
    model_id: str | None
    api_base: str | None
    seconds: float
    version: str | None
    tokens: int = 0
    """Of the question and the answer together."""


class TenantKey(BaseModel, frozen=True):
    """A virtual key of a tenant: its hash, which is how LiteLLM is told which key is meant, and what it may call."""

    hash: str
    name: str
    owner: str
    models: tuple[str, ...]

    def reaches(self, alias: str) -> bool:
        """Whether the key may call the alias. No list, or a group of models, is not the key's own narrow list."""
        return not self.models or alias in self.models or any(model in _EVERYTHING for model in self.models)


class LiteLLM:
    """The gateway at one address."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, master_key: Callable[[], Awaitable[SecretStr]]) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._master_key = master_key

    @asynccontextmanager
    async def virtual_key(self, alias: str, *, budget: float, duration: str) -> AsyncIterator[SecretStr]:
        """A key for this alias alone, with a budget in dollars and a life such as `5m`; always deleted on exit."""
        key_alias = f"{_OWN}{alias}-{secrets.token_hex(6)}"
        try:
            key = await self._mint(alias, key_alias, budget, duration)
        except (Unavailable, asyncio.CancelledError):
            # The gateway may have minted it all the same; only its name is known here.
            await self._abandon({"key_aliases": [key_alias]}, key_alias, duration)
            raise
        deletion = {"keys": [key.get_secret_value()]}
        try:
            yield key
        except BaseException:
            await self._abandon(deletion, key_alias, duration)
            raise
        await self._delete(deletion, key_alias, duration)

    async def ask(self, key: SecretStr, alias: str, kind: Kind) -> GatewayAnswer:
        """One small request of the endpoint's kind, by alias, as a tenant sends it."""
        path, question = trial_request(kind, alias)
        start = time.perf_counter()
        response = await self._post(path, key, question, timeout=ANSWER_TIMEOUT)
        _refuse(response, key)
        headers = response.headers
        return GatewayAnswer(
            text=_text(body(response)),
            cost=_number(headers.get("x-litellm-response-cost")),
            model_id=headers.get("x-litellm-model-id"),
            api_base=headers.get("x-litellm-model-api-base"),
            seconds=time.perf_counter() - start,
            version=headers.get("x-litellm-version"),
            tokens=int((body(response).get("usage") or {}).get("total_tokens") or 0),
        )

    async def aliases(self) -> tuple[str, ...]:
        """The aliases that the gateway knows now."""
        key = await self._master_key()
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/v1/models", headers=bearer(key))
        _refuse(response, key)
        return tuple(str(model["id"]) for model in body(response).get("data", []))

    async def has_database(self) -> bool | None:
        """Whether virtual keys can work; None when the gateway does not say. Needs no key."""
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/health/readiness")
        refuse_if_busy(SYSTEM, response)
        said = body(response).get("db")
        return None if said is None else said == "connected"

    async def tenant_keys(self) -> tuple[TenantKey, ...]:
        """Every virtual key that is alive, the bot's own aside."""
        found: list[TenantKey] = []
        page, pages = 1, 1
        while page <= pages:
            master = await self._master_key()
            query = {"return_full_object": "true", "status": "active", "size": str(_PAGE), "page": str(page)}
            response = await send(
                self._http, SYSTEM, "GET", f"{self._base_url}/key/list", params=query, headers=bearer(master)
            )
            _refuse(response, master)
            answer = body(response)
            found += [_tenant_key(each) for each in answer.get("keys") or () if isinstance(each, dict)]
            page, pages = page + 1, int(answer.get("total_pages") or 1)
        return tuple(key for key in found if not key.name.startswith(_OWN))

    async def let_call(self, key: TenantKey, alias: str) -> None:
        """Add the alias to what a key may call; nothing changes for a key that reaches it already."""
        if key.reaches(alias):
            return
        master = await self._master_key()
        asked = {"key": key.hash, "models": [*key.models, alias]}
        _refuse(await self._post("/key/update", master, asked), master)

    async def _mint(self, alias: str, key_alias: str, budget: float, duration: str) -> SecretStr:
        master = await self._master_key()
        asked = {"models": [alias], "max_budget": budget, "duration": duration, "key_alias": key_alias}
        response = await self._post("/key/generate", master, asked)
        # Measured: without a database it answers a bare 500 here, and with one that is unwell too.
        if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR and not await self.has_database():
            raise BotError(NO_DATABASE)
        _refuse(response, master)
        key = body(response).get("key")
        if not isinstance(key, str):
            raise BotError("LiteLLM answered /key/generate without a key.")
        return SecretStr(key)

    async def _abandon(self, deletion: dict[str, list[str]], key_alias: str, duration: str) -> None:
        """Delete without hiding the failure that is on its way up."""
        with suppress(StokerError):
            await self._delete(deletion, key_alias, duration)

    async def _delete(self, deletion: dict[str, list[str]], key_alias: str, duration: str) -> None:
        """Delete the key even if the caller is cancelled meanwhile. A key that is not there is fine."""
        await asyncio.shield(asyncio.create_task(self._delete_now(deletion, key_alias, duration)))

    async def _delete_now(self, deletion: dict[str, list[str]], key_alias: str, duration: str) -> None:
        try:
            async for attempt in stamina.retry_context(on=Unavailable, attempts=3, timeout=15.0):
                with attempt:
                    master = await self._master_key()
                    response = await self._post("/key/delete", master, deletion)
                    if response.status_code != httpx.codes.NOT_FOUND:
                        _refuse(response, master)
        except StokerError as error:
            log.warning("virtual key not deleted", key_alias=key_alias, ends_after=duration)
            raise BotError(
                f"LiteLLM did not delete the virtual key {key_alias}: it ends by itself after {duration}; "
                "delete it in LiteLLM if that is too late."
            ) from error

    async def _post(self, path: str, key: SecretStr, json: dict[str, Any], **options: Any) -> httpx.Response:
        url = f"{self._base_url}{path}"
        return await send(self._http, SYSTEM, "POST", url, json=json, headers=bearer(key), **options)


def _refuse(response: httpx.Response, key: SecretStr) -> None:
    """Raise for an answer that is an error; LiteLLM quotes parts of the key in some of them, so it is cut out."""
    if response.is_success:
        return
    error = body(response).get("error")
    if isinstance(error, dict) and error.get("type") == "no_db_connection":
        raise BotError(NO_DATABASE)
    refuse_if_busy(SYSTEM, response, key)
    raise BotError(f"LiteLLM refused the request: {error_message(response, key)}.")


def _tenant_key(about: dict[str, Any]) -> TenantKey:
    owner = about.get("user_id") or about.get("team_id") or ""
    token = str(about.get("token") or "")
    if token.startswith("sk-"):
        raise BotError("LiteLLM lists keys by their secret instead of their hash: look at its version.")
    return TenantKey(
        hash=token,
        # Not its key_name, which ends in the secret's last characters.
        name=str(about.get("key_alias") or f"#{token[:8]}"),
        owner=str(owner),
        models=tuple(str(model) for model in about.get("models") or ()),
    )


def _text(answer: dict[str, Any]) -> str:
    """What a chat, a completion or an embedding said."""
    if choices := answer.get("choices"):
        message = choices[0].get("message") or {}
        return str(choices[0].get("text") or message.get("content") or message.get("reasoning_content") or "")
    vectors = answer.get("data") or [{}]
    return f"{len(vectors[0].get('embedding', ()))} dimensions"


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
