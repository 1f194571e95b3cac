"""An operation's message, over the wire to the stand-in workspace: never too often, and the last state arrives."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientSession, TraceConfig
from redis.asyncio import Redis
from slack_sdk.web.async_client import AsyncWebClient

from bot.domain import Check, Kind, Note, Operation, Request, Status
from bot.errors import Unavailable
from bot.slack import Slack
from bot.store import Store
from sandbox.faults import Faults
from sandbox.slack import Workspace

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
PAUSE = timedelta(seconds=1)


@pytest.fixture
async def workspace() -> AsyncIterator[tuple[Workspace, Faults]]:
    faults = Faults()
    async with Workspace(faults) as workspace:
        yield workspace, faults


@pytest.fixture
def store(redis: Redis) -> Store:
    return Store(redis)


@pytest.fixture
async def slack(workspace: tuple[Workspace, Faults], store: Store) -> AsyncIterator[Slack]:
    there, _ = workspace
    slack = Slack(AsyncWebClient(token=there.bot_token, base_url=there.api_url), store, update_every=PAUSE)
    yield slack
    await slack.close()


@pytest.fixture
async def op(store: Store) -> Operation:
    request = Request(kind=Kind.GPU_UP, model="coder-chat", actor="U0DEV", channel="C0GPUOPS", at=NOW)
    return await store.create(Operation(id="op1", request=request, status=Status.RUNNING, updated=NOW))


async def entered(store: Store, phase: str) -> Operation:
    return await store.update("op1", lambda op: op.with_phase(phase, NOW))


async def until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not seen():
            await asyncio.sleep(0.05)


def cards(workspace: Workspace) -> list[str]:
    return [text for text in workspace.now_visible("dev") if "Bring up coder-chat" in text]


async def shown(slack: Slack, store: Store, op: Operation, *, force: bool = False) -> Operation:
    message = await slack.show(op, now=NOW, force=force)
    return await store.update(op.id, lambda op: op.model_copy(update={"message": message}))


async def test_what_came_too_soon_is_shown_when_the_pause_is_over(
    workspace: tuple[Workspace, Faults], slack: Slack, store: Store, op: Operation
) -> None:
    """Three updates in a moment are one more write, and it is the last of them."""
    there, _ = workspace
    await shown(slack, store, op)
    for phase in ("syncing", "starting", "loading"):
        await slack.show(await entered(store, phase), now=NOW)
    assert "loading" not in cards(there)[0]
    await until(lambda: "loading …" in cards(there)[0])
    written = [revision for revision in there.transcript if "Bring up coder-chat" in revision.text]
    assert len(written) == 2


async def test_an_old_version_never_overwrites_a_newer_one(
    workspace: tuple[Workspace, Faults], slack: Slack, store: Store, op: Operation
) -> None:
    """Whoever comes late with what they read earlier writes what is true now."""
    there, _ = workspace
    old = await shown(slack, store, op)
    await entered(store, "loading")
    await slack.show(old, now=NOW, force=True)
    assert "loading" in cards(there)[0]


async def test_two_processes_end_with_the_newest(
    workspace: tuple[Workspace, Faults], slack: Slack, store: Store, op: Operation
) -> None:
    """Another replica has written meanwhile; this one's memory of the message does not matter."""
    there, _ = workspace
    old = await shown(slack, store, op)
    other = Slack(AsyncWebClient(token=there.bot_token, base_url=there.api_url), store, update_every=PAUSE)
    new = await entered(store, "loading")
    await asyncio.gather(
        *(each.show(each_op, now=NOW, force=True) for each in (slack, other) for each_op in (old, new))
    )
    assert "loading …" in cards(there)[0]
    assert len(cards(there)) == 1


async def test_evidence_and_logs_are_in_the_thread_once(
    workspace: tuple[Workspace, Faults], slack: Slack, store: Store, op: Operation
) -> None:
    """The card names the tests; what they saw, and the log lines, are one reply each, over a restart too."""
    there, _ = workspace
    await shown(slack, store, op)
    checks = (Check(name="/health", passed=True, evidence="answered 200"),)
    notes = (Note(title="The last log lines", text="  CUDA out of memory\n<!channel> `rm -rf /`"),)
    op = await store.update(op.id, lambda op: op.model_copy(update={"checks": checks, "notes": notes}))
    restarted = Slack(AsyncWebClient(token=there.bot_token, base_url=there.api_url), store, update_every=PAUSE)
    for each in (slack, slack, restarted):
        await each.show(op, now=NOW, force=True)
    everything = there.now_visible("dev")
    assert "answered 200" not in cards(there)[0]
    assert len([text for text in everything if "answered 200" in text]) == 1
    assert len([text for text in everything if "CUDA out of memory" in text]) == 1


async def test_an_end_that_slack_did_not_take_stays_to_be_told(
    workspace: tuple[Workspace, Faults], slack: Slack, store: Store, op: Operation
) -> None:
    """The store keeps what has ended and was not shown, for the sweep."""
    there, faults = workspace
    await shown(slack, store, op)
    ended = await store.update(op.id, lambda op: op.moved(Status.SUCCEEDED, NOW, outcome="It is up."))
    faults.add("slack-429")
    with pytest.raises(Unavailable):
        await slack.show(ended, now=NOW, force=True)
    assert [op.id for op in await store.untold()] == ["op1"]
    faults.discard("slack-429")
    await slack.show(ended, now=NOW, force=True)
    await store.note_told(op.id)
    assert "It is up." in cards(there)[0]
    assert await store.untold() == []


async def test_the_progress_of_many_operations_is_written_a_few_at_a_time(
    workspace: tuple[Workspace, Faults], store: Store, op: Operation
) -> None:
    """Thirty cards that are due at once are no burst: Slack would slow it down, and other answers would wait for it."""
    there, _ = workspace
    under_way, most = 0, 0
    trace = TraceConfig()

    @trace.on_request_start.append
    async def begins(*_: object) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)

    @trace.on_request_end.append
    async def ends(*_: object) -> None:
        nonlocal under_way
        under_way -= 1

    async with ClientSession(trace_configs=[trace]) as session:
        client = AsyncWebClient(token=there.bot_token, base_url=there.api_url, session=session)
        slack = Slack(client, store, update_every=PAUSE)
        ops = [await store.create(op.model_copy(update={"id": f"op{number}"})) for number in range(2, 32)]
        for each in ops:
            noted = await shown(slack, store, each)
            entered = await store.update(noted.id, lambda op: op.with_phase("loading", NOW))
            await slack.show(entered, now=NOW)
        most = 0
        await until(lambda: sum("loading …" in text for text in cards(there)) == len(ops))
        await slack.close()
    assert 0 < most <= 2
