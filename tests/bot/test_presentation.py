"""Messages in the stand-in workspace: their rate is limited, and the last state arrives even if Slack fails."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from aiohttp import ClientSession, TraceConfig, web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis
from slack_sdk.web.async_client import AsyncWebClient

from bot.domain import phases
from bot.domain.operations import BringUpOperation, Check, Note, Operation, Status
from bot.domain.phases import Phase
from bot.domain.requests import BringUp
from bot.domain.values import Message
from bot.settings.config import Config, Roles, SlackSection
from bot.slack.presentation import Presentation
from bot.slack.web_api import Patience, Slack
from bot.state.audit import AuditLog
from bot.state.cards import Cards
from bot.state.messages import Messages
from bot.state.operations import Operations
from bot.state.outbox import Letter, Outbox
from bot.state.questions import Questions
from bot.state.step_ledger import StepLedger
from bot.text.mrkdwn import md
from bot.views import lines
from sandbox.faults import Faults
from sandbox.slack import Workspace
from tests.clients.kube import time_passes

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
CHANNEL = "C0GPUOPS"
OpenPresentation = Callable[..., Presentation]


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace(Faults(), patience=0) as workspace:  # no app is connected
        yield workspace


@pytest.fixture
def operations(redis: Redis) -> Operations:
    return Operations(redis)


@pytest.fixture
async def open_presentation(
    workspace: Workspace, operations: Operations, redis: Redis
) -> AsyncIterator[OpenPresentation]:
    """Return a new presentation each time, as in another process; with `url`, for another server than the stand-in."""
    async with AsyncExitStack() as stack:

        def make(session: ClientSession | None = None, url: str = "", pause: float = 1) -> Presentation:
            client = AsyncWebClient(
                token=workspace.bot_token,
                base_url=url or workspace.api_url,
                session=session,
                timeout=5,
                retry_handlers=[Patience()],
            )
            config = Config(
                slack=SlackSection(channel=CHANNEL, update_every=timedelta(seconds=pause)),
                roles=Roles(admins=("U0ADMIN",)),
            )
            presentation = Presentation(
                Slack(client, Messages(redis)),
                operations,
                AuditLog(redis),
                Messages(redis),
                StepLedger(redis),
                Outbox(redis),
                Questions(redis),
                Cards(redis),
                config,
                lambda: NOW,
            )
            stack.push_async_callback(presentation.close)
            return presentation

        yield make


@pytest.fixture
async def presentation(open_presentation: OpenPresentation) -> Presentation:
    return open_presentation()


@pytest.fixture
async def op(operations: Operations) -> Operation:
    request = BringUp(model="coder-chat", actor="U0DEV", channel=CHANNEL, at=NOW)
    return await operations.create(BringUpOperation(id="op1", request=request, status=Status.RUNNING, updated=NOW))


async def entered(operations: Operations, phase: str) -> Operation:
    return await operations.update("op1", lambda op: op.with_phase(Phase(phase, phase), NOW))


async def ended_operation(operations: Operations) -> Operation:
    return await operations.update("op1", lambda op: op.moved(Status.SUCCEEDED, NOW, outcome="It is up."))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.05)


def cards(workspace: Workspace) -> list[str]:
    return [text for text in workspace.posted(CHANNEL) if "Bring up coder-chat" in text]


def direct(workspace: Workspace, user: str) -> list[str]:
    return workspace.posted(f"D{user[1:]}")


async def test_an_update_during_the_pause_is_shown_after_it(
    workspace: Workspace, open_presentation: OpenPresentation, operations: Operations, op: Operation
) -> None:
    """Three updates in quick succession cause one more write, with the last state."""
    presentation = open_presentation(pause=60)
    presentation.show(op.id)
    await until(lambda: cards(workspace))
    for phase in ("syncing", "starting", "loading"):
        await entered(operations, phase)
        presentation.show(op.id)
    assert "loading" not in cards(workspace)[0]
    time_passes(60)
    await until(lambda: "loading …" in cards(workspace)[0])
    revisions = [revision for revision in workspace.transcript if "Bring up coder-chat" in revision.text]
    assert len(revisions) == 2


async def test_two_processes_show_the_newest_state(
    workspace: Workspace, open_presentation: OpenPresentation, operations: Operations, op: Operation
) -> None:
    """Another replica has written the message; this replica's cached state is not used."""
    first, second = open_presentation(), open_presentation()
    first.show(op.id)
    await until(lambda: cards(workspace))
    await entered(operations, "loading")
    for presentation in (first, second, first):
        presentation.show(op.id, now=True)
    await until(lambda: "loading …" in cards(workspace)[0])
    assert len(cards(workspace)) == 1


