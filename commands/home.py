"""App Home: shown when somebody opens it, with buttons that open forms."""

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.durations import parse_duration, show_duration
from bot.errors import BotError
from bot.operations.endpoints import all_endpoints
from bot.operations.home import publish
from bot.operations.life import request
from bot.services import Services
from bot.views.home import HOME_ADD, HOME_UP, UP_FORM, up_form
from bot.views.modals import loading, typed
from commands.answers import answered, teller
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
        await answered(respond, open_form(svc, "add", "", body["trigger_id"]))

    @app.action(HOME_UP)
    async def up(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
        await ack()
        await answered(respond, _open_up_form(svc, body["trigger_id"]))

    @app.view(UP_FORM)
    async def asked(ack: AsyncAck, body: Body, view: Body) -> None:
        values = typed(view)
        try:
            hold = parse_duration(values["hold"]) if "hold" in values else None
        except ValueError as error:
            await ack(response_action="errors", errors={"hold": str(error)})
            return
        await ack()
        actor = body["user"]["id"]
        wanted = Request(
            kind=Kind.GPU_UP,
            model=values["model"],
            actor=actor,
            channel=svc.config.slack.channel,
            at=svc.clock(),
            hold=hold,
            reason=values.get("reason", ""),
        )
        await answered(teller(svc, actor), _up(svc, wanted, view["id"]))


async def _open_up_form(svc: Services, trigger_id: str) -> None:
    view_id = await svc.slack.open_form(trigger_id, loading("Bring up a model"))
    found = await all_endpoints(svc, await svc.repository.head())
    names = tuple(endpoint.name for endpoint in found if endpoint.gpus)
    if not names:
        raise BotError("There is no endpoint that needs the GPU; `/model add` makes one.")
    lease = svc.config.lease
    await svc.slack.update_form(view_id, up_form(names, show_duration(lease.default), show_duration(lease.longest)))


async def _up(svc: Services, wanted: Request, delivery: str) -> str:
    await request(svc, wanted, delivery)
    return f"Asked for, in <#{wanted.channel}>: an approver decides there."
