"""Sets aside work that crashes the process: the admins are notified, and all other work continues."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.errors import BotError, Unavailable
from bot.slack.presentation import Presentation
from bot.state.audit import AuditLog
from bot.state.deliveries import Deliveries
from bot.state.task_starts import TaskStarts
from bot.text.mrkdwn import md
from bot.views import code, lines

log = structlog.get_logger(__name__)


@component
class CrashGuard:
    """Records which work has crashed the process."""

    task_starts: TaskStarts
    audit: AuditLog
    deliveries: Deliveries
    presentation: Presentation
    clock: Clock

    @asynccontextmanager
    async def watched(self, task: str, *, forget: bool = True) -> AsyncIterator[bool]:
        """Yield whether to do this work. If it has crashed the process twice, yield False and notify the admins.

        `forget=False` is for periodic work: after it is set aside, it is not tried again.
        """
        async with self.task_starts.watched(task, forget=forget) as start:
            if start.hopeless:
                reason = f"Stoker crashed {start.ended} times while it worked on this"
                if await self.deliveries.is_first(f"set-aside:{task}"):
                    await self.audit.note_set_aside(f"task {task}", reason, self.clock())
                text = md(
                    "🧹 The task {task} is set aside: {reason}. The bot's log has the cause.",
                    task=code(task),
                    reason=reason,
                )
                await self.presentation.notify_admins(f"set-aside:{task}", lines(text))
            yield not start.hopeless

    @asynccontextmanager
    async def isolated(self, task: str, lease: Lease, *, timeout: float, failure: str) -> AsyncIterator[bool]:
        """Do periodic work on one session, guarded like `watched`. Its errors do not affect the work on other sessions.

        The work ends after `timeout` seconds, and its errors are logged with `failure` as the event.
        """
        try:
            async with self.watched(task, forget=False) as may_run, asyncio.timeout(timeout):
                yield may_run
        except (BotError, Unavailable, TimeoutError) as error:
            log.warning(failure, model=lease.model, op=lease.op, error=str(error) or type(error).__name__)
        except Exception:
            log.exception(failure, model=lease.model, op=lease.op)

    async def attempt(self, task: str, work: Callable[[], Awaitable[object]], *, forget: bool = True) -> None:
        """Do the work, unless it has crashed the process twice."""
        async with self.watched(task, forget=forget) as may_run:
            if may_run:
                await work()

    async def attempt_this_hour(self, task: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do periodic work that belongs to no operation. Work that was set aside is tried again in the next hour."""
        await self.attempt(f"{task}:{self.clock():%Y-%m-%dT%H}", work, forget=False)
