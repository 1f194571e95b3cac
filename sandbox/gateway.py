"""The sandbox's LiteLLM (1.106): aliases, virtual keys with budgets, and the cost of each call.

The aliases come from the *synced* values: the ConfigMap of the litellm Application.
"""

import asyncio
import hashlib
import json
import re
import secrets
from base64 import b64decode
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
from aiohttp import web

from sandbox.objects import Object, ObjectStore
from sandbox.rendering import load

VERSION = "1.106.0"
NAMESPACE = "litellm"
SPEND_DELAY = 0.5  # LiteLLM writes the spend shortly after the call
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_RERANK_PROVIDERS = ("hosted_vllm", "huggingface", "infinity", "jina_ai", "cohere", "litellm_proxy")
"""Providers with a handler in `litellm.rerank`, which refuses `openai/` (litellm/rerank_api/main.py)."""


@dataclass
class VirtualKey:
    """One tenant's key: the aliases that it may call, and its spend."""

    token: str
    key_alias: str | None
    models: list[str]
    max_budget: float | None
    expires: datetime | None
    metadata: Object
    spend: float = 0.0

    def info(self) -> Object:
        return {
            "key_name": f"sk-...{self.token[-4:]}",
            "key_alias": self.key_alias,
            "models": self.models,
            "max_budget": self.max_budget,
            "spend": self.spend,
            "expires": self.expires.isoformat() if self.expires else None,
            "metadata": self.metadata,
        }


@dataclass(frozen=True)
class Route:
    """The target of an alias; prices in dollars per token."""

    alias: str
    provider: str
    served_name: str
    api_base: str
    price_in: float
    price_out: float
    namespace: str
    """The namespace in which LiteLLM runs."""

    @property
    def model_id(self) -> str:
        return hashlib.sha256(f"{self.alias}{self.served_name}{self.api_base}".encode()).hexdigest()


