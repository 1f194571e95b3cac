"""Registers every Slack listener behind the gate, and answers unexpected errors."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.context.async_context import AsyncBoltContext

from bot.component import component
from bot.errors import Unavailable
from bot.observability.logs import about, cleaned_texts
from bot.slack.web_api import Slack
from bot.state.deliveries import Deliveries
from bot.text.mrkdwn import md
from bot.wiring import Wiring
from commands.approval import ApprovalButtons
from commands.change import ChangeForms
from commands.conversations import Conversations
from commands.gate import Gate
from commands.gpu.command import GpuCommand
from commands.gpu.queue_buttons import QueueButtons
from commands.gpu.reminder import ReminderButtons
from commands.home import HomeButtons
from commands.model import ModelCommand
from commands.next_steps import NextStepButtons
from commands.replies import Respond, acks_first, dm_responder, with_older_blocks
from commands.rollout import RollOutButtons
from commands.setup import SetupForms

log = structlog.get_logger(__name__)


class Listeners(Protocol):
    """A class that handles commands, buttons or forms."""

    def register(self, app: AsyncApp) -> None:
        """Register the listeners with Bolt."""
        ...


LISTENERS: tuple[type[Listeners], ...] = (
    GpuCommand,
    ModelCommand,
    ApprovalButtons,
    ReminderButtons,
    ChangeForms,
    QueueButtons,
    HomeButtons,
    Conversations,
    RollOutButtons,
    NextStepButtons,
    SetupForms,
)
"""The classes that register commands, buttons and forms."""


def register(app: AsyncApp, wiring: Wiring) -> None:
    """Register every Slack listener."""
    app.middleware(wiring.of(Responders).listen)
    app.middleware(wiring.of(Gate).listen)
    app.middleware(wiring.of(SetupForms).listen)
    app.error(answer_unexpected)
    for listeners in LISTENERS:
        wiring.of(listeners).register(app)


@component
class Responders:
    """Gives every click and command a function that answers it once per delivery."""

    slack: Slack
    deliveries: Deliveries

    async def listen(
        self,
        context: AsyncBoltContext,
        body: dict[str, Any],
        next: Callable[[], Awaitable[None]],  # noqa: A002
    ) -> None:
        """Add the function. A click in Home has no response_url, so its answer is a direct message."""
        acks_first.arrived()
        if context.response_url is None and context.user_id:
            context["respond"] = dm_responder(self.slack, context.user_id)
        if context.respond and (delivery := body.get("trigger_id")):
            context["offer"] = _once(self.deliveries, f"setup:{delivery}", with_older_blocks(context.respond))
            context["respond"] = _once(self.deliveries, delivery, with_older_blocks(context.respond))
        with about(actor=context.user_id or ""):
            await next()


async def answer_unexpected(error: Exception, context: AsyncBoltContext) -> None:
    """Answer an unexpected error with an id; the log has the error under the same id."""
    error_id = uuid.uuid4().hex[:8]
    log.error("unexpected error", error_id=error_id, actor=context.user_id, exc_info=error)
    if context.user_id and context.respond:
        await context.respond(
            text=md("Something unexpected went wrong. Search Stoker's log for `{error_id}`.", error_id=error_id),
            response_type="ephemeral",
            replace_original=False,
        )


def _once(deliveries: Deliveries, delivery: str, respond: Respond) -> Respond:
    """Return a responder that answers a delivery once, because Slack repeats deliveries that were not acknowledged."""

    async def answer(**message: Any) -> None:
        try:
            repeated = not await deliveries.is_first(f"answer:{delivery}")
        except Unavailable:  # a second answer is better than none
            repeated = False
        if not repeated:
            await respond(**cleaned_texts(message))

    return answer
