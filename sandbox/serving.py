"""The HTTP server for the sandbox's models: each engine (`engine.py`) and the gateway (`gateway.py`)."""

import asyncio
import ssl
from collections.abc import Set
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

import httpx
from aiohttp import web

from sandbox.cluster import Cluster
from sandbox.engine import Engines
from sandbox.gateway import Gateway

TRAFFIC_TIMEOUT = 30.0


class Serving:
    """Serves the ready pods in `cluster` on one loopback port."""

    def __init__(self, cluster: Cluster, faults: Set[str]) -> None:
        self._cluster, self._faults = cluster, faults
        self._stack = AsyncExitStack()
        self.url = ""

    async def __aenter__(self) -> Self:
        # The TLS context is unused on loopback. This one does not load the system's certificates, which takes 40 ms.
        http = httpx.AsyncClient(
            timeout=TRAFFIC_TIMEOUT, trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        self._http = await self._stack.enter_async_context(http)
        engines = Engines(self._cluster.store, self._faults)
        self._gateway = Gateway(self._cluster.store, self._faults, self._http)
        app = web.Application()
        engines.add_routes(app.router)
        self._gateway.add_routes(app.router)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._gateway.engines_url = f"{self.url}/vllm"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def vllm_url_template(self) -> str:
        return f"{self.url}/vllm/{{namespace}}/{{service}}"

    @property
    def litellm_url(self) -> str:
        return f"{self.url}/litellm"

    async def traffic(self, name: str, per_second: float, seconds: float) -> None:
        """Send requests to the endpoint `name` through the gateway, as tenants do.

        Raises LookupError if the gateway has no such alias; failed requests are ignored.
        """
        alias = self._alias(name)
        async with asyncio.TaskGroup() as tenants:
            for _ in range(max(1, round(per_second * seconds))):
                tenants.create_task(self._one_request(alias))
                await asyncio.sleep(1 / per_second)

    def _alias(self, name: str) -> str:
        """Return the alias `name`, or the alias of the Service `name`."""
        routes = self._gateway.routes()
        if name in routes:
            return name
        for route in routes.values():
            if route.api_base.startswith(f"http://{name}."):
                return route.alias
        raise LookupError(f"LiteLLM has no alias {name}; it has {', '.join(routes) or 'none'}")

    async def _one_request(self, alias: str) -> None:
        """Request a completion, which chat and base models support; if the answer is 404, an embedding."""
        headers = {"Authorization": f"Bearer {self._gateway.master_key}"}
        completion: dict[str, Any] = {"model": alias, "prompt": "def add(a, b):", "max_tokens": 8}
        with suppress(httpx.HTTPError):
            answer = await self._http.post(f"{self.litellm_url}/v1/completions", json=completion, headers=headers)
            if answer.status_code == httpx.codes.NOT_FOUND:
                embedding = {"model": alias, "input": "def add(a, b):"}
                await self._http.post(f"{self.litellm_url}/v1/embeddings", json=embedding, headers=headers)
