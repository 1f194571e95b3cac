"""Compare Redis, Deployments and pods, and make them consistent: at startup, and every minute.

A lease that Redis lost is rebuilt from the Deployment's annotation; a lease without a model is closed with a receipt; a
model without a lease causes one alert with the possible actions. The comparison is level-triggered: it does not rely on
events, and reads all state each time.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping

import structlog

from bot.clients.cluster import Cluster
from bot.clients.workload import GpuUser
from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.marks import read_mark
from bot.domain.operations import Status
from bot.engine.crash_guard import CrashGuard
from bot.engine.lifecycle import Lifecycle
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.stopping import end_of_session
from bot.platform.endpoints import Endpoints
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.state.alerts import Alerts
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.text.mrkdwn import md
from bot.views import clock, code, escape, settled_reminder, unmanaged_alert
from bot.views.mentions import addressed

log = structlog.get_logger(__name__)

_LEASE_TIMEOUT = 60.0
"""Timeout in seconds for the work on one lease, including a request to bring it down and the update of its annotation."""
_RETRY_SECONDS = 600
"""Seconds after which Stoker tries again to close a lease."""


@component
class UnleasedAlerts:
    """Alerts about workloads that use the GPU without a lease."""

    alerts: Alerts
    presentation: Presentation
    repository: Repository
    endpoints: Endpoints
    config: Config
    clock: Clock

    async def update(self, unleased: Iterable[GpuUser]) -> None:
        """Post one alert per unleased workload; remove its buttons when it is resolved."""
        now, channel = self.clock(), self.config.slack.channel
        current = {str(user): user for user in unleased}
        for workload, user in current.items():
            alert = await self.alerts.start(workload, now)
            is_model, name = bool(user.endpoint), user.endpoint or user.name
            can_adopt = is_model and await self._is_endpoint(name)
            view = unmanaged_alert(workload, name, can_scale=is_model, can_adopt=can_adopt)
            approvers = self.config.roles.approvers
            if approvers:
                view = addressed(view, approvers, view.text)
            await self.presentation.post(alert.key, channel, view, notify=approvers)
        for alert in await self.alerts.all():
            if alert.about not in current:
                text = md(
                    "✅ Resolved: {workload} had used the GPU without a lease since {since}.",
                    workload=code(alert.about),
                    since=clock(alert.since),
                )
                await self.presentation.revise(alert.key, settled_reminder(text))
                await self.alerts.clear(alert.about)

    async def _is_endpoint(self, name: str) -> bool:
        try:
            return bool((await self.endpoints.require(await self.repository.head(), name)).gpus)
        except (BotError, Unavailable) as error:
            log.info("cannot be adopted", model=name, error=escape(str(error)))
            return False


@component
class Reconciliation:
    """Compares Redis, Deployments and pods, and makes them consistent."""

    operations: Operations
    leases: Leases
    cluster: Cluster
    crash_guard: CrashGuard
    endpoints: Endpoints
    lease_marks: LeaseMarks
    lifecycle: Lifecycle
    unleased_alerts: UnleasedAlerts
    config: Config
    clock: Clock

    async def run(self) -> None:
        """Reconcile once. This is safe at any time, even while operations run, and in two bots at the same time."""
        await self.endpoints.learn_places()
        survey = await self.cluster.survey()
        unleased = await self.lease_marks.rebuild(survey.users)
        up = {user.endpoint: user for user in survey.users if user.endpoint}
        for lease in await self.leases.held():
            await _log_errors(self._compare_unless_set_aside(lease, up.get(lease.model)), lease.model)
        await _log_errors(self._report_invalid_fences(survey.invalid_fences), "annotations")
        await _log_errors(self.unleased_alerts.update(unleased), "alerts")

    async def _compare_unless_set_aside(self, lease: Lease, user: GpuUser | None) -> None:
        async with self.crash_guard.watched(f"reconcile:{lease.fence}", forget=False) as may_run:
            if may_run:
                await self._compare(lease, user)

    async def _compare(self, lease: Lease, user: GpuUser | None) -> None:
        if await self.operations.is_open(lease.op):
            return  # the operation that claimed the lease is still running
        if lease.displaced:  # left by a bot that was killed right after the end of its operation
            lease = await self.leases.change(lease, Lease.settled) or lease
        await (self._write_to_deployment(lease, user) if user else self._close(lease))

    async def _report_invalid_fences(self, fences: Mapping[str, str]) -> None:
        """Report each invalid fence once. `fences` has the value for each model."""
        for model, fence in fences.items():
            await self.lease_marks.report_ignored(model, "stoker.dev/fence", fence, "it is not a valid fence")

    async def _close(self, lease: Lease) -> None:
        """Close a lease whose model was scaled down by somebody else. Stoker's own bring-downs release their leases
        themselves.
        """
        now = await self.cluster.workload(lease.model)
        if now is not None and now.replicas:
            return
        for op in await self.operations.open(model=lease.model):
            spec = op.request.kind.spec
            if spec.stops_model and not spec.uses_pull_request and op.status is not Status.AWAITING:
                return
        reason = (
            "it was down already, so its lease is closed"
            if now
            else f"the Deployment {lease.model} no longer exists, so its lease is closed"
        )
        attempt = int(self.clock().timestamp()) // _RETRY_SECONDS
        await self.lifecycle.request(
            end_of_session(lease, reason, self.config.slack.channel, self.clock()),
            delivery=f"closed:{lease.fence}:{attempt}",
        )

    async def _write_to_deployment(self, lease: Lease, user: GpuUser) -> None:
        """Write the lease in Redis to the Deployment. A booting session starts if the model is ready, and is ended if
        the boot limit has passed.
        """
        if lease.ready is None:
            if user.ready:
                now = self.clock()
                lease = await self.leases.change(lease, lambda current: current.started(now)) or lease
            elif self.clock() - lease.claimed > self.config.gpu.boot_limit:
                reason = "it did not get ready in time"
                attempt = int(self.clock().timestamp()) // _RETRY_SECONDS
                await self.lifecycle.request(
                    end_of_session(lease, reason, self.config.slack.channel, self.clock()),
                    delivery=f"unready:{lease.fence}:{attempt}",
                )
                return
        annotated = read_mark(user.mark, lease.model)
        if user.mark == lease.mark:
            return
        if annotated and (longer := await self.lease_marks.extended_by_mark(lease, annotated)):
            await self.cluster.mark(lease.model, longer.mark, longer.fence)
            return
        older = annotated is not None and (annotated.fence, annotated.revision) < (lease.fence, lease.revision)
        if user.mark and not older and annotated != lease:
            reason = "Redis has this model's lease, which takes precedence"
            await self.lease_marks.report_ignored(lease.model, "stoker.dev/lease", user.mark, reason)
        await self.cluster.mark(lease.model, lease.mark, lease.fence)


async def _log_errors(work: Awaitable[None], model: str) -> None:
    """Log an error of one lease, so that the other leases are still processed."""
    try:
        async with asyncio.timeout(_LEASE_TIMEOUT):
            await work
    except (BotError, Unavailable, TimeoutError) as error:
        log.warning("not reconciled", what=model, error=str(error) or type(error).__name__)
    except Exception:
        log.exception("not reconciled", what=model)
