"""Client for the gateway: virtual keys, test requests by alias, and models that are registered at run time.

Uses LiteLLM's proxy API (1.106). The master key is only used to create, delete and list virtual keys, to grant them
access to aliases, and to list and register aliases. A tenant's key is identified only by its hash and its name, never
by its secret.
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
_SMOKE_KEY_PREFIX = "stoker-smoke-"
NO_DATABASE = (
    "LiteLLM has no database, so it has no virtual keys: set DATABASE_URL for it, or switch this test off with the"
    " setting litellm.smoke_test."
)
_UNAVAILABLE_STATUS = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
"""Status codes of a proxy or a Service while LiteLLM restarts. LiteLLM's own errors have a JSON body."""

OnUndeleted = Callable[[str], Awaitable[None]]
"""Callback for the name of a virtual key that could not be deleted."""

NO_STORE = (
    "LiteLLM keeps no models in its database: set store_model_in_db: true in its general_settings, or leave out `now`."
)
_RUNTIME_ID_PREFIX = "stoker-"
_MARK = "stoker_operation"
"""The field of `model_info` that contains the id of the operation that registered a model."""

# Entries in a key's list of models that are not aliases (docs: "virtual keys", special models).
_EVERYTHING = frozenset({"all-proxy-models", "all-team-models", "*"})
_PAGE, _PAGES = 100, 100
"""Keys per page, and maximum number of pages: ten thousand keys."""

log = structlog.get_logger(__name__)


class GatewayAnswer(BaseModel, frozen=True, defer_build=True):
    """An answer by alias. `cost` is in dollars as reported by the gateway; None if it reported no cost."""

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
        """Return whether the key may call the alias. A key with an empty list, or with a group of models, may call every
        alias.
        """
        return not self.models or alias in self.models or any(model in _EVERYTHING for model in self.models)


class RuntimeModel(BaseModel, frozen=True, defer_build=True):
    """A model in LiteLLM's database. The models of its configuration file are not in the database.

    `operation` is the id of the operation that registered it; empty if Stoker did not register it.
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
    """Sends requests to the gateway at one address."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, master_key: Callable[[], Awaitable[SecretStr]]) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._master_key = master_key

    @asynccontextmanager
    async def virtual_key(
        self, alias: str, *, budget: float, duration: str, on_undeleted: OnUndeleted
    ) -> AsyncIterator[SecretStr]:
        """Create a key for this alias only, with a budget in dollars and a lifetime such as `5m`; delete it on exit.

        If LiteLLM does not delete the key, `on_undeleted` receives its name for a later deletion, and no error is raised.
        """
        key_alias = f"{_SMOKE_KEY_PREFIX}{alias}-{secrets.token_hex(6)}"
        try:
            key = await self._create_key(alias, key_alias, budget, duration)
        except (Unavailable, asyncio.CancelledError) as error:
            # The gateway may have created the key although the request failed. Only the key's name is known here.
            if not _was_not_received(error):
                await self._delete({"key_aliases": [key_alias]}, key_alias, on_undeleted)
            raise
        try:
            yield key
        finally:
            await self._delete({"keys": [key.get_secret_value()]}, key_alias, on_undeleted)

    async def delete_key(self, key_alias: str) -> None:
        """Delete a virtual key by its name. A missing key is ignored."""
        await self._delete_now({"key_aliases": [key_alias]})

    async def ask(self, key: SecretStr, alias: str, kind: Kind) -> GatewayAnswer:
        """Send one small request of the endpoint's kind by alias, as a tenant does."""
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
        """Return whether the gateway has a database, which virtual keys require; None if it does not report this. Needs
        no key.
        """
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/health/readiness")
        refuse_if_busy(SYSTEM, response)
        state = body(response).get("db")
        return None if state is None else state == "connected"

    async def tenant_keys(self) -> tuple[TenantKey, ...]:
        """Every valid virtual key, except those for the bot's smoke tests."""
        keys: list[TenantKey] = []
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
            keys += (
                [_tenant_key(entry) for entry in listed or () if isinstance(entry, dict)]
                if isinstance(listed, list)
                else []
            )
            page, pages = page + 1, count(answer.get("total_pages")) or 1
            if pages > _PAGES:
                raise BotError(f"LiteLLM lists {pages} pages of virtual keys; Stoker reads at most {_PAGES}.")
        return tuple(key for key in keys if not key.name.startswith(_SMOKE_KEY_PREFIX))

    async def runtime_models(self) -> tuple[RuntimeModel, ...]:
        """The models that were registered at run time (`POST /model/new`), without those of the configuration file."""
        master = await self._master_key()
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/model/info", headers=bearer(master))
        _refuse(response, master)
        listed = body(response).get("data")
        return tuple(
            model
            for entry in (listed if isinstance(listed, list) else ())
            if isinstance(entry, dict) and (model := _runtime_model(entry))
        )

    async def register(self, registration: Registration) -> None:
        """Register an alias at run time. Idempotent per operation.

        Raises BotError if LiteLLM does not store models in its database (`store_model_in_db`).
        """
        if any(model.operation == registration.operation for model in await self.runtime_models()):
            return
        master = await self._master_key()
        params: dict[str, Any] = {"model": registration.model, "api_base": registration.api_base}
        params |= {"api_key": registration.api_key} if registration.api_key else {}
        for key, price in (
            ("input_cost_per_token", registration.price_in),
            ("output_cost_per_token", registration.price_out),
        ):
            params |= {key: price} if price is not None else {}
        info = {"id": f"{_RUNTIME_ID_PREFIX}{registration.operation}", _MARK: registration.operation}
        info |= {"mode": registration.mode} if registration.mode else {}
        payload = {"model_name": registration.alias, "litellm_params": params, "model_info": info}
        response = await self._post("/model/new", master, payload)
        # Measured: LiteLLM answers 500 with this text in `error.message`, and the error is permanent.
        if not response.is_success and "STORE_MODEL_IN_DB" in response.text:
            raise BotError(NO_STORE)
        _refuse(response, master)

    async def unregister(self, operation: str) -> None:
        """Delete the models that an operation registered. Missing models are ignored."""
        for model in await self.runtime_models():
            if model.operation != operation:
                continue
            master = await self._master_key()
            response = await self._post("/model/delete", master, {"id": model.id})
            if response.status_code != httpx.codes.BAD_REQUEST or "not found" not in response.text:
                _refuse(response, master)

    async def grant(self, key: TenantKey, alias: str) -> None:
        """Grant a key access to the alias; does nothing if it already has access."""
        if key.reaches(alias):
            return
        master = await self._master_key()
        payload = {"key": key.hash, "models": [*key.models, alias]}
        _refuse(await self._post("/key/update", master, payload), master)

    async def _create_key(self, alias: str, key_alias: str, budget: float, duration: str) -> SecretStr:
        master = await self._master_key()
        payload = {"models": [alias], "max_budget": budget, "duration": duration, "key_alias": key_alias}
        response = await self._post("/key/generate", master, payload)
        # Measured: LiteLLM answers 500 without a message here, both without a database and if the database fails.
        if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR and not await self.has_database():
            raise BotError(NO_DATABASE)
        _refuse(response, master)
        key = body(response).get("key")
        if not isinstance(key, str):
            raise BotError("LiteLLM answered /key/generate without a key.")
        return conceal(SecretStr(key))

    async def _delete(self, deletion: dict[str, list[str]], key_alias: str, on_undeleted: OnUndeleted) -> None:
        """Delete the key, even if the caller is cancelled in the meantime."""

        async def delete() -> None:
            try:
                async for attempt in stamina.retry_context(on=Unavailable, attempts=3, timeout=15.0):
                    with attempt:
                        await self._delete_now(deletion)
            except StokerError as error:
                log.warning("virtual key not deleted", key_alias=key_alias, error=str(error))
                await on_undeleted(key_alias)

        await asyncio.shield(asyncio.create_task(delete()))

    async def _delete_now(self, deletion: dict[str, list[str]]) -> None:
        master = await self._master_key()
        response = await self._post("/key/delete", master, deletion)
        if response.status_code != httpx.codes.NOT_FOUND:
            _refuse(response, master)

    async def _post(self, path: str, key: SecretStr, json: dict[str, Any], **options: Any) -> httpx.Response:
        url = f"{self._base_url}{path}"
        return await send(self._http, SYSTEM, "POST", url, json=json, headers=bearer(key), **options)


