"""`/gpu`: parses the command and makes the request. `down` and `status` have their own modules."""

import dataclasses
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.component import component
from bot.domain.operations import BringUpOperation, Status
from bot.domain.requests import BringUp, Extend, Release
from bot.engine.lifecycle import Lifecycle
from bot.gpu.billing import UsageReport
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.queue import Queue
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.deliveries import Deliveries
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.text.durations import parse_duration, show_duration
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code
from bot.views.modals import extend_form
from commands.doctor import DoctorCommand
from commands.gpu.bring_down import BringingDown
from commands.gpu.status import GpuStatus
from commands.guide import ExampleNames, guide, unknown
from commands.parsing import Misunderstood, Words, is_question, names_with_hold, read
from commands.replies import Answer, card_reference, elsewhere, send_answer

Command = dict[str, Any]


@component
class BringingUp:
    """`/gpu up`."""

    example_names: ExampleNames
    lifecycle: Lifecycle
    config: Config

    async def bring_up(self, words: Words, command: Command) -> Mrkdwn | None:
        """Request one model: `up NAME [keep] [2h]`."""
        keep = any(name.lower() == "keep" for name in words.names)
        other_names = tuple(name for name in words.names if name.lower() != "keep")
        models, hold = names_with_hold(dataclasses.replace(words, names=other_names))
        if len(models) != 1:
            raise _not_one_model(models, (await self.example_names.read()).gpu)
        up = BringUp(
            model=models[0], hold=hold, keep=keep, **self.lifecycle.request_fields(command["user_id"], words.reason)
        )
        await self.lifecycle.request(up, command["trigger_id"])
        return card_reference(command.get("channel_id"), self.config.slack.channel)


@component
class Extending:
    """`/gpu extend`."""

    leases: Leases
    slack: Slack
    lease_marks: LeaseMarks
    lifecycle: Lifecycle
    config: Config

    async def extend(self, words: Words, command: Command) -> Mrkdwn | None:
        """Extend a lease: `extend 1h`, `extend NAME 1h`, `extend NAME for 1h`. Opens a form if no time is given."""
        leased = {lease.model for lease in await self.leases.held()}
        model = next((name for name in words.names if name in leased), None)
        if model is None and words.names and not words.names[0][0].isdigit():
            raise Misunderstood(
                md(
                    "{word} is neither a model with a lease nor a duration such as 45m, 2h or 1h30m. `/gpu status` shows what is up.",
                    word=code(words.names[0][:100]),
                )
            )
        time = " ".join(name for name in words.names if name != model)
        if not time and not words.hold:
            await self._ask_how_long(model or await _the_one_up(self.lease_marks), command)
            return None
        try:
            hold = words.hold or parse_duration(time)
        except ValueError as error:
            raise Misunderstood(md("Give the additional time: `/gpu extend 1h`. {error}", error=str(error))) from error
        model = model or await _the_one_up(self.lease_marks)
        await self.lifecycle.request(
            Extend(model=model, hold=hold, **self.lifecycle.request_fields(command["user_id"], words.reason)),
            command["trigger_id"],
        )
        return card_reference(command.get("channel_id"), self.config.slack.channel)

    async def _ask_how_long(self, model: str, command: Command) -> None:
        """Open the form for the time; raises Misunderstood for a mention, which cannot open a form."""
        lease = await self.leases.of(model)
        if lease is None or "response_url" not in command:
            raise Misunderstood(
                md("Give the additional time, for example {example}.", example=code(f"/gpu extend {model} 1h"))
            )
        longest = show_duration(self.config.lease.longest)
        await self.slack.open_form(command["trigger_id"], extend_form(lease, longest))


@component
class Releasing:
    """`/gpu release`."""

    lease_marks: LeaseMarks
    lifecycle: Lifecycle
    config: Config

    async def release(self, words: Words, command: Command) -> Mrkdwn | None:
        """Request the end of a lease; without a name, the end of the only lease."""
        name = words.names[0] if words.names else await _the_one_up(self.lease_marks)
        release = Release(model=name, **self.lifecycle.request_fields(command["user_id"], words.reason))
        await self.lifecycle.request(release, command["trigger_id"])
        return card_reference(command.get("channel_id"), self.config.slack.channel)


