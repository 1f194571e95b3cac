"""A look at how much a model is used, added to what is remembered of its session."""

import asyncio

import structlog

from bot.clients.workload import Workload
from bot.domain import Activity, Lease, Session
from bot.errors import BotError, Unavailable
from bot.idle import sampled
from bot.services import Services

log = structlog.get_logger(__name__)

_LAST = 3.0
"""Seconds that the last look may take: nothing may hold up the end of the cost for long."""


async def sample(svc: Services, lease: Lease, workload: Workload) -> Session | None:
    """The memory after a look at the metrics; as it was (or nothing yet) while the bot itself is asking the model."""
    now = svc.clock()
    session = await svc.sessions.of(lease.model)
    own = await svc.sessions.own(lease.model, now)
    if own is None:
        return session if session and session.fence == lease.fence else None
    activity: Activity | None
    try:
        activity = await _activity(svc, workload)
    except (Unavailable, BotError) as error:
        log.info("metrics unreachable", model=lease.model, op=lease.op, error=str(error))
        activity = None
    session = sampled(session, lease, activity, now, own)
    if session.node is None:
        session = session.model_copy(update={"node": await svc.cluster.node_of(lease.model)})
    return session


async def sample_last(svc: Services, lease: Lease) -> None:
    """What was served since the watch last looked, for the receipt; a model that does not answer costs it no more than that."""
    try:
        async with asyncio.timeout(_LAST):
            workload = await svc.cluster.workload(lease.model)
            session = await sample(svc, lease, workload) if workload and workload.ready_replicas else None
            if session:
                await svc.sessions.remember(lease.model, session)
    except (BotError, Unavailable, TimeoutError) as error:
        log.info("no last sample", model=lease.model, op=lease.op, error=str(error))


async def _activity(svc: Services, workload: Workload) -> Activity:
    if svc.prometheus:
        return await svc.prometheus.activity(workload.served_name or workload.model)
    return await svc.vllm.activity(svc.vllm.url(workload.service, workload.namespace, workload.port))
