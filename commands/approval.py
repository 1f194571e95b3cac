"""The buttons of a card: approve, deny, cancel. Every click gets an answer."""

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.operations.life import cancel, vote
from bot.services import Services
from bot.views import (
    APPROVE,
    BECAUSE,
    BECAUSE_FORM,
    CANCEL,
    DENY,
    ROLL_OUT,
    because_form,
)
from bot.views.modals import typed
from commands.answers import answered, whisperer

Body = dict[str, Any]


def register(app: AsyncApp, svc: Services) -> None:
    @app.action(APPROVE)
    @app.action(ROLL_OUT)
    async def approved(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _vote(svc, action["value"], body["user"]["id"], approve=True))

    @app.action(DENY)
    async def denied(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _vote(svc, action["value"], body["user"]["id"], approve=False))

    @app.action(BECAUSE)
    async def reason_asked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _ask_why(svc, action["selected_option"]["value"], body["trigger_id"]), urgent=True)

    @app.view(BECAUSE_FORM)
    async def reason_given(ack: AsyncAck, body: Body, view: Body) -> None:
        await ack()
        verb, _, op_id = view["private_metadata"].partition(":")
        actor, reason = body["user"]["id"], typed(view).get("reason", "")
        work = _vote(svc, op_id, actor, approve=verb != "deny", reason=reason, override=verb == "override")
        await answered(whisperer(svc, svc.config.slack.channel, actor), work)

    @app.action(CANCEL)
    async def cancelled(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _cancel(svc, action["value"], body["user"]["id"]))


async def _vote(
    svc: Services, op_id: str, actor: str, *, approve: bool, reason: str = "", override: bool = False
) -> None:
    await vote(svc, op_id, actor, approve=approve, reason=reason, override=override)


async def _ask_why(svc: Services, choice: str, trigger: str) -> None:
    verb, _, op_id = choice.partition(":")
    await svc.slack.open_form(trigger, because_form(await svc.store.load(op_id), verb))


async def _cancel(svc: Services, op_id: str, actor: str) -> None:
    await cancel(svc, op_id, actor)
