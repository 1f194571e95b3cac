"""The answers to a reminder: bring it down, keep it for a while, keep it until a moment. Every click gets an answer."""

from datetime import UTC, datetime
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Message
from bot.errors import BotError, Unavailable
from bot.operations.life import NotAllowed
from bot.services import Services
from bot.views import BRING_DOWN, KEEP, KEEP_UNTIL, KeepUntil, code, keep_form, settled_reminder, unmarked
from bot.watch import keep
from commands.answers import answered
from commands.gpu import down

Body = dict[str, Any]


def register(app: AsyncApp, svc: Services) -> None:
    @app.action(BRING_DOWN)
    async def bring_down(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
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


async def _down(svc: Services, model: str, body: Body) -> str | None:
    actor = body["user"]["id"]
    said = await down(svc, (model,), actor, body["trigger_id"])
    if body["container"]["type"] == "message":  # Home shows it by itself
        await svc.slack.update(_message(body), settled_reminder(f"⬇️ <@{actor}> is bringing {code(model)} down."))
    return said


async def _keep(svc: Services, value: str, body: Body) -> None:
    model, _, fence = value.rpartition(":")
    said = await keep(svc, model, int(fence), body["user"]["id"])
    await svc.slack.update(_message(body), settled_reminder(said))


async def _ask_until(svc: Services, value: str, body: Body) -> None:
    model, _, fence = value.rpartition(":")
    lease = await svc.leases.of(model)
    if lease is None or str(lease.fence) != fence:
        raise NotAllowed(f"That session of {code(model)} is over; there is nothing to keep.")
    until = svc.clock() + svc.config.idle.keep
    form = keep_form(lease, min(until, lease.ends or until), _message(body))
    await svc.slack.open_form(body["trigger_id"], form)


async def _kept_until(svc: Services, ack: AsyncAck, actor: str, view: Body) -> None:
    """A time that cannot be is refused in the form itself; else the reminder is answered for everybody to see."""
    chosen = view["state"]["values"]["until"]["value"]["selected_date_time"]
    about = KeepUntil.model_validate_json(view["private_metadata"])
    try:
        said = await keep(svc, about.model, about.fence, actor, datetime.fromtimestamp(int(chosen), UTC))
    except (BotError, Unavailable) as error:
        await ack(response_action="errors", errors={"until": unmarked(str(error))})
        return
    await ack()
    await svc.slack.update(about.message, settled_reminder(said))


def _message(body: Body) -> Message:
    container = body["container"]
    return Message(channel=container["channel_id"], ts=container["message_ts"])
