"""The composition root: starts and stops the clients, the Slack app, the docket worker and the web server."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import structlog
from aiohttp import web
from docket import Docket, Worker
from pydantic import SecretStr
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.logger.messages import warning_client_prioritized_and_token_skipped

from bot.clients.cluster import Cluster
from bot.clients.rights import rights
from bot.embedded import embedded_redis
from bot.engine.task_refs import RECONCILE
from bot.errors import BotError, Unavailable
from bot.gpu.guard import Guard
from bot.observability import logs
from bot.observability.tracing import traced
from bot.services import learn_secrets, open_services, open_slack
from bot.settings.config import Config, SettingsError
from bot.settings.environment import Settings, load_settings
from bot.settings.of_repository import layered, same
from bot.slack.roles import RoleMembers
from bot.state.records import redis_errors
from bot.state.setup import SetupState
from bot.tasks import all_tasks
from bot.web import HttpPort
from bot.wiring import Wiring
from commands import listeners
from commands.replies import acks_first
from commands.setup import SettingsInUse

log = structlog.get_logger(__name__)

_REDELIVERY = timedelta(seconds=4)
"""Time after which the tasks of a killed bot are delivered to another bot. A live worker renews its hold four times
in this period.
"""

_SETTINGS_EVERY = 2.0
"""Seconds between two checks of the settings in use."""

_DRAIN_SECONDS = 3.0
"""Grace period in seconds for running tasks after SIGTERM. After SIGTERM docket no longer renews its hold,
so with a longer period this bot and the next one would run the same task.
"""

_SLACK_TIMEOUT, _SLACK_RETRY = 10.0, 5.0
"""Maximum time in seconds that the start waits for Slack, and time in seconds until a failed connection is retried."""

_MISSED_CHECKS = 12
"""Number of consecutive checks in which Redis answers but this bot's worker is not registered, before the bot exits."""


def start() -> int:
    """Run the bot until it is stopped. Returns the exit status: 2, after printing the reason, if it cannot start."""
    try:
        settings = load_settings()
        logs.configure(settings.stoker_log, settings.secrets)
        asyncio.run(run(settings))
    except BotError as error:
        print(logs.cleaned(f"stoker: {error}"), file=sys.stderr)  # noqa: T201
        return 2
    return 0


async def run(settings: Settings) -> None:
    """Run the bot until it is stopped."""
    stop = asyncio.Event()
    with traced(settings.otel_exporter_otlp_endpoint):
        while await _serve(settings, stop):
            log.info("the settings of the repository have changed: starting again with them")
            gc.unfreeze()