class Refused(Exception):
    """An error response of LiteLLM."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": str(status)}}


class Gateway:
    """LiteLLM, forwarding to `engines_url` (which ends in `/vllm`)."""

    def __init__(self, store: ObjectStore, faults: Set[str], http: httpx.AsyncClient) -> None:
        self._store, self._faults, self._http = store, faults, http
        self.engines_url = ""
        self._keys: dict[str, VirtualKey] = {}
        self._stored: dict[str, Object] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        root = "/litellm"
        for path, handler in {"/health/liveliness": self._alive, "/health/readiness": self._ready}.items():
            router.add_get(root + path, self._with_errors(handler))
        router.add_get(root + "/v1/models", self._with_errors(self._models))
        router.add_get(root + "/model/info", self._with_errors(self._model_info))
        router.add_post(root + "/model/new", self._with_errors(self._new_model))
        router.add_post(root + "/model/delete", self._with_errors(self._delete_model))
        router.add_get(root + "/key/info", self._with_errors(self._key_info))
        router.add_get(root + "/key/list", self._with_errors(self._list_keys))
        router.add_post(root + "/key/update", self._with_errors(self._update_key))
        router.add_post(root + "/key/generate", self._with_errors(self._generate_key))
        router.add_post(root + "/key/delete", self._with_errors(self._delete_keys))
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"):
            router.add_post(root + path, self._with_errors(self._call))

    def _with_errors(self, handler: Any) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            if "litellm-down" in self._faults:
                raise web.HTTPServiceUnavailable(text="no healthy upstream\n")
            try:
                response: web.StreamResponse = await handler(request)
            except Refused as refused:
                return web.json_response(refused.body, status=refused.status)
            return response

        return answer

    @property
    def master_key(self) -> str:
        secret = self._store.get("Secret", "litellm-secrets", NAMESPACE)
        return b64decode(secret["data"]["PROXY_MASTER_KEY"]).decode() if secret else ""

    def routes(self) -> dict[str, Route]:
        """Return the aliases in the database, and those of the last synced config."""
        routes = {model["model_name"]: _route(model) for model in self._stored.values()}
        for namespace, config in self._configurations():
            for entry in config.get("model_list") or ():
                routes[entry["model_name"]] = _route(entry, namespace)
        return routes

    def _configurations(self) -> list[tuple[str, Object]]:
        """Return each LiteLLM configuration in a ConfigMap, with its namespace."""
        configurations = []
        for config_map in self._store.stored("ConfigMap"):
            for text in (config_map.get("data") or {}).values():
                if re.search(r"model_list|general_settings|litellm_settings", str(text)):
                    config = load(str(text))
                    configurations += (
                        [(config_map["metadata"]["namespace"], config)] if isinstance(config, dict) else []
                    )
        return configurations

    def _stores_models(self) -> bool:
        settings = [config.get("general_settings") or {} for _, config in self._configurations()]
        return any(general_settings.get("store_model_in_db") is True for general_settings in settings)

    async def _model_info(self, request: web.Request) -> web.Response:
        """List every model without its key; `db_model` marks those in the database."""
        self._master_only(request)
        stored = [
            model
            | {
                "litellm_params": {key: value for key, value in model["litellm_params"].items() if key != "api_key"},
                "model_info": model["model_info"] | {"db_model": True},
            }
            for model in self._stored.values()
        ]
        names = {model["model_name"] for model in stored}
        configured = [
            {
                "model_name": route.alias,
                "litellm_params": {"model": f"{route.provider}/{route.served_name}", "api_base": route.api_base},
                "model_info": {"id": route.model_id, "db_model": False},
            }
            for route in self.routes().values()
            if route.alias not in names
        ]
        return web.json_response({"data": [*configured, *stored]})

    async def _new_model(self, request: web.Request) -> web.Response:
        """Store a model in the database, or refuse it like LiteLLM's `add_new_model` without `store_model_in_db`."""
        self._master_only(request)
        body = await request.json()
        self._refuse_without_store()
        identity = str((body.get("model_info") or {}).get("id") or secrets.token_hex(16))
        if identity in self._stored:
            raise Refused(
                400, "auth_error", "Authentication Error, Unique constraint failed on the fields: (`model_id`)"
            )
        self._stored[identity] = body | {"model_info": (body.get("model_info") or {}) | {"id": identity}}
        return web.json_response({"model_id": identity, "model_name": body["model_name"]})

    async def _delete_model(self, request: web.Request) -> web.Response:
        self._master_only(request)
        identity = str((await request.json()).get("id"))
        self._refuse_without_store()
        if self._stored.pop(identity, None) is None:
            raise Refused(400, "auth_error", f"{{'error': 'Model with id={identity} not found in db'}}")
        return web.json_response({"message": f"Model: {identity} deleted successfully"})

    def _refuse_without_store(self) -> None:
        if not self._stores_models():
            message = "{'error': \"Set `'STORE_MODEL_IN_DB='True'` in your env to enable this feature.\"}"
            raise Refused(500, "auth_error", message, "None")

    async def _alive(self, _: web.Request) -> web.Response:
        return web.json_response("I'm alive!")

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "healthy", "db": "connected"})

    async def _models(self, request: web.Request) -> web.Response:
        key = self._authenticate(request)
        aliases = [alias for alias in self.routes() if key is None or not key.models or alias in key.models]
        models = [{"id": alias, "object": "model", "created": 1677610602, "owned_by": "openai"} for alias in aliases]
        return web.json_response({"data": models, "object": "list"})

    async def _generate_key(self, request: web.Request) -> web.Response:
        self._master_only(request)
        body = await request.json()
        if body.get("key_alias") in {key.key_alias for key in self._keys.values() if key.key_alias}:
            message = (
                f"Key with alias '{body['key_alias']}' already exists. Unique key aliases across all keys are required."
            )
            raise Refused(400, "bad_request_error", message, "key_alias")
        key = VirtualKey(
            token=f"sk-{secrets.token_urlsafe(16)}",
            key_alias=body.get("key_alias"),
            models=list(body.get("models") or []),
            max_budget=body.get("max_budget"),
            expires=_expiry(body.get("duration")),
            metadata=body.get("metadata") or {},
        )
        self._keys[key.token] = key
        return web.json_response(key.info() | {"key": key.token, "token": _hash(key.token)})

    async def _list_keys(self, request: web.Request) -> web.Response:
        self._master_only(request)
        page, size = (int(request.query.get(name, default)) for name, default in (("page", "1"), ("size", "10")))
        now = datetime.now(UTC)
        alive = [key for key in self._keys.values() if key.expires is None or key.expires > now]
        listed = alive[(page - 1) * size : page * size]
        full = request.query.get("return_full_object") == "true"
        keys = [key.info() | {"token": _hash(key.token)} if full else _hash(key.token) for key in listed]
        pages = -(-len(alive) // size)
        return web.json_response({"keys": keys, "total_count": len(alive), "current_page": page, "total_pages": pages})

    async def _update_key(self, request: web.Request) -> web.Response:
        self._master_only(request)
        body = await request.json()
        named = body.get("key") or ""
        key_object = next((key for token, key in self._keys.items() if named in {token, _hash(token)}), None)
        if key_object is None:
            raise Refused(404, "not_found_error", f"Key not found: {named}")
        if "models" in body:
            key_object.models = list(body["models"] or [])
        return web.json_response({"key": named, **key_object.info()})

    async def _delete_keys(self, request: web.Request) -> web.Response:
        self._master_only(request)
        if "litellm-keeps-keys" in self._faults:
            raise Refused(500, "internal_server_error", "Authentication Error, All connection attempts failed")
        body = await request.json()
        tokens = {*(body.get("keys") or ())}
        aliases = {*(body.get("key_aliases") or ())}
        deleted = [t for t, key in self._keys.items() if {t, _hash(t)} & tokens or key.key_alias in aliases]
        if not deleted:
            raise Refused(404, "not_found_error", "{'error': 'No keys found'}")
        for token in deleted:
            del self._keys[token]
        return web.json_response({"deleted_keys": [*tokens, *aliases]})

    async def _key_info(self, request: web.Request) -> web.Response:
        caller = self._authenticate(request)
        wanted_token = request.query.get("key") or (caller.token if caller else "")
        key_object = next((key for token, key in self._keys.items() if wanted_token in {token, _hash(token)}), None)
        if key_object is None:
            raise Refused(404, "not_found_error", "Key not found in database")
        return web.json_response({"key": wanted_token, "info": key_object.info()})

    async def _call(self, request: web.Request) -> web.StreamResponse:
        key, body = self._authenticate(request), await request.json()
        route = self._authorize(key, str(body.get("model")))
        if request.path.endswith("/v1/rerank") and route.provider not in _RERANK_PROVIDERS:
            message = f"litellm.APIConnectionError: Unsupported provider: {route.provider}"
            raise Refused(500, "None", message)
        upstream = f"{self._engine_of(route)}{request.path.removeprefix('/litellm')}"
        upstream_body = body | {"model": route.served_name}
        ranks_texts = route.provider == "huggingface" and request.path.endswith("/v1/rerank")
        if ranks_texts:  # TEI's own API is below the api_base without /v1 (litellm/llms/huggingface/rerank)
            path = urlsplit(route.api_base).path.rstrip("/").removesuffix("/rerank")
            upstream = f"{self._engine_of(route)}{path}/rerank"
            upstream_body = {"query": body["query"], "texts": body["documents"]}
        if body.get("stream"):
            upstream_body["stream_options"] = {"include_usage": True}
        secret = self._store.get("Secret", "vllm-api-key", "serving")
        engine_key = b64decode(secret["data"]["api-key"]).decode() if secret else ""
        try:
            answer = await self._http.post(
                upstream, json=upstream_body, headers={"Authorization": f"Bearer {engine_key}"}
            )
        except httpx.HTTPError as e:
            raise Refused(500, "internal_server_error", "litellm.InternalServerError: Connection error.") from e
        if answer.is_error:
            raise _upstream_failed(route, answer)
        content = _rank_answer(answer, body) if ranks_texts else answer.content
        usage = json.loads(content)["usage"] if ranks_texts else _usage(answer)
        # LiteLLM bills rankings of these providers by `search_units`, which they do not report (BerriAI/litellm#13797).
        cost = usage.get("prompt_tokens", 0) * route.price_in + usage.get("completion_tokens", 0) * route.price_out
        cost = 0.0 if request.path.endswith("/v1/rerank") else cost
        if key:
            self._spend(key, cost)
        headers = {
            "x-litellm-call-id": secrets.token_hex(16),
            "x-litellm-model-id": route.model_id,
            "x-litellm-model-api-base": route.api_base,
            "x-litellm-version": VERSION,
            "x-litellm-response-cost": str(cost),
            "x-litellm-key-spend": str(key.spend if key else 0.0),
            "Content-Type": answer.headers["content-type"],
        }
        return web.Response(body=content.replace(*_names_to_replace(route)), headers=headers)

    def _authorize(self, key: VirtualKey | None, alias: str) -> Route:
        if key and key.models and alias not in key.models:
            message = f"key not allowed to access model. This key can only access models={key.models}. Tried to access {alias}"
            raise Refused(403, "key_model_access_denied", message, "model")
        if key and key.max_budget is not None and key.spend >= key.max_budget:
            message = f"Budget has been exceeded! Current cost: {key.spend}, Max budget: {key.max_budget}"
            raise Refused(400, "budget_exceeded", message)
        route = self.routes().get(alias)
        if route is None:
            message = f"/chat/completions: Invalid model name passed in model={alias}. Call `/v1/models` to view available models for your key."
            raise Refused(400, "invalid_request_error", message, "model")
        return route

    def _authenticate(self, request: web.Request) -> VirtualKey | None:
        """Return the virtual key of the request; None for the master key."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            raise Refused(401, "auth_error", "Authentication Error, No api key passed in.")
        if secrets.compare_digest(token.encode(), self.master_key.encode()):
            return None
        key = self._keys.get(token)
        if key is None:
            message = f"Authentication Error, Invalid proxy server token passed. Received API Key = sk-...{token[-4:]}"
            raise Refused(401, "token_not_found_in_db", message, "key")
        if key.expires and key.expires < datetime.now(UTC):
            raise Refused(401, "expired_key", f"Authentication Error - Expired Key. Key Expiry time {key.expires}")
        return key

    def _master_only(self, request: web.Request) -> None:
        if self._authenticate(request) is not None:
            raise Refused(401, "auth_error", "Authentication Error, Only proxy admin can be used to manage keys")

    def _spend(self, key: VirtualKey, cost: float) -> None:
        async def write() -> None:
            await asyncio.sleep(SPEND_DELAY)
            key.spend += cost

        task = asyncio.create_task(write())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _engine_of(self, route: Route) -> str:
        """Return the sandbox's URL of the Service in an api_base like `http://NAME.NAMESPACE.svc…/v1`.

        A name without a namespace is a Service in LiteLLM's namespace.
        """
        address = urlsplit(route.api_base)
        name, _, domain = (address.hostname or "").partition(".")
        path = address.path.strip("/").split("/")
        if len(path) > 2 and self._store.get("LLMInferenceService", path[1], path[0]):
            # KServe's route of the inference gateway: /NAMESPACE/NAME
            return f"{self.engines_url}/{path[0]}/{path[1]}-kserve-workload-svc"
        return f"{self.engines_url}/{domain.partition('.')[0] or route.namespace}/{name}"


def _route(entry: Object, namespace: str = NAMESPACE) -> Route:
    params = entry["litellm_params"]
    return Route(
        entry["model_name"],
        str(params["model"]).partition("/")[0],
        str(params["model"]).partition("/")[2],
        params.get("api_base", ""),
        _price(params.get("input_cost_per_token")),
        _price(params.get("output_cost_per_token")),
        namespace,
    )


def _upstream_failed(route: Route, answer: httpx.Response) -> Refused:
    text = answer.text.strip()[:300]
    kinds = {400: "BadRequestError", 404: "NotFoundError", 503: "InternalServerError"}
    kind = kinds.get(answer.status_code, "InternalServerError")
    status = 500 if answer.status_code == web.HTTPServiceUnavailable.status_code else answer.status_code
    message = f"litellm.{kind}: OpenAIException - {text}. Received Model Group={route.alias}"
    return Refused(status, kind, message)


def _rank_answer(answer: httpx.Response, body: Object) -> bytes:
    """Convert TEI's list of scores to LiteLLM's format. LiteLLM counts the tokens itself."""
    results = [{"index": score["index"], "relevance_score": score["score"]} for score in answer.json()]
    tokens = sum(len(f"{body['query']} {text}".split()) for text in body["documents"])
    return json.dumps({"results": results, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}).encode()


def _usage(answer: httpx.Response) -> Object:
    """Return the usage of an answer: for a stream, from the last event that contains one."""
    if "event-stream" not in answer.headers.get("content-type", ""):
        return answer.json().get("usage") or {}
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return next((json.loads(event)["usage"] for event in reversed(events) if '"usage"' in event), {})


def _names_to_replace(route: Route) -> tuple[bytes, bytes]:
    """Return the engine's served name in an answer and the alias with which LiteLLM replaces it."""
    return f'"model": "{route.served_name}"'.encode(), f'"model": "{route.alias}"'.encode()


def _price(value: Any) -> float:
    """Return a price; 0 if YAML parsed it as a string, because LiteLLM then counts no cost."""
    return float(value) if isinstance(value, int | float) else 0.0


def _expiry(duration: str | None) -> datetime | None:
    if not duration:
        return None
    parsed = re.fullmatch(r"(\d+)([smhd])", duration)
    if parsed is None:
        raise Refused(400, "bad_request_error", f"Invalid duration format: {duration}", "duration")
    return datetime.now(UTC) + timedelta(seconds=int(parsed[1]) * UNITS[parsed[2]])


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
