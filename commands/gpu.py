"""`/gpu`: status, bring up, bring down, extend, queue."""

import asyncio
import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.clients.cluster import Cluster
from bot.clients.workload import GpuUser
from bot.clock import Clock
from bot.component import component
from bot.domain.marks import read_mark
from bot.domain.operations import BringUpOperation, Status
from bot.domain.requests import BringUp, Extend, Release
from bot.domain.sessions import cost
from bot.engine.lifecycle import Lifecycle
from bot.errors import BotError, Unavailable
from bot.gpu.billing import UsageReport, draining, running_total
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.queue import Queue
from bot.gpu.stopping import Stopping, down_request
from bot.policy import must_hear
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.bills import Bills
from bot.state.deliveries import Deliveries
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.sessions import Sessions
from bot.text.durations import parse_duration, show_duration
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import View, actions, busy_line, code, lines, money
from bot.views.blocks import MESSAGE_BLOCKS, Block, context
from bot.views.gpu import free, requested_line
from bot.views.health import trouble_line
from bot.views.links import Links
from bot.views.modals import Ending, down_form, extend_form
from bot.views.next_steps import of_lease
from commands.doctor import DoctorCommand
from commands.guide import ExampleNames, guide, unknown
from commands.parsing import Misunderstood, Words, is_question, is_time, names_with_hold, read
from commands.replies import Answer, answered, elsewhere, requested

log = structlog.get_logger(__name__)

_DRAINS = timedelta(days=2)
"""Sessions older than this cannot still have a draining node."""


@component
class BringingDown:
    """`/gpu down`, also from a button or a form."""

    slack: Slack
    cluster: Cluster
    lease_marks: LeaseMarks
    lifecycle: Lifecycle
    stopping: Stopping
    config: Config
    clock: Clock

    async def ask_down(
        self, names: tuple[str, ...], reason: str, command: Mapping[str, Any], *, form: bool = True
    ) -> Mrkdwn | None:
        """Bring models down. A session of somebody else needs a confirmation, with a reason for its holder, but no
        approval.

        If no form can be shown, the reason is the confirmation. Without Redis there is no confirmation: stopping must
        always work.
        """
        actor, trigger = command["user_id"], command["trigger_id"]
        if times := [name for name in names[1:] if is_time(name)]:
            raise Misunderstood(
                md(
                    "{said} is not a model, and a bring-down takes effect immediately: {command}. A lease ends at its own time.",
                    said=code(" ".join(times)),
                    command=code(" ".join(["/gpu down", *(name for name in names if name not in times)])),
                )
            )
        try:
            leases = [lease for lease in await self.lease_marks.held() if not names or lease.model in names]
        except Unavailable:
            leases = []
        theirs = [lease for lease in leases if must_hear(lease.holder, actor)]
        if theirs and form:
            models = names or tuple(lease.model for lease in leases)
            sessions = {lease.model: lease.op for lease in theirs}
            ending = Ending(models=models, sessions=sessions, asked_in=command.get("channel_id") or "")
            try:
                await self.slack.open_form(trigger, down_form(ending, theirs, reason))
            except (BotError, Unavailable) as error:
                log.warning("confirmation not shown", actor=actor, error=str(error))
            else:
                return None
        if theirs and not reason:
            lease = theirs[0]
            raise Misunderstood(
                md(
                    "{model} is held by {holder}. To bring it down, give a reason: {command}.",
                    model=code(lease.model),
                    holder=person(lease.holder),
                    command=code(f"/gpu down {lease.model} because …"),
                )
            )
        answer = await self.down(names, actor, trigger, reason)
        return answer or requested(command.get("channel_id"), self.config.slack.channel)

    async def down(self, names: tuple[str, ...], actor: str, delivery: str, reason: str = "") -> Mrkdwn | None:
        """Bring a model down; without a name, the one that holds the GPU. If Redis is down, it is done synchronously
        here.
        """
        try:
            if not names:
                names = tuple(lease.model for lease in await self.lease_marks.held())
                if not names:
                    if up := await _up(self.cluster, self.config.platform.namespace):
                        commands = [
                            md("{model} ({command} ends it)", model=code(name), command=code(f"/gpu down {name}"))
                            for name in up
                        ]
                        return md("Nobody holds the GPU, but it is in use by {models}.", models=md(", ").join(commands))
                    return md("Nothing is up: nobody holds the GPU.")
            for name in names:
                request = down_request(name, actor, self.config.slack.channel, self.clock(), reason)
                await self.lifecycle.request(request, f"{delivery}:{name}")
            return None
        except Unavailable as error:
            if error.system != "Redis":
                raise
        names = names or await _up(self.cluster, self.config.platform.namespace)
        if not names:
            home = code(self.config.platform.namespace)
            return md("Redis does not answer. Nothing uses the GPU in namespace {home}.", home=home)
        return md("\n").join(await asyncio.gather(*(self._down_without_redis(name) for name in names)))

    async def _down_without_redis(self, name: str) -> Mrkdwn:
        """The result for one model; an error does not hide the others."""
        try:
            return await self.stopping.bring_down_without_redis(name)
        except (BotError, Unavailable) as error:
            return md("❌ {model}: {error}", model=code(name), error=error)


