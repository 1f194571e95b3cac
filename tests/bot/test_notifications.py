"""The notifications, counted by the stand-in workspace, are those of the table in docs/slack.md."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from redis.asyncio import Redis
from slack_sdk.web.async_client import AsyncWebClient

from bot.domain.kinds import Kind
from bot.domain.leases import Lease
from bot.domain.notifications import TABLE, with_reference
from bot.domain.operations import OPERATIONS, BringDownOperation, Operation, Status, Vote
from bot.domain.outcomes import ClosedOnGitHub, Started
from bot.domain.plans import BringUpPlan
from bot.domain.requests import AnyRequest, BringDown, Request
from bot.policy import to_ask
from bot.settings.config import Config, Roles, SlackSection
from bot.slack.presentation import Presentation
from bot.slack.web_api import Slack
from bot.state.audit import AuditLog
from bot.state.cards import Cards
from bot.state.messages import Messages
from bot.state.operations import Operations
from bot.state.outbox import Outbox
from bot.state.questions import Questions
from bot.state.step_ledger import StepLedger
from bot.text.mrkdwn import md
from bot.views import View
from bot.views.mentions import notifying
from sandbox.faults import Faults
from sandbox.slack import Workspace

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
A_REQUEST = TypeAdapter[AnyRequest](Request)
CHANNEL = "C0GPUOPS"
GROUP = {"S0APPROVERS": frozenset({"U0LEAD", "U0ADMIN"})}
LEASE = Lease(
    model="coder-fim", op="up1", holder="U0LEAD", fence=7, hold=timedelta(hours=1), claimed=NOW, ready=NOW,
    ends=NOW + timedelta(hours=1),
)  # fmt: skip
PLAN = BringUpPlan(commit="a" * 40, applications=("coder-chat",), estimate_usd=1.84)


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace(Faults()) as workspace:
        yield workspace


@pytest.fixture
def operations(redis: Redis) -> Operations:
    return Operations(redis)


def open_presentation(workspace: Workspace, redis: Redis, approvers: tuple[str, ...]) -> Presentation:
    """Return a new object each time, as in another process."""
    client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
    roles = Roles(approvers=approvers, admins=("U0ADMIN",))
    config = Config(slack=SlackSection(channel=CHANNEL, update_every=timedelta(seconds=0.1)), roles=roles)
    slack, ledger = Slack(client, Messages(redis)), StepLedger(redis)
    return Presentation(
        slack, Operations(redis), AuditLog(redis), Messages(redis), ledger, Outbox(redis), Questions(redis), Cards(redis),
        config, lambda: NOW,
    )  # fmt: skip


@pytest.fixture
async def presentation(workspace: Workspace, redis: Redis) -> AsyncIterator[Presentation]:
    opened = open_presentation(workspace, redis, ("S0APPROVERS",))
    yield opened
    await opened.close()


def an_operation(status: Status, actor: str = "U0DEV", kind: Kind = Kind.GPU_UP, **changes: object) -> Operation:
    hold = timedelta(hours=2) if kind is Kind.GPU_UP else None
    fields = {"model": "coder-chat", "actor": actor, "channel": CHANNEL, "at": NOW, "hold": hold, "reason": "demo"}
    request = A_REQUEST.validate_python(fields | {"kind": kind, "hf_id": "org/model", "reverts": "op0"})
    plan, expires = PLAN if kind is Kind.GPU_UP else None, NOW + timedelta(hours=1)
    op = OPERATIONS[kind](id="op1", request=request, status=status, updated=NOW, expires=expires, plan=plan)
    return op.model_copy(update=changes)


async def settled(presentation: Presentation, workspace: Workspace, op: Operation) -> dict[str, list[tuple[str, str]]]:
    """Return the notifications once the operation is shown and nothing is left to be written."""
    presentation.show(op.id, now=True)
    async with asyncio.timeout(90):
        while not workspace.posted(CHANNEL):
            await asyncio.sleep(0.02)
        for _ in range(10):  # the card is written first, and causes other messages
            await asyncio.sleep(0.05)
            while await presentation.waiting():
                await asyncio.sleep(0.02)
    return pushed(workspace)


def pushed(workspace: Workspace) -> dict[str, list[tuple[str, str]]]:
    by_user = {name: workspace.notified(name) for name in ("dev", "lead", "admin")}
    for notification in [notification for all_of_them in by_user.values() for notification in all_of_them]:
        rule = TABLE.get(notification.key.partition(":")[0])
        assert rule, notification.key
        assert notification.how in rule.channels
    return {
        name: [(notification.key.partition(":")[0], notification.text) for notification in notifications_of_user]
        for name, notifications_of_user in by_user.items()
        if notifications_of_user
    }


def test_the_table_is_in_the_documentation() -> None:
    """`make docs` writes it."""
    text = (Path(__file__).parents[2] / "docs" / "slack.md").read_text(encoding="utf-8")
    assert with_reference(text) == text
    assert all(rule.event in text for rule in TABLE.values())


REQUEST = "@dev requests coder-chat for 2 h, about $1.84, because demo"


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (
            an_operation(Status.AWAITING),
            {
                "lead": [("card", f"@gpu-approvers: {REQUEST}")],
                "admin": [("card", f"@gpu-approvers: {REQUEST}")],
            },
        ),
        (  # the group must decide: its other members are notified by name
            an_operation(Status.AWAITING, actor="U0LEAD"),
            {"admin": [("asked", f"✋ {REQUEST.replace('@dev', '@lead')}. Decide on the card")]},
        ),
        (an_operation(Status.RUNNING), {}),
        (
            an_operation(Status.SUCCEEDED, result=Started(holder="U0DEV", ends=NOW + timedelta(hours=2))),
            {"dev": [("ready", "coder-chat is ready until 05:00 UTC")]},
        ),
        (
            an_operation(Status.FAILED, outcome=md("The node is out of stock. Nothing was started.\nMore.")),
            {"dev": [("failed", "Bring up coder-chat failed: The node is out of stock. Nothing was started.")]},
        ),
        (
            an_operation(Status.DENIED, votes=(Vote(by="U0LEAD", at=NOW, approve=False, reason="budget used up"),)),
            {"dev": [("denied", "@lead has declined “Bring up coder-chat”: budget used up")]},
        ),
        (
            an_operation(Status.EXPIRED, outcome=md("Nobody decided in time.")),
            {"dev": [("expired", "Bring up coder-chat has expired: Nobody decided in time.")]},
        ),
        (an_operation(Status.CANCELLED, cancelled_by="U0DEV"), {}),
        (
            an_operation(Status.CANCELLED, cancelled_by="U0LEAD"),
            {"dev": [("cancelled", "@lead has cancelled “Bring up coder-chat”")]},
        ),
        (
            an_operation(
                Status.CANCELLED, kind=Kind.MODEL_REMOVE, result=ClosedOnGitHub(number=7, by="octocat"), outcome=md("")
            ),
            {
                "dev": [
                    (
                        "closed",
                        "Remove coder-chat: Pull request #7 was closed on GitHub by octocat. Nothing was rolled out.",
                    )
                ]
            },
        ),
        (an_operation(Status.SUCCEEDED, kind=Kind.GPU_DOWN), {}),
        (an_operation(Status.SUCCEEDED, kind=Kind.MODEL_SMOKE), {}),
        (an_operation(Status.SUCCEEDED, kind=Kind.MODEL_REMOVE), {"dev": [("done", "Remove coder-chat: done")]}),
        (
            an_operation(Status.FAILED, kind=Kind.GPU_DOWN, outcome=md("The pod does not end.")),
            {"dev": [("failed", "Bring down coder-chat failed: The pod does not end.")]},
        ),
    ],
    ids=lambda value: value.status.replace(" ", "-") if isinstance(value, Operation) else "",
)
async def test_each_state_notifies_the_people_concerned(
    workspace: Workspace,
    presentation: Presentation,
    operations: Operations,
    op: Operation,
    expected: dict[str, list[tuple[str, str]]],
) -> None:
    """The requester and the person who clicked are not notified, and the same state notifies nobody again."""
    await operations.create(op)
    assert await settled(presentation, workspace, op) == expected
    assert await settled(presentation, workspace, op) == expected


@pytest.mark.parametrize(
    ("reason", "announced", "expected"),
    [
        ("the lease has ended", False, {"dev": [("stopped", "coder-chat is down: the lease has ended")]}),
        ("idle for 1 h and nobody answered", True, {}),
    ],
)
async def test_a_stop_by_stoker_notifies_the_holder(
    workspace: Workspace,
    presentation: Presentation,
    operations: Operations,
    reason: str,
    announced: bool,
    expected: dict[str, object],
) -> None:
    """If the last reminder has announced the stop, that reminder is updated with the result instead."""
    request = BringDown(
        model="coder-chat", actor="", channel=CHANNEL, at=NOW, reason=reason, holder="U0DEV",
        announced=announced,
    )  # fmt: skip
    op = BringDownOperation(id="op1", request=request, status=Status.SUCCEEDED, updated=NOW, outcome=md("It is down."))
    await operations.create(op)
    assert await settled(presentation, workspace, op) == expected


async def test_a_new_round_of_approval_asks_again_and_a_new_process_does_not(
    workspace: Workspace, presentation: Presentation, operations: Operations, redis: Redis
) -> None:
    """The card exists by then, so the approvers are mentioned in a reply; a bot that was killed repeats nothing."""
    op = await operations.create(an_operation(Status.AWAITING))
    await settled(presentation, workspace, op)
    second = open_presentation(workspace, redis, ("S0APPROVERS",))
    assert [event for event, _ in (await settled(second, workspace, op))["lead"]] == ["card"]
    await operations.update(op.id, lambda op: op.model_copy(update={"expires": NOW + timedelta(hours=3)}))
    assert [event for event, _ in (await settled(second, workspace, op))["lead"]] == ["card", "asked"]
    assert [event for event, _ in (await settled(presentation, workspace, op))["lead"]] == ["card", "asked"]
    await second.close()


async def test_a_question_is_asked_once_after_a_crash_before_the_card(
    workspace: Workspace, presentation: Presentation, operations: Operations, redis: Redis
) -> None:
    """The card's question is recorded before it is posted: the next attempt has the same question, and no reply repeats it."""
    op = await operations.create(an_operation(Status.AWAITING))
    assert op.expires

    async def noted() -> str:
        return f"asked:{op.id}:{op.expires.isoformat() if op.expires else ''}"

    await StepLedger(redis).once(op.id, "asked by the card", noted, str)
    assert [event for event, _ in (await settled(presentation, workspace, op))["lead"]] == ["card"]