def _was_not_received(error: BaseException) -> bool:
    """Return whether the error shows that LiteLLM did not receive the request."""
    refused = error.__cause__ is None or isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
    return isinstance(error, Unreachable) and refused


def _refuse(response: httpx.Response, key: SecretStr) -> None:
    """Raise the error of an unsuccessful response. The key is removed from the text, because LiteLLM quotes parts of it
    in some errors.
    """
    if response.is_success:
        return
    error = body(response).get("error")
    if isinstance(error, dict) and error.get("type") == "no_db_connection":
        raise BotError(NO_DATABASE)
    if response.status_code in _UNAVAILABLE_STATUS and not error:
        raise Unreachable(SYSTEM, error_message(response, key))
    refuse_if_busy(SYSTEM, response, key)
    raise BotError(f"LiteLLM refused the request: {error_message(response, key)}.")


def _runtime_model(entry: dict[str, Any]) -> RuntimeModel | None:
    info, params = entry.get("model_info") or {}, entry.get("litellm_params") or {}
    if not isinstance(info, dict) or not isinstance(params, dict) or not info.get("db_model"):
        return None
    return RuntimeModel(
        id=str(info.get("id") or ""),
        alias=str(entry.get("model_name") or ""),
        model=str(params.get("model") or ""),
        api_base=str(params.get("api_base") or ""),
        operation=str(info.get(_MARK) or ""),
    )


def _tenant_key(entry: dict[str, Any]) -> TenantKey:
    owner, models = entry.get("user_id") or entry.get("team_id") or "", entry.get("models")
    token = str(entry.get("token") or "")
    if token.startswith("sk-"):
        raise BotError("LiteLLM lists keys by their secret instead of their hash: check its version.")
    return TenantKey(
        hash=token,
        # The key_name is not used, because it ends with the secret's last characters.
        name=str(entry.get("key_alias") or f"#{token[:8]}"),
        owner=str(owner),
        models=tuple(str(model) for model in models) if isinstance(models, list) else (),
    )


def _text(answer: dict[str, Any]) -> str:
    """The text of the answer to a chat, a completion, an embedding or a ranking request."""
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
