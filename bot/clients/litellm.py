"""The gateway from a tenant's point of view: a virtual key for one alias, an answer by alias, and its cost.

Uses LiteLLM's proxy API (1.106). The master key only creates, deletes and lists virtual keys, grants them access to
aliases, and lists and registers aliases. A tenant's key is identified only by its hash and its name, never by its
secret.
"""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import stamina
import structlog
from pydantic import BaseModel, SecretStr

from bot.clients.http import bearer, body, count, error_message, refuse_if_busy, send
from bot.clients.vllm import ANSWER_LIMIT, ANSWER_TIMEOUT, Kind, model_ids, pooled, trial_request
from bot.errors import BotError, StokerError, Unavailable, Unreachable
from bot.observability.logs import conceal

SYSTEM = "LiteLLM"
_OWN = "stoker-smoke-"
NO_DATABASE = (
    "LiteLLM has no database, so it has no virtual keys: set DATABASE_URL for it, or switch this test off with the"
    " setting litellm.smoke_test."
)
_AWAY = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
"""Answers of a proxy or a Service while LiteLLM restarts; LiteLLM's own errors have a JSON body."""

Left = Callable[[str], Awaitable[None]]
"""Receives the name of a virtual key that could not be deleted."""

NO_STORE = (
    "LiteLLM keeps no models in its database: set store_model_in_db: true in its general_settings, or leave out `now`."
)
_RUNTIME = "stoker-"
_MARK = "stoker_operation"
"""The key in `model_info` with the operation that registered a model."""

# Entries other than aliases in a key's list of models (docs: "virtual keys", special models).
_EVERYTHING = frozenset({"all-proxy-models", "all-team-models", "*"})
_PAGE, _PAGES = 100, 100
"""Keys per page, and maximum pages: ten thousand keys."""

log = structlog.get_logger(__name__)


class GatewayAnswer(BaseModel, frozen=True, defer_build=True):
    """An answer by alias. `cost` is in dollars as reported by the gateway; None if it sent none."""

    text: str
    cost: float | None
    seconds: float
    version: str | None
    tokens: int = 0
    """Tokens of prompt and answer together."""


class TenantKey(BaseModel, frozen=True, defer_build=True):
    """A tenant's virtual key: its hash, which identifies it for LiteLLM, and the models that it may call."""

    hash: str
    name: str
    owner: str
    models: tuple[str, ...]

    def reaches(self, alias: str) -> bool:
        """Return whether the key may call the alias. A key without a list, or with a group of models, is not limited to
        certain aliases.
        """
        return not self.models or alias in self.models or any(model in _EVERYTHING for model in self.models)


class RuntimeModel(BaseModel, frozen=True, defer_build=True):
    """A model in LiteLLM's database, in addition to its configuration.

    `operation` is the id of the bot's operation that registered it, "" if somebody else did.
    """

    id: str
    alias: str
    model: str
    api_base: str
    operation: str = ""


class Registration(BaseModel, frozen=True, defer_build=True):
    """An alias to register at run time; prices are dollars per token."""

    alias: str
    model: str
    api_base: str
    api_key: str
    price_in: float | None
    price_out: float | None
    operation: str
    mode: str = ""
    """The request type of LiteLLM's health check; empty for a chat."""


