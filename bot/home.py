"""App Home: it is published when a user opens it, and to recent viewers when its content changes."""

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from bot.analysis.report import daily
from bot.clients.cluster import Cluster
from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.marks import read_mark
from bot.domain.sessions import Health, Session
from bot.errors import BotError, Unavailable
from bot.gpu.billing import draining, running_total
from bot.platform.endpoints import EndpointStates
from bot.platform.setup import PlatformSetup
from bot.policy import People
from bot.settings.config import Config
from bot.slack.roles import RoleMembers
from bot.slack.web_api import Slack
from bot.state.bills import Bills
from bot.state.home import VIEWERS_KEPT, HomeState
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.sessions import Sessions
from bot.text.mrkdwn import md
from bot.views.endpoint_list import Search
from bot.views.home import Overview, home
from bot.views.links import Links

T = TypeVar("T")
log = structlog.get_logger(__name__)

_WEEK = timedelta(days=7)


class Reading:
    """Reads from several systems, and records which of them did not answer."""

    def __init__(self) -> None:
        self._silent: set[str] = set()

    async def of(self, work: Awaitable[T], otherwise: T) -> T:
        """Return the result of the work, or `otherwise` if its system does not answer."""
        try:
            return await work
        except (BotError, Unavailable) as error:
            is_redis = isinstance(error, Unavailable) and error.system == "Redis"
            self._silent.add(
                md("{error}: nothing can be brought up until it does, and requests are not shown", error=error)
                if is_redis
                else error.shown
            )
            return otherwise

    @property
    def silent(self) -> tuple[str, ...]:
        return tuple(sorted(self._silent))


@component
class GpuOverviews:
    """Reads the part of Home about the GPU: its sessions, and its usage in the last week."""

    leases: Leases
    sessions: Sessions
    bills: Bills
    cluster: Cluster
    config: Config
    clock: Clock

    async def read(self, reading: Reading) -> Overview:
        """Read the current state. Without Redis, the leases come from the Deployments."""
        redis_leases, users, bills = await asyncio.gather(
            reading.of(self.leases.held(), None),
            reading.of(self.cluster.gpu_users(), None),
            reading.of(self.bills.since(self.clock() - _WEEK), ()),
        )
        marked = (read_mark(user.mark, user.endpoint) for user in users or ())
        leases = tuple(mark for mark in marked if mark) if redis_leases is None else redis_leases
        now, leased = self.clock(), {lease.model for lease in leases}
        active, spent, troubles = {}, {}, {}
        for lease in leases:
            session = await reading.of(self.sessions.of(lease), None) if redis_leases else None
            health = await reading.of(self.sessions.health(lease), None) if redis_leases else None
            if session:
                active[lease.model] = session.active
            if health and health.trouble:
                troubles[lease.model] = health.trouble
            spent[lease.model] = self._spent(lease, session, health, now)
        return Overview(
            leases=leases,
            active=active,
            spent=spent,
            troubles=troubles,
            strangers=tuple(str(user) for user in users or () if user.endpoint not in leased),
            users_known=redis_leases is not None and users is not None,
            drains=draining(bills, now),
            week=daily(bills, now),
        )

    def _spent(self, lease: Lease, session: Session | None, health: Health | None, now: datetime) -> float:
        """The cost of a session so far, in US dollars, rounded to ten cents so that Home changes less often."""
        node = health.node if health and (health.node or health.spans) else session.node if session else None
        usd, _ = running_total(self.config.gpu, lease, node, now, health)
        return round(usd, 1)


@component
class Overviews:
    """Reads the content of Home."""

    operations: Operations
    slack: Slack
    cluster: Cluster
    roles: RoleMembers
    gpu_overviews: GpuOverviews
    endpoint_states: EndpointStates
    setup: PlatformSetup
    config: Config

    async def read(self) -> Overview:
        """Read the current state. If a system does not answer, only its part is missing."""
        reading = Reading()
        gpu_overview, operations, people = await asyncio.gather(
            self.gpu_overviews.read(reading),
            reading.of(self.operations.open(), []),
            reading.of(self.roles.people(), People(frozenset(), frozenset(), frozenset())),
        )
        endpoints = await reading.of(self.endpoint_states.now(), ())
        address = await reading.of(self.slack.address(), "")
        setup = await reading.of(self.setup.needed(), None)
        return dataclasses.replace(
            gpu_overview,
            open=tuple(op for op in operations if op.plan or op.message),
            endpoints=endpoints,
            approvers=people.approvers,
            links=Links.of(self.config, address, self.cluster.whereabouts.of),
            setup=setup,
            silent=reading.silent,
        )


@component
class AppHome:
    """Publishes Home."""

    home: HomeState
    slack: Slack
    overviews: Overviews
    clock: Clock

    async def publish(self, user: str) -> None:
        """Show Home to a user who has just opened it, and record the user as a viewer."""
        try:
            await self.home.note_viewer(user, self.clock())
        except Unavailable as error:
            log.warning("viewer not recorded", actor=user, error=str(error))
        async with self.home.turn(user):
            await self._show(await self.overviews.read(), user, await self._search(user))

    async def look_for(self, user: str, search: Search) -> None:
        """Show the endpoints that a user searches for in Home."""
        await self.home.note_search(user, search.value)
        async with self.home.turn(user):
            await self._show(await self.overviews.read(), user, await self._search(user))

    async def refresh(self, within: timedelta = VIEWERS_KEPT) -> None:
        """Update Home for the users who opened it less than `within` ago, if its content has changed."""
        viewers = await self.home.viewers(self.clock(), within)
        if not viewers:
            return
        now, overview = self.clock(), await self.overviews.read()
        for user in viewers:
            async with self.home.turn(user):
                search = await self._search(user)
                digest = hashlib.sha256(
                    json.dumps(home(overview, user, now, search), sort_keys=True).encode()
                ).hexdigest()
                if await self.home.is_changed(user, digest):
                    try:
                        await self._show(overview, user, search)
                    except (BotError, Unavailable) as error:
                        await self.home.is_changed(user, "")  # so that the next round retries
                        log.warning("home not published", actor=user, error=str(error))

    async def _search(self, user: str) -> Search:
        """The user's current search."""
        try:
            return Search.of_value(await self.home.search(user))
        except Unavailable:
            return Search()

    async def _show(self, overview: Overview, user: str, search: Search) -> None:
        await self.slack.publish_home(user, home(overview, user, self.clock(), search))
