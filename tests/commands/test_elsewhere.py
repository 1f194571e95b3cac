"""Commands that are typed in another channel: their sender gets an answer there, and the card stays where it belongs."""

import json

import pytest
from slack_bolt.async_app import AsyncApp

from bot.services import Services
from bot.views.modals import DOWN_FORM, ChangeForm, Ending, change_form
from sandbox.slack import Workspace
from sandbox.slack.history import CHANNEL
from tests.commands.test_dispatch import command, submission
from tests.commands.test_redelivery import deliver
from tests.operations.test_home import store_session

ELSEWHERE = {"channel_id": "C0RANDOM"}
CARD = "Requested: the card is in #gpu-ops."


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("/gpu", "up coder-chat for 1h", CARD),
        ("/gpu", "down coder-chat", CARD),
        ("/gpu", "release coder-chat", CARD),
        ("/gpu", "report", "The report is in #gpu-ops."),
    ],
)
async def test_an_answer_names_the_channel_of_the_card(
    app: AsyncApp, svc: Services, workspace: Workspace, name: str, text: str, answer: str
) -> None:
    """In the channel of the cards, the card is the answer."""
    await store_session(svc, 1)
    await deliver(app, command(name, text))
    assert answer not in workspace.now_visible("lead")
    await deliver(app, command(name, text) | ELSEWHERE | {"trigger_id": "another"})
    assert answer in workspace.now_visible("lead")


@pytest.mark.parametrize("asked_in", ["C0RANDOM", CHANNEL, ""])
async def test_the_form_to_bring_down_answers_in_the_channel_of_its_command(
    app: AsyncApp, workspace: Workspace, asked_in: str
) -> None:
    """If a button opened the form, the card in the channel of the cards is the answer."""
    ending = Ending(models=("coder-chat",), sessions={}, asked_in=asked_in)
    await deliver(app, submission(DOWN_FORM, ending.model_dump_json(), reason="we need it"))
    assert (CARD in workspace.now_visible("lead")) is (asked_in == "C0RANDOM")


def test_the_form_of_a_change_keeps_the_channel_of_its_command() -> None:
    """The answer is posted in that channel."""
    form = change_form(ChangeForm(verb="add", asked_in="C0RANDOM"))
    assert json.loads(form["private_metadata"])["asked_in"] == "C0RANDOM"