class LiteLLM:
    """The gateway at one address."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, master_key: Callable[[], Awaitable[SecretStr]]) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._master_key = master_key

    @asynccontextmanager
    async def virtual_key(self, alias: str, *, budget: float, duration: str, left: Left) -> AsyncIterator[SecretStr]:
        """A key for this alias only, with a budget in dollars and a lifetime such as `5m`; deleted on exit.

        If LiteLLM does not delete it, the test does not fail: `left` receives its name for a later deletion.
        """
        key_alias = f"{_OWN}{alias}-{secrets.token_hex(6)}"
        try:
            key = await self._mint(alias, key_alias, budget, duration)
        except (Unavailable, asyncio.CancelledError) as error:
            if not _never_arrived(
                error
            ):  # the gateway may have created the key nevertheless; only its name is known here
                await self._delete({"key_aliases": [key_alias]}, key_alias, left)
            raise
        try:
            yield key
        finally:
            await self._delete({"keys": [key.get_secret_value()]}, key_alias, left)

    async def delete_key(self, key_alias: str) -> None:
        """Delete a virtual key by its name. A missing key is ignored."""
        await self._delete_now({"key_aliases": [key_alias]})

    async def ask(self, key: SecretStr, alias: str, kind: Kind) -> GatewayAnswer:
        """One small request of the endpoint's kind by alias, like a tenant's."""
        path, question = trial_request(kind, alias)
        start = time.perf_counter()
        response = await self._post(path, key, question, timeout=ANSWER_TIMEOUT, limit=ANSWER_LIMIT)
        _refuse(response, key)
        headers = response.headers
        return GatewayAnswer(
            text=_text(body(response)),
            cost=_number(headers.get("x-litellm-response-cost")),
            seconds=time.perf_counter() - start,
            version=headers.get("x-litellm-version"),
            tokens=_total_tokens(body(response)),
        )

    async def aliases(self) -> tuple[str, ...]:
        """The current aliases of the gateway."""
        key = await self._master_key()
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/v1/models", headers=bearer(key))
        _refuse(response, key)
        return model_ids(body(response))

    async def has_database(self) -> bool | None:
        """Return whether virtual keys can work; None if the gateway does not report it. Needs no key."""
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/health/readiness")
        refuse_if_busy(SYSTEM, response)
        said = body(response).get("db")
        return None if said is None else said == "connected"

    async def tenant_keys(self) -> tuple[TenantKey, ...]:
        """Every valid virtual key, except the bot's own."""
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
            listed = answer.get("keys")
            found += (
                [_tenant_key(each) for each in listed or () if isinstance(each, dict)]
                if isinstance(listed, list)
                else []
            )
            page, pages = page + 1, count(answer.get("total_pages")) or 1
            if pages > _PAGES:
                raise BotError(f"LiteLLM lists {pages} pages of virtual keys; Stoker reads at most {_PAGES}.")
        return tuple(key for key in found if not key.name.startswith(_OWN))

    async def runtime_models(self) -> tuple[RuntimeModel, ...]:
        """The models that were registered at run time (`POST /model/new`), without those of the configuration."""
        master = await self._master_key()
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/model/info", headers=bearer(master))
        _refuse(response, master)
        listed = body(response).get("data")
        return tuple(
            found
            for each in (listed if isinstance(listed, list) else ())
            if isinstance(each, dict) and (found := _runtime_model(each))
        )

    async def register(self, wanted: Registration) -> None:
        """Register an alias at run time. Idempotent per operation.

        Raises BotError if LiteLLM does not store models in its database (`store_model_in_db`).
        """
        if any(each.operation == wanted.operation for each in await self.runtime_models()):
            return
        master = await self._master_key()
        params: dict[str, Any] = {"model": wanted.model, "api_base": wanted.api_base}
        params |= {"api_key": wanted.api_key} if wanted.api_key else {}
        for key, price in (("input_cost_per_token", wanted.price_in), ("output_cost_per_token", wanted.price_out)):
            params |= {key: price} if price is not None else {}
        info = {"id": f"{_RUNTIME}{wanted.operation}", _MARK: wanted.operation}
        info |= {"mode": wanted.mode} if wanted.mode else {}
        asked = {"model_name": wanted.alias, "litellm_params": params, "model_info": info}
        response = await self._post("/model/new", master, asked)
        # Measured: LiteLLM answers 500 with this text in `error.message`, and the error is permanent.
        if not response.is_success and "STORE_MODEL_IN_DB" in response.text:
            raise BotError(NO_STORE)
        _refuse(response, master)

    async def unregister(self, operation: str) -> None:
        """Remove the models that an operation registered. Missing ones are ignored."""
        for each in await self.runtime_models():
            if each.operation != operation:
                continue
            master = await self._master_key()
            response = await self._post("/model/delete", master, {"id": each.id})
            if response.status_code != httpx.codes.BAD_REQUEST or "not found" not in response.text:
                _refuse(response, master)

    async def let_call(self, key: TenantKey, alias: str) -> None:
        """Grant a key access to the alias; does nothing if it already has access."""
        if key.reaches(alias):
            return
        master = await self._master_key()
        asked = {"key": key.hash, "models": [*key.models, alias]}
        _refuse(await self._post("/key/update", master, asked), master)

    async def _mint(self, alias: str, key_alias: str, budget: float, duration: str) -> SecretStr:
        master = await self._master_key()
        asked = {"models": [alias], "max_budget": budget, "duration": duration, "key_alias": key_alias}
        response = await self._post("/key/generate", master, asked)
        # Measured: LiteLLM answers 500 without a message here, both without a database and if the database fails.
        if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR and not await self.has_database():
            raise BotError(NO_DATABASE)
        _refuse(response, master)
        key = body(response).get("key")
        if not isinstance(key, str):
            raise BotError("LiteLLM answered /key/generate without a key.")
        return conceal(SecretStr(key))

    async def _delete(self, deletion: dict[str, list[str]], key_alias: str, left: Left) -> None:
        """Delete the key even if the caller is cancelled meanwhile."""

        async def deleted() -> None:
            try:
                async for attempt in stamina.retry_context(on=Unavailable, attempts=3, timeout=15.0):
                    with attempt:
                        await self._delete_now(deletion)
            except StokerError as error:
                log.warning("virtual key not deleted", key_alias=key_alias, error=str(error))
                await left(key_alias)

        await asyncio.shield(asyncio.create_task(deleted()))

    async def _delete_now(self, deletion: dict[str, list[str]]) -> None:
        master = await self._master_key()
        response = await self._post("/key/delete", master, deletion)
        if response.status_code != httpx.codes.NOT_FOUND:
            _refuse(response, master)

    async def _post(self, path: str, key: SecretStr, json: dict[str, Any], **options: Any) -> httpx.Response:
        url = f"{self._base_url}{path}"
        return await send(self._http, SYSTEM, "POST", url, json=json, headers=bearer(key), **options)


