"""The buttons: approve, deny, cancel; and the answers to a reminder. Every click gets an answer."""

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Message
from bot.idle import keep
from bot.operations.life import cancel, vote
from bot.services import Services
from bot.views import (
    APPROVE,
    BECAUSE,
    BECAUSE_FORM,
    BRING_DOWN,
    CANCEL,
    DENY,
    KEEP,
    ROLL_OUT,
    because_form,
    code,
    settled_reminder,
)
from commands.answers import answered, whisperer
from commands.gpu import down

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
        await answered(respond, _ask_why(svc, action["selected_option"]["value"], body["trigger_id"]))

    @app.view(BECAUSE_FORM)
    async def reason_given(ack: AsyncAck, body: Body, view: Body) -> None:
        await ack()
        verb, _, op_id = view["private_metadata"].partition(":")
        actor, reason = body["user"]["id"], view["state"]["values"]["reason"]["value"]["value"].strip()
        work = _vote(svc, op_id, actor, approve=verb == "approve", reason=reason)
        await answered(whisperer(svc, svc.config.slack.channel, actor), work)

    @app.action(CANCEL)
    async def cancelled(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _cancel(svc, action["value"], body["user"]["id"]))

    @app.action(BRING_DOWN)
    async def bring_down(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _down(svc, action["value"], body))

    @app.action(KEEP)
    async def kept(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _keep(svc, action["value"], body))


async def _vote(svc: Services, op_id: str, actor: str, *, approve: bool, reason: str = "") -> None:
    await vote(svc, op_id, actor, approve=approve, reason=reason)


async def _ask_why(svc: Services, choice: str, trigger: str) -> None:
    verb, _, op_id = choice.partition(":")
    await svc.slack.open_form(trigger, because_form(await svc.store.load(op_id), verb))


async def _cancel(svc: Services, op_id: str, actor: str) -> None:
    await cancel(svc, op_id, actor)


async def _down(svc: Services, model: str, body: Body) -> str | None:
    actor = body["user"]["id"]
    said = await down(svc, (model,), actor, body["trigger_id"])
    await svc.slack.update(_message(body), settled_reminder(f"⬇️ <@{actor}> is bringing {code(model)} down."))
    return said


async def _keep(svc: Services, value: str, body: Body) -> None:
    model, _, fence = value.rpartition(":")
    said = await keep(svc, model, int(fence), body["user"]["id"])
    await svc.slack.update(_message(body), settled_reminder(said))


def _message(body: Body) -> Message:
    container = body["container"]
    return Message(channel=container["channel_id"], ts=container["message_ts"])
