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
async def test_a_button_of_an_earlier_session_leaves_the_present_one_alone(
    app: AsyncApp, svc: Services, workspace: Workspace, action: str
) -> None:
    """The same model is up again for another person: it neither goes down nor stays longer."""
    await svc.leases.release(await svc.leases.claim(a_lease("yesterday")))
    today = await svc.leases.claim(a_lease("today"))
    await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=click(action, "yesterday")))
    assert any("That session has" in text for text in workspace.now_visible("lead"))
    assert await svc.leases.held() == (today,)
    assert await svc.operations.open(BringDownOperation) == []


async def posted(svc: Services, *ops: str) -> None:
    """Wait until Slack has every question about these sessions."""
    async with asyncio.timeout(60):
        while not all([await svc.questions.of(op) for op in ops]) or await svc.presentation.waiting():
            await asyncio.sleep(0.02)


async def test_a_settled_question_has_no_buttons(svc: Services, workspace: Workspace) -> None:
    """In the channel and in the holder's direct messages; those of another session keep their buttons."""
    lease, other = a_lease("today"), a_lease("another")
    for of, name in ((lease, "one"), (other, "two")):
        view = views.reminder(of, f"{name} hour", 0.2, down_at=md("04:00"), last=False, keep="1 h")
        for key, place in ((f"remind:{name}", "C0GPUOPS"), (f"remind:{name}:dm", "U0DEV")):
            await Wiring(svc).of(HolderPrompts).ask(of, key, place, view)
    await posted(svc, "today", "another")
    await Wiring(svc).of(HolderPrompts).settle("today")
    await Wiring(svc).of(HolderPrompts).settle("today", md("said twice"))  # nothing is left to settle
    await posted(svc)
    shown = workspace.now_visible("dev")
    assert ["[Bring down]" in text for text in shown if "one hour" in text] == [False, False]
    assert ["[Bring down]" in text for text in shown if "two hour" in text] == [True, True]


async def test_an_answer_replaces_the_question_wherever_it_was_asked(svc: Services, workspace: Workspace) -> None:
    """Only those with the given keys."""
    lease = a_lease("today")
    for key in ("ask:1", "remind:1"):
        view = views.reminder(lease, key, 0.2, down_at=md("04:00"), last=False, keep="1 h")
        await Wiring(svc).of(HolderPrompts).ask(lease, key, "C0GPUOPS", view)
    await posted(svc, "today")
    await Wiring(svc).of(HolderPrompts).settle("today", md("I still need it."), keys=("ask:1",))
    await posted(svc)
    shown = workspace.now_visible("dev")
    assert "I still need it." in shown
    assert [text for text in shown if "idle for ask:1" in text] == []
    assert ["[Bring down]" in text for text in shown if "idle for remind:1" in text] == [True]
