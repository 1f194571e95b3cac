"""App Home: publishes it when a person opens it, and handles its buttons and forms."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.component import component
from bot.domain.leases import Lease
from bot.domain.requests import BringUp, Extend
from bot.engine.lifecycle import Lifecycle
from bot.errors import BotError
from bot.git.repository import Repository
from bot.home import AppHome
from bot.platform.endpoints import Endpoints
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.leases import Leases
from bot.text.durations import parse_duration, show_duration
from bot.text.mrkdwn import Mrkdwn, md
from bot.views.endpoint_list import HOME_NEXT, HOME_PREVIOUS, HOME_SEARCH, Search
from bot.views.home import HOME_ADD, HOME_UP, UP_FORM, up_form
from bot.views.modals import EXTEND_FORM, extend_form, form_values
from bot.views.next_steps import EXTEND
from commands.change import Changes
from commands.replies import dm_responder, open_and_fill, send_answer

Body = dict[str, Any]


@component
class HomeButtons:
    """App Home, and the forms that its buttons open."""

    leases: Leases
    slack: Slack
    repository: Repository
    app_home: AppHome
    changes: Changes
    endpoints: Endpoints
    lifecycle: Lifecycle
    config: Config

    def register(self, app: AsyncApp) -> None:
        @app.event("app_home_opened")
        async def home_opened(ack: AsyncAck, event: Body) -> None:
            await ack()
            if event.get("tab") == "home":
                await self.app_home.publish(event["user"])

        @app.action(HOME_ADD)
        async def add_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
            await ack()
            await send_answer(respond, self.changes.open_form("add", "", body["trigger_id"]), urgent=True)

        @app.action(HOME_UP)
        async def up_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
            await ack()
            await send_answer(respond, self._open_up_form(body["trigger_id"]), urgent=True)

        @app.action(re.compile(f"^({HOME_PREVIOUS}|{HOME_NEXT})$"))
        async def page_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self.app_home.look_for(body["user"]["id"], Search.of_value(action["value"])))

        @app.action(HOME_SEARCH)
        async def search_entered(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(
                respond, self.app_home.look_for(body["user"]["id"], Search.read(action.get("value") or ""))
            )

        @app.action(EXTEND)
        async def extend_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._open_extend_form(action["value"], body["trigger_id"]), urgent=True)

        @app.view(EXTEND_FORM)
        async def extend_form_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            values = form_values(view)
            if (hold := await _read_hold(ack, values)) is None:
                return
            await ack()
            actor, reason = body["user"]["id"], values.get("reason", "")
            work = self._extend(view["private_metadata"], actor, hold, reason, delivery=view["id"])
            await send_answer(dm_responder(self.slack, actor), work)

        @app.view(UP_FORM)
        async def up_form_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            values = form_values(view)
            hold = None
            if "hold" in values and (hold := await _read_hold(ack, values)) is None:
                return
            await ack()
            actor, reason = body["user"]["id"], values.get("reason", "")
            request = BringUp(model=values["model"], hold=hold, **self.lifecycle.request_fields(actor, reason))
            await send_answer(dm_responder(self.slack, actor), self._ask(request, view["id"]))

    async def _open_extend_form(self, op_id: str, trigger_id: str) -> None:
        lease = await _session(self.leases, op_id)
        await self.slack.open_form(trigger_id, extend_form(lease, show_duration(self.config.lease.longest)))

    async def _extend(self, op_id: str, actor: str, hold: timedelta, reason: str, *, delivery: str) -> Mrkdwn:
        """Extend the session for which the form was opened, but not a later session of the same model."""
        lease = await _session(self.leases, op_id)
        return await self._ask(
            Extend(model=lease.model, hold=hold, **self.lifecycle.request_fields(actor, reason)), delivery
        )

    async def _open_up_form(self, trigger_id: str) -> None:
        async def fill() -> Body:
            endpoints = await self.endpoints.all(await self.repository.head())
            names = tuple(endpoint.name for endpoint in endpoints if endpoint.gpus)
            if not names:
                raise BotError(md("There is no endpoint that needs the GPU; `/model add` adds one."))
            return up_form(names, show_duration(self.config.lease.default), show_duration(self.config.lease.longest))

        await open_and_fill(self.slack, trigger_id, "Bring up a model", fill)

    async def _ask(self, request: BringUp | Extend, delivery: str) -> Mrkdwn:
        await self.lifecycle.request(request, delivery)
        return md("Requested: the card is in <#{channel}>.", channel=request.channel)


async def _read_hold(ack: AsyncAck, values: Mapping[str, str]) -> timedelta | None:
    """Read the duration from the form. Reports an invalid one beside the field, and returns None."""
    try:
        return parse_duration(values["hold"])
    except ValueError as error:
        await ack(response_action="errors", errors={"hold": str(error)})
        return None


async def _session(leases: Leases, op_id: str) -> Lease:
    lease = await leases.of_operation(op_id)
    if lease is None:
        raise BotError("That session has ended, so there is no lease to extend.")
    return lease
