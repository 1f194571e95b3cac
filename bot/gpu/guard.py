"""Cost control while Redis is unavailable: enforces the end of the lease and the idle limit through the cluster only.

docket's tasks are stored in Redis, so this runs outside docket, in each process. It uses the leases that were last read
from Redis, and the annotations of the Deployments. Sessions that it stops get their receipt when Redis is back.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from bot.clients.cluster import Cluster
from bot.clients.workload import GpuUser
from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.marks import bounded, read_mark
from bot.domain.sessions import Session
from bot.errors import BotError, Unavailable
from bot.gpu.sampling import Sampler
from bot.gpu.stopping import Stopping
from bot.idle import BringDown, Decision, Remind, WarnEnd, after_decision, decide
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.leases import Leases
from bot.state.sessions import Sessions
from bot.text.mrkdwn import Mrkdwn, clock, code, md
from manifests.frozen import frozen

log = structlog.get_logger(__name__)

_MISSED_READS = 2
"""Number of consecutive reads without an answer from Redis before the guard acts."""


@frozen
class _WatchedSession:
    """A lease and its usage, as last known to this process."""

    lease: Lease
    session: Session | None = None


@component
class Guard:
    """Enforces the limits while Redis is unavailable."""

    leases: Leases
    sessions: Sessions
    slack: Slack
    cluster: Cluster
    sampler: Sampler
    stopping: Stopping
    config: Config
    clock: Clock

    async def run(self) -> None:
        """Check the running models at each sample interval while Redis does not answer."""
        watched: dict[str, _WatchedSession] = {}
        missed = 0
        while True:
            await asyncio.sleep(self.clock.period(self.config.idle.sample_every).total_seconds())
            try:
                watched = {
                    lease.model: _WatchedSession(lease, await self.sessions.of(lease))
                    for lease in await self.leases.held()
                }
                missed = 0
            except Unavailable:
                missed += 1
            if missed >= _MISSED_READS:
                try:
                    watched = await self.check_all(watched)
                except (BotError, Unavailable) as error:
                    log.warning("check without Redis failed", error=str(error))
                except Exception:
                    log.exception("check without Redis failed")

    async def check_all(self, watched: dict[str, _WatchedSession]) -> dict[str, _WatchedSession]:
        """Check the running models once, and return their sessions, by model."""
        up = [user for user in await self.cluster.gpu_users() if user.endpoint]
        sessions = await asyncio.gather(*(self._check_alone(user, watched.get(user.endpoint)) for user in up))
        return {session.lease.model: session for session in sessions if session}

    async def _check_alone(self, user: GpuUser, watched: _WatchedSession | None) -> _WatchedSession | None:
        """Check one model; its errors do not affect others."""
        try:
            return await self._check(user, watched)
        except (BotError, Unavailable) as error:
            log.warning("not watched without Redis", model=user.endpoint, error=str(error))
            return watched

    async def _check(self, user: GpuUser, watched: _WatchedSession | None) -> _WatchedSession | None:
        now, policy = self.clock(), self.config
        if watched is None:
            marked = read_mark(user.mark, user.endpoint)
            lease = bounded(marked, now, policy.lease.longest, policy.slack.channel) if marked else None
            if lease is None:
                return None
            watched = _WatchedSession(lease)
        lease = watched.lease.started(now) if user.ready else watched.lease
        if lease.ready is None or lease.ends is None:
            if now - lease.claimed > 2 * policy.gpu.boot_limit:
                await self._stop(lease, "it did not get ready in time")
            return _WatchedSession(lease)
        if now >= lease.ends:
            await self._stop(lease, "the lease has ended")
            return _WatchedSession(lease, watched.session)
        session = await self.sampler.sample_without_redis(lease, watched.session)
        decision = decide(lease, session, 0, now, policy.idle, policy.lease)
        await self._act(lease, decision)
        return _WatchedSession(lease, after_decision(session, decision, lease, now))

    async def _act(self, lease: Lease, decision: Decision) -> None:
        match decision:
            case BringDown(reason):
                await self._stop(lease, reason)
            case Remind(down_at=at, last=True):
                text = md(
                    "{model} is idle and goes down at {at}, unless it is used.", model=code(lease.model), at=clock(at)
                )
                # Each bot samples at different times, so one bot may see the last request one sample later than another.
                await self._warn(lease, "idle", text, 2 * self.config.idle.sample_every)
            case WarnEnd() if lease.ends:
                text = md(
                    "The lease of {model} ends at {ends}; then it goes down.",
                    model=code(lease.model),
                    ends=clock(lease.ends),
                )
                await self._warn(lease, "end", text, self.config.lease.warn_before)
            case _:
                return

    async def _stop(self, lease: Lease, reason: str) -> None:
        """Bring a model down. Only the bot that scaled it to zero reports it."""
        scaled = await self.stopping.scale_to_zero(lease.model, None)
        result = await self.stopping.bring_down_without_redis(lease.model)
        if scaled:
            log.warning("brought down without Redis", model=lease.model, op=lease.op, why=reason)
            text = md("{result} The reason: {reason}.", result=result, reason=reason)
            await _notify(self.slack, self.config.slack.channel, lease, text)

    async def _warn(self, lease: Lease, subject: str, text: Mrkdwn, within: timedelta) -> None:
        """Send a warning, unless a bot has sent a warning about this subject less than `within` ago."""
        if await self.cluster.record_message(lease.model, f"{lease.fence} {subject}", self.clock(), within):
            await _notify(self.slack, self.config.slack.channel, lease, text)


async def _notify(slack: Slack, channel: str, lease: Lease, text: Mrkdwn) -> None:
    """Post to the holder and the channel. A failed message is not sent again, because storing it would need Redis."""
    for place in (lease.holder, channel):
        with suppress(BotError, Unavailable, TimeoutError):
            async with asyncio.timeout(5):
                await slack.send(place, md("⏰ {text}", text=text))
