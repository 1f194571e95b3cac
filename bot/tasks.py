"""The docket tasks. A task that is interrupted runs again from its first line."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from docket import ExponentialRetry, Perpetual, Retry, TaskKey
from structlog.contextvars import bind_contextvars

from bot.clients.cluster import Cluster
from bot.clock import Clock
from bot.component import component
from bot.domain.operations import ChangeOperation, Operation, Status
from bot.engine import task_refs
from bot.engine.crash_guard import CrashGuard
from bot.engine.lifecycle import Lifecycle, SetAside, is_closing, task_key
from bot.engine.run import CancelRequested, Run
from bot.errors import BotError, Unavailable
from bot.gpu.billing import BillSettlement
from bot.gpu.health import HealthWatch
from bot.gpu.queue import Queue
from bot.gpu.reconciliation import Reconciliation
from bot.gpu.stopping import SettingAside
from bot.gpu.watch import IdleWatch
from bot.home import AppHome
from bot.platform.pull_requests import PullRequestWatch
from bot.platform.runtime_aliases import GatewayAliases
from bot.platform.setup import PlatformSetup
from bot.platform.smoke_tests import SmokeTests
from bot.services import learn_secrets as read_secrets
from bot.settings.config import Config
from bot.slack.bookmark import HolderBookmark
from bot.slack.presentation import Presentation
from bot.state.alerts import Alerts
from bot.state.audit import AuditLog
from bot.state.home import VIEWERS_KEPT
from bot.state.operations import Operations
from bot.state.records import Records
from bot.text.mrkdwn import md
from bot.views import code, lines
from bot.wiring import Wiring
from bot.workflows import Workflow, Workflows
from bot.workflows.benchmark_report import BenchmarkReports

log = structlog.get_logger(__name__)

_RETRY = ExponentialRetry(attempts=12, minimum_delay=timedelta(seconds=1), maximum_delay=timedelta(seconds=15))
"""Retries for two minutes, so that a one-minute upgrade of the API server does not fail a ten-minute boot."""

_RETRY_LONG = ExponentialRetry(attempts=20, minimum_delay=timedelta(minutes=1), maximum_delay=timedelta(hours=1))
"""Retries for most of a day, for work that nobody waits for."""

_WATCH_HOME = timedelta(minutes=30)
"""Time for which Home is updated for external changes after somebody opened it. Later, the cluster is not queried for
it.
"""

_DELIVERY_TIME = timedelta(seconds=20)
"""Grace period before `sweep` posts a final state again."""


@component
class Advancing:
    """Advances operations through their workflows."""

    operations: Operations
    lifecycle: Lifecycle
    setting_aside: SettingAside
    workflows: Workflows

    @task_refs.ADVANCE
    async def advance(self, op_id: str, key: str = TaskKey(), retry: Retry = _RETRY) -> None:
        """Advance an operation from its current state."""
        async with self.operations.turn(op_id), self.lifecycle.handling_errors(op_id, retry):
            op = await self.operations.load(op_id)
            bind_contextvars(op=op.id, actor=op.request.actor, model=op.request.model)  # each task has its own context
            run, workflow = self.lifecycle.run(op), self.workflows.table()[op.request.kind]
            if op.status.final:
                await run.show()
                await _follow_up(run, workflow)
            elif key != task_key(op):
                await self.lifecycle.enqueue(op)
            elif op.status is Status.AWAITING and not op.failure:
                await (workflow.undo(run) if is_closing(op) else self.lifecycle.present(op))
            elif op.status is Status.WAITING and not op.failure:
                await self.lifecycle.present(op)
            else:
                await self._work_unless_set_aside(run, workflow)

    async def _work_unless_set_aside(self, run: Run, workflow: Workflow[Any]) -> None:
        """Run the next stage, unless it has repeatedly crashed the process."""
        op = run.op
        try:
            async with self.lifecycle.watched(op):
                await _work(run, workflow)
        except SetAside as aside:
            spec = op.request.kind.spec
            if spec.turns_cost_off or (op.failure and spec.undo_stops_model):
                await self.setting_aside.cut_short(op, aside.shown)
            elif op.failure:
                await self.setting_aside.leave_undone(op, aside.shown)
            else:
                raise


async def _work(run: Run, workflow: Workflow[Any]) -> None:
    """Run the next stage of an operation: plan it, execute it, or undo it."""
    if run.op.failure or run.op.cancelled_by:
        await workflow.undo(run)
    elif run.op.status is Status.REQUESTED and workflow.plan:
        await workflow.plan(run)
    else:
        try:
            await workflow.execute(run)
        except CancelRequested:
            await run.mark_interrupted()
            await workflow.undo(run)
    await _follow_up(run, workflow)


async def _follow_up(run: Run, workflow: Workflow[Any]) -> None:
    if workflow.follow_up:
        await workflow.follow_up(run)


@component
class OperationTasks:
    """The tasks of operations."""

    operations: Operations
    audit: AuditLog
    records: Records
    presentation: Presentation
    crash_guard: CrashGuard
    gateway_aliases: GatewayAliases
    lifecycle: Lifecycle
    clock: Clock

    @task_refs.EXPIRE
    async def expire(self, op_id: str, retry: Retry = _RETRY) -> None:
        """End a request that was not decided in time; scheduled when its card is posted."""
        await self.lifecycle.expire(op_id)

    @task_refs.REMIND
    async def remind(self, op_id: str, until: str, retry: Retry = _RETRY) -> None:
        """Remind the people who have not decided; scheduled for the middle of the time to decide."""
        op = await self.operations.load(op_id)
        if op.expires and op.expires.isoformat() == until:
            await self.presentation.announcements.remind(op)

    @task_refs.ESCALATE
    async def escalate(self, op_id: str, until: str, retry: Retry = _RETRY) -> None:
        """Notify the admins that nobody has decided; scheduled for the last quarter of the time to decide."""
        op = await self.operations.load(op_id)
        if op.expires and op.expires.isoformat() == until:
            await self.presentation.announcements.escalate(op)

    async def sweep(self, perpetual: Perpetual = Perpetual(every=timedelta(seconds=15), automatic=True)) -> None:
        """Make sure that every open operation has a task, even after a crash between a decision and its task.

        Also post the results that Slack has not accepted yet, and remove the aliases of operations that have ended.
        """
        for op in await self.operations.open():
            await self.lifecycle.enqueue(op)
        for op in await self.operations.undelivered_ends():
            if self.clock() - op.updated > self.clock.passed_in(_DELIVERY_TIME):
                self.presentation.show(op.id, now=True)
        await self._report_set_aside()
        await self.crash_guard.attempt_this_hour("aliases", self.gateway_aliases.tidy)
        self.presentation.wake()  # an earlier process may have left messages in the outbox

    async def _report_set_aside(self) -> None:
        """Notify the admins once about unreadable records, which are already set aside."""
        unreadable = await self.records.unreported()
        for record in unreadable:
            location = f"{record['key']} {record['field']}".strip()
            text = md(
                "🧹 A record in Redis could not be read and is set aside: {location}, {reason}. Nothing waits for it. It "
                "is kept in `{{stoker}}:set-aside`, with the reason.",
                location=code(location),
                reason=record["why"],
            )
            await self.audit.note_set_aside(location, record["why"], self.clock())
            await self.presentation.notify_admins(f"set-aside:{record['at']}:{location}", lines(text))
        if unreadable:
            await self.records.mark_reported(len(unreadable))

    @task_refs.SET_ASIDE
    async def set_aside(self, name: str, key: str, error: str) -> None:
        """Record in the audit log that a task in Redis is unreadable. It runs in place of that task."""
        await self.audit.note_set_aside(
            f"task {name} ({key})", f"its message in Redis could not be read: {error}", self.clock()
        )


@component
class PullRequestTasks:
    """The tasks that follow pull requests."""

    operations: Operations
    crash_guard: CrashGuard
    pull_request_watch: PullRequestWatch
    config: Config
    clock: Clock

    @task_refs.FOLLOW
    async def follow(self, op_id: str, retry: Retry = _RETRY) -> None:
        """Check one pull request, because GitHub reported a change."""

        async def check() -> None:
            await self._check(await self.operations.load(op_id))

        await self.crash_guard.attempt(f"follow:{op_id}", check)

    async def poll_pulls(self, perpetual: Perpetual = Perpetual(every=timedelta(seconds=30), automatic=True)) -> None:
        """Check the open pull requests. This is necessary without a webhook, and a safety net with a webhook."""
        perpetual.after(self.clock.period(self.config.github.poll_every))
        for op in await self.operations.open(ChangeOperation):
            if op.plan:
                await self.crash_guard.attempt(f"poll:{op.id}", partial(self._check, op), forget=False)

    async def _check(self, op: Operation) -> None:
        """Check one pull request. After an error, the next poll tries again."""
        try:
            await self.pull_request_watch.follow(op)
        except (BotError, Unavailable) as error:
            log.warning("pull request not followed", op=op.id, model=op.request.model, error=str(error))


@component
class GpuTasks:
    """The tasks of the GPU: the queue, the reconciliation, the bills."""

    alerts: Alerts
    bill_settlement: BillSettlement
    crash_guard: CrashGuard
    lifecycle: Lifecycle
    queue: Queue
    reconciliation: Reconciliation
    config: Config
    clock: Clock

    @task_refs.HAND_OVER
    async def hand_over(self, perpetual: Perpetual = Perpetual(every=timedelta(seconds=10), automatic=True)) -> None:
        """Offer the free GPU to the next request in the queue, and update the cards of queued requests."""
        try:
            await self.crash_guard.attempt_this_hour("hand_over", self.queue.hand_over)
        except (BotError, Unavailable) as error:
            log.warning("queue not processed", error=str(error))

    @task_refs.HAND_OVER_AT
    async def hand_over_at(self) -> None:
        """Offer the GPU to the next request when an offer ends."""
        await self.lifecycle.hand_over_soon()

    @task_refs.RECONCILE
    async def reconcile(self, perpetual: Perpetual = Perpetual(every=timedelta(minutes=1), automatic=True)) -> None:
        """Compare Redis, Deployments and pods. After an error, the next run tries again."""
        perpetual.after(self.clock.period(self.config.lease.reconcile_every))
        try:
            await self.reconciliation.run()
            await self.alerts.note_reconciled(self.clock())
        except (BotError, Unavailable) as error:
            log.warning("not reconciled", error=str(error))

    @task_refs.SETTLE_BILL
    async def settle_bill(self, fence: int, retry: Retry = _RETRY) -> None:
        """Watch the node of the session with this fence until it is no longer billed; scheduled with the receipt."""
        await self.crash_guard.attempt(f"settle_bill:{fence}", lambda: self.bill_settlement.settle_bill(fence))


@component
class HomeTasks:
    """The tasks that keep Home up to date."""

    app_home: AppHome
    bookmark: HolderBookmark
    crash_guard: CrashGuard
    clock: Clock

    @task_refs.REFRESH_HOMES
    async def refresh_homes(self) -> None:
        """Update the open Homes after a change. Scheduled under one key, so that many changes become one update."""
        await self.crash_guard.attempt_this_hour("refresh_homes", self._refresh)

    async def watch_homes(self, perpetual: Perpetual = Perpetual(every=timedelta(seconds=30), automatic=True)) -> None:
        """Update open Homes after external changes (a sync, a pod, a merge); the platform is read once for all of them.

        Home is published whenever somebody opens it, so this is only for people who may still have it open.
        """
        try:
            within = self.clock.passed_in(_WATCH_HOME)
            await self.crash_guard.attempt_this_hour("watch_homes", lambda: self._refresh(within))
        except (BotError, Unavailable) as error:
            log.warning("homes not refreshed", error=str(error))

    async def _refresh(self, within: timedelta = VIEWERS_KEPT) -> None:
        await self.app_home.refresh(within=within)
        await self.bookmark.refresh()


@component
class SetupTasks:
    """The task that uses the settings of the repository's `.stoker.yaml`."""

    crash_guard: CrashGuard
    setup: PlatformSetup
    config: Config
    clock: Clock

    async def watch_settings(
        self, perpetual: Perpetual = Perpetual(every=timedelta(seconds=30), automatic=True)
    ) -> None:
        """Follow an open set-up, and read the settings of a new commit. After an error, the next run tries again."""
        perpetual.after(self.clock.period(self.config.github.poll_every))
        try:
            await self.crash_guard.attempt_this_hour("watch_settings", self.setup.watch)
        except (BotError, Unavailable) as error:
            log.warning("settings not read", error=str(error))


