"""Cost control while Redis is unavailable: enforces the lease's end and the idle limit with only the cluster.

docket's tasks are stored in Redis, so this runs outside docket, in each process. It uses the leases that Redis had when
it last answered, and those on the Deployments. Sessions that it stops are closed with a receipt when Redis is back.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
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

log = structlog.get_logger(__name__)

_SILENT = 2
"""Consecutive checks without an answer from Redis before it acts."""


@dataclass(frozen=True)
class _Known:
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
        """Check repeatedly, as long as the process runs."""
        known: dict[str, _Known] = {}
        silent = 0
        while True:
            await asyncio.sleep(self.clock.period(self.config.idle.sample_every).total_seconds())
            try:
                known = {
                    lease.model: _Known(lease, await self.sessions.of(lease)) for lease in await self.leases.held()
                }
                silent = 0
            except Unavailable:
                silent += 1
            if silent >= _SILENT:
                try:
                    known = await self.look(known)
                except (BotError, Unavailable) as error:
                    log.warning("check without Redis failed", error=str(error))
                except Exception:
                    log.exception("check without Redis failed")

    async def look(self, known: dict[str, _Known]) -> dict[str, _Known]:
        """Check the running models once; returns the new state of each."""
        up = [user for user in await self.cluster.gpu_users() if user.endpoint]
        seen = await asyncio.gather(*(self._alone(user, known.get(user.endpoint)) for user in up))
        return {each.lease.model: each for each in seen if each}

    async def _alone(self, user: GpuUser, known: _Known | None) -> _Known | None:
        """Handle one model; its errors do not affect others."""
        try:
            return await self._look_at(user, known)
        except (BotError, Unavailable) as error:
            log.warning("not watched without Redis", model=user.endpoint, error=str(error))
            return known

    async def _look_at(self, user: GpuUser, known: _Known | None) -> _Known | None:
        now, policy = self.clock(), self.config
        if known is None:
            marked = read_mark(user.mark, user.endpoint)
            lease = bounded(marked, now, policy.lease.longest, policy.slack.channel) if marked else None
            if lease is None:
                return None
            known = _Known(lease)
        lease = known.lease.started(now) if user.ready else known.lease
        if lease.ready is None or lease.ends is None:
            if now - lease.claimed > 2 * policy.gpu.boot_limit:
                await self._stop(lease, "it did not get ready in time")
            return _Known(lease)
        if now >= lease.ends:
            await self._stop(lease, "the lease has ended")
            return _Known(lease, known.session)
        session = await self.sampler.sample_without_redis(lease, known.session)
        decision = decide(lease, session, 0, now, policy.idle, policy.lease)
        await self._act(lease, decision)
        return _Known(lease, after_decision(session, decision, lease, now))

    async def _act(self, lease: Lease, decision: Decision) -> None:
        match decision:
            case BringDown(why):
                await self._stop(lease, why)
            case Remind(down_at=at, last=True):
                text = md(
                    "{model} is idle and goes down at {at}, unless it is used.", model=code(lease.model), at=clock(at)
                )
                await self._warn(
                    lease, "idle", text, 2 * self.config.idle.sample_every
                )  # each bot sees the last request at another time
            case WarnEnd() if lease.ends:
                text = md(
                    "The lease of {model} ends at {ends}; then it goes down.",
                    model=code(lease.model),
                    ends=clock(lease.ends),
                )
                await self._warn(lease, "end", text, self.config.lease.warn_before)
            case _:
                return

    async def _stop(self, lease: Lease, why: str) -> None:
        """Bring a model down. Only the bot that scaled it to zero reports it."""
        acted = await self.stopping.scale_to_zero(lease.model, None)
        said = await self.stopping.bring_down_without_redis(lease.model)
        if acted:
            log.warning("brought down without Redis", model=lease.model, op=lease.op, why=why)
            await _tell(self.slack, self.config.slack.channel, lease, md("{said} Why: {why}.", said=said, why=why))

    async def _warn(self, lease: Lease, what: str, text: Mrkdwn, within: timedelta) -> None:
        """Send a warning; of several bots only the first one sends it."""
        if await self.cluster.record_message(lease.model, f"{lease.fence} {what}", self.clock(), within):
            await _tell(self.slack, self.config.slack.channel, lease, text)


async def _tell(slack: Slack, channel: str, lease: Lease, text: Mrkdwn) -> None:
    """Notify the holder and the channel once. Failed messages are not stored, because that would need Redis."""
    for place in (lease.holder, channel):
        with suppress(BotError, Unavailable, TimeoutError):
            async with asyncio.timeout(5):
                await slack.send(place, md("⏰ {text}", text=text))
