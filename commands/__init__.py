"""What people can ask in Slack: one file per noun. Parse, decide, enqueue, answer."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.context.async_context import AsyncBoltContext

from bot.errors import Unavailable
from bot.logs import about
from bot.services import Services
from commands import approval, change, gpu, home, mention, model, reminder, rollout, waiting
from commands.answers import Respond, acks_first, teller

log = structlog.get_logger(__name__)


def register(app: AsyncApp, svc: Services) -> None:
    """Every listener of the app; nothing else listens."""

    @app.middleware
    async def answerable(context: AsyncBoltContext, body: dict[str, Any], next: Callable[[], Awaitable[None]]) -> None:  # noqa: A002
        """A click in Home comes without a response_url: it is answered by a direct message. No delivery is answered twice."""
        acks_first.arrived()
        if context.response_url is None and context.user_id:
            context["respond"] = teller(svc, context.user_id)
        if context.respond and (delivery := body.get("trigger_id")):
            context["respond"] = _once(svc, delivery, context.respond)
        with about(actor=context.user_id or ""):
            await next()

    @app.error
    async def unexpected(error: Exception, context: AsyncBoltContext) -> None:
        """What no listener expected: an id for the person, the rest for the log."""
        error_id = uuid.uuid4().hex[:8]
        log.error("unexpected error", error_id=error_id, actor=context.user_id, exc_info=error)
        if context.user_id and context.respond:
            await context.respond(
                text=f"Something unexpected went wrong. Search Stoker's log for `{error_id}`.",
                response_type="ephemeral",
                replace_original=False,
            )

    gpu.register(app, svc)
    model.register(app, svc)
    approval.register(app, svc)
    reminder.register(app, svc)
    change.register(app, svc)
    waiting.register(app, svc)
    home.register(app, svc)
    mention.register(app, svc)
    rollout.register(app, svc)


def _once(svc: Services, delivery: str, respond: Respond) -> Respond:
    """The answer to one delivery: Slack sends a command or click again when it did not get the acknowledgement."""

    async def answer(**said: Any) -> None:
        try:
            repeated = not await svc.store.first(f"answer:{delivery}")
        except Unavailable:  # rather twice than not at all
            repeated = False
        if not repeated:
            await respond(**said)

    return answer
