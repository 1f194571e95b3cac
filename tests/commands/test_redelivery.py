"""Slack repeats unacknowledged deliveries: one answer is sufficient, and nothing is posted twice."""

import asyncio
from typing import Any

import pytest
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

from bot.services import Services
from sandbox.slack import Workspace
from sandbox.slack.history import CHANNEL
from tests.commands.test_dispatch import click, command
from tests.operations.test_home import store_session


async def deliver(app: AsyncApp, payload: dict[str, Any]) -> None:
    answer = await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=payload))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (command("/gpu", "help"), "the shared GPU"),
        (command("/gpu", "queue"), "Nobody is waiting"),
        (command("/model", "list"), "git remote"),
        (command("/gpu", "upp"), "upp"),
        (click("approve"), "Stoker no longer has a record of request nothing"),
    ],
    ids=["help", "queue", "what fails", "a typo", "a click"],
)
async def test_a_repeated_delivery_is_answered_once(
    app: AsyncApp, workspace: Workspace, payload: dict[str, Any], says: str
) -> None:
    """The deliveries may be simultaneous. A command that the user repeats gets its own answer."""
    await deliver(app, payload)
    await asyncio.gather(deliver(app, payload), deliver(app, payload))
    assert len([text for text in workspace.now_visible("lead") if says in text]) == 1
    await deliver(app, payload | {"trigger_id": "another"})
    assert len([text for text in workspace.now_visible("lead") if says in text]) == 2


async def test_a_repeated_report_is_posted_once(app: AsyncApp, svc: Services, workspace: Workspace) -> None:
    """Everybody can see the report, so a second one would be noise."""
    await store_session(svc, 1)
    await deliver(app, command("/gpu", "report"))
    await deliver(app, command("/gpu", "report"))
    assert len([text for text in workspace.posted(CHANNEL) if "The GPU in the last 8 weeks" in text]) == 1