@component
class GpuStatus:
    """`/gpu status`."""

    operations: Operations
    leases: Leases
    sessions: Sessions
    bills: Bills
    cluster: Cluster
    lease_marks: LeaseMarks
    config: Config
    clock: Clock

    async def read(self) -> View:
        """The holder of the GPU, the model, the start, the cost so far, the idle time and the end of the lease. Without
        Redis, the state of the cluster.

        Below each session are the buttons to extend it and to bring it down.
        """
        users = await self.cluster.gpu_users()
        try:
            return await self._read(users)
        except Unavailable as error:
            if error.system != "Redis":
                raise
        text_lines = [
            "⚠️ Redis does not answer: nothing can be brought up until it does. This is the state of the cluster:"
        ]
        price, now = self.config.gpu.price(), self.clock()
        for user in users:
            lease = read_mark(user.mark, user.name)
            text_lines.append(
                md(
                    "🔥 {busy}\nCost so far about {usd}. `/gpu down {name}` ends it.",
                    busy=busy_line(lease, now),
                    usd=money(cost(now - lease.claimed, price)),
                    name=user.name,
                )
                if lease
                else md("🔥 {user} uses the GPU, which costs {price}/h.", user=code(str(user)), price=money(price))
            )
        return lines(md("\n").join(text_lines if users else [*text_lines, "Nothing uses the GPU."]))

    async def _read(self, users: tuple[GpuUser, ...]) -> View:
        strangers = await self.lease_marks.rebuild(users)
        now, text_lines, buttons = self.clock(), list[Mrkdwn](), list[Block]()
        leases = await self.leases.held()
        for lease in leases:
            line = md("🔥 {busy}", busy=busy_line(lease, now))
            session = await self.sessions.of(lease)
            health = await self.sessions.health(lease)
            usd, estimated = running_total(self.config.gpu, lease, await self.cluster.node_of(lease.model), now, health)
            line += md("\nCost so far {about}{usd}.", about="about " if estimated else "", usd=money(usd))
            if lease.ready and session:
                ago = show_duration(now - session.active)
                line += md(" Last active {ago} ago, {requests} requests.", ago=ago, requests=f"{session.requests:.0f}")
            if health and health.trouble:
                line += md("\n{trouble}", trouble=trouble_line(health.trouble))
            text_lines.append(line)
            buttons.append(actions(*of_lease(lease), about=lease.model))
            if pages := Links.of(self.config, place=self.cluster.whereabouts.of).about(lease.model, lease.claimed):
                buttons.append(context(pages))
        for user in strangers:
            end = (
                md(" `/gpu down {name}` ends it.", name=user.name)
                if user.namespace == self.config.platform.namespace
                else ""
            )
            text_lines.append(
                md(
                    "⚠️ {user} uses the GPU without a lease (started with kubectl?), which costs {price}/h.{end}",
                    user=code(str(user)),
                    price=money(self.config.gpu.price()),
                    end=end,
                )
            )
        leased = {lease.model for lease in leases}
        text_lines = text_lines or [free(draining(await self.bills.since(now - _DRAINS), now), now)]
        waiting = [op for op in await self.operations.open(BringUpOperation) if op.request.model not in leased]
        text_lines += [requested_line(op) for op in waiting]
        view = lines(md("\n").join(text_lines))
        return View(text=view.text, blocks=[*view.blocks[: MESSAGE_BLOCKS - len(buttons)], *buttons])


