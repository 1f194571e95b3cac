"""A click on a question about a session that is over is answered, and has no effect on the current session."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

from bot import views
from bot.domain.leases import Lease
from bot.domain.operations import BringDownOperation
from bot.gpu.holder_prompts import HolderPrompts
from bot.services import Services
from bot.text.mrkdwn import md
from bot.views.next_steps import EXTEND
from bot.wiring import Wiring
from sandbox.slack import Workspace
from tests.commands.test_dispatch import click

NOW = datetime.now(UTC)


def a_lease(op: str) -> Lease:
    hold = timedelta(hours=2)
    return Lease(model="coder-chat", op=op, holder="U0DEV", fence=0, hold=hold, claimed=NOW, ready=NOW, ends=NOW + hold)


@pytest.mark.parametrize("action", [views.BRING_DOWN, views.KEEP, views.KEEP_UNTIL, EXTEND])
async def test_a_button_of_an_earlier_session_does_not_affect_the_current_one(
    app: AsyncApp, svc: Services, workspace: Workspace, action: str
) -> None:
    """The same model is up again for another person: it neither goes down nor stays longer."""
    await svc.leases.release(await svc.leases.claim(a_lease("yesterday")))
    today = await svc.leases.claim(a_lease("today"))
    await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=click(action, "yesterday")))
    assert any("That session has" in text for text in workspace.now_visible("lead"))
    assert await svc.leases.held() == (today,)
    assert await svc.operations.open(BringDownOperation) == []


async def until_posted(svc: Services, *ops: str) -> None:
    """Wait until Slack has every question about these sessions."""
    async with asyncio.timeout(60):
        while not all([await svc.questions.of(op) for op in ops]) or await svc.presentation.waiting():
            await asyncio.sleep(0.02)


async def test_a_settled_question_has_no_buttons(svc: Services, workspace: Workspace) -> None:
    """The buttons are removed in the channel and in the holder's direct messages; questions of other sessions keep theirs."""
    lease, another_lease = a_lease("today"), a_lease("another")
    for question_lease, name in ((lease, "one"), (another_lease, "two")):
        view = views.reminder(question_lease, f"{name} hour", 0.2, down_at=md("04:00"), last=False, keep="1 h")
        for key, place in ((f"remind:{name}", "C0GPUOPS"), (f"remind:{name}:dm", "U0DEV")):
            await Wiring(svc).of(HolderPrompts).ask(question_lease, key, place, view)
    await until_posted(svc, "today", "another")
    await Wiring(svc).of(HolderPrompts).settle("today")
    await Wiring(svc).of(HolderPrompts).settle("today", md("said twice"))  # nothing is left to settle
    await until_posted(svc)
    visible = workspace.now_visible("dev")
    assert ["[Bring down]" in text for text in visible if "one hour" in text] == [False, False]
    assert ["[Bring down]" in text for text in visible if "two hour" in text] == [True, True]


async def test_an_answer_replaces_the_question(svc: Services, workspace: Workspace) -> None:
    """Only the questions with the given keys are replaced."""
    lease = a_lease("today")
    for key in ("ask:1", "remind:1"):
        view = views.reminder(lease, key, 0.2, down_at=md("04:00"), last=False, keep="1 h")
        await Wiring(svc).of(HolderPrompts).ask(lease, key, "C0GPUOPS", view)
    await until_posted(svc, "today")
    await Wiring(svc).of(HolderPrompts).settle("today", md("I still need it."), keys=("ask:1",))
    await until_posted(svc)
    visible = workspace.now_visible("dev")
    assert "I still need it." in visible
    assert [text for text in visible if "idle for ask:1" in text] == []
    assert ["[Bring down]" in text for text in visible if "idle for remind:1" in text] == [True]