async def _serve(settings: Settings, stop: asyncio.Event) -> bool:
    """Run the bot until it is stopped or its settings change. Returns whether it has to start again."""
    async with AsyncExitStack() as stack:
        redis_url = settings.redis_url or await stack.enter_async_context(
            embedded_redis(settings.stoker_data_dir / "redis")
        )
        svc = await stack.enter_async_context(open_services(settings, redis_url))
        await _check_rights(svc.cluster, svc.config, must_start=svc.config != svc.installed.config)
        await learn_secrets(svc.cluster, svc.config)
        _in_background(stack, _check_roles(svc.roles))
        slack = await _open_slack_app(settings, stack)
        wiring = Wiring(svc)
        listeners.register(slack, wiring)
        for task in all_tasks(wiring):
            svc.docket.register(task)
        working = await stack.enter_async_context(AsyncExitStack())
        worker = await working.enter_async_context(
            Worker(
                svc.docket,
                concurrency=200,
                redelivery_timeout=_REDELIVERY,
                reconnection_delay=timedelta(seconds=1),
            )
        )
        await RECONCILE.replace(svc.docket, when=svc.clock(), key="reconcile")()  # now, and then every minute
        uses_http = settings.slack_signing_secret is not None
        runner = web.AppRunner(
            wiring.of(HttpPort).app(slack if uses_http else None),
            access_log=None,
            shutdown_timeout=_DRAIN_SECONDS,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listening = await stack.enter_async_context(AsyncExitStack())
        if settings.slack_app_token and not uses_http:
            await _open_socket(slack, settings.slack_app_token, listening)
        await web.TCPSite(runner, settings.stoker_host, settings.stoker_port).start()
        gc.enable()  # see `bot.__main__`
        # Freeze the loaded modules: a full garbage collection over them stalls the event loop for 0.5 s. A collection
        # before the freeze would free only 2 000 of 214 000 objects, and take a seventh of the start-up time.
        gc.freeze()
        log.info("ready", port=settings.stoker_port, mode="http" if uses_http else "socket")
        _in_background(stack, wiring.of(Guard).run())
        _in_background(stack, wiring.of(SettingsInUse).announce())
        work = asyncio.create_task(worker.run_forever())
        try:
            watching = asyncio.create_task(watch_worker(svc.docket, worker.name))
            changing = asyncio.create_task(_wait_for_settings(svc.setup, svc.installed.config, svc.config))
            changed = await wait_for_stop(work, watching, changing, stop)
        finally:
            await listening.aclose()
            await _drain(work, working)
    return changed and not stop.is_set()


def _in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start the work, and cancel it when the stack is closed."""
    task = asyncio.create_task(work)
    stack.callback(task.cancel)
    return task


async def _open_slack_app(settings: Settings, stack: AsyncExitStack) -> AsyncApp:
    secret = settings.slack_signing_secret
    logging.getLogger("slack_bolt.AsyncApp").addFilter(_is_needed)
    return AsyncApp(
        name="stoker",  # otherwise Bolt reads the source files of the whole call stack to find a name
        client=await open_slack(settings, stack),
        signing_secret=secret.get_secret_value() if secret else None,
    )


async def _open_socket(slack: AsyncApp, token: SecretStr, stack: AsyncExitStack) -> None:
    """Connect to Slack with Socket Mode. After `_SLACK_TIMEOUT` seconds the start continues without the connection."""
    socket = AsyncSocketModeHandler(slack, token.get_secret_value())
    stack.push_async_callback(socket.close_async)
    await asyncio.wait({_in_background(stack, _connect(socket))}, timeout=_SLACK_TIMEOUT)


async def _connect(socket: AsyncSocketModeHandler) -> None:
    """Connect to Slack, with unlimited retries: the bot ends leases and brings models down even without Slack."""
    while True:
        try:
            await socket.connect_async()
        except Exception as error:
            log.error("Slack not connected", error=str(error) or type(error).__name__)
            await asyncio.sleep(_SLACK_RETRY)
        else:
            return


def _is_needed(record: logging.LogRecord) -> bool:
    """Return False for a warning that Bolt logs at each start: it does not use the SLACK_BOT_TOKEN in the environment."""
    return record.getMessage() != warning_client_prioritized_and_token_skipped()


async def _check_rights(cluster: Cluster, config: Config, *, must_start: bool) -> None:
    """Raise BotError with the missing rights if the bot's account lacks a right that the bot needs.

    If the cluster does not answer, the bot starts anyway, and each request shows the missing rights. `must_start` is
    set if settings of the repository are in use: the bot then starts despite missing rights, because a merge must not stop it.
    """
    try:
        lacking = await cluster.lacking(rights(config))
    except (BotError, Unavailable) as error:
        log.warning("rights not checked", error=str(error))
        return
    for right in lacking:
        log.warning("right missing", right=str(right), without=right.without or "Stoker cannot work")
    needed = "; ".join(str(right) for right in lacking if not right.without)
    if needed and not must_start:
        raise BotError(f"Kubernetes does not allow Stoker to {needed}: add these rights to its Role or ClusterRole.")


async def _check_roles(roles: RoleMembers) -> None:
    """Log the people and groups in the settings that Slack does not have. The start does not wait for this."""
    try:
        for problem in await roles.unknown():
            log.warning("role not found", problem=problem)
    except (BotError, Unavailable) as error:
        log.warning("roles not checked", error=str(error))


async def watch_worker(docket: Docket, worker: str, *, every: float = 10.0) -> None:
    """Raise if the worker takes no tasks although Redis answers, so that a new process is started.

    `every` is the interval of the checks in seconds. In a Redis Cluster, docket listens to the primary that it chose
    when it started. If a failover replaces this primary, docket waits forever.
    """
    missed = 0
    while missed < _MISSED_CHECKS:
        await asyncio.sleep(every)
        try:
            with redis_errors():
                registered = {info.name for info in await docket.workers()}
        except Unavailable:
            missed = 0
        else:
            missed = 0 if worker in registered else missed + 1
    raise BotError("Redis answers, but this bot no longer receives tasks. Restart it.")


async def _wait_for_settings(setup: SetupState, installed: Config, config: Config) -> None:
    """Wait until the settings in use differ from `config`."""
    while True:
        await asyncio.sleep(_SETTINGS_EVERY)
        with suppress(Unavailable, SettingsError):
            used = await setup.in_use()
            if used and not same(layered(installed, used.text), config):
                return


async def wait_for_stop(
    work: asyncio.Task[None], watching: asyncio.Task[None], changing: asyncio.Task[None], stop: asyncio.Event
) -> bool:
    """Wait for SIGTERM or SIGINT, which set `stop`, or for new settings. Returns whether the settings have changed.

    Raises the error of `work` or `watching` if the worker exits or takes no more tasks. The signal handlers stay
    installed, so that a signal during a restart of the bot is not lost.
    """
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, waiting, watching, changing}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, watching, changing):
            if task.done():
                task.result()
        return changing.done()
    finally:
        waiting.cancel()
        watching.cancel()
        changing.cancel()


async def _drain(work: asyncio.Task[None], working: AsyncExitStack) -> None:
    """Finish short tasks and send pending replies; leave long tasks for the next instance."""

    async def cut() -> None:
        while True:  # one cancellation is enough, unless the worker does not wait for its tasks yet
            await asyncio.sleep(_DRAIN_SECONDS)
            work.cancel()

    answering, cutting = asyncio.create_task(acks_first.wait_until_answered()), asyncio.create_task(cut())
    last = asyncio.get_running_loop().time() + _DRAIN_SECONDS
    # docket takes no more tasks and waits for the running ones. Cancelled tasks are delivered to another worker.
    await working.aclose()
    await asyncio.wait({answering}, timeout=max(0.0, last - asyncio.get_running_loop().time()))
    for task in (answering, cutting):
        task.cancel()
    await asyncio.gather(work, answering, cutting, return_exceptions=True)
