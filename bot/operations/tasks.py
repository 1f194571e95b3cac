"""The docket tasks. Each carries an operation's id and nothing else, and may be run again from its first line."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import assert_never

import structlog
from docket import Depends, ExponentialRetry, Perpetual, Retry, TaskKey
from structlog.contextvars import bind_contextvars

from bot.domain import Kind, Operation, Status
from bot.errors import BotError, Unavailable
from bot.operations import bench, down, gpu, life, pulls, queue, receipt, rollout, smoke, tenure
from bot.operations import home as homes
from bot.operations import reconcile as reconciliation
from bot.services import Services, services

log = structlog.get_logger(__name__)

_RETRY = ExponentialRetry(attempts=12, minimum_delay=timedelta(seconds=1), maximum_delay=timedelta(seconds=15))
"""Two minutes: an API server that is upgraded for one must not cost a boot of ten."""

_TELLING = timedelta(seconds=20)
"""For this long an end is still being told by whoever wrote it."""


async def advance(op_id: str, key: str = TaskKey(), svc: Services = Depends(services), retry: Retry = _RETRY) -> None:
    """Carry an operation on from wherever it is."""
    async with life.settled(svc, op_id, retry):
        op = await svc.store.load(op_id)
        bind_contextvars(op=op.id, actor=op.request.actor, model=op.request.model)  # a task has a context of its own
        if op.status.final:
            await life.tell_end(svc, op)
            await rollout.bank(svc, op_id)
        elif key != life.task_key(op):
            await life.enqueue(svc, op)
        elif op.status is Status.AWAITING and not op.failure:
            await (pulls.close(svc, op) if life.is_closing(op) else life.present(svc, op))
        elif op.status is Status.WAITING and not op.failure:
            await life.present(svc, op)
        else:
            await _work(svc, op)


async def _work(svc: Services, op: Operation) -> None:
    match op.request.kind:
        case Kind.GPU_UP:
            await (gpu.plan_up(svc, op) if op.status is Status.REQUESTED else gpu.bring_up(svc, op))
            await rollout.bank(svc, op.id)
        case Kind.GPU_DOWN:
            await down.bring_down(svc, op)
        case Kind.GPU_EXTEND:
            await (tenure.plan_extend(svc, op) if op.status is Status.REQUESTED else tenure.extend(svc, op))
        case Kind.GPU_RELEASE:
            await (tenure.plan_release(svc, op) if op.status is Status.REQUESTED else tenure.release(svc, op))
        case Kind.MODEL_SMOKE:
            await smoke.smoke_now(svc, op)
        case Kind.MODEL_BENCH:
            await bench.bench(svc, op)
        case Kind.MODEL_ADD | Kind.MODEL_SWAP | Kind.MODEL_REMOVE | Kind.MODEL_REVERT:
            await (pulls.propose(svc, op) if op.status is Status.REQUESTED else rollout.roll_out(svc, op))
        case _:
            assert_never(op.request.kind)


async def expire(op_id: str, svc: Services = Depends(services), retry: Retry = _RETRY) -> None:
    """End a request that nobody decided; scheduled when it is asked."""
    await life.expire(svc, op_id)


async def follow(op_id: str, svc: Services = Depends(services), retry: Retry = _RETRY) -> None:
    """Look at one pull request, because GitHub said that it changed."""
    await _look(svc, await svc.store.load(op_id))


async def sweep(
    svc: Services = Depends(services), perpetual: Perpetual = Perpetual(every=timedelta(seconds=15), automatic=True)
) -> None:
    """See that every open operation has a task, also when a crash came between a decision and its task.

    And that every end is told, also when Slack did not answer then.
    """
    for op in await svc.store.open():
        await life.enqueue(svc, op)
    for op in await svc.store.untold():
        if svc.clock() - op.updated > _TELLING:
            try:
                await life.tell_end(svc, op)
            except (BotError, Unavailable) as error:
                log.warning("end not told", op=op.id, model=op.request.model, error=str(error))


async def poll_pulls(
    svc: Services = Depends(services), perpetual: Perpetual = Perpetual(every=timedelta(seconds=30), automatic=True)
) -> None:
    """Look at the open pull requests: the way without a webhook, and the safety net with one."""
    perpetual.after(svc.config.github.poll_every)
    for op in await svc.store.open():
        if op.plan and op.plan.pull:
            await _look(svc, op)


async def _look(svc: Services, op: Operation) -> None:
    """Follow one pull request; what cannot be seen now is looked at again at the next poll."""
    try:
        await pulls.follow(svc, op)
    except (BotError, Unavailable) as error:
        log.warning("pull request not followed", op=op.id, model=op.request.model, error=str(error))


async def hand_over(
    svc: Services = Depends(services), perpetual: Perpetual = Perpetual(every=timedelta(seconds=10), automatic=True)
) -> None:
    """Offer the free GPU to the next in the queue, and keep the cards of those who wait up to date."""
    try:
        await queue.hand_over(svc)
    except (BotError, Unavailable) as error:
        log.warning("queue not tended", error=str(error))


async def hand_over_at(svc: Services = Depends(services)) -> None:
    """The same at the moment an offer ends."""
    await life.hand_over_soon(svc)


async def reconcile(
    svc: Services = Depends(services), perpetual: Perpetual = Perpetual(every=timedelta(minutes=1), automatic=True)
) -> None:
    """Compare Redis, Deployments and pods; what does not answer is looked at again the next time."""
    perpetual.after(svc.config.lease.reconcile_every)
    try:
        await reconciliation.reconcile(svc)
        await svc.store.note_reconciled(svc.clock())
    except (BotError, Unavailable) as error:
        log.warning("not reconciled", error=str(error))


async def refresh_homes(svc: Services = Depends(services)) -> None:
    """Something has changed: show it to those who opened Home. Scheduled under one key, so that many changes are one."""
    await homes.refresh(svc)


async def watch_homes(
    svc: Services = Depends(services), perpetual: Perpetual = Perpetual(every=timedelta(seconds=30), automatic=True)
) -> None:
    """What changed without us (a sync, a pod, somebody's merge): the platform is looked at once for all readers."""
    try:
        await homes.refresh(svc)
    except (BotError, Unavailable) as error:
        log.warning("homes not refreshed", error=str(error))


async def draw_week(svc: Services = Depends(services)) -> None:
    """The last week as a picture for Home; scheduled under one key when its figures have changed."""
    try:
        await homes.draw_week(svc)
    except (BotError, Unavailable) as error:
        log.warning("picture of the week not tended", error=str(error))


async def settle_bill(fence: int, svc: Services = Depends(services), retry: Retry = _RETRY) -> None:
    """Watch the node of the session with this fence until it no longer bills; scheduled with its receipt."""
    await receipt.settle_bill(svc, fence)


async def publish_report(op_id: str, svc: Services = Depends(services), retry: Retry = _RETRY) -> None:
    """Open the pull request with a benchmark's report; asked for by its button."""
    await bench.publish_report(svc, op_id, last=retry.attempts is not None and retry.attempt >= retry.attempts)


tasks: list[Callable[..., Awaitable[None]]] = [
    advance,
    expire,
    follow,
    sweep,
    poll_pulls,
    hand_over,
    hand_over_at,
    reconcile,
    settle_bill,
    publish_report,
    refresh_homes,
    watch_homes,
    draw_week,
]