@component
class GpuCommand:
    """`/gpu`."""

    operations: Operations
    leases: Leases
    deliveries: Deliveries
    slack: Slack
    bringing_down: BringingDown
    doctor: DoctorCommand
    example_names: ExampleNames
    gpu_status: GpuStatus
    lease_marks: LeaseMarks
    lifecycle: Lifecycle
    queue: Queue
    usage_report: UsageReport
    config: Config

    def register(self, app: AsyncApp) -> None:
        @app.command("/gpu")
        async def gpu(ack: AsyncAck, respond: AsyncRespond, command: dict[str, Any]) -> None:
            await ack()
            # Requests that may open a form do not wait for their turn.
            urgent = (command.get("text") or "").split(" ")[0].lower() in ("down", "extend")
            await answered(respond, self.answer(command), urgent=urgent)

    async def answer(self, command: dict[str, Any]) -> Answer:
        """Execute a command (`text`, `user_id`, `trigger_id`); returns the answer for its sender."""
        words = read(command.get("text") or "")
        match words.verb:
            case "" | "status":
                return await self.gpu_status.read()
            case "help":
                return guide("/gpu", " ".join(words.names), await self.example_names.read())
            case "up":
                keep = any(name.lower() == "keep" for name in words.names)
                other_names = tuple(name for name in words.names if name.lower() != "keep")
                models, hold = names_with_hold(dataclasses.replace(words, names=other_names))
                if len(models) != 1:
                    raise _not_one_model(models, (await self.example_names.read()).gpu)
                up = BringUp(
                    model=models[0], hold=hold, keep=keep, **self.lifecycle.asked(command["user_id"], words.reason)
                )
                await self.lifecycle.request(up, command["trigger_id"])
                return requested(command.get("channel_id"), self.config.slack.channel)
            case "extend":
                return await self._extend(words, command)
            case "queue":
                return await self.queue.describe()
            case "leave":
                return await self._leave(command["user_id"])
            case "release":
                name = words.names[0] if words.names else await self._the_one_up()
                await self.lifecycle.request(
                    Release(model=name, **self.lifecycle.asked(command["user_id"], words.reason)), command["trigger_id"]
                )
                return requested(command.get("channel_id"), self.config.slack.channel)
            case "doctor":
                return await self.doctor.examine(command["user_id"])
            case "down":
                form = "response_url" in command  # a mention or a direct message cannot open a form
                return await self.bringing_down.ask_down(words.names, words.reason, command, form=form)
            case "report":
                if not await self.deliveries.is_first(f"report:{command['trigger_id']}"):
                    return None  # an earlier delivery posts it
                channel = self.config.slack.channel
                said_why = await self.usage_report.post(channel)
                return said_why or elsewhere(command.get("channel_id"), channel, md("The report is in"))
            case _ if is_question(command["text"]):
                return await self.gpu_status.read()
            case _:
                raise unknown("/gpu", command["text"])

    async def _the_one_up(self) -> str:
        leases = await self.lease_marks.held()
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

    async def _extend(self, words: Words, command: dict[str, Any]) -> Mrkdwn | None:
        """`extend 1h`, `extend NAME 1h`, `extend NAME for 1h`; without a time, a form asks for it."""
        leased = {lease.model for lease in await self.leases.held()}
        model = next((name for name in words.names if name in leased), None)
        if model is None and words.names and not words.names[0][0].isdigit():
            raise Misunderstood(
                md(
                    "Nobody holds a lease on {said}, and it is not a time such as 45m, 2h or 1h30m. `/gpu status` shows what is up.",
                    said=code(words.names[0][:100]),
                )
            )
        rest = " ".join(name for name in words.names if name != model)
        if not rest and not words.hold:
            await self._ask_how_long(model or await self._the_one_up(), command)
            return None
        try:
            hold = words.hold or parse_duration(rest)
        except ValueError as error:
            raise Misunderstood(md("Give the additional time: `/gpu extend 1h`. {error}", error=str(error))) from error
        model = model or await self._the_one_up()
        await self.lifecycle.request(
            Extend(model=model, hold=hold, **self.lifecycle.asked(command["user_id"], words.reason)),
            command["trigger_id"],
        )
        return requested(command.get("channel_id"), self.config.slack.channel)

    async def _ask_how_long(self, model: str, command: dict[str, Any]) -> None:
        """Open the form, if the command has a trigger for it."""
        lease = await self.leases.of(model)
        if lease is None or "response_url" not in command:
            raise Misunderstood(
                md("Give the additional time, for example {said}.", said=code(f"/gpu extend {model} 1h"))
            )
        longest = show_duration(self.config.lease.longest)
        await self.slack.open_form(command["trigger_id"], extend_form(lease, longest))

    async def _leave(self, actor: str) -> Mrkdwn:
        mine = [
            op
            for op in await self.operations.open(BringUpOperation)
            if op.request.actor == actor and op.status is Status.WAITING
        ]
        for op in mine:
            await self.queue.leave(op.id, actor)
        models = md(", ").join(code(op.request.model) for op in mine)
        return (
            md("You no longer wait for the GPU with {left}.", left=models)
            if mine
            else md("You are not waiting for the GPU.")
        )


def _not_one_model(names: tuple[str, ...], example: str) -> Misunderstood:
    if not names:
        return Misunderstood(md("Name the model: {value}.", value=code(f"/gpu up {example} for 2h because …")))
    return Misunderstood(
        md(
            "Name one model, and then the time as 45m, 2h or 1h30m: {value}. {rest} is neither.",
            value=code(f"/gpu up {names[0]} for 2h"),
            rest=code(" ".join(names[1:])[:100]),
        )
    )


async def _up(cluster: Cluster, namespace: str) -> tuple[str, ...]:
    """The models that use a GPU, according to the cluster."""
    users = await cluster.gpu_users()
    return tuple(user.name for user in users if (user.kind, user.namespace) == ("Deployment", namespace))