async def test_reminder_and_escalation_are_sent_once(
    workspace: Workspace, presentation: Presentation, operations: Operations
) -> None:
    """The reminder goes to people who have not approved, and the escalation to the admins."""
    vote = Vote(by="U0LEAD", at=NOW, approve=True)
    op = await operations.create(an_operation(Status.AWAITING, votes=(vote,)))
    await settled(presentation, workspace, op)
    for _ in range(2):
        loaded = await operations.load(op.id)
        await presentation.announcements.remind(loaded)
        await presentation.announcements.escalate(loaded)
    notifications = await settled(presentation, workspace, op)
    assert [event for event, _ in notifications["admin"]] == ["asked", "half", "escalated"]
    assert "lead" not in notifications
    assert notifications["admin"][1][1].startswith("✋ Nobody has decided yet: @dev requests coder-chat")


async def test_the_holder_is_notified_of_a_request_to_replace_them(
    workspace: Workspace, presentation: Presentation, operations: Operations
) -> None:
    """The message has buttons for the holder's options, and is updated if the request ends without effect."""
    op = await operations.create(an_operation(Status.AWAITING, plan=PLAN.model_copy(update={"lease": LEASE})))
    notifications = await settled(presentation, workspace, op)
    text = "@dev asks to replace your session of coder-fim with coder-chat because demo"
    assert ("replace", text) in notifications["lead"]
    [message] = [text for text in workspace.posted("D0LEAD") if "asks to replace" in text]
    assert "[Object]  [Bring it down]" in message
    await presentation.announcements.announce_objection(op, "U0LEAD", "a run is half done")
    notifications = await settled(presentation, workspace, op)
    assert ("objected", "@admin @dev: ✋ @lead objects to “Bring up coder-chat”: a run is half done") in notifications[
        "dev"
    ]
    assert not [event for event, _ in notifications["lead"] if event == "objected"]
    await operations.update(op.id, lambda op: op.moved(Status.EXPIRED, NOW, outcome=md("Nobody decided.")))
    await settled(presentation, workspace, op)
    assert "your session continues" in workspace.posted("D0LEAD")[-1]
    assert "[Object]" not in workspace.posted("D0LEAD")[-1]