async def test_evidence_and_logs_are_in_the_thread_once(
    workspace: Workspace, open_presentation: OpenPresentation, operations: Operations, op: Operation
) -> None:
    """The card names the tests; the evidence and the log lines are one reply each, even after a restart."""
    checks = (Check(name="/health", passed=True, evidence="answered 200"),)
    notes = (Note(title="The last log lines", text="  CUDA out of memory\n<!channel> `rm -rf /`"),)
    await operations.update(op.id, lambda op: op.model_copy(update={"checks": checks, "notes": notes}))
    for presentation in (open_presentation(), open_presentation()):
        presentation.show(op.id)
        await until(lambda: len(workspace.posted(CHANNEL, threads=True)) == 2)
    await ended_operation(operations)
    open_presentation().show(op.id)
    await until(lambda: "It is up." in cards(workspace)[0])
    replies = workspace.posted(CHANNEL, threads=True)
    assert "answered 200" not in cards(workspace)[0]
    assert len([text for text in replies if "answered 200" in text]) == 1
    assert len([text for text in replies if "CUDA out of memory" in text]) == 1


async def test_an_end_that_slack_refused_is_shown_later(
    workspace: Workspace, presentation: Presentation, operations: Operations, op: Operation
) -> None:
    """The store keeps operations whose end was not shown, for the sweep of the next process."""
    presentation.show(op.id)
    await until(lambda: cards(workspace))
    workspace.archive()
    await ended_operation(operations)
    presentation.show(op.id, now=True)
    await until(lambda: direct(workspace, "U0DEV"))
    assert [op.id for op in await operations.undelivered_ends()] == ["op1"]
    workspace.archive(archived=False)
    await until(lambda: "It is up." in cards(workspace)[0])
    while await operations.undelivered_ends():
        await asyncio.sleep(0.05)


async def test_a_deleted_card_is_posted_again_once(
    workspace: Workspace, open_presentation: OpenPresentation, operations: Operations, op: Operation
) -> None:
    """Two processes post only one card, and later changes are shown on it."""
    first, second = open_presentation(), open_presentation()
    first.show(op.id)
    await until(lambda: cards(workspace))
    workspace.delete_card()
    await entered(operations, "loading")
    first.show(op.id, now=True)
    await until(lambda: cards(workspace))
    second.show(op.id, now=True)
    await ended_operation(operations)
    first.show(op.id, now=True)
    second.show(op.id, now=True)
    await until(lambda: "It is up." in cards(workspace)[0])
    assert len(cards(workspace)) == 1
    assert (await operations.load(op.id)).message is not None


async def test_a_bot_killed_while_it_posts_a_card_again_posts_one(
    workspace: Workspace, open_presentation: OpenPresentation, operations: Operations, redis: Redis, op: Operation
) -> None:
    """The bot is killed after the intent was recorded or after the card was posted; the key has the deleted card's time stamp."""
    first = open_presentation()
    first.show(op.id)
    await until(lambda: cards(workspace))
    deleted = Message.model_validate_json(await redis.get("{stoker}:message:card:op1") or "")
    workspace.delete_card()
    await redis.set(
        f"{{stoker}}:message:card:op1:{deleted.ts}", datetime.now(UTC).isoformat()
    )  # killed before the post
    await entered(operations, "loading")
    await first.close()
    second = open_presentation()
    second.show(op.id)
    await until(lambda: "loading …" in "".join(cards(workspace)))
    await redis.set(f"{{stoker}}:message:card:op1:{deleted.ts}", datetime.now(UTC).isoformat())  # killed after the post
    await operations.update(op.id, lambda op: op.model_copy(update={"message": deleted}))
    await second.close()
    await ended_operation(operations)
    open_presentation().show(op.id)
    await until(lambda: "It is up." in "".join(cards(workspace)))
    assert len(cards(workspace)) == 1


