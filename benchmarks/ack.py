"""Measure the time to acknowledge 200 concurrent commands, compared with a bare Bolt app in the same run.

    python benchmarks/ack.py [ROUNDS]

The bot runs unchanged in a separate process and receives signed requests over HTTP, with 100 operations in progress:
roll-outs that wait for Argo CD, each with a card that is updated. The bare app has one command that only calls `ack()`.
"""

import asyncio
import hashlib
import hmac
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from redis.asyncio import Redis
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.domain.operations import ChangeOperation, Status
from bot.domain.plans import ChangePlan, OwnChange, Pull
from bot.domain.requests import SwapModel
from bot.engine.run import NOTHING
from bot.state.operations import Operations
from bot.state.step_ledger import StepLedger
from bot.text.mrkdwn import md
from sandbox.process import free_port
from sandbox.slack.history import CHANNEL
from sandbox.world import Sandbox, opened

CONCURRENT, IN_PROGRESS, GOAL = 200, 100, 1.1
COMMAND = "status"


async def run_bare_app(api_url: str, token: str, secret: str, port: int) -> None:
    """Run the smallest possible Bolt app."""
    app = AsyncApp(client=AsyncWebClient(token=token, base_url=api_url), signing_secret=secret)

    @app.command("/gpu")
    async def gpu(ack: AsyncAck) -> None:
        await ack()

    async def events(request: web.Request) -> web.Response:
        return await to_aiohttp_response(await app.async_dispatch(await to_bolt_request(request)))

    server = web.Application()
    server.router.add_post("/slack/events", events)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def send_commands(url: str, secret: str, response_url: str) -> list[float]:
    """Send all commands at the same time, and return the seconds until each was acknowledged."""

    async def send(http: aiohttp.ClientSession, number: int) -> float:
        fields = {
            "command": "/gpu", "text": COMMAND, "user_id": "U0DEV", "team_id": "T0SANDBOX", "channel_id": CHANNEL,
            "trigger_id": f"{time.time_ns()}.{number}.x", "response_url": response_url,
        }  # fmt: skip
        body, at = urlencode(fields), str(int(time.time()))
        signature = "v0=" + hmac.new(secret.encode(), f"v0:{at}:{body}".encode(), hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": signature,
        }
        began = time.perf_counter()
        async with http.post(url, data=body, headers=headers) as answer:
            await answer.read()
            assert answer.status == 200, await answer.text()
        return time.perf_counter() - began

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await send(http, 0)
        return list(await asyncio.gather(*(send(http, number) for number in range(CONCURRENT))))


async def serve_response_url() -> tuple[web.AppRunner, str]:
    """Start a server that discards the bot's answers; return its runner and its URL."""

    async def discard(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="ok")

    app, port = web.Application(), free_port()
    app.router.add_post("/response", discard)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{port}/response"


async def nothing() -> None:
    pass


async def keep_busy(world: Sandbox) -> None:
    """Store operations for the bot's `sweep`: roll-outs of a commit that is never merged to the main branch."""
    now = datetime.now(UTC)
    await world.command("dev", "/model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ")
    async with Redis.from_url(world.redis.url) as redis:
        operations = Operations(redis)
        async with asyncio.timeout(60):
            while not (plans := [op.plan for op in await operations.open(ChangeOperation) if op.plan]):
                await asyncio.sleep(0.2)
        example_plan = plans[0]
        commit = example_plan.pull.head
        ledger = StepLedger(redis)
        for number in range(IN_PROGRESS):
            # The checks before and after the merge would fail, because there are neither votes nor a pull request.
            for step in ("checked", "matched"):
                await ledger.once(f"busy{number:03}", step, nothing, NOTHING)
            pull = Pull(number=number + 1, url="http://127.0.0.1/", branch="b", head=commit, merge_commit=commit)
            await operations.create(
                ChangeOperation(
                    id=f"busy{number:03}",
                    request=SwapModel(
                        model="coder-chat",
                        hf_id="org/model",
                        actor="U0DEV",
                        channel=CHANNEL,
                        at=now,
                    ),
                    status=Status.RUNNING,
                    updated=now,
                    plan=ChangePlan(
                        commit=commit,
                        target=commit,
                        bound=example_plan.bound,
                        pull=pull,
                        pushed=commit,
                        own=OwnChange(),
                        rows=(("Model", md("org/model")),),
                    ),
                )
            )
        async with asyncio.timeout(120):
            while sum("gateway …" in text for text in world.workspace.posted(CHANNEL)) < IN_PROGRESS:
                for op in await operations.open():
                    if op.failure or op.status.final:
                        raise SystemExit(md("operation {id} ended: {why}", id=op.id, why=op.failure or op.status))
                await asyncio.sleep(0.5)


async def measure(url: str, secret: str, response_url: str) -> list[float]:
    """Run `send_commands` in a separate process, so that the sandbox's work is not measured."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "load", url, secret, response_url, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    return list(json.loads(printed))


def p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        settings = {"argocd": {"sync_limit": "1h"}, "slack": {"update_every": "3s"}}
        async with opened(
            platform=None,
            speed=60,
            port=0,
            checks_pass_after=None,
            settings=settings,
            directory=Path(directory),
            http=True,
        ) as world:
            bot = f"{world.bot.url}/slack/events"
            runner, response_url = await serve_response_url()
            secret, port = world.workspace.signing_secret, free_port()
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "bare", world.workspace.api_url, world.workspace.bot_token, secret, str(port)
            )
            try:
                await keep_busy(world)
                await report(rounds, f"http://127.0.0.1:{port}/slack/events", bot, secret, response_url)
            finally:
                process.terminate()
                await process.wait()
                await runner.cleanup()


async def report(rounds: int, bare_url: str, bot_url: str, secret: str, response_url: str) -> None:
    bare_seconds, bot_seconds = list[float](), list[float]()
    for number in range(rounds + 1):
        for url, seconds in ((bare_url, bare_seconds), (bot_url, bot_seconds)):
            times = await measure(url, secret, response_url)
            if number:  # the first round warms up
                seconds += times
            await asyncio.sleep(3)  # so that the bot finishes the requested work before the next measurement
    print(
        f"{CONCURRENT} concurrent `/gpu {COMMAND}`, {IN_PROGRESS} operations in progress, {rounds} rounds, milliseconds"
    )
    for name, seconds in (("bare Bolt app", bare_seconds), ("Stoker", bot_seconds)):
        print(f"{name:>14}: median {statistics.median(seconds) * 1000:6.0f}, p99 {p99(seconds) * 1000:6.0f}")
    ratio = p99(bot_seconds) / p99(bare_seconds)
    print(f"p99 of Stoker / p99 of the bare app: {ratio:.2f} (goal ≤ {GOAL})")
    if ratio > GOAL:
        raise SystemExit(1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare", api_url, token, secret, port]:
            asyncio.run(run_bare_app(api_url, token, secret, int(port)))
        case ["load", url, secret, response_url]:
            print(json.dumps(asyncio.run(send_commands(url, secret, response_url))))
        case arguments:
            asyncio.run(main(int(arguments[0]) if arguments else 10))
