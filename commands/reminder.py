"""The answers to a reminder: bring it down, keep it for a while, keep it until a moment. Every click gets an answer."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Lease, Message
from bot.errors import BotError, Unavailable
from bot.operations.life import NotAllowed
from bot.operations.questions import settle
from bot.services import Services
from bot.views import BRING_DOWN, END_USE, KEEP, KEEP_UNTIL, KeepUntil, code, keep_form, settled_reminder, unmarked
from bot.watch import keep
from commands.answers import answered
from commands.gpu import down

Body = dict[str, Any]


def register(app: AsyncApp, svc: Services) -> None:
    @app.action(BRING_DOWN)
    async def bring_down(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _end(svc, action["value"], body))

    @app.action(END_USE)
    async def end_use(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _down(svc, action["value"], body))

    @app.action(KEEP)
    async def kept(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _keep(svc, action["value"], body))

    @app.action(KEEP_UNTIL)
    async def keep_until(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _ask_until(svc, action["value"], body), urgent=True)

    @app.view(KEEP_UNTIL)
    async def kept_until(ack: AsyncAck, body: Body, view: Body) -> None:
        await _kept_until(svc, ack, body["user"]["id"], view)


async def _end(svc: Services, op_id: str, body: Body) -> str | None:
    """Bring down the session of an operation, and no later one of the same model."""
    try:
        lease = await svc.leases.of_operation(op_id)
    except Unavailable as error:
        if error.system != "Redis":
            raise
        users = await svc.cluster.gpu_users()  # turning cost off works with the cluster alone
        marks = [Lease.of_mark(user.mark, user.name) for user in users]
        lease = next((mark for mark in marks if mark and mark.op == op_id), None)
    if lease is None:
        raise NotAllowed("That session is over already; `/gpu status` says who has the GPU now.")
    said = await _down(svc, lease.model, body)
    with suppress(Unavailable):  # without Redis nobody knows where else it was asked
        await settle(svc, op_id, _on_its_way(body["user"]["id"], lease.model))
    return said


def _on_its_way(actor: str, model: str) -> str:
    return f"⬇️ <@{actor}> is bringing {code(model)} down."


async def _down(svc: Services, model: str, body: Body) -> str | None:
    actor = body["user"]["id"]
    said = await down(svc, (model,), actor, body["trigger_id"])
    if body["container"]["type"] == "message":  # Home shows it by itself
        await svc.slack.update(_message(body), settled_reminder(_on_its_way(actor, model)))
    return said


async def _keep(svc: Services, op_id: str, body: Body) -> None:
    said = await keep(svc, op_id, body["user"]["id"])
    await svc.slack.update(_message(body), settled_reminder(said))


async def _ask_until(svc: Services, op_id: str, body: Body) -> None:
    lease = await svc.leases.of_operation(op_id)
    if lease is None:
        raise NotAllowed("That session is over; there is nothing to keep.")
    until = svc.clock() + svc.config.idle.keep
    form = keep_form(lease, min(until, lease.ends or until), _message(body))
    await svc.slack.open_form(body["trigger_id"], form)


async def _kept_until(svc: Services, ack: AsyncAck, actor: str, view: Body) -> None:
    """A time that cannot be is refused in the form itself; else the reminder is answered for everybody to see."""
    chosen = view["state"]["values"]["until"]["value"]["selected_date_time"]
    about = KeepUntil.model_validate_json(view["private_metadata"])
    try:
        said = await keep(svc, about.op, actor, datetime.fromtimestamp(int(chosen), UTC))
    except (BotError, Unavailable) as error:
        await ack(response_action="errors", errors={"until": unmarked(str(error))})
        return
    await ack()
    await svc.slack.update(about.message, settled_reminder(said))


def _message(body: Body) -> Message:
    container = body["container"]
    return Message(channel=container["channel_id"], ts=container["message_ts"])