@pytest.mark.parametrize("failure", ["archived", "removed"])
async def test_a_channel_that_accepts_no_messages_leads_to_one_direct_message(
    workspace: Workspace, presentation: Presentation, operations: Operations, redis: Redis, op: Operation, failure: str
) -> None:
    """There is one message per person and operation. It shows the end, and so does the channel when it accepts messages again.

    The requester also gets the result in a new message, because an edit notifies nobody.
    """
    presentation.show(op.id)
    await until(lambda: cards(workspace))
    if failure == "archived":
        workspace.archive()
    else:
        await workspace.remove_bot()
    for phase in ("syncing", "starting", "loading"):
        await entered(operations, phase)
        presentation.show(op.id, now=True)
        await asyncio.sleep(0)
    await until(lambda: direct(workspace, "U0DEV") and direct(workspace, "U0ADMIN"))
    await ended_operation(operations)
    presentation.show(op.id, now=True)
    await until(lambda: "It is up." in "".join(direct(workspace, "U0ADMIN")))
    assert "accepts no messages from Stoker in #gpu-ops" in direct(workspace, "U0DEV")[0]
    await until(lambda: len(direct(workspace, "U0DEV")) > 1)
    assert "coder-chat is ready" in direct(workspace, "U0DEV")[1]
    assert [len(direct(workspace, user)) for user in ("U0DEV", "U0ADMIN", "U0LEAD")] == [2, 1, 0]
    logged = [entry["why"] async for entry in AuditLog(redis).entries() if entry["event"] == "not shown"]
    assert logged == [f"Slack answers {'is_inactive' if failure == 'archived' else 'channel_not_found'}"]
    if failure == "archived":
        workspace.archive(archived=False)
    else:
        await workspace.invite_bot()
    await until(lambda: "It is up." in cards(workspace)[0])
    await until(lambda: "is shown in #gpu-ops again" in direct(workspace, "U0DEV")[0])


