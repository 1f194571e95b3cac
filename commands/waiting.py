"""The buttons of a request that waits for the GPU, of the offer to who is next, and of the question to the holder."""

from collections.abc import Awaitable, Callable
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.operations import queue
from bot.operations.gpu import ask_to_replace
from bot.operations.life import request
from bot.services import Services
from bot.views import ADOPT, ASK_HOLDER, LEAVE, NOT_NOW, PASS_ON, QUEUE, REPLACE, TAKE
from commands.answers import answered

Body = dict[str, Any]
Act = Callable[[Services, str, str], Awaitable[str | None]]

CHOICES: dict[str, Act] = {
    QUEUE: queue.join,
    LEAVE: queue.leave,
    PASS_ON: queue.leave,
    TAKE: queue.take,
    ASK_HOLDER: queue.ask_holder,
    NOT_NOW: queue.not_now,
    REPLACE: ask_to_replace,
}
"""What each button does, given the operation's id and who clicked; what it returns is told to them alone."""


def register(app: AsyncApp, svc: Services) -> None:
    for action_id, act in CHOICES.items():
        app.action(action_id)(_clicked(svc, act))

    @app.action(ADOPT)
    async def adopted(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, _adopt(svc, action["value"], body))


def _clicked(svc: Services, act: Act) -> Callable[..., Awaitable[None]]:
    async def clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
        await ack()
        await answered(respond, act(svc, action["value"], body["user"]["id"]))

    return clicked


async def _adopt(svc: Services, model: str, body: Body) -> None:
    """Give a model that somebody started by hand a lease: the same approval, and the same smoke tests, as bringing it up."""
    wanted = Request(
        kind=Kind.GPU_UP,
        model=model,
        actor=body["user"]["id"],
        channel=svc.config.slack.channel,
        at=svc.clock(),
        reason="it is running without a lease; adopt it",
    )
    await request(svc, wanted, body["trigger_id"])
