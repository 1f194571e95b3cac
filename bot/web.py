"""The one port: health, readiness, GitHub's webhook, and Slack's requests when they come over HTTP."""

import hashlib
import hmac
from datetime import timedelta

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp

from bot.errors import Unavailable
from bot.metrics import state, unreachable
from bot.operations import tasks
from bot.operations.receipt import running_total
from bot.services import Services

_BILLS_SHOWN = timedelta(days=30)


def web_app(svc: Services, slack: AsyncApp | None) -> web.Application:
    """The aiohttp application; `slack` is given when Slack's requests come over HTTP."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        try:
            await svc.store.ping()
        except Unavailable as error:
            return web.Response(text=f"{error}\n", status=503)
        return web.Response(text="ready\n")

    async def metrics(_: web.Request) -> web.Response:
        text = svc.metrics.text()
        try:
            text += await _state(svc)
        except Unavailable as error:
            text += unreachable(error.system.lower())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def github(request: web.Request) -> web.Response:
        secret, body = svc.settings.current("github_webhook_secret"), await request.read()
        if secret is None:
            return web.Response(text="GITHUB_WEBHOOK_SECRET is not set\n", status=404)
        digest = hmac.new(secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
        given = request.headers.get("X-Hub-Signature-256", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(f"sha256={digest}".encode(), given):
            return web.Response(text="bad signature\n", status=401)
        # What happened is not taken from the body: the bot looks for itself, so a replayed delivery does no harm.
        delivery = request.headers.get("X-GitHub-Delivery", "")
        try:
            for op in await svc.store.open():
                if op.plan and op.plan.pull:
                    await svc.docket.add(tasks.follow, key=f"{op.id}:follow:{delivery}")(op.id)
        except Unavailable as error:
            return web.Response(text=f"{error}\n", status=503)
        return web.Response(text="ok\n")

    async def slack_events(request: web.Request) -> web.Response:
        assert slack is not None  # noqa: S101  # the route exists only with it
        return await to_aiohttp_response(await slack.async_dispatch(await to_bolt_request(request)))

    app = web.Application(client_max_size=2**20)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_post("/github/webhook", github)
    if slack is not None:
        app.router.add_post("/slack/events", slack_events)
    return app


async def _state(svc: Services) -> bytes:
    now, leases = svc.clock(), await svc.leases.held()
    remembered = [(lease, await svc.sessions.of(lease.model)) for lease in leases]
    sessions = [(lease, session) for lease, session in remembered if session and session.fence == lease.fence]
    nodes = {lease.model: session.node for lease, session in sessions}
    return state(
        now=now,
        operations=await svc.store.open(),
        leases=leases,
        queue=len(await svc.leases.queue()),
        sessions=sessions,
        bills=await svc.sessions.bills(now - _BILLS_SHOWN),
        alerts=await svc.store.alerts(),
        idle_limit=svc.config.idle.down_after.total_seconds(),
        reconciled=await svc.store.reconciled(),
        costs={lease.model: running_total(svc, lease, nodes.get(lease.model), now)[0] for lease in leases},
    )
