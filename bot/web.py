"""The HTTP server: health, readiness, metrics, GitHub's webhook, and Slack's requests over HTTP."""

import hashlib
import hmac
from datetime import timedelta
from functools import partial

from aiohttp import web
from docket import Docket
from prometheus_client import CONTENT_TYPE_LATEST
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp

from bot.clock import Clock
from bot.component import component
from bot.domain.operations import ChangeOperation
from bot.engine.task_refs import FOLLOW
from bot.errors import Unavailable
from bot.gpu.billing import running_total
from bot.observability.metrics import Metrics, state, unreachable
from bot.settings.config import Config
from bot.settings.environment import Settings
from bot.state.alerts import Alerts
from bot.state.bills import Bills
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.records import Records
from bot.state.sessions import Sessions

_BILLS_IN_METRICS = timedelta(days=30)
"""Maximum age of the sessions whose cost is in the metrics."""


@component
class HttpPort:
    """The HTTP server of the bot."""

    docket: Docket
    metrics: Metrics
    operations: Operations
    leases: Leases
    sessions: Sessions
    bills: Bills
    alerts: Alerts
    records: Records
    settings: Settings
    config: Config
    clock: Clock

    def app(self, slack: AsyncApp | None) -> web.Application:
        """The aiohttp application. `slack` is set if Slack sends its requests over HTTP."""
        app = web.Application(client_max_size=2**20)
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/github/webhook", self._github_webhook)
        if slack is not None:
            app.router.add_post("/slack/events", partial(_slack_events, slack))
        return app

    async def _readyz(self, _: web.Request) -> web.Response:
        try:
            await self.records.ping()
        except Unavailable as error:
            return web.Response(text=f"{error}\n", status=503)
        return web.Response(text="ready\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        text = self.metrics.text()
        try:
            text += await self._state()
        except Unavailable as error:
            text += unreachable(error.system.lower())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _github_webhook(self, request: web.Request) -> web.Response:
        secret, body = self.settings.current("github_webhook_secret"), await request.read()
        if secret is None:
            return web.Response(text="GITHUB_WEBHOOK_SECRET is not set\n", status=404)
        digest = hmac.new(secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
        signature = request.headers.get("X-Hub-Signature-256", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(f"sha256={digest}".encode(), signature):
            return web.Response(text="bad signature\n", status=401)
        # The body is not used: the bot reads the state from GitHub, so a replayed delivery has no effect.
        delivery = request.headers.get("X-GitHub-Delivery", "")
        try:
            for op in await self.operations.open(ChangeOperation):
                if op.plan:
                    await FOLLOW.add(self.docket, key=f"{op.id}:follow:{delivery}")(op.id)
        except Unavailable as error:
            return web.Response(text=f"{error}\n", status=503)
        return web.Response(text="ok\n")

    async def _state(self) -> bytes:
        now, leases = self.clock(), await self.leases.held()
        sessions = [(lease, session) for lease in leases if (session := await self.sessions.of(lease))]
        nodes = {lease.model: session.node for lease, session in sessions}
        return state(
            now=now,
            operations=await self.operations.open(),
            leases=leases,
            queue=len(await self.leases.queue()),
            sessions=sessions,
            bills=await self.bills.since(now - _BILLS_IN_METRICS),
            alerts=await self.alerts.all(),
            idle_limit=self.config.idle.down_after.total_seconds(),
            reconciled=await self.alerts.last_reconciled(),
            set_aside=await self.records.set_aside_count(),
            costs={
                lease.model: running_total(self.config.gpu, lease, nodes.get(lease.model), now)[0] for lease in leases
            },
        )


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _slack_events(slack: AsyncApp, request: web.Request) -> web.Response:
    return await to_aiohttp_response(await slack.async_dispatch(await to_bolt_request(request)))