@component
class BenchmarkTasks:
    """The tasks that follow a benchmark."""

    reports: BenchmarkReports
    crash_guard: CrashGuard

    @task_refs.PUBLISH_REPORT
    async def publish_report(self, op_id: str, retry: Retry = _RETRY) -> None:
        """Open the pull request with a benchmark's report; requested by its button."""
        last = retry.attempts is not None and retry.attempt >= retry.attempts
        await self.crash_guard.attempt(f"publish_report:{op_id}", lambda: self.reports.publish(op_id, last=last))

    @task_refs.SHOW_PICTURE
    async def show_picture(self, op_id: str, retry: Retry = _RETRY) -> None:
        """Draw the results of a benchmark; scheduled with its table."""
        await self.crash_guard.attempt(f"show_picture:{op_id}", lambda: self.reports.draw(op_id))


@component
class SecretTasks:
    """The tasks for secrets: the cluster's Secrets, and the virtual keys of smoke tests."""

    cluster: Cluster
    crash_guard: CrashGuard
    smoke_tests: SmokeTests
    config: Config

    async def learn_secrets(self, perpetual: Perpetual = Perpetual(every=timedelta(minutes=5), automatic=True)) -> None:
        """Read the cluster's secrets again, because they may have been rotated."""
        await read_secrets(self.cluster, self.config)

    @task_refs.DELETE_KEY
    async def delete_key(self, key_alias: str, retry: Retry = _RETRY_LONG) -> None:
        """Delete the virtual key of a smoke test; scheduled if LiteLLM did not delete it immediately."""
        await self.crash_guard.attempt(f"delete_key:{key_alias}", lambda: self.smoke_tests.delete_key(key_alias))


def all_tasks(wiring: Wiring) -> list[Callable[..., Awaitable[None]]]:
    """Every task of the bot, with the objects that it uses."""
    operations, pull_requests = wiring.of(OperationTasks), wiring.of(PullRequestTasks)
    gpu, homes = wiring.of(GpuTasks), wiring.of(HomeTasks)
    benchmarks, secrets = wiring.of(BenchmarkTasks), wiring.of(SecretTasks)
    return [
        wiring.of(Advancing).advance,
        operations.expire,
        operations.remind,
        operations.escalate,
        operations.sweep,
        operations.set_aside,
        pull_requests.follow,
        pull_requests.poll_pulls,
        gpu.hand_over,
        gpu.hand_over_at,
        gpu.reconcile,
        gpu.settle_bill,
        wiring.of(HealthWatch).watch_health,
        wiring.of(IdleWatch).watch,
        benchmarks.publish_report,
        benchmarks.show_picture,
        secrets.learn_secrets,
        secrets.delete_key,
        homes.refresh_homes,
        homes.watch_homes,
        wiring.of(SetupTasks).watch_settings,
    ]
