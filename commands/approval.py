"""The buttons of a card: approve, deny, cancel."""

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.component import component
from bot.engine.decisions import Decisions
from bot.policy import costs_money, must_notify
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.operations import Operations
from bot.views import (
    APPROVE,
    BECAUSE,
    BECAUSE_FORM,
    CANCEL,
    DENY,
    ROLL_OUT,
    because_form,
)
from bot.views.modals import form_values
from commands.replies import ephemeral_responder, read_value, send_answer

Body = dict[str, Any]


@component
class ApprovalButtons:
    """The buttons of a card."""

    operations: Operations
    slack: Slack
    decisions: Decisions
    config: Config

    def register(self, app: AsyncApp) -> None:
        @app.action(APPROVE)
        @app.action(ROLL_OUT)
        async def approve_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._vote(action["value"], body["user"]["id"], approve=True))

        @app.action(DENY)
        async def deny_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._vote(action["value"], body["user"]["id"], approve=False))

        @app.action(BECAUSE)
        async def because_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(
                respond, self._ask_why(action["selected_option"]["value"], body["trigger_id"]), urgent=True
            )

        @app.view(BECAUSE_FORM)
        async def because_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            await ack()
            verb, _, value = view["private_metadata"].partition(":")
            actor, reason = body["user"]["id"], form_values(view).get("reason", "")
            if verb == "cancel":
                await send_answer(
                    ephemeral_responder(self.slack, self.config.slack.channel, actor),
                    self._cancel(value, actor, reason),
                )
                return
            work = self._vote(value, actor, approve=verb != "deny", reason=reason, override=verb == "override")
            await send_answer(ephemeral_responder(self.slack, self.config.slack.channel, actor), work)

        @app.action(CANCEL)
        async def cancel_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            work = self._cancel_or_confirm(action["value"], body["user"]["id"], body["trigger_id"])
            await send_answer(respond, work, urgent=True)

    async def _vote(self, value: str, actor: str, *, approve: bool, reason: str = "", override: bool = False) -> None:
        op_id, plan_hash = read_value(value)
        await self.decisions.vote(op_id, actor, approve=approve, reason=reason, override=override, plan_hash=plan_hash)

    async def _ask_why(self, choice: str, trigger: str) -> None:
        verb, _, value = choice.partition(":")
        op_id, plan_hash = read_value(value)
        op = await (self.operations.load(op_id) if verb == "deny" else self.decisions.as_shown(op_id, plan_hash))
        await self.slack.open_form(trigger, because_form(op, verb, value))

    async def _cancel_or_confirm(self, value: str, actor: str, trigger: str) -> None:
        """Cancel; ask for a reason first if another person's model is booting. That person gets the reason."""
        op = await self.operations.load(read_value(value)[0])
        if costs_money(op) and must_notify(op.request.actor, actor) and not op.cancelled_by:
            await self.slack.open_form(trigger, because_form(op, "cancel", value))
        else:
            await self._cancel(value, actor, "")

    async def _cancel(self, value: str, actor: str, reason: str) -> None:
        op_id, _ = read_value(value)
        await self.decisions.cancel(op_id, actor, reason)
