"""The buttons below a card: take a roll-out back, let tenants' keys call a new alias, keep a benchmark's report."""

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.operations import keys
from bot.operations.bench import keep_report
from bot.services import Services
from bot.views.bench import KEEP_REPORT
from bot.views.rollout import LET_IN, LET_IN_FORM, REVERT, keys_form
from commands.answers import answered, open_filled, whisperer
from commands.change import ask

Body = dict[str, Any]


def register(app: AsyncApp, svc: Services) -> None:
    @app.action(REVERT)
    async def reverted(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _revert(svc, action["value"], body))

    @app.action(LET_IN)
    async def asked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _open(svc, action["value"], body), urgent=True)

    @app.action(KEEP_REPORT)
    async def kept(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, keep_report(svc, action["value"], body["user"]["id"]))

    @app.view(LET_IN_FORM)
    async def chosen(ack: AsyncAck, body: Body, view: Body) -> None:
        await ack()
        picked = view["state"]["values"]["keys"]["value"]["selected_options"]
        hashes = frozenset(str(option["value"]) for option in picked)
        actor = body["user"]["id"]
        work = keys.let_in(svc, view["private_metadata"], hashes, actor)
        await answered(whisperer(svc, svc.config.slack.channel, actor), work)


async def _revert(svc: Services, op_id: str, body: Body) -> str | None:
    op = await svc.store.load(op_id)
    wanted = Request(
        kind=Kind.MODEL_REVERT,
        model=op.request.model,
        actor=body["user"]["id"],
        channel=op.request.channel,
        at=svc.clock(),
        reverts=op.id,
    )
    return await ask(svc, wanted, body["trigger_id"])


async def _open(svc: Services, op_id: str, body: Body) -> None:
    async def fill() -> Body:
        alias, found = await keys.outsiders(svc, op_id, body["user"]["id"])
        return keys_form(op_id, alias, found)

    await open_filled(svc, body["trigger_id"], "Let keys call it", fill)