async def test_a_card_does_not_wait_for_its_next_attempt_when_the_bot_is_invited(
    workspace: Workspace,
    presentation: Presentation,
    operations: Operations,
    op: Operation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pause between two attempts would be long after an hour without the channel."""
    monkeypatch.setattr("bot.slack.presentation._delay", lambda attempts, error: 3600.0)
    presentation.show(op.id)
    await until(lambda: cards(workspace))
    await workspace.remove_bot()
    await ended_operation(operations)
    presentation.show(op.id, now=True)
    await until(lambda: direct(workspace, "U0DEV"))
    await workspace.invite_bot()
    presentation.reopen(CHANNEL)
    await until(lambda: "It is up." in cards(workspace)[0])


async def test_a_reminder_waits_for_its_channel(
    workspace: Workspace, presentation: Presentation, operations: Operations, redis: Redis, op: Operation
) -> None:
    """A question is recorded once it is posted; a question that is settled before that is never posted."""
    workspace.archive()
    await presentation.post("remind", CHANNEL, lines(md("still needed?")), question=op.id)
    await presentation.post("other", CHANNEL, lines(md("and this?")), question=op.id)
    await until(lambda: direct(workspace, "U0DEV"))
    await presentation.withdraw(op.id, ("other",))
    workspace.archive(archived=False)
    await until(lambda: "still needed?" in "".join(workspace.posted(CHANNEL)))
    while "remind" not in await Questions(redis).of(op.id):
        await asyncio.sleep(0.05)
    while await Outbox(redis).waiting():
        await asyncio.sleep(0.05)
    assert "and this?" not in "".join(workspace.posted(CHANNEL))


async def test_a_letter_survives_its_process(
    workspace: Workspace, open_presentation: OpenPresentation, redis: Redis
) -> None:
    """If the bot is killed before it posts a letter, the next process finds it in the outbox and posts its newest text."""
    first = open_presentation()
    await first.post("k", CHANNEL, lines(md("hello")))
    await first.close()
    assert workspace.posted(CHANNEL) == []
    second = open_presentation()
    await second.revise("k", lines(md("hello again")))
    second.wake()
    await until(lambda: workspace.posted(CHANNEL))
    assert workspace.posted(CHANNEL) == ["hello again"]


async def test_a_letter_that_is_replaced_during_its_deletion_is_kept(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the newer message would never be written."""
    outbox, read = Outbox(redis), redis.hget
    old = Letter(key="k", what="post", text=md("old"), blocks=(), written=NOW, until=NOW)
    newer = old.model_copy(update={"text": md("newer")})
    await outbox.put(old)

    async def replaced_after_the_read(*arguments: Any) -> Any:
        text = await cast("Any", read(*arguments))
        await outbox.put(newer)
        return text

    monkeypatch.setattr(redis, "hget", replaced_after_the_read)
    await outbox.mark_written(old)
    assert await outbox.waiting() == (newer,)
    monkeypatch.undo()
    await outbox.mark_written(newer)
    assert await outbox.waiting() == ()


async def test_a_message_that_cannot_be_delivered_is_given_up(
    workspace: Workspace, presentation: Presentation, redis: Redis
) -> None:
    """A message to a deleted account does not stay in the outbox."""
    workspace.deactivate("dev")
    await presentation.post("k", "U0DEV", lines(md("hello")))
    async with asyncio.timeout(90):
        while await Outbox(redis).waiting():
            await asyncio.sleep(0.05)


async def test_a_change_during_the_shutdown_is_shown_by_the_next_process(
    workspace: Workspace, open_presentation: OpenPresentation, redis: Redis, op: Operation
) -> None:
    """Work that ends during the shutdown shows its state once more; a task for it would use Redis after the bot's end."""
    first = open_presentation()
    await first.close()
    first.show(op.id)
    await first.post("k", CHANNEL, lines(md("hello")))
    assert first._cards[op.id].task is None
    assert first._delivery is None
    second = open_presentation()
    second.wake()
    await until(lambda: workspace.posted(CHANNEL) == ["hello"])


async def test_a_note_below_a_deleted_card_is_in_the_channel(
    workspace: Workspace, presentation: Presentation, op: Operation
) -> None:
    """If Slack answers `thread_not_found`, the message is posted in the channel instead."""
    presentation.show(op.id)
    await until(lambda: cards(workspace))
    workspace.delete_card()
    await presentation.post("k", CHANNEL, lines(md("a receipt")), card=op.id)
    await until(lambda: "a receipt" in "".join(workspace.posted(CHANNEL)))


@pytest.mark.parametrize(
    "answer",
    [
        web.json_response({"ok": False, "error": code})
        for code in ("msg_too_long", "msg_blocks_too_long", "invalid_blocks", "restricted_action", "account_inactive",
                     "internal_error", "something_new")
    ]
    + [
        web.Response(status=503, text="<html>unavailable"),
        web.Response(text="garbage", content_type="application/json"),
        web.Response(text="garbage"),
        web.json_response(["not", "an", "object"]),
        web.json_response({"ok": True}),
        web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": "600"}),
        web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": "soon"}),
    ],
    ids=lambda answer: (answer.text or "")[:40] + str(answer.status),
)  # fmt: skip
async def test_callers_never_see_an_error_of_slack(
    open_presentation: OpenPresentation, operations: Operations, op: Operation, answer: web.Response
) -> None:
    """For every error, `show` and `post` return immediately, and the end is shown later."""
    requests = 0

    async def slack(_: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(
            status=answer.status, text=answer.text, content_type=answer.content_type,
            headers={"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else {},
        )  # fmt: skip

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", slack)
    async with TestServer(app) as server:
        presentation = open_presentation(url=str(server.make_url("/api/")))
        async with asyncio.timeout(60):
            await presentation.post("k", CHANNEL, lines(md("hello")), question=op.id)
            await ended_operation(operations)
            presentation.show(op.id, now=True)
        await until(lambda: requests >= 2)
        assert [op.id for op in await operations.undelivered_ends()] == ["op1"]
        assert presentation._cards["op1"].task is not None
        assert not presentation._cards["op1"].task.done(), "the post is not tried again"
        await presentation.close()


async def test_a_message_that_is_too_long_is_shortened(
    workspace: Workspace,
    presentation: Presentation,
    operations: Operations,
    op: Operation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The shortened message keeps its buttons."""
    monkeypatch.setattr("sandbox.slack.blocks.MESSAGE_CHARACTERS", 200)
    await operations.update(op.id, lambda op: op.model_copy(update={"status": Status.AWAITING}))
    presentation.show(op.id)
    await until(lambda: cards(workspace))
    assert "Approve" in cards(workspace)[0]


async def test_the_progress_of_many_operations_is_written_a_few_at_a_time(
    workspace: Workspace, open_presentation: OpenPresentation, operations: Operations, op: Operation
) -> None:
    """Thirty cards that are due at the same time are not a burst: Slack would rate-limit it and delay other answers."""
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
        presentation = open_presentation(session)
        ops = [await operations.create(op.model_copy(update={"id": f"op{number}"})) for number in range(2, 32)]
        for pending in ops:
            await operations.update(pending.id, lambda op: op.with_phase(phases.LOAD, NOW))
            presentation.show(pending.id)
        await until(lambda: sum("loading …" in text for text in cards(workspace)) == len(ops))
        await presentation.close()
    assert 0 < most <= 2


async def test_a_letter_that_was_posted_before_a_kill_gets_the_newest_text(
    workspace: Workspace, open_presentation: OpenPresentation, operations: Operations, redis: Redis
) -> None:
    """The bot is killed between the post and its record, and the letter is revised: there is one message, with the new text."""
    workspace.archive()
    first = open_presentation()
    await first.post("k", CHANNEL, lines(md("hello")))
    (letter,) = await Outbox(redis).waiting()
    await first.close()
    workspace.archive(archived=False)
    second = open_presentation()
    second.wake()
    await until(lambda: workspace.posted(CHANNEL))
    while await Outbox(redis).waiting():
        await asyncio.sleep(0.05)
    await second.close()
    await Outbox(redis).put(letter)  # the process was killed before it deleted the letter
    third = open_presentation()
    await third.revise("k", lines(md("hello again")))
    third.wake()
    await until(lambda: workspace.posted(CHANNEL) == ["hello again"])
