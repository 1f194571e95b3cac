"""The buttons of reminders and of other messages about a session: bring down, restart, keep."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.clients.cluster import Cluster
from bot.clock import Clock
from bot.component import component
from bot.domain.marks import read_mark
from bot.domain.values import Message
from bot.engine.lifecycle import NotAllowed
from bot.errors import BotError, Unavailable
from bot.gpu.holder_prompts import HolderPrompts
from bot.gpu.watch import Keeping
from bot.policy import must_notify
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.slack.web_api import Slack
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import BRING_DOWN, END_USE, KEEP, KEEP_UNTIL, KeepUntil, code, keep_form, settled_reminder
from bot.views.health import RESTART
from bot.views.modals import DOWN_FORM, Ending, down_form, form_values
from bot.workflows.restart import RestartRequests
from commands.gpu.bring_down import BringingDown
from commands.replies import card_reference, ephemeral_responder, send_answer

Body = dict[str, Any]


@component
class ReminderButtons:
    """The buttons of messages about a session."""

    operations: Operations
    leases: Leases
    slack: Slack
    presentation: Presentation
    cluster: Cluster
    bringing_down: BringingDown
    holder_prompts: HolderPrompts
    keeping: Keeping
    restart_requests: RestartRequests
    config: Config
    clock: Clock

    def register(self, app: AsyncApp) -> None:
        @app.action(BRING_DOWN)
        async def bring_down_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._end(action["value"], body), urgent=True)

        @app.action(RESTART)
        async def restart_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._restart(action["value"], body))

        @app.action(END_USE)
        async def end_use_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._down(action["value"], body))

        @app.view(DOWN_FORM)
        async def down_form_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            await ack()
            ending, actor = Ending.model_validate_json(view["private_metadata"]), body["user"]["id"]
            work = self._end_theirs(ending, actor, form_values(view).get("reason", ""), view["id"])
            channel = ending.asked_in or self.config.slack.channel
            await send_answer(ephemeral_responder(self.slack, channel, actor), work)

        @app.action(KEEP)
        async def keep_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._keep(action["value"], body))

        @app.action(KEEP_UNTIL)
        async def keep_until_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._ask_until(action["value"], body), urgent=True)

        @app.view(KEEP_UNTIL)
        async def keep_form_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            await self._kept_until(ack, body["user"]["id"], view)

    async def _end(self, op_id: str, body: Body) -> Mrkdwn | None:
        """Bring down the session of an operation, but not a later session of the same model. Another person's session
        needs a confirmation.
        """
        actor = body["user"]["id"]
        try:
            lease = await self.leases.of_operation(op_id)
            is_foreign = lease is not None and must_notify(lease.holder, actor)
        except Unavailable as error:
            if error.system != "Redis":
                raise
            users = await self.cluster.gpu_users()  # without Redis, the leases are read from the cluster
            marks = [read_mark(user.mark, user.name) for user in users]
            lease, is_foreign = next((mark for mark in marks if mark and mark.op == op_id), None), False
        if lease is None:
            raise NotAllowed(md("That session has already ended; `/gpu status` shows who has the GPU now."))
        if is_foreign:
            ending = Ending(models=(lease.model,), sessions={lease.model: lease.op})
            await self.slack.open_form(body["trigger_id"], down_form(ending, (lease,), ""))
            return None
        answer = await self._down(lease.model, body, op_id)
        with suppress(Unavailable):  # without Redis, the other messages with this question are unknown
            await self.holder_prompts.announce_end(op_id, _on_its_way(actor, lease.model))
        return answer

    async def _end_theirs(self, ending: Ending, actor: str, reason: str, delivery: str) -> Mrkdwn | None:
        """Bring down the confirmed sessions, unless one has ended since the form was opened."""
        for model, op_id in ending.sessions.items():
            lease = await self.leases.of_operation(op_id)
            if lease is None:
                raise NotAllowed(
                    md(
                        "That session of {model} has already ended; `/gpu status` shows who has the GPU now.",
                        model=code(model),
                    )
                )
        answer = await self.bringing_down.down(ending.models, actor, delivery, reason)
        with suppress(Unavailable):  # the bring-down is requested; only the messages with the question stay outdated
            for model, op_id in ending.sessions.items():
                await self.holder_prompts.announce_end(op_id, _on_its_way(actor, model))
        return answer or (card_reference(ending.asked_in, self.config.slack.channel) if ending.asked_in else None)

    async def _down(self, model: str, body: Body, op_id: str = "") -> Mrkdwn | None:
        actor = body["user"]["id"]
        answer = await self.bringing_down.down((model,), actor, body["trigger_id"])
        with suppress(Unavailable):  # without Redis, the message stays as it is; the answer has the result
            if _is_settled_here(body) and not await self._is_card(op_id, _message(body)):
                await self.presentation.edit(_message(body), settled_reminder(_on_its_way(actor, model)))
        return answer

    async def _is_card(self, op_id: str, message: Message) -> bool:
        """Return whether the message is the operation's card, which is updated with the operation."""
        with suppress(BotError):
            return bool(op_id) and (await self.operations.load(op_id)).message == message
        return False

    async def _restart(self, op_id: str, body: Body) -> None:
        answer = await self.restart_requests.ask(op_id, body["user"]["id"])
        if body["container"]["type"] == "message":  # Home updates automatically
            await self.presentation.edit(_message(body), settled_reminder(answer))

    async def _keep(self, op_id: str, body: Body) -> None:
        answer = await self.keeping.keep(op_id, body["user"]["id"])
        await self.presentation.edit(_message(body), settled_reminder(answer))

    async def _ask_until(self, op_id: str, body: Body) -> None:
        lease = await self.leases.of_operation(op_id)
        if lease is None:
            raise NotAllowed("That session has ended, so there is nothing to keep.")
        until = self.clock() + self.config.idle.keep
        form = keep_form(lease, min(until, lease.ends or until), _message(body))
        await self.slack.open_form(body["trigger_id"], form)

    async def _kept_until(self, ack: AsyncAck, actor: str, view: Body) -> None:
        """Keep the model until the chosen time, and update the reminder. An invalid time is reported in the form."""
        chosen = view["state"]["values"]["until"]["value"]["selected_date_time"]
        form = KeepUntil.model_validate_json(view["private_metadata"])
        try:
            answer = await self.keeping.keep(form.op, actor, datetime.fromtimestamp(int(chosen), UTC))
        except (BotError, Unavailable) as error:
            await ack(response_action="errors", errors={"until": str(error)})
            return
        await ack()
        await self.presentation.edit(form.message, settled_reminder(answer))


def _is_settled_here(body: Body) -> bool:
    """Return whether the answer replaces the clicked message. Home and the answer to a command cannot be replaced."""
    container = body["container"]
    return bool(container["type"] == "message" and not container.get("is_ephemeral"))


def _on_its_way(actor: str, model: str) -> Mrkdwn:
    return md("⬇️ {actor} is bringing {model} down.", actor=person(actor), model=code(model))


def _message(body: Body) -> Message:
    container = body["container"]
    return Message(channel=container["channel_id"], ts=container["message_ts"])
