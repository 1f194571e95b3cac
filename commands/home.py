"""App Home: shown when somebody opens it, with buttons that open forms."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.durations import parse_duration, show_duration
from bot.errors import BotError
from bot.operations.endpoints import all_endpoints
from bot.operations.home import publish
from bot.operations.life import request
from bot.services import Services
from bot.views.home import HOME_ADD, HOME_EXTEND, HOME_UP, UP_FORM, up_form
from bot.views.modals import EXTEND_FORM, extend_form, typed
from commands.answers import answered, open_filled, teller
from commands.change import open_form

Body = dict[str, Any]


def register(app: AsyncApp, svc: Services) -> None:
    @app.event("app_home_opened")
    async def opened(ack: AsyncAck, event: Body) -> None:
        await ack()
        if event.get("tab") == "home":
            await publish(svc, event["user"])

    @app.action(HOME_ADD)
    async def add(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
        await ack()
        await answered(respond, open_form(svc, "add", "", body["trigger_id"]), urgent=True)

    @app.action(HOME_UP)
    async def up(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
        await ack()
        await answered(respond, _open_up_form(svc, body["trigger_id"]), urgent=True)

    @app.action(HOME_EXTEND)
    async def extend(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _open_extend_form(svc, action["value"], body["trigger_id"]), urgent=True)

    @app.view(EXTEND_FORM)
    async def extended(ack: AsyncAck, body: Body, view: Body) -> None:
        values = typed(view)
        if (hold := await _read_hold(ack, values)) is None:
            return
        await ack()
        actor, reason = body["user"]["id"], values.get("reason", "")
        wanted = _wanted(svc, Kind.GPU_EXTEND, view["private_metadata"], actor, hold, reason)
        await answered(teller(svc, actor), _ask(svc, wanted, view["id"]))

    @app.view(UP_FORM)
    async def asked(ack: AsyncAck, body: Body, view: Body) -> None:
        values = typed(view)
        hold = None
        if "hold" in values and (hold := await _read_hold(ack, values)) is None:
            return
        await ack()
        actor, reason = body["user"]["id"], values.get("reason", "")
        wanted = _wanted(svc, Kind.GPU_UP, values["model"], actor, hold, reason)
        await answered(teller(svc, actor), _ask(svc, wanted, view["id"]))


async def _read_hold(ack: AsyncAck, values: Mapping[str, str]) -> timedelta | None:
    """How long; what is no duration is said beside the field."""
    try:
        return parse_duration(values["hold"])
    except ValueError as error:
        await ack(response_action="errors", errors={"hold": str(error)})
        return None


def _wanted(svc: Services, kind: Kind, model: str, actor: str, hold: timedelta | None, reason: str) -> Request:
    channel = svc.config.slack.channel
    return Request(kind=kind, model=model, actor=actor, channel=channel, at=svc.clock(), hold=hold, reason=reason)


async def _open_extend_form(svc: Services, op_id: str, trigger_id: str) -> None:
    lease = await svc.leases.of_operation(op_id)
    if lease is None:
        raise BotError("That session is over by now, so there is no lease to extend.")
    await svc.slack.open_form(trigger_id, extend_form(lease.model, lease.ends, show_duration(svc.config.lease.longest)))


async def _open_up_form(svc: Services, trigger_id: str) -> None:
    async def fill() -> Body:
        found = await all_endpoints(svc, await svc.repository.head())
        names = tuple(endpoint.name for endpoint in found if endpoint.gpus)
        if not names:
            raise BotError("There is no endpoint that needs the GPU; `/model add` makes one.")
        return up_form(names, show_duration(svc.config.lease.default), show_duration(svc.config.lease.longest))

    await open_filled(svc, trigger_id, "Bring up a model", fill)


async def _ask(svc: Services, wanted: Request, delivery: str) -> str:
    await request(svc, wanted, delivery)
    return f"Asked for: see its message in <#{wanted.channel}>."
