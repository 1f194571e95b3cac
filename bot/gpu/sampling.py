"""Sample the usage of a model, and add it to its session's record."""

import asyncio
from datetime import datetime

import structlog

from bot.clients.cluster import Cluster
from bot.clients.prometheus import Prometheus
from bot.clients.vllm import VLLM
from bot.clients.workload import Workload
from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.sessions import Activity, Session
from bot.errors import BotError, Unavailable
from bot.idle import with_sample
from bot.state.sessions import Sessions

log = structlog.get_logger(__name__)

_READ_TIMEOUT = 5.0
"""Timeout in seconds for one read of the metrics."""
_LAST_TIMEOUT = 3.0
"""Timeout in seconds for the last sample, so that it does not delay the bring-down."""


@component
class Sampler:
    """Samples the usage of models."""

    sessions: Sessions
    cluster: Cluster
    vllm: VLLM
    prometheus: Prometheus | None
    clock: Clock

    async def sample(self, lease: Lease, workload: Workload) -> Session | None:
        """Read the metrics, and return the session with the new sample. While the bot itself sends requests to the model,
        the stored session is returned unchanged; None if there is none.
        """
        now = self.clock()
        session = await self.sessions.of(lease)
        bot_requests = await self.sessions.own(lease.model, now)
        if bot_requests is None:
            return session
        if not workload.ready_replicas:
            return _idle_session(session, lease, now)
        activity = await self._read_in_time(lease, workload)
        session = with_sample(session, lease, activity, now, bot_requests)
        if session.node is None:
            session = session.model_copy(update={"node": await self.cluster.node_of(lease.model)})
        return session

    async def sample_without_redis(self, lease: Lease, session: Session | None) -> Session:
        """Sample with the data of this process only. The bot's own requests are unknown then, so they count as use."""
        workload = await self.cluster.workload(lease.model)
        if workload and not workload.ready_replicas:
            return _idle_session(session, lease, self.clock())
        activity = await self._read_in_time(lease, workload) if workload else None
        return with_sample(session, lease, activity, self.clock(), session.own if session else None)

    async def _read_in_time(self, lease: Lease, workload: Workload) -> Activity | None:
        """Return the activity; None if the metrics cannot be read in time."""
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                return await self._activity(workload)
        except (Unavailable, BotError, TimeoutError) as error:
            log.info("metrics unreachable", model=lease.model, op=lease.op, error=str(error) or type(error).__name__)
            return None

    async def sample_last(self, lease: Lease) -> None:
        """Take a last sample before the model is brought down, for the receipt. Failures are logged and ignored."""
        try:
            async with asyncio.timeout(_LAST_TIMEOUT):
                workload = await self.cluster.workload(lease.model)
                session = await self.sample(lease, workload) if workload and workload.ready_replicas else None
                if session:
                    await self.sessions.remember(lease.model, session)
        except (BotError, Unavailable, TimeoutError) as error:
            log.info("no last sample", model=lease.model, op=lease.op, error=str(error))

    async def _activity(self, workload: Workload) -> Activity:
        if self.prometheus:
            return await self.prometheus.activity(workload.served_name)
        return await self.vllm.activity(self.vllm.url(workload.service, workload.namespace, workload.port))


def _idle_session(session: Session | None, lease: Lease, now: datetime) -> Session:
    """Return the session of a model that does not serve: the time counts as idle."""
    if session is None:
        return Session(fence=lease.fence, sampled=now, active=lease.ready or now)
    return session.model_copy(update={"sampled": now, "unknown_since": None})
