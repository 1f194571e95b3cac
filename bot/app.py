"""The composition root: clients, Slack app, docket worker and web server, in one place, under one TaskGroup."""

import asyncio
import gc
import logging
import signal
import sys
from contextlib import AsyncExitStack
from datetime import timedelta

import structlog
from aiohttp import web
from docket import Docket, Worker
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.logger.messages import warning_client_prioritized_and_token_skipped

import commands
from bot import logs, watch
from bot.clients.kube import rights
from bot.embedded import embedded_redis
from bot.errors import BotError, Unavailable
from bot.operations.tasks import tasks
from bot.services import Services, open_services, open_slack
from bot.settings import Settings, load_settings
from bot.store import redis_errors
from bot.tracing import traced
from bot.web import web_app
from commands.answers import acks_first

log = structlog.get_logger(__name__)

_REDELIVERY = timedelta(seconds=6)
"""A killed bot's tasks are taken up after this: a worker that lives renews its hold well within it."""

_LET_FINISH = 3.0
"""Seconds in which what is at work may finish once the bot is told to stop. docket renews no hold from then on, so a
longer time would have this bot and the next one at the same task."""

_DEAF = 12
"""Looks, ten seconds apart, at which Redis answers and this bot's worker is not among those that take tasks."""


def start() -> int:
    """Run the bot of this environment until it is told to stop; 2, having said why, where it cannot."""
    try:
        settings = load_settings()
        logs.configure(settings.stoker_log, settings.secrets)
        asyncio.run(run(settings))
    except BotError as error:
        print(f"stoker: {error.message}", file=sys.stderr)  # noqa: T201  # the person who starts it reads it
        return 2
    return 0


async def run(settings: Settings) -> None:
    """Run the bot until it is told to stop."""
    async with AsyncExitStack() as stack:
        stack.enter_context(traced(settings.otel_exporter_otlp_endpoint))
        redis_url = settings.redis_url or await stack.enter_async_context(
            embedded_redis(settings.stoker_data_dir / "redis")
        )
        svc = await stack.enter_async_context(open_services(settings, redis_url))
        await _check_rights(svc)
        secret = settings.slack_signing_secret
        logging.getLogger("slack_bolt.AsyncApp").addFilter(_is_needed)
        slack = AsyncApp(
            name="stoker",  # else Bolt reads the source files of the whole stack for one
            client=await open_slack(settings, stack),
            signing_secret=secret.get_secret_value() if secret else None,
        )
        commands.register(slack, svc)
        for task in [*tasks, watch.watch]:
            svc.docket.register(task)
        working = await stack.enter_async_context(AsyncExitStack())
        worker = await working.enter_async_context(
            Worker(
                svc.docket,
                concurrency=200,
                redelivery_timeout=_REDELIVERY,
                reconnection_delay=timedelta(seconds=1),
                minimum_check_interval=timedelta(milliseconds=100),
                scheduling_resolution=timedelta(milliseconds=100),
            )
        )
        await svc.docket.replace(
            "reconcile", when=svc.clock(), key="reconcile"
        )()  # at the start, and then every minute
        runner = web.AppRunner(web_app(svc, slack if secret else None), access_log=None, shutdown_timeout=_LET_FINISH)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        ways_in = await stack.enter_async_context(AsyncExitStack())
        if settings.slack_app_token and not secret:
            socket = AsyncSocketModeHandler(slack, settings.slack_app_token.get_secret_value())
            await socket.connect_async()
            ways_in.push_async_callback(socket.close_async)
        await web.TCPSite(runner, settings.stoker_host, settings.stoker_port).start()
        gc.collect()
        gc.freeze()  # what is loaded stays: a full collection that walks it stops the loop for half a second
        log.info("ready", port=settings.stoker_port, mode="http" if secret else "socket")
        work = asyncio.create_task(worker.run_forever())
        try:
            await _until_told(work, asyncio.create_task(insist_on_work(svc.docket, worker.name)))
        finally:
            await ways_in.aclose()
            await _wind_up(work, working)


def _is_needed(record: logging.LogRecord) -> bool:
    """Bolt finds SLACK_BOT_TOKEN in the environment by itself, and would warn at each start that it does not use it."""
    return record.getMessage() != warning_client_prioritized_and_token_skipped()


async def _check_rights(svc: Services) -> None:
    """Stop the start when the bot's account lacks a right that it cannot work without, naming each.

    A cluster that does not answer is no reason to stay down: the bot tells so to whoever asks for something.
    """
    try:
        lacking = await svc.cluster.lacking(rights(svc.config))
    except Unavailable as error:
        log.warning("rights not checked", error=str(error))
        return
    for right in lacking:
        log.warning("right missing", right=str(right), without=right.without or "Stoker cannot work")
    if needed := "; ".join(str(right) for right in lacking if not right.without):
        raise BotError(f"Kubernetes does not allow Stoker to {needed}: add what is missing to its Role or ClusterRole.")


async def insist_on_work(docket: Docket, worker: str, *, every: float = 10.0) -> None:
    """Raises when the worker takes no more tasks although Redis answers; a new process then does.

    In a Redis Cluster docket listens to one primary, chosen at its start, and takes no task before that answers: when
    it is the one that a failover has replaced, it would wait for ever.
    """
    missed = 0
    while missed < _DEAF:
        await asyncio.sleep(every)
        try:
            with redis_errors():
                working = {known.name for known in await docket.workers()}
        except Unavailable:
            missed = 0
        else:
            missed = 0 if worker in working else missed + 1
    raise BotError("Redis answers, and yet no tasks are taken any more: starting anew helps.")


async def _until_told(work: asyncio.Task[None], watching: asyncio.Task[None]) -> None:
    """Wait for SIGTERM or SIGINT; a worker that ends by itself, or takes no more tasks, raises why."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, watching):
            if task.done():
                task.result()
    finally:
        waiting.cancel()
        watching.cancel()


async def _wind_up(work: asyncio.Task[None], working: AsyncExitStack) -> None:
    """Let what is short finish, and what was acknowledged be answered; leave the rest, a boot of minutes, to the next bot."""

    async def cut() -> None:
        while True:  # once, unless the worker is so slow that it has not yet come to waiting for what is at work
            await asyncio.sleep(_LET_FINISH)
            work.cancel()

    answering, cutting = asyncio.create_task(acks_first.all_answered()), asyncio.create_task(cut())
    last = asyncio.get_running_loop().time() + _LET_FINISH
    # docket takes no more tasks, and waits for those at work; a cut one is delivered to another worker
    await working.aclose()
    await asyncio.wait({answering}, timeout=max(0.0, last - asyncio.get_running_loop().time()))
    for task in (answering, cutting):
        task.cancel()
    await asyncio.gather(work, answering, cutting, return_exceptions=True)
