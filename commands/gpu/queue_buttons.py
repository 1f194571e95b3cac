"""Buttons for queued requests, for the offer to the next in line, and for the question to the holder."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.component import component
from bot.domain.requests import BringUp
from bot.engine.decisions import Decisions
from bot.engine.lifecycle import Lifecycle
from bot.gpu.queue import Queue
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.text.mrkdwn import Mrkdwn
from bot.views import ADOPT, ASK_HOLDER, LEAVE, NOT_NOW, PASS_ON, QUEUE, REPLACE, TAKE
from bot.views.modals import OBJECT_FORM, form_values, object_form
from bot.views.news import OBJECT
from bot.workflows.bring_up import BringUpPlanning
from commands.replies import ephemeral_responder, read_value, send_answer

Body = dict[str, Any]
Act = Callable[[str, str], Awaitable[Mrkdwn | None]]
"""A function of the operation's id and the user. Its result is shown only to this user."""

CHOICES = (QUEUE, LEAVE, PASS_ON, TAKE, ASK_HOLDER, NOT_NOW, REPLACE)
"""The buttons whose value is an operation and its plan."""

_ANY_PLAN = (LEAVE, PASS_ON, NOT_NOW)
"""The buttons that are valid even if the plan has changed, because leaving and declining start nothing."""


@component
class QueueButtons:
    """The buttons of a request that waits for the GPU."""

    slack: Slack
    bring_up: BringUpPlanning
    decisions: Decisions
    lifecycle: Lifecycle
    queue: Queue
    config: Config

    def register(self, app: AsyncApp) -> None:
        queue = self.queue
        choices: dict[str, Act] = {
            QUEUE: queue.join,
            LEAVE: queue.leave,
            PASS_ON: queue.leave,
            TAKE: queue.take,
            ASK_HOLDER: queue.ask_holder,
            NOT_NOW: queue.not_now,
            REPLACE: partial(self.bring_up.ask_to_replace),
        }
        for action_id in CHOICES:
            app.action(action_id)(self._clicked(choices[action_id]))

        @app.action(OBJECT)
        async def object_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            work = self._open_objection(action["value"], body["user"]["id"], body["trigger_id"])
            await send_answer(respond, work, urgent=True)

        @app.view(OBJECT_FORM)
        async def objection_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            await ack()
            (op_id, _), actor = read_value(view["private_metadata"]), body["user"]["id"]
            work = self.decisions.object_to(op_id, actor, form_values(view).get("reason", ""))
            await send_answer(ephemeral_responder(self.slack, self.config.slack.channel, actor), work)

        @app.action(ADOPT)
        async def adopt_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._adopt(action["value"], body))

    def _clicked(self, act: Act) -> Callable[..., Awaitable[None]]:
        async def clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, act_on(action["value"], action["action_id"], body["user"]["id"]))

        async def act_on(value: str, action_id: str, actor: str) -> Mrkdwn | None:
            op_id, plan_hash = read_value(value)
            if action_id not in _ANY_PLAN:
                await self.decisions.as_shown(op_id, plan_hash, against=action_id in (ASK_HOLDER, REPLACE))
            return await act(op_id, actor)

        return clicked

    async def _open_objection(self, value: str, actor: str, trigger: str) -> None:
        op = await self.decisions.may_object(read_value(value)[0], actor)
        await self.slack.open_form(trigger, object_form(op))

    async def _adopt(self, model: str, body: Body) -> None:
        """Request a lease for a model that was started manually, with the same approval and smoke tests as a bring-up."""
        reason = "it is running without a lease"
        request = BringUp(model=model, **self.lifecycle.request_fields(body["user"]["id"], reason))
        await self.lifecycle.request(request, body["trigger_id"])