@component
class Leaving:
    """`/gpu leave`."""

    operations: Operations
    queue: Queue

    async def leave(self, actor: str) -> Mrkdwn:
        """Withdraw all requests of a person that wait for the GPU."""
        waiting = [
            op
            for op in await self.operations.open(BringUpOperation)
            if op.request.actor == actor and op.status is Status.WAITING
        ]
        for op in waiting:
            await self.queue.leave(op.id, actor)
        models = md(", ").join(code(op.request.model) for op in waiting)
        return (
            md("You no longer wait for the GPU with {models}.", models=models)
            if waiting
            else md("You are not waiting for the GPU.")
        )


@component
class Reporting:
    """`/gpu report`."""

    deliveries: Deliveries
    usage_report: UsageReport
    config: Config

    async def report(self, command: Command) -> Mrkdwn | None:
        """Post the report in the channel, once for each delivery."""
        if not await self.deliveries.is_first(f"report:{command['trigger_id']}"):
            return None  # an earlier delivery posts it
        channel = self.config.slack.channel
        refusal = await self.usage_report.post(channel)
        return refusal or elsewhere(command.get("channel_id"), channel, md("The report is in"))


@component
class GpuCommand:
    """`/gpu`."""

    bringing_down: BringingDown
    bringing_up: BringingUp
    doctor: DoctorCommand
    example_names: ExampleNames
    extending: Extending
    gpu_status: GpuStatus
    leaving: Leaving
    queue: Queue
    releasing: Releasing
    reporting: Reporting

    def register(self, app: AsyncApp) -> None:
        @app.command("/gpu")
        async def gpu(ack: AsyncAck, respond: AsyncRespond, command: Command) -> None:
            await ack()
            # Requests that may open a form do not wait for their turn.
            urgent = (command.get("text") or "").split(" ")[0].lower() in ("down", "extend")
            await send_answer(respond, self.answer(command), urgent=urgent)

    async def answer(self, command: Command) -> Answer:
        """Execute a command (`text`, `user_id`, `trigger_id`); returns the answer for its sender."""
        words = read(command.get("text") or "")
        match words.verb:
            case "" | "status":
                return await self.gpu_status.read()
            case "help":
                return guide("/gpu", " ".join(words.names), await self.example_names.read())
            case "up":
                return await self.bringing_up.bring_up(words, command)
            case "extend":
                return await self.extending.extend(words, command)
            case "queue":
                return await self.queue.describe()
            case "leave":
                return await self.leaving.leave(command["user_id"])
            case "release":
                return await self.releasing.release(words, command)
            case "doctor":
                return await self.doctor.examine(command["user_id"])
            case "down":
                form = "response_url" in command  # a mention or a direct message cannot open a form
                return await self.bringing_down.ask_down(words.names, words.reason, command, form=form)
            case "report":
                return await self.reporting.report(command)
            case _ if is_question(command["text"]):
                return await self.gpu_status.read()
            case _:
                raise unknown("/gpu", command["text"])


async def _the_one_up(lease_marks: LeaseMarks) -> str:
    """Return the only model with a lease; raises Misunderstood if there is none, or several."""
    leases = await lease_marks.held()
    if len(leases) == 1:
        return leases[0].model
    if not leases:
        raise Misunderstood("Nobody holds the GPU.")
    raise Misunderstood(
        md(
            "Several models are up: name one of {leases}.",
            leases=md(", ").join(code(lease.model) for lease in leases),
        )
    )


def _not_one_model(names: tuple[str, ...], example: str) -> Misunderstood:
    if not names:
        return Misunderstood(md("Name the model: {value}.", value=code(f"/gpu up {example} for 2h because …")))
    return Misunderstood(
        md(
            "Name one model, and then a duration such as 45m, 2h or 1h30m: {value}. {words} is not a duration.",
            value=code(f"/gpu up {names[0]} for 2h"),
            words=code(" ".join(names[1:])[:100]),
        )
    )