@pytest.mark.parametrize(
    ("members", "actor", "voted", "named", "alone"),
    [
        (GROUP, "U0DEV", (), ("S0APPROVERS",), ""),
        (GROUP, "U0LEAD", (), ("U0ADMIN",), "U0ADMIN"),
        (GROUP, "U0DEV", ("U0LEAD",), ("U0ADMIN",), "U0ADMIN"),
        ({"U1": frozenset({"U1"}), "U2": frozenset({"U2"}), "U3": frozenset({"U3"})}, "U3", (), ("U1", "U2"), ""),
        ({"U1": frozenset({"U1"})}, "U0DEV", (), ("U1",), "U1"),
        ({"U1": frozenset({"U1"})}, "U1", (), (), ""),
        ({"S1": frozenset[str]()}, "U0DEV", (), ("S1",), ""),  # Slack does not return its members
        ({}, "U0DEV", (), (), ""),
    ],
)
def test_the_people_who_may_decide_are_named(
    members: dict[str, frozenset[str]], actor: str, voted: tuple[str, ...], named: tuple[str, ...], alone: str
) -> None:
    """A group has its name, unless the requester or somebody who has approved is in it."""
    votes = tuple(Vote(by=user, at=NOW, approve=True) for user in voted)
    assert to_ask(an_operation(Status.AWAITING, actor=actor, votes=votes), members) == (named, alone)


def test_people_who_are_not_notified_are_shown_by_name() -> None:
    """This applies to every text of the blocks; links, times and code are not changed."""
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "<@U1> asks <@U2|x>, <!subteam^S1> <https://a|b>"}}
    view = View(
        text=md("{text}", text=md("<@U1> `x`")), blocks=[block, {"type": "context", "elements": [block["text"]]}]
    )
    quiet = notifying(view, ("U2",), {"U1": "de<v"})
    text = "@de&lt;v asks <@U2|x>, @S1 <https://a|b>"
    assert quiet.text == "@de&lt;v `x`"
    assert [quiet.blocks[0]["text"]["text"], quiet.blocks[1]["elements"][0]["text"]] == [text, text]
