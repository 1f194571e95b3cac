"""A click on what was asked about a session that is over: answered, and without effect on the session of today."""

from datetime import UTC, datetime, timedelta

import pytest
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

from bot import views
from bot.domain import Kind, Lease
from bot.operations.questions import ask, settle
from bot.services import Services
from bot.views.home import HOME_EXTEND
from sandbox.slack import Workspace
from tests.commands.test_dispatch import click

NOW = datetime.now(UTC)


def a_lease(op: str) -> Lease:
    hold = timedelta(hours=2)
    return Lease(model="coder-chat", op=op, holder="U0DEV", fence=0, hold=hold, claimed=NOW, ready=NOW, ends=NOW + hold)


@pytest.mark.parametrize("action", [views.BRING_DOWN, views.KEEP, views.KEEP_UNTIL, HOME_EXTEND])
async def test_a_button_of_an_earlier_session_leaves_the_present_one_alone(
    app: AsyncApp, svc: Services, workspace: Workspace, action: str
) -> None:
    """The same model, up again for somebody else: it neither goes down nor stays longer."""
    await svc.leases.release(await svc.leases.claim(a_lease("yesterday")))
    today = await svc.leases.claim(a_lease("today"))
    await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=click(action, "yesterday")))
    assert any("That session is over" in text for text in workspace.now_visible("lead"))
    assert await svc.leases.held() == (today,)
    assert await svc.store.open(Kind.GPU_DOWN) == []


async def test_a_settled_question_has_no_buttons(svc: Services, workspace: Workspace) -> None:
    """In the channel and in the holder's direct messages; those of another session keep theirs."""
    lease, other = a_lease("today"), a_lease("another")
    for of, name in ((lease, "one"), (other, "two")):
        view = views.reminder(of, f"{name} hour", 0.2, down_in="45 min", down_at="04:00", last=False, keep="1 h")
        for key, place in ((f"remind:{name}", "C0GPUOPS"), (f"remind:{name}:dm", "U0DEV")):
            await ask(svc, of, key, place, view)
    await settle(svc, "today")
    await settle(svc, "today", "said twice")  # nothing is left to settle
    shown = workspace.now_visible("dev")
    assert ["[Bring down]" in text for text in shown if "one hour" in text] == [False, False]
    assert ["[Bring down]" in text for text in shown if "two hour" in text] == [True, True]


async def test_an_answer_replaces_the_question_wherever_it_was_asked(svc: Services, workspace: Workspace) -> None:
    """Only those with its keys, if it names some."""
    lease = a_lease("today")
    for key in ("ask:1", "remind:1"):
        view = views.reminder(lease, key, 0.2, down_in="45 min", down_at="04:00", last=False, keep="1 h")
        await ask(svc, lease, key, "C0GPUOPS", view)
    await settle(svc, "today", "I still need it.", keys=("ask:1",))
    shown = workspace.now_visible("dev")
    assert "I still need it." in shown
    assert [text for text in shown if "idle for ask:1" in text] == []
    assert ["[Bring down]" in text for text in shown if "idle for remind:1" in text] == [True]
