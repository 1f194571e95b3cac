"""The buttons on the card of an operation that has ended: bring up, retry, revert. `commands.home` and
`commands.gpu.reminder` handle *Extend* and *Bring down*.
"""

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.clock import Clock
from bot.component import component
from bot.domain.operations import ChangeOperation, Operation, Status
from bot.domain.requests import AnyRequest, BringUp, ChangeRequest, RevertChange, operation_id
from bot.engine.lifecycle import Lifecycle, NotAllowed
from bot.errors import BotError
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.leases import Leases
from bot.state.operations import OperationNotFound, Operations
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import code
from bot.views.home import up_form
from bot.views.next_steps import BRING_UP, RETRY, REVERT, can_bring_up, can_retry
from commands.change import Changes
from commands.replies import send_answer

Body = dict[str, Any]

_REFUSALS = 100
"""Maximum number of refused attempts to skip; each requires a read from Redis."""


@component
class NextStepButtons:
    """The buttons on the card of an operation that has ended."""

    operations: Operations
    leases: Leases
    slack: Slack
    changes: Changes
    lifecycle: Lifecycle
    config: Config
    clock: Clock

    def register(self, app: AsyncApp) -> None:
        @app.action(BRING_UP)
        async def bring_up_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._open_up_form(action["value"], body["trigger_id"]), urgent=True)

        @app.action(RETRY)
        async def retry_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._retry(action["value"], body["user"]["id"]))

        @app.action(REVERT)
        async def revert_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._revert(action["value"], body))

    async def _open_up_form(self, op_id: str, trigger: str) -> None:
        op = await self.operations.load(op_id)
        lease = await self.leases.of(op.request.model)
        if lease is not None or not can_bring_up(op):
            holder = md(" {holder} has it.", holder=person(lease.holder)) if lease else md("")
            model = code(op.request.model)
            raise NotAllowed(
                md("There is a newer request for {model}.{holder} See `/gpu status`.", model=model, holder=holder)
            )
        limits = self.config.lease
        form = up_form((op.request.model,), show_duration(limits.default), show_duration(limits.longest))
        await self.slack.open_form(trigger, form)

    async def _retry(self, op_id: str, actor: str) -> Mrkdwn | None:
        """Make the same request again, for the person who clicks. A second click is refused, unless the first attempt was
        refused.
        """
        op = await self.operations.load(op_id)
        for attempt in range(_REFUSALS):
            delivery = f"retry:{op.id}:{attempt}"
            try:
                repeated = await self.operations.load(operation_id(delivery))
            except OperationNotFound:
                if not can_retry(op):
                    raise NotAllowed("There is a newer request: see the newest card.") from None
                return await self._ask(self._repeat(op, actor), delivery)
            if repeated.status is not Status.REFUSED:
                break
        raise NotAllowed(md("{actor} has already requested this again.", actor=person(repeated.request.actor)))

    def _repeat(self, op: Operation, actor: str) -> AnyRequest:
        """Return a copy of the request. The copy needs its own approval, even if a roll-out's approval covered the first request."""
        changes: dict[str, object] = {"actor": actor, "at": self.clock()}
        if isinstance(op.request, BringUp):
            changes["part_of"] = ""
        return op.request.model_copy(update=changes)

    async def _ask(self, request: AnyRequest, delivery: str) -> Mrkdwn | None:
        if isinstance(request, ChangeRequest):
            return await self.changes.ask(request, delivery)
        await self.lifecycle.request(request, delivery)
        return None

    async def _revert(self, op_id: str, body: Body) -> Mrkdwn | None:
        op = await self.operations.load(op_id)
        if not isinstance(op, ChangeOperation) or op.plan is None:
            raise BotError("That request has no pull request, so there is nothing to revert.")
        request = RevertChange(
            model=op.request.model,
            actor=body["user"]["id"],
            channel=op.request.channel,
            at=self.clock(),
            reverts=op.id,
        )
        return await self.changes.ask(request, body["trigger_id"])