def _never_arrived(error: BaseException) -> bool:
    """Return whether LiteLLM cannot have received the request that ended with this error."""
    refused = error.__cause__ is None or isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
    return isinstance(error, Unreachable) and refused


def _refuse(response: httpx.Response, key: SecretStr) -> None:
    """Raise for an error response; LiteLLM quotes parts of the key in some of them, so the key is removed."""
    if response.is_success:
        return
    error = body(response).get("error")
    if isinstance(error, dict) and error.get("type") == "no_db_connection":
        raise BotError(NO_DATABASE)
    if response.status_code in _AWAY and not error:
        raise Unreachable(SYSTEM, error_message(response, key))
    refuse_if_busy(SYSTEM, response, key)
    raise BotError(f"LiteLLM refused the request: {error_message(response, key)}.")


def _runtime_model(about: dict[str, Any]) -> RuntimeModel | None:
    info, params = about.get("model_info") or {}, about.get("litellm_params") or {}
    if not isinstance(info, dict) or not isinstance(params, dict) or not info.get("db_model"):
        return None
    return RuntimeModel(
        id=str(info.get("id") or ""),
        alias=str(about.get("model_name") or ""),
        model=str(params.get("model") or ""),
        api_base=str(params.get("api_base") or ""),
        operation=str(info.get(_MARK) or ""),
    )


def _tenant_key(about: dict[str, Any]) -> TenantKey:
    owner, models = about.get("user_id") or about.get("team_id") or "", about.get("models")
    token = str(about.get("token") or "")
    if token.startswith("sk-"):
        raise BotError("LiteLLM lists keys by their secret instead of their hash: check its version.")
    return TenantKey(
        hash=token,
        # Not its key_name, which ends with the secret's last characters.
        name=str(about.get("key_alias") or f"#{token[:8]}"),
        owner=str(owner),
        models=tuple(str(model) for model in models) if isinstance(models, list) else (),
    )


def _text(answer: dict[str, Any]) -> str:
    """The text of a chat, a completion, an embedding or a ranking."""
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        message = message if isinstance(message, dict) else {}
        return str(choices[0].get("text") or message.get("content") or message.get("reasoning_content") or "")
    return pooled(answer)


def _total_tokens(answer: dict[str, Any]) -> int:
    usage = answer.get("usage")
    return count(usage.get("total_tokens")) if isinstance(usage, dict) else 0


def _number(text: str | None) -> float | None:
    """The text as a number of dollars; None if it is not a finite number."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) and abs(value) < 1e9 else None
