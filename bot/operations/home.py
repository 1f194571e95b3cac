"""App Home, kept up to date: published to whoever opened it, when what they see has changed."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from bot.domain import Bill, Pull
from bot.errors import BotError, Unavailable
from bot.operations.endpoints import all_endpoints
from bot.operations.receipt import running_total
from bot.policy import People
from bot.services import Services
from bot.views.home import Day, EndpointRow, Overview, home

T = TypeVar("T")
log = structlog.get_logger(__name__)

_WEEK = timedelta(days=7)


async def publish(svc: Services, user: str) -> None:
    """Show Home to somebody who has just opened it, and remember to keep it up to date."""
    await svc.store.note_viewer(user, svc.clock())
    await svc.slack.publish_home(user, home(await overview(svc), user, svc.clock()))


async def refresh(svc: Services) -> None:
    """Show Home anew to those who opened it and for whom it has changed."""
    viewers = await svc.store.viewers(svc.clock())
    if not viewers:
        return
    now, seen = svc.clock(), await overview(svc)
    for user in viewers:
        view = home(seen, user, now)
        digest = hashlib.sha256(json.dumps(view, sort_keys=True).encode()).hexdigest()
        if await svc.store.home_changed(user, digest):
            try:
                await svc.slack.publish_home(user, view)
            except (BotError, Unavailable) as error:
                await svc.store.home_changed(user, "")  # so that the next round tries again
                log.warning("home not published", actor=user, error=str(error))


async def overview(svc: Services) -> Overview:
    """What is going on now. A system that does not answer costs its part, not the page."""
    silent: list[str] = []

    async def asked(work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except (BotError, Unavailable) as error:
            silent.append(str(error))
            return otherwise

    leases, operations, people, users, bills = await asyncio.gather(
        asked(svc.leases.held(), ()),
        asked(svc.store.open(), []),
        asked(svc.people(), People(frozenset(), frozenset(), frozenset())),
        asked(svc.cluster.gpu_users(), ()),
        asked(svc.sessions.bills(svc.clock() - _WEEK), ()),
    )
    now, leased = svc.clock(), {lease.model for lease in leases}
    active, spent = {}, {}
    for lease in leases:
        session = await asked(svc.sessions.of(lease.model), None)
        node = None
        if session and session.fence == lease.fence:
            active[lease.model], node = session.active, session.node
        usd, _ = running_total(svc, lease, node, now)
        spent[lease.model] = round(usd, 1)
    pulls = {op.request.model: op.plan.pull for op in operations if op.plan and op.plan.pull}
    return Overview(
        leases=leases,
        active=active,
        spent=spent,
        strangers=tuple(str(user) for user in users if user.name not in leased),
        open=tuple(op for op in operations if op.message),
        endpoints=await asked(_endpoints(svc, pulls), ()),
        week=_week(bills, now),
        approvers=people.approvers,
        silent=tuple(sorted(silent)),
    )


async def _endpoints(svc: Services, pulls: Mapping[str, Pull]) -> tuple[EndpointRow, ...]:
    found = await all_endpoints(svc, await svc.repository.head())
    applications = {app.name: app for app in await svc.argocd.list()}

    async def row(name: str, hf_id: str, application: str, gpus: int) -> EndpointRow:
        workload = await svc.cluster.workload(name)
        up, wanted = (workload.ready_replicas, workload.replicas) if workload else (0, 0)
        state = "not deployed" if workload is None else "up" if up else "booting" if wanted else "down"
        app = applications.get(application)
        sync = app.sync if app else "no Application"
        return EndpointRow(name=name, hf_id=hf_id, state=state, sync=sync, gpu=gpus > 0, pull=pulls.get(name))

    return tuple(await asyncio.gather(*(row(e.name, e.hf_id, e.application, e.gpus) for e in found[:50])))


def _week(bills: tuple[Bill, ...], now: datetime) -> tuple[Day, ...]:
    """The sessions of the last seven days, each counted on the day it began; nothing when there was none."""
    days = {(now - timedelta(days=back)).date(): [0.0, 0.0, 0.0] for back in reversed(range(7))}
    for bill in bills:
        if bill.claimed.date() in days:
            entry = days[bill.claimed.date()]
            entry[0] += bill.billed.total_seconds() / 3600
            entry[1] += bill.idle_seconds / 3600
            entry[2] += bill.usd
    if not bills:
        return ()
    return tuple(Day(day=day, hours=round(h, 2), idle=round(i, 2), usd=round(u, 2)) for day, (h, i, u) in days.items())
